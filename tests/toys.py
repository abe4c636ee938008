"""Small stores for tests: random images, no two alike, made in milliseconds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import augkit as ak
from augkit.store import DatasetStore

DATA = Path(os.environ.get("AUGKIT_DATA") or Path(__file__).parents[2] / "shared" / "data")
"""Where real images may lie; tests that need them are skipped where they do not."""

CLASSES = ("benign", "malignant", "normal")
SHAPE = (24, 32, 1)


def images(n: int, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Return uint8 (n, H, W, C) of noise: nothing in it resembles anything else."""
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


def labels(n_per_class: int, classes: Sequence[str] = CLASSES) -> list[str]:
    """Return n labels of each class, class by class."""
    return [c for c in classes for _ in range(n_per_class)]


def toy_store(
    path: Path,
    n_per_class: int = 20,
    *,
    classes: Sequence[str] = CLASSES,
    shape: tuple[int, int, int] = SHAPE,
    groups: Sequence[str] | None = None,
    masks: bool = False,
    seed: int = 0,
) -> DatasetStore:
    """Return a store of either form (by the suffix of the path) with n images a class."""
    store = DatasetStore.create(path, height=shape[0], width=shape[1], channels=shape[2])
    names = labels(n_per_class, classes)
    pixels = images(len(names), seed, shape)
    ak.ingest_arrays(
        store,
        [pixels],
        names,
        keys=[f"{c}/{i}.png" for i, c in enumerate(names)],
        dataset="toy",
        groups=groups,
        masks=[np.where(pixels[..., 0] > 127, 255, 0).astype(np.uint8)] if masks else None,
        find_relatives=False,
    )
    return store


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def offer(monkeypatch: pytest.MonkeyPatch, *classes: type, version: str = "1.0") -> None:
    """Make classes known as plugins of the distribution `toys`, beside the installed ones."""
    from augkit import registry as module
    from augkit.interfaces import Classifier

    installed = module.registry()
    added = tuple(
        module.Plugin(
            c.name,
            "classifier" if issubclass(c, Classifier) else "augmenter",
            c.family,
            "toys",
            version,
            c,
        )
        for c in classes
    )
    together = module.Registry((*installed.plugins, *added), installed.failures)
    for user in ("augkit.recipes", "augkit.evaluation"):
        monkeypatch.setattr(f"{user}.registry", lambda: together)
