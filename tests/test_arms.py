"""Arms under partitions: controls, generators that are fitted anew, and scopes."""

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from learners import Mean
from toys import CLASSES, images, offer, toy_store

import augkit as ak
from augkit.arms import controls, repeated, to_refit, training_samples, under
from augkit.augmentation import refit
from augkit.errors import OptionError, StoreError
from augkit.evaluation import Request, prepare
from augkit.interfaces import Augmenter, Classifier
from augkit.partitions import HOLDOUT, Scope, k_fold, protocol
from augkit.testing import phantoms
from augkit.trials import Trial
from augkit.verdicts import judge


@dataclass
class Shares(Classifier):
    """Predicts the class shares of what it was trained on; keeps what it was given."""

    name = "shares"
    deterministic = True
    fast = True
    given: ClassVar[list] = []

    def fit(self, train, val, context):
        Shares.given.append(train)
        counts = np.bincount(train.labels, minlength=len(context.classes))
        self.shares_ = (counts / counts.sum()).astype(np.float32)

    def predict_proba(self, samples):
        return np.tile(self.shares_, (len(samples), 1))


@dataclass
class Dream(Augmenter):
    """Makes grey images from nothing: it learns nothing."""

    name = "dream"
    family = "generative"

    def apply(self, images, labels, params):
        return np.full((len(labels), 24, 32, 1), 99, np.uint8)


@pytest.fixture(autouse=True)
def _plugins(monkeypatch):
    Shares.given = []
    Mean.fits = []
    offer(monkeypatch, Mean, Shares)


@pytest.fixture
def store(tmp_path):
    return toy_store(tmp_path / "a.store", 40)


@pytest.fixture
def two_sites(tmp_path):
    """40, 20 and 10 images of the classes at site a, 20 of each but one at site b."""
    store = ak.DatasetStore.create(tmp_path / "a.store", height=24, width=32)
    sites = {"a": (40, 20, 10), "b": (20, 20, 0)}
    for seed, (site, counts) in enumerate(sites.items()):
        names = [c for c, n in zip(CLASSES, counts, strict=True) for _ in range(n)]
        keys = [f"{i}.png" for i in range(len(names))]
        ak.ingest_arrays(
            store,
            [images(len(names), seed)],
            names,
            keys=keys,
            dataset=site,
            find_relatives=False,
        )
    return store


# Controls


def test_arms_alike_in_class_shares_have_one_control_and_those_like_real_have_real():
    shares = {
        "real": np.array([0.6, 0.3, 0.1]),
        "flip": np.array([0.6, 0.3, 0.1]),
        "gan": np.array([0.33, 0.33, 0.34]),
        "all": np.array([0.37, 0.33, 0.30]),
        "odd": np.array([0.1, 0.1, 0.8]),
    }
    assert controls(shares) == {
        "flip": ("real", "real"),
        "gan": ("balanced", "gan"),
        "all": ("balanced", "gan"),
        "odd": ("balanced-2", "odd"),
    }


def test_a_control_repeats_real_images_evenly_and_adds_nothing_else(store):
    real = store.snapshot().training(HOLDOUT)
    counts = np.array([28, 60, 100])
    made = repeated(real, counts)
    assert np.bincount(made.labels).tolist() == counts.tolist()
    assert (made[: len(real)] == real[:]).all(), "the real images come first"
    times = {}
    for image in made[:]:
        times[image.tobytes()] = times.get(image.tobytes(), 0) + 1
    assert set(times) == {image.tobytes() for image in real[:]}
    for label in range(3):
        of_class = [times[image.tobytes()] for image in real[:][real.labels == label]]
        assert max(of_class) - min(of_class) <= 1
    assert made.purpose == "training"
    assert (made.gather(np.array([len(made) - 1, 0])) == made[:][[-1, 0]]).all()


@pytest.mark.seconds
def test_an_evaluation_makes_the_control_that_an_arm_needs(two_sites):
    ak.augment(two_sites, "mean", n=60)
    found = ak.evaluate(two_sites, "shares", split="70/15/15")
    by_name = {arm.name: arm for arm in found.arms}
    assert by_name["balanced"].control and by_name["balanced"].rows == by_name["mean"].rows
    counts = [np.bincount(train.labels, minlength=3).tolist() for train in Shares.given]
    assert counts[1] == counts[-1], "the control has the class counts of its arm"
    rows = [(c.versus, c.control) for c in found.comparisons if c.metric == "balanced_accuracy"]
    assert rows == [("real", "real"), ("balanced", "balanced")]


def test_without_another_balance_real_is_the_control_and_both_rows_are_there(store):
    ak.augment(store, "flip")
    found = json.loads(ak.evaluate(store, "shares").to_json())
    rows = [c for c in found["comparisons"] if c["metric"] == "balanced_accuracy"]
    assert [(c["versus"], c["control"]) for c in rows] == [("real", "real"), ("balanced", "real")]
    assert found["arms"][-1]["name"] == "balanced" and found["arms"][-1]["same_as"] == "real"
    assert len(Shares.given) == 10 + 1, "nothing is fitted for it, and the first fit is checked"


def test_the_control_can_be_asked_for_alone(two_sites):
    found = ak.evaluate(two_sites, "shares", arms=["balanced"], split="70/15/15")
    assert [arm.name for arm in found.arms] == ["real", "balanced"]
    counts = np.bincount(Shares.given[-1].labels)
    assert len(set(counts.tolist())) == 1, "every class as often as the largest"
    assert found.verdicts == ()


# Generators that are fitted anew


@pytest.mark.seconds
def test_a_generator_is_fitted_anew_for_every_partition_and_on_nothing_else(store):
    ak.augment(store, "mean", n=5)
    plain = ak.evaluate(store, "shares")
    assert "--refit" in str(plain.arms[1].unavailable)
    found = ak.evaluate(store, "shares", refit=True)
    assert [arm.unavailable for arm in found.arms] == [None] * len(found.arms)
    assert found.arms[1].name == "mean" and found.arms[1].metrics
    snapshot = store.snapshot()
    fitted = [run for run in snapshot.runs.values() if run.name != "mean"]
    assert [run.name for run in fitted] == [f"mean.fold-{k}-of-5" for k in range(1, 6)]
    for run, partition in zip(fitted, k_fold(5), strict=True):
        train = np.flatnonzero(snapshot.parts(partition) == 0)
        assert run.fitted_on == tuple(train.tolist())
        assert run.labels == (5, 5, 5)
        assert under(snapshot, "mean", partition) == run.name
        used = training_samples(snapshot, partition, ("mean",))
        assert len(used) == len(train) + 15
    assert to_refit(snapshot, {"mean": ("mean",)}, protocol(None, 5, 1)) == []


@pytest.mark.seconds
def test_what_was_fitted_anew_is_no_arm_of_its_own_and_not_made_twice(store):
    ak.augment(store, "mean", n=5)
    ak.evaluate(store, "shares", refit=True)
    fits = len(Mean.fits)
    found = ak.evaluate(store, "shares", refit=True)
    assert len(Mean.fits) == fits
    assert [arm.name for arm in found.arms if not arm.control] == ["real", "mean", "all"]
    assert not refit(store, "mean", k_fold(5)[0]).made
    assert ak.verify(store).sound


def test_a_model_of_another_partition_is_never_taken_for_the_stored_one(store):
    refit_first = ak.augment(store, "mean", n=5)
    refit(store, "mean", k_fold(5)[0])
    again = ak.augment(store, "mean", n=5)
    assert (refit_first.run, again.made) == ("mean", False)
    models = store.snapshot().models.values()
    assert len({m.trained_from for m in models}) == 2


@pytest.mark.slow
def test_an_interrupted_refit_goes_on(store, monkeypatch):
    ak.augment(store, "mean", n=5)
    good, calls = Mean.fit, []

    def stopped(self, train, context):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return good(self, train, context)

    monkeypatch.setattr(Mean, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        ak.evaluate(store, "shares", refit=True)
    assert len(store.snapshot().runs) == 3
    monkeypatch.setattr(Mean, "fit", good)
    assert ak.evaluate(store, "shares", refit=True).arms[1].metrics


@pytest.mark.slow
def test_two_runs_of_one_recipe_are_never_added_twice(store):
    ak.augment(store, "mean", n=5)
    names = [c for c in CLASSES for _ in range(10)]
    keys = [f"new-{i}.png" for i in range(30)]
    ak.ingest_arrays(store, [images(30, 9)], names, keys=keys, find_relatives=False)
    assert ak.augment(store, "mean", n=5).run == "mean-2"
    found = ak.evaluate(store, "shares", refit=True)
    assert found.superseded == {"mean": "mean-2"}
    (arm,) = [arm for arm in found.arms if arm.name == "mean"]
    assert arm.runs == ("mean-2",)
    snapshot = store.snapshot()
    for partition in k_fold(5):
        train = training_samples(snapshot, partition, ("mean", "mean-2"))
        assert len(np.unique(train.ids)) == len(train)


@pytest.mark.slow
def test_rows_of_another_version_do_not_stand_for_a_run(store, monkeypatch):
    ak.augment(store, "mean", n=5)
    ak.evaluate(store, "shares", refit=True)
    offer(monkeypatch, Mean, Shares, version="2.0")
    name = ak.augment(store, "mean", n=5).run
    snapshot = store.snapshot()
    assert under(snapshot, name, k_fold(5)[0]) is None
    assert len(to_refit(snapshot, {"m": (name,)}, protocol(None, 5, 1))) == 5


def test_no_run_takes_the_name_of_a_control(store):
    for name in ("balanced", "balanced-2", "balanced-13"):
        with pytest.raises(OptionError, match="is the name of an arm"):
            ak.augment(store, "flip", run=name)


@pytest.mark.slow
def test_an_arm_whose_control_failed_gets_no_verdict_and_says_why(two_sites, monkeypatch):
    ak.augment(two_sites, "mean", n=60)
    prepared = prepare(two_sites, Request("shares", split="70/15/15"))
    trial = Trial(two_sites, *prepared)
    trial.failed["balanced"] = "failed under fold 1"
    found = trial.outcome(judge(trial.cases(), "accuracy"))
    assert [v.sentence for v in found.verdicts if v.arm == "mean"] == [
        "no verdict on mean: its control balanced failed"
    ]
    assert [a.same_as for a in found.arms if a.name == "balanced"] == [None]


def test_a_class_that_is_left_out_is_left_out_of_made_images_too(two_sites, monkeypatch):
    offer(monkeypatch, Mean, Shares, Dream)
    ak.augment(two_sites, "dream", n=4)
    plan = protocol("70/15/15", None, 1, Scope(without=("normal",)))
    train = training_samples(two_sites.snapshot(), plan.partitions[0], ("dream",))
    assert set(np.unique(train.labels).tolist()) == {0, 1}


# Scopes: some data sets, another site, images instead of groups


def test_only_the_images_of_a_data_set_are_trained_and_tested_on(two_sites):
    snapshot = two_sites.snapshot()
    plan = protocol(None, 5, 1, Scope(datasets=("a",)))
    assert plan.name == "5 folds of a"
    for partition in plan.partitions:
        parts = snapshot.parts(partition)
        assert (parts[snapshot.real.datasets == "b"] == -1).all()
        assert (parts[snapshot.real.datasets == "a"] >= 0).all()
    found = ak.evaluate(two_sites, "shares", datasets=["a"])
    assert found.test_images == 70
    with pytest.raises(OptionError, match="no data set 'c'; there are: a, b"):
        ak.evaluate(two_sites, "shares", datasets=["c"])


def test_a_class_can_be_left_out(two_sites):
    snapshot = two_sites.snapshot()
    plan = protocol("70/15/15", None, 1, Scope(without=("normal",)))
    parts = snapshot.parts(plan.partitions[0])
    assert (parts[snapshot.real.labels == 2] == -1).all()


def test_data_sets_and_the_one_to_test_on_must_agree(two_sites):
    with pytest.raises(OptionError, match="b is to be tested on and is not among the data sets a"):
        ak.evaluate(two_sites, "shares", datasets=["a"], test_on="b")


def test_numbers_that_are_none_are_refused(store):
    for given in ({"seeds": "x"}, {"repeats": 2.5}, {"folds": "5"}):
        with pytest.raises(OptionError, match="must be a whole number"):
            ak.evaluate(store, "shares", **given)
    with pytest.raises(OptionError, match="arms is text; give a list"):
        ak.evaluate(store, "shares", arms="real")


def test_one_site_is_tested_after_training_on_the_other(two_sites):
    found = ak.evaluate(two_sites, "shares", test_on="b")
    assert (found.protocol, found.test_images) == ("tested on b", 40)
    snapshot = two_sites.snapshot()
    parts = snapshot.parts(protocol(None, None, 1, Scope(held_out="b")).partitions[0])
    at_b = snapshot.real.datasets == "b"
    assert (parts[at_b] == 2).all() and set(parts[~at_b].tolist()) == {0, 1}
    with pytest.raises(OptionError, match="takes all of it: no --split, no --folds"):
        ak.evaluate(two_sites, "shares", test_on="b", folds=5)
    with pytest.raises(StoreError, match="no training image of class 'normal'"):
        ak.evaluate(two_sites, "shares", test_on="a")


@pytest.mark.seconds
def test_relatives_across_sites_are_neither_trained_nor_tested_on(tmp_path):
    store = ak.DatasetStore.create(tmp_path / "a.store", height=40, width=48)
    made, _, labels = phantoms(20, height=40, width=48, seed=0)
    others, _, _ = phantoms(20, height=40, width=48, seed=1)
    others[3] = made[3]  # one picture at both sites
    for site, pixels in (("a", made), ("b", others)):
        names = [CLASSES[label] for label in labels]
        keys = [f"{i}.png" for i in range(60)]
        ak.ingest_arrays(store, [pixels], names, dataset=site, keys=keys)
    snapshot = store.snapshot()
    shared = np.flatnonzero(np.isin(snapshot.real.keys, ["a/3.png", "b/3.png"]))
    groups = snapshot.real.groups
    assert len(set(groups[shared].tolist())) == 1, "the same picture is one group"
    parts = snapshot.parts(protocol(None, None, 1, Scope(held_out="b")).partitions[0])
    assert parts[shared].tolist() == [-1, -1]
    assert len(np.intersect1d(groups[parts == 2], groups[parts != 2])) <= 1
    assert len(np.intersect1d(groups[parts == 2], groups[parts == 0])) == 0


def test_numbers_of_several_sites_are_shown_by_site_too(two_sites):
    found = ak.evaluate(two_sites, "shares")
    real = found.arms[0]
    assert set(real.by_dataset) == {"a", "b"}
    assert set(real.by_dataset["a"]) == {"accuracy", "balanced_accuracy", "auroc"}
    hits = 70 * real.by_dataset["a"]["accuracy"].value + 40 * real.by_dataset["b"]["accuracy"].value
    assert real.metrics["accuracy"].value == pytest.approx(hits / 110)
    assert "data set" in str(found)
    alone = ak.evaluate(two_sites, "shares", datasets=["a"]).arms[0]
    assert alone.by_dataset == {}


def test_a_class_that_tells_the_site_is_warned_of(two_sites):
    found = ak.evaluate(two_sites, "shares")
    (warning,) = found.warnings
    assert warning.startswith("normal comes almost only from a")
    assert ak.evaluate(two_sites, "shares", datasets=["a"]).warnings == ()


def test_the_protocol_of_the_paper_prints_what_learned_nothing(store):
    found = ak.evaluate(store, "shares", paper=True)
    assert found.arms[0].over_fitting and "over-fitting" in str(found)
    assert [w.split(":")[0] for w in found.warnings] == ["one split", "the protocol of the paper"]
    assert not ak.evaluate(store, "shares", split="70/15/15").arms[0].over_fitting


def test_a_split_by_image_tears_groups_says_so_and_gives_no_verdict(tmp_path):
    patients = [f"p{i // 5}" for i in range(120)]
    store = toy_store(tmp_path / "a.store", 40, groups=patients)
    ak.augment(store, "flip")
    found = ak.evaluate(store, "shares", split_by="image")
    assert "LEAKY" in found.warnings[0] and "LEAKY" in str(found)
    assert "with groups kept together; the leak flatters by" in found.warnings[1]
    assert [v.word for v in found.verdicts] == [None]
    snapshot = store.snapshot()
    for partition in protocol(None, 5, 1, Scope(by_image=True)).partitions:
        parts, groups = snapshot.parts(partition), snapshot.real.groups
        assert len(np.intersect1d(groups[parts == 0], groups[parts == 2])) > 3
        labels = snapshot.real.labels
        assert np.bincount(labels[parts == 2]).tolist() == [8, 8, 8]


def test_by_group_nothing_is_torn_whatever_the_scope(two_sites):
    snapshot = two_sites.snapshot()
    groups = snapshot.real.groups
    for scope in (Scope(), Scope(datasets=("a",)), Scope(held_out="b"), Scope(without=("normal",))):
        folds = None if scope.held_out else 5
        for partition in protocol(None, folds, 2, scope).partitions:
            parts = snapshot.parts(partition)
            sides = [set(groups[parts == k].tolist()) for k in range(3)]
            assert not (sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2])
