"""What a reader of the paper's number must know: its policy judged by the records, one change at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from speckv.benchmarks.paper.data import GAMMAS, PROMPTS_PER_TASK, Release
from speckv.benchmarks.paper.decision import best_for_throughput, best_for_tokens, expected_tokens
from speckv.benchmarks.paper.estimate import fit_step_times, measured_rates, own_throughput, realised, step_ms
from speckv.benchmarks.paper.predictors import accuracy, predicted_rates, predictors, split
from speckv.benchmarks.paper.published import COMPRESSIONS
from speckv.controller.arrays import Floats, Ints
from speckv.controller.features import SIGNAL_FEATURES

FOLDS = PROMPTS_PER_TASK
"""Of the prompts: four prompts each, one of every task."""


@dataclass(frozen=True)
class Variant:
    """One way to train and to judge the release's MLP-16."""

    name: str
    refit: bool = False  # on all steps, the test steps among them, before it is judged
    by_prompt: bool = False  # cross-validated over prompts, instead of one random split over steps
    previous: bool = False  # signals of the step before, which are all that is known before drafting


VARIANTS = (
    Variant("as published", refit=True),
    Variant("not refitted on the test steps"),
    Variant("split by prompt", by_prompt=True),
    Variant("signals of the previous step", previous=True),
    Variant("previous step, split by prompt", by_prompt=True, previous=True),
)


def examine(release: Release) -> dict[str, Any]:
    """Facts about the records, fitted costs, every variant, and RF-100 split by prompt: JSON-able values."""
    times = fit_step_times(release)
    everyone = np.arange(len(release.rates))
    spent = step_ms(times, release.compressions.tolist())
    return {
        "facts": _facts(release),
        "step_ms": {compression: asdict(time) for compression, time in times.items()},
        "measured_tokens_per_s": measured_rates(release),
        "fixed": realised(release, everyone, _fixed(len(everyone)), spent),
        "variants": {variant.name: _judge(release, variant, spent) for variant in VARIANTS},
        "forest": _forest(release),
    }


def _fixed(count: int) -> dict[str, Ints]:
    return {f"Fixed-{gamma}": np.full(count, index) for index, gamma in enumerate(GAMMAS)}


def _judge(release: Release, variant: Variant, spent: Floats) -> dict[str, Any]:
    """Train as ``variant`` says, choose γ by both objectives, compare what is expected with the records."""
    gammas = np.array(GAMMAS, dtype=np.float64)
    features, usable = _features(release, variant.previous)
    rates = np.full((len(usable), len(GAMMAS)), np.nan)
    predicted = np.full(len(usable), np.nan)
    throughput = np.zeros(len(usable), dtype=np.int64)
    tested = []
    for train, test in _parts(release, variant, usable):
        fitted = np.flatnonzero(usable) if variant.refit else train
        model = predictors()["MLP-16"].fit(features[fitted], release.rates[fitted])
        predicted[test] = np.clip(model.predict(features[test]), 0, 1)
        rates[test] = predicted_rates(model, features[test])
        known = expected_tokens(predicted_rates(model, features[fitted]), gammas)
        for compression in COMPRESSIONS:
            # ρ is what the policy expects of itself where it was trained; the test steps must not set it.
            rho = own_throughput(
                *(part[release.compressions[fitted] == compression] for part in (known, spent[fitted]))
            )
            mine = test[release.compressions[test] == compression]
            throughput[mine] = best_for_throughput(rates[mine], gammas, spent[mine], rho)
        tested.append(test)
    test = np.concatenate(tested)
    tokens = expected_tokens(rates[test], gammas)
    chosen = best_for_tokens(rates[test], gammas)
    policies = _fixed(len(test)) | {"SpecKV": chosen, "SpecKV, throughput": throughput[test]}
    fixed4, speckv = float(tokens[:, GAMMAS.index(4)].mean()), float(tokens.max(axis=1).mean())
    return {
        "steps": len(test),
        **accuracy(release.rates[test], predicted[test]),
        "gamma_shares": _shares(chosen),
        "throughput_gamma_shares": _shares(throughput[test]),
        "predicted": {"Fixed-4": fixed4, "SpecKV": speckv, "improvement_pct": 100 * (speckv / fixed4 - 1)},
        "realised": realised(release, test, policies, spent[test]),
    }


def _features(release: Release, previous: bool) -> tuple[Floats, Any]:
    """(n, 6) features, and which steps have them: the first of a run has no previous step."""
    features = release.features.copy()
    if previous:
        features[1:, : len(SIGNAL_FEATURES)] = release.features[:-1, : len(SIGNAL_FEATURES)]
    return features, (release.steps > 0) | (not previous)


def _parts(release: Release, variant: Variant, usable: Any) -> Iterator[tuple[Ints, Ints]]:
    """Training and test steps: the release's one split, or FOLDS over prompts."""
    if not variant.by_prompt:
        train, test = split(release)
        yield train[usable[train]], test[usable[test]]
        return
    fold = release.prompts % FOLDS  # prompts come task by task in fives, so each fold holds one of every task
    for number in range(FOLDS):
        yield np.flatnonzero(usable & (fold != number)), np.flatnonzero(usable & (fold == number))


def _shares(chosen: Ints) -> dict[str, float]:
    return {str(gamma): float(np.mean(chosen == index)) for index, gamma in enumerate(GAMMAS)}


def _facts(release: Release) -> dict[str, Any]:
    """Properties of the records themselves."""
    train, test = split(release)
    signals = [tuple(row) for row in release.features[:, [0, 1, 2, 3, 5]]]
    seen = {signals[index] for index in train}
    confidence, entropy = release.features[:, 3], release.features[:, 2]
    wide = (confidence >= 0.5) & (confidence < 0.99)  # where four decimals leave the bound sharp
    p = confidence[wide]
    bound = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    return {
        "steps": len(release.rates),
        "runs": len(release.experiments),
        "prompts": int(release.prompts.max()) + 1,
        "cut_steps": int((release.drafted < release.gammas).sum()),
        "test_steps_with_a_twin_in_training": float(np.mean([signals[index] in seen for index in test])),
        # A distribution whose largest probability is p ≥ 1/2 has at least the entropy of a p : 1 − p coin.
        "min_entropy_over_bound_in_bits": float((entropy[wide] / bound).min()),
    }


def _forest(release: Release) -> dict[str, Any]:
    """RF-100, the "accurate" predictor, cross-validated over prompts: without the twins of its test steps."""
    predicted = np.full(len(release.rates), np.nan)
    everyone = np.ones(len(release.rates), dtype=bool)
    for train, test in _parts(release, Variant("", by_prompt=True), everyone):
        model = predictors()["RF-100"].fit(release.features[train], release.rates[train])
        predicted[test] = model.predict(release.features[test])
    return {"split by prompt": accuracy(release.rates, np.clip(predicted, 0, 1))}
