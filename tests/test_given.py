"""The split that a data set came with: kept as a protocol, and cleaned of what leaks."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from commands import command, works
from leaks import assert_clean
from toys import images, offer, toy_store

import augkit as ak
from augkit.arms import choose_arms, training_samples
from augkit.augmentation import refit
from augkit.errors import OptionError
from augkit.given import GivenSplit
from augkit.interfaces import Augmenter, Classifier
from augkit.partitions import GIVEN, HOLDOUT, PARTS, Scope, given_parts, protocol
from augkit.selection import Selection
from augkit.store.shards import ShardWriter


@dataclass
class Guess(Classifier):
    """Guesses by the class shares; keeps the images that it was trained on."""

    name = "guess"
    deterministic = True
    fast = True
    trained: ClassVar[list[np.ndarray]] = []

    def fit(self, train, val, context):
        Guess.trained.append(train[:])
        counts = np.bincount(train.labels, minlength=len(context.classes))
        self.shares_ = (counts / counts.sum()).astype(np.float32)

    def predict_proba(self, samples):
        return np.tile(self.shares_, (len(samples), 1))


@dataclass
class Learned(Augmenter):
    """Learns nothing but how many images it saw."""

    name = "learned"
    family = "generative"
    learns = True

    def fit(self, train, context):
        self.n_ = len(train)

    def save(self, folder):
        (folder / "n.json").write_text(json.dumps(self.n_))

    def load(self, folder):
        self.n_ = json.loads((folder / "n.json").read_text())

    def apply(self, images, labels, params):
        rng = np.random.default_rng(params)
        return rng.integers(0, 256, (len(labels), 28, 28, 1), np.uint8)


@pytest.fixture(autouse=True)
def _plugins(monkeypatch):
    Guess.trained = []
    offer(monkeypatch, Guess, Learned)


SIZES = {"train": 24, "val": 8, "test": 8}


def archive(path: Path, *, leaks: bool = True, without: str = "", seed: int = 0) -> Path:
    """Write an NPZ file with a split; some images are in two parts of it."""
    found = {}
    for i, (part, n) in enumerate(SIZES.items()):
        found[f"{part}_images"] = images(n, 10 * seed + i, (28, 28, 1))[..., 0]
        found[f"{part}_labels"] = np.arange(n) % 2
    if leaks:
        found["test_images"][0] = found["train_images"][0]  # the same class
        found["test_images"][2] = found["val_images"][2]
        found["val_images"][4] = found["train_images"][4]
        found["test_images"][5] = found["train_images"][6]  # another class
    np.savez(path, **{k: v for k, v in found.items() if not (without and k.startswith(without))})
    return path


@pytest.fixture
def store(tmp_path):
    ak.ingest(archive(tmp_path / "med.npz"), tmp_path / "m.store")
    return ak.open(tmp_path / "m.store")


def keys(snapshot, partition, part):
    chosen = snapshot.parts(partition) == PARTS.index(part)
    return {key.removeprefix("med/") for key in snapshot.real.keys[chosen].tolist()}


# The rule


def test_the_test_part_is_the_published_one_to_the_image(store):
    snapshot = store.snapshot()
    assert keys(snapshot, GIVEN, "test") == {f"test/{i:06d}" for i in range(8)}


def test_relatives_of_a_later_part_are_left_out_of_an_earlier_one(store):
    snapshot = store.snapshot()
    left_out = {f"train/{i:06d}" for i in (0, 4, 6)} | {"val/000002"}
    given = snapshot.real.keys[snapshot.real.given >= 0].tolist()
    every = {key.removeprefix("med/") for key in given}
    used = set().union(*(keys(snapshot, GIVEN, part) for part in PARTS))
    assert every - used == left_out
    groups = [set(snapshot.real.groups[snapshot.parts(GIVEN) == i]) for i in range(3)]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]


def test_by_image_it_is_as_published_leaks_and_all(store):
    snapshot = store.snapshot()
    (partition,) = protocol("given", None, 1, Scope(by_image=True)).partitions
    assert np.array_equal(snapshot.parts(partition), snapshot.real.given)


def test_the_rule_against_one_written_out_by_hand():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = 30
        given, groups = rng.integers(-1, 3, n), rng.integers(0, 15, n)
        found = given_parts(given, np.zeros(n, np.int8), np.full(n, "d"), groups)
        for i in range(n):
            later = [given[j] for j in range(n) if groups[j] == groups[i]]
            moved = not (given == 1).any()
            assert not moved, "every draw has validation images"
            assert found[i] == (given[i] if given[i] == max(later) else -1)


def test_without_a_validation_part_three_folds_of_the_training_part_validate(tmp_path):
    ak.ingest(archive(tmp_path / "med.npz", leaks=False, without="val"), tmp_path / "m.store")
    snapshot = ak.open(tmp_path / "m.store").snapshot()
    parts, real = snapshot.parts(GIVEN), snapshot.real
    validating = (real.given == 0) & np.isin(real.folds, (14, 15, 16))
    assert validating.any() and np.array_equal(parts == 1, validating)
    assert np.array_equal(parts == 2, real.given == 2)
    assert any(
        "no validation part was given" in said for said in GivenSplit.of(snapshot).sentences()
    )


@pytest.mark.seconds
def test_a_relative_in_another_data_set_counts_as_well(tmp_path):
    first, second = archive(tmp_path / "a.npz", leaks=False), tmp_path / "b.npz"
    with np.load(first) as given:
        other = {k: images(len(v), 90 + i, (28, 28, 1))[..., 0] if "images" in k else v
                 for i, (k, v) in enumerate(given.items())}  # fmt: skip
        other["test_images"][0] = given["train_images"][0]
    np.savez(second, **other)
    for source in (first, second):
        ak.ingest(source, tmp_path / "m.store")
    snapshot = ak.open(tmp_path / "m.store").snapshot()
    parts = dict(zip(snapshot.real.keys.tolist(), snapshot.parts(GIVEN).tolist(), strict=True))
    assert (parts["a/train/000000"], parts["b/test/000000"]) == (-1, 2)
    alone = snapshot.parts(protocol("given", None, 1, Scope(("a",))).partitions[0])
    assert alone[snapshot.real.keys == "a/train/000000"] == 0


@pytest.mark.seconds
def test_images_without_a_part_are_left_out_and_counted(store, tmp_path):
    other = tmp_path / "other"
    for label in "01":
        (other / label).mkdir(parents=True)
        for i in range(3):
            from PIL import Image

            pixels = images(1, 50 + 10 * int(label) + i, (28, 28, 1))[0, ..., 0]
            Image.fromarray(pixels).save(other / label / f"{i}.png")
    ak.ingest(other, store)
    snapshot = store.snapshot()
    assert (snapshot.parts(GIVEN)[snapshot.real.datasets == "other"] == -1).all()
    assert "6 images came without a part and are left out" in GivenSplit.of(snapshot).sentences()


# What is said


def test_leaks_are_said_when_it_comes_in_and_whenever_it_is_used(tmp_path):
    archive(tmp_path / "med.npz")
    leaks = (
        "LEAKS in the given split: 3 test images with relatives among training and validation "
        "images; left out for relatives in a later part or in another class; the test part is "
        "whole: 3 training and 1 validation images"
    )
    assert leaks in works("ingest", "med.npz", "--store", "m.store", cwd=tmp_path).out
    assert leaks in works("info", cwd=tmp_path).out
    line = ("evaluate", "--classifier", "guess", "--split", "given")
    found = works(*line, "--json", cwd=tmp_path).json
    assert leaks in found["warnings"]
    found = json.loads(works("info", "--json", cwd=tmp_path).out)["real"]["given"]
    assert found["left_out"] == {"train": 3, "validation": 1, "test": 0} and found["torn"] == 3


def test_a_split_without_leaks_says_nothing_of_them(tmp_path):
    archive(tmp_path / "med.npz", leaks=False)
    assert "LEAKS" not in works("ingest", "med.npz", "--store", "m.store", cwd=tmp_path).out


def test_rows_are_written_with_the_part_that_they_came_with(tmp_path):
    archive(tmp_path / "med.npz")
    works("ingest", "med.npz", "--store", "m.store", cwd=tmp_path)
    works("info", "--rows", "rows.csv", cwd=tmp_path)
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    assert lines[0] == "key,dataset,class,group,fold,part,given"
    assert {line.split("/")[1]: line.rpartition(",")[2] for line in lines[1:]} == {
        "train": "train",
        "val": "validation",
        "test": "test",
    }


# Evaluation and augmentation


def test_an_evaluation_tests_the_published_test_part_and_trains_on_no_relative_of_it(store):
    found = ak.evaluate(store, "guess", split="given", arms=["real"])
    assert found.protocol == "given"
    snapshot = store.snapshot()
    train = snapshot.training(GIVEN)
    assert found.arms[0].rows == len(train) == 21
    assert_clean(snapshot, train, GIVEN)


def test_split_by_image_trains_on_the_leaks_and_says_how_far_they_flatter(store):
    found = ak.evaluate(store, "guess", split="given", split_by="image", arms=["real"])
    assert found.arms[0].rows == 24
    said = " ".join(found.warnings)
    assert "LEAKY" in said and "all are kept" in said and "the leak flatters by" in said


def test_a_run_for_the_given_split_derives_from_its_training_part_alone(store):
    made = ak.augment(store, "flip", split="given")
    snapshot = store.snapshot()
    assert made.rows == 21
    assert (snapshot.parts(GIVEN)[snapshot.parents(made.run)] == 0).all()
    assert snapshot.trainable(made.run, GIVEN).all()
    assert_clean(snapshot, snapshot.training(GIVEN, [made.run]), GIVEN)
    again = ak.augment(store, "flip", split="given")
    assert (again.run, again.made) == (made.run, False)


def test_an_arm_trains_on_the_same_rows_whichever_split_its_run_was_made_for(store):
    ak.augment(store, "flip", run="usual")
    usual = training_samples(store.snapshot(), GIVEN, ["usual"])
    ak.augment(store, "flip", split="given", run="own")
    own = training_samples(store.snapshot(), GIVEN, ["own"])
    assert np.array_equal(usual[:], own[:])
    assert choose_arms(store.snapshot(), None)["traditional"] == ("usual",)


def test_a_run_for_the_given_split_is_an_arm_of_its_own_where_there_is_no_other(store):
    ak.augment(store, "flip", split="given")
    found = ak.evaluate(store, "guess", split="given")
    rows = {arm.name: arm.rows for arm in found.arms}
    assert (rows["real"], rows["traditional"]) == (21, 42)
    under_holdout = ak.evaluate(store, "guess", split="70/15/15")
    n = len(store.snapshot().training(HOLDOUT))
    assert {a.name: a.rows for a in under_holdout.arms}["traditional"] == 2 * n


def test_a_generator_fitted_for_the_given_split_stands_under_it_and_under_no_other(store):
    made = ak.augment(store, "learned", n=4, split="given")
    snapshot = store.snapshot()
    fitted = list(snapshot.run(made.run).fitted_on)
    assert (snapshot.parts(GIVEN)[fitted] == 0).all() and len(fitted) == 21
    assert snapshot.trainable(made.run, GIVEN).all()
    assert not snapshot.trainable(made.run, HOLDOUT).any()
    found = ak.evaluate(store, "guess", split="given")
    assert {arm.name: arm.rows for arm in found.arms}["learned"] == 29
    (arm,) = [a for a in ak.evaluate(store, "guess", split="70/15/15").arms if a.name == "learned"]
    assert "--split given takes it as it is" in (arm.unavailable or "")


@pytest.mark.seconds
def test_a_generator_of_the_usual_split_is_fitted_anew_for_the_given_one(store):
    made = ak.augment(store, "learned", n=4)
    assert not store.snapshot().trainable(made.run, GIVEN).all()
    anew = refit(store, made.run, GIVEN)
    snapshot = store.snapshot()
    assert snapshot.trainable(anew.run, GIVEN).all()
    found = ak.evaluate(store, "guess", split="given")
    assert {arm.name: arm.rows for arm in found.arms}["learned"] == 29


@pytest.mark.seconds
def test_relatives_that_come_later_make_a_run_for_the_given_split_stale(store, tmp_path):
    made = ak.augment(store, "flip", split="given")
    with np.load(tmp_path / "med.npz") as given:
        later = {"test_images": given["train_images"][[9, 8]], "test_labels": np.array([1, 0])}
    np.savez(tmp_path / "more.npz", **later)
    report = ak.ingest(tmp_path / "more.npz", store)
    assert report.stale == (made.run,)
    assert made.run in [r["name"] for r in report.info.values["runs"] if r["stale"]]
    assert store.snapshot().trainable(made.run, GIVEN).sum() == 19


def test_an_export_of_the_given_split_has_its_parts(store, tmp_path):
    ak.export(store, tmp_path / "out", split="given", parts=PARTS)
    counts = {p: len(list((tmp_path / "out" / p).rglob("*.png"))) for p in PARTS}
    assert counts == {"train": 21, "validation": 7, "test": 8}
    assert Selection(split="given").partition() == GIVEN


# What cannot be


def test_without_a_given_split_its_name_is_an_error(tmp_path):
    store = toy_store(tmp_path / "a.store")
    for call in (
        lambda: ak.evaluate(store, "guess", split="given"),
        lambda: ak.augment(store, "flip", split="given"),
        lambda: ak.fit(store, "learned", split="given"),
        lambda: ak.export(store, tmp_path / "out", split="given"),
    ):
        with pytest.raises(OptionError, match=r"no image of .* came with a split of its own"):
            call()


def test_a_given_split_without_a_test_part_says_so(tmp_path):
    ak.ingest(archive(tmp_path / "med.npz", leaks=False, without="test"), tmp_path / "m.store")
    with pytest.raises(
        ak.AugkitError, match="the test part is empty under given: no data set came"
    ):
        ak.evaluate(tmp_path / "m.store", "guess", split="given")


def test_the_given_split_is_one_split(store, tmp_path):
    with pytest.raises(OptionError, match="the given split is one split: no --repeats"):
        ak.evaluate(store, "guess", split="given", repeats=2)
    with pytest.raises(OptionError, match="made for 70/15/15 or for the given split"):
        ak.augment(store, "flip", split="80/10/10")
    found = command("augment", "--plugin", "flip", "--split", "x", cwd=tmp_path)
    assert found.code == 2 and "split is 'x'" in found.err


def test_a_part_that_does_not_exist_is_damage(store, tmp_path):
    def describe(snapshot):
        return {
            "kind": "ingest",
            "shard": shard,
            "classes": ["0", "1"],
            "shard_classes": ["0", "1"],
            "grouping": {**snapshot.grouping, "groups": [*snapshot.grouping["groups"], 0]},
            "mask_files": 0,
            "options": {},
        }

    writer: ShardWriter = store.write_shard({"kind": "real images"}, masks=False)
    writer.append(images(1, 77, (28, 28, 1)))
    columns = {
        "key": np.array(["x/1"]),
        "labels": np.zeros(1, np.int64),
        "patient": np.array([""]),
        "source_sha256": np.zeros((1, 32), np.uint8),
        "source_size": np.zeros((1, 2), np.int32),
        "colour": np.zeros(1, bool),
        "given": np.array([3], np.int8),
    }
    shard = writer.finish(columns)
    with pytest.raises(ak.AugkitError, match="came with a part that does not exist"):
        store.commit(describe, writer.path).real  # noqa: B018
