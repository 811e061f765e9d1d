"""The controller's file and what runs it: round trips, parity, decisions, and every way they say no."""

from __future__ import annotations

import builtins
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import controllers
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speckv.controller import files
from speckv.controller.errors import SpecKVError
from speckv.controller.features import FEATURES
from speckv.controller.training import ESTIMATORS, train
from speckv.export.artefact import MAX_BYTES, Artefact, make_artefact, parse, read_artefact, write_artefact
from speckv.export.convert import to_head, to_onnx
from speckv.export.forest import Forest
from speckv.export.graph import assemble, serialized, take_apart
from speckv.export.heads import Head, Line, Network, Scaling
from speckv.export.pairing import HEADS
from speckv.export.parity import check_parity
from speckv.integrations.runtime import Controller

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
ROW = st.tuples(FINITE, FINITE, FINITE, FINITE, FINITE)


@pytest.fixture(scope="module")
def artefact() -> Artefact:
    return controllers.artefact()


@pytest.fixture(scope="module", params=ESTIMATORS)
def controller(request: pytest.FixtureRequest) -> Controller:
    """A controller of every kind of acceptance head."""
    return Controller(controllers.artefact(request.param, survival=False))


def numbers(head: Head) -> dict[str, Any]:
    """All numbers of a head, by name."""
    parts = vars(head.estimator) | (vars(head.scaling) if head.scaling else {})
    return {name: np.asarray(value) for name, value in parts.items()}


def test_what_is_written_is_read(artefact: Artefact, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "c.onnx"
    sha256 = write_artefact(assemble(artefact.heads), artefact.metadata, path)
    found = read_artefact(path)
    assert found.sha256 == sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.metadata == artefact.metadata
    assert list(found.heads) == ["acceptance_rate", "survival"]
    for name, head in found.heads.items():
        for part, values in numbers(head).items():
            np.testing.assert_array_equal(values, numbers(artefact.heads[name])[part])
    assert path.stat().st_mode & 0o777 == 0o644


def test_the_metadata_describes_the_controller(artefact: Artefact) -> None:
    metadata = artefact.metadata
    assert metadata.features == list(FEATURES) and metadata.units["mean_draft_entropy"] == "nats"
    assert metadata.compression_levels == {"fp16": 0, "int8": 1, "nf4": 2}
    assert metadata.gammas == [2, 4, 6, 8] and metadata.schema_version == 3


def test_training_twice_writes_the_same_bytes(tmp_path: Path, synthetic_rows: list[Any]) -> None:
    for name in ("a", "b"):
        heads = train(synthetic_rows, seed=3).heads
        write_artefact(to_onnx(heads), controllers.metadata(list(heads)), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_bytes_of_a_given_controller_are_pinned() -> None:
    """A file is refused unless rebuilding it gives the same model: so how it is built must not change unnoticed."""
    network = Network(*(np.full(shape, 0.5, np.float32) for shape in ((8, 16), (16,), (16, 1), (1,))), logistic=True)
    scaling = Scaling(np.ones(8, np.float32), np.full(8, 2, np.float32))
    table = {"below": np.array([1, 0, 0]), "above": np.array([2, 0, 0]), "features": np.array([5, 0, 0])}
    forest = Forest(np.array([3]), thresholds=np.ones(3, np.float32), values=np.ones(2, np.float32), **table)
    line = Line(np.ones(6, np.float32), np.ones(1, np.float32))
    for estimator, digest in ((forest, "2ed0020af308b1d8"), (line, "69bd2ff7875e5637")):
        heads = {"acceptance_rate": Head(estimator), "survival": Head(network, scaling)}
        assert hashlib.sha256(serialized(assemble(heads, "{}"))).hexdigest()[:16] == digest


def test_a_graph_taken_apart_and_assembled_is_the_same(controller: Controller) -> None:
    model = assemble(controller.artefact.heads)
    assert serialized(assemble(take_apart(model))) == serialized(model)
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_what_is_run_says_what_the_file_says(estimator: str) -> None:
    artefact = controllers.artefact(estimator)
    last, random = (0, 3, 7, 12), np.random.default_rng(0)
    for name, (signals, values, features) in HEADS.items():
        scale = np.array((8, 1, 12, 1, 2, 1, 12)[: len(features) - 1])
        rows = (random.random((64, len(scale))) * scale).astype(np.float32)
        rows[:4] = np.array([[0], [1e9], [-1e9], [100]])
        whole = onnxruntime.InferenceSession(serialized(assemble({name: artefact.heads[name]})))
        said = whole.run(None, {signals: rows, values: np.array(last, np.float32)})[0]
        found = onnxruntime.InferenceSession(artefact.head(name, last)).run(None, {signals: rows})[0]
        np.testing.assert_allclose(found, said, atol=2e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_predictor_of_the_paper_says_in_onnx_what_it_says_in_scikit_learn(estimator: str) -> None:
    heads = controllers.trained(estimator, survival=False).heads
    assert check_parity(heads, to_onnx(heads)) <= 1e-5


def test_a_forest_decides_alike_on_its_thresholds_and_beside_them() -> None:
    """Only because a float64 threshold is rounded down: rounded up, an input in between would turn the other way."""
    estimator = controllers.trained("rf10", survival=False).heads["acceptance_rate"]
    forest = to_head("acceptance_rate", estimator).estimator
    assert isinstance(forest, Forest)
    exact = np.concatenate([tree.tree_.threshold[tree.tree_.children_left >= 0] for tree in estimator.estimators_])
    written = forest.thresholds[forest.below > 0]
    assert (written <= exact).all() and (np.nextafter(written, np.float32(np.inf)) > exact).all()
    up = np.nextafter(forest.thresholds, np.float32(np.inf)).astype(np.float32)
    moved = Forest(forest.sizes, forest.features, up, forest.below, forest.above, forest.values)
    with pytest.raises(SpecKVError, match="differs from scikit-learn"):
        check_parity({"acceptance_rate": estimator}, assemble({"acceptance_rate": Head(moved)}))


def test_parity_refuses_an_altered_graph() -> None:
    fitted = controllers.trained()
    heads = take_apart(to_onnx(fitted.heads))
    network = heads["survival"].estimator
    assert isinstance(network, Network)
    changed = Network(network.w1, network.b1, network.w2, network.b2 + np.float32(1e-2), logistic=True)
    with pytest.raises(SpecKVError, match=r"head survival: ONNX differs from scikit-learn by .*; not exported"):
        check_parity(fitted.heads, assemble({**heads, "survival": Head(changed, heads["survival"].scaling)}))


def test_what_has_no_form_in_an_artefact_is_not_exported() -> None:
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.neural_network import MLPRegressor

    features = np.random.default_rng(0).random((50, 6), dtype=np.float32)
    deep = MLPRegressor(hidden_layer_sizes=(4, 4), max_iter=20).fit(features, features[:, 0])
    near = KNeighborsRegressor().fit(features, features[:, 0])
    for estimator in (deep, near):
        with pytest.raises(SpecKVError, match=f"head acceptance_rate: {type(estimator).__name__} cannot be exported"):
            to_onnx({"acceptance_rate": estimator})
    tanh = MLPRegressor(hidden_layer_sizes=(4,), activation="tanh", max_iter=20).fit(features, features[:, 0])
    with pytest.raises(SpecKVError, match="differs"):
        check_parity({"acceptance_rate": tanh}, to_onnx({"acceptance_rate": tanh}))


def test_an_unknown_estimator_is_refused(synthetic_rows: list[Any]) -> None:
    with pytest.raises(SpecKVError, match="estimator svm: must be one of mlp16, mlp32, ridge, rf10, rf100"):
        train(synthetic_rows, estimator="svm")


def test_the_estimator_is_recorded() -> None:
    assert controllers.trained("ridge", survival=False).report["estimator"] == "ridge"


def test_what_would_be_refused_is_not_written(artefact: Artefact, tmp_path: Path) -> None:
    model = assemble(artefact.heads)
    model.graph.node[-1].op_type = "Identity"
    with pytest.raises(SpecKVError, match="refused"):
        write_artefact(model, artefact.metadata, tmp_path / "c.onnx")
    metadata = controllers.metadata(["acceptance_rate", "survival"], features=["gamma"])
    with pytest.raises(SpecKVError, match=r"d.onnx: features \['gamma'\] are not mean_draft_entropy, .* in this order"):
        write_artefact(assemble(artefact.heads), metadata, tmp_path / "d.onnx")
    assert not list(tmp_path.iterdir())


def test_a_controller_larger_than_may_be_read_is_not_made(artefact: Artefact) -> None:
    with pytest.raises(SpecKVError, match="use a smaller model"):
        parse(bytes(MAX_BYTES + 1), "big.onnx")


def test_a_failed_write_leaves_the_old_file(
    artefact: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.onnx"
    path.write_bytes(b"old")

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.Path, "replace", fail)
    with pytest.raises(SpecKVError, match=r"c.onnx: cannot be written \(No space left on device\)"):
        write_artefact(assemble(artefact.heads), artefact.metadata, path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_file_of_another_version_says_what_to_do(artefact: Artefact, tmp_path: Path) -> None:
    metadata = controllers.metadata(["acceptance_rate", "survival"], schema_version=2)
    with pytest.raises(SpecKVError, match="schema version 2, and this speckv reads 3; make the artefact again"):
        make_artefact(assemble(artefact.heads), metadata, "c.onnx")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecKVError, match=r"none.onnx: no such file"):
        Controller.load(tmp_path / "none.onnx")


def test_an_absent_head_is_named(artefact: Artefact) -> None:
    with pytest.raises(SpecKVError, match="mlp16: has no other head, only acceptance_rate, survival"):
        artefact.head("other", (1,))


def test_a_missing_onnxruntime_names_the_remedy(artefact: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SpecKVError, match=r"onnxruntime is not installed; pip install 'speckv\[cpu\]'"):
        Controller(artefact)


def test_an_unknown_provider_is_refused(artefact: Artefact) -> None:
    with pytest.raises(SpecKVError, match="tpu: no such provider; known are cpu, cuda"):
        Controller(artefact, "tpu")


def prefix(row: tuple[float, ...], drafted: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Any numbers as a prefix's features: a sum of logarithms is not above 0, an acceptance within 0 … 1."""
    recent = min(1.0, abs(row[3]))
    return np.array([[row[0], -abs(row[1]), row[2], recent, recent, 2, drafted]], np.float32)


@given(st.lists(ROW, min_size=1, max_size=4), st.lists(st.integers(0, 64), min_size=1, max_size=4))
def test_any_finite_input_gives_probabilities(
    controller: Controller, rows: list[tuple[float, ...]], gammas: list[int]
) -> None:
    for row in rows:
        rates = controller.acceptance_rates(row[:4], 1, gammas)
        assert ((rates >= 0) & (rates <= 1)).all()
        survival = controller.survival(prefix(row, gammas[0]), tuple(range(5)))
        assert ((survival >= 0) & (survival <= 1)).all() and (np.diff(survival) <= 0).all()


@given(ROW, st.integers(0, 64))
def test_any_finite_input_gives_a_survival_probability(row: tuple[float, ...], drafted: int) -> None:
    controller = Controller(controllers.artefact())
    survival = controller.survival(prefix(row, drafted), (0, 1, 64))
    assert survival.shape == (1, 3) and ((survival >= 0) & (survival <= 1)).all()


def test_numbers_at_their_limits_still_give_probabilities() -> None:
    """No number of a head may be beyond 1e6, so that nothing can overflow to inf − inf."""
    for sign in (1, -1):
        w1 = np.full((6, 16), 1e6, np.float32)
        w2 = np.full((16, 1), 1e6, np.float32)
        w2[::2] *= sign
        scaling = Scaling(np.full(6, -1e6, np.float32), np.full(6, 1e6, np.float32))
        head = Head(Network(w1, np.zeros(16, np.float32), w2, np.zeros(1, np.float32)), scaling)
        controller = Controller(
            make_artefact(assemble({"acceptance_rate": head}), controllers.metadata(["acceptance_rate"]), "x")
        )
        largest = float(np.finfo(np.float32).max)
        rates = controller.acceptance_rates((largest, -largest, largest, 1), 2, (0, 64))
        assert ((rates >= 0) & (rates <= 1)).all()


def test_survival_without_its_head_is_by_the_marginals_of_the_rates() -> None:
    controller = Controller(controllers.artefact("ridge", survival=False))
    prefixes = np.array([[0, 0, 0, 0.7, 0.6, 1, 0], [1.0, -2.0, 2.0, 0.7, 0.6, 1, 5]], np.float32)
    answers = np.array(controller.survival(prefixes, (0, 1, 3)))
    # before anything was drafted: the recent acceptance
    np.testing.assert_allclose(answers[0], [1, 0.7, 0.7**3], rtol=1e-6)
    confidence = math.exp(-2.0 / 5)
    rates = [float(rate) for rate in controller.acceptance_rates((1.0, confidence, 2.0, confidence), 1, range(9))]
    marginals = [min(1.0, max(0.0, j * rates[j] - (j - 1) * rates[j - 1])) for j in range(1, 9)]
    np.testing.assert_allclose(answers[1], [min(marginals[:depth]) for depth in (5, 6, 8)], atol=1e-5)
    for row in (0, 1):
        np.testing.assert_array_equal(controller.survival(prefixes[row : row + 1], (0, 1, 3))[0], answers[row])


@pytest.mark.parametrize("rows", [1, 3])
def test_survival_with_its_head_is_the_classifier_s_probability(rows: int) -> None:
    controller = Controller(controllers.artefact())
    classifier = controllers.trained().heads["survival"]
    prefixes = np.array([[1.0, -0.6, 2.0, 0.3, 0.5, 1, 3], [0, 0, 0, 0.9, 0.8, 2, 0]] * 2, np.float32)[:rows]
    for further in ((0, 1, 2), (4,)):
        pairs = np.array([[*prefix, e] for prefix in prefixes for e in further], np.float32)
        expected = classifier.predict_proba(pairs)[:, 1].reshape(rows, len(further))
        np.testing.assert_allclose(controller.survival(prefixes, further), expected, atol=1e-5)
