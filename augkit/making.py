"""Making images by a plan: block by block for a store, or on demand for another partition."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from augkit.engines.local import Backend, check_workers, ordered_map, usable_cores
from augkit.errors import LineageError, OptionError, PluginFailed
from augkit.interfaces import Augmenter, Samples, Shape
from augkit.partitions import Partition
from augkit.plans import TIME_LIMIT, Plan, call, draw, too_long
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
    time_limit: float = TIME_LIMIT
    """Seconds that a plugin may take for one block."""

    BUFFER: ClassVar[int] = 256 * 2**20
    """Bytes that the images of all blocks under way may take, with what they are made from."""

    def __post_init__(self) -> None:
        if self.workers is not None:
            check_workers("workers", self.workers)
        if self.block < 1:
            raise OptionError(f"block is {self.block}; it must be at least 1")
        if not self.time_limit > 0:
            raise OptionError(f"time_limit is {self.time_limit}; it must be above 0 seconds")

    def rows_of_block(self, shape: Shape) -> int:
        """Return how many images make a block: fewer where they are so large that many need much.

        Twice as many blocks as workers are under way, and one is being written.
        """
        under_way = 2 * (self.workers or usable_cores()) + 1
        fitting = self.BUFFER // (2 * math.prod(shape) * under_way)
        return min(self.block, max(fitting, 1))


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

    parents: StoredSamples | None
    labels: np.ndarray
    params: np.ndarray
    shape: Shape
    with_masks: bool
    twice: bool = False
    """Make some of it again, and compare."""
    images: np.ndarray | None = None
    masks: np.ndarray | None = None
    masked: np.ndarray | None = None

    def read(self) -> _Task:
        """Return the same with the images and masks of the parents, read from the store."""
        if self.parents is None:
            return self
        masks, masked = self.parents.masks(slice(None)) if self.with_masks else (None, None)
        if masked is not None and not masked.any():
            masks, masked = None, None
        return replace(self, parents=None, images=self.parents[:], masks=masks, masked=masked)


def _task(
    source: StoredSamples,
    plan: Plan,
    chosen: np.ndarray,
    *,
    masks: bool = False,
    twice: bool = False,
) -> _Task:
    made_of_none = len(chosen) and plan.parents[chosen[0]] < 0
    parents = None if made_of_none else source.take(plan.parents[chosen])
    return _Task(parents, plan.labels[chosen], plan.params[chosen], source.shape, masks, twice)


Made = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]
"""Images, masks (or None), and which of the images have one."""


def make_blocks(
    augmenter: Augmenter,
    source: StoredSamples,
    plan: Plan,
    how: Making,
    *,
    masks: bool = False,
    window: int | None = None,
) -> Iterator[Made]:
    """Yield all images of a plan in order, a block at a time; memory does not grow with them.

    masks: whether those of the parents are moved along. window: the most blocks that are begun and
    not yet taken, by default twice the workers.
    """
    rows, block = np.arange(len(plan.labels)), how.rows_of_block(source.shape)
    tasks = (
        _task(source, plan, rows[start : start + block], masks=masks, twice=start == 0)
        for start in range(0, len(rows), block)
    )
    if how.start_method != "threads":  # each process would open the files for itself
        tasks = (task.read() for task in tasks)
    try:
        yield from ordered_map(
            partial(_make, augmenter),
            tasks,
            workers=how.workers,
            backend=how.start_method,
            window=window,
            limit=how.time_limit,
        )
    except TimeoutError as error:
        what = f"a block of {block} images"
        raise too_long(augmenter, what, how.time_limit) from error


def _make(augmenter: Augmenter, task: _Task) -> Made:
    """Make one block, and hold what the plugin returns against the contract."""
    task = task.read()
    for given in (task.images, task.labels, task.params, task.masks):
        if given is not None:
            given.flags.writeable = False
    returned = call(augmenter, "apply", task.images, task.labels, task.params)
    check_pixels(augmenter, "apply", returned, (len(task.labels), *task.shape))
    made = np.array(returned)
    if task.twice:
        _check_repeats(augmenter, task, made, returned)
    if task.masks is None:
        return made, None, None
    masks = call(augmenter, "apply_masks", task.masks, task.params)
    if masks is None:
        return made, None, None
    check_pixels(augmenter, "apply_masks", masks, task.masks.shape)
    return made, masks, task.masked


_AGAIN = 4
"""Rows of a run that are made twice, where each row stands for itself."""


def _check_repeats(
    augmenter: Augmenter, task: _Task, made: np.ndarray, returned: np.ndarray
) -> None:
    """Raise PluginFailed if a plugin does not make the same pixels of the same input again.

    Also if it returns memory that it uses again: blocks are made beside each other. Rows of a
    generator are made in the same company: networks may round otherwise in another. made: a copy of
    what it returned.
    """
    n = len(made) if task.images is None else min(_AGAIN, len(made))
    images = None if task.images is None else task.images[:n]
    again = call(augmenter, "apply", images, task.labels[:n], task.params[:n])
    check_pixels(augmenter, "apply", again, (n, *task.shape))
    its_own = images is None or not np.may_share_memory(again, images)
    if its_own and np.may_share_memory(again, returned):
        raise PluginFailed(
            f"plugin {augmenter.name!r}: apply() returns the same memory again, which would change "
            "the images before; it must return a new array each time"
        )
    if not np.array_equal(again, made[:n]):
        raise PluginFailed(
            f"plugin {augmenter.name!r}: apply() makes other pixels when it is given the same "
            "images and the same parameters again; what is random belongs into plan()"
        )


def check_pixels(augmenter: Augmenter, method: str, made: Any, expected: tuple[int, ...]) -> None:
    """Raise PluginFailed unless these are uint8 of the expected shape."""
    if isinstance(made, np.ndarray) and made.dtype == np.uint8 and made.shape == expected:
        return
    what = f"{made.dtype} {made.shape}" if isinstance(made, np.ndarray) else type(made).__name__
    raise PluginFailed(
        f"plugin {augmenter.name!r}: {method}() returned {what} instead of uint8 {expected}"
    )
