"""Sampling through the hook has the target's own distribution, and the test would notice if it had not."""

from __future__ import annotations

import math
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from transformers import LogitsProcessor, LogitsProcessorList
from transformers_helpers import RandomPolicy, tiny

from speckv.controller.policies.fixed import FixedPolicy
from speckv.controller.policy import Policy, Round
from speckv.integrations.transformers import attach, attach_policy, stats
from speckv.integrations.transformers.accept import Acceptance
from speckv.integrations.transformers.loop import Drafter

VOCABULARY = 12
SAMPLES = 20_000
SIGNIFICANCE = 1e-3
CALL = 500
EOS = 5
"""One that is often drawn, where any is to end the text."""

FEWER = 6_000
"""Enough for what is asked besides: each of these runs takes a minute per 10,000 samples on a slow core."""


def markov(seed: int, sharpness: float) -> Any:
    """A tiny model whose next token depends on the last one only (its attention adds nothing).

    So one long generation holds thousands of draws from VOCABULARY known distributions, and a short chain of calls
    gives the 20,000 samples that separate calls would take an hour for.
    """
    model = tiny(
        seed=seed,
        vocab_size=VOCABULARY,
        num_hidden_layers=1,
        max_position_embeddings=2 * CALL,
        tie_word_embeddings=False,
    )
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.embed_tokens.weight.normal_(0, 1, generator=torch.Generator().manual_seed(seed))
        model.lm_head.weight.normal_(0, sharpness, generator=torch.Generator().manual_seed(seed + 1))
    return model


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    target, draft = markov(0, 0.35), markov(0, 0.35)
    with torch.no_grad():  # related to the target, with another distribution everywhere
        noise = torch.randn(draft.lm_head.weight.shape, generator=torch.Generator().manual_seed(9))
        draft.lm_head.weight.add_(noise, alpha=0.2)
    return target, draft


class EntropyPolicy(RandomPolicy):
    """Random depths, and an end at levels of high entropy, half of which are left out: all of it hangs on the draws."""

    def deepen(self, this: Round) -> int:
        levels = super().deepen(this)
        entropy = float(this.levels[-1][0, 0])
        return levels if entropy < 1.8 else len(this.levels) - (entropy > 2.0)


class LeavesOut(Policy):
    """Leaves out a newest level of much entropy, the first of a round included; of any, every eighth time."""

    per_level = True

    def __init__(self) -> None:
        self.asked, self.left_out = 0, [0, 0]

    def begin(self, this: Round, room: int) -> int:
        return min(4, room)

    def deepen(self, this: Round) -> int:
        self.asked += 1
        if float(this.levels[-1][0, 0]) < 1.2 and self.asked % 8:
            return 4
        self.left_out[len(this.levels) > 1] += 1
        return len(this.levels) - 1


SHARP = {"temperature": 0.4, "top_k": 0}
"""So that a rejected token has one sibling with much of the residual, and another with much of the rest."""

WARPERS = [{"temperature": 0.8, "top_k": 8}, {"temperature": 1.0, "top_k": 0}]


def probabilities(target: Any, warpers: dict[str, Any]) -> Any:
    """The exact next-token distribution (V, V) after every token, warped as generate() does."""
    with torch.no_grad():
        logits = target(torch.arange(VOCABULARY)[:, None]).logits[:, -1].double() / warpers["temperature"]
    if warpers["top_k"]:
        smallest = logits.topk(warpers["top_k"]).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -math.inf)
    return logits.softmax(-1).numpy()


def p_value(
    target: Any,
    draft: Any,
    warpers: dict[str, Any],
    samples: int = SAMPLES,
    given: dict[str, Any] | None = None,
    eos: int | None = None,
    batch: int = 1,
) -> float:
    """Chi-square p-value of ``samples`` drawn transitions against the exact ones.

    ``given`` is what generate() is told to get the distribution of ``warpers``, if not those themselves. Where ``eos``
    ends a text another one begins, a few more are drawn, and what is compared is how often a text ends after a token.
    """
    expected = probabilities(target, warpers)
    counts = np.zeros((VOCABULARY, VOCABULARY))
    torch.manual_seed(0)
    starts = cycle(token for token in range(VOCABULARY) if token != eos)
    while counts.sum() < samples:
        start = torch.tensor([[next(starts)] for _ in range(batch)])
        output = target.generate(
            start,
            attention_mask=torch.ones_like(start),
            assistant_model=draft,
            do_sample=True,
            max_new_tokens=CALL,
            pad_token_id=0,
            eos_token_id=eos,
            **(given or warpers),
        ).numpy()
        np.add.at(counts, (output[:, :-1], output[:, 1:]), 1)
    assert counts[expected == 0].sum() == 0
    if eos is not None:
        ends = [np.arange(VOCABULARY) == eos, np.arange(VOCABULARY) != eos]
        counts, expected = (np.stack([table @ one for one in ends], axis=1) for table in (counts, expected))
    wanted = expected * counts.sum(1, keepdims=True)
    used = wanted > 5
    statistic = ((counts - wanted)[used] ** 2 / wanted[used]).sum()
    freedom = used.sum() - used.any(1).sum()
    return float(scipy_stats.chi2.sf(statistic, freedom))


@pytest.mark.parametrize(
    ("siblings", "warpers", "samples"),
    [(0.6, WARPERS[0], SAMPLES), (0.6, WARPERS[1], FEWER), (0.0, WARPERS[0], FEWER), (0.0, WARPERS[1], FEWER)],
    ids=["tree, warped", "tree", "chain, warped", "chain"],
)
def test_distribution_is_the_targets(
    pair: tuple[Any, Any], warpers: dict[str, Any], samples: int, siblings: float
) -> None:
    target, draft = pair
    policy = EntropyPolicy(0, siblings=siblings)
    attach_policy(target, draft, policy)
    assert p_value(target, draft, warpers, samples) > SIGNIFICANCE
    assert 0.3 < stats(target).acceptance_rate < 0.95
    assert (sum(sum(this.sibling_hits) for this in policy.rounds) > samples / 50) == (siblings > 0)


@pytest.mark.parametrize(("warpers", "samples"), [(WARPERS[0], SAMPLES), (WARPERS[1], FEWER)], ids=["warped", "plain"])
def test_distribution_of_two_prompts_at_once(pair: tuple[Any, Any], warpers: dict[str, Any], samples: int) -> None:
    target, draft = pair
    policy = EntropyPolicy(0, siblings=0.6)
    attach_policy(target, draft, policy)
    assert p_value(target, draft, warpers, samples, batch=2) > SIGNIFICANCE
    assert 0.3 < stats(target).acceptance_rate < 0.95
    assert sum(sum(this.sibling_hits) for this in policy.rounds) > samples / 50


class Cooled(LogitsProcessor):  # type: ignore[misc]
    """A processor of the user's own: the draft is not given it, and it is called token by token."""

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        return scores / WARPERS[0]["temperature"]


def test_distribution_with_a_processor_of_ones_own(pair: tuple[Any, Any]) -> None:
    target, draft = pair
    attach_policy(target, draft, EntropyPolicy(0, siblings=0.6))
    given = {"logits_processor": LogitsProcessorList([Cooled()]), "top_k": 0}
    assert p_value(target, draft, {**WARPERS[0], "top_k": 0}, FEWER, given) > SIGNIFICANCE
    assert 0.3 < stats(target).acceptance_rate < 0.95
    assert p_value(target, draft, WARPERS[1], FEWER, given) < 1e-6  # it does make a difference


def test_distribution_with_the_shipped_controller(pair: tuple[Any, Any]) -> None:
    target, draft = pair
    attach(target, draft, objective="tokens")  # by throughput it would rightly not draft: the draft costs as much
    assert p_value(target, draft, WARPERS[0], FEWER) > SIGNIFICANCE
    assert stats(target).drafted > 3_000


def test_distribution_where_the_newest_level_is_left_out(pair: tuple[Any, Any]) -> None:
    """Also where a text may end: whether an EOS is verified must not depend on its being one."""
    target, draft = pair
    for eos in (None, EOS):
        policy = LeavesOut()
        attach_policy(target, draft, policy)
        assert p_value(target, draft, WARPERS[1], FEWER, eos=eos) > SIGNIFICANCE
        assert min(policy.left_out) > 100
        assert stats(target).gammas[0] >= policy.left_out[0]
        assert stats(target).accepted > 1_000


def one_by_one(renormalised: bool, by_residual: bool) -> Any:
    """The rule for siblings as it is usually told: each is accepted with its share of the residual, or taken off it.

    Where what is left of the residual is not ``renormalised``, or a sibling is accepted with its share of the target's
    own distribution instead, the output is not the target's.
    """

    path: list[tuple[int, int]] = []

    def ask(self: Acceptance, tree: Any, drawn_from: Any, logits: Any) -> Any:
        path.clear()
        self.scores = self._scores(tree, logits.float().clone())
        p = self.scores.softmax(-1)
        row: int | None = 0
        while row is not None:
            residual, beside = p[row].clone(), range(tree.spine, len(tree.tokens))
            if row < tree.spine:
                token, q = tree.tokens[row], drawn_from[row][0]
                if float(torch.rand(()) * q[token]) < float(p[row, token]):
                    path.append((row, token))
                    row += 1
                    continue
                residual = (p[row] - q).clamp_(min=0)
                residual /= residual.sum()
            for sibling in (tree.tokens[node] for node in beside if tree.parents[node] == row):
                if float(torch.rand(())) < float((residual if by_residual else p[row])[sibling]):
                    token = sibling
                    break
                residual[sibling] = 0.0
                residual /= residual.sum() if renormalised else 1.0
            else:
                token = int(torch.multinomial(residual, 1))
            path.append((row, token))
            row = tree.child(row, token)
        return torch.empty(0)

    def tokens(self: Acceptance, *_: Any) -> Any:
        yield from ((row, token, self.scores[row : row + 1]) for row, token in path)

    return ask, tokens


@pytest.mark.parametrize(("renormalised", "by_residual"), [(True, True), (False, True), (True, False)])
def test_siblings_accepted_one_by_one(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, renormalised: bool, by_residual: bool
) -> None:
    target, draft = pair
    attach_policy(target, draft, RandomPolicy(0, most=2, siblings=1.0))
    ask, tokens = one_by_one(renormalised, by_residual)
    monkeypatch.setattr(Acceptance, "ask", ask)
    monkeypatch.setattr(Acceptance, "tokens", tokens)
    found = p_value(target, draft, SHARP, 2 * FEWER)
    if renormalised and by_residual:
        assert found > SIGNIFICANCE
    else:
        assert found < 1e-6


def test_a_target_without_a_distribution_is_an_error_as_in_plain_decoding() -> None:
    target, draft = markov(0, 0.35), markov(0, 0.35)
    attach_policy(target, draft, FixedPolicy(2))
    with torch.no_grad():
        target.lm_head.weight.fill_(math.nan)
    for assistant in ({}, {"assistant_model": draft}):
        with pytest.raises(RuntimeError, match="probability tensor contains"):
            target.generate(torch.tensor([[1, 2]]), do_sample=True, max_new_tokens=4, **assistant)


class DropsByIdentity(Drafter):
    """The mistake to be caught: a drafted token is thrown away because of which token it is."""

    def draft(self, texts: Any, processors: Any, most: int, this: Round) -> Any:
        drafts = super().draft(texts, processors, most, this)
        if drafts[0].tokens and drafts[0].tokens[-1] % 2 == 0:
            this.gamma -= 1
            drafts[0].cut(this.gamma)
        return drafts


class SparesAnEOS(Drafter):
    """The same mistake: the policy, which would leave it out, is not asked about a token that ends the text."""

    def _read(self, unread: Any, drafts: Any, this: Round) -> bool:
        ended = super()._read(unread, drafts, this)
        self.policy.deepen = (
            (lambda _: len(drafts[0].tokens)) if ended else partial(type(self.policy).deepen, self.policy)
        )
        return ended


@pytest.mark.parametrize(
    ("mistake", "policy", "eos"),
    [(DropsByIdentity, FixedPolicy(1), None), (SparesAnEOS, LeavesOut(), EOS)],
)
def test_the_test_catches_a_token_verified_by_its_identity(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, mistake: Any, policy: Policy, eos: int | None
) -> None:
    target, draft = pair
    attach_policy(target, draft, policy)
    monkeypatch.setattr("speckv.integrations.transformers.loop.Drafter", mistake)
    assert p_value(target, draft, WARPERS[1], FEWER, eos=eos) < 1e-6
