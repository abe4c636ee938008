"""Rows of a store for training with torch: a map-style Dataset and a DataLoader.

    from augkit.torch import as_float, dataset, loader

    train = dataset("busi.store", arms=["traditional"], transform=as_float)
    for images, labels in loader(train, 32, shuffle=True):
        ...

Images are read from the store when they are asked for, a batch at a time; nothing else is kept.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from augkit.arms import REAL
from augkit.errors import LineageError, OptionError
from augkit.interfaces import Samples
from augkit.recipes import whole
from augkit.selection import Selection, collect
from augkit.store import DatasetStore
from augkit.store.locate import open_store

if TYPE_CHECKING:  # torch takes seconds to import; functions do it
    from torch import Tensor
    from torch.utils.data import DataLoader, Dataset

Transform = Callable[["Tensor"], Any]
"""Turns one image, uint8 (C, H, W), into what the network gets."""

WITHHELD = -1
"""The label of a test image, where labels are not given away."""


def as_float(image: Tensor) -> Tensor:
    """Return a uint8 image as float32 in 0..1, same shape."""
    return image.float().div_(255)


def dataset(
    source: Samples | DatasetStore | str | Path | None = None,
    *,
    part: str = "train",
    arms: Sequence[str] = (REAL,),
    split: str | None = None,
    folds: int | None = None,
    fold: int | None = None,
    datasets: Sequence[str] = (),
    test_on: str | None = None,
    test_labels: bool = False,
    transform: Transform | None = None,
) -> Dataset:
    """Return a torch Dataset of (image, label): image uint8 (C, H, W), label an int.

    source: a store, or samples that were read from one, such as `Snapshot.training` returns and a
    classifier is given; then only `transform` may be said. part: train, validation or test.
    arms, split, folds, datasets, test_on: as in `evaluate`; fold: which of the folds, from 1. The
    rows of runs are in the training part only, and only those that may be trained on.

    The labels of a store's test part need test_labels=True; those of samples of a test part are
    -1. transform: called with each image. `labels` (int64) and `classes` are attributes. Raises
    LineageError for what may not be trained on, OptionError for words that choose nothing.
    """
    selection = Selection(arms, split, folds, fold, datasets, test_on)
    if isinstance(source, Samples):
        if selection != Selection() or part != "train" or test_labels:
            raise OptionError("samples are chosen already: only a transform may be given with them")
        return _torch_dataset(source, _labels(source), (), transform)
    snapshot = open_store(source).snapshot()
    found = collect(snapshot, selection, part)
    if part == "test" and not test_labels:
        raise LineageError(
            "the labels of test images are withheld, so that nothing is chosen by them: say "
            "test_labels=True for the last evaluation"
        )
    return _torch_dataset(found.samples, found.labels, snapshot.classes, transform)


def loader(
    rows: Dataset,
    batch_size: int = 32,
    *,
    shuffle: bool = False,
    seed: int = 0,
    workers: int = 0,
    start_method: str | None = None,
    drop_last: bool = False,
) -> DataLoader:
    """Return a DataLoader that reads each batch at once.

    The order of every epoch follows from `seed` and the number of the epoch, whatever the workers.
    workers: processes that read ahead, two batches each, so that memory is bounded; 0: none.
    start_method: fork, spawn or forkserver; None: as usual here. Raises OptionError.
    """
    import multiprocessing

    import torch
    from torch.utils.data import DataLoader

    for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0)):
        if whole(name, value) < least:
            raise OptionError(f"{name} is {value}; it must be at least {least}")
    if not 0 <= whole("seed", seed) < 2**63:
        raise OptionError(f"seed is {seed}; it must be at least 0 and below 2**63")
    known = multiprocessing.get_all_start_methods()
    if start_method is not None and start_method not in known:
        raise OptionError(f"start_method is {start_method!r}; here there are: {', '.join(known)}")
    return DataLoader(
        rows,
        batch_size,
        shuffle=shuffle,
        generator=torch.Generator().manual_seed(seed),
        num_workers=workers,
        multiprocessing_context=start_method if workers else None,
        drop_last=drop_last,
    )


def _labels(samples: Samples) -> np.ndarray:
    """Return int64 (N,): -1 where labels are withheld. Raises LineageError if only to look at."""
    purpose = getattr(samples, "purpose", None)
    if purpose == "inspection":
        raise LineageError(
            "these samples are only to look at; take those of Snapshot.training, validation or test"
        )
    return np.full(len(samples), WITHHELD) if purpose == "test" else samples.labels


class _Rows:
    """What a Dataset needs, without torch: picklable, and read a batch at once."""

    def __init__(
        self,
        samples: Samples,
        labels: np.ndarray,
        classes: tuple[str, ...],
        transform: Transform | None,
    ):
        self.samples = samples
        self.labels = labels
        self.classes = classes
        self.transform = transform

    def __reduce__(self) -> tuple[Any, ...]:
        return _torch_dataset, (self.samples, self.labels, self.classes, self.transform)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return one image and its label; a negative index counts from the end."""
        found = operator.index(index)
        if not -len(self) <= found < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self.__getitems__([found % len(self)])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, int]]:
        """Return a batch, read at once; a DataLoader asks for it so."""
        import torch

        rows = np.asarray(indices, np.int64)
        images = torch.from_numpy(self.samples.gather(rows))
        images = images.permute(0, 3, 1, 2).contiguous()  # (n, C, H, W)
        transform = self.transform or _same
        labels = self.labels[rows].tolist()
        return [(transform(image), label) for image, label in zip(images, labels, strict=True)]


def _same(image: Tensor) -> Tensor:
    return image


def _torch_dataset(
    samples: Samples, labels: np.ndarray, classes: tuple[str, ...], transform: Transform | None
) -> Dataset:
    return _kind()(samples, labels, classes, transform)


@cache
def _kind() -> type:
    """Return `_Rows` as a torch Dataset; made when first used, since torch is not yet imported."""
    from torch.utils.data import Dataset

    class StoreDataset(_Rows, Dataset):
        """Rows of a store."""

    return StoreDataset
