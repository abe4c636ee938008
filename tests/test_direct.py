"""Rows are read where they lie in the file: the same bytes as through HDF5, with less work."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from toys import toy_store

import augkit as ak
from augkit.errors import DamagedStore
from augkit.partitions import HOLDOUT
from augkit.store import DatasetStore
from augkit.store.direct import direct_places
from augkit.store.shards import Shard, ShardWriter

SHAPE = (24, 32, 1)
N = 50

needs_preadv = pytest.mark.skipif(not hasattr(os, "preadv"), reason="no preadv on this system")


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (N, *SHAPE), np.uint8)


@pytest.fixture
def path(tmp_path: Path, images: np.ndarray) -> Path:
    writer = ShardWriter(tmp_path / "a.h5", SHAPE, {}, masks=False)
    for start in range(0, N, 16):
        writer.append(images[start : start + 16])
    writer.finish({"labels": np.zeros(N, np.int64)})
    return tmp_path / "a.h5"


def shard_in(path: Path) -> Shard:
    return Shard(h5py.File(path, "r"), "a", N, SHAPE)


@pytest.fixture
def reads(monkeypatch) -> list[int]:
    """Count the bytes of each read past HDF5."""
    found, preadv = [], os.preadv

    def counted(handle, buffers, offset):
        found.append(len(buffers[0]))
        return preadv(handle, buffers, offset)

    monkeypatch.setattr(os, "preadv", counted)
    return found


@pytest.mark.parametrize(
    "rows",
    [[0], [49, 0, 7, 7, 8, 9], [*range(N)], [*range(N - 1, -1, -1)], [], [3, 3, 3]],
)
def test_rows_come_in_the_order_that_is_asked(path, images, rows):
    found = shard_in(path).images(np.array(rows, np.int64))
    np.testing.assert_array_equal(found, images[rows])


@needs_preadv
def test_neighbours_are_read_at_once_and_others_once_each(path, reads):
    shard = shard_in(path)
    shard.images(np.array([0]))  # finds out where the rows lie
    reads.clear()
    shard.images(np.arange(10, 40))
    assert len(reads) <= 3, "where a block of the writer ends, something else may lie"
    assert sum(reads) == 30 * np.prod(SHAPE)
    reads.clear()
    shard.images(np.array([4, 9, 2]))
    assert reads == [np.prod(SHAPE)] * 3


@needs_preadv
@pytest.mark.parametrize("form", ["a.store", "a.h5"])
def test_both_forms_of_a_store_are_read_directly(tmp_path, form, reads):
    store = toy_store(tmp_path / form, shape=SHAPE)
    ak.augment(store, "flip")
    snapshot = DatasetStore.open(store.path).snapshot()
    train = snapshot.training(HOLDOUT, ["flip"])
    reads.clear()
    found = train.gather(np.arange(len(train)))
    assert sum(reads) >= found.nbytes
    real = snapshot.training(HOLDOUT)[:]
    np.testing.assert_array_equal(found[len(real) :], real[:, :, ::-1])


@needs_preadv
def test_the_system_may_give_less_than_was_asked(path, images, monkeypatch):
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda handle, into, at: preadv(handle, [into[0][:1000]], at))
    np.testing.assert_array_equal(shard_in(path).images(np.arange(N)), images)


def test_a_file_that_was_cut_short_is_an_error(path, images):
    shard = shard_in(path)
    shard.images(np.array([0]))
    os.truncate(path, images[:30].nbytes)
    with pytest.raises(DamagedStore, match="shard a cannot be read"):
        shard.images(np.arange(N))


@pytest.mark.parametrize(
    "how",
    [
        {"chunks": (1, *SHAPE), "compression": "gzip"},
        {"chunks": (4, *SHAPE)},
        {"chunks": (1, *SHAPE), "fletcher32": True},
        {},
    ],
    ids=["compressed", "larger chunks", "with a filter", "no chunks"],
)
def test_what_others_laid_out_otherwise_is_read_through_hdf5(tmp_path, images, how):
    with h5py.File(tmp_path / "b.h5", "w") as file:
        rows = file.create_dataset("images", data=images, **how)
        assert direct_places(rows) is None


def test_rows_without_a_place_are_left_to_hdf5(tmp_path):
    with h5py.File(tmp_path / "b.h5", "w") as file:
        rows = file.create_dataset("images", (N, *SHAPE), np.uint8, chunks=(1, *SHAPE))
        rows[3] = 1
        file.flush()
        assert direct_places(rows) is None
