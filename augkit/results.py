"""Results of tasks: each written once, atomically, under the hash of the task."""

from __future__ import annotations

import errno
import json
import logging
from contextlib import nullcontext
from dataclasses import astuple, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from augkit.errors import DamagedStore, StoreError
from augkit.interfaces import Look
from augkit.store import durable
from augkit.store.entries import LARGEST_ENTRY
from augkit.store.format import canonical, digest_of, signed, unsigned
from augkit.store.plain import read_plain
from augkit.store.standing import Guard

log = logging.getLogger("augkit")

_NOT_OURS = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What comes of a file that holds something else than was written here."""


@dataclass(frozen=True)
class Result:
    """What a fit left."""

    probabilities: np.ndarray
    """float32 (N, classes), of the test images."""
    looks: tuple[Look, ...] = ()
    """At the validation part; none where the classifier does not tell."""


def are_probabilities(found: np.ndarray) -> bool:
    """Return True for numbers (N, K) of which each row sums to 1."""
    if found.ndim != 2 or not np.isfinite(found).all() or (found < 0).any():
        return False
    return bool((abs(found.sum(axis=1, dtype=np.float64) - 1) <= 1e-4).all())


def _look(step: Any, train_loss: Any, validation_loss: Any) -> Look:
    """Return a look. Raises ValueError or the like for what is none."""
    look = Look(int(step), float(train_loss), float(validation_loss))
    if not (isfinite(look.train_loss) and isfinite(look.validation_loss)):
        raise ValueError("a loss is no number")
    return look


@dataclass(frozen=True)
class Results:
    """A folder with one JSON file a task; deleting it costs time and nothing else."""

    folder: Path
    guard: Guard = nullcontext
    """Held while one is written."""

    def read(self, task: dict[str, Any]) -> Result | None:
        """Return the outcome of a task; None if not computed yet."""
        found = self._read(task)
        try:
            looks = tuple(_look(*look) for look in found.get("looks", ()))
            probabilities = np.array(found["probabilities"], np.float32)
        except _NOT_OURS:
            return None
        return Result(probabilities, looks) if are_probabilities(probabilities) else None

    def write(self, task: dict[str, Any], result: Result) -> None:
        """Keep the outcome of a task. Raises StoreError if the disk refuses."""
        fields: dict[str, Any] = {"probabilities": result.probabilities.tolist()}
        if result.looks:
            fields["looks"] = [astuple(look) for look in result.looks]
        self._write(task, fields)

    def forget(self, task: dict[str, Any]) -> None:
        """Keep the outcome of a task no longer."""
        self._path(task).unlink(missing_ok=True)

    def recall(self, task: dict[str, Any]) -> dict[str, Any] | None:
        """Return what `remember` kept under this name, or None."""
        found = self._read(task).get("value")
        return found if isinstance(found, dict) else None

    def remember(self, task: dict[str, Any], value: dict[str, Any]) -> None:
        """Keep JSON values under a name. Raises StoreError if the disk refuses."""
        self._write(task, {"value": value})

    def _read(self, task: dict[str, Any]) -> dict[str, Any]:
        """Return what the file of a task holds; nothing if it is absent, damaged or changed."""
        try:
            found = unsigned(json.loads(read_plain(self._path(task), LARGEST_ENTRY)))
            return found if found and found["task"] == task else {}
        except (OSError, DamagedStore, *_NOT_OURS):
            return {}

    def _write(self, task: dict[str, Any], fields: dict[str, Any]) -> None:
        content = canonical(signed({"task": task} | fields))
        try:
            with self.guard():
                durable.rewrite(self._path(task), content)
        except PermissionError:
            log.warning("results are not kept: %s cannot be written to", self.folder)
        except OSError as error:
            if error.errno == errno.EROFS:
                log.warning("results are not kept: %s is read-only", self.folder)
                return
            raise StoreError(f"cannot write to {self.folder}: {error.strerror}") from error

    def _path(self, task: dict[str, Any]) -> Path:
        return self.folder / f"{digest_of(task)}.json"
