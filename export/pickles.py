"""Pickles are refused wherever a controller is read: unpickling runs whatever code the file's author put in it."""

from __future__ import annotations

from pathlib import Path

from speckv.controller.errors import SpecKVError

SUFFIXES = (".pkl", ".pickle", ".joblib", ".sav", ".pt", ".pth", ".bin", ".ckpt")
MAGICS = (
    *(bytes((0x80, protocol)) for protocol in range(2, 6)),
    b"ccopy_reg\n",
    b"\x78\x9c",  # joblib's compressions: zlib, gzip, bzip2, xz, lz4
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"\x04\x22\x4d\x18",
)
CONVERSION = (
    "import pickle,numpy as n;m=pickle.load(open('model.pkl','rb'));"
    "n.savez('speckv_mlp16_weights.npz',W1=m.coefs_[0],b1=m.intercepts_[0],W2=m.coefs_[1],b2=m.intercepts_[1])"
)
"""Writes the numbers of a pickled scikit-learn MLP as plain arrays; for a sandbox of the user's own."""


def refuse_pickle(content: bytes, source: str) -> None:
    """Raise SpecKVError if ``content``, or what ``source`` is called, is a pickle's; it is never loaded."""
    torch = content.startswith(b"PK\x03\x04") and b"/data.pkl" in content[:4096]
    if torch or content.startswith(MAGICS) or Path(source).suffix.lower() in SUFFIXES:
        raise SpecKVError(
            f"{source}: a pickle, which can run any code when it is loaded, so it is not; convert it in a throw-away "
            f'container without network or secrets, and take only the .npz out: python -c "{CONVERSION}"'
        )
