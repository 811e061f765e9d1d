"""Reading a stranger's file: no more of it than a controller may have, and nothing of it onto a terminal."""

from __future__ import annotations

from pathlib import Path

from speckv.controller.errors import SpecKVError


def brief(text: object, most: int = 80) -> str:
    """``text`` as one short printable line, since what a stranger's file says may end up on a terminal."""
    line = " ".join(str(text).split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def present(path: Path) -> bool:
    """Whether there is anything at ``path``; False also where one cannot look, as reading it will then say."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def read_bounded(path: Path, most: int) -> bytes:
    """The content of a regular file of at most ``most`` bytes; raises SpecKVError on anything else."""
    try:
        if not path.is_file():  # a pipe or a device might never end
            why = "not a file" if path.exists() else "no such file"
            raise SpecKVError(f"{path}: {why}; give the path of a controller that `speckv train` wrote")
        with path.open("rb") as stream:
            content = stream.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise SpecKVError(f"{path}: cannot be read ({brief(error)}); give the path of a controller") from None
    if len(content) > most:
        raise SpecKVError(f"{path}: more than {most} bytes, so no controller; `speckv train` makes one")
    return content
