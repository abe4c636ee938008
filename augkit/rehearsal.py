"""A package of plugins that is new here is first imported, and asked for them, in a child process.

What exits, crashes the interpreter or never ends, at import or in a hook, does so there. A package
that came through is noted by the hash of its RECORD and imported at once from then on.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

from augkit.examined import examined
from augkit.provenance import record_hash

_THREAD = 77
"""Exit status of a child in which a thread was left that every command would wait for."""
_SHORT = 2.0
"""Seconds that such a thread has to end."""
_RULES = "with hooks"
"""Changes whenever more is rehearsed: then packages that are known are so no longer."""
PATIENCE = 60.0
"""Seconds that the modules of all new packages may take together."""


def rehearse(points: Sequence[EntryPoint], patience: float = PATIENCE) -> dict[EntryPoint, str]:
    """Return which entry points must not be loaded, each with the reason in words."""
    faults: dict[EntryPoint, str] = {}
    waiting = [point for point in points if _name(point) not in examined]
    while waiting:
        done, ended = _load_in_child(waiting, patience)
        for point in waiting[:done]:
            examined.add(_name(point))
        if done < len(waiting):
            faults[waiting[done]] = f"importing {waiting[done].module} {ended}"
        waiting = waiting[done + 1 :]
    return faults


def _name(point: EntryPoint) -> str:
    """Return what changes whenever a package does, or Python; of an editable one, its module."""
    dist = point.dist
    about = [_RULES, sys.version, sys.prefix, point.value, record_hash(dist) if dist else ""]
    with contextlib.suppress(ImportError, ValueError, OSError, AttributeError):
        spec = importlib.util.find_spec(point.module.split(".")[0])
        if spec is not None and spec.origin:
            held = Path(spec.origin).stat()
            about.append(f"{spec.origin} {held.st_size} {held.st_mtime_ns}")
    return hashlib.sha256(repr(about).encode()).hexdigest()[:32]


def _load_in_child(points: Sequence[EntryPoint], patience: float) -> tuple[int, str]:
    """Return how many modules could be loaded, or failed to be in an orderly way, in order.

    And in words how the child ended where these are not all.
    """
    asked = json.dumps([(point.name, point.value, point.group) for point in points])
    command = [sys.executable, "-P", "-B", "-c", f"import sys; sys.path = {sys.path!r}\n{_CHILD}"]
    try:
        child = subprocess.run(
            command,
            input=asked.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=patience,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return _count(late.stdout), f"has not ended after {patience:g} s"
    code = child.returncode
    if code == _THREAD:
        return _count(child.stdout), "leaves a thread behind that does not end"
    how = f"signal {-code}" if code < 0 else f"exit status {code}"
    return _count(child.stdout), f"ends the process with {how}"


_CHILD = "from augkit.rehearsal import serve; serve()"


def _count(said: bytes | None) -> int:
    return (said or b"").count(b"\n")


def serve() -> None:
    """Load what the entry points offer that stdin names, and write a line after each."""
    from augkit.registry import offered_by

    asked = json.load(sys.stdin)
    channel = os.dup(1)
    os.dup2(2, 1)  # what a plugin prints does not come between
    for about in asked:
        list(offered_by(EntryPoint(*about)))  # the parent will say itself what is wrong
        _require_no_thread()
        os.write(channel, b"done\n")
    os._exit(0)  # whatever threads were started


def _require_no_thread() -> None:
    """End this process if a thread is left for which it would wait at its end."""
    for thread in threading.enumerate():
        if not (thread.daemon or thread is threading.main_thread()):
            thread.join(_SHORT)
            if thread.is_alive():
                os._exit(_THREAD)
