from pathlib import Path

import numpy as np
import pytest
from toys import toy_store

import augkit as ak
from augkit.errors import PluginFailed
from augkit.features import FeatureCache
from augkit.interfaces import ArraySamples
from augkit.making import make
from augkit.partitions import HOLDOUT, k_fold
from augkit.store.samples import JoinedSamples


class Counting:
    """Mean and spread of an image; counts the images it was shown."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.seen += len(images)
        flat = images.reshape(len(images), -1).astype(np.float32)
        return np.stack([flat.mean(1), flat.std(1)], 1)


def test_features_are_computed_once_for_each_image(tmp_path: Path) -> None:
    snapshot = toy_store(tmp_path / "a.store").snapshot()
    cache, count = FeatureCache(), Counting()
    everything = snapshot.inspect()
    expected = Counting()(everything[:])
    for partition in k_fold(5):
        for part in (snapshot.training, snapshot.validation, snapshot.test):
            samples = part(partition)
            rows = samples._rows.row
            assert np.array_equal(cache("k", count, samples), expected[rows])
    assert count.seen == 60


def test_another_key_is_another_feature(tmp_path: Path) -> None:
    samples = toy_store(tmp_path / "a.store").snapshot().inspect()
    cache, count = FeatureCache(), Counting()
    cache("k", count, samples)
    cache("other", count, samples)
    assert count.seen == 120


def test_joined_and_made_rows_keep_their_order(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    ak.augment(store, "flip")
    ak.augment(store, "zoom", n=30)
    snapshot = store.snapshot()
    partition = k_fold(5)[1]
    made = make(snapshot, snapshot.run("zoom"), partition)
    joined = JoinedSamples([snapshot.training(partition, ["flip"]), made])
    cache, count = FeatureCache(), Counting()
    assert np.allclose(cache("k", count, joined), Counting()(joined[:]))
    seen = count.seen
    assert np.allclose(cache("k", count, joined), Counting()(joined[:]))
    assert count.seen == seen
    cache.forget_unstored()
    cache("k", count, joined)
    assert count.seen == seen + len(made)


def test_features_of_no_images_are_empty(tmp_path: Path) -> None:
    snapshot = toy_store(tmp_path / "a.store").snapshot()
    none = snapshot.training(HOLDOUT).take(np.zeros(0, np.int64))
    assert len(FeatureCache()("k", Counting(), none)) == 0


def test_features_of_another_number_are_refused(tmp_path: Path) -> None:
    samples = toy_store(tmp_path / "a.store").snapshot().inspect()
    with pytest.raises(PluginFailed, match="features of 60 images have shape"):
        FeatureCache()("k", lambda images: np.zeros((1, 3), np.float32), samples)


def test_rows_are_gathered_in_any_order_from_every_kind_of_samples(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    ak.augment(store, "flip")
    ak.augment(store, "zoom")
    snapshot = store.snapshot()
    stored = snapshot.training(HOLDOUT, ["flip"])
    made = make(snapshot, snapshot.run("zoom"), k_fold(5)[1])
    both = JoinedSamples([snapshot.training(k_fold(5)[1]), made])
    held = ArraySamples(stored[:], stored.labels)
    for samples in (stored, made, both, held):
        everything = samples[:]
        rows = np.random.default_rng(0).integers(0, len(samples), 3 * len(samples))
        assert np.array_equal(samples.gather(rows), everything[rows])
        assert samples.gather(rows[:0]).shape == (0, *samples.shape)
