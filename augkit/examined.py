"""What this user's augkit has looked at before, so that it need not do so again.

One file of short names, each a hash of what would change if the thing did: of files of stores
(`store.screening`) and of packages of plugins (`rehearsal`).
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

LARGEST_RECORD = 2**20
"""Bytes of the record: 30,000 names."""


def record() -> Path:
    """Return the file: $AUGKIT_EXAMINED, or one in the user's folder for caches."""
    named = os.environ.get("AUGKIT_EXAMINED")
    if named:
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return Path(cache) / "augkit" / "examined"


class _Examined:
    """What is known: in this process, and on the disk for the next."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._read: tuple[int, ...] = ()

    def __contains__(self, name: str) -> bool:
        if name not in self._known:
            self._update()
        return name in self._known

    def _update(self) -> None:
        """Take in what other processes have noted since."""
        with contextlib.suppress(OSError, ValueError):
            about = record().stat()
            if not stat.S_ISREG(about.st_mode) or about.st_size > 2 * LARGEST_RECORD:
                return
            now = about.st_ino, about.st_size, about.st_mtime_ns
            if now != self._read:
                self._known.update(record().read_text("ascii").split())
                self._read = now

    def add(self, name: str, *, remember: bool = True) -> None:
        """Note a name. Where the disk refuses, only this process knows it."""
        self._known.add(name)
        if remember:
            with contextlib.suppress(OSError, ValueError):
                path = record()
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.exists() and path.stat().st_size > LARGEST_RECORD:
                    _forget_half(path)
                with path.open("a") as file:  # short lines of several writers do not mix
                    file.write(f"{name}\n")


def _forget_half(path: Path) -> None:
    """Keep the newer half of the record."""
    lines = path.read_text("ascii").split()
    staged = path.with_name(f"{path.name}.{os.getpid()}")
    staged.write_text("".join(f"{line}\n" for line in lines[len(lines) // 2 :]), "ascii")
    os.replace(staged, path)


examined = _Examined()
