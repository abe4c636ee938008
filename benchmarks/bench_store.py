"""The store against np.memmap and the plain idioms of h5py.

    python -m benchmarks.bench_store --csv benchmarks/results/store.csv

Grey images of 192x160, in blocks of 64. Everybody writes the same images and ends with the bytes on
the disk (fsync); our time includes the checksum of every image and the SHA-256 of the shard.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from augkit.store.shards import Shard, ShardWriter
from benchmarks import runner

N, HEIGHT, WIDTH, BLOCK = 2048, 160, 192, 64
SHAPE = (HEIGHT, WIDTH, 1)


def cases() -> Iterator[runner.Case]:
    """Yield writing, reading in order, and reading shuffled batches."""
    images = np.random.default_rng(0).integers(0, 256, (N, *SHAPE), np.uint8)
    with tempfile.TemporaryDirectory(dir=os.environ.get("AUGKIT_BENCH_FOLDER")) as name:
        folder = Path(name)
        yield runner.Case(
            "append",
            lambda: append_ours(folder, images),
            {
                "numpy memmap": lambda: append_memmap(folder, images),
                "h5py d[i] = image": lambda: append_h5py(folder, images),
            },
            N,
        )
        columns = provenance()
        size = sum(values.itemsize * values[0].size for values in columns.values())
        yield runner.Case(
            f"provenance, {size + 4} bytes a row",  # and a checksum
            lambda: append_ours(folder, images, columns=columns),
            {"augkit without provenance": lambda: append_ours(folder, images, columns={})},
            N,
        )
        yield from reading(folder, images)


def reading(folder: Path, images: np.ndarray) -> Iterator[runner.Case]:
    """Yield the cases that read what was written: files in the page cache, for all alike."""
    append_ours(folder, images, keep=folder / "ours.h5")
    append_memmap(folder, images, keep=folder / "plain.raw")
    file = h5py.File(folder / "ours.h5", "r")
    shard = Shard(file, "benchmark", N, SHAPE)
    plain = np.memmap(folder / "plain.raw", np.uint8, "r", shape=(N, *SHAPE))
    append_h5py(folder, images)
    chunked = h5py.File(folder / "append-plain.h5", "r")
    order = np.random.default_rng(1).permutation(N)
    starts = range(0, N, BLOCK)
    yield runner.Case(
        "read in order",
        lambda: [shard.images(np.arange(s, s + BLOCK)) for s in starts],
        {"numpy memmap": lambda: [np.array(plain[s : s + BLOCK]) for s in starts]},
        N,
    )
    yield runner.Case(
        "read shuffled batches",
        lambda: [shard.images(order[s : s + BLOCK]) for s in starts],
        {
            "numpy memmap": lambda: [plain[order[s : s + BLOCK]] for s in starts],
            "h5py fancy indexing": lambda: [
                file["images"][np.sort(order[s : s + BLOCK])] for s in starts
            ],
            "h5py fancy indexing, chunk = image": lambda: [
                chunked["images"][np.sort(order[s : s + BLOCK])] for s in starts
            ],
        },
        N,
    )
    file.close()
    chunked.close()
    yield from training(folder, images, plain)


def training(folder: Path, images: np.ndarray, plain: np.memmap) -> Iterator[runner.Case]:
    """Yield reading as a classifier does: the training part of a store, by its lineage rule."""
    import augkit as ak

    store = ak.DatasetStore.create(folder / "bench.store", height=HEIGHT, width=WIDTH)
    labels, keys = ["a", "b"] * (N // 2), [str(i) for i in range(N)]
    ak.ingest_arrays(store, [images], labels, keys=keys, find_relatives=False)
    train = store.snapshot().training(ak.HOLDOUT)
    order = np.random.default_rng(1).permutation(len(train))
    batches = [order[s : s + BLOCK] for s in range(0, len(order), BLOCK)]
    yield runner.Case(
        "training batches",
        lambda: [train.gather(rows) for rows in batches],
        {"numpy memmap": lambda: [plain[rows] for rows in batches]},
        len(train),
    )


def provenance() -> dict[str, np.ndarray]:
    """Return the columns of a run of the chain of four: labels, parents, and what was drawn."""
    from augkit_traditional import Brightness, Flip, Scale, Zoom

    from augkit.chain import chain

    labels = np.zeros(N, np.int64)
    made = chain([Flip(), Brightness(), Scale(), Zoom()])
    params = made.plan(labels, SHAPE, np.random.default_rng(1))
    return {"labels": labels, "parent": np.arange(N), "params": params}


def append_ours(
    folder: Path,
    images: np.ndarray,
    keep: Path | None = None,
    columns: dict[str, np.ndarray] | None = None,
) -> None:
    """Write a shard as a commit does, up to the fsync; by default with labels alone."""
    path = keep or folder / "append.h5"
    path.unlink(missing_ok=True)
    about = {"kind": "benchmark"}
    writer = ShardWriter(path, SHAPE, about, masks=False, expected=len(images))
    for start in range(0, len(images), BLOCK):
        writer.append(images[start : start + BLOCK])
    writer.finish({"labels": np.zeros(len(images), np.int64)} if columns is None else columns)


def append_memmap(folder: Path, images: np.ndarray, keep: Path | None = None) -> None:
    """Write the images into a memory map of their final size, then flush it to the disk."""
    path = keep or folder / "append.raw"
    path.unlink(missing_ok=True)
    rows = np.memmap(path, np.uint8, "w+", shape=images.shape)
    for start in range(0, len(images), BLOCK):
        rows[start : start + BLOCK] = images[start : start + BLOCK]
    rows.flush()
    with path.open("rb") as file:
        os.fsync(file.fileno())


def append_h5py(folder: Path, images: np.ndarray) -> None:
    """Write image by image into a data set of one chunk an image, then flush it to the disk."""
    path = folder / "append-plain.h5"
    path.unlink(missing_ok=True)
    with h5py.File(path, "w") as file:
        rows = file.create_dataset("images", images.shape, np.uint8, chunks=(1, *SHAPE))
        for i, image in enumerate(images):
            rows[i] = image
    with path.open("rb") as plain:
        os.fsync(plain.fileno())


if __name__ == "__main__":
    runner.main("store", cases())
