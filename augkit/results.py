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
        try:
            found = json.loads(self._path(task).read_bytes())
            if found["task"] != task:
                return None
            return np.array(found["probabilities"], np.float32)
        except (OSError, ValueError, KeyError, TypeError):
            return None  # absent or damaged: computed again

    def write(self, task: dict[str, Any], probabilities: np.ndarray) -> None:
        """Keep the outcome of a task. Raises StoreError if the disk refuses."""
        content = canonical({"task": task, "probabilities": probabilities.tolist()})
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
