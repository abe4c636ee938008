r"""Letters in pictures: names in any script, by a font that has them, else by their codes.

matplotlib brings DejaVu Sans, with the letters of Europe, of Arabic and Hebrew, and most signs. For
others a font of this machine is taken. A letter that none has is drawn as its code, such as
\u6b63: a row of equal boxes would not tell one class from another.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

_SIZE = 14


def lettered(text: str) -> tuple[str, ImageFont.FreeTypeFont]:
    """Return a text as it can be drawn, and the font to draw it with.

    What is no letter, such as a line feed, becomes a question mark.
    """
    plain = printable(text)
    path = _font_for("".join(sorted({*plain} - _letters(_usual()))))
    return _in_letters_of(plain, path), _opened(path)


def in_usual_letters(text: str) -> str:
    """Return a text as DejaVu Sans can draw it, for figures that are alike on every machine."""
    return _in_letters_of(printable(text), _usual())


def _in_letters_of(text: str, path: Path) -> str:
    """Return a text with a code in place of each letter that a font does not have."""
    there = _letters(path)
    return "".join(c if c in there else _code(c) for c in text)


def printable(name: str) -> str:
    """Return a name with a question mark for each character that no font has."""
    return "".join(c if c.isprintable() else "?" for c in name)


def _code(letter: str) -> str:
    return letter.encode("ascii", "backslashreplace").decode()


def _usual() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@lru_cache(maxsize=64)
def _font_for(missing: str) -> Path:
    """Return the first font of this machine that has what the usual one has not, or the usual."""
    if not missing:
        return _usual()
    from matplotlib.font_manager import fontManager

    needed = {*missing, *"?.: 0\N{HORIZONTAL ELLIPSIS}"}
    for path in sorted({Path(found.fname) for found in fontManager.ttflist}):
        if needed <= _letters(path) and "lastresort" not in path.name.lower():
            return path
    return _usual()


@lru_cache(maxsize=512)
def _letters(path: Path) -> frozenset[str]:
    """Return the letters of a font; none if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(str(path)).get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@lru_cache(maxsize=8)
def _opened(path: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, _SIZE)
