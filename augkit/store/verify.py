"""Checking a store: every byte against its hash, every row against the rules."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from augkit.errors import DamagedStore
from augkit.interfaces import Progress, silent
from augkit.store.entries import LARGEST_ENTRY
from augkit.store.format import Entry, canonical, unsigned
from augkit.store.models import PROVENANCE, Model, damage
from augkit.store.plain import read_plain
from augkit.store.reading import Snapshot, in_conflict
from augkit.store.scanning import Rows, scan
from augkit.store.shards import Shard
from augkit.store.store import DatasetStore
from augkit.tables import counted


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where, and in which rows (none: in all, or not in rows)."""

    where: str
    what: str
    rows: tuple[int, ...] = ()

    def __str__(self) -> str:
        rows = f" (rows {_listed(self.rows)})" if self.rows else ""
        return f"{self.where}: {self.what}{rows}"


@dataclass
class Verification:
    """What `verify` found."""

    store: str
    commits: int = 0
    shards: int = 0
    rows: int = 0
    models: int = 0
    problems: list[Problem] = field(default_factory=list)
    uncommitted: list[str] = field(default_factory=list)
    """Shards and models on the disk that no commit names: harmless, left by something killed."""

    @property
    def sound(self) -> bool:
        """Return True if nothing is wrong."""
        return not self.problems

    def to_json(self) -> str:
        """Return the findings as JSON."""
        return json.dumps({**asdict(self), "sound": self.sound})

    def __str__(self) -> str:
        parts = [(self.commits, "commit"), (self.shards, "shard"), (self.rows, "row")]
        parts += [(self.models, "model")] if self.models else []
        head = f"{self.store}: {', '.join(counted(n, name) for n, name in parts)}: "
        lines = [head + ("sound" if self.sound else counted(len(self.problems), "problem"))]
        lines += [f"  {problem}" for problem in self.problems]
        if self.uncommitted:
            left = counted(len(self.uncommitted), "leftover")
            lines.append(f"  {left} of killed commands, which nothing reads")
        return "\n".join(lines)


def verify(store: DatasetStore, *, progress: Progress = silent) -> Verification:
    """Return what is wrong with a store: hashes, log, models, groups and folds, lineage, labels."""
    found = Verification(str(store.path))
    try:
        store._form.examine()
        snapshot = store.snapshot()
    except DamagedStore as error:
        found.problems += [*_check_files(store, [], silent), Problem("log", str(error))]
        return found
    found.commits = snapshot.number
    found.uncommitted = _uncommitted(store, snapshot)
    shards = [_look_into(store, entry) for entry in snapshot.entries if "shard" in entry]
    found.shards, found.rows = len(shards), sum(shard.about["rows"] for shard in shards)
    found.problems += _check_files(store, shards, progress)
    found.problems += [problem for shard in shards if (problem := shard.problem())]
    found.problems += [*_check_models(store, snapshot), *_check_kept(store)]
    if found.sound:
        found.models = len(snapshot.models)
        try:
            found.problems += _check_rules(snapshot) + _check_lineage(store, snapshot)
        except DamagedStore as error:
            found.problems.append(Problem("rows", str(error)))
    return found


def _uncommitted(store: DatasetStore, snapshot: Snapshot) -> list[str]:
    there = store._form.shard_names() | store._form.model_names()
    entries = snapshot.entries
    return sorted(there - {e[k]["name"] for k in ("shard", "model") for e in entries if k in e})


@dataclass
class _Looked:
    """A shard as it was found; its images and bytes are looked at in one pass over its file."""

    where: str
    about: dict[str, Any]
    """What the log says of it."""
    opened: bool = False
    rows: Rows | None = None
    """Where its images lie; None: HDF5 has to look for them."""
    fault: str = ""
    """Why it cannot be read, or in what its columns and words are wrong."""
    damaged: tuple[int, ...] = ()
    intact: bool = True
    """All bytes of its file are those that were committed."""

    def problem(self) -> Problem | None:
        """Return what is wrong with it, the nearest cause first."""
        if self.damaged:
            return Problem(self.where, "images are not those that were committed", self.damaged)
        if self.fault:
            return Problem(self.where, self.fault)
        if not self.intact:
            return Problem(self.where, "bytes outside the images and columns were changed")
        return None


def _look_into(store: DatasetStore, entry: Entry) -> _Looked:
    """Compare what a shard says, except its images, with what the log says."""
    about = entry["shard"]
    found = _Looked(f"shard {about['name']} ({_subject(entry)})", about)
    try:
        store._form.examine(about["name"])
        with store._pool.shard(about["name"], about["rows"]) as opened:
            found.opened, found.rows = True, opened.lying()
            if found.rows is None:
                found.damaged = tuple(opened.damaged_rows())
            if opened.content() != about["content"]:
                found.fault = "columns are not those that were committed"
            elif not _says_the_same(opened, entry):
                found.fault = "the log names another recipe or model than the shard does"
    except DamagedStore as error:
        found.fault = str(error)
    return found


def _check_files(
    store: DatasetStore, shards: Sequence[_Looked], progress: Progress
) -> Iterator[Problem]:
    """Read every file that holds rows once: note what is damaged, yield what concerns them all."""
    by_name = {shard.about["name"]: shard for shard in shards if shard.opened}
    done, sha256 = 0, None
    for path, start, names in store._form.files(list(by_name)):
        here = [by_name[name] for name in names]
        lying = [shard for shard in here if shard.rows is not None]
        try:
            sha256, damaged = scan(path, [s.rows for s in lying if s.rows is not None], start)
        except OSError as error:
            yield Problem("file", f"{path} cannot be read: {error.strerror}")
            continue
        for shard, rows in zip(lying, damaged, strict=True):
            shard.damaged = _really(store, shard.about, rows)
        for shard in here:
            shard.intact = store._form.form == "file" or sha256 == shard.about["sha256"]
        done += len(here)
        progress("verify", done, len(shards))
    for what in store._form.check_whole(sha256):
        yield Problem("file", what)


def _really(store: DatasetStore, about: dict[str, Any], rows: np.ndarray) -> tuple[int, ...]:
    """Return those of the rows that reading them alone finds damaged as well."""
    if not len(rows):
        return ()
    with store._pool.shard(about["name"], about["rows"]) as opened:
        return tuple(opened.damaged_rows(rows))


def _says_the_same(shard: Shard, entry: Entry) -> bool:
    """Return True unless a shard says of itself something else than the log says of it."""
    recipe, model = shard.attribute("recipe"), shard.attribute("model")
    if not recipe:
        return True
    try:
        same = json.loads(recipe) == entry.get("recipe")
    except (ValueError, RecursionError):
        return False
    return same and model == (entry.get("lineage", {}).get("model") or "")


def _check_models(store: DatasetStore, snapshot: Snapshot) -> list[Problem]:
    """Compare the hashes of all models, and look for the model of each run."""
    found, known = [], set()
    for entry in snapshot.entries:
        name = entry.get("lineage", {}).get("model")
        if name is not None and name not in known:
            found.append(Problem(f"run {entry['run']}", f"its model {name} is in no commit"))
        if entry["kind"] == "model":
            known.add(entry["model"]["name"])
    try:
        for model in snapshot.models.values():
            found += _check_model(store, model)
    except DamagedStore as error:
        found.append(Problem("log", str(error)))
    return found


def _check_kept(store: DatasetStore) -> Iterator[Problem]:
    """Look at results and outcomes: they are no data, but reports and evaluations build on them."""
    for kind in ("results", "outcomes"):
        for path in sorted(store._form.side_folder(kind).glob("*.json")):
            if not _is_kept_whole(path):
                what = "was changed since it was written, and counts for nothing: delete it"
                yield Problem(f"{kind}/{path.name}", what)


def _is_kept_whole(path: Path) -> bool:
    try:
        found = json.loads(read_plain(path, LARGEST_ENTRY))
        rest = {k: v for k, v in found.items() if k != "created"}
        return path.read_bytes() == canonical(found) and unsigned(rest) is not None
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return False


def _check_model(store: DatasetStore, model: Model) -> list[Problem]:
    where = f"model {model.name} ({model.plugin})"
    try:
        with store._form.lend_model(model.name) as folder:
            return [Problem(where, what) for what in damage(folder, model.files)]
    except DamagedStore as error:
        return [Problem(where, str(error))]


def _check_rules(snapshot: Snapshot) -> list[Problem]:
    """Check what hashes cannot: keys, labels, groups, lineage."""
    found = []
    real = snapshot.real
    if len(set(real.keys.tolist())) != len(real.keys):
        found.append(Problem("real images", "a key occurs twice"))
    if len(real.keys) and not 0 <= real.labels.min() <= real.labels.max() < len(snapshot.classes):
        found.append(Problem("real images", "a label is no class"))
    for what, values in (("patient", real.patients), ("file", real.sha256)):
        same = np.unique(values, return_inverse=True)[1]
        torn = in_conflict(same, real.groups) & (values != "")
        if torn.any():
            rows = tuple(np.flatnonzero(torn).tolist())
            found.append(Problem("real images", f"one {what} lies in several groups", rows))
    for name, model in snapshot.models.items():
        if not all(0 <= row < len(real.keys) for row in model.fitted_on):
            found.append(Problem(f"model {name}", "was fitted on images that do not exist"))
    for name, run in snapshot.runs.items():
        if run.fitted_on is None:
            wrong = real.labels[snapshot.parents(name)] != snapshot.inspect(name).labels
            if wrong.any():
                rows = tuple(np.flatnonzero(wrong).tolist())
                found.append(Problem(f"run {name}", "the label is not that of the parent", rows))
    return found


def _check_lineage(store: DatasetStore, snapshot: Snapshot) -> list[Problem]:
    """Hold the images that the log names for each model against what was saved with its weights."""
    found = []
    for name, model in snapshot.models.items():
        with store._form.lend_model(name) as folder:
            try:
                said = json.loads(read_plain(folder / PROVENANCE, LARGEST_ENTRY))["trained_from"]
            except FileNotFoundError:
                continue  # not fitted by augkit
            except (ValueError, KeyError, TypeError, RecursionError):
                said = None
        then, rows = store.snapshot(model.number - 1), np.array(model.fitted_on, np.int64)
        known = bool(((rows >= 0) & (rows < len(then.real.keys))).all())
        if not known or said != then.images_digest(rows):
            found.append(Problem(f"model {name}", "was fitted on other images than the log says"))
    return found


def _subject(entry: Entry) -> str:
    return f"run {entry['run']}" if entry["kind"] == "run" else "real images"


def _listed(rows: tuple[int, ...], most: int = 8) -> str:
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return ", ".join(map(str, rows[:most])) + more
