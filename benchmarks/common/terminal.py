"""How anything is put on a terminal: text is shown as it is, whoever wrote it."""

from __future__ import annotations

from rich.console import Console

FILE_WIDTH = 200
"""Columns of text when the output is not a terminal: no table has to wrap."""


def plain(text: str) -> str:
    """``text`` with a ? for every character that is not printable, so that nothing in it steers the terminal."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def make_console(stderr: bool = False) -> Console:
    """A console that takes no brackets for markup and no colons for emoji, in tables, titles and lines alike."""
    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    return console
