"""The verb `export`: rows of a store as files that other libraries read, each with its history."""

from __future__ import annotations

import csv
import glob
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from augkit.arms import REAL
from augkit.errors import InputError, OptionError
from augkit.interfaces import Progress, silent
from augkit.layouts import LAYOUTS, SHARD_BYTES, Layout, Row, distinct, safe
from augkit.partitions import PARTS, Partition
from augkit.recipes import whole
from augkit.selection import Collection, Piece, Selection, check_parts, chosen_arms, collect
from augkit.store import DatasetStore, Snapshot, durable
from augkit.store.format import is_abandoned, staged_name
from augkit.store.locate import open_store
from augkit.tables import counted, one_line, table

log = logging.getLogger("augkit")

MIXED = "mixed"
"""The folder of several parts in one."""

BLOCK_BYTES = 2**23
"""How much is read at once, unless one image is larger."""


@dataclass(frozen=True)
class Export:
    """What was written. `values` has the keys of --json and of export.json."""

    path: Path
    values: dict[str, Any]

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps({"path": str(self.path), **self.values})

    def __str__(self) -> str:
        found = self.values
        rows = [
            [folder, run, *by_class.values(), sum(by_class.values())]
            for folder, runs in found["rows"].items()
            for run, by_class in runs.items()
        ]
        total = counted(sum(row[-1] for row in rows), "image")
        head = f"{one_line(self.path)}: {total} as {found['format']}, {found['partition']}"
        names = [one_line(each["name"]) for each in found["classes"]]
        lines = [head, "", table(["part", "rows of", *names, "all"], rows)]
        if found["more"]:
            runs = ", ".join(map(one_line, found["more"]))
            lines += ["", f"real images alone; --arms all takes in the runs: {runs}"]
        return "\n".join(lines)


def export(
    store: DatasetStore | str | Path | None,
    folder: str | Path,
    format: str = "imagefolder",
    *,
    arms: Sequence[str] = (REAL,),
    parts: Sequence[str] = (PARTS[0],),
    mix_parts: bool = False,
    split: str | None = None,
    folds: int | None = None,
    fold: int | None = None,
    datasets: Sequence[str] = (),
    test_on: str | None = None,
    masks: bool = False,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = silent,
) -> Export:
    """Write rows of a store into a new folder, each with where it comes from.

    format: imagefolder, huggingface, webdataset or npz. arms: as in `evaluate`, real images and
    those of all runs that are named. parts: train, validation, test, each into a place of its own;
    mix_parts: all into one, which then says of each row what part it was of. split, folds,
    datasets, test_on: as in `evaluate`; fold: which of the folds, counted from 1. masks: write
    those as well, black where an image has none. shard_bytes: the size of a tar file of webdataset.

    Validation and test parts hold real images, with their labels; rows of runs that may not be
    trained on are left out. The folder appears whole or not at all. Raises InputError if it is
    there already or cannot be written, LineageError if nothing of an arm may be trained on.
    """
    if format not in LAYOUTS:
        raise OptionError(f"there is no format {format!r}; there are: {', '.join(LAYOUTS)}")
    if whole("shard_bytes", shard_bytes) < 1:
        raise OptionError(f"shard_bytes is {shard_bytes}; it must be at least 1")
    selection = Selection(arms, split, folds, fold, datasets, test_on)
    path = Path(folder)
    _require_free(path)
    snapshot = open_store(store).snapshot()
    found = _collections(snapshot, selection, check_parts(parts), mix_parts)
    if masks and not snapshot.real.masked.any():
        log.warning(
            "note: no image of %s has a mask: all that are written are black", snapshot.path
        )
    values = _about(snapshot, selection, found, format)
    staged = path.parent / f".{path.name}~{staged_name('.export')}"
    try:
        with durable.writing(path):
            _sweep(path)
            staged.mkdir()
            layout = LAYOUTS[format](staged, snapshot.classes, snapshot.shape, shard_bytes)
            history = _History(snapshot, selection.partition())
            _write(layout, found, history, masks=masks, progress=progress)
            _write_about(staged, values)
            _require_free(path)
            os.rename(staged, path)
            durable.flush_folder(path.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return Export(path, values)


def _require_free(path: Path) -> None:
    if os.path.lexists(path):
        raise InputError(f"{path} exists already: choose another name, or remove it")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}")


def _sweep(path: Path) -> None:
    """Delete what killed exports to this place left beside it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}~*.export"):
        if is_abandoned(left):
            durable.remove(left)


def _collections(
    snapshot: Snapshot, selection: Selection, parts: Sequence[str], mix_parts: bool
) -> list[Collection]:
    """Return what is written, a place each. Raises OptionError for runs outside of training."""
    runs = [run for runs in chosen_arms(snapshot, selection.arms).values() for run in runs]
    if runs and PARTS[0] not in parts:
        raise OptionError(
            f"rows of runs belong to the training part alone: leave --arms out for "
            f"{' and '.join(parts)}, or add {PARTS[0]} to --parts"
        )
    found = [collect(snapshot, selection, part) for part in parts]
    if not mix_parts:
        return found
    pieces = tuple(piece for each in found for piece in each.pieces)
    left_out = {run: n for each in found for run, n in each.left_out.items()}
    return [Collection(MIXED, pieces, left_out)]


def _about(
    snapshot: Snapshot, selection: Selection, found: Sequence[Collection], format: str
) -> dict[str, Any]:
    """Return what the whole export is, as JSON values."""
    from augkit import __version__

    rows = {each.name: _counts(snapshot, each) for each in found}
    named = dict.fromkeys(p.run for each in found for p in each.pieces if p.run != REAL)
    training = any(piece.part == PARTS[0] for each in found for piece in each.pieces)
    folders = distinct(snapshot.classes)
    return {
        "augkit": __version__,
        "store": Path(snapshot.path).resolve().name,
        "commits": snapshot.number,
        "format": format,
        "partition": selection.partition().name,
        "arms": [*selection.arms],
        "image": dict(zip(("height", "width", "channels"), snapshot.shape, strict=True)),
        "classes": [
            {"name": name, "label": label, "folder": folders[label]}
            for label, name in enumerate(snapshot.classes)
        ],
        "rows": rows,
        "left_out": {run: n for each in found for run, n in each.left_out.items()},
        "runs": {name: snapshot.run(name).recipe for name in named},
        "more": [*snapshot.runs] if training and [*selection.arms] == [REAL] else [],
    }


def _counts(snapshot: Snapshot, found: Collection) -> dict[str, dict[str, int]]:
    """Return run -> class -> rows; real images are those of `real`."""
    counts = {piece.run: np.zeros(len(snapshot.classes), np.int64) for piece in found.pieces}
    for piece in found.pieces:
        counts[piece.run] += np.bincount(piece.labels, minlength=len(snapshot.classes))
    return {
        run: dict(zip(snapshot.classes, by_class.tolist(), strict=True))
        for run, by_class in counts.items()
    }


def _write_about(folder: Path, values: Mapping[str, Any]) -> None:
    text = json.dumps(values, indent=2, ensure_ascii=False)
    (folder / "export.json").write_text(text + "\n", encoding="utf-8")


def _write(
    layout: Layout,
    found: Sequence[Collection],
    history: _History,
    *,
    masks: bool,
    progress: Progress,
) -> None:
    """Write all images, a block at a time, and beside them a line for each."""
    names = ["file_name", *(MASK_COLUMNS[:1] if masks else ())]
    total, done = sum(len(p.rows) for each in found for p in each.pieces), 0
    with closing(layout):
        for each in found:
            samples, (piece_of, row_of) = each.samples, each.places()
            order = layout.begin(each.name, each.labels)
            path = layout.metadata()
            with path.open("a", newline="", encoding="utf-8") as file:
                lines = csv.DictWriter(
                    file, ["file_name", *COLUMNS, *(MASK_COLUMNS if masks else ())]
                )
                if not file.tell():
                    lines.writeheader()
                for places in _blocks(order, int(np.prod(samples.shape))):
                    pairs = zip(piece_of[places].tolist(), row_of[places].tolist(), strict=True)
                    rows = [history.row(each.pieces[piece], row) for piece, row in pairs]
                    covers, masked = each.masks(places) if masks else (None, None)
                    written = layout.add(samples.gather(places), rows, covers)
                    for i, (files, row) in enumerate(zip(written, rows, strict=True)):
                        cells = dict(zip(names, files, strict=True)) | _cells(row.about)
                        if masked is not None:
                            cells["masked"] = int(masked[i])
                        lines.writerow(cells)
                    done += len(places)
                    progress("export", done, total)


def _blocks(order: np.ndarray, n_bytes: int) -> Iterator[np.ndarray]:
    """Yield the positions, as many at once as may be read; n_bytes: of one image."""
    n = max(1, BLOCK_BYTES // n_bytes)
    for start in range(0, len(order), n):
        yield order[start : start + n]


# -- where a row comes from ------------------------------------------------------------------------

COLUMNS = (
    *("id", "label", "class", "part", "run", "row", "key", "dataset", "group", "fold"),
    *("source_sha256", "plugin", "seed", "params", "model"),
)
"""Of metadata.csv, after file_name. No cell is empty, and none changes its type from one file to
another, for readers that guess types: `-` and -1 say that there is nothing to say."""

MASK_COLUMNS = ("mask_file_name", "masked")
"""Besides, where masks are written. masked: 1, or 0 where there is none and the file is black."""

_NO_TEXT, _NO_NUMBER = "-", -1


class _History:
    """Says of a row where it comes from; reads the columns of each run once."""

    def __init__(self, snapshot: Snapshot, partition: Partition):
        self._snapshot = snapshot
        self._parts = snapshot.parts(partition)
        self._names = dict(
            zip([REAL, *snapshot.runs], distinct([REAL, *snapshot.runs]), strict=True)
        )
        self._runs: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def row(self, piece: Piece, row: int) -> Row:
        """Return one row of a piece, by its number among all real images or in the run."""
        parent, drawn, label = self._origin(piece.run, row)
        real, known = self._snapshot.real, parent >= 0
        key = str(real.keys[parent]) if known else _NO_TEXT
        run = None if piece.run == REAL else self._snapshot.run(piece.run)
        name = f"{self._names[piece.run]}__{row:06d}"
        name += f"__{stem}" if (stem := safe(_stem(key))) else ""
        about = {
            "id": name,
            "label": label,
            "class": self._snapshot.classes[label],
            "part": piece.part,
            "run": piece.run,
            "row": row,
            "key": key,
            "dataset": str(real.datasets[parent]) if known else _NO_TEXT,
            "group": int(real.groups[parent]) if known else _NO_NUMBER,
            "fold": int(real.folds[parent]) if known else _NO_NUMBER,
            "source_sha256": str(real.sha256[parent]) if known else _NO_TEXT,
            "plugin": run.plugin if run else _NO_TEXT,
            "seed": run.recipe["seed"] if run else _NO_NUMBER,
            "params": drawn,
            "model": (run.model if run else None) or _NO_TEXT,
        }
        return Row(name, label, about)

    def _origin(self, run: str, row: int) -> tuple[int, dict[str, Any], int]:
        """Return the real row that a row is or was made from (-1: none), what was drawn, label."""
        if run == REAL:
            return row, {}, int(self._snapshot.real.labels[row])
        if run not in self._runs:
            found = self._snapshot.run(run)
            none = np.full(found.rows, _NO_NUMBER)
            parents = self._snapshot.parents(run) if found.fitted_on is None else none
            labels = self._snapshot.inspect(run).labels
            self._runs[run] = parents, self._snapshot.params(run), labels
        parents, params, labels = self._runs[run]
        return int(parents[row]), _drawn(params[row]), int(labels[row])


def _stem(key: str) -> str:
    """Return what a key says beyond its data set and its suffix."""
    path = key.partition("/")[2] or key
    return path.rpartition(".")[0] or path


def _drawn(value: Any) -> dict[str, Any]:
    """Return one row of a structured array as JSON values by field."""
    return {name: _plain(value[name]) for name in value.dtype.names or ()}


def _plain(value: np.ndarray | np.generic) -> Any:
    if value.dtype.names:
        return _drawn(value)
    if value.dtype.kind == "c":  # real and imaginary part
        value = np.stack([value.real, value.imag], axis=-1)
    # JSON has no words for what is no number
    return json.loads(json.dumps(value.tolist()), parse_constant=str)


def _cells(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as a CSV file has them."""
    return {**about, "params": json.dumps(about["params"])}
