"""The verb `augment`: a plugin, the training part and a seed in; one committed run out.

A run is a recipe (plugin, version, options, seed, amount) applied to one partition. What is random
is drawn first, for the whole run (`plans`); then images are made block by block (`making`).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from augkit.engines.local import Backend
from augkit.errors import AugkitError, NameTaken, OptionError, PluginFailed, StoreError
from augkit.interfaces import Augmenter, Progress, Samples, silent
from augkit.making import Making, make_blocks
from augkit.partitions import HOLDOUT
from augkit.plans import Plan, draw
from augkit.recipes import Amount, rebuild, recipes
from augkit.store import DatasetStore, Run, Snapshot
from augkit.store.format import Entry, digest_of
from augkit.store.locate import open_store
from augkit.store.samples import StoredSamples

log = logging.getLogger("augkit")


RESERVED = {"real", "traditional", "generative", "all", "balanced"}
"""Names of arms, which no run may take."""


@dataclass(frozen=True)
class AugmentResult:
    """What `augment` did."""

    run: str
    plugin: str
    rows: int
    by_class: dict[str, int]
    seed: int
    made: bool
    """False if the same run was there already."""
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return the fields as JSON."""
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {name}" for name, n in self.by_class.items())
        if not self.made:
            return f"run {self.run!r} is there already ({self.rows} images): nothing to do"
        lines = [f"run {self.run!r}: {self.rows} new images ({counts}), seed {self.seed}"]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def augment(
    store: DatasetStore | str | Path | None,
    plugin: str,
    options: Mapping[str, Any] | None = None,
    *,
    n: int | None = None,
    total: int | None = None,
    seed: int = 0,
    run: str | None = None,
    workers: int | None = None,
    start_method: Backend = "threads",
    block: int = 64,
    progress: Progress = silent,
) -> AugmentResult:
    """Make new images from the training part (70/15/15) and commit them as one run.

    plugin: a name, or several joined by + for a chain. options: key -> value, a key of a chain
    also as "plugin.key". n: images a class; total: images in all; neither: one for each training
    image. run: a name for the run. The same recipe again is a no-op. `workers`, `start_method`
    and `block` do not change the result. Raises an AugkitError; then nothing is committed.
    """
    how = Making(workers, start_method, block)
    opened = open_store(store)
    (recipe,) = recipes([plugin], options or {}, Amount(n, total), seed)
    return _commit(_prepare(opened, recipe, run), how, progress)


def augment_all(
    store: DatasetStore | str | Path | None,
    plugins: Sequence[str],
    options: Mapping[str, Any] | None = None,
    *,
    n: int | None = None,
    total: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    start_method: Backend = "threads",
    progress: Progress = silent,
) -> list[AugmentResult]:
    """Commit one run for each plugin, as `augment` does; all are checked before the first.

    An option goes to every plugin that has it, "plugin.key" to that one alone.
    """
    how = Making(workers, start_method)
    opened = open_store(store)
    jobs = [
        _prepare(opened, recipe, None)
        for recipe in recipes(plugins, options or {}, Amount(n, total), seed)
    ]
    return [_commit(job, how, progress) for job in jobs]


@dataclass(frozen=True)
class _Job:
    """A run that is checked and drawn, but not made."""

    store: DatasetStore
    snapshot: Snapshot
    recipe: dict[str, Any]
    origin: str
    """Digest of the training part."""
    name: str | None
    """As the user wants it."""
    existing: Run | None
    augmenter: Augmenter
    source: StoredSamples
    plan: Plan | None
    """None where the run exists already."""


def _prepare(store: DatasetStore, recipe: dict[str, Any], name: str | None) -> _Job:
    _check_name(name)
    augmenter = rebuild(recipe)
    snapshot = store.snapshot()
    origin = snapshot.training_digest(HOLDOUT)
    existing = _find(snapshot, recipe, origin, name)
    source = snapshot.training(HOLDOUT)
    _check_source(source, snapshot, augmenter)
    plan = None if existing else draw(augmenter, recipe, source)
    return _Job(store, snapshot, recipe, origin, name, existing, augmenter, source, plan)


def _commit(job: _Job, how: Making, progress: Progress) -> AugmentResult:
    """Make the images of a job block by block and commit them."""
    if job.existing or job.plan is None:
        assert job.existing is not None
        return _result(job.snapshot, job.existing, made=False)
    about = {"kind": "augmented images", "recipe": job.recipe}
    about["classes"] = list(job.snapshot.classes)
    writer = job.store.write_shard(about, masks=_has_masks(job, job.plan))
    try:
        for made in make_blocks(job.augmenter, job.source, job.plan, how):
            writer.append(*made)
            progress(job.recipe["plugin"], writer.rows, len(job.plan.labels))
        shard = writer.finish(_columns(job, job.plan))
        after = job.store.commit(partial(_entry, job, shard), writer.path)
    except _AlreadyThere as found:
        return _result(job.store.snapshot(), found.run, made=False)
    except BaseException:
        writer.discard()
        raise
    run = _find(after, job.recipe, job.origin, job.name)
    assert run is not None
    return _result(after, run, made=True, notes=_notes(job))


def retract(store: DatasetStore | str | Path | None, run: str) -> Snapshot:
    """Take a run back: no later snapshot shows it. Raises StoreError if there is none."""

    def describe(snapshot: Snapshot) -> Entry:
        snapshot.run(run)
        return {"kind": "retraction", "run": run}

    return open_store(store).commit(describe)


def _check_name(run: str | None) -> None:
    if run is None:
        return
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", run):
        raise OptionError(
            f"run name {run!r} must be up to 100 letters, digits, dots, hyphens, + and _"
        )
    if run in RESERVED:
        raise OptionError(f"run name {run!r} is the name of an arm; choose another")


def _check_source(source: Samples, snapshot: Snapshot, augmenter: Augmenter) -> None:
    if not len(source):
        raise StoreError(f"{snapshot.path} has no training images: augkit ingest FOLDER")
    if augmenter.learns:
        raise PluginFailed(
            f"plugin {augmenter.name!r} learns from the images; this version of augkit runs only "
            "augmenters that do not: choose another, augkit plugins lists them"
        )
    missing = set(range(len(snapshot.classes))) - set(source.labels.tolist())
    if missing:
        names = ", ".join(snapshot.classes[i] for i in sorted(missing))
        log.warning("no training image of %s: the run will have none either", names)


def _columns(job: _Job, plan: Plan) -> dict[str, np.ndarray]:
    """Return what a run's shard holds besides images and masks."""
    parents = _real_parents(job, plan)
    columns = {"labels": plan.labels, "parent": parents}
    if plan.params.dtype.names:  # HDF5 has no type without fields
        columns["params"] = plan.params
    return columns


def _has_masks(job: _Job, plan: Plan) -> bool:
    """Return True if a parent has a mask; then the run has them where its plugin moves them."""
    parents = _real_parents(job, plan)
    return bool(job.snapshot.real.masked[parents[parents >= 0]].any())


def _real_parents(job: _Job, plan: Plan) -> np.ndarray:
    """Return the parents of a plan as row numbers among all real images; -1 stays."""
    rows = np.flatnonzero(job.snapshot.parts(HOLDOUT) == 0)
    assert len(rows) == len(job.source)
    return np.where(plan.parents < 0, -1, rows[plan.parents])


class _AlreadyThere(AugkitError):
    """Another command has just committed the same run."""

    def __init__(self, run: Run):
        super().__init__(run.name)
        self.run = run


def _entry(job: _Job, shard: dict[str, Any], snapshot: Snapshot) -> Entry:
    """Return the log entry, checked against the newest snapshot."""
    if snapshot.training_digest(HOLDOUT) != job.origin:
        raise StoreError(
            f"the training images of {snapshot.path} changed meanwhile: run this command again"
        )
    existing = _find(snapshot, job.recipe, job.origin, job.name)
    if existing:
        raise _AlreadyThere(existing)
    assert job.plan is not None
    traditional = job.augmenter.family == "traditional"
    return {
        "kind": "run",
        "run": job.name or _free_name(job.recipe["plugin"], snapshot),
        "family": job.augmenter.family,
        "recipe": job.recipe,
        "by_class": np.bincount(job.plan.labels, minlength=len(snapshot.classes)).tolist(),
        "lineage": {"kind": "parents"} if traditional else {"kind": "fitted", "fitted_on": []},
        "trained_from": job.origin,
        "shard": shard,
    }


def _free_name(plugin: str, snapshot: Snapshot) -> str:
    name, number = plugin, 2
    while name in snapshot.runs or name in RESERVED:
        name, number = f"{plugin}-{number}", number + 1
    return name


def _find(
    snapshot: Snapshot, recipe: dict[str, Any], origin: str, wanted: str | None
) -> Run | None:
    """Return the run of the same recipe and training part. Raises NameTaken."""
    identity = digest_of(recipe)
    for run in snapshot.runs.values():
        if digest_of(run.recipe) == identity and run.trained_from == origin:
            if wanted in (None, run.name):
                return run
            raise NameTaken(f"the same images are run {run.name!r} of {snapshot.path} already")
    if wanted in snapshot.runs:
        raise NameTaken(
            f"run {wanted!r} exists already in {snapshot.path} with another recipe. "
            f"Name another with --run NAME, or retract it: augkit retract {wanted}"
        )
    return None


def _result(
    snapshot: Snapshot, run: Run, *, made: bool, notes: tuple[str, ...] = ()
) -> AugmentResult:
    by_class = dict(zip(snapshot.classes, run.labels, strict=False))
    return AugmentResult(run.name, run.plugin, run.rows, by_class, run.recipe["seed"], made, notes)


def _notes(job: _Job) -> tuple[str, ...]:
    """Return what the user should know of these images."""
    if job.augmenter.family != "traditional" or job.plan is None:
        return ()
    window = job.augmenter.as_window(job.plan.params, job.source.shape)
    if window is None or not window.mirrored.any():
        return ()
    rows = _real_parents(job, job.plan)
    marked = int(job.snapshot.real.colour[rows[window.mirrored]].sum())
    few = 0 < marked < len(rows) / 2  # else these are colour pictures, not marks
    seen = f"; {marked} of these parents carry colour marks" if few else ""
    return (f"a flip mirrors burned-in text and calipers as well{seen}",)
