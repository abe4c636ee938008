"""The verb `augment`: a plugin, the training part and a seed in; one committed run out.

A run is a recipe (plugin, version, options, seed, amount) applied to one partition. What is random
is drawn first, for the whole run; then images are made block by block. `make` applies the same
recipe to another partition, for an evaluation, without storing it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from augkit import options as option_tools
from augkit.chain import chain
from augkit.engines.local import Backend, ordered_map
from augkit.errors import (
    AugkitError,
    LineageError,
    NameTaken,
    OptionError,
    PluginFailed,
    StoreError,
)
from augkit.interfaces import Augmenter, Progress, Samples, Shape, silent
from augkit.partitions import HOLDOUT, Partition
from augkit.registry import Plugin, registry
from augkit.store import DatasetStore, Run, Snapshot
from augkit.store.format import Entry, digest_of
from augkit.store.locate import open_store
from augkit.store.reading import require_training
from augkit.store.samples import StoredSamples

log = logging.getLogger("augkit")

RESERVED = {"real", "traditional", "generative", "all", "balanced"}
"""Names of arms, which no run may take."""


@dataclass(frozen=True)
class Amount:
    """How many images to make: so many a class, so many in all, or one for each source."""

    per_class: int | None = None
    total: int | None = None

    def __post_init__(self) -> None:
        if self.per_class is not None and self.total is not None:
            raise OptionError("give --n (images a class) or --total (images in all), not both")
        for name, value in (("n", self.per_class), ("total", self.total)):
            if value is not None and _whole(name, value) < 1:
                raise OptionError(f"{name} is {value}; it must be at least 1")

    def as_recipe(self) -> dict[str, int]:
        """Return what was asked for as JSON values; nothing: one for each source."""
        given = (("per_class", self.per_class), ("total", self.total))
        return {name: int(value) for name, value in given if value is not None}


def _whole(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise OptionError(f"{name} is {value!r}; it must be a whole number") from None


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


@dataclass(frozen=True)
class Plan:
    """Everything random of a run: for each new image its parent and its parameters."""

    parents: np.ndarray
    """int64 (N,), positions in the training part; -1 for generated images."""
    labels: np.ndarray
    """int64 (N,)."""
    params: np.ndarray
    """Structured (N,)."""


@dataclass(frozen=True)
class Making:
    """How the images are made; none of it changes them."""

    workers: int | None = None
    start_method: Backend = "threads"
    block: int = 64

    def __post_init__(self) -> None:
        for name, value in (("workers", self.workers), ("block", self.block)):
            if value is not None and value < 1:
                raise OptionError(f"{name} is {value}; it must be at least 1")


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
        for made in _make_blocks(job.augmenter, job.source, job.plan, how):
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


def make(snapshot: Snapshot, run: Run, partition: Partition) -> MadeSamples:
    """Return the rows that the recipe of a run gives under another partition, not stored.

    Raises PluginError if the plugin is not there any more, LineageError if the run was fitted on
    images that this partition validates or tests.
    """
    if run.fitted_on is not None and not snapshot.trainable(run.name, partition).all():
        raise LineageError(
            f"run {run.name!r} was fitted on images that {partition.name} does not train on"
        )
    augmenter = rebuild(run.recipe)
    source = snapshot.training(partition)
    return MadeSamples(augmenter, source, draw(augmenter, run.recipe, source), _made_by(run))


def _made_by(run: Run) -> str:
    """Return what names the code and the options that make the rows of a run here and now."""
    found = registry()
    here = [found.find(p["name"], "augmenter") for p in run.recipe["plugins"]]
    for plugin, then in zip(here, run.recipe["plugins"], strict=True):
        if (plugin.distribution, plugin.version) != (then["distribution"], then["version"]):
            log.warning(
                "run %r was made by %s %s; for other partitions it is made again by %s %s",
                run.name,
                *(then["distribution"], then["version"], plugin.distribution, plugin.version),
            )
    return digest_of([[p.distribution, p.version] for p in here] + [run.recipe["plugins"]])


def rebuild(recipe: Mapping[str, Any]) -> Augmenter:
    """Return the augmenter of a recipe. Raises PluginNotFound or OptionError."""
    found = registry()
    return chain(
        [found.find(p["name"], "augmenter").build(p["options"]) for p in recipe["plugins"]]
    )


def draw(augmenter: Augmenter, recipe: Mapping[str, Any], source: Samples) -> Plan:
    """Return the whole plan of a run: depends on recipe, labels and image shape alone."""
    entropy = int.from_bytes(hashlib.sha256(recipe["plugin"].encode()).digest()[:8], "big")
    stream = np.random.SeedSequence([recipe["seed"], entropy])
    for_sources, for_params = (np.random.Generator(np.random.Philox(s)) for s in stream.spawn(2))
    labels = source.labels
    chosen = _choose_sources(labels, recipe["amount"], augmenter, for_sources)
    wanted = labels[chosen]
    params = _call(augmenter, "plan", wanted, source.shape, for_params)
    if (
        not isinstance(params, np.ndarray)
        or params.shape != wanted.shape
        or params.dtype.names is None
        or not _of_numbers(params.dtype)
    ):
        raise PluginFailed(
            f"plugin {augmenter.name!r}: plan() must return a structured array of numbers, "
            f"{len(wanted)} rows"
        )
    parents = chosen if augmenter.family == "traditional" else np.full(len(chosen), -1)
    return Plan(parents, wanted, params)


def _of_numbers(kind: np.dtype) -> bool:
    """Return True if a type holds numbers and truth values only: HDF5 has no place for others."""
    if kind.names is not None:
        return all(_of_numbers(kind[name]) for name in kind.names)
    return kind.base.kind in "biufc" if kind.base.names is None else _of_numbers(kind.base)


class MadeSamples(Samples):
    """Rows made on demand from training images by a plan; they are nowhere stored."""

    purpose = "training"

    def __init__(self, augmenter: Augmenter, source: StoredSamples, plan: Plan, made_by: str):
        require_training(source)
        self.shape = source.shape
        self._augmenter = augmenter
        self._source = source
        self._plan = plan
        total = hashlib.sha256(f"{source.digest} {made_by}".encode())
        for array in (plan.parents, plan.labels, plan.params):
            total.update(np.ascontiguousarray(array).tobytes())
        self.digest = total.hexdigest()

    @property
    def ids(self) -> np.ndarray:
        """Return -1, -2, ...: these rows are not stored."""
        return -1 - np.arange(len(self._plan.labels))

    @property
    def labels(self) -> np.ndarray:
        """Return int64 (N,)."""
        return self._plan.labels

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Make the images of a slice: uint8 (n, H, W, C)."""
        chosen = np.arange(len(self))[rows]
        return _make(self._augmenter, _task(self._source, self._plan, chosen))[0]


def recipes(
    specs: Sequence[str], given: Mapping[str, Any], amount: Amount, seed: int
) -> list[dict[str, Any]]:
    """Return for each plugin or chain its recipe as JSON values, with every option spelt out.

    Raises PluginNotFound or OptionError.
    """
    if not 0 <= _whole("seed", seed) < 2**63:
        raise OptionError(f"seed is {seed}; it must be at least 0 and below 2**63")
    plugins = [registry().find(name, "augmenter") for spec in specs for name in spec.split("+")]
    shares = iter(_share(plugins, given))
    made = []
    for spec in specs:
        members = [registry().find(name, "augmenter") for name in spec.split("+")]
        made.append(
            {
                "plugin": spec,
                "plugins": [_member(plugin, next(shares)) for plugin in members],
                "seed": int(seed),
                "amount": amount.as_recipe(),
                "partition": HOLDOUT.name,
            }
        )
    return made


def _member(plugin: Plugin, options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "options": option_tools.values(plugin.build(options)),
    }


def _share(plugins: list[Plugin], given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the options of each plugin: "plugin.key" is for one, "key" for all that have it."""
    shares: list[dict[str, Any]] = [{} for _ in plugins]
    for key, value in given.items():
        owner, _, bare = key.rpartition(".")
        takers = [i for i, p in enumerate(plugins) if owner in ("", p.name)]
        having = [i for i in takers if bare in plugins[i].options]
        if not having:
            takes = "; ".join(f"{p.name}: {', '.join(p.options) or 'none'}" for p in plugins)
            raise OptionError(f"there is no option {key!r}; the options are {takes}")
        for i in having:
            shares[i][bare] = value
    return shares


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


def _choose_sources(
    labels: np.ndarray, amount: Mapping[str, int], augmenter: Augmenter, rng: np.random.Generator
) -> np.ndarray:
    """Return int64 (N,): the source of each new image, each used equally often within one."""
    everything = np.arange(len(labels))
    if "per_class" in amount:
        pools = [np.flatnonzero(labels == c) for c in np.unique(labels)]
        counts = [amount["per_class"]] * len(pools)
    elif "total" in amount:
        pools = [np.flatnonzero(labels == c) for c in np.unique(labels)]
        counts = _apportion(amount["total"], [len(pool) for pool in pools])
    elif augmenter.family == "generative":
        raise OptionError(f"say how many images {augmenter.name} is to make: --n IMAGES_A_CLASS")
    else:
        return everything
    for pool, count in zip(pools, counts, strict=True):
        if augmenter.deterministic and count > len(pool):
            raise OptionError(
                f"{augmenter.name} has nothing random and makes one image of each source; "
                f"{count} of {len(pool)} sources cannot be had: ask for {len(pool)} or fewer, or "
                f"chain it with another: {augmenter.name}+zoom"
            )
    return np.concatenate([_repeat(p, n, rng) for p, n in zip(pools, counts, strict=True)])


def _apportion(total: int, sizes: Sequence[int]) -> list[int]:
    """Return how many each class gets, by its share of the sources (largest remainder)."""
    exact = np.array(sizes) * total / sum(sizes)
    counts = np.floor(exact).astype(np.int64)
    rest = total - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:rest]] += 1
    return [int(n) for n in counts]


def _repeat(pool: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    times, rest = divmod(count, len(pool))
    extra = np.sort(rng.permutation(pool)[:rest])
    return np.concatenate([np.tile(pool, times), extra])


@dataclass(frozen=True)
class _Task:
    """What a worker needs to make one block."""

    images: np.ndarray | None
    labels: np.ndarray
    params: np.ndarray
    masks: np.ndarray | None
    masked: np.ndarray | None
    shape: Shape


def _task(source: StoredSamples, plan: Plan, chosen: np.ndarray, *, masks: bool = False) -> _Task:
    labels, params = plan.labels[chosen], plan.params[chosen]
    if len(chosen) and plan.parents[chosen[0]] < 0:
        return _Task(None, labels, params, None, None, source.shape)
    parents = source.take(plan.parents[chosen])
    found, masked = parents.masks(slice(None)) if masks else (None, None)
    if masked is not None and not masked.any():
        found, masked = None, None
    return _Task(parents[:], labels, params, found, masked, source.shape)


Made = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]
"""Images, masks (or None), and which of the images have one."""


def _make_blocks(
    augmenter: Augmenter, source: StoredSamples, plan: Plan, how: Making
) -> Iterator[Made]:
    rows = np.arange(len(plan.labels))
    tasks = (
        _task(source, plan, rows[start : start + how.block], masks=True)
        for start in range(0, len(rows), how.block)
    )
    return ordered_map(
        partial(_make, augmenter), tasks, workers=how.workers, backend=how.start_method
    )


def _make(augmenter: Augmenter, task: _Task) -> Made:
    """Make one block, and hold what the plugin returns against the contract."""
    if task.images is not None:
        task.images.flags.writeable = False
    made = _call(augmenter, "apply", task.images, task.labels, task.params)
    _check_pixels(augmenter, "apply", made, (len(task.labels), *task.shape))
    if task.masks is None:
        return made, None, None
    masks = _call(augmenter, "apply_masks", task.masks, task.params)
    if masks is None:
        return made, None, None
    _check_pixels(augmenter, "apply_masks", masks, task.masks.shape)
    return made, masks, task.masked


def _check_pixels(augmenter: Augmenter, method: str, made: Any, expected: tuple[int, ...]) -> None:
    """Raise PluginFailed unless these are uint8 of the expected shape."""
    if isinstance(made, np.ndarray) and made.dtype == np.uint8 and made.shape == expected:
        return
    what = f"{made.dtype} {made.shape}" if isinstance(made, np.ndarray) else type(made).__name__
    raise PluginFailed(
        f"plugin {augmenter.name!r}: {method}() returned {what} instead of uint8 {expected}"
    )


def _call(augmenter: Augmenter, method: str, *arguments: Any) -> Any:
    """Call a plugin; whatever it raises becomes a named error with the cause kept."""
    try:
        return getattr(augmenter, method)(*arguments)
    except AugkitError:
        raise
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise PluginFailed(f"plugin {augmenter.name!r} failed in {method}(): {why}") from error


def _columns(job: _Job, plan: Plan) -> dict[str, np.ndarray]:
    """Return what a run's shard holds besides images and masks."""
    parents = _real_rows(job.snapshot, job.source, plan.parents)
    columns = {"labels": plan.labels, "parent": parents}
    if plan.params.dtype.names:  # HDF5 has no type without fields
        columns["params"] = plan.params
    return columns


def _has_masks(job: _Job, plan: Plan) -> bool:
    """Return True if a parent has a mask; then the run has them where its plugin moves them."""
    parents = _real_rows(job.snapshot, job.source, plan.parents)
    return bool(job.snapshot.real.masked[parents[parents >= 0]].any())


def _real_rows(snapshot: Snapshot, source: StoredSamples, parents: np.ndarray) -> np.ndarray:
    """Return parents as row numbers among all real images; -1 stays."""
    rows = np.flatnonzero(snapshot.parts(HOLDOUT) == 0)
    assert len(rows) == len(source)
    return np.where(parents < 0, -1, rows[parents])


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
    rows = _real_rows(job.snapshot, job.source, job.plan.parents)
    marked = int(job.snapshot.real.colour[rows[window.mirrored]].sum())
    few = 0 < marked < len(rows) / 2  # else these are colour pictures, not marks
    seen = f"; {marked} of these parents carry colour marks" if few else ""
    return (f"a flip mirrors burned-in text and calipers as well{seen}",)
