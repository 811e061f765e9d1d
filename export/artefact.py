"""The controller's file: one self-describing ONNX model, written atomically and checked before it is used."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import onnx

from speckv.controller.errors import SpecKVError
from speckv.controller.features import COMPRESSION_LEVELS, FEATURES, SURVIVAL_FEATURES
from speckv.controller.files import write_whole
from speckv.export.files import brief, read_bounded
from speckv.export.graph import METADATA_KEY, answering, serialized
from speckv.export.heads import Head
from speckv.export.inspection import parse_model, read_heads
from speckv.export.pairing import HEADS
from speckv.export.pickles import refuse_pickle

SCHEMA_VERSION = 3
MAX_BYTES = 8 << 20
"""The paper's forest of 100 trees has 6 MB; to look into 8 MiB of forest takes 200 MB."""
MAX_GAMMA = 64
UNITS = {
    "mean_draft_entropy": "nats",
    "mean_draft_confidence": "probability",
    "max_draft_entropy": "nats",
    "min_draft_confidence": "probability",
    "compression": "level",
    "gamma": "tokens",
    "log_draft_confidence": "nats",
    "recent_acceptance": "probability",
    "lasting_acceptance": "probability",
    "drafted": "tokens",
    "further": "tokens",
}


class Metadata(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What an artefact says about itself. ``gammas`` are the candidates its records were profiled with."""

    schema_version: int = SCHEMA_VERSION
    features: list[str] = msgspec.field(default_factory=lambda: list(FEATURES))
    survival_features: list[str] = msgspec.field(default_factory=lambda: list(SURVIVAL_FEATURES))
    units: dict[str, str] = msgspec.field(default_factory=lambda: dict(UNITS))
    compression_levels: dict[str, int] = msgspec.field(default_factory=lambda: dict(COMPRESSION_LEVELS))
    heads: list[str]
    gammas: list[int]
    training: dict[str, Any]
    versions: dict[str, str]


@dataclass(frozen=True, eq=False)
class Artefact:
    """A checked controller; ``content`` is its file, ``source`` where it came from."""

    heads: Mapping[str, Head]
    metadata: Metadata
    content: bytes
    source: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def head(self, name: str, last: Sequence[float]) -> bytes:
        """A serialised model of the head ``name`` alone, for these values of its last feature: (N, M) to (N, K)."""
        if name not in self.heads:
            raise SpecKVError(f"{self.source}: has no {name} head, only {', '.join(self.heads)}")
        return serialized(answering(name, self.heads[name], last))


def library_versions(*packages: str) -> dict[str, str]:
    """Installed versions of ``packages``."""
    return {package: importlib.metadata.version(package) for package in packages}


def make_artefact(model: onnx.ModelProto, metadata: Metadata, source: str) -> Artefact:
    """``model`` with ``metadata``, checked as a file would be; ``source`` names it in errors."""
    complete = onnx.ModelProto()
    complete.CopyFrom(model)
    del complete.metadata_props[:]
    complete.metadata_props.add(key=METADATA_KEY, value=_text(metadata))
    return parse(serialized(complete), source)


def write_artefact(model: onnx.ModelProto, metadata: Metadata, path: Path) -> str:
    """Write ``model`` with ``metadata`` to ``path`` under a temporary name first; returns the file's sha256.

    What would be refused on reading is not written. The same model and metadata make the same bytes.
    """
    artefact = make_artefact(model, metadata, str(path))
    write_whole(path, artefact.content)
    return artefact.sha256


def read_artefact(path: Path) -> Artefact:
    """Read and check the artefact at ``path``; raises SpecKVError with one line when anything is not as it must be."""
    return parse(read_bounded(path, MAX_BYTES), str(path))


def parse(content: bytes, source: str) -> Artefact:
    """Check ``content`` as :func:`read_artefact` does; ``source`` names it in errors."""
    if len(content) > MAX_BYTES:
        raise SpecKVError(
            f"{source}: {len(content)} bytes, more than the {MAX_BYTES} of a controller; use a smaller model"
        )
    refuse_pickle(content, source)
    model = parse_model(content, source)
    text = next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), None)
    if text is None:
        raise SpecKVError(f"{source}: an ONNX file without speckv metadata, so no controller; see `speckv train`")
    metadata = _metadata(text, source)
    return Artefact(read_heads(model, metadata.heads, text, source), metadata, content, source)


def _text(metadata: Metadata) -> str:
    return msgspec.json.encode(metadata, order="sorted").decode()


def _metadata(text: str, source: str) -> Metadata:
    try:
        metadata = msgspec.json.decode(text, type=Metadata)
        plain = _text(metadata) == text
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise SpecKVError(f"{source}: its metadata is damaged ({brief(error)}); make it again") from None
    if metadata.schema_version != SCHEMA_VERSION:
        raise SpecKVError(
            f"{source}: schema version {metadata.schema_version}, and this speckv reads {SCHEMA_VERSION}; "
            "make the artefact again or install the speckv it was made with"
        )
    if not plain:  # a key given twice, say, of which another reader might take the other
        raise SpecKVError(f"{source}: its metadata is not written as `speckv train` writes it; make it again")
    if why := _problem(metadata):
        raise SpecKVError(f"{source}: {why}; make it again")
    return metadata


def _problem(metadata: Metadata) -> str | None:
    """Why a controller cannot be used as its metadata describes it, or None."""
    if metadata.features != list(FEATURES):
        return f"features {brief(metadata.features)} are not {', '.join(FEATURES)} in this order"
    if metadata.survival_features != list(SURVIVAL_FEATURES):
        return f"survival features {brief(metadata.survival_features)} are not {', '.join(SURVIVAL_FEATURES)}"
    if metadata.units != UNITS:
        return f"units {brief(metadata.units)} are not {UNITS}"
    if metadata.compression_levels != COMPRESSION_LEVELS:
        return f"compression levels {brief(metadata.compression_levels)} are not {COMPRESSION_LEVELS}"
    heads, gammas = metadata.heads, metadata.gammas
    if "acceptance_rate" not in heads or len(set(heads)) != len(heads) or set(heads) - set(HEADS):
        return f"heads {brief(heads)} are not acceptance_rate, alone or with survival"
    if not gammas or gammas != sorted(set(gammas)) or not 1 <= gammas[0] <= gammas[-1] <= MAX_GAMMA:
        return f"candidate gammas {brief(gammas)} are not ascending within 1 … {MAX_GAMMA}"
    return None
