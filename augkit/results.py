"""Results of tasks: each written once, atomically, under the hash of the task."""

from __future__ import annotations

import errno
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from augkit.errors import StoreError
from augkit.store import durable
from augkit.store.format import canonical, digest_of

log = logging.getLogger("augkit")


@dataclass(frozen=True)
class Results:
    """A folder with one JSON file a task; deleting it costs time and nothing else."""

    folder: Path

    def read(self, task: dict[str, Any]) -> np.ndarray | None:
        """Return the probabilities float32 (N, classes) of a task; None if not computed yet."""
        found = self._read(task, "probabilities")
        try:
            return None if found is None else np.array(found, np.float32)
        except (ValueError, TypeError):
            return None

    def write(self, task: dict[str, Any], probabilities: np.ndarray) -> None:
        """Keep the outcome of a task. Raises StoreError if the disk refuses."""
        self._write(task, "probabilities", probabilities.tolist())

    def recall(self, task: dict[str, Any]) -> dict[str, Any] | None:
        """Return what `remember` kept under this name, or None."""
        found = self._read(task, "value")
        return found if isinstance(found, dict) else None

    def remember(self, task: dict[str, Any], value: dict[str, Any]) -> None:
        """Keep JSON values under a name. Raises StoreError if the disk refuses."""
        self._write(task, "value", value)

    def _read(self, task: dict[str, Any], field: str) -> Any:
        try:
            found = json.loads(self._path(task).read_bytes())
            return found[field] if found["task"] == task else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # absent or damaged: computed again

    def _write(self, task: dict[str, Any], field: str, value: Any) -> None:
        content = canonical({"task": task, field: value})
        try:
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
