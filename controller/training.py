"""Train the controller's heads: the paper's acceptance-rate regressor and our survival classifier."""

from __future__ import annotations

import hashlib
import importlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speckv.controller.errors import SpecKVError
from speckv.controller.features import COMPRESSION_LEVELS, FEATURES, SIGNAL_FEATURES, SURVIVAL_FEATURES
from speckv.controller.records import Row, as_stored
from speckv.controller.walks import Array, TracedSequence, survival_data

TEST_SHARE = 0.2
ESTIMATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "mlp16": ("neural_network.MLPRegressor", {"hidden_layer_sizes": (16,), "max_iter": 500}),
    "mlp32": ("neural_network.MLPRegressor", {"hidden_layer_sizes": (32,), "max_iter": 500}),
    "ridge": ("linear_model.Ridge", {"alpha": 1.0}),
    "rf10": ("ensemble.RandomForestRegressor", {"n_estimators": 10, "max_depth": 8}),
    "rf100": ("ensemble.RandomForestRegressor", {"n_estimators": 100}),
}
"""The paper's predictors, any of which can be the acceptance head: scikit-learn's class and its settings."""
SURVIVAL = (
    "neural_network.MLPClassifier",
    {
        "hidden_layer_sizes": (16,),
        "max_iter": 60,
        "n_iter_no_change": 3,
        "alpha": 1.0,
        "batch_size": 1024,
        "learning_rate_init": 0.003,
    },
)
"""Regularised, as prompts are few and their rounds alike; the ablation is in benchmarks/data/README.md."""
MOST_EXAMPLES = 1_200_000
"""That the survival head is fitted to, drawn from all there are: those of one round are much alike."""
WEIGHTS = ("coefs_", "intercepts_")
MEMBERS = 3
"""Networks whose mean the survival head is. One alone gains or loses up to 0.8 % of the tokens per second in replay by
nothing but where it began."""


@dataclass(frozen=True)
class Trained:
    """Fitted scikit-learn models by head, and what is worth recording about them (JSON-able)."""

    heads: dict[str, Any]
    report: dict[str, Any]


def acceptance_data(rows: Sequence[Row]) -> tuple[Array, Array]:
    """Features (n, 6) of whole rounds, and their acceptance rates (n,): the paper's training set."""
    features = [
        [*(row[name] for name in SIGNAL_FEATURES), COMPRESSION_LEVELS[row["compression"]], row["gamma"]] for row in rows
    ]
    rates = [row["acceptance_rate"] for row in rows]
    return np.array(features, dtype=np.float32), np.array(rates, dtype=np.float32)


def held_out(groups: Sequence[str] | NDArray[np.str_], seed: int) -> NDArray[np.bool_]:
    """True for the rows of a TEST_SHARE of the groups, chosen by ``seed``: split by prompt, never by step."""
    names = sorted(set(groups))
    if len(names) < 5:
        raise SpecKVError(f"{len(names)} prompts are too few to split; profile at least 5")
    shuffled = np.random.default_rng(seed).permutation(names)
    test = set(shuffled[: max(1, round(TEST_SHARE * len(names)))])
    return np.array([group in test for group in groups])


def train(
    rows: Sequence[Row], seed: int = 0, estimator: str = "mlp16", sequences: Sequence[TracedSequence] = ()
) -> Trained:
    """Fit the acceptance head to ``rows`` and, where there are any, the survival head to ``sequences``.

    Each is judged on held-out prompts, then fitted again to everything. ``estimator`` is the acceptance head's, one of
    ESTIMATORS. Raises SpecKVError for another estimator or too few prompts.
    """
    if estimator not in ESTIMATORS:
        raise SpecKVError(f"estimator {estimator}: must be one of {', '.join(ESTIMATORS)}")
    regressor = ESTIMATORS[estimator]
    features, rates = acceptance_data(rows)
    by_prompt = all("prompt_id" in row for row in rows)
    groups = [row["prompt_id"] if by_prompt else str(number) for number, row in enumerate(rows)]
    test = held_out(groups, seed)
    judged = fit(make_model(*regressor, seed), features[~test], rates[~test])
    predicted = np.clip(judged.predict(features[test]), 0, 1)
    metrics: dict[str, Any] = {
        "acceptance_rate": {
            "test_mse": float(np.mean((predicted - rates[test]) ** 2)),
            "test_corr": _correlation(predicted, rates[test]),
        }
    }
    heads = {"acceptance_rate": fit(make_model(*regressor, seed), features, rates)}
    if sequences:
        heads["survival"], metrics["survival"] = _fit_survival(sequences, seed)
    report = {
        "rows": len(rows),
        "texts": len(sequences),
        "prompts": len(set(groups)) if by_prompt else None,
        "seed": seed,
        "estimator": estimator,
        "split": f"{TEST_SHARE:.0%} of the {'prompts' if by_prompt else 'rounds'} held out; refitted on all",
        "data_sha256": digest(rows, sequences),
        "features": list(FEATURES),
        "survival_features": list(SURVIVAL_FEATURES),
        "converged": {name: converged(model) for name, model in heads.items()},
        "metrics": metrics,
    }
    return Trained(heads, report)


def _fit_survival(sequences: Sequence[TracedSequence], seed: int) -> tuple[Any, dict[str, Any]]:
    """The survival head, fitted to everything, and how good one was that had not seen the held-out prompts."""
    features, survived, owners = survival_data(sequences, seed)
    test = held_out(owners, seed)
    if any(len(np.unique(survived[part])) < 2 for part in (test, ~test)):
        raise SpecKVError("drafted tokens were always accepted, or never: nothing to learn; trace more prompts")
    order = np.random.default_rng(seed).permutation(len(survived))

    def fitted(among: NDArray[np.int64]) -> Any:
        chosen = among[:MOST_EXAMPLES]
        members = [make_model(*SURVIVAL, seed + number) for number in range(MEMBERS)]
        return mean_network([fit(member, features[chosen], survived[chosen]) for member in members])

    judged = fitted(order[~test[order]]).predict_proba(features[test])[:, 1]
    return fitted(order), survival_metrics(judged, features[test], survived[test])


def mean_network(members: Sequence[Any]) -> Any:
    """The one network that answers with the mean logit of ``members``.

    They are fitted networks of one hidden layer each, scaled alike: to the same examples. The first becomes the answer.
    """
    networks = [_last(member) for member in members]
    (into, out), (hidden, last) = (zip(*(getattr(one, name) for one in networks), strict=True) for name in WEIGHTS)
    whole = networks[0]
    whole.coefs_ = [np.concatenate(into, axis=1), np.concatenate(out) / len(networks)]
    whole.intercepts_ = [np.concatenate(hidden), np.mean(last, axis=0)]
    whole.hidden_layer_sizes = (len(whole.intercepts_[0]),)
    whole.n_iter_ = max(one.n_iter_ for one in networks)
    return members[0]


def digest(rows: Sequence[Row], sequences: Sequence[TracedSequence] = ()) -> str:
    """sha256 of the data, the same before it is written and after it is read from any format."""
    state = hashlib.sha256()
    for row in rows:
        state.update(json.dumps(as_stored(row), sort_keys=True).encode())
    for sequence in sequences:
        inside = np.arange(sequence.entropies.shape[1]) < sequence.lengths[:, None]
        state.update(
            json.dumps(
                [sequence.prompt_id, sequence.level, sequence.matches.tolist(), sequence.lengths.tolist()]
            ).encode()
        )
        for signals in (sequence.entropies, sequence.confidences):
            state.update(signals[inside].astype("<f4").tobytes())
    return state.hexdigest()


def make_model(kind: str, settings: Mapping[str, Any], seed: int) -> Any:
    """An unfitted scikit-learn model; a network gets standardised features, which the others can do without."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    module, _, name = kind.rpartition(".")
    constructor = getattr(importlib.import_module(f"sklearn.{module}"), name)
    model = constructor(**settings, random_state=seed)
    return make_pipeline(StandardScaler(), model) if module == "neural_network" else model


def fit(model: Any, features: Array, labels: NDArray[Any]) -> Any:
    """``model`` fitted, and blind to every feature that never varied.

    A network's weights of a constant input stay as random as they began, and would answer at random the first time
    the feature has another value (a compression level that was not profiled, say).
    """
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # see converged()
        warnings.filterwarnings("ignore", "Got `batch_size` less than 1 or larger")  # a small data set is one batch
        model.fit(features, labels)
    layers = getattr(_last(model), "coefs_", None)
    if layers is not None:
        layers[0][np.ptp(features, axis=0) == 0] = 0.0
    return model


def converged(model: Any) -> bool:
    """Whether a fitted model ended by itself, not by its limit of iterations; True of what has no such limit."""
    last = _last(model)
    return not hasattr(last, "coefs_") or bool(last.n_iter_ < last.max_iter)


def _last(model: Any) -> Any:
    """The estimator itself where ``model`` is a pipeline."""
    return model[-1] if hasattr(model, "steps") else model


def _correlation(predicted: NDArray[np.floating[Any]], rates: Array) -> float:
    """Pearson's; 0 where one of the two never varies, since NaN is no JSON."""
    with np.errstate(invalid="ignore"):
        return float(np.nan_to_num(np.corrcoef(predicted, rates)[0, 1]))


def survival_metrics(predicted: NDArray[np.floating[Any]], features: Array, survived: NDArray[Any]) -> dict[str, Any]:
    """How good probabilities (n,) were, given SURVIVAL_FEATURES (n, 8) and what came of them, also by mode."""
    from sklearn.metrics import log_loss, roc_auc_score

    drafted, further = features[:, -2], features[:, -1]
    modes = {
        "before_drafting": drafted == 0,
        "first_token": drafted == 1,
        "next_token": (drafted > 0) & (further == 1),
        "drafted_so_far": further == 0,
        "further_ahead": further > 1,
    }
    losses = {mode: log_loss(survived[of], predicted[of], labels=[0, 1]) for mode, of in modes.items() if of.any()}
    return {
        "test_log_loss": float(log_loss(survived, predicted)),
        "test_log_loss_by_mode": {mode: float(loss) for mode, loss in losses.items()},
        "test_log_loss_of_the_base_rate": float(log_loss(survived, np.full_like(predicted, survived.mean()))),
        "test_auc": float(roc_auc_score(survived, predicted)),
        "test_mean_predicted": float(predicted.mean()),
        "test_mean_survived": float(survived.mean()),
    }
