"""What an engine is: it runs independent tasks somewhere and says how each ended."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any, Protocol, TextIO, TypeVar

from augkit.errors import AugkitError, OptionError, cause

T = TypeVar("T")

LONGEST = 2000
"""Characters of a failure that are kept."""

SHORTEST = 0.1
"""Seconds: the least timeout of a task."""


@dataclass(frozen=True)
class Ended:
    """How one task ended."""

    index: int
    """Of the item."""
    failure: str | None
    """One plain line; None: it ended well."""
    attempts: int
    """How often it was begun."""


class Engine(Protocol):
    """Runs tasks that need nothing of each other; each stores its own result."""

    def run(self, function: Callable[[T], None], items: Sequence[T]) -> Iterator[Ended]:
        """Call function(item) for every item, in any order, and yield how each ended as it ends.

        A task that fails, crashes or takes too long spoils no other. A task may be begun again
        after a crash, so it must do no harm twice. Tasks are handed out while the caller waits for
        the next end: a caller who works long on one leaves workers idle. When the iterator ends,
        fails or is closed, nothing is left running. Raises OptionError for options that cannot be
        met, AugkitError for a function or an item that cannot be sent to another process.
        """


def choose_engine(
    name: str,
    *,
    workers: int | None,
    timeout: float | None,
    gpus_per_task: float,
    address: str | None,
) -> Engine:
    """Return an engine: `local`, child processes of this machine, or `ray`.

    workers: of `local`; None: one a GPU, or else one a core. timeout: seconds a task may take.
    gpus_per_task and address: of `ray`; without an address it runs on this machine. Raises
    OptionError for an unknown name, an option of the other engine, or where Ray is missing.
    """
    if name == "local":
        if address is not None or gpus_per_task:
            given = "address" if address is not None else "gpus_per_task"
            raise OptionError(f"engine 'local' takes no {given}; engine 'ray' does")
        from augkit.engines.processes import LocalEngine

        return LocalEngine(workers, timeout)
    if name == "ray":
        if workers is not None:
            raise OptionError(
                "engine 'ray' takes no workers; it begins as many tasks as the cluster has room for"
            )
        if importlib.util.find_spec("ray") is None:
            raise OptionError("engine 'ray' needs the extra: pip install \"augkit[ray]\"")
        from augkit.engines.cluster import RayEngine

        return RayEngine(address, gpus_per_task=gpus_per_task, timeout=timeout)
    raise OptionError(f"engine is {name!r}; it is one of: local, ray")


def check(name: str, value: float | None, least: float) -> None:
    """Raise OptionError if an option is given and is under its least value."""
    if value is not None and not value >= least:
        raise OptionError(f"{name} is {value}; it must be at least {least}")


def pack(dumps: Callable[[Any], bytes | memoryview], name: str, thing: object) -> bytes:
    """Return a function or an item pickled; raises AugkitError, with its name, if it cannot be."""
    try:
        return bytes(dumps(thing))
    except Exception as error:
        raise AugkitError(
            f"{name} cannot be sent to another process ({describe(error)}); "
            "use a function of a module, and plain data"
        ) from error


def attempt(function: bytes, item: bytes, traces: TextIO | None = None) -> str | None:
    """Call a packed function on a packed item and return what went wrong, in one line.

    traces: where the traceback of anything but an AugkitError goes; None: to stderr.
    """
    try:
        ForkingPickler.loads(function)(ForkingPickler.loads(item))
    except BaseException as error:
        if not isinstance(error, AugkitError):
            traceback.print_exc(file=traces or sys.stderr)
        return describe(error)
    return None


def describe(error: BaseException) -> str:
    """Return an error as one line: the message of an AugkitError, else its type as well."""
    message = " ".join(str(error).split()) if isinstance(error, AugkitError) else cause(error)
    return message[:LONGEST]


def died(cause: str, attempts: int) -> str:
    """Return the failure of a task whose worker process died in every attempt."""
    often = f", {attempts} times" if attempts > 1 else ""
    return f"the worker process died ({cause}){often}"


def late(timeout: float) -> str:
    """Return the failure of a task that was stopped after `timeout` seconds."""
    return f"took longer than {timeout:g} seconds"
