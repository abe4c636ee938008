"""Rows of a store as Samples: read block by block, each for one purpose only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from augkit.errors import LineageError
from augkit.interfaces import Samples, Shape
from augkit.store.shards import Shard, ShardPool

Purpose = Literal["training", "validation", "test", "inspection"]


@dataclass(frozen=True)
class ShardName:
    """How a snapshot names a shard: its file, its size, and the digest of what it holds."""

    name: str
    rows: int
    content: str
    number: int
    """The commit that brought it."""


@dataclass(frozen=True)
class Rows:
    """Rows of several shards, in order."""

    shards: tuple[ShardName, ...]
    shard: np.ndarray
    """int64 (N,), index into `shards`."""
    row: np.ndarray
    """int64 (N,), row within the shard."""
    labels: np.ndarray
    """int64 (N,)."""

    def take(self, chosen: np.ndarray) -> Rows:
        """Return the chosen rows: indices or a boolean mask."""
        return Rows(self.shards, self.shard[chosen], self.row[chosen], self.labels[chosen])

    @staticmethod
    def join(pieces: Sequence[Rows]) -> Rows:
        """Return all pieces, one after another."""
        shards: tuple[ShardName, ...] = ()
        indices = []
        for piece in pieces:
            indices.append(piece.shard + len(shards))
            shards += piece.shards
        if not pieces:
            none = np.zeros(0, np.int64)
            return Rows((), none, none, none)
        return Rows(
            shards,
            np.concatenate(indices),
            np.concatenate([p.row for p in pieces]),
            np.concatenate([p.labels for p in pieces]),
        )


class StoredSamples(Samples):
    """Rows of a store for one purpose; the labels of test samples are not given away."""

    def __init__(self, pool: ShardPool, shape: Shape, rows: Rows, purpose: Purpose):
        self.shape = shape
        self.purpose = purpose
        self._pool = pool
        self._rows = rows
        self.digest = self._digest()

    def _digest(self) -> str:
        used, index = np.unique(self._rows.shard, return_inverse=True)
        total = hashlib.sha256()
        for number in used.tolist():  # a shard without any of these rows does not count
            total.update(self._rows.shards[number].content.encode())
        total.update(index.astype(np.int64).tobytes() + self._rows.row.tobytes())
        return total.hexdigest()

    @property
    def ids(self) -> np.ndarray:
        """Return int64 (N,): the number of the commit times 2**32, plus the row in its shard."""
        numbers = np.array([s.number for s in self._rows.shards], np.int64)
        if not len(numbers):
            return np.zeros(0, np.int64)
        return (numbers[self._rows.shard] << 32) + self._rows.row

    @property
    def labels(self) -> np.ndarray:
        """Return int64 (N,), a new array. Raises LineageError on test samples."""
        if self.purpose == "test":
            raise LineageError("the labels of test images are not given to plugins")
        return self._rows.labels.copy()

    def __len__(self) -> int:
        return len(self._rows.row)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return the images of a slice: uint8 (n, H, W, C)."""
        return self.gather(np.arange(len(self))[rows])

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Return the images of some rows, in the order asked: uint8 (n, H, W, C)."""
        chosen = self._rows.take(rows)
        out = np.empty((len(chosen.row), *self.shape), np.uint8)
        for shard, here in self._opened(chosen):
            if here.all():
                return shard.images(chosen.row)
            out[here] = shard.images(chosen.row[here])
        return out

    def checksums(self) -> np.ndarray:
        """Return uint32 (N,): the CRC-32 of the pixels of each image, as it was committed."""
        out = np.empty(len(self), np.uint32)
        for shard, here in self._opened(self._rows):
            out[here] = shard.column("crc32")[self._rows.row[here]]
        return out

    def _opened(self, chosen: Rows) -> Iterator[tuple[Shard, np.ndarray]]:
        """Yield each shard that the rows lie in, open, and bool (n,): which of them it holds."""
        for index in np.unique(chosen.shard):
            named = chosen.shards[index]
            with self._pool.shard(named.name, named.rows) as shard:
                yield shard, chosen.shard == index

    def masks(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return uint8 (n, H, W) of 0 and 255, and bool (n,): which images have a mask."""
        chosen = self._rows.take(np.arange(len(self))[rows])
        out = np.zeros((len(chosen.row), *self.shape[:2]), np.uint8)
        masked = np.zeros(len(chosen.row), bool)
        for index in np.unique(chosen.shard):  # masks have no checksum each, as images have
            named = chosen.shards[index]
            self._pool.require_intact(named.name, named.rows, named.content)
        for shard, here in self._opened(chosen):
            out[here], masked[here] = shard.masks(chosen.row[here])
        return out, masked

    def take(self, chosen: np.ndarray) -> StoredSamples:
        """Return some of these rows, for the same purpose."""
        return StoredSamples(self._pool, self.shape, self._rows.take(chosen), self.purpose)


class JoinedSamples(Samples):
    """Several Samples one after another."""

    def __init__(self, pieces: Sequence[Samples]):
        self.pieces = tuple(pieces)
        trainable = all(getattr(p, "purpose", None) == "training" for p in pieces)
        self.purpose: Purpose = "training" if trainable else "inspection"
        self.shape = pieces[0].shape
        self.digest = hashlib.sha256("".join(p.digest for p in pieces).encode()).hexdigest()
        self._ends = np.cumsum([len(p) for p in pieces]).tolist()

    @property
    def ids(self) -> np.ndarray:
        """Return int64 (N,)."""
        return np.concatenate([p.ids for p in self.pieces])

    @property
    def labels(self) -> np.ndarray:
        """Return int64 (N,)."""
        return np.concatenate([p.labels for p in self.pieces])

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return the images of a slice: uint8 (n, H, W, C)."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            chosen = [self[i : i + 1] for i in range(start, stop, step)]
            return np.concatenate(chosen) if chosen else self.pieces[0][0:0]
        begin, found = 0, []
        for piece, end in zip(self.pieces, self._ends, strict=True):
            a, b = max(start, begin), min(stop, end)
            if a < b:
                found.append(piece[a - begin : b - begin])
            begin = end
        return np.concatenate(found) if found else self.pieces[0][0:0]

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Return the images of some rows, in the order asked: uint8 (n, H, W, C)."""
        out = np.empty((len(rows), *self.shape), np.uint8)
        piece_of = np.searchsorted(self._ends, rows, side="right")
        for index in np.unique(piece_of).tolist():
            here = piece_of == index
            if here.all():
                return self.pieces[index].gather(rows - (self._ends[index - 1] if index else 0))
            begin = self._ends[index - 1] if index else 0
            out[here] = self.pieces[index].gather(rows[here] - begin)
        return out
