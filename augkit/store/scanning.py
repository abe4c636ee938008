"""One pass over a file: the SHA-256 of its bytes, and the checksum of every image in it."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_BLOCK = 2**20
"""Bytes read at once: both sums are taken while they are in the processor's cache."""


@dataclass(frozen=True)
class Rows:
    """Rows of one length that lie in a file."""

    offsets: np.ndarray
    """int64 (N,), bytes."""
    size: int
    """Bytes of a row."""
    crc32: np.ndarray
    """uint32 (N,), as they were committed."""


def scan(path: Path, tables: Sequence[Rows], start: int = 0) -> tuple[str, list[np.ndarray]]:
    """Return the SHA-256 of a file from byte `start` on, and for each table what may be damaged.

    That is int64 (n,), rows whose bytes have another checksum; also a row that shares bytes with
    another, which nobody wrote. Memory does not grow with the file. Raises OSError.
    """
    total, walk = hashlib.sha256(), _Walk(tables)
    buffer = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while n := file.readinto(buffer):
            total.update(buffer[:n])
            walk.take(buffer[:n], start)
            start += n
    return total.hexdigest(), walk.end()


class _Walk:
    """Follows the rows through the file, in the order in which they lie."""

    def __init__(self, tables: Sequence[Rows]):
        sizes = [np.full(len(t.offsets), t.size) for t in tables]
        owners = [np.full(len(t.offsets), i) for i, t in enumerate(tables)]
        self._first = _joined([t.offsets for t in tables])
        self._order = np.argsort(self._first, kind="stable")
        self._first = self._first[self._order]
        self._last = self._first + _joined(sizes)[self._order]
        self._wanted = _joined([t.crc32 for t in tables])[self._order]
        self._owner = _joined(owners)[self._order]
        self._begins = np.cumsum([0, *(len(t.offsets) for t in tables)])
        self._same = np.zeros(len(self._first), bool)
        self._at, self._sum = 0, 0

    def take(self, block: memoryview, start: int) -> None:
        """Go on with the bytes of the file from `start` on."""
        end = start + len(block)
        until = int(np.searchsorted(self._first, end))
        rows = slice(self._at, until)
        places = zip(self._first[rows].tolist(), self._last[rows].tolist(), strict=True)
        for row, (first, last) in enumerate(places, self._at):
            piece = block[max(first - start, 0) : last - start]
            self._sum = zlib.crc32(piece, self._sum)
            if last > end:
                return
            self._same[row] = self._sum == self._wanted[row]
            self._at, self._sum = row + 1, 0

    def end(self) -> list[np.ndarray]:
        """Return for each table the rows that are not as they were committed, ascending."""
        shared = np.flatnonzero(self._first[1:] < self._last[:-1]) + 1
        self._same[shared] = False
        wrong = self._order[~self._same]
        owner = self._owner[~self._same]
        return [np.sort(wrong[owner == i] - self._begins[i]) for i in range(len(self._begins) - 1)]


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([a.astype(np.int64) for a in arrays] or [np.zeros(0, np.int64)])
