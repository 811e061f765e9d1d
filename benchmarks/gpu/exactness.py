"""Whether output is the target's own on this device, in float32: chains, trees, batches, sampling."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speckv.benchmarks.gpu.models import make
from speckv.controller.policies.fixed import FixedPolicy
from speckv.controller.policy import SIBLINGS, Policy, Round, Siblings
from speckv.integrations.models.loading import perturbed
from speckv.integrations.transformers import attach_policy, detach, stats

TOKENS, PROMPT = 48, 16
NOISE = 0.2
LARGE_WEIGHTS = 0.15
"""So that what a row sees decides what it says."""

SEQUENCES, SHORT, JUDGED = 4096, 4, 2
"""Sampled, of so many tokens each, a fourth of them at once; and which of the tokens is judged: the first is the
prompt's, so the second is the first that can have been drafted."""

RARE = 5.0
"""Expected counts below this are put together."""


class AllSiblings(FixedPolicy):
    """A fixed γ, with every sibling."""

    def choose(self, this: Round) -> Siblings | None:
        return np.ones((this.size, this.gamma, SIBLINGS), dtype=np.bool_)


def check(device: torch.device, sequences: int = SEQUENCES) -> Iterator[dict[str, Any]]:
    """A row for every way of decoding: of greedy ones whether the tokens are ``identical``, of sampling a p-value."""
    target = make("tiny", device, torch.float32, initializer_range=LARGE_WEIGHTS)
    draft = perturbed(target, NOISE)
    chain, tree = FixedPolicy(4), AllSiblings(4)
    for batch in (1, 4):
        ids = torch.randint(1, 256, (batch, PROMPT), generator=torch.Generator().manual_seed(batch))
        mask = torch.ones_like(ids)
        mask[batch // 2, : PROMPT // 4] = 0 if batch > 1 else 1
        inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        settings = {"max_new_tokens": TOKENS, "do_sample": False}
        plain = target.generate(**inputs, **settings)
        for name, policy in (("chain", chain), ("tree", tree)):
            with _attached(target, draft, policy):
                found = target.generate(**inputs, **settings, assistant_model=draft)
                counted = stats(target).as_dict()
            row = {"what": "greedy", "shape": name, "batch": batch, "identical": bool(torch.equal(plain, found))}
            yield row | {"accepted": counted["accepted"], "sibling_hits": sum(counted["sibling_hits"].values())}
    for name, policy in (("chain", chain), ("tree", tree)):
        yield {"what": "sampling", "shape": name, "sequences": sequences} | _sampled(target, draft, policy, sequences)


def synchronisations(device: torch.device, batch: int) -> dict[str, Any]:
    """How often the host waits for the device where every level is asked about; nothing on a CPU.

    ``per_level``: by torch's profiler, per level drafted for all of ``batch`` sequences, without the read that a verify
    takes. ``where``: lines of Python that waited, and how often, in ``rounds`` rounds.
    """
    if device.type != "cuda":
        return {}
    from torch.profiler import ProfilerActivity, profile

    class Asking(FixedPolicy):
        asks = per_level = True

        def deepen(self, this: Round) -> int:
            return self.gamma

    target = make("tiny", device, torch.float32)
    draft = perturbed(target, NOISE)
    ids = torch.ones(batch, PROMPT, dtype=torch.long, device=device)
    settings: dict[str, Any] = {"max_new_tokens": TOKENS, "do_sample": False, "assistant_model": draft}
    with _attached(target, draft, Asking(4)):
        target.generate(ids, **settings)
        stats(target, reset=True)
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
            target.generate(ids, **settings)
        counted = stats(target)
        # Stats count a round of a batch once for each of its sequences.
        rounds, levels = counted.rounds // batch, counted.drafted // batch
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                target.generate(ids, **settings)
            finally:
                torch.cuda.set_sync_debug_mode("default")
    waits = sum(event.count for event in profiled.key_averages() if "Synchronize" in event.key)
    waited = Counter(
        f"{Path(one.filename).name}:{one.lineno}" for one in told if "synchronizing CUDA" in str(one.message)
    )
    return {"per_level": (waits - rounds) / max(1, levels), "rounds": rounds, "levels": levels, "where": dict(waited)}


@contextmanager
def _attached(target: Any, draft: Any, policy: Policy) -> Iterator[None]:
    attach_policy(target, draft, policy, same_tokenizer=True)
    try:
        yield
    finally:
        detach(target)


def _sampled(target: Any, draft: Any, policy: Policy, sequences: int) -> dict[str, Any]:
    """Chi-square over the token JUDGED, whose exact distribution one forward over the first gives."""
    from scipy.stats import chi2

    start = torch.ones(1, 1, dtype=torch.long, device=target.device)
    with torch.no_grad():
        first = target(start).logits[0, -1].double().softmax(-1)
        pairs = torch.stack((torch.ones_like(first), torch.arange(len(first), device=first.device)), dim=1).long()
        then = target(pairs).logits[:, -1].double().softmax(-1)
    expected = (first @ then).cpu().numpy() * sequences
    counts = np.zeros(len(first))
    torch.manual_seed(0)
    at_once = max(1, sequences // 4)
    with _attached(target, draft, policy):
        for _ in range(sequences // at_once):
            said = target.generate(
                start,
                attention_mask=torch.ones_like(start),
                do_sample=True,
                top_k=0,
                max_new_tokens=SHORT,
                num_return_sequences=at_once,
                assistant_model=draft,
            )
            counts += np.bincount(said[:, JUDGED].cpu().numpy(), minlength=len(counts))
        hits = sum(stats(target).sibling_hits.values())
    rare = expected < RARE
    wanted = np.append(expected[~rare], expected[rare].sum())
    seen = np.append(counts[~rare], counts[rare].sum())
    used = wanted > 0
    statistic = float(((seen - wanted)[used] ** 2 / wanted[used]).sum())
    return {"p_value": float(chi2.sf(statistic, int(used.sum()) - 1)), "sibling_hits": hits}
