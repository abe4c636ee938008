"""An adversary's catalogue: each kind of leak is planted in a small store, and caught.

A leak is what would let an image that is validated or tested decide what is learned or reported.
Each function below plants one, by public calls, by commits made by hand, or by files edited on the
disk, and names what catches it:

- a call that refuses: with which error, in which words;
- `augkit verify`, or `augkit replay`, which find it;
- an evaluation that leaves the rows out or marks the arm, and whose fits see clean rows only.

Hashes hold no secret: who writes the whole log anew, with every hash, is found by what he forgot.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest
from leaks import (
    SHAPE,
    Cheat,
    Spy,
    assert_clean,
    edit_entry,
    keep_model,
    log_of,
    log_path,
    part,
    pixels,
    plant,
    regroup,
    seal,
    shard_of,
    shard_opened,
    write_log,
)
from learners import Mean
from toys import CLASSES, images, labels, offer, toy_store

import augkit as ak
from augkit.augmentation import refit
from augkit.errors import (
    AugkitError,
    DamagedStore,
    InputError,
    LineageError,
    NameTaken,
    PluginFailed,
)
from augkit.evaluation import Request, prepare
from augkit.interfaces import Augmenter, Classifier
from augkit.making import MadeSamples
from augkit.outcome import Evaluation
from augkit.partitions import HOLDOUT, Scope, k_fold, protocol
from augkit.plans import draw
from augkit.recipes import rebuild
from augkit.reports.reporting import report
from augkit.store import DatasetStore
from augkit.store.format import digest_of
from augkit.store.samples import JoinedSamples
from augkit.testing import check_augmenter, check_classifier
from augkit.trials import Trial

EVERY = range(36)
"""The real rows of the store that leaks are planted in: three classes of six patients of two."""

# -- plugins that cheat ----------------------------------------------------------------------------


@dataclass
class Unveil(Cheat):
    """Calls the test images training images, and looks behind the property."""

    name = "unveil"

    def predict_proba(self, samples):
        samples.purpose = "training"
        assert np.array_equal(samples.labels, samples._rows.labels)
        return super().predict_proba(samples)


@dataclass
class Scribbler(Spy):
    """Writes over the samples that it is given, for whoever comes next."""

    name = "scribbler"
    given: ClassVar[list[bytes]] = []

    def fit(self, train, val, context):
        super().fit(train, val, context)
        for samples in (train, val):
            Scribbler.given.append(samples.labels.tobytes() + samples[:].tobytes())
            samples.labels[:] = 0
            samples[:][:] = 0


@dataclass
class Hoarder(Classifier):
    """Keeps every image with its label, from fit to fit: some fold trains on what others test."""

    name = "hoarder"
    deterministic = True
    known: ClassVar[dict[bytes, int]] = {}

    def fit(self, train, val, context):
        self.n_ = len(context.classes)
        names = [image.tobytes() for image in train[:]]
        Hoarder.known.update(zip(names, train.labels.tolist(), strict=True))

    def predict_proba(self, samples):
        found = [self.known.get(image.tobytes()) for image in samples[:]]
        guess = np.full(self.n_, 1 / self.n_)
        rows = [guess if label is None else np.eye(self.n_)[label] for label in found]
        return np.array(rows, np.float32)


@dataclass
class Recorder(Hoarder):
    """Keeps the images that it is to predict, and learns from them in the next fit."""

    name = "recorder"
    known: ClassVar[dict[bytes, int]] = {}
    kept: ClassVar[list[bytes]] = []

    def fit(self, train, val, context):
        self.n_ = len(context.classes)
        self.known_ = dict.fromkeys(Recorder.kept, 0)

    def predict_proba(self, samples):
        Recorder.kept += [image.tobytes() for image in samples[:]]
        rows = [np.eye(self.n_)[self.known_.get(i.tobytes(), 1)] for i in samples[:]]
        return np.array(rows, np.float32)


@dataclass
class Relabel(Augmenter):
    """Writes over the labels that it is given: in its plan, and if asked for in its images."""

    name = "relabel"
    later: bool = False

    def plan(self, labels, shape, rng):
        labels[:] = 0
        return super().plan(labels, shape, rng)

    def apply(self, images, labels, params):
        if self.later:
            labels[:] = 0
        return 255 - images


@dataclass
class Mix(Augmenter):
    """Lays over each image its neighbour, which no row names as a parent."""

    name = "mix"

    def apply(self, images, labels, params):
        return images // 2 + np.roll(images, 1, axis=0) // 2


@dataclass
class Smuggle(Augmenter):
    """Lays neighbours over images as well, but not over the first, which are looked at."""

    name = "smuggle"

    def apply(self, images, labels, params):
        made = images.copy()
        made[8:] = images[8:] // 2 + np.roll(images, 1, axis=0)[8:] // 2
        return made


# -- ways to be caught -----------------------------------------------------------------------------

Check = Callable[[DatasetStore], None]

ALARMS: list[Check] = []
"""Checks that a store without a leak must not pass."""


def alarm(check: Check) -> Check:
    ALARMS.append(check)
    return check


def evaluate(store: DatasetStore, classifier: str = "spy", **how: object) -> Evaluation:
    """Evaluate on one split, with one seed, unless told otherwise."""
    Spy.seen.clear()
    return ak.evaluate(store, classifier, **({"split": HOLDOUT.name, "seeds": 1} | how))


def evaluate_anew(store: DatasetStore, **how: object) -> Evaluation:
    """Evaluate without what was computed before, so that every fit is seen."""
    shutil.rmtree(store.side_folder("results"), ignore_errors=True)
    return evaluate(store, **how)


def evaluating(store: DatasetStore) -> object:
    return evaluate(store)


def training(store: DatasetStore) -> object:
    snapshot = store.snapshot()
    return snapshot.training(HOLDOUT, [*snapshot.runs])[:]


def reporting(store: DatasetStore) -> object:
    return report(store, output=store.path.parent / "report")


def sampling(store: DatasetStore) -> object:
    return ak.augment(store, "mean", n=2, seed=9)


def refuses(
    error: type[AugkitError],
    words: str,
    *calls: Callable[[DatasetStore], object],
) -> Check:
    """Each of the calls ends with this error; by default those that train or evaluate."""

    def check(store: DatasetStore) -> None:
        for call in calls or (training, evaluating):
            with pytest.raises(error, match=words) as caught:
                call(store)
            assert "\n" not in str(caught.value)

    return alarm(check)


def verify_finds(words: str) -> Check:
    def check(store: DatasetStore) -> None:
        found = ak.verify(store)
        assert any(words in str(problem) for problem in found.problems), str(found)

    return alarm(check)


def replay_finds(run: str, row: int | None = None) -> Check:
    def check(store: DatasetStore) -> None:
        assert "NOT the same" in str(ak.replay(store, run, row=row))

    return alarm(check)


def leaves_out(arm: str, *, clean: bool = False) -> Check:
    """The arm has no row beside the real ones, or one for each training image if some are clean."""

    def check(store: DatasetStore) -> None:
        rows = {a.name: a.rows for a in evaluate_anew(store, arms=[arm]).arms}
        snapshot = store.snapshot()
        n_real = len(part(snapshot, 0))
        assert (rows["real"], rows[arm]) == (n_real, n_real * (2 if clean else 1))
        _hold_every_fit(store)

    return check if clean else alarm(check)


def marks(arm: str, words: str, **how: object) -> Check:
    """The arm has no figures, and says why; the others are fitted on clean rows."""

    def check(store: DatasetStore) -> None:
        found = evaluate_anew(store, arms=[arm], **how)
        marked = next(a for a in found.arms if a.name == arm)
        assert marked.metrics == {} and not marked.rows
        assert re.search(words, marked.unavailable or ""), marked.unavailable
        assert [c for c in found.comparisons if c.arm == arm] == []
        if not how:
            _hold_every_fit(store)

    return alarm(check)


def _hold_every_fit(store: DatasetStore) -> None:
    assert Spy.seen, "nothing was fitted"
    for train, _ in Spy.seen:
        assert_clean(store.snapshot(), train, HOLDOUT)


def what_came_later_trains_nobody(store: DatasetStore) -> None:
    snapshot = store.snapshot()
    assert len(snapshot.real.keys) > len(EVERY)
    assert not set(part(snapshot, 0)) & set(range(len(EVERY), len(snapshot.real.keys)))
    evaluate(store)
    _hold_every_fit(store)


def guesses(classifier: str) -> Check:
    """The classifier is no better than one that knows nothing."""

    def check(store: DatasetStore) -> None:
        figures = evaluate(store, classifier).arms[0].metrics
        assert figures["balanced_accuracy"].value == pytest.approx(1 / 3)

    return check


# -- the catalogue ---------------------------------------------------------------------------------

Plant = Callable[[DatasetStore], DatasetStore | None]


@dataclass(frozen=True)
class Leak:
    """How a leak is planted, and what must hold afterwards."""

    plant: Plant
    checks: tuple[Check, ...]


LEAKS: dict[str, Leak] = {}
"""Leaks that lie in a store."""

ATTEMPTS: dict[str, tuple[Callable[[DatasetStore], object], type[Exception], str]] = {}
"""Leaks that are a call, with the error that it ends with, and words of it."""


def leak(*checks: Check) -> Callable[[Plant], Plant]:
    """Enter what plants a leak into the catalogue, with all that must catch it."""

    def enter(function: Plant) -> Plant:
        LEAKS[function.__name__] = Leak(function, checks)
        return function

    return enter


def attempt(error: type[Exception], words: str) -> Callable[..., Callable[..., object]]:
    """Enter a call into the catalogue that must be refused."""

    def enter(function: Callable[[DatasetStore], object]) -> Callable[[DatasetStore], object]:
        ATTEMPTS[function.__name__] = (function, error, words)
        return function

    return enter


def rows_trained(store: DatasetStore) -> list[int]:
    return part(store.snapshot(), 0)


def rows_tested(store: DatasetStore) -> list[int]:
    return part(store.snapshot(), 2)


NOT_COMMITTED = "its columns are not those that were committed"
COLUMNS = (refuses(DamagedStore, NOT_COMMITTED), verify_finds("columns are not those"))
"""What catches a column that was edited."""
STALE = "was fitted on images that are not trained on any more"


# Rows whose parent must not be trained on


@leak(leaves_out("planted", clean=True))
def a_parent_in_test(store):
    """A run by hand holds flips of test images beside those of training images."""
    plant(store, "planted", [*rows_trained(store), *rows_tested(store)])


@leak(leaves_out("planted"))
def a_parent_in_validation(store):
    """A run by hand holds flips of validation images."""
    plant(store, "planted", part(store.snapshot(), 1))


@leak(refuses(DamagedStore, "parent does not exist"), verify_finds("parent does not exist"))
def a_grandparent_in_test(store):
    """Rows name as parents the rows of a run, which were made from test images."""
    rows = rows_tested(store)
    plant(store, "parents", rows)
    plant(store, "planted", rows, columns={"parent": len(EVERY) + np.arange(len(rows))})


@leak(refuses(DamagedStore, "rows of several parents"), verify_finds("rows of several parents"))
def a_second_parent_in_test(store):
    """Each row has two parents, as mixing makes them: a training image and a test image."""
    test = rows_tested(store)
    both = np.stack([rows_trained(store)[: len(test)], test], axis=1)
    plant(store, "planted", test, columns={"parent": both})


@leak(replay_finds("smuggle", row=20))
def a_second_parent_that_no_row_names(store):
    """A plugin lays one image over another; a row by itself cannot be made again."""
    ak.augment(store, "smuggle", workers=1)


@attempt(PluginFailed, "makes other pixels when it is given the same images")
def a_second_parent_in_the_first_rows(store):
    """The first rows of a run are made twice, the second time with fewer beside them."""
    ak.augment(store, "mix", workers=1)


@attempt(AssertionError, "each row must be by itself")
def a_plugin_that_mixes_the_rows_of_a_block(store):
    """The same plugin is held against the contract."""
    check_augmenter(Mix)


@leak(leaves_out("flip", clean=True), marks("mean", STALE))
def a_parent_that_a_later_image_brings_into_test(store):
    """A new image shows that a training patient and a test patient are one: runs are stale."""
    regroup(store)


# Generators fitted on what must not be trained on


@leak(marks("gan", STALE))
def a_generator_fitted_on_everything(store):
    """A generated run says that it was fitted on every image."""
    plant(store, "gan", rows_trained(store), fitted_on=EVERY, family="generative")


@leak(marks("gan", STALE))
def a_generator_fitted_on_one_test_image(store):
    """One test image among all the training images is enough."""
    rows = rows_trained(store)
    plant(store, "gan", rows, fitted_on=[*rows, rows_tested(store)[0]], family="generative")


@leak(marks("gan", STALE))
def a_generator_fitted_on_validation(store):
    """A generator that was fitted on what the classifier chooses by."""
    validation = part(store.snapshot(), 1)
    plant(store, "gan", rows_trained(store), fitted_on=validation, family="generative")


@leak(marks("gan", STALE))
def a_model_fitted_on_everything(store):
    """The model is kept with what it was fitted on; its run names the model alone."""
    model = keep_model(store, EVERY)
    plant(store, "gan", rows_trained(store), model=model, family="generative")


@leak(leaves_out("planted"))
def a_fitted_run_that_calls_itself_traditional(store):
    """A run of the family that has parents was fitted on every image all the same."""
    plant(store, "planted", rows_trained(store), fitted_on=EVERY)


@leak(refuses(DamagedStore, "was fitted on images that do not exist"))
def a_generator_fitted_on_generated_rows(store):
    """A generator names rows of another run, which derive from test images."""
    rows = rows_tested(store)
    plant(store, "parents", rows)
    plant(store, "gan", rows, fitted_on=[len(EVERY) + 1], family="generative")


@leak(marks("mean", "not available under fold 2 of 5", split=None, folds=5))
def a_generator_fitted_under_the_first_partition_only(store):
    """Its run is there for one of five folds: the arm is not averaged over fewer than others."""
    refit(store, "mean", k_fold(5)[0])


@leak(refuses(DamagedStore, "entry 3 of the log is damaged"), verify_finds("entry 3 of the log"))
def images_of_a_fit_emptied_by_hand(store):
    """The list of images that a model was fitted on is emptied in the log."""
    edit_entry(store, 3, sign=False, fitted_on=[])


@leak(refuses(DamagedStore, "entry 4 of the log does not follow"), verify_finds("does not follow"))
def images_of_a_fit_shortened_with_a_new_digest(store):
    """The list is shortened, and its entry is given a digest that fits."""
    edit_entry(store, 3, sign=True, fitted_on=rows_trained(store)[:3])


@leak(refuses(DamagedStore, "it was fitted on nothing"))
def images_of_a_fit_emptied_in_a_log_written_anew(store):
    """The list is emptied, and every digest of the log is made to fit."""
    entries = log_of(store)
    entries[2]["fitted_on"] = []
    write_log(store, entries)


@leak(verify_finds("was fitted on other images than the log says"))
def a_generator_of_another_partition_passed_off(store):
    """A generator that was fitted on test images is said to be of this partition, in every hash."""
    name = refit(store, "mean", k_fold(5)[0]).run
    assert set(store.snapshot().run(name).fitted_on or ()) & set(rows_tested(store))
    rows, entries = rows_trained(store), log_of(store)
    model, run = entries[-2:]
    for entry in (model, run):
        entry["recipe"]["partition"] = HOLDOUT.name
        entry["trained_from"] = entries[2]["trained_from"]
    model |= {"fitted_on": rows, "partition": HOLDOUT.name}
    with shard_opened(store, name) as shard:
        shard.attrs["recipe"] = json.dumps(run["recipe"])
    write_log(store, entries)
    seal(ak.open(store.path), name)


@leak(verify_finds("the log names another recipe or model than the shard does"))
def a_run_that_denies_its_model(store):
    """A run of a generator says that its plugin learns nothing, so that no image bars it."""
    entries = log_of(store)
    entries[3]["lineage"] = {"kind": "fitted", "fitted_on": []}
    write_log(store, entries)


@leak(verify_finds("was fitted on other images than the log says"))
def a_generator_from_another_store_with_the_same_keys(store):
    """A model and its run are copied from a store that has other images under these keys."""
    _bring(store, *log_of(other_store(store))[2:])


@leak(lambda store: only_own_images(store))
def a_run_from_another_store_with_the_same_keys(store):
    """A traditional run is copied from there: it is made again from the images of this store."""
    _bring(store, log_of(other_store(store))[1])


def other_store(store: DatasetStore) -> DatasetStore:
    """Return a store with other images under the same keys, and the same runs of them."""
    return sound_store(store.path.parent / "b.store", seed=1)


def _bring(store, *entries):
    """Append entries of another store to the log, with what they name."""
    for entry in entries:
        if "shard" in entry:
            name = f"shards/{entry['shard']['name']}.h5"
            shutil.copyfile(store.path.parent / "b.store" / name, store.path / name)
            entry["run"] = "theirs"
        if "model" in entry:
            name = f"models/{entry['model']['name']}"
            shutil.copytree(store.path.parent / "b.store" / name, store.path / name)
    write_log(store, [*log_of(store), *entries])


def only_own_images(store: DatasetStore) -> None:
    real = store.snapshot().inspect()[:]
    own = {image.tobytes() for image in (*real, *real[:, :, ::-1])}
    assert "theirs" in [arm.name for arm in evaluate(store, arms=["theirs"]).arms]
    assert all(pixels(train) <= own for train, _ in Spy.seen)
    _hold_every_fit(store)


# Shards edited with plain h5py


@leak(*COLUMNS)
def parents_edited_to_training_images(store):
    """Flips of test images are committed, then given training images as parents."""
    _hide_parents(store)


@leak(replay_finds("planted"))
def parents_edited_and_every_hash_made_to_fit(store):
    """The same, and the log agrees with the shard: only the pixels tell where they are from."""
    _hide_parents(store)
    seal(ak.open(store.path), "planted")


def _hide_parents(store):
    real, test = store.snapshot().real, rows_tested(store)
    plant(store, "planted", test)
    with shard_opened(store, "planted") as shard:
        for position, row in enumerate(test):
            same = [r for r in rows_trained(store) if real.labels[r] == real.labels[row]]
            shard["parent"][position] = same[0]


@leak(*COLUMNS)
def a_label_of_a_test_image_edited(store):
    """A test image is given the class that a classifier takes it for."""
    row = rows_tested(store)[0]
    with shard_opened(store) as shard:
        shard["labels"][row] = (shard["labels"][row] + 1) % 3


@leak(*COLUMNS)
def a_label_edited_in_a_packed_store(store):
    """The same in a store of one file."""
    packed = ak.pack(store, store.path.with_suffix(".h5"))
    (row, *_), name = rows_tested(store), shard_of(store).stem
    with h5py.File(packed.path, "r+", locking=False) as file:
        labels = file["shards"][name]["labels"]
        labels[row] = (labels[row] + 1) % 3
    return packed


@leak(*COLUMNS)
def a_label_of_a_generated_row_edited(store):
    """A generated image is given another class."""
    with shard_opened(store, "mean") as shard:
        shard["labels"][0] = 2


@leak(
    refuses(DamagedStore, "damaged at row"),
    verify_finds("images are not those that were committed"),
)
def pixels_of_a_training_image_replaced(store):
    """A test image lies in the place of a training image."""
    _replace_pixels(store)


@leak(*COLUMNS)
def pixels_replaced_with_their_checksum(store):
    """The same, with the checksum of the test image."""
    _replace_pixels(store, "crc32")


def _replace_pixels(store, *others):
    train, test = rows_trained(store)[0], rows_tested(store)[0]
    with shard_opened(store) as shard:
        for name in ("images", *others):
            shard[name][train] = shard[name][test]


@leak(*COLUMNS)
def a_shard_in_the_place_of_another(store):
    """The files of two runs of equal size change places."""
    test = rows_tested(store)
    plant(store, "planted", np.resize(test, len(rows_trained(store))).tolist())
    flip, planted = shard_of(store, "flip"), shard_of(store, "planted")
    store.close()
    kept = flip.read_bytes()
    flip.write_bytes(planted.read_bytes())
    planted.write_bytes(kept)


@leak(refuses(DamagedStore, "a link to another file"), verify_finds("a link to another file"))
def images_that_are_a_link_to_another_file(store):
    """The images of a run are linked to those of a file that anybody may change."""
    shutil.copyfile(shard_of(store, "flip"), store.path.parent / "else.h5")
    with shard_opened(store, "flip") as shard:
        del shard["images"]
        shard["images"] = h5py.ExternalLink(str(store.path.parent / "else.h5"), "images")


# Labels copied wrongly


@leak(
    refuses(DamagedStore, "whose label is not that of their parent"),
    verify_finds("the label is not that of the parent"),
)
def a_label_copied_wrongly(store):
    """A run by hand gives its rows another class than their parents have."""
    rows = rows_trained(store)
    wrong = (store.snapshot().real.labels[rows] + 1) % 3
    plant(store, "planted", rows, labels=wrong.tolist())


@leak(
    refuses(DamagedStore, "whose label is not that of their parent"),
    verify_finds("the label is not that of the parent"),
)
def a_label_edited_and_every_hash_made_to_fit(store):
    """A row of a run is given another class, and the log agrees with the shard."""
    with shard_opened(store, "flip") as shard:
        shard["labels"][0] = 2
    seal(ak.open(store.path), "flip")


@leak(lambda store: labels_are_those_of_the_parents(store, "relabel"))
def a_plugin_that_writes_over_labels(store):
    """An augmenter changes the labels that it is given, in its plan."""
    ak.augment(store, "relabel", workers=1)


@attempt(PluginFailed, "read-only")
def a_plugin_that_writes_over_labels_with_its_images(store):
    """An augmenter changes the labels that it is given, in its images."""
    ak.augment(store, "relabel", {"later": True}, workers=1)


def labels_are_those_of_the_parents(store: DatasetStore, run: str) -> None:
    snapshot = store.snapshot()
    given = snapshot.inspect(run).labels
    assert np.array_equal(given, snapshot.real.labels[snapshot.parents(run)])
    assert len(np.unique(given)) == len(CLASSES)
    assert ak.verify(store).sound


# Groups, folds and the log


@leak(*COLUMNS)
def a_patient_renamed_in_a_shard(store):
    """Two images of one patient become images of two."""
    with shard_opened(store) as shard:
        shard["patient"][1] = b"toy/x"


@leak(verify_finds("one patient lies in several groups (rows 0, 1)"))
def a_group_in_two_folds(store):
    """A patient is torn in two groups, one of which is tested; every digest is made to fit."""
    entries = log_of(store)
    table = entries[0]["grouping"]
    assert table["groups"][0] == table["groups"][1]
    table["groups"][1] = len(table["folds"])
    table["folds"].append(19 if table["folds"][0] < 14 else 0)
    write_log(store, entries)


@leak(refuses(DamagedStore, "entry 1 of the log is damaged"), verify_finds("entry 1 of the log"))
def folds_edited_in_the_log(store):
    """The groups that are tested are chosen by hand."""
    grouping = log_of(store)[0]["grouping"]
    folds = [*grouping["folds"][1:], grouping["folds"][0]]
    edit_entry(store, 1, sign=False, grouping=grouping | {"folds": folds})


@leak(refuses(DamagedStore, "entry 2 of the log is damaged"), verify_finds("entry 2 of the log"))
def a_seed_edited_in_the_log(store):
    """A run is said to be of another seed than it was drawn with."""
    recipe = log_of(store)[1]["recipe"]
    edit_entry(store, 2, sign=False, recipe=recipe | {"seed": 7})


@leak(refuses(DamagedStore, "has lost entry 5"), verify_finds("has lost entry 5"))
def a_regrouping_taken_out_of_the_log(store):
    """The commit that joined a training patient to a test patient is deleted."""
    regroup(store)
    ak.augment(store, "zoom", workers=1)
    log_path(store, 5).unlink()


@leak(refuses(DamagedStore, "entry 5 of the log does not follow"), verify_finds("does not follow"))
def a_commit_of_another_store(store):
    """A commit is copied from a store of the same number of commits."""
    other = other_store(store)
    ak.augment(other, "zoom", workers=1)
    name = f"shards/{shard_of(other, 'zoom').name}"
    shutil.copyfile(other.path / name, store.path / name)
    shutil.copyfile(log_path(other, 5), log_path(store, 5))


# Duplicates across parts


def again(store, pixels, names, *, dataset="toy", find=True):
    """Bring images into a store under new keys."""
    keys = [f"again/{i}.png" for i in range(len(pixels))]
    ak.ingest_arrays(store, [pixels], names, keys=keys, dataset=dataset, find_relatives=find)


def images_tested(store):
    """Return the test images and the names of their classes."""
    snapshot, rows = store.snapshot(), rows_tested(store)
    return snapshot.inspect().gather(np.array(rows)), [CLASSES[i] for i in _labels(store, rows)]


def _labels(store, rows):
    return store.snapshot().real.labels[rows].tolist()


@leak(what_came_later_trains_nobody)
def copies_of_test_images_under_other_keys(store):
    """Test images come again; not even near-duplicates are looked for."""
    again(store, *images_tested(store), find=False)


@leak(what_came_later_trains_nobody)
def mirrored_copies_of_test_images(store):
    """Test images come again, mirrored."""
    found, names = images_tested(store)
    again(store, np.ascontiguousarray(found[:, :, ::-1]), names)


@leak(what_came_later_trains_nobody, lambda store: both_are_left_out(store))
def a_near_copy_of_a_test_image_in_another_class(store):
    """A test image comes again, darker, as an image of another class: nobody knows which."""
    found, (name, *_) = images_tested(store)
    other = CLASSES[(CLASSES.index(name) + 1) % 3]
    again(store, found[:1] // 2, [other])


def both_are_left_out(store: DatasetStore) -> None:
    snapshot = store.snapshot()
    assert part(snapshot, -1)[-1] == len(EVERY)
    assert snapshot.real.groups[part(snapshot, -1)].max() == snapshot.real.groups[-1]


@leak(lambda store: copies_elsewhere_are_left_out(store))
def copies_in_the_data_set_that_is_held_out(store):
    """Another data set, to be tested on whole, holds images that are trained on."""
    copied = store.snapshot().inspect()[0:36:4].copy()
    copied[:, :4, :4] = 255
    new, names = images(9, seed=5, shape=SHAPE), labels(3)
    again(store, np.concatenate([copied, new]), names + names, dataset="other")


def copies_elsewhere_are_left_out(store: DatasetStore) -> None:
    snapshot = store.snapshot()
    (partition,) = protocol(None, None, 1, Scope(held_out="other")).partitions
    assert part(snapshot, 2, partition) == [*range(45, 54)], "only what is new there is tested"
    assert set(range(0, 36, 4)) <= set(part(snapshot, -1, partition))
    evaluate(store, split=None, test_on="other")
    assert Spy.seen
    for train, _ in Spy.seen:
        assert_clean(snapshot, train, partition)


@attempt(NameTaken, "is in .* already: use other keys")
def other_pixels_under_a_key_that_is_in_use(store):
    """A training image is to be replaced by a test image of the same class."""
    keys = [f"{CLASSES[0]}/0.png"]
    found, _ = images_tested(store)
    ak.ingest_arrays(store, [found[:1]], [CLASSES[0]], keys=keys, dataset="toy")


@leak(verify_finds("a key occurs twice"))
def one_key_twice(store):
    """The same images are committed again by hand, as training images."""
    entries = log_of(store)
    twice = json.loads(json.dumps(entries[0]))
    n = len(twice["grouping"]["folds"])
    groups = twice["grouping"]["groups"]
    twice["grouping"] |= {
        "groups": [*groups, *(g + n for g in groups)],
        "folds": [*twice["grouping"]["folds"], *[0] * n],
    }
    write_log(store, [*entries, twice])


# Classifiers that want more than they are given


@attempt(LineageError, "labels of test images are not given to plugins")
def a_classifier_that_asks_for_test_labels(store):
    """A classifier reads the labels of what it is to predict."""
    evaluate(store, "cheat")


@leak(guesses("unveil"))
def a_classifier_that_calls_test_images_training_images(store):
    """A classifier changes the purpose of its samples, and reads their private parts."""
    evaluate(store, "unveil")


@leak(lambda store: every_fit_was_given_the_same(store))
def a_classifier_that_writes_over_its_samples(store):
    """A classifier changes labels and pixels for the fits that come after it."""
    Scribbler.given.clear()
    evaluate(store, "scribbler", arms=["real"], seeds=3)


def every_fit_was_given_the_same(store: DatasetStore) -> None:
    assert len(Scribbler.given) == 6
    assert len(set(Scribbler.given)) == 2, "the training part and the validation part"
    assert ak.verify(store).sound


@attempt(AssertionError, "remembers what was learned in another fit")
def a_classifier_that_remembers_other_folds(store):
    """A classifier keeps what some fold trained on, which this one tests."""
    Hoarder.known.clear()
    check_classifier(Hoarder)


@attempt(AssertionError, "gives other probabilities when it is fitted twice")
def a_classifier_that_learns_from_what_it_predicted(store):
    """A classifier keeps the test images for its next fit."""
    Recorder.kept.clear()
    check_classifier(Recorder)


@attempt(PluginFailed, "predicts otherwise when its first fit is done again after the others")
def a_classifier_that_remembers_other_folds_when_it_is_evaluated(store):
    """The same, by a classifier that nobody has checked; its fits are not kept either."""
    Hoarder.known.clear()
    try:
        evaluate(store, "hoarder", split=None, folds=5, arms=["real"])
    finally:
        assert not list(store.side_folder("results").glob("*.json"))


@attempt(PluginFailed, "it remembers other folds, or draws without the seed")
def a_classifier_that_learned_from_what_it_predicted(store):
    """A classifier knows the images that it predicted when it predicts them again."""
    Recorder.kept.clear()
    evaluate(store, "recorder", split=None, folds=5, arms=["real"])


@attempt(LineageError, "may be trained on; these samples are for test")
def new_images_made_from_test_images(store):
    """Rows are to be made on demand from the test part."""
    snapshot = store.snapshot()
    recipe, source = snapshot.run("flip").recipe, snapshot.training(HOLDOUT)
    augmenter = rebuild(recipe)
    MadeSamples(augmenter, snapshot.test(HOLDOUT), draw(augmenter, recipe, source), "by hand")


@attempt(LineageError, "labels of test images are not given to plugins")
def samples_of_test_images_to_train_on(store):
    """A fit is to learn from the test part."""
    trial = _trial(store)
    trial.fit(replace(trial.tasks[0], train=trial.parts[0][2]))


@attempt(LineageError, "may be trained on; these samples are for inspection")
def validation_images_joined_to_training_samples(store):
    """A fit is to learn from the training part with the validation part behind it."""
    trial = _trial(store)
    train, validation, _ = trial.parts[0]
    trial.fit(replace(trial.tasks[0], train=JoinedSamples([train, validation])))


def _trial(store):
    return Trial(store, *prepare(store, Request("spy", split=HOLDOUT.name, seeds=1)))


# Models


@attempt(LineageError, r"was fitted on \d+ images other than the \d+ of the training part")
def weights_that_were_fitted_on_other_images(store):
    """A model of another store is to be taken for one of these images."""
    (model,) = (other_store(store).path / "models").iterdir()
    ak.fit(store, "mean", weights=model)


@attempt(InputError, "are not those that it is named after")
def weights_that_claim_these_images(store):
    """The same, after what lies beside the weights was edited to name these images."""
    (own,) = (store.path / "models").iterdir()
    (model,) = (other_store(store).path / "models").iterdir()
    shutil.copyfile(own / "provenance.json", model / "provenance.json")
    ak.fit(store, "mean", weights=model)


@leak(
    refuses(DamagedStore, "are not those that were committed", sampling),
    verify_finds("the bytes of file 'means.json' are not those that were committed"),
)
def weights_replaced_by_others(store):
    """A generator that was fitted on test images lies in the place of the one that is kept."""
    (model,) = (store.path / "models").iterdir()
    test, names = images_tested(store)
    spoilt = json.loads((model / "means.json").read_text())
    spoilt["means"][str(CLASSES.index(names[0]))] = test[0].tolist()
    (model / "means.json").write_text(json.dumps(spoilt))


# Results and protocols


@leak(guesses("spy"))
def a_result_edited_to_a_better_figure(store):
    """The probabilities of a fit are replaced by the truth."""
    evaluate(store)
    for path in (store.path / "results").iterdir():
        found = json.loads(path.read_text())
        found["probabilities"] = np.eye(3)[_labels(store, rows_tested(store))].tolist()
        path.write_text(json.dumps(found))


@leak(guesses("spy"))
def a_result_in_the_place_of_another(store):
    """A fit that knew the truth, of other images, lies in the place of this one."""
    evaluate(store, arms=["real"])
    (path,) = (store.path / "results").iterdir()
    found = json.loads(path.read_text())
    found["task"]["test"] = "0" * 64
    found["probabilities"] = np.eye(3)[_labels(store, rows_tested(store))].tolist()
    del found["digest"]
    path.write_text(json.dumps(found | {"digest": digest_of(found)}))


@leak(refuses(InputError, "was changed by hand: evaluate again to write it anew", reporting))
def an_outcome_edited_before_it_is_reported(store):
    """The figure itself is edited, in the file that a report is written from."""
    evaluate(store)
    (path,) = (store.path / "outcomes").iterdir()
    found = json.loads(path.read_text())
    found["cells"][0]["evaluation"]["arms"][0]["metrics"]["accuracy"]["value"] = 0.99
    path.write_text(json.dumps(found))


@leak(lambda store: the_outcome_says_that_it_leaks(store))
def relatives_on_both_sides_of_a_split_by_image(store):
    """Images of one patient are trained and tested on, because somebody asked for it."""
    patients = [f"p{i // 2}" for i in range(60)]
    larger = toy_store(store.path.parent / "c.store", 20, shape=(8, 8, 1), groups=patients)
    ak.augment(larger, "flip", workers=1)
    evaluate(larger, split_by="image")
    return larger


def the_outcome_says_that_it_leaks(store: DatasetStore) -> None:
    (path,) = (store.path / "outcomes").iterdir()
    found = json.loads(path.read_text())["cells"][0]["evaluation"]
    assert found["protocol"].endswith("split by image")
    assert found["warnings"][0].startswith("LEAKY: split by image")
    assert [verdict["word"] for verdict in found["verdicts"]] == [None]


# -- the tests -------------------------------------------------------------------------------------


def sound_store(path: Path, seed: int = 0) -> DatasetStore:
    """Return a store of 36 images, two of each patient, with a flip of each and a generator."""
    patients = [f"p{i // 2}" for i in EVERY]
    store = toy_store(path, 12, shape=SHAPE, groups=patients, seed=seed)
    ak.augment(store, "flip", workers=1)
    ak.augment(store, "mean", n=4, workers=1)
    return store


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        offer(patch, Mean)
        store = sound_store(tmp_path_factory.mktemp("leaks") / "a.store")
    store.close()
    return store.path


@pytest.fixture
def store(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DatasetStore]:
    offer(
        monkeypatch, Mean, Spy, Cheat, Unveil, Scribbler, Hoarder, Recorder, Relabel, Mix, Smuggle
    )
    shutil.copytree(template, tmp_path / "a.store")
    yield ak.open(tmp_path / "a.store")
    Spy.seen.clear()


def catch(store: DatasetStore, kind: Leak) -> None:
    """Plant a leak, and hold what another process would then see against each check."""
    planted = kind.plant(store) or store
    store.close()
    for check in kind.checks:
        opened = ak.open(planted.path)
        check(opened)
        opened.close()


@pytest.mark.seconds
@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_in_a_store_is_caught(store: DatasetStore, name: str) -> None:
    catch(store, LEAKS[name])


@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_call_that_would_leak_is_refused(store: DatasetStore, name: str) -> None:
    call, error, words = ATTEMPTS[name]
    with pytest.raises(error, match=words) as caught:
        call(store)
    assert "\n" not in str(caught.value)


def test_the_catalogue_has_more_than_twenty_kinds() -> None:
    assert not set(LEAKS) & set(ATTEMPTS)
    assert len(LEAKS) + len(ATTEMPTS) >= 50
    for function in (*(kind.plant for kind in LEAKS.values()), *(a[0] for a in ATTEMPTS.values())):
        assert (function.__doc__ or "").endswith(".")


# Controls: without a leak nothing is caught


@pytest.mark.seconds
def test_the_store_without_a_leak_is_trained_on_whole(store: DatasetStore) -> None:
    n = len(rows_trained(store))
    found = evaluate(store)
    rows = {a.name: a.rows for a in found.arms if not a.control}
    assert rows == {"real": n, "traditional": 2 * n, "mean": n + 12, "all": 2 * n + 12}
    assert [a.unavailable for a in found.arms] == [None] * len(found.arms)
    _hold_every_fit(store)
    assert ak.verify(store).sound
    assert all(ak.replay(store, run).equal for run in ("flip", "mean"))
    assert training(store) is not None
    assert reporting(store)
    assert sampling(store)


def honest(store: DatasetStore) -> DatasetStore:
    """Do with training images alone what the catalogue does with others, by the same means."""
    rows = rows_trained(store)
    plant(store, "planted", rows)
    plant(store, "gan", rows, model=keep_model(store, rows), family="generative")
    ak.augment(store, "zoom", run="smuggle", workers=1)
    with shard_opened(store, "planted") as shard:
        shard["parent"][0] = rows[0]
    write_log(store, log_of(store))
    opened = ak.open(store.path)
    seal(opened, "planted")
    edit_entry(opened, 1, sign=False)
    edit_entry(opened, len(log_of(opened)), sign=True)
    return ak.open(store.path)


def test_what_is_trained_on_rightly_is_not_taken_for_a_leak(store: DatasetStore) -> None:
    opened = honest(store)
    n = len(rows_trained(opened))
    found = evaluate(opened, arms=["planted", "gan", "smuggle"])
    rows = {a.name: (a.rows, a.unavailable) for a in found.arms if not a.control}
    assert rows == {"real": (n, None)} | dict.fromkeys(("planted", "gan", "smuggle"), (2 * n, None))
    assert ak.verify(opened).sound


@pytest.mark.seconds
def test_no_alarm_goes_off_without_a_leak(store: DatasetStore) -> None:
    opened = honest(store)
    assert len(ALARMS) > 40
    for check in ALARMS:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            check(opened)


def test_new_images_of_strangers_are_trained_on(store: DatasetStore) -> None:
    again(store, images(12, seed=7, shape=SHAPE), labels(4))
    with pytest.raises(AssertionError):
        what_came_later_trains_nobody(store)


def test_a_result_is_no_secret_who_makes_its_digest_fit_is_believed(store: DatasetStore) -> None:
    evaluate(store)
    for path in (store.path / "results").iterdir():
        found = json.loads(path.read_text())
        found["probabilities"] = np.eye(3)[_labels(store, rows_tested(store))].tolist()
        del found["digest"]
        path.write_text(json.dumps(found | {"digest": digest_of(found)}))
    assert evaluate(store).arms[0].metrics["balanced_accuracy"].value == 1
