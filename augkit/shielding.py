"""What a package changes at import for the whole process, put back: other plugins live here too."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator

import numpy as np


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Put back, after the block, what anybody in this process relies on.

    The current folder, handlers of signals, how NumPy and Python treat errors and warnings, what is
    logged, and how deep calls may go. What a package prints meanwhile goes to stderr: stdout is for
    results.
    """
    back = [*_states()]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        for put_back in back:
            put_back()


def _states() -> Iterator[Callable[[], object]]:
    """Yield what puts each of these back as it is now."""
    yield _folder()
    if threading.current_thread() is threading.main_thread():
        yield _handlers()
    errors, depth, silenced = np.geterr(), sys.getrecursionlimit(), logging.root.manager.disable
    yield lambda: np.seterr(**errors)
    yield lambda: sys.setrecursionlimit(depth)
    yield lambda: logging.disable(silenced)
    yield _filters()


def _folder() -> Callable[[], object]:
    try:
        before = os.getcwd()  # noqa: PTH109
    except OSError:  # it was deleted
        return lambda: None

    def put_back() -> None:
        with contextlib.suppress(OSError):
            os.chdir(before)

    return put_back


def _handlers() -> Callable[[], object]:
    named = (signal.SIGINT, signal.SIGTERM)
    before = [(number, signal.getsignal(number)) for number in named]

    def put_back() -> None:
        for number, handler in before:
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)

    return put_back


def _filters() -> Callable[[], object]:
    """Only warnings that became errors are put back: a package may well silence its own."""
    before = list(warnings.filters)

    def put_back() -> None:
        new = [f for f in warnings.filters if f[0] == "error" and f not in before]
        if new:
            kept = [f for f in warnings.filters if f not in new]
            warnings.resetwarnings()
            warnings.filters[:] = kept  # type: ignore[index]

    return put_back
