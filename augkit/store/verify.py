"""Checking a store: every byte against its hash, every row against the rules."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

import numpy as np

from augkit.errors import DamagedStore
from augkit.interfaces import Progress, silent
from augkit.store.format import Entry
from augkit.store.models import PROVENANCE, Model, damage
from augkit.store.reading import Snapshot, in_conflict
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
    found.problems += [Problem("file", what) for what in store._form.check_whole()]
    try:
        snapshot = store.snapshot()
    except DamagedStore as error:
        found.problems.append(Problem("log", str(error)))
        return found
    found.commits = snapshot.number
    with_shard = [e for e in snapshot.entries if "shard" in e]
    found.uncommitted = _uncommitted(store, snapshot)
    for done, entry in enumerate(with_shard, 1):
        found.shards += 1
        found.rows += entry["shard"]["rows"]
        found.problems += _check_shard(store, entry)
        progress("verify", done, len(with_shard))
    found.problems += _check_models(store, snapshot)
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


def _check_shard(store: DatasetStore, entry: Entry) -> list[Problem]:
    """Compare the hashes of one shard; if they differ, say which rows are hit."""
    shard = entry["shard"]
    where = f"shard {shard['name']} ({_subject(entry)})"
    try:
        intact = store._form.shard_sha256(shard["name"]) in (None, shard["sha256"])
        with store._pool.shard(shard["name"], shard["rows"]) as opened:
            rows = tuple(opened.damaged_rows())
            same_content = opened.content() == shard["content"]
            same_origin = _says_the_same(opened, entry)
    except DamagedStore as error:
        return [Problem(where, str(error))]
    if rows:
        return [Problem(where, "images are not those that were committed", rows)]
    if not same_content:
        return [Problem(where, "columns are not those that were committed")]
    if not same_origin:
        return [Problem(where, "the log names another recipe or model than the shard does")]
    if not intact:
        return [Problem(where, "bytes outside the images and columns were changed")]
    return []


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
                said = json.loads((folder / PROVENANCE).read_bytes())["trained_from"]
            except FileNotFoundError:
                continue  # not fitted by augkit
            except (ValueError, KeyError, TypeError):
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
