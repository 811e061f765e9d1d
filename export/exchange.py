"""Controllers in the forms they are passed around in: an artefact, published weights, or a folder of either."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import msgspec

from speckv.controller.errors import SpecKVError
from speckv.controller.features import COMPRESSION_LEVELS, FEATURES, NATS
from speckv.controller.files import write_whole
from speckv.controller.policies.tokens import PAPER_GAMMAS
from speckv.export.artefact import (
    MAX_BYTES,
    MAX_GAMMA,
    Artefact,
    Metadata,
    library_versions,
    make_artefact,
    parse,
)
from speckv.export.card import model_card
from speckv.export.files import brief, present, read_bounded
from speckv.export.graph import assemble
from speckv.export.weights import ENTROPY_UNIT, read_weights, write_weights

ONNX, WEIGHTS, CONFIG, CARD = "controller.onnx", "speckv_mlp16_weights.npz", "config.json", "README.md"
FILES = (ONNX, WEIGHTS, CONFIG)
"""All that is ever read of a folder or a hub repository."""

MAX_CONFIG = 64 << 10
FEATURE_KEYS = ("features", "feature_names", "feature_cols", "feature_order", "input_features")
LEVEL_KEYS = ("compression_levels", "compression_encoding", "compression_map", "comp_map")
GAMMA_KEYS = ("gammas", "gamma_options", "gamma_values", "gamma_candidates", "candidate_gammas")
WORDS = {"comp": "compression", "gamma": "gamma", "max": FEATURES[2], "min": FEATURES[3]}
WORDS |= {"entropy": FEATURES[0], "conf": FEATURES[1]}
"""By which features are known that go by other names, as the release's own do; the first that fits decides."""


def open_controller(path: Path) -> Artefact:
    """Read a controller from an ``.onnx`` artefact, published weights (``.npz``), or a folder with one of FILES.

    An artefact goes before weights. Raises SpecKVError naming the file that is missing or malformed.
    """
    if present(path) and path.is_dir():
        found = next((path / name for name in (ONNX, WEIGHTS) if present(path / name)), None)
        if found is None:
            raise SpecKVError(f"{path}: holds neither {ONNX} nor {WEIGHTS}; give a controller's file or folder")
        path = found
    if path.suffix == ".npz":
        return import_weights(path)
    return parse(read_bounded(path, MAX_BYTES), str(path))


def import_weights(path: Path) -> Artefact:
    """The paper's published weights as a controller with an acceptance_rate head.

    A ``config.json`` beside them is checked: it must not contradict the features' order or the compression levels;
    it may name the candidate γ, by default the paper's, and the ``entropy_unit`` that the weights take, by default
    bits. The controller takes nats in any case.
    """
    content = read_bounded(path, MAX_BYTES)
    config_file = path.with_name(CONFIG)
    config = _read_config(config_file) if present(config_file) else {}
    gammas, entropy_unit = _gammas(config, config_file), _entropy_unit(config, config_file)
    head = read_weights(content, str(path), entropy_unit)
    metadata = Metadata(
        heads=["acceptance_rate"],
        gammas=gammas,
        training={
            "estimator": "mlp16",
            "imported_from": path.name,
            "entropy_unit": entropy_unit,
            "weights_sha256": hashlib.sha256(content).hexdigest(),
            "note": "trained elsewhere, on raw features, as published with arXiv 2605.02888",
        },
        versions=library_versions("numpy", "onnx"),
    )
    return make_artefact(assemble({"acceptance_rate": head}), metadata, str(path))


def save_folder(artefact: Artefact, folder: Path) -> list[Path]:
    """Write what a hub repository of this controller holds; returns the files.

    The artefact, ``config.json``, a model card unless there is one (it may have been edited), and the weights in the
    paper's form where the acceptance head is a network of its size.
    """
    contents, config = {ONNX: artefact.content}, _config(artefact)
    with contextlib.suppress(SpecKVError):  # not every head has that form
        contents[WEIGHTS] = write_weights(artefact.heads["acceptance_rate"])
        config["entropy_unit"] = ENTROPY_UNIT  # of the weights; ``units`` are those of the artefact
    contents[CONFIG] = msgspec.json.format(msgspec.json.encode(config))
    if not present(folder / CARD):
        contents[CARD] = model_card(artefact).encode()
    for name, content in contents.items():
        write_whole(folder / name, content)
    return [folder / name for name in contents]


def _config(artefact: Artefact) -> dict[str, Any]:
    metadata = artefact.metadata
    return {
        "library_name": "speckv",
        "schema_version": metadata.schema_version,
        "features": metadata.features,
        "units": metadata.units,
        "compression_levels": metadata.compression_levels,
        "gammas": metadata.gammas,
        "heads": metadata.heads,
        "training": metadata.training,
        "versions": metadata.versions,
    }


def _read_config(path: Path) -> dict[str, Any]:
    """A ``config.json``, of which the keys that are known here must say what is true."""
    content = read_bounded(path, MAX_CONFIG)
    try:
        config = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise SpecKVError(f"{path}: no JSON object ({brief(error)}); take the file as published") from None
    for key in FEATURE_KEYS:
        names = config.get(key)
        if isinstance(names, list) and [_feature(name) for name in names] != list(FEATURES):
            raise SpecKVError(f"{path}: {key} {brief(names)} are not {', '.join(FEATURES)} in this order")
    for key in LEVEL_KEYS:
        if config.get(key, COMPRESSION_LEVELS) != COMPRESSION_LEVELS:
            raise SpecKVError(f"{path}: {key} {brief(config[key])} are not {COMPRESSION_LEVELS}")
    return config


def _entropy_unit(config: dict[str, Any], path: Path) -> str:
    unit = config.get("entropy_unit", ENTROPY_UNIT)
    if not isinstance(unit, str) or unit not in NATS:
        raise SpecKVError(f"{path}: entropy_unit {brief(unit)} is not {' or '.join(NATS)}")
    return unit


def _gammas(config: dict[str, Any], path: Path) -> list[int]:
    gammas = next((config[key] for key in GAMMA_KEYS if key in config), list(PAPER_GAMMAS))
    if not isinstance(gammas, list) or not gammas or not all(_is_gamma(gamma) for gamma in gammas):
        raise SpecKVError(f"{path}: candidate gammas {brief(gammas)} are not whole numbers within 1 … {MAX_GAMMA}")
    return sorted(set(gammas))


def _feature(name: Any) -> str | None:
    return next((feature for word, feature in WORDS.items() if word in str(name).lower()), None)


def _is_gamma(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_GAMMA
