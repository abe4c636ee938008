"""The verb `augment`: a plugin, the training part and a seed in; one committed run out.

A run is a recipe (plugin, version, options, seed, amount) applied to one partition. What is random
is drawn first, for the whole run (`plans`); then images are made block by block (`making`).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from augkit.drafts import SUFFIX, Draft
from augkit.engines.local import Backend
from augkit.errors import AugkitError, NameTaken, OptionError, PluginFailed, StoreError
from augkit.fitting import Fit, Training
from augkit.interfaces import Augmenter, Progress, Samples, Window, silent
from augkit.making import Made, Making, make_blocks
from augkit.partitions import HOLDOUT, HOMES, Partition, home
from augkit.plans import TIME_LIMIT, Plan, call, draw, environment_of
from augkit.provenance import code_of
from augkit.recipes import Amount, rebuild, recipes
from augkit.store import DatasetStore, Model, Run, Snapshot
from augkit.store.format import Entry, digest_of
from augkit.store.locate import open_store
from augkit.store.samples import StoredSamples

if TYPE_CHECKING:  # it imports scipy, which traditional augmenters do without
    from augkit.gating import Gate

log = logging.getLogger("augkit")

_TRAINING_SHARE = 0.9
"""Of a budget: the rest is for sampling and for the comparison with the training images."""

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
        lines = [f"run {self.run!r} is there already ({self.rows} images): nothing to do"]
        if self.made:
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
    split: str | None = None,
    budget: str | float | None = None,
    device: str | None = None,
    weights: str | Path | None = None,
    reject_copies: bool = False,
    workers: int | None = None,
    start_method: Backend = "threads",
    block: int = 64,
    time_limit: float = TIME_LIMIT,
    progress: Progress = silent,
) -> AugmentResult:
    """Make new images from the training part (70/15/15) and commit them as one run.

    plugin: a name, or several joined by + for a chain. options: key -> value, a key of a chain
    also as "plugin.key". n: images a class; total: images in all; neither: one for each training
    image. run: a name for the run. split: "given" takes the training part of the split that the
    data came with. The same recipe again is a no-op. `workers`, `start_method`
    and `block` do not change the result. time_limit: seconds that a plugin may take for a block, or
    to draw; threads of one that hangs go on until this process ends, with another start_method it
    is killed. Raises an AugkitError; then nothing is committed.

    Only for plugins that learn: budget, device and weights are those of `fit`, which is done
    first where the store has no model of this recipe yet; the budget is for everything.
    reject_copies: draw images again that look like copies of training images.
    """
    how = Making(workers, start_method, block, time_limit)
    opened = open_store(store)
    training = Training(budget, device, weights, _TRAINING_SHARE)
    made_for, amount = home(split), Amount(n, total)
    (recipe,) = recipes([plugin], options or {}, amount, seed, reject_copies, made_for)
    _check_flags([recipe], training, reject_copies)
    return _commit(_prepare(opened, recipe, run, training, made_for, how), how, progress)


def augment_all(
    store: DatasetStore | str | Path | None,
    plugins: Sequence[str],
    options: Mapping[str, Any] | None = None,
    *,
    n: int | None = None,
    total: int | None = None,
    seed: int = 0,
    split: str | None = None,
    budget: str | float | None = None,
    device: str | None = None,
    reject_copies: bool = False,
    workers: int | None = None,
    start_method: Backend = "threads",
    time_limit: float = TIME_LIMIT,
    progress: Progress = silent,
) -> list[AugmentResult]:
    """Commit one run for each plugin, as `augment` does; all are checked before the first.

    An option goes to every plugin that has it, "plugin.key" to that one alone. Where a plugin
    fails, the others go on; its error is raised at the end, and names the runs that are there.
    """
    how = Making(workers, start_method, time_limit=time_limit)
    opened = open_store(store)
    training = Training(budget, device, None, _TRAINING_SHARE)
    made_for, amount = home(split), Amount(n, total)
    wanted = recipes(plugins, options or {}, amount, seed, reject_copies, made_for)
    _check_flags(wanted, training, reject_copies)
    jobs = [_prepare(opened, recipe, None, training, made_for, how) for recipe in wanted]
    done: list[AugmentResult] = []
    failed: list[PluginFailed] = []
    for job in jobs:
        try:
            done.append(_commit(job, how, progress))
        except PluginFailed as error:
            failed.append(error)
    if failed:
        there = f"; these runs are there: {', '.join(r.run for r in done)}" if done else ""
        raise PluginFailed("; ".join(map(str, failed)) + there) from failed[0]
    return done


def refit(
    store: DatasetStore | str | Path | None,
    run: str,
    partition: Partition,
    *,
    budget: str | float | None = None,
    device: str | None = None,
    progress: Progress = silent,
) -> AugmentResult:
    """Make a run again under another partition: its model is fitted anew on that training part.

    The same recipe, seed and amount; a no-op where it is there already. budget, device: of `fit`.
    """
    opened = open_store(store)
    found = opened.snapshot().run(run)
    recipe = {**found.recipe, "partition": partition.name}
    name = f"{run}.{re.sub('[^A-Za-z0-9]+', '-', partition.name)}"[:100]
    training = Training(budget, device, None, _TRAINING_SHARE)
    job = _prepare(opened, recipe, None, training, partition)
    if job.existing is None and name not in opened.snapshot().runs:
        job = replace(job, name=name)
    return _commit(job, Making(), progress)


@dataclass(frozen=True)
class _Job:
    """A run that is checked, but not made."""

    store: DatasetStore
    snapshot: Snapshot
    recipe: dict[str, Any]
    origin: str
    """Digest of the training part."""
    partition: Partition
    name: str | None
    """As the user wants it."""
    existing: Run | None
    augmenter: Augmenter
    source: StoredSamples
    fit: Fit | None
    """For an augmenter that learns: how its model is come by."""
    plan: Plan | None
    """None where the run exists already, or until there is a model."""
    model: Model | None = None


def _prepare(
    store: DatasetStore,
    recipe: dict[str, Any],
    name: str | None,
    training: Training,
    partition: Partition = HOLDOUT,
    how: Making | None = None,
) -> _Job:
    _check_name(name)
    augmenter = rebuild(recipe)
    snapshot = store.snapshot()
    snapshot.require_parts(partition)
    source = snapshot.training(partition)
    _check_source(source, snapshot, augmenter)
    origin = snapshot.training_digest(partition)
    fit = _fit(store, recipe, augmenter, training, partition)
    model = None
    if fit is not None:
        augmenter = fit.settled
        model = None if training.weights is not None else fit.find()
        recipe = {**recipe, "plugins": [(model or fit).recipe["plugin"]]}
    existing = _find(snapshot, recipe, origin, name, model)
    limit = (how or Making()).time_limit
    plan = None if existing or fit else draw(augmenter, recipe, source, limit=limit)
    return _Job(
        store=store,
        snapshot=snapshot,
        recipe=recipe,
        origin=origin,
        partition=partition,
        name=name,
        existing=existing,
        augmenter=augmenter,
        source=source,
        fit=fit,
        plan=plan,
        model=model,
    )


def _fit(
    store: DatasetStore,
    recipe: dict[str, Any],
    augmenter: Augmenter,
    training: Training,
    partition: Partition,
) -> Fit | None:
    """Return how the model of an augmenter that learns is come by; None for all others."""
    if augmenter.learns:
        if not recipe["amount"]:
            draw_nothing = f"say how many images {augmenter.name} is to make: --n IMAGES_A_CLASS"
            raise OptionError(draw_nothing)
        return Fit(store, recipe["plugins"][0], augmenter, training, partition)
    return None


def _check_flags(recipes: Sequence[dict[str, Any]], training: Training, reject: bool) -> None:
    """Raise OptionError for flags of training where no plugin learns."""
    if any(rebuild(recipe).learns for recipe in recipes):
        return
    given = {"budget": training.budget, "device": training.device, "weights": training.weights}
    given["reject-copies"] = True if reject else None
    for flag, value in given.items():
        if value is not None:
            names = " and ".join(recipe["plugin"] for recipe in recipes)
            raise OptionError(f"{names} learn nothing: --{flag} is for plugins that do")


def _commit(job: _Job, how: Making, progress: Progress) -> AugmentResult:
    """Make the images of a job block by block and commit them."""
    if job.existing is None and job.fit is not None:
        job = _with_model(job, job.fit, progress)
    if job.existing or job.plan is None:
        assert job.existing is not None
        return _result(
            job.snapshot, job.existing, made=False, notes=_marks(job.snapshot, job.existing)
        )
    about = {"kind": "augmented images", "recipe": job.recipe}
    about["classes"] = list(job.snapshot.classes)
    if job.model is not None:
        about["model"] = job.model.name
    gate = _gate(job, job.plan, progress) if job.model and _is_checked(job) else None
    n = len(job.plan.labels)
    lent = job.store.new_shard(about, masks=_has_masks(job, job.plan), expected=n)
    try:
        with lent as writer, Draft(_draft(job, how)) as draft:
            for made in _blocks(job, job.plan, gate, how, draft):
                writer.append(*made)
                progress(job.recipe["plugin"], writer.rows, n)
            shard = writer.finish(_columns(job, job.plan, gate))
            after = job.store.commit(partial(_entry, job, gate, shard), writer.path)
            draft.discard()
    except _AlreadyThere as found:
        return _result(job.store.snapshot(), found.run, made=False)
    run = _find(after, job.recipe, job.origin, job.name, job.model)
    assert run is not None
    return _result(after, run, made=True, notes=_notes(job, run))


def _with_model(job: _Job, fit: Fit, progress: Progress) -> _Job:
    """Return a job with its model, trained first if need be, and its plan."""
    model, trained = fit.obtain(go_on=False, progress=progress)
    log.info("%s model %s", "new" if trained else "using", _described(model))
    snapshot = job.store.snapshot()
    if snapshot.training_digest(job.partition) != job.origin:
        raise StoreError(_changed(snapshot))
    recipe = {**job.recipe, "plugins": [model.recipe["plugin"]]}
    existing = _find(snapshot, recipe, job.origin, job.name, model)
    augmenter = rebuild(recipe)
    with job.store.model_folder(model.name) as folder:
        call(augmenter, "load", folder)
    plan = None if existing else draw(augmenter, recipe, job.source)
    return replace(
        job,
        snapshot=snapshot,
        recipe=recipe,
        existing=existing,
        augmenter=augmenter,
        plan=plan,
        model=model,
    )


def _described(model: Model) -> str:
    return f"{model.name[:12]}" + (f" ({model.note})" if model.note else "")


def _is_checked(job: _Job) -> bool:
    """Return True if generated images are held against the training images, to find copies.

    What is fitted anew for another partition is not, unless copies are to be drawn again: the same
    recipe has been under its own partition.
    """
    return job.partition in HOMES or bool(job.recipe.get("reject_copies"))


def _gate(job: _Job, plan: Plan, progress: Progress) -> Gate:
    from augkit.gating import Gate
    from augkit.memorisation import Gallery

    # Not groups: of one fold are also images that may show one lesion.
    folds = job.snapshot.real.folds[job.snapshot.parts(job.partition) == 0]
    gallery = Gallery.of(job.source, folds, progress)
    redraw = bool(job.recipe.get("reject_copies"))
    return Gate(job.augmenter, job.source, plan, gallery, job.recipe["seed"], redraw)


def _draft(job: _Job, how: Making) -> Path | None:
    """Return where the images made so far are kept; None for an augmenter that learns nothing.

    Those make thousands of images a second: to keep them would take longer than to make them.
    """
    if job.fit is None or job.model is None or job.plan is None:
        return None
    made_by = [job.recipe, job.origin, job.model.name, environment_of(job.augmenter)]
    block = how.rows_of_block(job.source.shape)
    return job.fit.folder / f"{digest_of([*made_by, block])[:16]}{SUFFIX}"


def _blocks(job: _Job, plan: Plan, gate: Gate | None, how: Making, draft: Draft) -> Iterator[Made]:
    """Yield images, masks and which images have one."""
    if gate is None:
        masks = _has_masks(job, plan)
        yield from make_blocks(job.augmenter, job.source, plan, how, masks=masks)
    else:
        for images in gate.blocks(how, draft):
            yield images, None, None


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
    if _is_reserved(run):
        raise OptionError(f"run name {run!r} is the name of an arm; choose another")


def _is_reserved(name: str) -> bool:
    return name in RESERVED or re.fullmatch(r"balanced-\d+", name) is not None


def _check_source(source: Samples, snapshot: Snapshot, augmenter: Augmenter) -> None:
    if not len(source):
        raise StoreError(f"{snapshot.path} has no training images: augkit ingest FOLDER")
    missing = set(range(len(snapshot.classes))) - set(source.labels.tolist())
    if missing:
        names = ", ".join(snapshot.classes[i] for i in sorted(missing))
        log.warning("no training image of %s: the run will have none either", names)


def _columns(job: _Job, plan: Plan, gate: Gate | None) -> dict[str, np.ndarray]:
    """Return what a run's shard holds besides images and masks."""
    columns = {"labels": plan.labels, "parent": _real_parents(job, plan)}
    if gate is not None:
        found = gate.nearest()
        columns["nearest"] = _training_rows(job)[found.index]
        columns["nearest_score"] = found.score
    if plan.params.dtype.names:  # HDF5 has no type without fields
        columns["params"] = plan.params
    return columns


def _has_masks(job: _Job, plan: Plan) -> bool:
    """Return True if a parent has a mask; then the run has them where its plugin moves them."""
    parents = _real_parents(job, plan)
    return bool(job.snapshot.real.masked[parents[parents >= 0]].any())


def _real_parents(job: _Job, plan: Plan) -> np.ndarray:
    """Return the parents of a plan as row numbers among all real images; -1 stays."""
    return np.where(plan.parents < 0, -1, _training_rows(job)[plan.parents])


def _training_rows(job: _Job) -> np.ndarray:
    """Return the row numbers of the training part among all real images."""
    rows = np.flatnonzero(job.snapshot.parts(job.partition) == 0)
    assert len(rows) == len(job.source)
    return rows


class _AlreadyThere(AugkitError):
    """Another command has just committed the same run."""

    def __init__(self, run: Run):
        super().__init__(run.name)
        self.run = run


def _entry(job: _Job, gate: Gate | None, shard: dict[str, Any], snapshot: Snapshot) -> Entry:
    """Return the log entry, checked against the newest snapshot."""
    if snapshot.training_digest(job.partition) != job.origin:
        raise StoreError(_changed(snapshot))
    existing = _find(snapshot, job.recipe, job.origin, job.name, job.model)
    if existing:
        raise _AlreadyThere(existing)
    assert job.plan is not None
    entry = {
        "kind": "run",
        "run": job.name or _free_name(job.recipe["plugin"], snapshot),
        "family": job.augmenter.family,
        "recipe": job.recipe,
        "by_class": np.bincount(job.plan.labels, minlength=len(snapshot.classes)).tolist(),
        "lineage": _lineage(job),
        "environment": environment_of(job.augmenter),
        "code": code_of(job.recipe["plugins"]),
        "trained_from": job.origin,
        "shard": shard,
    }
    if gate is not None:
        entry["memorisation"] = _memorisation(job, gate)
    return entry


def _changed(snapshot: Snapshot) -> str:
    return f"the training images of {snapshot.path} changed meanwhile: run this command again"


def _lineage(job: _Job) -> dict[str, Any]:
    """Return what the rows derive from: parents, or what their model was fitted on."""
    if job.augmenter.family == "traditional":
        return {"kind": "parents"}
    if job.model is not None:
        return {"kind": "fitted", "model": job.model.name}
    return {"kind": "fitted", "fitted_on": []}


def _memorisation(job: _Job, gate: Gate) -> dict[str, Any]:
    """Return how many rows look like copies of training images, and by which measure."""
    assert job.plan is not None
    copies = gate.gallery.copies(gate.nearest())
    counts = np.bincount(job.plan.labels[copies], minlength=len(job.snapshot.classes))
    return {
        "threshold": round(gate.gallery.threshold, 6),
        "copies": int(copies.sum()),
        "by_class": counts.tolist(),
        "redrawn": gate.redrawn,
    }


def _free_name(plugin: str, snapshot: Snapshot) -> str:
    name, number = plugin, 2
    while name in snapshot.runs or _is_reserved(name):
        name, number = f"{plugin}-{number}", number + 1
    return name


def _find(
    snapshot: Snapshot,
    recipe: dict[str, Any],
    origin: str,
    wanted: str | None,
    model: Model | None = None,
) -> Run | None:
    """Return the run of the same recipe, training part and model. Raises NameTaken."""
    identity, model_name = digest_of(recipe), model.name if model else None
    for run in snapshot.runs.values():
        same = run.trained_from == origin and run.model == model_name
        if same and digest_of(run.recipe) == identity:
            if wanted in (None, run.name):
                return run
            raise NameTaken(f"the same images are run {run.name!r} of {snapshot.path} already")
    if wanted in snapshot.runs:
        raise NameTaken(
            f"run {wanted!r} exists already in {snapshot.path} with another recipe or model. "
            f"Name another with --run NAME, or retract it: augkit retract {wanted}"
        )
    return None


def _result(
    snapshot: Snapshot, run: Run, *, made: bool, notes: tuple[str, ...] = ()
) -> AugmentResult:
    by_class = dict(zip(snapshot.classes, run.labels, strict=False))
    return AugmentResult(run.name, run.plugin, run.rows, by_class, run.recipe["seed"], made, notes)


def _notes(job: _Job, run: Run) -> tuple[str, ...]:
    """Return what the user should know of these images."""
    if run.model is not None:
        return _marks(job.snapshot, run)
    if job.augmenter.family != "traditional" or job.plan is None:
        return ()
    mirrored = _mirrored(job, job.plan)
    if not mirrored.any():
        return ()
    rows = _real_parents(job, job.plan)
    marked = int(job.snapshot.real.colour[rows[mirrored]].sum())
    few = 0 < marked < len(rows) / 2  # else these are colour pictures, not marks
    seen = f"; {marked} of these parents carry colour marks" if few else ""
    return (f"a flip mirrors burned-in text and calipers as well{seen}",)


def _mirrored(job: _Job, plan: Plan) -> np.ndarray:
    """Return bool (N,): which rows are known to be mirrored; false where a plugin cannot say."""
    found = np.zeros(len(plan.params), bool)
    for start in range(0, len(found), 256):  # the tables of a chain come with its windows
        rows = slice(start, start + 256)
        try:
            window = call(job.augmenter, "as_window", plan.params[rows], job.source.shape)
        except PluginFailed:  # `apply` did without, and the run is committed
            return found
        if isinstance(window, Window) and np.shape(window.mirrored) == found[rows].shape:
            found[rows] = window.mirrored
    return found


def _marks(snapshot: Snapshot, run: Run) -> tuple[str, ...]:
    """Return what is to be known of the model of a run, and of copies in it."""
    if run.model is None:
        return ()
    note = (f"model {_described(snapshot.model(run.model))}",)
    return (*note, _copies(run)) if run.memorisation else note


def _copies(run: Run) -> str:
    """Return in words how many images look like copies of training images."""
    found = run.memorisation or {}
    copies, redrawn = found["copies"], found["redrawn"]
    said = f"{copies} of {run.rows} images look like a copy of a training image"
    said += f" (correlation over {found['threshold']:.3f}, which 1 % of real images of other "
    said += "folds exceed)"
    if redrawn:
        said += f"; {redrawn} were drawn again"
    elif copies:
        said += "; --reject-copies draws them again"
    return said
