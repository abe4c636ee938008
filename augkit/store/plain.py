"""Reading small files of a store that may come from strangers: plain files, of a stated size."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from augkit.errors import DamagedStore

_CALM = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def is_plain(path: Path) -> bool:
    """Return True for a regular file that is no link."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def is_special(path: Path) -> bool:
    """Return True for a pipe, a socket or a device: whoever opens it may wait for ever."""
    return path.exists() and not (path.is_file() or path.is_dir())


def is_hollow(about: os.stat_result) -> bool:
    """Return True for a file that claims a hundred times the bytes that it holds on the disk."""
    held = 512 * getattr(about, "st_blocks", 0)  # 0 where the system does not tell
    return about.st_size > 2**26 and 0 < held < about.st_size / 100


def read_plain(path: Path, most: int) -> bytes:
    """Return the bytes of a regular file. Raises OSError, or DamagedStore for anything else.

    A link is not followed, a pipe not waited for, and no more than `most` bytes are read.
    """
    if path.is_symlink():
        raise DamagedStore(f"{path} is a link: augkit follows none within a store")
    handle = os.open(path, os.O_RDONLY | _CALM)
    with os.fdopen(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise DamagedStore(f"{path} is no regular file")
        if about.st_size > most:
            raise DamagedStore(f"{path} has {about.st_size} bytes; augkit writes at most {most}")
        return file.read(about.st_size)


def require_plain(folder: Path) -> None:
    """Raise DamagedStore if a folder holds anything but folders and regular files, however deep.

    Nothing is opened but folders.
    """
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif not entry.is_file(follow_symlinks=False):
                        what = "link" if entry.is_symlink() else "pipe, socket or device"
                        raise DamagedStore(
                            f"{entry.path} is a {what}: augkit neither makes nor follows any "
                            "within a store; remove it"
                        )
        except (FileNotFoundError, PermissionError):
            continue  # deleted a moment ago; or not ours to read, now and later
