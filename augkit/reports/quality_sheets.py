"""Sheets of a quality report: what images are most like, and the best, the median and the worst."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from augkit.appraisal import Drawn, Kind
from augkit.errors import InputError
from augkit.fidelity import Images
from augkit.layouts import distinct
from augkit.manifolds import LEAST, realism
from augkit.memorisation import resemblance
from augkit.reports.captions import Captioned, Line, draw_lines, write_png
from augkit.store import Run, Snapshot
from augkit.tables import counted

_PAIRS, _PAIRS_A_LINE = 12, 3
_IN_A_LINE = 6


def draw_sheets(
    snapshot: Snapshot, run: Run, drawn: Drawn, images: Mapping[str, Images], folder: Path
) -> list[Path]:
    """Write the sheets of a class into a folder and return their paths.

    `NUMBER-CLASS-nearest.png`: images of the run, each beside the training image that it resembles
    most; first those that resemble one most, then others drawn by lot. `NUMBER-CLASS-realism.png`:
    the images of highest, middle and lowest realism beside the validation images. Raises
    InputError if they cannot be written.
    """
    if not len(drawn.made.rows):
        return []
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror or error}") from error
    name = snapshot.classes[drawn.label]
    stem = f"{drawn.label + 1}-{distinct(snapshot.classes)[drawn.label]}"
    written = []
    pairs = _pairs(snapshot, run, drawn)
    if pairs:
        beside = "its parent" if run.family == "traditional" else "its nearest training image"
        sheet = draw_lines(pairs, f"{name}: {run.name}, each beside {beside}, with the correlation")
        written.append(write_png(sheet, folder / f"{stem}-nearest.png"))
    ranked = _ranked(snapshot, run, drawn, images)
    if ranked:
        sheet = draw_lines(ranked, f"{name}: {run.name}, by realism (above 1: looks real)")
        written.append(write_png(sheet, folder / f"{stem}-realism.png"))
    return written


def _pairs(snapshot: Snapshot, run: Run, drawn: Drawn) -> list[Line]:
    """Return images beside their nearest training images; empty where these are not known."""
    rng = np.random.Generator(np.random.Philox(drawn.label))
    if run.family == "traditional":
        rows = rng.permutation(drawn.made.rows)[: 2 * _PAIRS]
        parents = snapshot.parents(run.name)[rows]
        made, real = snapshot.inspect(run.name).gather(rows), snapshot.inspect().gather(parents)
        return _lines("by lot", _cells(snapshot, run, rows, parents, resemblance(made, real)))
    found = snapshot.nearest(run.name)
    if found is None:
        return []
    nearest, score = found
    rows = np.flatnonzero(snapshot.inspect(run.name).labels == drawn.label)
    order = rows[np.argsort(-score[rows], kind="stable")]
    others = rng.permutation(order[_PAIRS:])[:_PAIRS]
    lines = []
    for title, these in (
        (f"most alike, of {counted(len(rows), 'image')}", order[:_PAIRS]),
        ("by lot, of the others", others[np.argsort(-score[others], kind="stable")]),
    ):
        lines += _lines(title, _cells(snapshot, run, these, nearest[these], score[these]))
    return lines


def _lines(title: str, cells: list[Captioned]) -> list[Line]:
    return [
        Line(title if start == 0 else "", cells[start : start + _PAIRS_A_LINE])
        for start in range(0, len(cells), _PAIRS_A_LINE)
    ]


def _cells(
    snapshot: Snapshot, run: Run, rows: np.ndarray, beside: np.ndarray, score: np.ndarray
) -> list[Captioned]:
    """Return rows of a run, each beside a real image, with what they are and how alike."""
    threshold = run.memorisation["threshold"] if run.memorisation else np.inf
    made, real = snapshot.inspect(run.name).gather(rows), snapshot.inspect().gather(beside)
    keys = snapshot.real.keys[beside].tolist()
    return [
        Captioned(
            (made[i], real[i]),
            f"row {rows[i]}: {score[i]:.2f}{' copy' if score[i] > threshold else ''} | "
            f"{keys[i].rpartition('/')[2]}",
        )
        for i in range(len(rows))
    ]


def _ranked(snapshot: Snapshot, run: Run, drawn: Drawn, images: Mapping[str, Images]) -> list[Line]:
    """Return the images of highest, middle and lowest realism, below some real ones."""
    real = images["validation"]
    if real.n_units < LEAST:
        return []
    score = realism(real.features, images["made"].features)
    order = np.argsort(-score, kind="stable")
    n = min(_IN_A_LINE, len(order))
    middle = (len(order) - n) // 2
    beside = realism(real.features, images["training"].features)
    lines = [Line("real, of the training part, from best to worst", _some(drawn.training, beside))]
    for title, rows in (
        ("best", order[:n]),
        ("median", order[middle : middle + n]),
        ("worst", order[len(order) - n :]),
    ):
        title = f"{title}, of {counted(len(order), 'image')}"
        lines.append(Line(title, _scored(drawn.made, rows, score)))
    return lines


def _some(kind: Kind, score: np.ndarray) -> list[Captioned]:
    """Return some images of a kind, from the best to the worst."""
    order = np.argsort(-score, kind="stable")
    n = min(_IN_A_LINE, len(order))
    return _scored(kind, order[np.linspace(0, len(order) - 1, n).astype(int)], score)


def _scored(kind: Kind, at: np.ndarray, score: np.ndarray) -> list[Captioned]:
    images = kind.samples.gather(at)
    return [
        Captioned((image,), f"row {kind.rows[i]}: {score[i]:.2f}")
        for i, image in zip(at, images, strict=True)
    ]
