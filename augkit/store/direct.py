"""Reading rows past HDF5: each is one uncompressed chunk, which is a place in the file.

HDF5 takes several times as long to find a chunk as the system takes to read it. Nothing is mapped
into memory: a file that someone cuts short gives an error, not a signal that ends the process.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import h5py
import numpy as np


@dataclass(frozen=True)
class Places:
    """Where each row of a data set lies in its file."""

    handle: int
    """Of the open file; it belongs to HDF5."""
    offsets: np.ndarray
    """int64 (N,), bytes."""
    size: int
    """Bytes of a row."""

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Fill `out`, which is without gaps, with these rows in the order asked.

        Raises OSError where the file ends before a row does, IndexError for a row that is not.
        """
        if not len(rows):
            return
        into, size = out.reshape(-1).view(np.uint8).data, self.size
        offsets = self.offsets[rows]
        # Neighbours in the file are read at once.
        starts = np.flatnonzero(np.diff(offsets, prepend=-size - 1) != size)
        ends = [*starts[1:].tolist(), len(rows)]
        places = offsets[starts].tolist()
        for first, end, place in zip(starts.tolist(), ends, places, strict=True):
            self._fill(into[first * size : end * size], place)

    def agrees(self, dataset: h5py.Dataset) -> bool:
        """Return True if the first and the last row are what HDF5 reads there."""
        ends = np.array([0, len(dataset) - 1])
        out = np.empty((2, *dataset.shape[1:]), dataset.dtype)
        try:
            self.read(ends, out)
        except OSError:
            return False
        return all(np.array_equal(out[k], dataset[row]) for k, row in enumerate(ends.tolist()))

    def _fill(self, into: memoryview, place: int) -> None:
        done = os.preadv(self.handle, [into], place)
        while done < len(into):  # rare: the system may give less than was asked
            more = os.preadv(self.handle, [into[done:]], place + done)
            if not more:
                raise OSError("the file is shorter than its rows")
            done += more


def direct_places(dataset: h5py.Dataset) -> Places | None:
    """Return where the rows lie; None where they have to be read through HDF5."""
    size = int(np.prod(dataset.shape[1:], dtype=np.int64)) * dataset.dtype.itemsize
    plain = dataset.id.get_create_plist().get_nfilters() == 0
    if not (hasattr(os, "preadv") and plain and dataset.chunks == (1, *dataset.shape[1:])):
        return None
    if not len(dataset) or dataset.file.driver != "sec2" or not hasattr(dataset.id, "chunk_iter"):
        return None
    offsets = np.full(len(dataset), -1, np.int64)

    def note(chunk: h5py.h5d.StoreInfo) -> None:
        if chunk.size == size and chunk.byte_offset is not None:
            offsets[chunk.chunk_offset[0]] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    if (offsets < 0).any():
        return None
    # Versions of HDF5 differ in whether an offset counts what stands before the superblock.
    for base in dict.fromkeys((0, dataset.file.userblock_size)):
        places = Places(dataset.file.id.get_vfd_handle(), offsets + base, size)
        if places.agrees(dataset):
            return places
    return None
