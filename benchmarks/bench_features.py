"""Features from the cache against computing them, and against one plain file of NumPy.

    python -m benchmarks.bench_features --csv benchmarks/results/features.csv

Phantoms of 192x160 in a store; the features are those of the classifier `linear`. Finding includes
the checksums of all files, which lie in the page cache, for all alike. Keeping ends with the bytes
on the disk (fsync).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import augkit as ak
from augkit.descriptors import describe
from augkit.features import FeatureCache
from augkit.interfaces import ArraySamples, Samples, extract
from augkit.store import DatasetStore
from augkit.testing import phantoms
from benchmarks import runner

N, HEIGHT, WIDTH = 900, 160, 192
MANY, COLUMNS = 15_000, 1280
"""A large evaluation: rows, and the features that a MobileNet or an EfficientNet has."""


def cases() -> Iterator[runner.Case]:
    """Yield keeping and finding the features of phantoms, then finding those of many rows."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("AUGKIT_BENCH_FOLDER")) as name:
        store = store_of_phantoms(Path(name) / "phantoms.store")
        samples, folder = store.snapshot().inspect(), store.side_folder("cache")
        compute = {"augkit describe": lambda: extract("describe", describe, samples)}
        yield runner.Case("compute and keep", lambda: kept(folder, samples), compute, N)
        kept(folder, samples)
        yield runner.Case("find", lambda: found(folder, samples), compute, N)
        yield many(Path(name) / "many")


def many(folder: Path) -> runner.Case:
    """Return finding the features of a large evaluation, a plain file as the peer."""
    samples = ArraySamples(np.zeros((MANY, 1, 1, 1), np.uint8), np.zeros(MANY, np.int64))
    rng = np.random.default_rng(0)
    values = FeatureCache(folder)(
        "describe", lambda x: rng.random((len(x), COLUMNS), np.float32), samples
    )
    np.save(folder / "plain.npy", values)
    plain = {"numpy load": lambda: np.load(folder / "plain.npy")}
    return runner.Case("find 15000 x 1280", lambda: found(folder, samples), plain, MANY)


def store_of_phantoms(path: Path) -> DatasetStore:
    images, _, labels = phantoms(N // 3, height=HEIGHT, width=WIDTH)
    store = DatasetStore.create(path, height=HEIGHT, width=WIDTH, channels=1)
    names = [f"class {label}" for label in labels]
    keys = [f"{i}.png" for i in range(N)]
    ak.ingest_arrays(store, [images], names, keys=keys, find_relatives=False)
    return store


def kept(folder: Path, samples: Samples) -> np.ndarray:
    """Compute and keep the features, as the first evaluation does."""
    shutil.rmtree(folder, ignore_errors=True)
    return FeatureCache(folder)("describe", describe, samples)


def found(folder: Path, samples: Samples) -> np.ndarray:
    """Find the features, as the next evaluation does."""
    return FeatureCache(folder)("describe", nothing, samples)


def nothing(images: np.ndarray) -> np.ndarray:
    raise AssertionError("features that were kept are computed again")


if __name__ == "__main__":
    runner.main("features", cases())
