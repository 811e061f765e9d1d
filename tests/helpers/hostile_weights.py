"""Hostile ``.npz`` files and pickles."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Case = tuple[str, bytes]


def archives(good: bytes) -> Iterator[Case]:
    """Archives and arrays that are not four plain arrays of the published shapes."""
    arrays = {name: np.asarray(values) for name, values in np.load(io.BytesIO(good)).items()}

    def with_array(name: str, values: Any) -> bytes:
        stream = io.BytesIO()
        np.savez(stream, **(arrays | {name: values}))
        return stream.getvalue()

    def packed(members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", kind) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return stream.getvalue()

    def with_member(content: bytes, name: str = "W1.npy", kind: int = zipfile.ZIP_DEFLATED) -> bytes:
        return packed(members | {name: content}, kind)

    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    wrong = {
        "five-features": np.zeros((5, 16)),
        "transposed": arrays["W1"].T,
        "wide": np.zeros((6, 32)),
        "flat": arrays["W1"].ravel(),
        "scalar": np.float64(1),
        "empty": np.zeros((0, 16)),
        "integers": np.zeros((6, 16), np.int64),
        "booleans": np.zeros((6, 16), bool),
        "complex": np.zeros((6, 16), complex),
        "half": np.zeros((6, 16), np.float16),
        "long-double": np.zeros((6, 16), np.longdouble),
        "text": np.full((6, 16), "1.0"),
        "records": np.zeros((6, 16), [("a", "f4"), ("b", "f4")]),
        "dates": np.zeros((6, 16), "M8[s]"),
        "objects": np.full((6, 16), {"a": 1}, dtype=object),
        "nan": np.full((6, 16), np.nan),
        "infinite": np.full((6, 16), np.inf),
        "enormous": np.full((6, 16), 1e300),
    }
    for name, values in wrong.items():
        yield f"npz-{name}.npz", with_array("W1", values)
    for name, values in {"b1": np.zeros((1, 16)), "W2": np.zeros(16), "b2": np.float64(0)}.items():
        yield f"npz-shape-{name}.npz", with_array(name, values)
    yield "npz-extra.npz", with_array("W3", np.zeros(3))
    for name in members:
        yield f"npz-without-{name}.npz", packed({other: members[other] for other in members if other != name})
    for number, name in enumerate(
        ("../../evil.npy", "/etc/evil.npy", "..\\evil.npy", "W1.npy/", "C:evil.npy", "w1.npy")
    ):
        yield (
            f"npz-path-{number}.npz",
            packed({other: members[other] for other in members if other != "W1.npy"} | {name: members["W1.npy"]}),
        )
        yield f"npz-more-{number}.npz", with_member(b"x", name)

    header = lambda text: b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text  # noqa: E731
    headers = {
        "huge": b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000000000), }\n",
        "negative": b"{'descr': '<f8', 'fortran_order': False, 'shape': (-6, -16), }\n",
        "object": b"{'descr': '|O', 'fortran_order': False, 'shape': (6, 16), }\n",
        "code": b"{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': (6, 16)}\n",
        "no-shape": b"{'descr': '<f8', 'fortran_order': False}\n",
        "long": b"{'descr': '<f8', 'fortran_order': False, 'shape': (6, 16), }" + b" " * 5000 + b"\n",
        "deep": b"(" * 9000 + b")" * 9000 + b"\n",
        "sum": b"+".join([b"1"] * 5000) + b"\n",
        "not-text": b"\xff" * 100 + b"\n",
        "empty": b"",
    }
    for name, text in headers.items():
        yield f"npz-header-{name}.npz", with_member(header(text) + bytes(6 * 16 * 8))
    yield "npz-header-cut.npz", with_member(b"\x93NUMPY\x01\x00\xff\xff{")
    yield "npz-version-2.npz", with_member(b"\x93NUMPY\x02\x00" + members["W1.npy"][8:])
    yield "npz-version-9.npz", with_member(b"\x93NUMPY\x09\x00" + members["W1.npy"][8:])
    yield "npz-array-cut.npz", with_member(members["W1.npy"][:-8])
    yield "npz-array-empty.npz", with_member(b"")
    yield "npz-member-pickle.npz", with_member(pickle.dumps([1, 2]))
    yield "npz-member-zip.npz", with_member(good)
    yield "npz-lzma.npz", packed(members, zipfile.ZIP_LZMA)
    yield "npz-bzip2.npz", packed(members, zipfile.ZIP_BZIP2)

    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(40)) + bomb.flush()
    yield "npz-bomb.npz", with_member(bytes(40 << 20))
    honest_size = with_member(b"A" * 1000, kind=zipfile.ZIP_STORED)
    yield "npz-bomb-declared-small.npz", _lie(zeros, members)
    yield "npz-huge-member.npz", honest_size.replace((1000).to_bytes(4, "little"), b"\xfe\xff\xff\x7f")
    yield "npz-many-members.npz", packed({f"{number}.npy": b"" for number in range(20_000)}, zipfile.ZIP_STORED)
    yield "npz-large.npz", good + bytes(100_000)
    yield "npz-encrypted.npz", _flag(packed(members), 1)
    yield "npz-bad-sum.npz", _corrupt(packed(members, zipfile.ZIP_STORED), members["W1.npy"])
    for part in range(1, 9):
        yield f"npz-cut-{part}.npz", good[: len(good) * part // 9]
    stream = io.BytesIO()
    np.save(stream, arrays["W1"])
    yield "npz-one-array.npz", stream.getvalue()
    yield "npz-empty-archive.npz", packed({})
    yield "npz-nested.npz", packed({"inner.npz": good})
    yield "npz-no-archive.npz", b"W1,b1,W2,b2\n" * 40
    yield "npz-no-bytes.npz", b""


def _lie(deflated: bytes, members: dict[str, bytes]) -> bytes:
    """An archive whose W1.npy unpacks to far more than it says."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, deflated if name == "W1.npy" else content)
        info = archive.getinfo("W1.npy")
        info.compress_type = zipfile.ZIP_DEFLATED
        info.file_size = 896
    return stream.getvalue()


def _flag(content: bytes, flag: int) -> bytes:
    """Set a general-purpose flag of every member, in both of its headers."""
    changed = bytearray(content)
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = changed.find(magic)
        while at >= 0:
            changed[at + offset] |= flag
            at = changed.find(magic, at + 4)
    return bytes(changed)


def _corrupt(content: bytes, member: bytes) -> bytes:
    at = content.index(member) + len(member) - 1
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


class _Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.mark), "w"))


def pickles(mark: Path) -> Iterator[Case]:
    """Pickles, under their own names and under others; any that is loaded creates ``mark``."""
    for protocol in range(6):
        content = pickle.dumps(_Payload(mark), protocol)
        yield f"pickle-{protocol}.pkl", content
        yield f"pickle-{protocol}.onnx", content
        yield f"pickle-{protocol}.npz", content
    for suffix in ("joblib", "pickle", "pt", "bin", "json"):
        yield f"pickle.{suffix}", content
    for name, pack in (("zlib", zlib.compress), ("gzip", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)):
        yield f"pickle-{name}.onnx", pack(content)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model/data.pkl", content)
        archive.writestr("model/version", "3\n")
    for suffix in ("pt", "onnx", "npz"):
        yield f"torch.{suffix}", stream.getvalue()
    values = io.BytesIO()
    np.savez(values, W1=np.array([[_Payload(mark)] * 16] * 6), b1=np.zeros(16), W2=np.zeros((16, 1)), b2=np.zeros(1))
    yield "pickle-in-array.npz", values.getvalue()
    alone = io.BytesIO()
    np.save(alone, np.array([_Payload(mark)]), allow_pickle=True)
    yield "pickle-in-npy.npz", alone.getvalue()
