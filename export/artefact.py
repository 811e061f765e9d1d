"""The controller's file: one self-describing ONNX model, written atomically and checked before it is used."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import onnx

from speckv.controller.errors import SpecKVError
from speckv.controller.features import COMPRESSION_LEVELS, FEATURES
from speckv.export.inspection import refuse_unless_ours

SCHEMA_VERSION = 1
METADATA_KEY = "speckv"
MAX_BYTES = 32 << 20
HEADS = ("acceptance_rate", "survival")
UNITS = {
    "mean_draft_entropy": "nats",
    "mean_draft_confidence": "probability",
    "max_draft_entropy": "nats",
    "min_draft_confidence": "probability",
    "compression": "level",
    "gamma": "tokens",
}


class Metadata(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What an artefact says about itself. ``gammas`` are the candidates its records were profiled with."""

    schema_version: int = SCHEMA_VERSION
    features: list[str] = msgspec.field(default_factory=lambda: list(FEATURES))
    units: dict[str, str] = msgspec.field(default_factory=lambda: dict(UNITS))
    compression_levels: dict[str, int] = msgspec.field(default_factory=lambda: dict(COMPRESSION_LEVELS))
    heads: list[str]
    gammas: list[int]
    training: dict[str, Any]
    versions: dict[str, str]


@dataclass(frozen=True)
class Artefact:
    """A checked controller file."""

    model: onnx.ModelProto
    metadata: Metadata
    sha256: str
    source: str

    def head(self, name: str) -> bytes:
        """The serialised sub-model that computes only the head ``name``."""
        if name not in self.metadata.heads:
            raise SpecKVError(f"{self.source}: has no {name} head, only {', '.join(self.metadata.heads)}")
        alone = onnx.utils.Extractor(self.model).extract_model(["signals", "gammas"], [name])
        return bytes(alone.SerializeToString())


def library_versions(*packages: str) -> dict[str, str]:
    """Installed versions of ``packages``."""
    return {package: importlib.metadata.version(package) for package in packages}


def write_artefact(model: onnx.ModelProto, metadata: Metadata, path: Path) -> str:
    """Write ``model`` with ``metadata`` to ``path`` under a temporary name first; returns the file's sha256."""
    complete = onnx.ModelProto()
    complete.CopyFrom(model)
    del complete.metadata_props[:]
    entry = complete.metadata_props.add()
    entry.key = METADATA_KEY
    entry.value = msgspec.json.encode(metadata, order="sorted").decode()
    content = complete.SerializeToString(deterministic=True)
    parse(content, str(path))  # what would be refused on reading is not written
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".writing")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return hashlib.sha256(content).hexdigest()


def read_artefact(path: Path) -> Artefact:
    """Read and check the artefact at ``path``; raises SpecKVError with one line when anything is not as it must be."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise SpecKVError(f"{path}: not a file; give the path of an .onnx made by `speckv train`")
        if size > MAX_BYTES:
            raise SpecKVError(f"{path}: {size} bytes, more than the {MAX_BYTES} a controller may have")
        content = path.read_bytes()
    except OSError as error:
        raise SpecKVError(f"{path}: cannot be read ({error.strerror}); `speckv train` makes one") from None
    return parse(content, str(path))


def parse(content: bytes, source: str) -> Artefact:
    """Check ``content`` as :func:`read_artefact` does; ``source`` names it in errors."""
    if content[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise SpecKVError(f"{source}: a pickle, which could run any code when loaded; only .onnx artefacts are read")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception:  # protobuf's DecodeError is not exported where its versions agree
        raise SpecKVError(f"{source}: not an ONNX file, or a damaged one; make it again") from None
    metadata = _metadata(model, source)
    refuse_unless_ours(model, metadata.heads, source)
    return Artefact(model, metadata, hashlib.sha256(content).hexdigest(), source)


def _metadata(model: onnx.ModelProto, source: str) -> Metadata:
    entries = {entry.key: entry.value for entry in model.metadata_props}
    if METADATA_KEY not in entries:
        raise SpecKVError(
            f"{source}: an ONNX file without speckv metadata, so no speckv controller; see `speckv train`"
        )
    try:
        metadata = msgspec.json.decode(entries[METADATA_KEY], type=Metadata)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpecKVError(f"{source}: its metadata is damaged ({error}); make it again") from None
    if metadata.schema_version != SCHEMA_VERSION:
        raise SpecKVError(
            f"{source}: schema version {metadata.schema_version}, and this speckv reads {SCHEMA_VERSION}; "
            "make the artefact again or install the speckv it was made with"
        )
    if metadata.features != list(FEATURES):
        raise SpecKVError(f"{source}: features {metadata.features} are not {list(FEATURES)} in this order")
    if metadata.compression_levels != COMPRESSION_LEVELS:
        raise SpecKVError(f"{source}: compression levels {metadata.compression_levels} are not {COMPRESSION_LEVELS}")
    if not metadata.heads or len(set(metadata.heads)) != len(metadata.heads) or set(metadata.heads) - set(HEADS):
        raise SpecKVError(f"{source}: heads {metadata.heads} are not some of {list(HEADS)}")
    if not metadata.gammas or not all(0 < gamma <= 64 for gamma in metadata.gammas):
        raise SpecKVError(f"{source}: candidate gammas {metadata.gammas} are not all within 1 … 64")
    return metadata
