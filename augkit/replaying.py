"""The verb `replay`: rows of a run made again from what was kept, and held against the stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from augkit.errors import InputError, OptionError
from augkit.interfaces import Augmenter, Progress, silent
from augkit.making import check_pixels
from augkit.plans import call, environment_of
from augkit.provenance import changed_code
from augkit.recipes import installed_code, rebuild
from augkit.store import DatasetStore, Run, Snapshot
from augkit.store.locate import open_store
from augkit.tables import counted

_BLOCK = 64


@dataclass(frozen=True)
class Replay:
    """How rows that were made again compare with those that were committed."""

    run: str
    rows: int
    row: int | None
    """The one row that was asked for; None: all."""
    identical: int
    """Rows that are the same byte for byte."""
    largest_difference: int
    """In grey levels, over all rows and pixels."""
    pixels: int
    """How many pixels differ."""
    equal: bool
    """True where nothing differs, or at most one grey level and versions explain it."""
    model: str | None
    seed: int | None
    """The latent seed of one generated row."""
    parent: str | None
    """Key of the parent of one traditional row."""
    versions: str
    """What has changed since the rows were made; empty: nothing that is known."""
    output: str | None

    def to_json(self) -> str:
        """Return the fields as JSON."""
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        what = f"row {self.row}" if self.row is not None else counted(self.rows, "row")
        lines = [f"{what} of run {self.run!r}, made again{self._origin()}: {self._outcome()}"]
        if self.versions:
            lines.append(f"  changed since then: {self.versions}")
        if self.output:
            lines.append(f"  written to {self.output}")
        return "\n".join(lines)

    def _origin(self) -> str:
        if self.model is not None:
            seed = f" and latent seed {self.seed}" if self.seed is not None else ""
            return f" from model {self.model[:12]}{seed}"
        return f" from {self.parent}" if self.parent else ""

    def _outcome(self) -> str:
        if self.identical == self.rows:
            return "identical, byte for byte"
        differs = (
            f"{counted(self.pixels, 'pixel')} in {counted(self.rows - self.identical, 'row')} "
            f"differ, by up to {counted(self.largest_difference, 'grey level')}"
        )
        return differs if self.equal else f"NOT the same: {differs}"


def replay(
    store: DatasetStore | str | Path | None,
    run: str,
    *,
    row: int | None = None,
    output: str | Path | None = None,
    progress: Progress = silent,
) -> Replay:
    """Make one row of a run again, or all, and compare with what was committed.

    Byte for byte the same is what to expect; where versions or processor differ from those that
    the run recorded, generated rows may differ by one grey level. output: a PNG file for one row.
    Raises an AugkitError if the run, the row or the plugin is not there.
    """
    opened = open_store(store)
    snapshot = opened.snapshot()
    found = snapshot.run(run)
    if row is not None and not 0 <= row < found.rows:
        raise OptionError(f"run {run!r} has rows 0 to {found.rows - 1}; there is no row {row}")
    if output is not None and row is None:
        raise OptionError("--output takes the image of one row: name it with --row")
    chosen = np.arange(found.rows) if row is None else np.array([row])
    augmenter = rebuild(found.recipe)
    done, identical, largest, pixels = 0, 0, 0, 0
    with ExitStack() as held:
        if found.model is not None:
            call(augmenter, "load", held.enter_context(opened.model_folder(found.model)))
        for made, kept in _pairs(snapshot, found, augmenter, chosen):
            apart = np.abs(made.astype(np.int16) - kept)  # (n, H, W, C)
            identical += int((apart.max((1, 2, 3)) == 0).sum())
            largest = max(largest, int(apart.max()))
            pixels += int((apart > 0).sum())
            done += len(made)
            progress("replay", done, len(chosen))
    if output is not None:
        _write(made[0], Path(output))
    versions = _changed(found.environment, environment_of(augmenter))
    others = changed_code(found.code, installed_code(found))
    params = snapshot.params(run)
    one = row is not None
    seeded = one and found.model is not None and "seed" in (params.dtype.names or ())
    return Replay(
        run=run,
        rows=len(chosen),
        row=row,
        identical=identical,
        largest_difference=largest,
        pixels=pixels,
        equal=largest == 0 or (largest == 1 and bool(versions)),
        model=found.model,
        seed=int(params["seed"][row]) if seeded else None,
        parent=_parent(snapshot, found, row),
        versions=", ".join(filter(None, (versions, others))),
        output=str(output) if output is not None else None,
    )


def _pairs(
    snapshot: Snapshot, run: Run, augmenter: Augmenter, chosen: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of rows as they are made again, and as they were committed."""
    kept, real, params = snapshot.inspect(run.name), snapshot.inspect(), snapshot.params(run.name)
    parents = snapshot.parents(run.name) if run.family == "traditional" else None
    for start in range(0, len(chosen), _BLOCK):
        rows = chosen[start : start + _BLOCK]
        sources = real.take(parents[rows])[:] if parents is not None else None
        labels = kept.labels[rows]
        made = call(augmenter, "apply", sources, labels, params[rows])
        check_pixels(augmenter, "apply", made, (len(rows), *snapshot.shape))
        yield made, kept.take(rows)[:]


def _parent(snapshot: Snapshot, run: Run, row: int | None) -> str | None:
    if row is None or run.family != "traditional":
        return None
    return str(snapshot.real.keys[snapshot.parents(run.name)[row]])


def _changed(then: dict[str, str], now: dict[str, str]) -> str:
    """Return in words which versions are others than those that a run recorded."""
    return ", ".join(
        f"{name} {then[name]} -> {now.get(name, 'missing')}"
        for name in then
        if then[name] != now.get(name)
    )


def _write(image: np.ndarray, path: Path) -> None:
    from augkit.reports.sheets import picture

    if path.suffix.lower() != ".png":
        raise InputError(f"the image is written as PNG: --output {path.with_suffix('.png')}")
    try:
        picture(image).save(path, format="PNG")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
