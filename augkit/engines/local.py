"""Running one function over many items on this machine, in order and in bounded memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from multiprocessing.process import BaseProcess
from typing import Any, Literal, TypeVar, get_args

from augkit.errors import AugkitError, OptionError
from augkit.interruption import interrupts_held

T = TypeVar("T")
R = TypeVar("R")

Backend = Literal["threads", "fork", "spawn", "forkserver"]
"""Threads of this process, or child processes started in one of three ways."""


MOST = 2048
"""Workers: beyond that a system may refuse to start them."""


def check_workers(name: str, count: int) -> None:
    """Raise OptionError unless this is a number of workers, or of items under way, that can be."""
    if not 1 <= count <= (MOST if name == "workers" else 2 * MOST):
        raise OptionError(f"{name} is {count}; it must be at least 1, and at most {MOST}")


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered_map(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    workers: int | None = None,
    backend: Backend = "threads",
    window: int | None = None,
    limit: float | None = None,
) -> Iterator[R]:
    """Yield function(item) for each item, in the order of the items.

    workers: by default `usable_cores()`; one worker is the caller's own thread. window: the most
    items begun but not yet yielded, by default twice the workers; items are taken no earlier than
    that. An exception in the function is raised in its place; nothing is begun after it. When the
    iterator ends, fails, or is closed, no worker is left: threads finish what they began, child
    processes are killed. Raises OptionError for bad arguments, AugkitError if a child process dies.

    limit: seconds that one item may take, else TimeoutError; child processes are killed then, a
    thread is left behind and ends with this process. One worker is then a thread of its own.
    """
    if workers is None:
        workers = usable_cores()
    if window is None:
        window = 2 * workers
    check_workers("workers", workers)
    check_workers("window", window)
    if backend not in get_args(Backend):
        raise OptionError(f"backend is {backend!r}; it is one of: {', '.join(get_args(Backend))}")
    if workers == 1 and limit is None:
        return (function(item) for item in items)
    pool: Executor
    if backend == "threads" or workers == 1:
        pool = ThreadPoolExecutor(workers, "augkit") if limit is None else _Threads(workers)
    else:
        context = multiprocessing.get_context(backend)
        pool = ProcessPoolExecutor(workers, context, _become_worker)
    return _run(pool, function, items, window, limit)


def _run(
    pool: Executor,
    function: Callable[[T], R],
    items: Iterable[T],
    window: int,
    limit: float | None,
) -> Iterator[R]:
    """Yield the results in order, with at most `window` items begun, and leave no worker."""
    waiting = iter(items)
    finished, late = False, False
    longest = None if limit is None else min(limit, threading.TIMEOUT_MAX)
    try:
        begun: deque[Future[R]] = deque()
        with interrupts_held():  # the first item starts the workers
            begun.extend(pool.submit(function, item) for item in islice(waiting, 1))
        begun.extend(pool.submit(function, item) for item in islice(waiting, window - 1))
        while begun:
            first = begun.popleft()  # which was begun no later than all others
            late = not wait([first], longest).done
            if late:
                raise TimeoutError(f"took longer than {limit:g} seconds")
            yield first.result()
            begun.extend(pool.submit(function, item) for item in islice(waiting, 1))
        finished = True
    except BrokenProcessPool as error:
        raise AugkitError(
            "a worker process died (killed, or out of memory?); run again with fewer workers"
        ) from error
    finally:
        if not finished:
            _kill_children(pool)
        hung = late and isinstance(pool, _Threads)
        pool.shutdown(wait=not hung, cancel_futures=True)


_GRACE = 5.0
"""Seconds that threads have to finish what they began."""


class _Threads(Executor):
    """Threads that the process does not wait for at its end, should one of them hang."""

    def __init__(self, workers: int):
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._jobs = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"augkit_{i}", daemon=True)
            for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        """Begin a call as soon as a thread is free."""
        future: Future[R] = Future()
        self._jobs.put((future, partial(fn, *args, **kwargs)))
        return future

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
            del job, future, call  # nothing is kept alive while there is nothing to do

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end; wait for them, but not for one that hangs."""
        if cancel_futures:
            with contextlib.suppress(queue.Empty):
                while job := self._jobs.get_nowait():
                    job[0].cancel()
        for _ in self._threads:
            self._jobs.put(None)
        end = time.monotonic() + _GRACE
        for thread in self._threads if wait else ():
            thread.join(max(0.0, end - time.monotonic()))


def _kill_children(pool: Executor) -> None:
    """Kill the child processes of a pool: what they work on is not wanted any more."""
    # ProcessPoolExecutor.kill_workers() does the same from Python 3.14 on.
    processes: dict[int, BaseProcess] = getattr(pool, "_processes", None) or {}
    for process in list(processes.values()):
        process.kill()
    # A child killed while it wrote a result leaves half of one in the pipe; unless our own end for
    # writing is closed as well, the thread that reads the results waits for the rest for ever.
    writer = getattr(getattr(pool, "_result_queue", None), "_writer", None)
    if writer is not None:
        writer.close()


def _become_worker() -> None:
    """Prepare a child process: only the parent answers Ctrl-C, and no child outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
