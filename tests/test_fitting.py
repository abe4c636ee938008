"""Models: trained once, found by their recipe, continued, brought, and never used by mistake."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from commands import command, works
from learners import Mean
from toys import offer, toy_store, tree

import augkit as ak
from augkit.errors import (
    AugkitError,
    InputError,
    LineageError,
    OptionError,
    PluginFailed,
    StoreError,
)
from augkit.fitting import seconds_of
from augkit.interfaces import Fitted

TINY = ["preset=quick", "size=16x16", "widths=4,4", "latent=4", "batch=4"]
TINY = [word for option in TINY for word in ("-o", option)]


@pytest.fixture(autouse=True)
def offered(monkeypatch):
    Mean.fits = []
    offer(monkeypatch, Mean)


@pytest.fixture(params=["a.store", "a.h5"])
def store(tmp_path, request):
    return toy_store(tmp_path / request.param, 12)


@pytest.fixture
def folder_store(tmp_path):
    return toy_store(tmp_path / "a.store", 12)


def parts(store):
    return store.snapshot().parts(ak.HOLDOUT)


# Found by its recipe


def test_augment_trains_once_and_the_same_line_again_does_nothing(store):
    first = ak.augment(store, "mean", n=4)
    assert (first.rows, first.made, Mean.fits) == (12, True, [0])
    again = ak.augment(store, "mean", n=4)
    assert (again.run, again.made, Mean.fits) == ("mean", False, [0])
    assert len(store.snapshot().entries) == 3  # images, model, run


def test_another_seed_trains_nothing_and_makes_other_images(store):
    ak.augment(store, "mean", n=4)
    other = ak.augment(store, "mean", n=4, seed=1)
    assert (other.run, other.made, Mean.fits) == ("mean-2", True, [0])
    snapshot = store.snapshot()
    assert snapshot.run("mean").model == snapshot.run("mean-2").model
    assert not np.array_equal(snapshot.inspect("mean")[:], snapshot.inspect("mean-2")[:])


@pytest.mark.parametrize("options", [{"noise": 3}, {"fit_seed": 5}])
def test_another_option_trains_another_model(store, options):
    ak.augment(store, "mean", n=4)
    ak.augment(store, "mean", options, n=4)
    assert Mean.fits == [0, options.get("fit_seed", 0)]
    snapshot = store.snapshot()
    assert len(snapshot.models) == 2
    assert snapshot.run("mean").model != snapshot.run("mean-2").model


def test_a_model_of_other_images_is_not_used(store):
    ak.augment(store, "mean", n=4)
    rng = np.random.default_rng(9)
    more = rng.integers(0, 256, (40, 24, 32, 1), np.uint8)
    names = ["benign", "malignant"] * 20
    keys = [f"{i}.png" for i in range(40)]
    ak.ingest_arrays(store, [more], names, keys=keys, dataset="more", find_relatives=False)
    ak.augment(store, "mean", n=4)
    assert len(Mean.fits) == 2
    snapshot = store.snapshot()
    old, new = (snapshot.model(snapshot.run(r).model) for r in ("mean", "mean-2"))
    assert set(old.fitted_on) < set(new.fitted_on)


def test_other_pixels_under_the_same_keys_are_other_images(tmp_path):
    for name, seed in (("a.store", 0), ("b.store", 1)):
        ak.augment(toy_store(tmp_path / name, 12, seed=seed), "mean", n=2)
    with pytest.raises(LineageError, match=r"was fitted on 24 images other than the 24 of"):
        (model,) = (tmp_path / "a.store" / "models").iterdir()
        ak.fit(tmp_path / "b.store", "mean", weights=model)


def test_a_model_is_fitted_on_the_training_part_and_nothing_else(store):
    ak.fit(store, "mean")
    (model,) = store.snapshot().models.values()
    assert model.fitted_on == tuple(np.flatnonzero(parts(store) == 0))
    ak.augment(store, "mean", n=2)
    assert store.snapshot().run("mean").fitted_on == model.fitted_on


def test_the_rows_of_a_run_name_model_latent_seed_and_nearest_image(folder_store):
    import h5py

    ak.augment(folder_store, "mean", n=4)
    run = folder_store.snapshot().run("mean")
    with h5py.File(folder_store.path / "shards" / f"{run.shard.name}.h5") as shard:
        assert shard.attrs["model"] == run.model
        assert len(set(shard["params"]["seed"].tolist())) == 12
        assert (shard["parent"][:] == -1).all()
        assert np.isin(shard["nearest"][:], run.fitted_on).all()
        assert shard["nearest_score"].dtype == np.float32
    assert run.environment == {"toy": "1"}


def test_one_line_of_several_plugins_may_hold_one_that_learns(store):
    results = ak.augment_all(store, ["flip", "mean"], n=3)
    assert [(r.run, r.rows) for r in results] == [("flip", 9), ("mean", 9)]


def test_a_plugin_that_learns_needs_an_amount_before_it_is_trained(store):
    with pytest.raises(OptionError, match="say how many images mean is to make: --n"):
        ak.augment(store, "mean")
    assert Mean.fits == []


def test_a_name_that_is_taken_is_refused_before_the_training(store):
    ak.augment(store, "flip")
    with pytest.raises(StoreError, match="run 'flip' exists already"):
        ak.augment(store, "mean", n=2, run="flip")
    assert Mean.fits == []


# Partial, and continued


RUDE = {
    "true": ("fit", True, r"fit\(\) returned bool instead of Fitted or None"),
    "no truth": ("fit", Fitted(np.bool_(True)), r"says complete=np\.True_"),
    "a number": ("fit", Fitted(True, 7), "has a note that is no text"),
    "two lines": ("fit", Fitted(True, "a\nb"), "has a note that is no text on one line"),
    "a long note": ("fit", Fitted(True, "x" * 2000), "has a note of 2000 letters"),
    "a set": ("fit", Fitted(details={"a": {1}}), "has details that are no JSON values"),
    "much": ("fit", Fitted(details={"a": [0] * 10**6}), "has details that are no JSON values, or"),
    "nobody": ("settle", None, r"settle\(\) returned NoneType, not a plugin"),
    "budget": ("usual_budget", "long", r"usual_budget\(\) returned 'long'"),
}


@pytest.mark.parametrize("method, said, words", RUDE.values(), ids=RUDE)
def test_what_no_store_can_keep_of_a_fit_is_a_named_error(
    tmp_path, monkeypatch, method, said, words
):
    """Committed, it would have made the store unreadable, or shown a traceback."""

    def does(self, *arguments):
        if method == "fit":
            Mean.fit(self, *arguments)
        return said

    offer(monkeypatch, dataclass(type("Rude", (Mean,), {"name": "rude", method: does})))
    store = toy_store(tmp_path / "a.store")
    with pytest.raises(PluginFailed, match=words) as error:
        ak.augment(store, "rude", n=2)
    assert "'rude'" in str(error.value)
    assert not store.snapshot().runs and not store.snapshot().models


def test_a_plugin_that_takes_the_name_of_the_provenance_is_a_named_error(tmp_path, monkeypatch):
    def save(self, folder):
        (folder / "provenance.json").write_text("{}")

    offer(monkeypatch, dataclass(type("Rude", (Mean,), {"name": "rude", "save": save})))
    with pytest.raises(PluginFailed, match=r"save\(\) removed its folder, or wrote provenance"):
        ak.augment(toy_store(tmp_path / "a.store"), "rude", n=2)


@pytest.mark.seconds
def test_a_partial_model_is_sampled_as_it_is_and_continued_by_fit(store):
    partial = ak.fit(store, "mean", budget="10s")
    assert (partial.complete, partial.note) == (False, "1 of 3 steps")
    assert "partial: the same line continues it" in str(partial)
    first = ak.augment(store, "mean", n=3)
    assert first.made and len(Mean.fits) == 1, "augment trains no further"
    assert any("1 of 3 steps" in note for note in first.notes)
    assert not ak.augment(store, "mean", n=3).made

    whole = ak.fit(store, "mean")
    assert whole.complete and whole.made and whole.model != partial.model
    assert len(Mean.fits) == 2
    second = ak.augment(store, "mean", n=3)
    assert (second.run, second.made) == ("mean-2", True), "new weights, so a new run"
    assert not ak.augment(store, "mean", n=3).made
    assert not ak.fit(store, "mean").made and len(Mean.fits) == 2
    assert "is there already" in str(ak.fit(store, "mean"))


def test_the_budget_of_augment_leaves_time_for_sampling(store, monkeypatch):
    seen = []

    def fit(self, train, context):
        seen.append(context.deadline - time.monotonic())
        return Mean.__dict__["real_fit"](self, train, context)

    Mean.real_fit = Mean.fit
    monkeypatch.setattr(Mean, "fit", fit)
    ak.augment(store, "mean", n=2, budget="1m40s")
    assert 80 < seen[0] <= 90
    del Mean.real_fit


@pytest.mark.seconds
def test_an_arm_takes_the_run_of_the_model_that_was_trained_further(store):
    ak.fit(store, "mean", budget=5)
    ak.augment(store, "mean", n=3)
    ak.fit(store, "mean")
    ak.augment(store, "mean", n=3)
    found = ak.evaluate(store, "linear", split="70/15/15", arms=["mean"])
    assert found.superseded == {"mean": "mean-2"}
    assert [arm.runs for arm in found.arms if arm.name == "mean"] == [("mean-2",)]


def test_prototypes_are_marked_in_every_table(store):
    ak.fit(store, "mean", budget=5)
    ak.augment(store, "mean", n=3)
    note = "1 of 3 steps"
    assert note in str(ak.info(store))
    info = json.loads(ak.info(store).to_json())
    assert note in info["runs"][0]["note"] and note in info["models"][0]["note"]
    found = ak.evaluate(store, "linear", split="70/15/15")
    assert f"note: run 'mean': {note}" in str(found)
    assert note in json.loads(found.to_json())["notes"]["mean"]


def test_checkpoints_go_when_the_model_is_complete_and_stay_while_it_is_not(folder_store):
    ak.fit(folder_store, "mean", budget=5)
    found = [p.name for p in (folder_store.path / "training").rglob("*.safetensors")]
    assert found == ["steps.safetensors"]
    ak.fit(folder_store, "mean")
    assert not [*(folder_store.path / "training").rglob("*.safetensors")]


def test_a_partial_model_without_checkpoints_is_not_replaced_by_a_shorter_one(folder_store):
    ak.fit(folder_store, "mean", budget=5)
    shutil.rmtree(folder_store.path / "training")
    with pytest.raises(StoreError, match=r"its checkpoints are not here.*-o fit_seed=1"):
        ak.fit(folder_store, "mean")
    assert ak.augment(folder_store, "mean", n=2).made, "it can be sampled"


# What goes wrong


def test_a_model_stays_where_sampling_fails(store, monkeypatch):
    good = Mean.apply
    calls = []

    def broken(self, images, labels, params):
        calls.append(len(labels))
        if len(calls) > 1:  # the first look at the model works
            raise ValueError("no luck")
        return good(self, images, labels, params)

    monkeypatch.setattr(Mean, "apply", broken)
    with pytest.raises(PluginFailed, match=r"failed in apply\(\): ValueError: no luck"):
        ak.augment(store, "mean", n=3)
    monkeypatch.setattr(Mean, "apply", good)
    assert ak.augment(store, "mean", n=3).made and len(Mean.fits) == 1


def test_a_fit_that_raises_commits_nothing(store, monkeypatch):
    def broken(self, train, context):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(Mean, "fit", broken)
    with pytest.raises(PluginFailed, match=r"'mean' failed in fit\(\): ZeroDivisionError: by zero"):
        ak.fit(store, "mean")
    assert store.snapshot().models == {}


def test_a_plugin_that_saves_a_pickle_is_refused(store, monkeypatch):
    monkeypatch.setattr(Mean, "save", lambda self, folder: (folder / "m.pkl").write_bytes(b"x"))
    with pytest.raises(PluginFailed, match=r"saved 'm.pkl', which cannot be kept"):
        ak.fit(store, "mean")
    assert store.snapshot().models == {}


def test_a_plugin_that_learns_nothing_is_not_fitted(store):
    with pytest.raises(OptionError, match="flip learns nothing: augkit augment --plugin flip"):
        ak.fit(store, "flip")


@pytest.mark.parametrize("device", ["cuda:7", "tpu", "no such thing", "meta"])
def test_a_device_that_is_not_there_is_refused(store, device):
    with pytest.raises(OptionError, match=re.escape(f"there is no device {device!r} here")):
        ak.fit(store, "mean", device=device)
    assert Mean.fits == []


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("45", 45), (2.5, 2.5)]
)
def test_budgets_are_times(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "soon", "0", "-3m", "3 minutes", "9" * 400 + "h", 0, float("nan"), -1.0, True]
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(OptionError, match="it must be a time such as 90s, 30m or 1h30m"):
        seconds_of(text)


def test_a_model_that_has_not_learned_its_classes_is_undertrained(store, monkeypatch):
    good = Mean.apply
    monkeypatch.setattr(  # what it calls one class shows the next one
        Mean, "apply", lambda self, i, labels, p: good(self, i, (labels + 1) % 3, p)
    )
    result = ak.fit(store, "mean")
    assert "undertrained: samples of" in result.note
    assert "no nearer to their own class than to another" in result.note


# Brought from elsewhere


def model_of(store):
    (folder,) = (Path(store.path) / "models").iterdir()
    return folder


def test_a_model_from_elsewhere_is_taken_if_it_was_fitted_on_these_images(tmp_path):
    here, there = (toy_store(tmp_path / name, 12) for name in ("here.store", "there.store"))
    there_result = ak.fit(there, "mean", {"noise": 7})
    brought = ak.fit(here, "mean", weights=model_of(there))
    assert (brought.model, brought.made) == (there_result.model, True)
    assert len(Mean.fits) == 1
    run = ak.augment(here, "mean", n=3)
    assert run.made and len(Mean.fits) == 1, "the plain line finds the model that was brought"
    recipe = here.snapshot().run(run.run).recipe
    assert recipe["plugins"][0]["options"]["noise"] == 7, "the run tells how it was really made"
    assert not ak.fit(here, "mean", weights=model_of(there)).made
    assert ak.verify(here).sound


def test_augment_takes_weights_as_well_and_the_same_line_again_does_nothing(tmp_path):
    here, there = (toy_store(tmp_path / name, 12) for name in ("here.h5", "there.store"))
    ak.fit(there, "mean", {"noise": 7})
    assert ak.augment(here, "mean", n=3, weights=model_of(there)).made
    assert not ak.augment(here, "mean", n=3, weights=model_of(there)).made
    assert ak.augment(here, "mean", n=3, seed=1).made
    assert len(Mean.fits) == 1


def test_weights_that_do_not_say_what_they_were_fitted_on_are_refused(folder_store, tmp_path):
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        ak.fit(folder_store, "mean", weights=tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "means.json").write_text("{}")
    with pytest.raises(InputError, match="does not say what its model was fitted on"):
        ak.fit(folder_store, "mean", weights=tmp_path / "bare")


def test_only_weights_and_words_are_taken_from_a_folder(folder_store, tmp_path):
    there = toy_store(tmp_path / "there.store", 12)
    ak.fit(there, "mean")
    given = shutil.copytree(model_of(there), tmp_path / "given")
    (given / "evil.pkl").write_bytes(b"cos\nsystem\n")
    brought = ak.fit(folder_store, "mean", weights=given)
    assert brought.model == model_of(there).name
    assert not [p for p in tree(Path(folder_store.path)) if p.endswith(".pkl")]


def test_broken_weights_are_refused(folder_store, tmp_path):
    there = toy_store(tmp_path / "there.store", 12)
    ak.fit(there, "mean")
    given = shutil.copytree(model_of(there), tmp_path / "given")
    (given / "means.json").write_text("{}")
    with pytest.raises(AugkitError):
        ak.fit(folder_store, "mean", weights=given)
    assert folder_store.snapshot().models == {}


def test_a_model_of_another_plugin_is_refused(folder_store, monkeypatch):
    @dataclass
    class Other(Mean):
        name = "other"

    offer(monkeypatch, Mean, Other)
    ak.fit(folder_store, "mean")
    with pytest.raises(InputError, match="is a model of 'mean', not of 'other'"):
        ak.fit(folder_store, "other", weights=model_of(folder_store))


def test_weights_are_taken_although_the_store_has_a_run_of_its_own(tmp_path):
    here, there = (toy_store(tmp_path / name, 12) for name in ("here.store", "there.store"))
    ak.augment(here, "mean", n=3)
    ak.fit(there, "mean", {"noise": 7})
    brought = ak.augment(here, "mean", n=3, weights=model_of(there))
    assert (brought.run, brought.made) == ("mean-2", True)
    assert here.snapshot().run("mean-2").model == model_of(there).name


def two_orders(tmp_path):
    """Two stores of the same images, whose classes came in another order."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (80, 24, 32, 1), np.uint8)
    names = ["a", "b"] * 40
    stores = []
    for store, order in (("x.store", "ab"), ("y.store", "ba")):
        made = ak.DatasetStore.create(tmp_path / store, height=24, width=32)
        for name in order if store == "y.store" else ["ab"]:
            chosen = [i for i, n in enumerate(names) if n in name]
            keys = [f"{i}.png" for i in chosen]
            given = {"dataset": "d", "find_relatives": False, "keys": keys}
            ak.ingest_arrays(made, [pixels[chosen]], [names[i] for i in chosen], **given)
        stores.append(made)
    return stores


def test_a_model_whose_classes_are_numbered_otherwise_is_refused(tmp_path):
    first, second = two_orders(tmp_path)
    assert first.snapshot().classes == ("a", "b") and second.snapshot().classes == ("b", "a")
    ak.fit(first, "mean")
    with pytest.raises(LineageError, match="it is not taken"):
        ak.fit(second, "mean", weights=model_of(first))


def test_a_copy_that_is_not_what_its_name_says_is_refused(folder_store, tmp_path):
    there = toy_store(tmp_path / "there.store", 12)
    ak.fit(there, "mean")
    given = shutil.copytree(model_of(there), tmp_path / model_of(there).name)
    text = (given / "means.json").read_text()
    (given / "means.json").write_text(text.replace("1", "2", 1))
    with pytest.raises(InputError, match="are not those that it is named after: copy it again"):
        ak.fit(folder_store, "mean", weights=given)


def test_a_model_that_makes_other_shapes_is_never_kept(store, monkeypatch):
    wide = lambda self, i, labels, p: np.zeros((len(labels), 24, 64, 1), np.uint8)  # noqa: E731
    monkeypatch.setattr(Mean, "apply", wide)
    with pytest.raises(PluginFailed, match=r"apply\(\) returned uint8 \(192, 24, 64, 1\)"):
        ak.fit(store, "mean")
    assert store.snapshot().models == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about["recipe"]["plugin"].pop("options"),
        lambda about: about["recipe"].pop("partition"),
        lambda about: about.update(fitted_on=3),
        lambda about: about.update(note=[1, 2]),
        lambda about: about.update(note="\x1b[31mred"),
        lambda about: about.update(complete="no"),
        lambda about: about["recipe"].update(classes=None),
    ],
)
def test_a_provenance_that_makes_no_sense_is_refused(folder_store, tmp_path, change):
    there = toy_store(tmp_path / "there.store", 12)
    ak.fit(there, "mean")
    given = shutil.copytree(model_of(there), tmp_path / "given")
    about = json.loads((given / "provenance.json").read_text())
    change(about)
    (given / "provenance.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="does not say what its model was fitted on"):
        ak.fit(folder_store, "mean", weights=given)


def test_links_and_deep_files_are_refused(folder_store, tmp_path):
    there = toy_store(tmp_path / "there.store", 12)
    ak.fit(there, "mean")
    given = shutil.copytree(model_of(there), tmp_path / "given")
    (given / "secret.json").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="is no plain file"):
        ak.fit(folder_store, "mean", weights=given)
    (given / "secret.json").unlink()
    (given / "provenance.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="does not say what its model was fitted on"):
        ak.fit(folder_store, "mean", weights=given)


def test_a_budget_is_for_the_plugin_that_learns_among_others(store):
    results = ak.augment_all(store, ["flip", "mean"], n=3, budget=50, reject_copies=True)
    assert [r.run for r in results] == ["flip", "mean"]
    assert "reject_copies" not in store.snapshot().run("flip").recipe
    with pytest.raises(OptionError, match="flip and zoom learn nothing: --budget is for"):
        ak.augment_all(store, ["flip", "zoom"], n=3, budget=50)


def test_images_that_come_in_during_the_training_are_noticed(store, monkeypatch):
    good = Mean.fit

    def slow(self, train, context):
        rng = np.random.default_rng(8)
        more = rng.integers(0, 256, (60, 24, 32, 1), np.uint8)
        names, keys = ["benign"] * 60, [f"{i}.png" for i in range(60)]
        other = ak.open(store.path)
        given = {"dataset": "m", "keys": keys, "find_relatives": False}
        ak.ingest_arrays(other, [more], names, **given)
        return good(self, train, context)

    monkeypatch.setattr(Mean, "fit", slow)
    with pytest.raises(StoreError, match="changed meanwhile"):
        ak.augment(store, "mean", n=3)
    monkeypatch.setattr(Mean, "fit", good)
    assert ak.augment(store, "mean", n=3).made


def test_a_no_op_still_says_what_its_model_is(store):
    ak.fit(store, "mean", budget=5)
    ak.augment(store, "mean", n=3)
    again = str(ak.augment(store, "mean", n=3))
    assert "nothing to do" in again and "1 of 3 steps" in again


# The real plugin, from the command line


def test_the_command_fit_trains_and_continues(tmp_path):
    toy_store(tmp_path / "augkit.store", 12)
    line = ("fit", "--plugin", "dagan", *TINY, "-o", "steps=3")
    first = works(*line, cwd=tmp_path)
    assert "complete" in first.out and "prototype: 9 of the paper's 2100" in first.out
    assert "generator steps to do: benign 3" in first.err
    assert "there already: nothing to do" in works(*line, cwd=tmp_path).out
    told = works(*line, "--json", cwd=tmp_path).json
    assert (told["made"], told["complete"]) == (False, True)
    assert told["details"]["steps"] == {c: [3, 3] for c in ("benign", "malignant", "normal")}
    made = works("augment", "--plugin", "dagan", *TINY, "-o", "steps=3", "--n", 4, cwd=tmp_path)
    assert "12 new images" in made.out and "using model" in made.err
    listed = works("info", cwd=tmp_path).out
    assert "prototype: 9 of the paper's 2100 generator steps, at 16x16" in listed


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--device cuda:9", "there is no device 'cuda:9' here; there is:"),
        ("--budget soon", "budget is 'soon'"),
        ("-o steps=0", "'steps' of dagan is 0; it must be at least 1"),
        ("-o preset=paper", "cannot double up to 30x20"),
        ("--weights nowhere", "there is no folder nowhere"),
    ],
)
def test_a_bad_fit_is_one_plain_line(tmp_path, flags, words):
    toy_store(tmp_path / "augkit.store", 12, shape=(20, 30, 1))
    outcome = command("fit", "--plugin", "dagan", *flags.split(), cwd=tmp_path)
    assert outcome.code == 2 and outcome.out == ""
    assert words in outcome.err and "Traceback" not in outcome.err


def train(folder, *flags):
    """Start a training in a process of its own, long enough to be stopped."""
    line = ["augkit", "augment", "--plugin", "dagan", "--n", "4", *TINY]
    line += ["-o", "steps=400", "-o", "critic_steps=1", *flags]
    code = (
        "import sys, augkit_dagan.training as t, augkit_cli.main as m; "
        f"t.CHECKPOINT_SECONDS = 0.2; sys.argv = {line}; m.run()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_is_stopped_by_a_signal_goes_on_and_ends_with_the_same_images(tmp_path, number):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        toy_store(tmp_path / name / "augkit.store", 12)
    unstopped = train(tmp_path / "whole")
    assert unstopped.communicate(timeout=300) and unstopped.returncode == 0
    begun = train(tmp_path / "cut")
    checkpoints = tmp_path / "cut" / "augkit.store" / "training"
    patience = time.monotonic() + 120
    while not [*checkpoints.glob("*/checkpoint-2.safetensors")]:
        assert begun.poll() is None, begun.stderr.read()
        assert time.monotonic() < patience
        time.sleep(0.02)
    begun.send_signal(number)
    said = begun.communicate(timeout=120)[1]
    assert begun.returncode == (-9 if number == signal.SIGKILL else 130)
    if number != signal.SIGKILL:
        assert "stopping at the next step" in said and "stopped; what was committed" in said
    cut = ak.open(tmp_path / "cut" / "augkit.store")
    assert cut.snapshot().models == {}
    again = train(tmp_path / "cut")
    said = again.communicate(timeout=300)[1]
    assert again.returncode == 0 and "going on from step" in said
    whole = ak.open(tmp_path / "whole" / "augkit.store").snapshot()
    assert list(cut.snapshot().models) == list(whole.models), "not the same weights"
    assert np.array_equal(cut.snapshot().inspect("dagan")[:], whole.inspect("dagan")[:])


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint_also_where_ctrl_c_is_ignored(tmp_path):
    toy_store(tmp_path / "augkit.store", 12)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as for a job that a script starts with &
    try:
        begun = train(tmp_path, "-o", "fit_seed=2")
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = tmp_path / "augkit.store" / "training"
    patience = time.monotonic() + 120
    while not [*folder.glob("*/log.jsonl")]:
        assert begun.poll() is None and time.monotonic() < patience
        time.sleep(0.02)
    begun.terminate()
    begun.communicate(timeout=120)
    assert begun.returncode == 130 and [*folder.glob("*/checkpoint-*.safetensors")]


@pytest.mark.slow
def test_two_commands_that_want_the_same_model_train_it_once(tmp_path):
    toy_store(tmp_path / "augkit.store", 12)
    both = [train(tmp_path), train(tmp_path)]
    said = [each.communicate(timeout=300)[1] for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    snapshot = ak.open(tmp_path / "augkit.store").snapshot()
    assert len(snapshot.models) == len(snapshot.runs) == 1
