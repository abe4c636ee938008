"""Killing writers: SIGKILL before, within and after each call of a commit, one to four at once."""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .calls import Call, Do, install
from .worlds import KINDS, WRITERS, Contents, Tally, World, check

MODES = ("before", "within", "after")


@dataclass(frozen=True)
class Point:
    """Where a writer is killed: at the nth call of a name, before, within or after it."""

    call: str
    nth: int
    mode: str


def is_commit(call: Call, path: Path) -> bool:
    """Return True for the call with which a change becomes visible."""
    into_log = call.name == "link" and call.target.startswith(f"{path.resolve()}/log/")
    return into_log or (call.name == "rename" and call.target == str(path.resolve()))


class Killer:
    """Kills this process at its point; notes in shared memory what was done before."""

    def __init__(self, point: Point | None, path: Path, told: memoryview):
        self.point = point
        self.path = path
        self.told = told
        """One byte: 1 once the commit is visible."""
        self.counts: Counter[str] = Counter()

    def __call__(self, call: Call, do: Do, half: Do | None) -> Any:
        self.counts[call.name] += 1
        point = self.point
        if point is None or (call.name, self.counts[call.name]) != (point.call, point.nth):
            return self._done(call, do)
        if point.mode == "within" and half is not None:
            half()
        elif point.mode != "before":
            self._done(call, do)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    def _done(self, call: Call, do: Do) -> Any:
        result = do()
        if is_commit(call, self.path):
            self.told[0] = 1
        return result


def child(work: Callable[[], None]) -> int:
    """Do something in a child process, and return its number; it ends with 3 if that failed."""
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 3
    try:
        work()
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def counted(world: World, kind: str, root: Path) -> Counter[str]:
    """Return how often a commit of one writer makes each call."""
    path = world.copy(root / "counted")
    told = root / "counts.json"

    def work() -> None:
        killer = Killer(None, path, memoryview(bytearray(1)))
        install(killer, path.parent)
        KINDS[kind](path, 0)
        counts = dict(killer.counts)
        told.write_text(json.dumps(counts))

    assert os.waitpid(child(work), 0)[1] == 0
    return Counter(json.loads(told.read_text()))


@dataclass
class Writer:
    """One writer of a trial."""

    kind: str
    number: int
    point: Point | None


def trial(world: World, writers: list[Writer], root: Path) -> tuple[list[Point], Tally]:
    """Let the writers commit at once; return where some were killed, and what was found."""
    path = world.copy(root / "trial")
    shared = memoryview(mmap.mmap(-1, len(writers)))
    pids = []
    for i, writer in enumerate(writers):

        def work(writer: Writer = writer, told: memoryview = shared[i : i + 1]) -> None:
            install(Killer(writer.point, path, told), path.parent)
            KINDS[writer.kind](path, writer.number)

        pids.append(child(work))
    found, killed = Tally(), []
    must: Contents = dict(world.before)
    for i, (writer, pid) in enumerate(zip(writers, pids, strict=True)):
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status == -signal.SIGKILL and writer.point is not None:
            killed.append(writer.point)
        elif status:
            found.errors += 1
            found.notes.append(f"{writer}: exit code {status}")
        if shared[i] or status == 0:
            must |= world.commits[writer.kind, writer.number]
    found.add(check(path, must, {}, f"{world.form}: {writers}"))
    found.n = len(killed)
    return killed, found


def campaign(
    world: World, n_writers: int, each: Mapping[str, int], root: Path, rng: np.random.Generator
) -> dict[str, Tally]:
    """Kill until every call has been hit often enough; return what was found, call by call."""
    calls = {kind: counted(world, kind, root) for kind in ("run", "model")}
    wanted = Counter({name: each[name] for kind in calls for name in calls[kind]})
    found = {name: Tally() for name in wanted}
    while +wanted:
        killed, tally = trial(world, _writers(calls, wanted, n_writers, rng), root)
        tally.n = 0
        found[killed[0].call if killed else "fsync"].add(tally)
        for point in killed:
            wanted[point.call] -= 1
            found[point.call].n += 1
    return found


def _writers(
    calls: dict[str, Counter[str]], wanted: Counter[str], n: int, rng: np.random.Generator
) -> list[Writer]:
    """Return n writers, one to all of which are killed where it is wanted most."""
    left, found = Counter(wanted), []
    n_killed = int(rng.integers(1, n + 1))
    for number in rng.permutation(WRITERS)[:n].tolist():
        kind, point = str(rng.choice(list(calls))), None
        if len(found) < n_killed:
            own = calls[kind]
            name = max(own, key=lambda call: (left[call], rng.random()))
            left[name] -= 1
            point = Point(name, int(rng.integers(1, own[name] + 1)), str(rng.choice(MODES)))
        found.append(Writer(kind, number, point))
    return found
