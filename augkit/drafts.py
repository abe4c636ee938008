"""Drafts: what a long run has made so far, so that a command that is killed goes on where it was.

A draft is one file beside the checkpoints of the model. Each block is a record with its length and
SHA-256: one that was cut off, or changed, ends the draft, and is made again. It belongs to one
recipe, model, training part and machine, is no part of the data, and is gone after the commit.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np

from augkit.store import durable

log = logging.getLogger("augkit")

SUFFIX = ".draft"
_HEAD = 8 + 32
"""Bytes before a record: its length and its SHA-256."""

_LARGEST = 2**30
"""Bytes of a record: blocks are made so that they fit into a quarter of that."""

Block = dict[str, np.ndarray]
"""What a block consists of, by name; no objects."""


class Draft:
    """The blocks of one run, in order. Open as a context; closed, the file stays."""

    def __init__(self, path: Path | None):
        self._path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Draft:
        """Open the file, unless another command has it, or the disk refuses: then keep nothing."""
        if self._path is None:
            return self
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("a+b")
        except OSError as error:
            log.warning("the images made so far are not kept: %s", error.strerror)
            return self
        try:
            durable.lock_file(file.fileno())
            self._file = file if os.fstat(file.fileno()).st_nlink == 1 else None
        except OSError:
            pass
        if self._file is None:  # another command has it, or it has a name outside of the store
            file.close()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def read(self, fits: Callable[[Block], bool] = lambda block: True) -> Iterator[Block]:
        """Yield the blocks that are whole and fit; what follows the last of them is cut off.

        fits: says whether a block is one of this run, given those before it. Whoever wrote the
        store may have written the draft.
        """
        if self._file is None:
            return
        file, end = self._file, 0
        file.seek(0)
        while (block := _record(file)) is not None and fits(block):
            end = file.tell()
            yield block
        file.truncate(end)
        file.seek(end)

    def keep(self, block: Block) -> None:
        """Add a block; where the disk refuses, no more is kept."""
        if self._file is None:
            return
        buffer, arrays = io.BytesIO(), dict[str, Any](block)
        np.savez(buffer, **arrays)
        content = buffer.getvalue()
        head = len(content).to_bytes(8, "little") + hashlib.sha256(content).digest()
        try:
            self._file.write(head + content)
            self._file.flush()
        except OSError as error:
            log.warning("the images made from here on are not kept: %s", error.strerror)
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def discard(self) -> None:
        """Delete the file: the run is committed."""
        if self._file is not None and self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()


def _record(file: IO[bytes]) -> Block | None:
    """Return the next block; None at the end, or where it is not as it was written."""
    head = file.read(_HEAD)
    size = int.from_bytes(head[:8], "little")
    left = os.fstat(file.fileno()).st_size - file.tell()
    if len(head) < _HEAD or size > min(left, _LARGEST):
        return None
    content = file.read(size)
    if hashlib.sha256(content).digest() != head[8:]:
        return None
    try:
        return _unpacked(content)
    except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile, NotImplementedError):
        return None  # the digest is right: somebody else wrote it


def _unpacked(content: bytes) -> Block | None:
    """Return the arrays of a record, which `keep` does not compress; None if they are larger."""
    with ZipFile(io.BytesIO(content)) as archive:
        if any(member.compress_type != ZIP_STORED for member in archive.infolist()):
            return None
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
