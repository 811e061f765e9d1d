"""The paper's published weights, an ``.npz`` of four plain arrays, read from untrusted bytes and written."""

from __future__ import annotations

import io
import zipfile

import numpy as np

from speckv.controller.errors import SpecKVError
from speckv.controller.features import ENTROPY_FEATURES, FEATURES, nats_in
from speckv.export.files import brief
from speckv.export.heads import Array, Head, Network, Scaling
from speckv.export.pairing import LARGEST
from speckv.export.pickles import refuse_pickle

SHAPES = {"W1": (6, 16), "b1": (16,), "W2": (16, 1), "b2": (1,)}
ENTROPY_UNIT = "bits"
"""What published weights are fed: the paper's notebooks take log2."""
MAX_BYTES = 64 << 10
"""Of the file and of each array; an honest one has 2 KB."""
MAX_HEADER = 256


def read_weights(content: bytes, source: str, entropy_unit: str = ENTROPY_UNIT) -> Head:
    """The published network from an ``.npz`` file's bytes: float64 rounded to float32, otherwise as it is.

    It was trained on raw features with entropies in ``entropy_unit``, and a head takes nats: so where that is bits, a
    scaling stands before it.

    Raises SpecKVError unless the archive holds just the arrays W1 (6, 16), b1 (16,), W2 (16, 1) and b2 (1,), of finite
    floats. Nothing is extracted, and no more is unpacked than these arrays have.
    """
    refuse_pickle(content, source)
    try:
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has {len(content)} bytes")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            arrays = _arrays(archive)
        why = _network(arrays).problem(len(FEATURES))
    except Exception as error:  # zipfile, zlib and numpy's header parser raise whatever they come upon
        why = brief(error) or type(error).__name__
    if why:
        expected = ", ".join(f"{name} {shape}" for name, shape in SHAPES.items())
        raise SpecKVError(f"{source}: refused, since {why}; published weights are an .npz of floats {expected}")
    return Head(_network(arrays), None if entropy_unit == "nats" else _from_nats(entropy_unit))


def write_weights(head: Head) -> bytes:
    """The head as published weights, which take entropies in bits; always the same bytes.

    Exact in float32 if :func:`read_weights` read it from such. The scaling of any other head, and its unit, are folded
    into W1 and b1, whose rounding then moves a prediction by about 1e-6. Raises SpecKVError for what is no regression
    network of 16 units.
    """
    network = head.estimator
    if not isinstance(network, Network) or network.logistic or network.w1.shape != SHAPES["W1"]:
        raise SpecKVError(
            "the published format holds a regression network of 16 units, which this head is not; use .onnx"
        )
    scale, b1 = np.ones(len(FEATURES)), network.b1
    if head.scaling:
        scale = head.scaling.scale.astype(np.float64)
        b1 = (b1 - (head.scaling.offset * scale) @ network.w1).astype(np.float32)
    scale /= _from_nats(ENTROPY_UNIT).scale  # of what was imported this leaves exactly 1
    folded = Network((scale[:, None] * network.w1).astype(np.float32), b1, network.w2, network.b2)
    if why := folded.problem(len(FEATURES)):
        raise SpecKVError(f"with its scaling folded in, {why}, which the published format does not hold; use .onnx")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, values in zip(SHAPES, (folded.w1, folded.b1, folded.w2, folded.b2), strict=True):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())  # ZipInfo's time is 1980, always
    return stream.getvalue()


def _from_nats(unit: str) -> Scaling:
    """Features with entropies in nats to the same in ``unit``."""
    scale = [1 / nats_in(unit) if name in ENTROPY_FEATURES else 1.0 for name in FEATURES]
    return Scaling(np.zeros(len(FEATURES), np.float32), np.array(scale, np.float32))


def _arrays(archive: zipfile.ZipFile) -> dict[str, Array]:
    members = archive.infolist()
    if sorted(member.filename for member in members) != sorted(f"{name}.npy" for name in SHAPES):
        raise ValueError(f"it holds {brief([member.filename for member in members])}")
    arrays = {}
    for member in members:
        if member.file_size > MAX_BYTES or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member.filename} would have {member.file_size} bytes, or is packed unusually")
        with archive.open(member) as stream:
            content = stream.read(MAX_BYTES + 1)  # a bound, since the declared size is only another claim
        arrays[member.filename.removesuffix(".npy")] = _array(content, member.filename)
    return arrays


def _array(content: bytes, name: str) -> Array:
    """The array of an ``.npy`` file. Its header is looked at first, since an array is allocated as that says."""
    stream = io.BytesIO(content)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError(f"{name} is of another version of the format")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=MAX_HEADER)
    if shape != SHAPES[name.removesuffix(".npy")] or dtype.kind != "f" or dtype.itemsize not in (4, 8):
        raise ValueError(f"{name} is {brief(dtype)} {brief(shape)}")
    values = np.load(io.BytesIO(content), allow_pickle=False, max_header_size=MAX_HEADER)
    if not (np.abs(values) <= LARGEST).all():
        raise ValueError(f"{name} has a number that is not finite or beyond {LARGEST:.0e}")
    return np.ascontiguousarray(values, dtype=np.float32)


def _network(arrays: dict[str, Array]) -> Network:
    return Network(arrays["W1"], arrays["b1"], arrays["W2"], arrays["b2"])
