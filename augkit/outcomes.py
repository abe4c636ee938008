"""Outcomes: what evaluations and studies found, kept in the store for reports.

An outcome is one JSON file: the cells (data set and classifier) with their evaluation or the cause
why there is none, the line that makes it again, versions, and the commit that was evaluated.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import logging
import os
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from augkit import __version__
from augkit.errors import DamagedStore, PluginNotFound, StoreError
from augkit.outcome import Evaluation
from augkit.provenance import code_of
from augkit.registry import OWN_DISTRIBUTION, registry
from augkit.store import DatasetStore, Snapshot, durable
from augkit.store.entries import LARGEST_ENTRY
from augkit.store.format import canonical, digest_of, signed, unsigned
from augkit.store.plain import read_plain
from augkit.tables import typed

log = logging.getLogger("augkit")

_LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch", "torchvision", "timm", "h5py")


@dataclass(frozen=True)
class Cell:
    """One data set and one classifier."""

    dataset: str
    classifier: str
    evaluation: Evaluation | None
    failure: str | None = None
    """Why there is no evaluation."""

    def as_json(self) -> dict[str, Any]:
        """Return JSON values; how much of it a call computed is not part of what was found."""
        found = json.loads(self.evaluation.to_json()) if self.evaluation else None
        if found:
            del found["computed"]
        return {
            "dataset": self.dataset,
            "classifier": self.classifier,
            "evaluation": found,
            "failure": self.failure,
        }


def keep(
    store: DatasetStore,
    snapshot: Snapshot,
    cells: Sequence[Cell],
    command: str,
    asked: Mapping[str, Any] | None = None,
) -> None:
    """Write an outcome into the store; the same one again only makes it the newest.

    asked: what decides it besides the command. Says so where the store cannot be written to.
    Raises StoreError if the disk refuses.
    """
    about = {
        "kind": "augkit outcome",
        "version": __version__,
        "command": command,
        "commit": snapshot.number,
        "environment": _environment() | _packages(cells),
        "cells": [cell.as_json() for cell in cells],
    }
    outcome = signed(about)
    path = (
        store.side_folder("outcomes") / f"{digest_of([command, snapshot.number, asked])[:32]}.json"
    )
    try:
        before = json.loads(read_plain(path, LARGEST_ENTRY))
        if {k: v for k, v in before.items() if k != "created"} == outcome:
            os.utime(path)
            return
    except (OSError, DamagedStore, ValueError, AttributeError, RecursionError):
        pass  # not there yet, or damaged
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        with store.standing(snapshot).held():
            durable.rewrite(path, canonical({**outcome, "created": now}))
    except OSError as error:
        if not isinstance(error, PermissionError) and error.errno != errno.EROFS:
            raise StoreError(f"cannot write to {path.parent}: {error.strerror}") from error
        log.warning("the outcome is not kept: %s cannot be written to", path.parent)


def is_changed(outcome: Mapping[str, Any]) -> bool:
    """Return True if an outcome is not what `keep` wrote; without a digest it is taken as it is."""
    kept = {k: v for k, v in outcome.items() if k != "created"}
    return kept.get("digest") is not None and unsigned(kept) is None


def command_line(verb: str, options: Mapping[str, Any], flags: Mapping[str, Any]) -> str:
    """Return the line that does it again; flags that are None, False or empty are left out."""
    words = ["augkit", verb]
    for name, value in flags.items():
        if value is True:
            words.append(f"--{name}")
        elif value not in (None, False, (), [], ""):
            words += [f"--{name}", ",".join(value) if _is_list(value) else str(value)]
    for key, value in options.items():
        words += ["-o", f"{key}={value if isinstance(value, str) else typed(value)}"]
    return shlex.join(words)


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str)


def _packages(cells: Sequence[Cell]) -> dict[str, str]:
    """Return version and hash of the packages of others whose classifiers were evaluated."""
    found = {}
    for name in {cell.evaluation.classifier for cell in cells if cell.evaluation}:
        with contextlib.suppress(PluginNotFound):
            plugin = registry().find(name, "classifier")
            if plugin.distribution != OWN_DISTRIBUTION:
                (code,) = code_of([vars(plugin)])
                found[plugin.distribution] = f"{plugin.version}, RECORD {code['record'] or 'none'}"
    return found


def _environment() -> dict[str, str]:
    found = {"python": platform.python_version(), "augkit": __version__}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
