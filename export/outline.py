"""A look over the outline of a protobuf file before its parser sees it, which can need a hundred times its size."""

from __future__ import annotations

import re
from typing import Any

MAX_FIELDS = 1000
MAX_PLAIN = 256 << 10
"""Bytes outside of tables; an honest controller has a few thousand."""

NODES: dict[int, Any] = {7: {1: {}}}
"""The messages that are looked into: ModelProto.graph (field 7) and GraphProto.node (1), whose field 5, an attribute,
may be a table."""

TABLE = re.compile(
    rb"\x0a[\x01-\x40][a-z_]+"  # the attribute's name, then all floats, all integers, or the modes of a forest
    rb"(?:(?:\x3d[\x00-\xff]{4})*+|(?:\x40[\x80-\xff]{0,9}+[\x00-\x7f])*+|(?:\x4a\x04LEAF|\x4a\x0aBRANCH_LEQ)*+)"
    rb"\xa0\x01[\x06-\x08]"  # its type
)


def problem(content: bytes) -> str | None:
    """Why ``content`` should not be parsed, or None.

    Small messages and lists cost far more in memory than in a file. So the fields of the model, its graph and its
    nodes are counted, and all that is within them may together have MAX_PLAIN bytes, except for lists of numbers.
    """
    try:
        fields, plain = _measure(content)
    except (ValueError, IndexError):
        return "it is no ONNX file, or a damaged one"
    if fields > MAX_FIELDS or plain > MAX_PLAIN:
        return f"it has more than {MAX_FIELDS} parts or {MAX_PLAIN} bytes besides tables of numbers"
    return None


def _measure(content: bytes) -> tuple[int, int]:
    """(fields, bytes outside of tables); stops counting beyond MAX_FIELDS."""
    fields = plain = 0
    inside = [(0, len(content), NODES)]
    while inside:
        at, end, messages = inside.pop()
        while at < end and fields <= MAX_FIELDS:
            fields += 1
            key, at = _varint(content, at)
            number, kind = key >> 3, key & 7
            size = 0
            if kind == 0:
                _, at = _varint(content, at)
            elif kind == 1:
                size = 8
            elif kind == 2:
                size, at = _varint(content, at)
            elif kind == 5:
                size = 4
            else:
                raise ValueError("a group, which ONNX has none of")
            if at + size > end:
                raise ValueError("a field that ends after its message")
            if kind == 2 and number in messages:
                inside.append((at, at + size, messages[number]))
            elif not TABLE.fullmatch(content, at, at + size):
                plain += size
            at += size
    return fields, plain


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """The integer at ``at`` and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("an integer of more than ten bytes")
