"""The verb `preview`: a picture of what a store holds, to look at and to show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from augkit.errors import OptionError, StoreError
from augkit.partitions import HOLDOUT
from augkit.recipes import rebuild
from augkit.reports.captions import write_png
from augkit.reports.filmstrips import filmstrip, first_pairs, interpolation
from augkit.reports.sheets import contact_sheet
from augkit.store import DatasetStore, Run, Snapshot
from augkit.store.locate import open_store
from augkit.tables import counted, one_line


@dataclass(frozen=True)
class Preview:
    """Where a picture was written and what it shows."""

    path: Path
    runs: tuple[str, ...]
    images: int
    shows: str
    """`runs`, `parent` or `interpolation`."""

    def to_json(self) -> str:
        """Return the fields as JSON."""
        return json.dumps(asdict(self) | {"path": str(self.path)})

    def __str__(self) -> str:
        what = {
            "runs": f"{counted(len(self.runs), 'run')} below their parents",
            "parent": "one image through every traditional augmenter",
            "interpolation": f"from one image of {', '.join(self.runs)} to another",
        }
        return f"{self.path}: {counted(self.images, 'image')}, {what[self.shows]}"


def preview(
    store: DatasetStore | str | Path | None = None,
    *,
    runs: Sequence[str] | None = None,
    output: str | Path = "preview.png",
    n: int = 6,
    seed: int = 0,
    parent: str | None = None,
    between: Sequence[tuple[int, int]] = (),
    interpolate: bool = False,
) -> Preview:
    """Write a PNG: for each class n real training images, and below each what the runs made of it.

    runs: their names; all by default. seed chooses the images, or what is drawn.
    parent: instead, this training image (its key, or the end of it) and n images by every
    traditional augmenter. between: instead, the way between two rows of a generative run, n images
    long, a line for each pair; interpolate: between the first two rows of each class.
    Raises OptionError for what does not go together, InputError if the file cannot be written.
    """
    if n < 1:
        raise OptionError(f"n is {n}; it must be at least 1")
    on_the_way = bool(between) or interpolate
    if parent is not None and (on_the_way or runs):
        raise OptionError("--parent is about every augmenter: no --run, --between, --interpolate")
    opened = open_store(store)
    snapshot = opened.snapshot()
    if parent is not None:
        sheet, count = filmstrip(snapshot, parent, HOLDOUT, n=n, seed=seed)
        return Preview(write_png(sheet, output), (), count, "parent")
    if on_the_way:
        run = _one_run(snapshot, runs)
        pairs = [*between, *(first_pairs(snapshot, run) if interpolate else ())]
        sheet, count = interpolation(opened, snapshot, run, pairs, n=n)
        return Preview(write_png(sheet, output), (run.name,), count, "interpolation")
    sheet, count = contact_sheet(snapshot, runs, n=n, seed=seed)
    return Preview(write_png(sheet, output), tuple(runs or snapshot.runs), count, "runs")


def _one_run(snapshot: Snapshot, runs: Sequence[str] | None) -> Run:
    """Return the run that is named, or the only one that can be interpolated."""
    there = [snapshot.run(name) for name in runs or snapshot.runs]
    if not runs:
        there = [run for run in there if rebuild(run.recipe).interpolates]
    if not there:
        raise StoreError(
            f"{snapshot.path} has no run whose images can be interpolated: "
            "augkit augment --plugin dagan --n 100 makes one"
        )
    if len(there) > 1:
        names = ", ".join(one_line(run.name) for run in there)
        raise OptionError(f"which run? Name one with --run: {names}")
    return there[0]
