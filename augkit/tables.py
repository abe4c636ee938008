"""Plain text: tables, counts, and values as they are typed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return aligned columns, numbers to the right; the last column is not padded."""
    cells = [list(head), *([one_line(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    right = [all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(head))]
    lines = []
    for row in cells:
        padded = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def counted(n: int, noun: str) -> str:
    """Return a number and what it counts, such as "1 image" or "2 images"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def typed(value: Any) -> str:
    """Return the JSON value of an option as a user types it: 0.8,1.2 or false."""
    if isinstance(value, list):
        return ",".join(map(typed, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def one_line(value: Any) -> str:
    """Return a value as one line, whatever characters a name holds."""
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def is_utf8(text: str) -> bool:
    """Return True for text that can be stored; names and what is typed may be any bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
