"""The gate: copies of training images are counted, and drawn again where that is wanted."""

import json

import numpy as np
import pytest
from learners import Parrot
from toys import offer, toy_store

import augkit as ak


@pytest.fixture(autouse=True)
def offered(monkeypatch):
    offer(monkeypatch, Parrot)


@pytest.fixture
def store(tmp_path):
    return toy_store(tmp_path / "a.store", 12, shape=(40, 48, 1))


def column(store, run, name):
    found = store.snapshot().run(run)
    with store._pool.shard(found.shard.name, found.rows) as shard:
        return shard.column(name)


def test_repeats_of_training_images_are_counted_and_named(store):
    result = ak.augment(store, "parrot", n=10)
    repeats = column(store, result.run, "params")["repeats"]
    assert 5 < repeats.sum() < 25
    said = " ".join(result.notes)
    assert f"{repeats.sum()} of 30 images look like a copy of a training image" in said
    assert "--reject-copies draws them again" in said
    run = store.snapshot().run(result.run)
    assert run.memorisation["copies"] == repeats.sum() == sum(run.memorisation["by_class"])
    score, nearest = (column(store, result.run, c) for c in ("nearest_score", "nearest"))
    assert np.array_equal(score > run.memorisation["threshold"], repeats)
    real, made = store.snapshot().inspect(), store.snapshot().inspect(result.run)
    for row in np.flatnonzero(repeats):
        assert np.array_equal(made[row : row + 1], real[nearest[row] : nearest[row] + 1])


def test_images_that_repeat_nothing_are_no_copies(store):
    result = ak.augment(store, "parrot", {"share": 0}, n=10)
    assert "0 of 30 images look like a copy" in " ".join(result.notes)


@pytest.mark.slow
def test_copies_are_drawn_again_until_they_are_none(store):
    result = ak.augment(store, "parrot", n=10, reject_copies=True)
    run = store.snapshot().run(result.run)
    assert run.memorisation["copies"] == 0 and run.memorisation["redrawn"] > 5
    assert "were drawn again" in " ".join(result.notes)
    assert not column(store, result.run, "params")["repeats"].any()
    assert ak.replay(store, result.run).equal, "the parameters kept are those of the second draw"
    assert not ak.augment(store, "parrot", n=10, reject_copies=True).made
    assert ak.augment(store, "parrot", n=10).made, "without the gate it is another recipe"


def test_what_can_only_copy_is_kept_and_counted(store):
    result = ak.augment(store, "parrot", {"share": 1}, n=2, reject_copies=True)
    run = store.snapshot().run(result.run)
    assert (run.memorisation["copies"], run.memorisation["redrawn"]) == (6, 6)


@pytest.mark.slow
@pytest.mark.parametrize("reject", [False, True])
def test_block_and_workers_do_not_change_what_is_made(tmp_path, reject):
    found = []
    for i, (block, workers) in enumerate([(64, 2), (7, 1), (1, 2)]):
        store = toy_store(tmp_path / f"{i}.store", 12, shape=(40, 48, 1))
        ak.augment(store, "parrot", n=10, block=block, workers=workers, reject_copies=reject)
        found.append(store.snapshot().run("parrot").shard.content)
    assert len(set(found)) == 1


def test_info_tells_how_many_look_like_copies(store):
    ak.augment(store, "parrot", {"share": 1}, n=2)
    assert "6 look like copies" in str(ak.info(store))
    assert json.loads(ak.info(store).to_json())["runs"][0]["copies"] == 6
