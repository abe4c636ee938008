"""Shards: HDF5 files of rows, written once and never changed, readable with plain h5py.

images  uint8 (N, H, W, C)              uncompressed, in one piece or in a chunk an image
labels  int64 (N,)                      indices into the attribute `classes`
crc32   uint32 (N,)                     checksum of each image
masks   uint8 (N, H, ceil(W / 8))       optional, one bit a pixel: numpy.unpackbits(..., axis=-1)
masked  bool (N,)                       which rows have a mask
real rows:     key, source_sha256, source_size, colour, patient
derived rows:  parent, params
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from augkit.errors import DamagedStore, StoreError
from augkit.interfaces import Shape
from augkit.interruption import interrupts_held
from augkit.store import durable
from augkit.store.direct import Places, direct_places, new_run
from augkit.store.scanning import Rows

SPARE = 2**18
"""Bytes claimed for what HDF5 keeps besides the columns."""


class ShardWriter:
    """Writes one shard in a staged file, block by block; memory does not grow with the images.

    expected: how many rows will come, if that is known. Then the images lie in one piece, which is
    written and read faster than a chunk for each.
    """

    def __init__(
        self,
        path: Path,
        shape: Shape,
        attributes: dict[str, Any],
        *,
        masks: bool,
        expected: int | None = None,
    ):
        self.path = path
        self.rows = 0
        self._shape = shape
        self._expected = expected
        size = math.prod(shape) * (expected or 0)
        with durable.writing(path.parent):
            self._file = new_h5(path, size)
        self._claimed = size + SPARE
        self._checks: list[int] = []
        self._masked: list[np.ndarray] = []
        try:
            self._begin(attributes, masks)
        except BaseException:
            self.discard()
            raise

    def _begin(self, attributes: dict[str, Any], masks: bool) -> None:
        """Write what comes before the rows."""
        shape, expected = self._shape, self._expected
        self._run = new_run(self._file, "images", (expected, *shape)) if expected else None
        self._images = self._dataset("images", shape) if self._run is None else None
        self._masks = self._dataset("masks", _packed_shape(shape)) if masks else None
        for name, value in attributes.items():
            self._file.attrs[name] = value if isinstance(value, (str, int)) else json.dumps(value)

    def _dataset(self, name: str, row: tuple[int, ...]) -> h5py.Dataset:
        return self._file.create_dataset(
            name, (0, *row), np.uint8, maxshape=(None, *row), chunks=(1, *row), track_times=False
        )

    def append(
        self,
        images: np.ndarray,
        masks: np.ndarray | None = None,
        masked: np.ndarray | None = None,
    ) -> None:
        """Add rows. images: uint8 (n, H, W, C). masks: uint8 (n, H, W); masked: bool (n,)."""
        images = np.ascontiguousarray(images)
        start, self.rows = self.rows, self.rows + len(images)
        self._checks.extend(zlib.crc32(image.data) for image in images)
        self._put(images, start)
        if self._masks is not None:
            packed = _pack_masks(masks, len(images), self._shape)
            self._claim(2 * packed.nbytes)
            with interrupts_held():
                _append(self._masks, packed, start)
            everything = np.full(len(images), masks is not None)
            self._masked.append(everything if masked is None else masked)

    def _put(self, images: np.ndarray, start: int) -> None:
        if self._run is not None:
            with durable.writing(self.path.parent):
                self._run.write(images, start)
        else:
            self._claim(2 * images.nbytes)
            with interrupts_held():
                _append(self._images, images, start)

    def finish(self, columns: dict[str, np.ndarray]) -> dict[str, Any]:
        """Write the columns, close, flush to the disk; return what the log keeps of the shard."""
        assert self._expected in (None, self.rows), "as many rows as were announced"
        columns = {**columns, "crc32": np.array(self._checks, np.uint32)}
        if self._masks is not None:
            columns["masked"] = np.concatenate(self._masked) if self._masked else np.zeros(0, bool)
        storable = {name: _storable(values) for name, values in columns.items()}
        self._claim(sum(values.nbytes + 4096 for values in storable.values()))
        with interrupts_held():
            for name, values in storable.items():
                self._file.create_dataset(name, data=values, track_times=False)
            content = content_of(self._file)
            self._file.close()
        with durable.writing(self.path.parent):
            h5py.File(self.path, "r+", locking=False).close()  # cuts off what was only claimed
            return {
                "rows": self.rows,
                "bytes": self.path.stat().st_size,
                "sha256": flushed_sha256(self.path),
                "content": content,
            }

    def _claim(self, n_bytes: int) -> None:
        """Claim disk space for so many bytes more."""
        wanted = self._file.id.get_filesize() + n_bytes + SPARE
        if wanted > self._claimed:
            with durable.writing(self.path.parent):
                durable.claim(self.path, wanted)
            self._claimed = wanted

    def discard(self) -> None:
        """Close and delete the staged file, if it is still there."""
        with interrupts_held():
            self._file.close()
            with contextlib.suppress(OSError):  # a disk that refuses this, refused that
                self.path.unlink()


def new_h5(path: Path, size: int, *, userblock_size: int = 0) -> h5py.File:
    """Create an HDF5 file with disk space for `size` bytes and some spare, open for writing."""
    path.touch(exist_ok=False)
    try:
        durable.claim(path, size + SPARE)  # before HDF5 begins, which lets go of it
        h5py.File(path, "w", userblock_size=userblock_size, locking=False).close()
        durable.claim(path, size + SPARE)
        return h5py.File(path, "r+", locking=False)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def flushed_sha256(path: Path) -> str:
    """Flush a closed file to the disk and return the SHA-256 of its bytes."""
    with path.open("r+b") as file, ThreadPoolExecutor(1) as beside:
        digest = beside.submit(hashlib.file_digest, file, "sha256")  # while the disk is at work
        os.fsync(file.fileno())
        return digest.result().hexdigest()


def content_of(group: h5py.Group) -> str:
    """Return a SHA-256 of all columns, in which each image stands for itself by its checksum.

    It is the same for a shard in a file of its own and in a packed store, whatever version of
    HDF5 laid out the bytes.
    """
    total = hashlib.sha256()
    for name in sorted(group):
        if name == "images":
            continue
        dataset = group[name]
        total.update(f"{name} {dataset.dtype.str} {dataset.dtype.descr} {dataset.shape}".encode())
        for start in range(0, len(dataset), 4096):
            total.update(np.ascontiguousarray(dataset[start : start + 4096]).tobytes())
    for name in sorted(group.attrs):
        total.update(f"{name} {group.attrs[name]!s}".encode())
    return total.hexdigest()


def _append(dataset: h5py.Dataset, rows: np.ndarray, start: int) -> None:
    """Add chunks of one row each, past HDF5's own copying."""
    dataset.resize(start + len(rows), axis=0)
    rest = (0,) * (rows.ndim - 1)
    for i, row in enumerate(rows):
        dataset.id.write_direct_chunk((start + i, *rest), row)


def _packed_shape(shape: Shape) -> tuple[int, int]:
    return shape[0], (shape[1] + 7) // 8


def _pack_masks(masks: np.ndarray | None, n: int, shape: Shape) -> np.ndarray:
    if masks is None:
        return np.zeros((n, *_packed_shape(shape)), np.uint8)
    return np.packbits(masks > 127, axis=-1)


def _storable(values: np.ndarray) -> np.ndarray:
    """Return text as fixed-length UTF-8, which needs no variable-length heap; the rest as is."""
    if values.dtype.kind != "U":
        return values
    encoded = [str(v).encode("utf-8") for v in values]
    width = max([1, *map(len, encoded)])
    return np.array(encoded, h5py.string_dtype("utf-8", width))


class Shard:
    """A shard opened for reading. Every image is checked against its checksum when first read."""

    def __init__(self, group: h5py.Group, name: str, rows: int, shape: Shape):
        self.name = name
        self.shape = shape
        self._group = group
        self._rows = rows
        self._images = self._plain("images", (rows, *shape), np.uint8)
        self._crc32 = self.column("crc32")
        self._checked = np.zeros(rows, bool)

    @cached_property
    def handle(self) -> int:
        """Return the handle of the open file."""
        return int(self._group.file.id.get_vfd_handle())

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Return uint8 (n, H, W, C), in the order asked. Raises DamagedStore on a flipped bit."""
        out = np.empty((len(rows), *self.shape), np.uint8)
        if self._places is None:
            self._read(self._images, rows, out)
        else:
            with readable(f"shard {self.name}"):
                self._places.read(rows, out)
        for i in np.flatnonzero(~self._checked[rows]):
            if zlib.crc32(out[i].data) != self._crc32[rows[i]]:
                raise DamagedStore(
                    f"shard {self.name} is damaged at row {rows[i]}: "
                    "augkit verify lists what is affected"
                )
        self._checked[rows] = True
        return out

    @cached_property
    def _places(self) -> Places | None:
        with readable(f"shard {self.name}"):
            return direct_places(self._images)

    def masks(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return masks uint8 (n, H, W) of 0 and 255, and bool (n,): which rows have one."""
        height, width = self.shape[:2]
        if "masks" not in self._group:
            return np.zeros((len(rows), height, width), np.uint8), np.zeros(len(rows), bool)
        packed = np.empty((len(rows), *_packed_shape(self.shape)), np.uint8)
        self._read(self._plain("masks", (self._rows, *packed.shape[1:]), np.uint8), rows, packed)
        bits = np.unpackbits(packed, axis=-1, count=width)
        return bits * np.uint8(255), self.column("masked")[rows]

    def column(self, name: str) -> np.ndarray:
        """Return a whole column: numbers, or text as an array of str."""
        dataset = self._plain(name, (self._rows,), None)
        with readable(f"shard {self.name}"):
            if dataset.dtype.kind == "S":
                return np.array([v.decode("utf-8") for v in dataset[:]], object).astype(str)
            return dataset[:]

    def has(self, name: str) -> bool:
        """Return True if the shard has this column."""
        return name in self._group

    def attribute(self, name: str) -> str:
        """Return what the shard says of itself under this name, as text; empty: nothing."""
        with readable(f"shard {self.name}"):
            return str(self._group.attrs.get(name, ""))

    def content(self) -> str:
        """Return the SHA-256 of all columns as they are now; see `content_of`."""
        with readable(f"shard {self.name}"):
            return content_of(self._group)

    def lying(self) -> Rows | None:
        """Return where the images lie in their file; None where HDF5 has to look for them."""
        places = self._places
        return None if places is None else Rows(places.offsets, places.size, self._crc32)

    def damaged_rows(self, rows: np.ndarray | None = None) -> list[int]:
        """Return the rows, of all or of these, whose image is not the one committed."""
        bad = []
        for row in range(self._rows) if rows is None else rows.tolist():
            try:
                self.images(np.array([row]))
            except DamagedStore:
                bad.append(row)
        return bad

    def _read(self, dataset: h5py.Dataset, rows: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` by runs of neighbouring rows: HDF5's fancy indexing is far slower."""
        if not len(rows):
            return
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        starts = [0, *ends.tolist()]
        with readable(f"shard {self.name}"):
            for a, b in zip(starts, [*ends.tolist(), len(rows)], strict=True):
                first = int(rows[a])
                dataset.read_direct(out, np.s_[first : first + b - a], np.s_[a:b])

    def _plain(self, name: str, shape: tuple[int, ...], dtype: type | None) -> h5py.Dataset:
        """Return a dataset that is just what it should be, and lies in this very file."""
        with readable(f"shard {self.name}"):
            link = self._group.get(name, getlink=True)
            found = self._group[name] if isinstance(link, h5py.HardLink) else None
            if (
                not isinstance(found, h5py.Dataset)
                or found.is_virtual
                or found.external
                or found.shape[: len(shape)] != shape
                or (dtype is not None and found.dtype != dtype)
                or found.dtype.hasobject
            ):
                raise DamagedStore(f"shard {self.name} has no usable column {name!r}")
            return found


_ANYTHING = (
    *(OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError),
    *(AttributeError, MemoryError, NotImplementedError),
)
"""What h5py raises over damaged files: a flipped bit makes any type or size of any other."""


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Turn what h5py raises on broken files into a named error."""
    try:
        with interrupts_held():
            yield
    except _ANYTHING as error:
        raise DamagedStore(f"{what} cannot be read: {error}") from error


class ShardPool:
    """Keeps a bounded number of shards open; safe between threads and after a fork."""

    def __init__(
        self,
        open_group: Callable[[str], h5py.Group],
        shape: Shape,
        limit: int = 32,
        is_gone: Callable[[int], bool] = lambda handle: False,
    ):
        self._open_group = open_group
        self._is_gone = is_gone
        self._shape = shape
        self._limit = limit
        self._open: OrderedDict[str, Shard] = OrderedDict()
        self._intact: set[str] = set()
        self._lock = threading.RLock()
        self._owner = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardPool, (self._open_group, self._shape, self._limit, self._is_gone)

    @contextmanager
    def shard(self, name: str, rows: int) -> Iterator[Shard]:
        """Lend an open shard; it stays open at least until it is given back."""
        if self._owner != os.getpid():  # handles of the parent process are not ours
            self._open, self._lock, self._owner = OrderedDict(), threading.RLock(), os.getpid()
        with self._lock:
            if name not in self._open:
                with readable(f"shard {name}"):
                    self._open[name] = Shard(self._open_group(name), name, rows, self._shape)
            self._require_there(name)
            self._open.move_to_end(name)
            while len(self._open) > self._limit:
                self._open.popitem(last=False)[1]._group.file.close()
            yield self._open[name]

    def _require_there(self, name: str) -> None:
        """Raise StoreError if a file that is still open was purged."""
        with readable(f"shard {name}"):
            gone = self._is_gone(self._open[name].handle)
        if gone:
            self._open.pop(name)._group.file.close()
            raise StoreError(
                f"shard {name} was purged since it was opened: run this command again (in Python: "
                "open the store again)"
            )

    def require_intact(self, name: str, rows: int, content: str) -> None:
        """Raise DamagedStore unless the columns of a shard are those that were committed.

        They are read once; images are checked one by one, when they are first read.
        """
        if name in self._intact:
            return
        with self.shard(name, rows) as shard:
            if shard.content() != content:
                raise DamagedStore(
                    f"shard {name} is damaged: its columns are not those that were committed; "
                    "augkit verify lists what is affected"
                )
        self._intact.add(name)

    def close(self) -> None:
        """Close every shard."""
        with self._lock:
            while self._open:
                self._open.popitem()[1]._group.file.close()
