"""Running tasks with Ray: on this machine or on a cluster whose machines may come and go."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TextIO, TypeVar, cast

from augkit.engines.engine import SHORTEST, Ended, attempt, check, describe, died, late, pack
from augkit.errors import OptionError

T = TypeVar("T")

log = logging.getLogger("augkit")

LOOK_EVERY = 1.0
"""Seconds between two looks at the tasks, even if none of them says anything."""

News = tuple[Literal["begun", "ended", "died"], str | None, str]
"""What a task says of itself, its failure or the cause of its death, and a traceback."""


@dataclass(frozen=True)
class RayEngine:
    """Runs tasks with Ray.

    address: of a cluster; None: a Ray of its own on this machine. A Ray that this process is
    connected to already is used, and left running. cpus_per_task, gpus_per_task: what a task
    occupies, also in parts. retries: how often a task is begun again after its process or machine
    died. timeout: seconds a task may take once it runs. What a task prints goes to stderr.
    """

    address: str | None = None
    cpus_per_task: float = 1
    gpus_per_task: float = 0
    retries: int = 3
    timeout: float | None = None

    def run(self, function: Callable[[T], None], items: Sequence[T]) -> Iterator[Ended]:
        """Yield how each task ended, as `Engine` says."""
        check("cpus_per_task", self.cpus_per_task, 0.01)
        check("gpus_per_task", self.gpus_per_task, 0)
        check("retries", self.retries, 0)
        check("timeout", self.timeout, SHORTEST)
        from ray import cloudpickle

        return self._run(
            pack(cloudpickle.dumps, "the function", function),
            [pack(cloudpickle.dumps, f"item {i}", item) for i, item in enumerate(items)],
        )

    def _run(self, function: bytes, items: list[bytes]) -> Iterator[Ended]:
        """Yield the ends; shut Ray down if it was started here."""
        import ray

        if ray.is_initialized():
            yield from _Tasks(self, function, items).run()
            return
        with contextlib.redirect_stdout(cast(TextIO, _Stdout(sys.stdout))):
            try:
                self._connect()
                yield from _Tasks(self, function, items).run()
            finally:
                with contextlib.redirect_stdout(sys.stderr):
                    ray.shutdown()

    def _connect(self) -> None:
        import ray

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a study tells nobody that it runs
        try:
            self._knock()
            ray.init(
                self.address or "local",
                include_dashboard=False,
                logging_level=logging.ERROR,
            )
        except (OSError, ValueError) as error:
            raise OptionError(
                f"no Ray cluster answers at {self.address!r} ({describe(error)}); without "
                "--address this machine does the work"
            ) from error

    def _knock(self) -> None:
        """Raise OSError or ValueError where nothing listens: Ray would try for minutes."""
        host, _, port = (self.address or "").rpartition(":")
        if host and "/" not in host:
            socket.create_connection((host, int(port)), timeout=10).close()


class _Tasks:
    """The tasks of one run: which wait, how often each was begun, and which Ray has."""

    def __init__(self, engine: RayEngine, function: bytes, items: list[bytes]) -> None:
        import ray

        self.engine = engine
        self.function = function
        self.items = items
        self.waiting = deque(range(len(items)))
        self.attempts = [0] * len(items)
        self.sent: dict[Any, int] = {}
        self.deadlines: dict[Any, float] = {}
        # Ray could begin a task again itself, but would not say how often it did.
        self.remote = ray.remote(_task).options(
            num_cpus=engine.cpus_per_task,
            num_gpus=engine.gpus_per_task,
            name="augkit",
            max_retries=0,
            num_returns="streaming",
        )

    def run(self) -> Iterator[Ended]:
        """Yield the ends, and leave no task."""
        import ray

        self.check_room()
        ends: list[Ended] = []
        try:
            while self.waiting or self.sent:
                self.hand_out()
                yield from ends
                ends = [end for stream in self.wait() for end in self.hear(stream)]
                ends += self.stop_late()
            yield from ends
        finally:
            for stream in self.sent:
                ray.cancel(stream, force=True)

    def check_room(self) -> None:
        """Refuse tasks that never fit this machine; a cluster may still grow."""
        if self.room():
            return
        needs = f"{self.engine.cpus_per_task:g} CPUs and {self.engine.gpus_per_task:g} GPUs"
        if self.engine.address is None:
            raise OptionError(f"no machine of this Ray has the {needs} that a task needs")
        log.warning("no machine of the cluster has the %s that a task needs; waiting", needs)

    def room(self) -> int:
        """Return how many tasks the machines that are there now can run at once."""
        import ray

        needs = {"CPU": self.engine.cpus_per_task, "GPU": self.engine.gpus_per_task}
        return sum(
            min(int(node["Resources"].get(name, 0) / need) for name, need in needs.items() if need)
            for node in ray.nodes()
            if node["Alive"]
        )

    def hand_out(self) -> None:
        """Send Ray more tasks than it can run: no worker waits, and a cluster sees it must grow."""
        n_wanted = 2 * self.room() + 2 - len(self.sent)
        for _ in range(min(n_wanted, len(self.waiting))):
            index = self.waiting.popleft()
            self.attempts[index] += 1
            stream = self.remote.remote(self.function, self.items[index], sys.path)
            self.sent[stream] = index

    def wait(self) -> list[Any]:
        """Wait until a task speaks, is late, or it is time to look; return all that speak."""
        import ray

        seconds = min(self.deadlines.values(), default=math.inf) - time.monotonic()
        streams: list[Any] = list(self.sent)
        ray.wait(streams, timeout=max(0.0, min(LOOK_EVERY, seconds)))
        return ray.wait(streams, num_returns=len(streams), timeout=0)[0]

    def hear(self, stream: Any) -> list[Ended]:
        """Take note of what a task says, and return its end if that is what it says."""
        index = self.sent[stream]
        news, text, trace = _next(stream)
        sys.stderr.write(trace)
        if news == "begun":
            self.deadlines[stream] = time.monotonic() + (self.engine.timeout or math.inf)
            return []
        self.forget(stream)
        if news == "died":
            if self.attempts[index] <= self.engine.retries:
                self.waiting.append(index)
                return []
            text = died(text or "", self.attempts[index])
        return [Ended(index, text, self.attempts[index])]

    def stop_late(self) -> list[Ended]:
        """End the tasks that take too long, and return them."""
        import ray

        ends: list[Ended] = []
        for stream, deadline in list(self.deadlines.items()):
            if time.monotonic() >= deadline:
                index = self.forget(stream)
                ray.cancel(stream, force=True)
                ends.append(Ended(index, late(self.engine.timeout or 0), self.attempts[index]))
        return ends

    def forget(self, stream: Any) -> int:
        """Return the index of a task that is not Ray's any more."""
        self.deadlines.pop(stream, None)
        return self.sent.pop(stream)


def _task(function: bytes, item: bytes, path: list[str]) -> Iterator[News]:
    """Run in a worker of Ray: say when a task begins, and how it ends."""
    sys.path += [place for place in path if place not in sys.path]  # to find the same modules
    yield "begun", None, ""
    traces = io.StringIO()  # what a worker prints last may not arrive before Ray is shut down
    yield "ended", attempt(function, item, traces), traces.getvalue()


def _next(stream: Any) -> News:
    """Return what a task says next; that it died, Ray says."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        news: News = ray.get(next(stream))
    except RayTaskError as error:
        return "ended", describe(error.cause), ""
    except RayError as error:
        return "died", type(error).__name__, ""
    return news


class _Stdout:
    """Stands in for sys.stdout: what the threads of Ray print goes to stderr instead."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write to one or the other."""
        is_ray = threading.current_thread().name.startswith("ray_")
        return (sys.stderr if is_ray else self._stream).write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
