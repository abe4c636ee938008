"""Features of images, computed once for each image and kept in the store's cache folder.

An evaluation asks for the features of the same images again and again: for every arm, fold and
seed, and so does the next evaluation. The cache holds N x d x 4 bytes in memory for each key and
keeps the same on the disk, in files of up to 256 consecutive rows of a shard:

    cache/<digest of the key>/<digest of the shard>/<first row>.features

The plugin's function sees the rows that were asked for and no others, so that no test image
reaches it while it fits; a file says which of its rows it holds. It is written as soon as they are
computed: an interruption costs 256 images at most. It starts with the CRC-32 of the rest and with
a line of JSON that names key and shard, so that what is damaged or belongs elsewhere is computed
again. Rows that are not stored are kept under their digest in place of a shard.

The folder is disposable: deleting it costs time, at any moment. It holds at most
AUGKIT_CACHE_LIMIT gigabytes (of 10**9 bytes; by default 4; 0 keeps nothing), without the files
that were used longest ago.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from augkit.errors import DamagedStore, OptionError, PluginFailed
from augkit.interfaces import Extractor, Samples
from augkit.store import durable
from augkit.store.format import canonical, digest_of, is_staged
from augkit.store.plain import read_plain
from augkit.store.samples import JoinedSamples, StoredSamples
from augkit.store.standing import Guard

log = logging.getLogger("augkit")

SEGMENT = 256
"""Rows of a shard that share a file, and that an interruption may cost."""

_BLOCK = 64
_SUFFIX = ".features"
_LARGEST = 2**28
"""Bytes of a file that is read: 256 rows of a quarter of a million features."""


def cache_size(folder: Path) -> tuple[int, int]:
    """Return how many bytes and how many files a cache folder holds; it need not exist."""
    sizes = [size for _, size, _ in _files(folder)]
    return sum(sizes), len(sizes)


@dataclass
class FeatureCache:
    """Remembers features by key and shard; rows that are not stored, by their digest.

    folder: where they are kept as well; None: in memory only. limit: the most bytes that the
    folder may hold; None: AUGKIT_CACHE_LIMIT. Threads may share it and then take turns; pickled,
    it arrives empty, on the same folder. Raises OptionError if AUGKIT_CACHE_LIMIT is no number.
    """

    folder: Path | None = None
    limit: int | None = None
    guard: Guard = contextlib.nullcontext
    """Held while a file is written."""
    _tables: dict[tuple[str, str], _Table] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._disk = None
        if self.folder is not None:
            limit = _usual_limit() if self.limit is None else self.limit
            self._disk = _Disk(self.folder, limit, self.guard)

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureCache, (self.folder, self.limit, self.guard)

    def __call__(self, key: str, function: Extractor, samples: Samples) -> np.ndarray:
        """Return float32 (N, d), a new array, computing only what is not known yet.

        Raises PluginFailed if the function returns anything but a row for each image, or another
        d than before under this key.
        """
        parts = list(_parts(samples))
        with self._lock:
            tables = [self._filled(key, function, part) for part in parts]
        widths = {table.width for table in tables if table.width is not None}
        if len(widths) > 1:
            raise _conflict(key, *widths)
        out = np.empty((len(samples), max(widths, default=0)), np.float32)
        for part, table in zip(parts, tables, strict=True):
            if table.values is not None:
                out[part.begin + part.at] = table.values[part.rows]
        return out

    def missing(self, key: str, samples: Samples) -> int:
        """Return how many images, each counted once, have no features yet; computes none."""
        asked: dict[str, np.ndarray] = {}
        for part in _parts(samples):
            asked.setdefault(part.of, np.zeros(part.total, bool))[part.rows] = True
        with self._lock:
            return sum(
                len(self._lacking(self._table(key, of, len(chosen)), np.flatnonzero(chosen)))
                for of, chosen in asked.items()
            )

    def forget_unstored(self) -> None:
        """Drop the features of rows that are not stored from memory; the folder keeps them."""
        with self._lock:
            for name in [name for name in self._tables if not name[1].startswith("shard ")]:
                del self._tables[name]

    def _table(self, key: str, of: str, total: int) -> _Table:
        return self._tables.get((key, of)) or _Table(key, of, np.zeros(total, bool))

    def _filled(self, key: str, function: Extractor, part: _Part) -> _Table:
        """Return the table in which all rows of a part are known."""
        table = self._table(key, part.of, part.total)
        self._tables[key, part.of] = table
        wanted, first = np.unique(part.rows, return_index=True)
        positions = part.at[first]
        waiting: list[_Lacking] = []
        for segment, here in table.segments(wanted):
            if not table.known[wanted[here]].all():
                self._load(table, segment)
            lacking = here[~table.known[wanted[here]]]
            if sum(len(each.rows) for each in waiting) + len(lacking) > SEGMENT:
                self._compute(function, part.samples, table, waiting)
                waiting = []
            if len(lacking):
                waiting.append(_Lacking(segment, wanted[lacking], positions[lacking]))
        self._compute(function, part.samples, table, waiting)
        return table

    def _compute(
        self, function: Extractor, samples: Samples, table: _Table, lacking: list[_Lacking]
    ) -> None:
        """Compute what several segments lack together, and keep each of them.

        A network sees whole blocks: by itself, one row of a segment would cost as much as a block.
        """
        if lacking:
            rows = np.concatenate([each.rows for each in lacking])
            at = np.concatenate([each.at for each in lacking])
            table.add(rows, _computed(function, samples, at))
        for each in lacking:
            self._keep(table, each.segment)

    def _lacking(self, table: _Table, wanted: np.ndarray) -> np.ndarray:
        """Return the wanted rows that neither the table nor the disk knows; the table stays."""
        known = table.known.copy()
        for segment, here in table.segments(wanted):
            if self._disk is not None and not known[wanted[here]].all():
                found = self._disk.read(segment)
                if found is not None:
                    known[found[0]] = True
        return wanted[~known[wanted]]

    def _load(self, table: _Table, segment: _Segment) -> None:
        """Take over what the disk has of a segment; what is known already stays as it is."""
        found = self._disk.read(segment) if self._disk is not None else None
        if found is not None:
            rows, values = found
            new = ~table.known[rows]
            table.add(rows[new], values[new])

    def _keep(self, table: _Table, segment: _Segment) -> None:
        if self._disk is not None:
            self._load(table, segment)  # what another process has kept meanwhile stays
            known = segment.start + np.flatnonzero(table.known[segment.slice])
            assert table.values is not None
            self._disk.write(segment, known, table.values[known])


@dataclass(frozen=True)
class _Part:
    """What some samples have in one shard; rows that are not stored are a shard of their own."""

    samples: Samples
    begin: int
    """Where these samples begin among those that were asked for."""
    of: str
    """Names the shard."""
    total: int
    """Rows of the shard."""
    at: np.ndarray
    """int64 (n,), positions in the samples."""
    rows: np.ndarray
    """int64 (n,), rows of the shard."""


def _parts(samples: Samples, begin: int = 0) -> Iterator[_Part]:
    if isinstance(samples, JoinedSamples):
        for piece in samples.pieces:
            yield from _parts(piece, begin)
            begin += len(piece)
    elif isinstance(samples, StoredSamples):
        rows = samples._rows
        for index in np.unique(rows.shard):
            named, here = rows.shards[index], np.flatnonzero(rows.shard == index)
            yield _Part(samples, begin, f"shard {named.content}", named.rows, here, rows.row[here])
    else:
        every, shape = np.arange(len(samples)), "x".join(map(str, samples.shape))
        yield _Part(samples, begin, f"{shape} {samples.digest}", len(every), every, every)


def _computed(function: Extractor, samples: Samples, at: np.ndarray) -> np.ndarray:
    """Return float32 (n, d) of the images at n positions, at least one."""
    blocks = []
    for start in range(0, len(at), _BLOCK):
        images = samples.gather(at[start : start + _BLOCK])
        made, n = np.array(function(images), np.float32), len(images)  # it may use its own again
        if made.ndim != 2 or len(made) != n:
            raise PluginFailed(f"features of {n} images have shape {made.shape}, not ({n}, d)")
        blocks.append(made)
    return np.concatenate(blocks)


def _conflict(key: str, *widths: int) -> PluginFailed:
    one, other = sorted(widths)[:2]
    return PluginFailed(
        f"features under the key {key!r} have {one} columns and {other} columns: the key of "
        "Context.cached() must name all that they depend on; change it when the function changes"
    )


@dataclass(frozen=True)
class _Segment:
    """Rows of a shard, one after another, whose features under one key share a file."""

    key: str
    of: str
    start: int
    rows: int

    @property
    def slice(self) -> slice:
        return slice(self.start, self.start + self.rows)

    @property
    def header(self) -> dict[str, Any]:
        return {"format": 1, **vars(self)}

    @property
    def path(self) -> Path:
        names = digest_of(self.key)[:16], digest_of(self.of)[:16]
        return Path(*names) / f"{self.start:08}{_SUFFIX}"


@dataclass(frozen=True)
class _Lacking:
    """What of a segment is not known."""

    segment: _Segment
    rows: np.ndarray
    """int64 (n,), rows of the shard."""
    at: np.ndarray
    """int64 (n,), their positions in the samples."""


@dataclass
class _Table:
    """The features of the rows of a shard under one key, as far as they are known."""

    key: str
    of: str
    known: np.ndarray
    """bool (rows,)."""
    values: np.ndarray | None = None
    """float32 (rows, d), meaningful where known; the system gives memory to rows once written."""

    @property
    def width(self) -> int | None:
        return None if self.values is None else self.values.shape[1]

    def segments(self, wanted: np.ndarray) -> Iterator[tuple[_Segment, np.ndarray]]:
        """Yield each segment with wanted rows (sorted), and which of the wanted it holds."""
        number = wanted // SEGMENT
        cuts = np.flatnonzero(np.diff(number)) + 1
        for here in np.split(np.arange(len(wanted)), cuts) if len(wanted) else ():
            start = int(number[here[0]]) * SEGMENT
            rows = min(SEGMENT, len(self.known) - start)
            yield _Segment(self.key, self.of, start, rows), here

    def add(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Note the features of some rows. Raises PluginFailed if they are of another width."""
        if self.values is None:
            self.values = np.zeros((len(self.known), values.shape[1]), np.float32)
        if values.shape[1] != self.values.shape[1]:
            raise _conflict(self.key, self.values.shape[1], values.shape[1])
        self.values[rows] = values
        self.known[rows] = True


@dataclass
class _Disk:
    """The folder of a cache. What it cannot read or write is as if it were not there."""

    folder: Path
    limit: int
    guard: Guard
    refused: bool = False
    """Whether the user has been told that features are not kept."""

    def read(self, segment: _Segment) -> tuple[np.ndarray, np.ndarray] | None:
        """Return rows int64 (k,) of the shard and their features float32 (k, d), or None."""
        path = self.folder / segment.path
        try:
            found = _unpacked(read_plain(path, _LARGEST), segment)
        except OSError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError, DamagedStore, RecursionError):
            log.debug("%s is damaged or of something else: computed again", path)
            return None
        with contextlib.suppress(OSError):  # a read-only folder keeps its old times
            os.utime(path)
        return found

    def write(self, segment: _Segment, rows: np.ndarray, values: np.ndarray) -> None:
        """Keep the features float32 (k, d) of k rows of the shard, in place of older ones."""
        content = _packed(segment, rows, values)
        try:
            if self._make_room(len(content)):
                with self.guard():
                    durable.rewrite(self.folder / segment.path, content)
        except FileNotFoundError:
            log.debug("%s was deleted while it was written to", self.folder)
        except OSError as error:
            if not self.refused:
                why = error.strerror or error
                log.warning("features are not kept for next time: %s: %s", self.folder, why)
            self.refused = True

    def _make_room(self, size: int) -> bool:
        """Delete what was used longest ago until so many bytes fit; False if they never will."""
        fits = size <= self.limit
        files = sorted(_files(self.folder))
        excess = sum(held for _, held, _ in files) + size * fits - self.limit
        for _, held, name in files:
            if excess <= 0:
                break
            path = Path(name)
            path.unlink(missing_ok=True)
            excess -= held
            with contextlib.suppress(OSError):  # not empty, or another process was faster
                path.parent.rmdir()
                path.parent.parent.rmdir()
        return fits


def _files(folder: Path) -> Iterator[tuple[int, int, str]]:
    """Yield when each file of a cache was last used, its bytes and its path, in any order.

    What killed writers left behind counts and goes like the rest; files of others do not.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith(_SUFFIX) or is_staged(name):
                path = f"{place}{os.sep}{name}"
                with contextlib.suppress(OSError):  # deleted a moment ago
                    status = os.lstat(path)
                    yield status.st_mtime_ns, status.st_size, path


def _packed(segment: _Segment, rows: np.ndarray, values: np.ndarray) -> bytes:
    """Return a file: CRC-32, what it is, one bit a row of the segment, then the rows it holds."""
    held = np.zeros(segment.rows, bool)
    held[rows - segment.start] = True
    head = canonical({**segment.header, "width": values.shape[1]}) + b"\n"
    body = head + np.packbits(held).tobytes() + values.astype("<f4").tobytes()
    return b"%08x\n" % zlib.crc32(body) + body


def _unpacked(content: bytes, segment: _Segment) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of the shard and their features. Raises ValueError or the like if damaged."""
    body = memoryview(content)[9:]
    if content[:9] != b"%08x\n" % zlib.crc32(body):
        raise ValueError("another checksum")
    end = content.index(b"\n", 9) + 1
    head = json.loads(content[9:end])
    width = head.pop("width")
    if head != segment.header:
        raise ValueError("features of something else")
    n_bytes = -(-segment.rows // 8)
    bits = np.frombuffer(content, np.uint8, n_bytes, end)
    held = np.flatnonzero(np.unpackbits(bits, count=segment.rows))
    values = np.frombuffer(content, "<f4", offset=end + n_bytes).reshape(len(held), width)
    return segment.start + held, values


def _usual_limit() -> int:
    """Return the limit that AUGKIT_CACHE_LIMIT sets, in bytes."""
    given = os.environ.get("AUGKIT_CACHE_LIMIT") or "4"
    try:
        limit = int(float(given) * 1e9)
    except (ValueError, OverflowError):  # no number; nan; inf
        limit = -1
    if limit < 0:
        raise OptionError(
            f"AUGKIT_CACHE_LIMIT is {given!r}; it must be a number of gigabytes, such as 4 or 0.5"
        )
    return limit
