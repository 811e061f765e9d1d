"""SmolLM2 behind the real server, with the shipped controller: what it says is what it says without speculation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("sglang")

from speckv.benchmarks.bench.sglang_server import Server
from speckv.benchmarks.prompts import load_prompts
from speckv.integrations.models.loading import load_model, load_tokenizer, perturbed, resolve

pytestmark = pytest.mark.smollm2

LIMITS = (
    *("--context-length", "1024", "--max-running-requests", "4", "--max-total-tokens", "4096"),
    "--sleep-on-idle",  # the other server works meanwhile
)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Without speculation, and with SPECKV and a draft of the same weights plus noise."""
    sources = resolve("smollm2")
    draft = tmp_path_factory.mktemp("draft")
    perturbed(load_model(sources.target, "fp32"), sources.noise).save_pretrained(draft)
    load_tokenizer(sources.target).save_pretrained(draft)
    config = draft / "speckv.json"
    config.write_text(json.dumps({"warm_up": 5}))
    target = Path(sources.target)
    plain = Server(target, *LIMITS)
    adaptive = Server(
        target,
        *LIMITS,
        *("--speculative-algorithm", "SPECKV", "--speculative-draft-model-path", str(draft)),
        *("--speculative-adaptive-config", str(config)),
    )
    try:
        yield plain.wait(), adaptive.wait()
    finally:
        plain.stop()
        adaptive.stop()


def test_greedy_output_is_that_of_plain_decoding(servers: tuple[Server, Server]) -> None:
    bodies = [
        {
            "model": "default",
            "messages": [{"role": "user", "content": prompt.text}],
            "temperature": 0,
            "max_tokens": 8 + 2 * (i % 8),
        }
        for i, prompt in enumerate(load_prompts("heldout")[:8])
    ]
    texts = [
        [server.post("/v1/chat/completions", **body)["choices"][0]["message"]["content"] for body in bodies]
        for server in servers
    ]
    assert texts[0] == texts[1] and len(set(texts[0])) > 4
    ids = load_tokenizer(resolve("smollm2").target)("Count: one, two, three, four,")["input_ids"]
    together = [server.all([(ids[: 3 + i % 6], 12) for i in range(12)], 4) for server in servers]
    assert together[0] == together[1]
