"""What makes a file last: claim space, flush to the disk, put if absent, replace under a lock."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from augkit.errors import StoreError
from augkit.interruption import interrupts_held
from augkit.store.format import is_abandoned, staged_name

T = TypeVar("T")

_NO_CLAIMS = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a full or read-only disk raises into a StoreError that names the store."""
    try:
        yield
    except OSError as error:
        why = error.strerror or " ".join(str(error).split())
        raise StoreError(f"cannot write to {path}: {why}") from error


def claim(path: Path, size: int) -> None:
    """Make sure that a file can grow to `size` bytes; raises OSError if the disk is too full.

    HDF5 crashes the process when a write fails while it closes a file: so none may fail.
    """
    handle = os.open(path, os.O_RDWR)
    try:
        held = os.fstat(handle).st_size
        if size > held and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, held, size - held)
    except OSError as error:
        if error.errno not in _NO_CLAIMS:
            raise
    finally:
        os.close(handle)


class Lent(Generic[T]):
    """Lends what lies on the disk and was not committed; it is removed at the end of the block.

    make: makes it, all or nothing, while `held`; discard: removes it, if it is still there. Ctrl-C
    finds no moment in which it is made and not known here: so this is a class, and no generator.
    """

    def __init__(
        self,
        make: Callable[[], T],
        discard: Callable[[T], None],
        held: Callable[[], contextlib.AbstractContextManager[None]],
    ):
        self._make, self._discard, self._held = make, discard, held
        self._things: list[T] = []

    def __enter__(self) -> T:
        try:
            with self._held(), interrupts_held():  # who waits to hold it, can be stopped
                self._things.append(self._make())
            return self._things[0]
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        with interrupts_held():
            while self._things:
                self._discard(self._things.pop())


def flush_folder(path: Path) -> None:
    """Force the names in a folder to the disk; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_new(path: Path, content: bytes) -> None:
    """Write a file that must not exist yet and flush it."""
    with interrupts_held(), path.open("xb") as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def put_if_absent(staged: Path, target: Path) -> bool:
    """Give a finished file its name, unless the name is taken; then the staged name goes.

    Atomic against any number of writers, and durable when it returns. Returns False, and leaves
    both files as they are, if the name is taken.
    """
    try:
        placed = _link(staged, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        placed = _rename_under_lock(staged, target)
    if placed:
        flush_folder(target.parent)
        staged.unlink(missing_ok=True)
    return placed


def _link(staged: Path, target: Path) -> bool:
    try:
        os.link(staged, target)
    except FileExistsError:
        return False
    return True


def _rename_under_lock(staged: Path, target: Path) -> bool:
    """Put if absent where the file system has no hard links."""
    with locked(target.parent):
        if target.exists():
            return False
        os.rename(staged, target)
    return True


def replace(staged: Path, target: Path) -> None:
    """Give a finished file its name, atomically over whatever had it, and durably."""
    os.replace(staged, target)
    flush_folder(target.parent)


def rewrite(path: Path, content: bytes) -> None:
    """Give a file new content, atomically and durably; its folder is made if it is missing.

    For files that belong to no commit: what a killed writer left beside it is swept away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob("*.tmp"):
        if is_abandoned(left):
            left.unlink(missing_ok=True)
    staged = path.parent / staged_name(".tmp")
    try:
        write_new(staged, content)
        replace(staged, path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise


def remove(path: Path) -> None:
    """Delete a file, a link, or a folder with all that is in it; nothing need be there."""
    with interrupts_held():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)  # another sweep may be at it as well
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = True, shared: bool = False) -> Iterator[None]:
    """Hold a lock on a folder, an exclusive one unless `shared`; it is freed if the holder dies.

    Raises OSError if the lock is taken and not to be waited for.
    """
    if os.name == "nt":
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    else:
        handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, wait, shared)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, wait: bool, shared: bool) -> None:
    if os.name == "nt":
        import msvcrt

        mode = msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK  # type: ignore[attr-defined,unused-ignore]
        msvcrt.locking(handle, mode, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(handle, kind | (0 if wait else fcntl.LOCK_NB))


@contextlib.contextmanager
def sharing(folder: Path) -> Iterator[None]:
    """Hold a shared lock on a folder, where there is one and its system has such locks."""
    with contextlib.ExitStack() as held:
        if os.name != "nt":
            with contextlib.suppress(OSError):
                held.enter_context(locked(folder, shared=True))
        yield


def lock_file(handle: int) -> None:
    """Lock an open file for as long as it is open. Raises OSError if another process has it."""
    _lock(handle, wait=False, shared=False)
