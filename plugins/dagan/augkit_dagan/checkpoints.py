"""Checkpoints: the state of one class in one safetensors file, replaced atomically."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from augkit.errors import TrainingFailed
from augkit.store import durable
from augkit.store.format import canonical
from augkit.store.plain import is_hollow

State = dict[str, Tensor]


def write(folder: Path, label: int, state: State, about: dict[str, Any]) -> None:
    """Replace the checkpoint of a class. Raises StoreError if the disk refuses; the old one stays.

    about: JSON values that say what the state belongs to.
    """
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    known = {"about": canonical(about).decode(), "sha256": _digest(tensors, about)}
    content = save(tensors, known)
    with durable.writing(folder):
        durable.rewrite(_path(folder, label), content)


def read(folder: Path, label: int) -> tuple[State, dict[str, Any], Path] | None:
    """Return the state of a class, what it belongs to, and its file; None if there is none.

    Raises TrainingFailed if a byte is not as written.
    """
    from safetensors import SafetensorError, safe_open

    path = _path(folder, label)
    if not path.exists():
        return None
    try:
        if is_hollow(path.lstat()):
            raise ValueError("a hole")
        with safe_open(path, "pt") as file:
            known = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = json.loads(known["about"])
        intact = known["sha256"] == _digest(state, about)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        intact = False
    if not intact:
        raise TrainingFailed(
            f"checkpoint {path} is damaged: its bytes are not those that were written. Remove it, "
            "and this class is trained from the beginning; the others go on"
        )
    return state, about, path


def foreign(path: Path) -> TrainingFailed:
    """Return the error for a checkpoint of another training."""
    return TrainingFailed(
        f"checkpoint {path} is of another training (other options, images or networks). "
        "Remove it, and this class is trained from the beginning"
    )


def _digest(state: State, about: dict[str, Any]) -> str:
    total = hashlib.sha256(canonical(about))
    for name in sorted(state):
        array = state[name].numpy()
        total.update(f"{name} {array.dtype} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _path(folder: Path, label: int) -> Path:
    return folder / f"checkpoint-{label}.safetensors"
