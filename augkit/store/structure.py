"""The child process that examines HDF5 files of unknown origin: a script that imports only h5py.

It gets a line of JSON for each file, `{"kind": "shard" or "packed", "path": ...}`, and answers with
one, `{"fault": null or why not, "identity": [...]}`. It walks through the structure and reads all
columns but the images, so that whatever HDF5 is asked to do with the file later has been done here
before. A file that makes HDF5 crash, hang or fill the memory ends this process, and nothing else.

Nothing here trusts the file: a property of a link or a data set is looked at before it is followed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import stat
import sys
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5g, h5l, h5o, h5p, h5s, h5t

MEMORY = 512 * 2**20
"""Bytes of address space: h5py itself takes a fifth of it."""
SECONDS = 1.5
"""Processor seconds a file, and one more for each `PACE` bytes that it holds on the disk."""
PACE = 400e6
CHUNK_SECONDS = 50e-6
"""More of them for each chunk: looking at one takes 12 microseconds."""
LARGEST_CHUNK = 2**26
"""Bytes that HDF5 reads at once: an image of 4096x4096 pixels in three colours fits."""
SMALLEST_CHUNK = 64
"""An image of 8x8 pixels; so a file cannot ask for much time by many chunks."""
LONGEST_TEXT = 2**24
WIDEST_CELL = 2**14
MOST_COLUMNS = 64
LARGEST_ENTRY = 2**25
"""Bytes of a log entry."""

_COLUMN = re.compile(rb"[a-z][a-z0-9_]{0,63}")
_ENTRY = re.compile(rb"\d{10}")
_SHARD = re.compile(rb"[0-9a-f]{32}")
_MODEL = re.compile(rb"[0-9a-f]{64}")
_FILE = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,250}\.(safetensors|json)")
_HARD = h5l.TYPE_HARD
_LINKS = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "a link to another file"}
_BLOCK = 2**20


class Fault(Exception):
    """What makes a file unusable, in words."""


def identity(about: os.stat_result) -> list[int]:
    """Return what changes whenever a file, or what lies at its path, does."""
    names = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
    return [getattr(about, name) for name in names]


def check_file(path: str, kind: str) -> list[int]:
    """Return the identity of a file that is safe to read. Raises Fault."""
    before = os.lstat(path)
    _check_place(before)
    _limit_time(SECONDS + 512 * before.st_blocks / PACE)
    try:
        with h5py.File(path, "r", locking=False) as file:
            _Structure(file, before.st_size).check(kind)
    except Fault:
        raise
    except MemoryError:
        raise Fault("takes too much memory to look at") from None
    except Exception as error:  # h5py raises almost anything over damaged files
        raise Fault(f"is no HDF5 file that can be read ({_one_line(error)})") from error
    finally:
        _limit_time(0)
    if identity(os.lstat(path)) != identity(before):
        raise Fault("changed while it was looked at")
    return identity(before)


def _check_place(about: os.stat_result) -> None:
    """Raise Fault for what is no plain file, or claims far more bytes than it holds."""
    if not stat.S_ISREG(about.st_mode):
        raise Fault("is no regular file, but a link, a pipe or a device")
    held = 512 * about.st_blocks  # 0 where the file system does not tell
    if about.st_size > 2**26 and 0 < held < about.st_size / 100:
        raise Fault(f"claims {about.st_size} bytes and holds {held}")


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


class _Structure:
    """One open file, and how many of its bytes are accounted for."""

    def __init__(self, file: h5py.File, size: int):
        self._file = file
        self._size = size
        self._held = 0

    def check(self, kind: str) -> None:
        """Raise Fault unless this is a shard, or a packed store."""
        root = h5g.open(self._file.id, b"/")
        if kind == "shard":
            self._check_shard(root)
            return
        self._check_attributes(root)
        parts: dict[bytes, Callable[[h5g.GroupID], None]] = {
            b"log": self._check_log,
            b"shards": self._check_shards,
            b"models": self._check_models,
        }
        for name in _names(root, re.compile(rb"log|shards|models"), len(parts)):
            parts[name](_group(root, name))

    def _check_log(self, group: h5g.GroupID) -> None:
        for name in _names(group, _ENTRY, self._size):
            self._check_bytes(group, name, LARGEST_ENTRY)

    def _check_shards(self, group: h5g.GroupID) -> None:
        for name in _names(group, _SHARD, self._size):
            self._check_shard(_group(group, name))

    def _check_models(self, group: h5g.GroupID) -> None:
        for model in _names(group, _MODEL, self._size):
            files = _group(group, model)
            for name in _names(files, _FILE, MOST_COLUMNS):
                self._check_bytes(files, name, self._size)

    def _check_shard(self, group: h5g.GroupID) -> None:
        """A shard is data sets side by side, with attributes of its own."""
        self._check_attributes(group)
        for name in _names(group, _COLUMN, MOST_COLUMNS):
            dataset = self._dataset(group, name)
            if name not in (b"images", b"masks"):
                _read(dataset)

    def _check_bytes(self, group: h5g.GroupID, name: bytes, most: int) -> None:
        dataset = self._dataset(group, name)
        if dataset.rank != 1 or dataset.dtype != np.uint8 or dataset.shape[0] > most:
            raise Fault(f"holds {_shown(name)}, which is no plain bytes")
        _read(dataset)

    def _dataset(self, group: h5g.GroupID, name: bytes) -> h5d.DatasetID:
        """Return a data set whose values lie in this file, with no more bytes than it has."""
        where = f"data set {_shown(name)}"
        if h5o.get_info(group, name).type != h5o.TYPE_DATASET:
            raise Fault(f"holds {_shown(name)}, which is no data set")
        dataset = h5d.open(group, name)
        plan = dataset.get_create_plist()
        _check_layout(plan, where)
        row = _check_type(dataset.get_type(), where)
        space = dataset.get_space()
        if space.get_simple_extent_type() != h5s.SIMPLE or not 1 <= dataset.rank <= 4:
            raise Fault(f"{where} is no table of rows")
        claimed = row
        for side in dataset.shape:
            claimed *= int(side)
        held = dataset.get_storage_size()
        self._held += held
        if claimed != held or self._held > self._size:
            raise Fault(f"{where} claims {claimed} bytes and holds {held}")
        if plan.get_layout() == h5d.CHUNKED:
            self._check_chunks(dataset, plan, row, where)
        if h5py.h5a.get_num_attrs(dataset):
            raise Fault(f"{where} has attributes")
        return dataset

    def _check_chunks(
        self, dataset: h5d.DatasetID, plan: h5p.PropDCID, row: int, where: str
    ) -> None:
        """Visit every chunk, as reading it later does."""
        size = row
        for side in plan.get_chunk():
            size *= int(side)
        if not SMALLEST_CHUNK <= size <= LARGEST_CHUNK:
            raise Fault(f"{where} has chunks of {size} bytes")
        _allow(dataset.get_storage_size() / size * CHUNK_SECONDS)

        def visit(chunk: h5d.StoreInfo) -> bool | None:
            outside = chunk.byte_offset is None or chunk.byte_offset + chunk.size > self._size
            rows = zip(chunk.chunk_offset, dataset.shape, strict=True)
            nowhere = any(not 0 <= at < side for at, side in rows)
            return True if outside or nowhere or chunk.size != size else None

        if dataset.shape[0] and dataset.chunk_iter(visit):
            raise Fault(f"{where} has rows that lie outside of it, or of the file")

    def _check_attributes(self, group: h5g.GroupID) -> None:
        """An attribute is one text or one number; each is read."""
        if h5py.h5a.get_num_attrs(group) > MOST_COLUMNS:
            raise Fault("has too many attributes")
        attributes = h5py.Group(group).attrs
        for name in attributes:
            if not isinstance(name, str):
                raise Fault(f"has an attribute whose name is no text, {name!r}")
            kind = attributes.get_id(name)
            text = kind.get_type().get_class() == h5t.STRING
            if not text:
                _check_type(kind.get_type(), f"attribute {name!r}")
            if kind.shape != () or (text and len(str(attributes[name])) > LONGEST_TEXT):
                raise Fault(f"attribute {name!r} is no single text or number")


def _names(group: h5g.GroupID, pattern: re.Pattern[bytes], most: int) -> list[bytes]:
    """Return the names in a group, all of them hard links that are called as they should be."""
    found: list[bytes] = []
    wrong: list[str] = []

    def visit(name: bytes, link: h5l.LinkInfo) -> bool | None:
        if link.type != _HARD:
            wrong.append(f"holds {_LINKS.get(link.type, 'a foreign link')}, {_shown(name)}")
        elif not pattern.fullmatch(name) or len(found) >= most:
            wrong.append(f"holds {_shown(name)}, which belongs to no store")
        found.append(name)
        return True if wrong else None

    group.links.iterate(visit, info=True)
    if wrong:
        raise Fault(wrong[0])
    return found


def _group(parent: h5g.GroupID, name: bytes) -> h5g.GroupID:
    if h5o.get_info(parent, name).type != h5o.TYPE_GROUP:
        raise Fault(f"holds {_shown(name)}, which is no group")
    return h5g.open(parent, name)


def _shown(name: bytes) -> str:
    return repr(name.decode("utf-8", "backslashreplace"))[:80]


def _check_layout(plan: h5p.PropDCID, where: str) -> None:
    """Raise Fault for values that lie in other files, or go through a filter."""
    if plan.get_external_count():
        raise Fault(f"{where} keeps its values in other files (external storage)")
    if plan.get_layout() not in (h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED):
        raise Fault(f"{where} takes its values from other data sets (virtual)")
    if plan.get_nfilters():
        raise Fault(f"{where} is compressed or filtered, which augkit never writes")


def _check_type(kind: h5t.TypeID, where: str) -> int:
    """Return the bytes of a value: numbers, truth values and fixed text alone, or records of these.

    Raises Fault for any other type.
    """
    if kind.detect_class(h5t.VLEN) or kind.detect_class(h5t.REFERENCE):
        raise Fault(f"{where} is of variable length, or refers to other objects")
    if kind.get_class() == h5t.STRING and kind.is_variable_str():
        raise Fault(f"{where} is of variable length")
    dtype = kind.dtype
    if dtype.itemsize > WIDEST_CELL or not _is_plain(dtype):
        raise Fault(f"{where} has values of type {str(dtype)[:80]}")
    if not h5t.py_create(dtype, logical=True).equal(kind):
        raise Fault(f"{where} has values of a type that numpy has not")
    return int(kind.get_size())


def _is_plain(dtype: np.dtype) -> bool:
    if dtype.names is not None:
        return all(_is_plain(dtype[name]) for name in dtype.names)
    return dtype.base.kind in "biufcS" if dtype.base.names is None else _is_plain(dtype.base)


def _read(dataset: h5d.DatasetID) -> None:
    """Read everything once, a block at a time."""
    rows, shape = dataset.shape[0], dataset.shape[1:]
    step = max(1, _BLOCK // max(1, dataset.dtype.itemsize * int(np.prod(shape, dtype=np.int64))))
    file_space = dataset.get_space()
    for start in range(0, rows, step):
        block = np.empty((min(step, rows - start), *shape), dataset.dtype)
        file_space.select_hyperslab((start, *(0 for _ in shape)), block.shape)
        dataset.read(h5s.create_simple(block.shape), file_space, block)


def _limit_time(seconds: float) -> None:
    """End this process when it has computed for so many seconds from now; 0: no more."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _allow(seconds: float) -> None:
    """Add some processor seconds to those that are left."""
    if hasattr(signal, "setitimer"):
        left, _ = signal.getitimer(signal.ITIMER_PROF)
        signal.setitimer(signal.ITIMER_PROF, left + seconds)


def _confine() -> None:
    """Limit memory; forbid to write to any file."""
    try:
        import resource
    except ImportError:  # not on Windows: only the clock of the parent counts there
        return
    limits = (("RLIMIT_AS", MEMORY), ("RLIMIT_FSIZE", 0), ("RLIMIT_CORE", 0))
    for name, most in limits:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(getattr(resource, name), (most, most))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides


def serve() -> None:
    """Answer until stdin ends: the whole life of the child."""
    _confine()
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        answer: dict[str, Any] = {"fault": None, "identity": None}
        try:
            answer["identity"] = check_file(asked["path"], asked["kind"])
        except (Fault, OSError) as error:
            answer["fault"] = str(error)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
