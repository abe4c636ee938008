"""A package of plugins that is new here is first imported in a child process.

What exits at import, crashes the interpreter or never ends, does so there. A package that came
through is noted by the hash of its RECORD and imported at once from then on.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

from augkit.examined import examined
from augkit.provenance import record_hash

PATIENCE = 60.0
"""Seconds that the modules of all new packages may take together."""


def rehearse(points: Sequence[EntryPoint], patience: float = PATIENCE) -> dict[EntryPoint, str]:
    """Return which entry points must not be loaded, each with the reason in words."""
    faults: dict[EntryPoint, str] = {}
    waiting = [point for point in points if _name(point) not in examined]
    while waiting:
        done, ended = _import_in_child([point.module for point in waiting], patience)
        for point in waiting[:done]:
            examined.add(_name(point))
        if done < len(waiting):
            faults[waiting[done]] = f"importing {waiting[done].module} {ended}"
        waiting = waiting[done + 1 :]
    return faults


def _name(point: EntryPoint) -> str:
    """Return what changes whenever a package does, or Python; of an editable one, its module."""
    dist = point.dist
    about = [sys.version, sys.prefix, point.value, record_hash(dist) if dist else ""]
    with contextlib.suppress(ImportError, ValueError, OSError, AttributeError):
        spec = importlib.util.find_spec(point.module.split(".")[0])
        if spec is not None and spec.origin:
            held = Path(spec.origin).stat()
            about.append(f"{spec.origin} {held.st_size} {held.st_mtime_ns}")
    return hashlib.sha256(repr(about).encode()).hexdigest()[:32]


def _import_in_child(modules: Sequence[str], patience: float) -> tuple[int, str]:
    """Return how many modules could be imported, or failed to be in an orderly way, in order.

    And in words how the child ended where these are not all.
    """
    asked = json.dumps({"path": sys.path, "modules": list(modules)})
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
    how = f"signal {-code}" if code < 0 else f"exit status {code}"
    return _count(child.stdout), f"ends the process with {how}"


_CHILD = "from augkit.rehearsal import serve; serve()"


def _count(said: bytes | None) -> int:
    return (said or b"").count(b"\n")


def serve() -> None:
    """Import the modules that stdin names, and write a line after each."""
    asked = json.load(sys.stdin)
    channel = os.dup(1)
    os.dup2(2, 1)  # what a plugin prints does not come between
    for module in asked["modules"]:
        with contextlib.suppress(Exception, SystemExit):  # `registry` says so itself
            importlib.import_module(module)
        os.write(channel, b"done\n")
    os._exit(0)  # whatever threads were started
