"""Pictures with a caption under each, in lines with a title: for people to look at and show.

Small images are enlarged by a whole factor and large ones shrunk, so that a sheet can be read. No
text is cut by an edge: a caption that is too long loses its middle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from augkit.errors import InputError
from augkit.reports.lettering import lettered
from augkit.reports.sheets import picture

_LEAST, _MOST = 128, 256
_GAP, _SEAM, _MARGIN, _LEADING = 8, 2, 16, 20
_LONGEST_TITLE = 900
_PAPER, _INK, _FAINT = (255, 255, 255), (32, 32, 32), (90, 90, 90)


@dataclass(frozen=True)
class Captioned:
    """Images that belong together, drawn side by side without a gap, and what is said of them."""

    images: tuple[np.ndarray, ...]
    """Each uint8 (H, W, 1 or 3); all images of a sheet are of one size."""
    caption: str = ""


@dataclass(frozen=True)
class Line:
    """One line of a sheet; None leaves a gap."""

    title: str
    pictures: Sequence[Captioned | None]


def draw_lines(lines: Sequence[Line], heading: str = "") -> Image.Image:
    """Return the lines below one another, each under its title; at least one image is there."""
    there = [found for line in lines for found in line.pictures if found is not None]
    high, wide = _shown(there[0].images[0].shape)
    inner = max(len(found.images) for found in there) * (wide + _SEAM) - _SEAM
    cell = max(inner, *(_width(*_fitted(found.caption, inner)) for found in there))
    columns = max(len(line.pictures) for line in lines)
    titles = [_shortened(title, _LONGEST_TITLE) for title in _titles(lines, heading)]
    width = max(columns * (cell + _GAP) - _GAP, *(_width(*title) for title in titles))
    y = _MARGIN + (_LEADING + _GAP if heading else 0)
    tops = []
    for line in lines:
        tops.append(y + (_LEADING if line.title else 0))
        captioned = any(found is not None and found.caption for found in line.pictures)
        y = tops[-1] + high + (_LEADING if captioned else 0) + _GAP
    sheet = Image.new("RGB", (width + 2 * _MARGIN, y - _GAP + _MARGIN), _PAPER)
    pen = ImageDraw.Draw(sheet)
    if heading:
        text, letters = titles[0]
        pen.text((_MARGIN, _MARGIN), text, _INK, letters)
    for line, (text, letters), top in zip(lines, titles[bool(heading) :], tops, strict=True):
        pen.text((_MARGIN, top - _LEADING), text, _FAINT if heading else _INK, letters)
        for column, found in enumerate(line.pictures):
            if found is not None:
                x = _MARGIN + column * (cell + _GAP)
                _paste(sheet, found, (x, top), (wide, high))
                text, letters = _fitted(found.caption, inner)
                pen.text((x, top + high + 2), text, _FAINT, letters)
    return sheet


def write_png(sheet: Image.Image, path: str | Path) -> Path:
    """Write a picture and return its path. Raises InputError if it cannot be written there."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"a picture is a PNG file: {path.with_suffix('.png')}, not {path}")
    try:
        sheet.save(path, format="PNG")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def _titles(lines: Sequence[Line], heading: str) -> list[str]:
    return [*([heading] if heading else []), *(line.title for line in lines)]


def _shown(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the height and width that an image of a shape is drawn with."""
    height, width = shape[:2]
    if width > _MOST:
        return max(1, round(height * _MOST / width)), _MOST
    times = max(1, -(-_LEAST // width))
    return height * times, width * times


def _paste(
    sheet: Image.Image, found: Captioned, at: tuple[int, int], size: tuple[int, int]
) -> None:
    for number, image in enumerate(found.images):
        shown = picture(image)
        if shown.size != size:
            shown = shown.resize(size, Image.Resampling.LANCZOS)
        sheet.paste(shown, (at[0] + number * (size[0] + _SEAM), at[1]))


def _fitted(caption: str, inner: int) -> tuple[str, ImageFont.FreeTypeFont]:
    return _shortened(caption, max(inner, _LEAST))


def _shortened(text: str, width: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """Return a text that is at most so many pixels wide, without its middle if need be."""
    text, letters = lettered(text)
    kept = len(text)
    shown = text
    while kept > 1 and _width(shown, letters) > width:
        kept -= 1
        head, tail = -(-kept // 2), kept // 2
        shown = text[:head] + "\N{HORIZONTAL ELLIPSIS}" + text[len(text) - tail :]
    return shown, letters


def _width(text: str, letters: ImageFont.FreeTypeFont) -> int:
    return math.ceil(letters.getlength(text))
