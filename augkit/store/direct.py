"""Reading and writing rows past HDF5: each is a place in the file.

They lie one after another, or each in an uncompressed chunk of its own. HDF5 takes several times as
long to find a chunk as the system takes to read it. Nothing is mapped into memory: a file that
someone cuts short gives an error, not a signal that ends the process.
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


@dataclass(frozen=True)
class Run:
    """Where the rows of a data set go that lies in one piece and is being written."""

    handle: int
    """Of the open file; it belongs to HDF5."""
    offset: int
    """Of the first row, in bytes."""
    size: int
    """Bytes of a row."""

    def write(self, rows: np.ndarray, start: int) -> None:
        """Write rows from the one with the number `start` on. Raises OSError."""
        left, place = rows.reshape(-1).view(np.uint8).data, self.offset + start * self.size
        while len(left):
            done = os.pwrite(self.handle, left, place)
            left, place = left[done:], place + done


def new_run(file: h5py.File, name: str, shape: tuple[int, ...]) -> Run | None:
    """Add a data set uint8 that has its place in a file at once; None where that cannot be.

    What its rows hold is undefined until they are written.
    """
    if not hasattr(os, "pwrite") or file.driver != "sec2":
        return None
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    how.set_obj_track_times(False)
    space = h5py.h5s.create_simple(shape)
    made = h5py.h5d.create(file.id, name.encode(), h5py.h5t.STD_U8LE, space, how)
    return Run(file.id.get_vfd_handle(), made.get_offset(), int(np.prod(shape[1:], dtype=np.int64)))


def direct_places(dataset: h5py.Dataset) -> Places | None:
    """Return where the rows lie; None where they have to be read through HDF5."""
    if not (hasattr(os, "preadv") and len(dataset) and dataset.file.driver == "sec2"):
        return None
    offsets = _offsets(dataset)
    if offsets is None:
        return None
    # Versions of HDF5 differ in whether an offset counts what stands before the superblock.
    for base in dict.fromkeys((0, dataset.file.userblock_size)):
        places = Places(dataset.file.id.get_vfd_handle(), offsets + base, _row_bytes(dataset))
        if places.agrees(dataset):
            return places
    return None


def _row_bytes(dataset: h5py.Dataset) -> int:
    return int(np.prod(dataset.shape[1:], dtype=np.int64)) * dataset.dtype.itemsize


def _offsets(dataset: h5py.Dataset) -> np.ndarray | None:
    """Return int64 (N,), where HDF5 says that each row begins; None if it is not so simple."""
    how, size = dataset.id.get_create_plist(), _row_bytes(dataset)
    if how.get_layout() == h5py.h5d.CONTIGUOUS and not how.get_external_count():
        first = dataset.id.get_offset()
        return None if first is None else first + size * np.arange(len(dataset))
    if how.get_nfilters() or dataset.chunks != (1, *dataset.shape[1:]):
        return None
    if not hasattr(dataset.id, "chunk_iter"):
        return None
    offsets = np.full(len(dataset), -1, np.int64)

    def note(chunk: h5py.h5d.StoreInfo) -> None:
        row = chunk.chunk_offset[0]
        if chunk.size == size and chunk.byte_offset is not None and row < len(offsets):
            offsets[row] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    return None if (offsets < 0).any() else offsets
