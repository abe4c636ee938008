"""Making images by a plan: block by block for a store, or on demand for another partition."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from augkit.engines.local import Backend, ordered_map
from augkit.errors import LineageError, OptionError, PluginFailed
from augkit.interfaces import Augmenter, Samples, Shape
from augkit.partitions import Partition
from augkit.plans import Plan, call, draw
from augkit.recipes import made_by, rebuild
from augkit.store import Run, Snapshot
from augkit.store.reading import require_training
from augkit.store.samples import StoredSamples


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
        """Return int64 (N,), a new array."""
        return self._plan.labels.copy()

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Make the images of a slice: uint8 (n, H, W, C)."""
        return self.gather(np.arange(len(self))[rows])

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Make the images of some rows, in the order asked: uint8 (n, H, W, C)."""
        return _make(self._augmenter, _task(self._source, self._plan, rows))[0]


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
    return MadeSamples(augmenter, source, draw(augmenter, run.recipe, source), made_by(run))


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


def make_blocks(
    augmenter: Augmenter, source: StoredSamples, plan: Plan, how: Making
) -> Iterator[Made]:
    """Yield all images of a plan in order, a block at a time; memory does not grow with them."""
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
    made = call(augmenter, "apply", task.images, task.labels, task.params)
    check_pixels(augmenter, "apply", made, (len(task.labels), *task.shape))
    if task.masks is None:
        return made, None, None
    masks = call(augmenter, "apply_masks", task.masks, task.params)
    if masks is None:
        return made, None, None
    check_pixels(augmenter, "apply_masks", masks, task.masks.shape)
    return made, masks, task.masked


def check_pixels(augmenter: Augmenter, method: str, made: Any, expected: tuple[int, ...]) -> None:
    """Raise PluginFailed unless these are uint8 of the expected shape."""
    if isinstance(made, np.ndarray) and made.dtype == np.uint8 and made.shape == expected:
        return
    what = f"{made.dtype} {made.shape}" if isinstance(made, np.ndarray) else type(made).__name__
    raise PluginFailed(
        f"plugin {augmenter.name!r}: {method}() returned {what} instead of uint8 {expected}"
    )
