"""Stopping long work in a moment that suits it: what was asked for by Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from augkit.interfaces import never

log = logging.getLogger("augkit")


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yield a question: has the user, or the machine, asked to stop since the block began?

    The first signal only turns the answer to True; a second one acts as it always does. At the end
    of the block a request that was answered by ending early raises KeyboardInterrupt. In other
    threads than the main one the answer is False; a signal that others handle, or that is ignored,
    as Ctrl-C is in a job in the background, stays as it is.
    """
    handlers: dict[int, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
    }
    usual = {number: h for number, h in handlers.items() if signal.getsignal(number) == h}
    if threading.current_thread() is not threading.main_thread() or not usual:
        yield never
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        restore()
        log.warning("stopping at the next step; once more stops at once")

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    for number in usual:
        signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        restore()
    if came:
        raise KeyboardInterrupt


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back to the end of the block.

    For where Python would drop it: inside HDF5 it would come up in a callback of the garbage
    collector, and while a process forks in one of those that follow. Does nothing in other threads
    than the main one, where none is raised, and where Ctrl-C is ignored.
    """
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if came:
            usual(signal.SIGINT, None)
