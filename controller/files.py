"""Writing a file: under a temporary name first, so that no reader ever sees half a file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from speckv.controller.errors import SpecKVError


def write_whole(path: Path, content: bytes | str) -> None:
    """Write ``content`` (text as UTF-8) to ``path``, making its folder; SpecKVError where that cannot be."""
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".writing")
    except OSError as error:
        raise SpecKVError(f"{path}: cannot be written ({error.strerror}); name another file") from None
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        Path(temporary).chmod(0o644)  # mkstemp's 0600 would make a shared result unreadable
        Path(temporary).replace(path)
    except OSError as error:
        raise SpecKVError(f"{path}: cannot be written ({error.strerror}); name another file") from None
    finally:
        Path(temporary).unlink(missing_ok=True)
