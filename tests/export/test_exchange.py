"""Published weights in and out, folders, model cards, and the hub without a network."""

from __future__ import annotations

import builtins
import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import controllers
import msgspec
import numpy as np
import pytest

from speckv.controller.errors import SpecKVError
from speckv.export.artefact import make_artefact
from speckv.export.card import model_card
from speckv.export.exchange import CARD, CONFIG, ONNX, WEIGHTS, import_weights, open_controller, save_folder
from speckv.export.graph import assemble
from speckv.export.heads import Head, Network, Scaling
from speckv.export.weights import SHAPES, read_weights, write_weights
from speckv.integrations.runtime import Controller


def in_bits(rows: Any) -> np.ndarray:
    """Feature rows with entropies in nats, as the published weights take them."""
    return np.asarray(rows, dtype=np.float64) / [np.log(2), 1, np.log(2), 1, 1, 1]


def predict(arrays: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """The published model card's own arithmetic."""
    hidden = np.maximum(0, rows @ arrays["W1"] + arrays["b1"])
    return np.clip((hidden @ arrays["W2"] + arrays["b2"]).ravel(), 0, 1)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder as the paper's hub repository has it."""
    folder = tmp_path / "published"
    controllers.save_weights(folder / WEIGHTS, controllers.published_arrays())
    features = [
        "mean_draft_entropy",
        "mean_draft_confidence",
        "max_draft_entropy",
        "min_draft_confidence",
        "comp_enc",
        "gamma",
    ]
    config = {
        "architecture": "MLP",
        "input_dim": 6,
        "feature_cols": features,
        "gamma_options": [2, 4, 8],
        "test_mse": 0.09,
    }
    (folder / CONFIG).write_text(json.dumps(config))
    (folder / "speckv_mlp16.pkl").write_bytes(b"\x80\x04.")
    return folder


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f8"])
@pytest.mark.parametrize("compressed", [False, True])
def test_weights_to_onnx_and_back_are_exact_in_float32(tmp_path: Path, dtype: Any, compressed: bool) -> None:
    arrays = controllers.published_arrays(dtype)
    artefact = import_weights(controllers.save_weights(tmp_path / WEIGHTS, arrays, compressed))
    (tmp_path / "c.onnx").write_bytes(artefact.content)
    back = np.load(io.BytesIO(write_weights(open_controller(tmp_path / "c.onnx").heads["acceptance_rate"])))
    assert set(back) == set(SHAPES)
    for name, shape in SHAPES.items():
        assert back[name].dtype == np.float32 and back[name].shape == shape
        np.testing.assert_array_equal(back[name], arrays[name].astype(np.float32))


def test_an_imported_controller_answers_as_the_model_card_computes(published: Path) -> None:
    controller = Controller.load(published)
    arrays = controllers.published_arrays()
    for level in range(3):
        rates = controller.acceptance_rates((1.5, 0.72, 2.3, 0.45), level, (2, 4, 6, 8))
        rows = in_bits([[1.5, 0.72, 2.3, 0.45, level, gamma] for gamma in (2, 4, 6, 8)])
        np.testing.assert_allclose(rates, predict(arrays, rows), atol=1e-6)


@pytest.mark.parametrize("unit", ["bits", "nats", None])
def test_the_unit_that_a_config_names_is_honoured(published: Path, unit: str | None) -> None:
    (published / CONFIG).write_text(json.dumps({"entropy_unit": unit} if unit else {}))
    for source in (published, published / WEIGHTS):
        controller = Controller.load(source)
        metadata = controller.artefact.metadata
        assert metadata.training["entropy_unit"] == (unit or "bits")
        assert metadata.units["mean_draft_entropy"] == metadata.units["max_draft_entropy"] == "nats"
        for signals in np.random.default_rng(1).random((50, 4)) * [4, 1, 6, 1]:
            rates = controller.acceptance_rates(signals.tolist(), 2, (2, 8))
            rows = np.array([[*signals, 2, gamma] for gamma in (2, 8)])
            expected = predict(controllers.published_arrays(), rows if unit == "nats" else in_bits(rows))
            np.testing.assert_allclose(rates, expected, atol=2e-6)


def test_weights_in_nats_are_exported_in_bits(published: Path) -> None:
    (published / CONFIG).write_text('{"entropy_unit": "nats"}')
    written = np.load(io.BytesIO(write_weights(open_controller(published).heads["acceptance_rate"])))
    arrays = controllers.published_arrays()
    factors = np.array([np.log(2), 1, np.log(2), 1, 1, 1])[:, None]
    np.testing.assert_allclose(written["W1"], arrays["W1"] * factors, rtol=2e-7)
    for name in ("b1", "W2", "b2"):
        np.testing.assert_array_equal(written[name], arrays[name].astype(np.float32))


@pytest.mark.parametrize("unit", ["bytes", 2, ["bits"], None, "BITS"])
def test_an_unknown_unit_is_refused(published: Path, unit: Any) -> None:
    (published / CONFIG).write_text(json.dumps({"entropy_unit": unit}))
    with pytest.raises(SpecKVError, match=r"config.json: entropy_unit .* is not nats or bits"):
        open_controller(published)


def test_weights_too_large_for_the_published_format_are_not_written(tmp_path: Path) -> None:
    head = controllers.artefact().heads["acceptance_rate"]
    network, scaling = head.estimator, head.scaling
    assert isinstance(network, Network) and scaling is not None
    steep = Network(network.w1 * np.float32(1e4), network.b1, network.w2, network.b2)
    head = Head(steep, Scaling(scaling.offset, scaling.scale * np.float32(1e4)))
    with pytest.raises(SpecKVError, match=r"with its scaling folded in, .* use \.onnx"):
        write_weights(head)
    made = make_artefact(assemble({"acceptance_rate": head}), controllers.metadata(["acceptance_rate"]), "steep")
    assert {path.name for path in save_folder(made, tmp_path)} == {ONNX, CONFIG, CARD}
    assert "entropy_unit" not in json.loads((tmp_path / CONFIG).read_text())


def test_an_import_says_where_it_is_from_and_has_one_head(published: Path) -> None:
    metadata = open_controller(published).metadata
    assert metadata.heads == ["acceptance_rate"] and metadata.gammas == [2, 4, 8]
    assert metadata.training["imported_from"] == WEIGHTS and len(metadata.training["weights_sha256"]) == 64
    assert open_controller(published / WEIGHTS).metadata == metadata
    (published / CONFIG).unlink()
    assert open_controller(published).metadata.gammas == [2, 4, 6, 8]


def test_the_same_weights_make_the_same_bytes(published: Path) -> None:
    assert open_controller(published).content == open_controller(published).content
    head = open_controller(published).heads["acceptance_rate"]
    assert write_weights(head) == write_weights(head)


def test_our_head_as_published_weights_has_its_scaling_folded_in(tmp_path: Path) -> None:
    """Rounding the folded weights to float32 moves a prediction by no more than about 1e-6."""
    artefact = controllers.artefact()
    content = write_weights(artefact.heads["acceptance_rate"])
    (tmp_path / WEIGHTS).write_bytes(content)
    ours, folded = Controller(artefact), Controller.load(tmp_path / WEIGHTS)
    generator = np.random.default_rng(0)
    for row in generator.random((200, 4)) * [8, 1, 12, 1]:
        exact = np.array(ours.acceptance_rates(row.tolist(), 1, (2, 4, 6, 8)))
        np.testing.assert_allclose(folded.acceptance_rates(row.tolist(), 1, (2, 4, 6, 8)), exact, rtol=1e-6, atol=1e-6)
    estimator = controllers.trained().heads["acceptance_rate"]
    rows = (generator.random((200, 6)) * [8, 1, 12, 1, 2, 8]).astype(np.float32)
    weights = dict(np.load(io.BytesIO(content)))
    np.testing.assert_allclose(predict(weights, in_bits(rows)), np.clip(estimator.predict(rows), 0, 1), atol=1e-6)


@pytest.mark.parametrize("estimator", ["ridge", "rf10", "mlp32"])
def test_what_the_published_format_cannot_hold_is_refused(estimator: str) -> None:
    with pytest.raises(SpecKVError, match=r"network of 16 units, which this head is not; use .onnx"):
        write_weights(controllers.artefact(estimator, survival=False).heads["acceptance_rate"])


def test_a_saved_folder_is_a_controller_again(tmp_path: Path) -> None:
    saved = Controller(controllers.artefact())
    saved.save_pretrained(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {ONNX, CONFIG, WEIGHTS, CARD}
    loaded = Controller.from_pretrained(tmp_path / "saved")
    assert loaded.artefact.content == saved.artefact.content and loaded.artefact.metadata.heads == [
        "acceptance_rate",
        "survival",
    ]
    (tmp_path / "saved" / ONNX).unlink()  # what is left is what a reader of the paper's format sees
    assert Controller.from_pretrained(str(tmp_path / "saved")).gammas == saved.gammas
    config = json.loads((tmp_path / "saved" / CONFIG).read_text())
    assert config["features"][0] == "mean_draft_entropy" and config["gammas"] == [2, 4, 6, 8]
    assert config["entropy_unit"] == "bits"  # of the weights


def test_a_forest_s_folder_has_no_weights(tmp_path: Path) -> None:
    files = save_folder(controllers.artefact("rf10", survival=False), tmp_path)
    assert {path.name for path in files} == {ONNX, CONFIG, CARD}
    assert "entropy_unit" not in json.loads((tmp_path / CONFIG).read_text())
    assert open_controller(tmp_path).sha256 == controllers.artefact("rf10", survival=False).sha256


def test_saving_again_keeps_a_card_that_was_edited(tmp_path: Path) -> None:
    save_folder(controllers.artefact(), tmp_path)
    (tmp_path / CARD).write_text("my words")
    save_folder(controllers.artefact(), tmp_path)
    assert (tmp_path / CARD).read_text() == "my words"


def test_the_card_has_valid_front_matter_and_what_a_reader_must_know() -> None:
    yaml = pytest.importorskip("yaml")
    card = model_card(controllers.artefact())
    _, front, text = card.split("---\n", 2)
    assert yaml.safe_load(front) == {"library_name": "speckv", "tags": ["speculative-decoding", "speckv", "onnx"]}
    for part in (
        "## Features",
        "mean_draft_entropy` | nats",
        "## Metrics",
        "## Training data",
        "## Limits",
        "0 fp16, 1 int8, 2 nf4",
    ):
        assert part in text
    assert "None are recorded" in text


def test_the_card_shows_metrics_and_lets_nothing_else_be_markdown() -> None:
    artefact = controllers.artefact()
    training = {
        "metrics": {
            "acceptance_rate": {"test_mse": 0.0896},
            "[x](http://evil)": {"a": 1.0},
            "ok": "text",
            "flag": True,
        },
        "records": "```\n# Title <script>\n---\n",
    }
    metadata = msgspec.structs.replace(artefact.metadata, training=training)
    card = model_card(type(artefact)(artefact.heads, metadata, artefact.content, "x"))
    assert "| acceptance_rate test_mse | 0.0896 |" in card and "evil" not in card
    lines = [line for line in card.splitlines() if "script" in line]
    assert lines and all(line.startswith("    ") for line in lines)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {
            "features": [
                "mean_entropy",
                "mean_confidence",
                "max_entropy",
                "min_confidence",
                "compression_encoded",
                "gamma",
            ]
        },
        {"input_features": 6, "anything": {"else": [1]}},
        {"compression_encoding": {"nf4": 2, "int8": 1, "fp16": 0}},
    ],
)
def test_a_config_that_does_not_contradict_is_accepted(published: Path, config: dict[str, Any]) -> None:
    (published / CONFIG).write_text(json.dumps(config))
    assert open_controller(published).metadata.gammas == [2, 4, 6, 8]


def test_weights_of_a_wrong_shape_name_the_array_and_what_is_expected(tmp_path: Path) -> None:
    path = controllers.save_weights(tmp_path / "w.npz", controllers.published_arrays() | {"W1": np.zeros((5, 16))})
    with pytest.raises(SpecKVError, match=r"w.npz: refused, since W1.npy is float64 \(5, 16\); .* W1 \(6, 16\), b1"):
        import_weights(path)


def test_a_pickle_is_refused_with_a_conversion_that_works(tmp_path: Path) -> None:
    """The command in the message is run here, on a pickle that this test has made itself."""
    import pickle
    import subprocess

    from speckv.export.pickles import CONVERSION

    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(controllers.trained().heads["acceptance_rate"][-1]))
    with pytest.raises(SpecKVError, match="can run any code when it is loaded") as refused:
        Controller.load(path)
    assert f'python -c "{CONVERSION}"' in str(refused.value)
    subprocess.run([sys.executable, "-c", CONVERSION], cwd=tmp_path, check=True)
    weights = read_weights((tmp_path / WEIGHTS).read_bytes(), "w")
    network = controllers.artefact().heads["acceptance_rate"].estimator
    np.testing.assert_array_equal(weights.estimator.w1, network.w1)  # type: ignore[attr-defined]


class Hub(types.ModuleType):
    """Stands for huggingface_hub: one folder is the repository."""

    def __init__(self, folder: Path) -> None:
        super().__init__("huggingface_hub")
        self.folder = folder
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def snapshot_download(self, repo_id: str, **options: Any) -> str:
        self.calls.append((repo_id, options))
        return str(self.folder)

    def HfApi(self, **options: Any) -> Hub:  # noqa: N802 - the hub's own name
        self.calls.append(("api", options))
        return self

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self.calls.append((repo_id, options))
        return types.SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, *, repo_id: str, folder_path: str, **options: Any) -> Any:
        self.calls.append((repo_id, options | {"files": sorted(path.name for path in Path(folder_path).iterdir())}))
        return types.SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


def test_the_hub_is_asked_for_the_needed_files_only(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(published)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    controller = Controller.from_pretrained("Shikhar1/SpecKV", revision="main", token="t")
    assert controller.gammas == (2, 4, 8)
    ((repo_id, options),) = hub.calls
    assert repo_id == "Shikhar1/SpecKV" and options["revision"] == "main" and options["token"] == "t"
    assert options["allow_patterns"] == [ONNX, WEIGHTS, CONFIG]


def test_pushing_uploads_one_commit_of_the_saved_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert Controller(controllers.artefact()).push_to_hub("me/mine", private=True) == "https://hub/me/mine/commit/1"
    assert ("me/mine", {"private": True, "exist_ok": True}) in hub.calls
    assert hub.calls[-1][1]["files"] == sorted([ONNX, CONFIG, WEIGHTS, CARD])


def test_a_missing_hub_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "huggingface_hub":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SpecKVError, match=r"huggingface_hub is not installed; pip install 'speckv\[hub\]'"):
        Controller.from_pretrained("some/where")


def test_what_the_hub_itself_says_becomes_one_line(tmp_path: Path) -> None:
    """With the real library, from an empty cache and without a network (HF_HUB_OFFLINE is set for all tests)."""
    pytest.importorskip("huggingface_hub")
    for name in ("speckv-tests/absent", "not a/valid//name", "x" * 5000):
        with pytest.raises(SpecKVError) as refused:
            Controller.from_pretrained(name, cache_dir=tmp_path, local_files_only=True)
        assert str(refused.value).startswith(name) and "\n" not in str(refused.value)


def test_the_real_hub_library_reads_its_own_cache(tmp_path: Path, published: Path) -> None:
    pytest.importorskip("huggingface_hub")
    snapshot = tmp_path / "models--speckv-tests--mine" / "snapshots" / ("a" * 40)
    blobs = snapshot.parent.parent / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in (WEIGHTS, CONFIG):  # links, as the cache has them
        (blobs / name).write_bytes((published / name).read_bytes())
        (snapshot / name).symlink_to(blobs / name)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("a" * 40)
    controller = Controller.from_pretrained("speckv-tests/mine", cache_dir=tmp_path, local_files_only=True)
    assert controller.gammas == (2, 4, 8)
