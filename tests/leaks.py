"""Tools for planting leaks in small stores: runs by hand, edited shards, a log written anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import pytest
from toys import CLASSES

import augkit as ak
from augkit.errors import LineageError
from augkit.ingestion.ingest import IngestReport
from augkit.interfaces import Classifier, Samples
from augkit.partitions import HOLDOUT, Partition
from augkit.recipes import Amount, recipes
from augkit.store import DatasetStore, Snapshot
from augkit.store.format import Entry, digest_of, encode_entry
from augkit.store.shards import content_of

SHAPE = (48, 64, 1)
"""Noise of this size resembles no other noise, so that only planted duplicates are found."""


@dataclass
class Spy(Classifier):
    """Keeps what it is given to learn from, and guesses."""

    name = "spy"
    seen: ClassVar[list[tuple[Samples, Samples]]] = []

    def fit(self, train, val, context):
        Spy.seen.append((train, val))
        train[:]
        self.classes_ = len(context.classes)

    def predict_proba(self, samples):
        with pytest.raises(LineageError, match="labels of test images are not given to plugins"):
            samples.labels  # noqa: B018
        assert not hasattr(samples, "truth")
        return np.full((len(samples), self.classes_), 1 / self.classes_, np.float32)


@dataclass
class Cheat(Classifier):
    """Asks for the labels of the test images."""

    name = "cheat"

    def fit(self, train, val, context):
        pass

    def predict_proba(self, samples):
        return np.eye(3, dtype=np.float32)[samples.labels]


# -- what may be trained on ------------------------------------------------------------------------


def part(snapshot: Snapshot, number: int, partition: Partition = HOLDOUT) -> list[int]:
    """Return the real rows of a part: 0 training, 1 validation, 2 test, -1 none."""
    return np.flatnonzero(snapshot.parts(partition) == number).tolist()


def forbidden(snapshot: Snapshot, partition: Partition) -> set[bytes]:
    """Return the images, and their mirror images, that must not be trained on."""
    out = snapshot.inspect().take(snapshot.parts(partition) != 0)[:]
    return {image.tobytes() for image in np.concatenate([out, out[:, :, ::-1]])}


def pixels(samples: Samples) -> set[bytes]:
    return {image.tobytes() for image in samples[:]}


def assert_clean(snapshot: Snapshot, train: Samples, partition: Partition) -> None:
    """Hold rows that may be trained on against the rule, by their pixels."""
    assert not pixels(train) & forbidden(snapshot, partition)


# -- commits by hand -------------------------------------------------------------------------------


def plant(
    store: DatasetStore, name: str, parents: Sequence[int], *, labels: Sequence[int] | None = None,
    fitted_on: Sequence[int] | None = None, family: str = "traditional", model: str | None = None,
    columns: dict[str, np.ndarray] | None = None,
) -> None:  # fmt: skip
    """Commit by hand a run that says it is as it should be: flips of any real images.

    labels: by default those of the parents. columns: what the shard holds in place of the usual.
    """
    snapshot = store.snapshot()
    real, rows = snapshot.inspect(), np.array(parents, np.int64)
    writer = store.write_shard({"kind": "augmented images", "classes": [*CLASSES]}, masks=False)
    writer.append(np.ascontiguousarray(real.gather(rows)[:, :, ::-1]))
    own = real.labels[rows] if labels is None else np.array(labels, np.int64)
    drawn = np.ones(len(rows), [("mirrored", bool)])
    shard = writer.finish({"labels": own, "parent": rows, "params": drawn} | (columns or {}))
    (recipe,) = recipes(["flip"], {}, Amount(), 5)
    lineage: dict[str, Any] = {"kind": "parents"}
    if fitted_on is not None:
        lineage = {"kind": "fitted", "fitted_on": [*fitted_on]}
    if model is not None:
        lineage = {"kind": "fitted", "model": model}

    def describe(snapshot: Snapshot) -> Entry:
        return {
            "kind": "run",
            "run": name,
            "family": family,
            "recipe": recipe | {"plugin": name},
            "by_class": np.bincount(own, minlength=3).tolist(),
            "lineage": lineage,
            "trained_from": snapshot.training_digest(HOLDOUT),
            "shard": shard,
        }

    store.commit(describe, writer.path)


def keep_model(store: DatasetStore, fitted_on: Sequence[int]) -> str:
    """Commit a model that says it was fitted on these real rows; return its name."""
    folder = store.stage_model()
    (folder / "weights.json").write_text(str(fitted_on))
    entry = {
        "kind": "model", "recipe": {"plugin": {"name": "gan"}}, "fitted_on": [*fitted_on],
        "trained_from": "", "partition": HOLDOUT.name, "complete": True, "note": "", "details": {},
    }  # fmt: skip
    return list(store.commit(lambda _: dict(entry), model=folder).models)[-1]


def regroup(store: DatasetStore) -> tuple[int, int, IngestReport]:
    """Join a training group to a test group by an image of the one that looks like the other.

    Returns the test row, the training row of the same class, which is now tested as well, and
    what the ingest said.
    """
    snapshot = store.snapshot()
    of = snapshot.real.labels
    pairs = [(a, b) for a in part(snapshot, 2) for b in part(snapshot, 0) if b > a]
    test, train = next((a, b) for a, b in pairs if of[a] == of[b])
    marked = snapshot.inspect()[test : test + 1].copy()
    marked[:, :4, :4] = 255
    report = ak.ingest_arrays(
        store, [marked], [CLASSES[of[test]]], keys=["marked"], dataset="toy",
        groups=[snapshot.real.patients[train].removeprefix("toy/")],
    )  # fmt: skip
    assert report.pairs == 1
    after = store.snapshot()
    assert after.real.groups[test] == after.real.groups[train] == after.real.groups[36]
    assert after.parts(HOLDOUT)[[test, train, 36]].tolist() == [2, 2, 2]
    return test, train, report


# -- files edited on the disk ----------------------------------------------------------------------


def log_path(store: DatasetStore, number: int) -> Path:
    return store.path / f"log/{number:010d}.json"


def log_of(store: DatasetStore) -> list[Entry]:
    """Return the entries of a log as they lie on the disk, each with its digest."""
    return [json.loads(path.read_bytes()) for path in sorted((store.path / "log").iterdir())]


def edit_entry(store: DatasetStore, number: int, *, sign: bool, **changed: Any) -> None:
    """Change one entry of the log. sign: with a digest that fits it."""
    entry = json.loads(log_path(store, number).read_bytes()) | changed
    claimed = entry.pop("digest")
    content = encode_entry(entry)
    if not sign:
        content = content.replace(digest_of(entry).encode(), claimed.encode())
    log_path(store, number).write_bytes(content)


def write_log(store: DatasetStore, entries: Sequence[Entry]) -> None:
    """Write a whole log as augkit would have: every digest and every link fits."""
    previous = None
    for number, entry in enumerate(entries, 1):
        plain = {k: v for k, v in entry.items() if k != "digest"}
        plain |= {"number": number, "previous": previous}
        log_path(store, number).write_bytes(encode_entry(plain))
        previous = digest_of(plain)


def shard_of(store: DatasetStore, run: str | None = None) -> Path:
    """Return the file of a run, or that of the first real images."""
    entries = store.snapshot().entries
    named = next(e for e in entries if e.get("run") == run and "shard" in e)
    return store.path / "shards" / f"{named['shard']['name']}.h5"


@contextmanager
def shard_opened(store: DatasetStore, run: str | None = None) -> Iterator[h5py.File]:
    """Lend the file of a run, or that of the real images, to be edited with plain h5py."""
    path = shard_of(store, run)
    store.close()
    with h5py.File(path, "r+", locking=False) as file:
        yield file


def seal(store: DatasetStore, run: str | None = None) -> None:
    """Make the log agree with a shard that was edited, down to the last hash."""
    path = shard_of(store, run)
    with h5py.File(path, "r", locking=False) as file:
        content = content_of(file)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    entries = log_of(store)
    for entry in entries:
        if entry.get("shard", {}).get("name") == path.stem:
            entry["shard"] |= {"content": content, "sha256": sha256}
    write_log(store, entries)
