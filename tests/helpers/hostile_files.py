"""Things that are no regular file, and folders whose ``config.json`` is hostile."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from speckv.controller.features import FEATURES


def special(folder: Path, good: bytes) -> Iterator[Path]:
    """Pipes, devices, sockets, folders and links that lead to such, or nowhere."""
    os.mkfifo(folder / "pipe.onnx")
    os.mkfifo(folder / "pipe.npz")
    listener = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(folder)  # a socket's path may have a hundred characters only
    listener.bind("socket.onnx")
    os.chdir(here)
    listener.close()
    (folder / "folder.onnx").mkdir()
    links = {"zero": "/dev/zero", "terminal": "/dev/tty", "memory": "/proc/self/mem", "nowhere": "nothing.onnx"}
    links |= {"environment": "/proc/self/environ", "passwords": "/etc/passwd", "loop": "link-loop.onnx"}
    for name, target in links.items():
        (folder / f"link-{name}.onnx").symlink_to(target)
    (folder / "empty.onnx").write_bytes(b"")
    with (folder / "sparse.onnx").open("wb") as stream:
        stream.write(good)
        stream.truncate(20 << 30)
    (folder / "absent-\x1b[2J.onnx").touch()
    yield from (folder / f"link-{name}.onnx" for name in links)
    for name in ("pipe.onnx", "pipe.npz", "socket.onnx", "folder.onnx", "empty.onnx", "sparse.onnx", "absent.onnx"):
        yield folder / name
    yield folder / ("long" * 200 + ".onnx")
    yield folder / "file.onnx" / ".." / "x.onnx"


def folders(folder: Path, weights: bytes) -> Iterator[Path]:
    """Folders of good weights beside a bad ``config.json``, and folders of something else."""
    features = list(FEATURES)
    configs = {
        "swapped": {"features": [features[1], features[0], *features[2:]]},
        "release-names-swapped": {
            "feature_cols": ["draft_entropy", "draft_confidence", "min_conf", "max_entropy", "comp", "gamma"]
        },
        "five": {"feature_names": features[:5]},
        "numbers": {"features": [1, 2, 3, 4, 5, 6]},
        "levels": {"compression_levels": {"fp16": 0, "int8": 2, "nf4": 1}},
        "encoding": {"compression_encoding": {"fp16": 0}},
        "no-gammas": {"gammas": []},
        "gamma-zero": {"gamma_options": [0]},
        "gamma-text": {"gamma_values": ["2"]},
        "gamma-true": {"gammas": [True]},
        "gamma-huge": {"gammas": [10**30]},
        "gamma-number": {"gammas": 4},
        "unit-unknown": {"entropy_unit": "bytes"},
        "unit-number": {"entropy_unit": 2},
        "unit-list": {"entropy_unit": ["bits"]},
        "unit-escape": {"entropy_unit": "\x1b[2Jbits"},
        "gamma-escape": {"gammas": ["\x1b[2J\n"]},
    }
    contents = {name: json.dumps(config).encode() for name, config in configs.items()}
    contents |= {
        "empty": b"",
        "list": b"[]",
        "number": b"4",
        "cut": b'{"features": [',
        "not-utf-8": b'{"a": "\xff\xfe"}',
        "deep": b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        "deeper": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        "large": b'{"a": "' + b"x" * 70_000 + b'"}',
        "pickle": b"\x80\x04\x95",
        "python": b"__import__('os').system('true')",
    }
    for name, content in contents.items():
        inside = folder / f"config-{name}"
        inside.mkdir()
        (inside / "speckv_mlp16_weights.npz").write_bytes(weights)
        (inside / "config.json").write_bytes(content)
        yield inside
    made = [folder / f"config-{name}" for name in ("pipe", "folder")]
    for inside in made:
        inside.mkdir()
        (inside / "speckv_mlp16_weights.npz").write_bytes(weights)
    os.mkfifo(made[0] / "config.json")
    (made[1] / "config.json").mkdir()
    yield from made
    for name, file in (("nothing", None), ("only-pickle", "speckv_mlp16.pkl"), ("other-names", "model.onnx")):
        inside = folder / f"folder-{name}"
        inside.mkdir()
        if file:
            (inside / file).write_bytes(b"\x80\x04.")
        yield inside
