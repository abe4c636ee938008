"""Running tasks in child processes of this machine, any of which may crash, hang or be killed."""

from __future__ import annotations

import atexit
import contextlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Literal, TypeVar

from augkit.engines.engine import SHORTEST, Ended, attempt, check, died, late, pack
from augkit.engines.local import usable_cores
from augkit.errors import AugkitError

T = TypeVar("T")

LOOK_EVERY = 1.0
"""Seconds between two looks at the children, even if none of them says anything."""

GRACE = 5.0
"""Seconds that idle children have to end by themselves."""

State = Literal["busy", "free", "dead", "late"]


@dataclass(frozen=True)
class LocalEngine:
    """Runs tasks in persistent child processes, each one task at a time.

    workers: by default one a GPU, or `usable_cores()` without any. timeout: seconds a task may
    take. retries: how often a task is begun again after its process died. threads: of each child,
    by default its share of the cores. With GPUs each child sees one. What a child prints goes to
    stderr.
    """

    workers: int | None = None
    timeout: float | None = None
    retries: int = 2
    threads: int | None = None

    def run(self, function: Callable[[T], None], items: Sequence[T]) -> Iterator[Ended]:
        """Yield how each task ended, as `Engine` says."""
        check("workers", self.workers, 1)
        check("timeout", self.timeout, SHORTEST)
        check("retries", self.retries, 0)
        check("threads", self.threads, 1)
        gpus = visible_gpus()
        workers = self.workers or len(gpus) or usable_cores()
        threads = self.threads or max(1, usable_cores() // workers)
        tasks = _Tasks(
            pack(ForkingPickler.dumps, "the function", function),
            [pack(ForkingPickler.dumps, f"item {i}", item) for i, item in enumerate(items)],
            [_environment_of(slot, threads, gpus) for slot in range(min(workers, len(items)))],
            timeout=self.timeout,
            retries=self.retries,
        )
        return tasks.run()


def visible_gpus() -> list[str]:
    """Return the CUDA devices that this process may use, named as in CUDA_VISIBLE_DEVICES.

    torch is asked, and so loaded, only where something points to a device.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None and not any(Path("/dev").glob("nvidia[0-9]*")):
        return []
    if named is not None and named.strip() in ("", "-1"):
        return []
    import torch

    n_gpus = torch.cuda.device_count()
    names = [str(i) for i in range(n_gpus)] if named is None else named.split(",")
    return [name.strip() for name in names[:n_gpus]]


def _environment_of(slot: int, threads: int, gpus: list[str]) -> dict[str, str]:
    """Return the environment variables that set one child apart from its parent."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    variables = dict.fromkeys(names, str(threads))
    if gpus:
        variables["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return variables


class _Tasks:
    """The tasks of one run: which wait, how often each was begun, and the children at work."""

    def __init__(
        self,
        function: bytes,
        items: list[bytes],
        environments: list[dict[str, str]],
        *,
        timeout: float | None,
        retries: int,
    ) -> None:
        self.function = function
        self.items = items
        self.environments = environments
        self.timeout = timeout
        self.retries = retries
        self.waiting = deque(range(len(items)))
        self.attempts = [0] * len(items)
        self.failed_starts = 0
        self.workers: dict[int, _Worker] = {}

    def run(self) -> Iterator[Ended]:
        """Yield the ends, and leave no child."""
        atexit.register(self.kill)  # else multiprocessing waits there for the children to end
        n_left = len(self.items)
        ends: list[Ended] = []
        try:
            while n_left:
                self.hand_out()
                yield from ends
                self.wait()
                ends = self.look()
                n_left -= len(ends)
            yield from ends
            self.close()
        finally:
            self.kill()
            atexit.unregister(self.kill)

    def hand_out(self) -> None:
        """Start the children that are missing, and give each idle one a task."""
        for slot, variables in enumerate(self.environments):
            if self.waiting and slot not in self.workers:
                with _interrupts_held():
                    self.workers[slot] = _Worker(self.function, variables)
        for worker in self.workers.values():
            if self.waiting and worker.ready and worker.index is None:
                index = self.waiting.popleft()
                self.attempts[index] += 1
                worker.give(index, self.items[index], self.timeout)

    def wait(self) -> None:
        """Wait until a child says something, a task is late, or it is time to look."""
        deadline = min(worker.deadline for worker in self.workers.values())
        seconds = min(LOOK_EVERY, max(0.0, deadline - time.monotonic()))
        wait([worker.connection for worker in self.workers.values()], seconds)

    def look(self) -> list[Ended]:
        """Return the tasks that have ended; drop the children that died or were too slow."""
        ends: list[Ended] = []
        for slot, worker in list(self.workers.items()):
            index, state = worker.index, worker.look()
            if state == "free":
                self.failed_starts = 0
                if index is not None:
                    ends.append(Ended(index, worker.failure, self.attempts[index]))
            elif state == "late":
                assert index is not None and self.timeout is not None
                ends.append(Ended(index, late(self.timeout), self.attempts[index]))
                worker.kill()
                del self.workers[slot]
            elif state == "dead":
                ends += self.after_death(worker, worker.kill())
                del self.workers[slot]
        return ends

    def after_death(self, worker: _Worker, cause: str) -> list[Ended]:
        """Return the end of the task whose child died, if it is not to be begun again."""
        if worker.index is None:
            self.failed_starts += not worker.ready
            if self.failed_starts > self.retries:
                raise AugkitError(
                    f"worker processes die as they start ({cause}); a script that uses an engine "
                    "must begin its work under: if __name__ == '__main__':"
                )
            return []
        n_attempts = self.attempts[worker.index]
        if n_attempts > self.retries:
            return [Ended(worker.index, died(cause, n_attempts), n_attempts)]
        self.waiting.append(worker.index)
        return []

    def close(self) -> None:
        """Let the children, all idle now, end by themselves."""
        end = time.monotonic() + GRACE
        for worker in self.workers.values():
            worker.connection.close()
        for worker in self.workers.values():
            worker.process.join(max(0.0, end - time.monotonic()))

    def kill(self) -> None:
        """End the children at once."""
        for worker in self.workers.values():
            worker.kill()
        self.workers.clear()


class _Worker:
    """One child process and the task that it has."""

    def __init__(self, function: bytes, variables: dict[str, str]) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        # Not a daemon: those may have no children, and a task may load images in some of its own.
        self.process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(theirs, function), daemon=False
        )
        with _environment(variables):
            self.process.start()
        theirs.close()
        self.ready = False
        self.index: int | None = None
        self.failure: str | None = None
        self.deadline = math.inf

    def give(self, index: int, item: bytes, timeout: float | None) -> None:
        """Begin a task."""
        self.index = index
        self.deadline = math.inf if timeout is None else time.monotonic() + timeout
        with contextlib.suppress(OSError):  # it died just now: the next look says so
            self.connection.send_bytes(item)

    def look(self) -> State:
        """Return what the child is; `free` once for each task, with its failure."""
        alive = self.process.is_alive()  # asked first: what it said before its death still counts
        try:
            if self.connection.poll():
                self.failure = self.connection.recv()
                self.ready, self.index, self.deadline = True, None, math.inf
                return "free"
        except (EOFError, OSError):
            self.process.join(1)  # it is about to end, and has a cause to tell
            alive = False
        if not alive:
            return "dead"
        return "late" if time.monotonic() >= self.deadline else "busy"

    def kill(self) -> str:
        """End the child and what it started; return how it ended."""
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()  # it may have no group yet
        self.process.join()
        self.connection.close()
        code = self.process.exitcode or 0
        return f"signal {-code}" if code < 0 else f"exit status {code}"


def _serve(connection: Connection, function: bytes) -> None:
    """Do the tasks that come, one after the other: the whole life of a child process."""
    os.setsid()  # a group of its own, which is killed as a whole
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    with contextlib.suppress(EOFError, OSError):  # the parent has closed its end
        connection.send(None)
        while True:
            connection.send(attempt(function, connection.recv_bytes()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(0, signal.SIGKILL)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the block; a child that is started in it keeps them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait until the end of the block; a child that is started in it holds it too."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
