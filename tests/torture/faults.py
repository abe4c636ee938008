"""Disks that refuse, signals, and clocks that go back: a plain error or nothing, and no harm."""

from __future__ import annotations

import datetime
import errno
import json
import os
import signal
from pathlib import Path
from typing import Any

from augkit.errors import StoreError

from .calls import Call, Do, install
from .kills import child, counted, is_commit
from .worlds import KINDS, Tally, World, check

FAULTS = ("disk full", "read-only", "input/output error", "SIGINT", "SIGTERM")
LASTING = ("disk full", "read-only")
"""All later calls are refused as well, also those that would remove what was not committed: a model
may stay behind until the next one is committed."""
_ERRORS = {
    "disk full": errno.ENOSPC, "read-only": errno.EROFS, "input/output error": errno.EIO,
}  # fmt: skip
_SPARED = {"pwrite64", "ftruncate"}
"""Where a disk refuses nothing: space is claimed before HDF5 writes. Nor does Python answer a
signal within HDF5."""
_REMOVING = {"unlink", "rmdir"}
"""What a full disk still does, and what comes to nothing where there is nothing."""


class Saboteur:
    """Refuses one call, and all later ones that need the disk; or lets a signal come before it."""

    def __init__(self, fault: str, at: int, path: Path, told: Path):
        self.fault, self.at, self.path, self.told = fault, at, path, told
        self.n, self.committed = 0, False

    def __call__(self, call: Call, do: Do, half: Do | None) -> Any:
        self.n += 1
        gone = self.fault == "disk full" or not os.path.lexists(call.path)
        spared = _SPARED | (_REMOVING if gone else set())
        if self.n >= self.at and self.fault in _ERRORS and call.name not in spared:
            number = _ERRORS[self.fault]
            if self.fault in LASTING or self.n == self.at:
                raise OSError(number, os.strerror(number), call.path)
        if self.n >= self.at and self.fault.startswith("SIG") and call.name not in spared:
            self.fault, fault = "", self.fault
            os.kill(os.getpid(), getattr(signal, fault))
        result = do()
        self.committed |= is_commit(call, self.path)
        return result

    def say(self, how: str) -> None:
        """Leave word of how the command ended."""
        if self.at and not self.fault and not how:
            how = "the signal was lost"
        self.fault, self.at = "", 0
        self.told.write_text(json.dumps([how, self.committed]))


def trial(world: World, kind: str, fault: str, at: int, root: Path) -> Tally:
    """Let one fault happen at one call of a commit."""
    path, told = world.copy(root / "faulty"), root / "told.json"
    told.unlink(missing_ok=True)

    def work() -> None:
        saboteur = Saboteur(fault, at, path, told)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if fault == "SIGTERM":
            told.write_text(json.dumps(["SIGTERM", False]))
        install(saboteur, path.parent)
        try:
            KINDS[kind](path, 0)
            saboteur.say("")
        except BaseException as error:
            saboteur.say(f"{type(error).__name__}: {error}")

    status = os.waitstatus_to_exitcode(os.waitpid(child(work), 0)[1])
    how, committed = json.loads(told.read_text()) if told.exists() else ("died", False)
    own = world.commits[kind, 0]
    must, may = dict(world.before), {}
    if committed and not how:
        must |= own
    elif committed or fault == "SIGTERM":  # refused after it was visible: it may stay
        may = own
    where = f"{world.form}: {fault} at call {at} of {kind}: {how}"
    found = check(path, must, may, where, tidy=fault not in LASTING)
    found.n = 1
    expected = _expected(fault)
    if status not in (0, -signal.SIGTERM) or (how and not how.startswith(expected)):
        found.errors += 1
        found.notes.append(f"{where}: exit code {status}")
    return found


def _expected(fault: str) -> tuple[str, ...]:
    """Return how a command may end."""
    if fault in _ERRORS:
        return (f"{StoreError.__name__}: cannot write to ",)
    return ("KeyboardInterrupt", "SIGTERM")


def campaign(world: World, fault: str, root: Path, every: int) -> Tally:
    """Let a fault happen at every so many of the calls of each kind of commit."""
    found = Tally()
    for kind in ("run", "model"):
        for at in range(1, sum(counted(world, kind, root).values()) + 1, every):
            found.add(trial(world, kind, fault, at, root))
    return found


def clocks(world: World, root: Path, n: int) -> Tally:
    """Commit while the clock goes back a year each time: the order is that of the commits."""
    from augkit.store import store as module

    found, path = Tally(), world.copy(root / "clock")
    real = datetime.datetime
    expected = dict(world.before)
    try:
        for i in range(n):

            class Early(real):  # type: ignore[misc,valid-type]
                years = i

                @classmethod
                def now(cls, tz: Any = None) -> Any:
                    now = real.now(tz)
                    return now.replace(year=now.year - cls.years, day=1)

            module.datetime.datetime = Early  # type: ignore[misc]
            KINDS["run"](path, i % 4) if i < 4 else KINDS["model"](path, i % 4)
            expected |= world.commits["run" if i < 4 else "model", i % 4]
            os.utime(path, (0, 0))
            found.n += 1
    finally:
        module.datetime.datetime = real  # type: ignore[misc]
    found.add(check(path, expected, {}, f"{world.form}: clock"))
    return found
