"""``hf-default`` and ``hf-heuristic`` against the code they restate: that of the installed transformers."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from simulation import level
from transformers import GenerationConfig
from transformers.generation.candidate_generator import AssistedCandidateGenerator
from transformers.generation.stopping_criteria import ConfidenceCriteria
from transformers_helpers import greedy, prompt, tiny_pair

from speckv.benchmarks.baselines.hf_default import HFDefault
from speckv.benchmarks.baselines.hf_heuristic import HFHeuristic
from speckv.controller.policy import Request, Round

MAKERS = {"constant": HFDefault, "heuristic": HFHeuristic}
SCHEDULES = pytest.mark.parametrize("schedule", MAKERS)


def stub_generator(schedule: str) -> AssistedCandidateGenerator:
    """The real generator over a draft that is only a configuration."""
    draft = SimpleNamespace(
        device=torch.device("cpu"),
        generation_config=GenerationConfig(num_assistant_tokens_schedule=schedule),
        config=SimpleNamespace(is_encoder_decoder=False),
        _supports_logits_to_keep=lambda: True,
    )
    ids = torch.zeros(1, 1, dtype=torch.long)
    config = GenerationConfig(max_length=10_000, min_length=0)
    return AssistedCandidateGenerator(ids, draft, config, model_kwargs={})  # type: ignore[arg-type]


def rows(confidence: float) -> torch.Tensor:
    """Scores (1, 2) of a token with this probability, and of another."""
    return torch.tensor([[confidence, 1.0 - confidence]]).log()


def stops(generator: AssistedCandidateGenerator, confidence: float) -> bool:
    """Whether the real criterion stops a draft after this token."""
    criterion = ConfidenceCriteria(generator.generation_config.assistant_confidence_threshold)
    return bool(criterion(torch.zeros(1, 1, dtype=torch.long), (rows(confidence),)))


@SCHEDULES
@pytest.mark.parametrize("seed", range(6))
def test_threshold_and_length_after_every_round(schedule: str, seed: int) -> None:
    draws = random.Random(seed)
    generator, policy = stub_generator(schedule), MAKERS[schedule]()
    thresholds, text = set(), Request()
    room = 9_998
    for _ in range(80):
        ids = torch.zeros(1, 9_999 - room, dtype=torch.long)
        this = Round([text])
        gamma = policy.begin(this, room)
        assert generator._calculate_new_tokens(ids)[1] == gamma
        confidences: list[float] = []
        while len(confidences) < gamma:
            # Few different values, so that some meet the threshold exactly.
            confidence = draws.choice((0.3, 0.5, 0.9, 0.95, 0.99, draws.random()))
            confidences.append(rows(confidence).softmax(-1)[0, 0].item())
            this.levels.append(level(0.0, confidences[-1]))
            more = policy.deepen(this) > len(confidences)
            assert more != stops(generator, confidence) or len(confidences) == gamma
            if not more:
                break
        this.gamma, accepted = len(confidences), 0
        while accepted < this.gamma and draws.random() < confidences[accepted]:
            accepted += 1
        this.accepted, this.emitted = [accepted], accepted + 1
        room -= this.emitted
        generator.probs.extend(confidences)
        generator.update_candidate_strategy(ids, torch.zeros(1, this.gamma + 1, 2), accepted)
        policy.observe(this)
        assert policy.threshold == generator.generation_config.assistant_confidence_threshold
        assert policy.num_assistant_tokens == generator.num_assistant_tokens
        thresholds.add(policy.threshold)
    assert len(thresholds) > 3


def recorded(target: Any, draft: Any, inputs: Any, monkeypatch: pytest.MonkeyPatch, **more: Any) -> list[Any]:
    """Rounds of the stock loop: the room for a draft, the drafted tokens' probabilities, the matches."""
    rounds: list[Any] = []
    draft_all = AssistedCandidateGenerator.get_candidates
    update = AssistedCandidateGenerator.update_candidate_strategy

    def get_candidates(self: Any, input_ids: Any, **kwargs: Any) -> Any:
        known = len(self.probs)
        answer = draft_all(self, input_ids, **kwargs)
        room = self.main_model_max_length - input_ids.shape[1] - 1
        rounds.append([room, [float(p) for p in self.probs[known:]], None])
        return answer

    def update_candidate_strategy(self: Any, input_ids: Any, scores: Any, num_matches: int) -> None:
        rounds[-1][2] = int(num_matches)
        update(self, input_ids, scores, num_matches)

    monkeypatch.setattr(AssistedCandidateGenerator, "get_candidates", get_candidates)
    monkeypatch.setattr(AssistedCandidateGenerator, "update_candidate_strategy", update_candidate_strategy)
    greedy(target, inputs, assistant_model=draft, **more)
    monkeypatch.undo()
    return rounds


@SCHEDULES
def test_the_stock_loop_drafts_as_many_tokens(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Round by round over several texts: when it stops, what it forgets between texts and what not."""
    target, draft = tiny_pair(noise=0.05, vocab_size=32)
    for model in (target, draft):
        model.lm_head.weight.data.mul_(25.0)  # so that probabilities reach from low to high
    draft.generation_config.num_assistant_tokens_schedule = schedule
    policy = MAKERS[schedule]()
    lengths = []
    for seed in range(3):
        inputs = {key: ids % 32 for key, ids in prompt(seed=seed).items()}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        text = Request()
        for room, probabilities, matches in recorded(target, draft, inputs, monkeypatch, tokens=100):
            this = Round([text])
            gamma = policy.begin(this, room)
            for confidence in probabilities:
                this.levels.append(level(0.0, confidence))
                made = len(this.levels)
                ended = made == gamma or policy.deepen(this) == made
                assert ended == (made == len(probabilities))
            assert probabilities or not gamma
            this.gamma, this.accepted, this.emitted = len(probabilities), [matches], matches + 1
            policy.observe(this)
            lengths.append(this.gamma)
    assert len(set(lengths)) > 4 and 0 < min(lengths[:-1]) < max(lengths)
