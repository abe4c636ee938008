"""The verb `report`: one page, and tables and figures for a paper, of what was evaluated."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augkit.errors import AugkitError, InputError
from augkit.outcomes import is_changed
from augkit.reports.exports import Outcome, read_cells, write_tables
from augkit.reports.figures import write_figures
from augkit.reports.page import write_page
from augkit.store import DatasetStore, Snapshot
from augkit.store.entries import LARGEST_ENTRY
from augkit.store.locate import is_store, open_store
from augkit.store.plain import is_special

KIND = "augkit outcome"
"""What an outcome file calls itself."""


@dataclass(frozen=True)
class Report:
    """Where a report was written."""

    path: Path
    """The page."""
    files: tuple[Path, ...]
    """The page, and the tables and figures beside it."""

    def to_json(self) -> str:
        """Return the paths as JSON."""
        return json.dumps({"path": str(self.path), "files": [str(f) for f in self.files]})

    def __str__(self) -> str:
        return f"open {self.path}"


def report(
    store: DatasetStore | str | Path | None = None,
    *,
    outcome: str | Path | None = None,
    output: str | Path = "report",
) -> Report:
    """Write a page, report.html, with tables and figures beside it, into the folder `output`.

    outcome: a file that an evaluation wrote; by default the newest of the store. Where only the
    file is named, the store that it names is shown as well, if it is there. Raises InputError if
    nothing was evaluated yet, the file is missing or broken, or `output` cannot be written to.
    """
    if outcome is None:
        opened = open_store(store)
        found = read_outcome(_newest(opened))
        snapshot: Snapshot | None = opened.snapshot()
    else:
        found = read_outcome(outcome)
        snapshot = open_store(store).snapshot() if store is not None else _named(found)
    folder = Path(output)
    page = write_page(found, snapshot, folder / "report.html")
    return Report(page, (page, *write_tables(found, folder), *write_figures(found, folder)))


def read_outcome(path: str | Path) -> Outcome:
    """Return the outcome in a file. Raises InputError if it is missing, or holds something else."""
    try:
        found = json.loads(_text_of(Path(path)), parse_constant=_no_number)
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}; evaluate, or name a file of outcomes/"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no outcome of augkit, which must be JSON") from error
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise InputError(f"{path} is no outcome of augkit: its kind must be {KIND!r}")
    if not (found.get("cells") and _fits(found, _FORM) and _is_complete(found)):
        raise InputError(f"{path} is broken: evaluate again to write it anew")
    if is_changed(found):
        raise InputError(f"{path} was changed by hand: evaluate again to write it anew")
    return found


def _text_of(path: Path) -> str:
    """Return the text of a regular file of modest size: a pipe would be waited for."""
    if is_special(path):
        raise InputError(f"{path} is no file that can be read; name one of outcomes/")
    if path.exists() and path.stat().st_size > LARGEST_ENTRY:
        raise InputError(f"{path} is larger than an outcome can be; evaluate again")
    return path.read_text(encoding="utf-8")


def _no_number(_: str) -> None:
    """Turn NaN and infinities into null."""


def _newest(store: DatasetStore) -> Path:
    """Return the outcome file of a store that was written last."""
    files = list(store.side_folder("outcomes").glob("*.json"))
    if not files:
        raise InputError(
            f"nothing was evaluated yet in {store.path}: augkit evaluate --classifier linear"
        )
    return max(files, key=lambda path: (path.stat().st_mtime_ns, path.name))


def _named(outcome: Outcome) -> Snapshot | None:
    """Return the store that an outcome names, if it is the only one, is there, and fits."""
    evaluations = [cell.evaluation for cell in read_cells(outcome) if cell.evaluation]
    names = {evaluation.get("store") for evaluation in evaluations}
    name = names.pop() if len(names) == 1 else None
    if not name or not is_store(Path(name)):
        return None
    try:
        snapshot = DatasetStore.open(name).snapshot()
    except AugkitError:
        return None
    same = all(e.get("classes") == list(snapshot.classes) for e in evaluations)
    return snapshot if same else None


# -- the form of an outcome ------------------------------------------------------------------------

_NUMBER = (int, float)
_ESTIMATE = {"value": _NUMBER, "low": _NUMBER, "high": _NUMBER}
_ARM = {
    "name": str,
    "runs": [str],
    "rows": int,
    "metrics": {"*": _ESTIMATE},
    "same_as": str,
    "unavailable": str,
    "curves": {"confusion": [[_NUMBER]], "roc": {"*": [_NUMBER]}},
}
_COMPARISON = {
    **dict.fromkeys(("arm", "versus", "control", "metric", "verdict"), str),
    **dict.fromkeys(("difference", "low", "high"), _NUMBER),
    **dict.fromkeys(("p", "p_holm", "smallest_detectable"), _NUMBER),
}
_EVALUATION = {
    **dict.fromkeys(("store", "classifier", "protocol", "primary", "positive"), str),
    **dict.fromkeys(("device", "weights", "reduced", "caveat"), str),
    **dict.fromkeys(("seeds", "test_images", "test_groups", "fits", "steps", "looks"), int),
    "options": {},
    "classes": [str],
    "arms": [_ARM],
    "comparisons": [_COMPARISON],
    "verdicts": [{"arm": str, "word": str, "sentence": str}],
    "warnings": [str],
    "notes": {"*": str},
    "superseded": {"*": str},
}
_CELL = {"dataset": str, "classifier": str, "evaluation": _EVALUATION, "failure": str}
_FORM = {"version": str, "command": str, "created": str, "environment": {}, "cells": [_CELL]}
_NEEDED = {"arms": ("name",), "comparisons": ("arm", "versus", "metric"), "verdicts": ("arm",)}
"""What every item of these lists must say."""


def _fits(value: Any, form: Any) -> bool:
    """Return True if a JSON value has this form; what is missing or null fits any.

    A type or a tuple of them; [form of every item]; {key: form}, "*" for all other keys.
    """
    if value is None:
        return True
    if isinstance(form, list):
        return isinstance(value, list) and all(v is not None and _fits(v, form[0]) for v in value)
    if isinstance(form, dict):
        others = form.get("*")
        return isinstance(value, dict) and all(
            _fits(v, form.get(k, others)) for k, v in value.items() if k in form or others
        )
    return isinstance(value, form) and not (isinstance(value, bool) and form is not bool)


def _is_complete(outcome: Outcome) -> bool:
    """Return True if everything in the lists of an outcome says what it is about."""
    return all(
        item.get(key) is not None
        for cell in read_cells(outcome)
        for name, keys in _NEEDED.items()
        for item in cell.evaluation.get(name) or []
        for key in keys
    )
