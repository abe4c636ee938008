"""Contact sheets: what an augmentation made, below what it was made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from augkit.errors import StoreError
from augkit.interfaces import Samples
from augkit.partitions import HOLDOUT
from augkit.reports.lettering import lettered
from augkit.store import Run, Snapshot

_GAP, _MARGIN, _TEXT = 6, 16, 14
_WIDEST = 256
"""Of an image on a sheet; larger ones are shrunk as they are read, or a sheet would fill memory."""
_PAPER, _INK, _FAINT = (255, 255, 255), (32, 32, 32), (110, 110, 110)


@dataclass(frozen=True)
class SheetRow:
    """One line of a sheet: a name and its pictures; None leaves a gap."""

    name: str
    images: list[np.ndarray | None]


def contact_sheet(
    snapshot: Snapshot, runs: Sequence[str] | None = None, *, n: int = 6, seed: int = 0
) -> tuple[Image.Image, int]:
    """Return for each class n real training images, and below each what the runs made of it.

    runs: their names; all by default. seed chooses the images. Generated images, which have no
    parent, stand in rows of their own. Also returns how many images are shown. Raises StoreError
    if there is nothing to show.
    """
    if not _labels(snapshot):
        raise StoreError(f"{snapshot.path} has no training images to show: augkit ingest FOLDER")
    blocks = real_over_generated(snapshot, list(runs or snapshot.runs), n=n, seed=seed).values()
    rows = [row for block in blocks for row in block]
    return draw_sheet(rows), sum(image is not None for row in rows for image in row.images)


def _labels(snapshot: Snapshot) -> list[int]:
    return np.unique(snapshot.real.labels[snapshot.parts(HOLDOUT) == 0]).tolist()


def _rows_of_class(
    snapshot: Snapshot, runs: Sequence[Run], label: int, n: int, rng: np.random.Generator
) -> list[SheetRow]:
    """Return a row of parents and a row for each run, column by column of one parent."""
    usable = (snapshot.parts(HOLDOUT) == 0) & (snapshot.real.labels == label)
    candidates = rng.permutation(np.flatnonzero(usable))
    family = {r.name: snapshot.parents(r.name) for r in runs if r.family == "traditional"}
    n_children = np.zeros(len(candidates), np.int64)
    for parents in family.values():
        n_children += np.isin(candidates, parents)
    candidates = candidates[np.argsort(-n_children, kind="stable")]  # those of most runs first
    chosen = np.sort(candidates[:n])
    real = snapshot.inspect()
    rows = [
        SheetRow(f"{snapshot.classes[label]}: real", [_shown(real, i) for i in chosen.tolist()])
    ]
    for run in runs:
        made = snapshot.inspect(run.name)
        if run.name in family:
            places = [np.flatnonzero(family[run.name] == parent)[:1] for parent in chosen]
        else:
            places = [np.array([i]) for i in np.flatnonzero(made.labels == label)[:n]]
        images = [_shown(made, int(p[0])) if len(p) else None for p in places]
        rows.append(SheetRow(run.name, images))
    return rows


def _shown(samples: Samples, row: int) -> np.ndarray:
    """Return one image, uint8 (H, W, C), shrunk to what a sheet has room for."""
    image = samples[row : row + 1][0]
    height, width = image.shape[:2]
    if width <= _WIDEST:
        return image
    size = (_WIDEST, max(1, round(height * _WIDEST / width)))
    small = np.asarray(picture(image).resize(size, Image.Resampling.LANCZOS))
    return small.reshape(*small.shape[:2], -1)


def real_over_generated(
    snapshot: Snapshot, runs: Sequence[str], *, n: int = 6, seed: int = 0
) -> dict[str, list[SheetRow]]:
    """Return for each class a row of n real training images, and below it one of each run.

    Classes without training images are left out. seed chooses the real images.
    """
    shown = [snapshot.run(name) for name in runs]
    rng = np.random.Generator(np.random.Philox(seed))
    return {
        snapshot.classes[label]: _rows_of_class(snapshot, shown, label, n, rng)
        for label in _labels(snapshot)
    }


def strip(row: SheetRow, width: int) -> Image.Image | None:
    """Return the pictures of a row beside one another, each at most `width` pixels wide.

    None where the row is empty; a gap stays white.
    """
    first = next((image for image in row.images if image is not None), None)
    if first is None:
        return None
    share = min(1.0, width / first.shape[1])
    wide, high = max(1, round(first.shape[1] * share)), max(1, round(first.shape[0] * share))
    drawn = Image.new("RGB", (len(row.images) * (wide + _GAP) - _GAP, high), _PAPER)
    for column, image in enumerate(row.images):
        if image is not None:
            small = picture(image).resize((wide, high), Image.Resampling.LANCZOS)
            drawn.paste(small, (column * (wide + _GAP), 0))
    return drawn if first.shape[2] == 3 else drawn.convert("L")


def draw_sheet(rows: Sequence[SheetRow]) -> Image.Image:
    """Return the rows below one another, each under its name; at least one image must be there.

    Images are uint8 (H, W, 1 or 3), all of one size.
    """
    n = max(len(row.images) for row in rows)
    first = next(image for row in rows for image in row.images if image is not None)
    height, width = first.shape[:2]
    line = height + _TEXT + 2 * _GAP
    names = [lettered(row.name) for row in rows]
    widest = max(math.ceil(letters.getlength(name)) for name, letters in names)
    size = (
        2 * _MARGIN + max(n * (width + _GAP) - _GAP, widest),
        2 * _MARGIN + len(rows) * line,
    )
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        top = _MARGIN + number * line
        starts_class = row.name.endswith(": real")
        name, letters = names[number]
        pen.text((_MARGIN, top), name, _INK if starts_class else _FAINT, letters)
        for column, image in enumerate(row.images):
            if image is not None:
                left = _MARGIN + column * (width + _GAP)
                sheet.paste(picture(image), (left, top + _TEXT + _GAP))
    return sheet


def picture(image: np.ndarray) -> Image.Image:
    """Return uint8 (H, W, 1 or 3) as a picture."""
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
