"""HDF5 files of unknown origin are examined in a child process before they are opened here.

A file that this user's augkit wrote or examined is known by its device, inode, size and times, and
opened at once. For others one child process is started, once in a process; what makes it crash,
hang or fill the memory is refused. `structure` says what is looked at.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import select
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Literal

from augkit.errors import DamagedStore, StoreError
from augkit.examined import examined

Kind = Literal["shard", "packed"]

RULES = 2
"""Raised whenever the rules of `structure` become stricter: then files are examined again."""

_PATIENCE = 30.0
"""Seconds that a child may take, whatever else the machine does; it limits its own computing."""
_PACE = 20e6
"""Bytes on the disk for which it gets one second more."""
_TRIES = 100
"""How often a file may be replaced by other commands while it is looked at."""


def require_examined(path: Path, kind: Kind, *, anew: bool = False) -> str:
    """Return the identity of a file that HDF5 may open. Raises DamagedStore, or OSError.

    One that is not known is examined first, unless AUGKIT_EXAMINE is `never`. anew: also one that
    is known: what rots on a disk keeps its times.
    """
    for _ in range(_TRIES):
        name = identity(path, kind)
        known = name in examined and not anew
        if os.environ.get("AUGKIT_EXAMINE") == "never" or known:
            return name
        fault = _examiner.examine(path, kind)
        if identity(path, kind) == name:
            break  # else another command has just replaced it
    else:
        raise StoreError(f"{path} is written to all the time: run this command again")
    if fault is not None:
        raise DamagedStore(
            f"{path} {fault}: it is not opened. It is damaged, or made to do harm: get it again "
            "from where it came from"
        )
    examined.add(name)
    return name


def trust(path: Path, kind: Kind, *, remember: bool = True) -> None:
    """Note that this process wrote a file. remember: also for later processes of this user."""
    with contextlib.suppress(OSError):  # gone already: another command was faster
        examined.add(identity(path, kind), remember=remember)


def identity(path: Path, kind: Kind) -> str:
    """Return what changes whenever a file does. Raises DamagedStore for a link, pipe or device."""
    about = os.lstat(path)
    if not stat.S_ISREG(about.st_mode):
        raise DamagedStore(f"{path} is no regular file: it is not opened")
    times = about.st_mtime_ns, about.st_ctime_ns
    named = RULES, kind, about.st_dev, about.st_ino, about.st_size, *times
    return hashlib.sha256(repr(named).encode()).hexdigest()[:32]


class _Examiner:
    """A child process that examines one file after another, started when it is first needed."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def examine(self, path: Path, kind: Kind) -> str | None:
        """Return why a file must not be opened; None if it may be."""
        with self._lock:
            if self._child is not None and self._child.poll() is not None:
                self.close()  # it ended between two files: no fault of this one
            child = self._child = self._child or _start()
            asked = {"kind": kind, "path": os.fspath(path.absolute())}
            answer = _ask(child, asked, _PATIENCE + 512 * path.lstat().st_blocks / _PACE)
            if answer is None:
                return f"cannot be examined: {self._end()}"
            fault = answer["fault"]
            return None if fault is None else str(fault)

    def _end(self) -> str:
        """End the child and return how it ended."""
        child, self._child = self._child, None
        assert child is not None
        return f"reading it {_how(_finish(child))}"

    def close(self) -> None:
        """End the child, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            _finish(child)


def _start() -> subprocess.Popen[bytes]:
    from augkit.store import structure

    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-P", "-B", os.fspath(structure.__file__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | one | {"HDF5_PLUGIN_PRELOAD": "::"},  # no filters from elsewhere
    )


def _ask(
    child: subprocess.Popen[bytes], asked: dict[str, Any], seconds: float
) -> dict[str, Any] | None:
    """Return what the child answers; None if it ended, or said nothing in time."""
    assert child.stdin is not None and child.stdout is not None
    try:
        child.stdin.write(json.dumps(asked).encode() + b"\n")
        child.stdin.flush()
        if not select.select([child.stdout], [], [], seconds)[0]:
            return None
        answer = json.loads(child.stdout.readline())
        return answer if isinstance(answer, dict) and "fault" in answer else None
    except (OSError, ValueError):
        return None


def _finish(child: subprocess.Popen[bytes]) -> int | None:
    """End a child; return its exit status, None if it had to be killed."""
    assert child.stdin is not None and child.stdout is not None
    with contextlib.suppress(OSError):
        child.stdin.close()
    try:
        status: int | None = child.wait(0.5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        status = None
    child.stdout.close()
    return status


def _how(status: int | None) -> str:
    import signal

    known = {-getattr(signal, "SIGPROF", 0): "takes too long", None: "takes too long"}
    if status in known:
        return known[status]
    if status is not None and status < 0:
        return f"ends the process with signal {-status}"
    return f"ends the process with exit status {status}"


_examiner = _Examiner()
atexit.register(lambda: _examiner.close())


def _begin_anew() -> None:
    """Leave the child and its lock to the parent process."""
    global _examiner
    _examiner = _Examiner()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
