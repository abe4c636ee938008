"""Studies: what is planned is done once, whatever is killed, and judged together."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from toys import images

import augkit as ak
from augkit.designs import Design
from augkit.errors import AugkitError, InputError, OptionError, StoreError
from augkit.testing import phantoms

YAML = """
classifiers: [linear]
datasets: {first: [a], both: [a, b]}
arms: [real, flip]
"""


def two_sites(path, n=30):
    """Make a store of phantoms: n images of each class at site a, at b only 5 normal ones."""
    store = ak.DatasetStore.create(path, height=24, width=32)
    for seed, site in enumerate("ab"):
        made, _, labels = phantoms(n, height=24, width=32, seed=seed, difficulty=0.3)
        if site == "b":
            kept = np.flatnonzero((labels != 2) | (np.arange(len(labels)) < 15))
            made, labels = made[kept], labels[kept]
        names = [("benign", "malignant", "normal")[label] for label in labels]
        keys = [f"{i}.png" for i in range(len(labels))]
        ak.ingest_arrays(store, [made], names, dataset=site, keys=keys, find_relatives=False)
    ak.augment(store, "flip")
    return store


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return two_sites(tmp_path_factory.mktemp("sites") / "a.store").path


@pytest.fixture
def store(made, tmp_path):
    import shutil

    shutil.copytree(made, tmp_path / "a.store")
    return ak.open(tmp_path / "a.store")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(YAML)
    return path


def results(store):
    """Return every result file with its bytes."""
    folder = store.side_folder("results")
    return {path.name: path.read_bytes() for path in folder.glob("*.json")}


@pytest.mark.seconds
def test_a_study_is_planned_done_and_done_once(store, file):
    plan = ak.plan(file, store)
    assert plan.tasks == 20 and plan.done == 0
    assert json.loads(plan.to_json())["cells"] == [
        {"dataset": d, "classifier": "linear", "arm": arm}
        for d in ("first", "both")
        for arm in ("real", "flip")
    ]
    assert set(json.loads(plan.to_json())["estimate"]) == {"seconds", "bytes", "memory"}
    assert results(store) == {}, "a plan computes nothing"
    found = ak.study(file, store, workers=2)
    assert (found.computed, found.failed) == (20, 0)
    before = results(store)
    again = ak.study(file, store, workers=1)
    assert (again.computed, again.failed) == (0, 0)
    assert results(store) == before
    assert ak.plan(file, store).done == 20
    assert again.to_json().replace('"computed": 0', "") == found.to_json().replace(
        '"computed": 20', ""
    )


@pytest.mark.slow
def test_cells_are_what_evaluate_finds_and_judged_together(store, file):
    found = ak.study(file, store, workers=1)
    (_, both) = found.cells
    alone = ak.evaluate(store, "linear", arms=["real", "flip"], datasets=["a", "b"])
    assert alone.computed == 0
    assert both.evaluation.arms == alone.arms
    decisive = [
        comparison
        for cell in found.cells
        for comparison in cell.evaluation.comparisons
        if comparison.verdict and comparison.versus == "real"
    ]
    ps = sorted(c.p for c in decisive)
    assert min(c.p_holm for c in decisive) == pytest.approx(min(1, 2 * ps[0]))


@pytest.mark.slow
def test_what_is_added_is_all_that_is_computed(store, file):
    ak.study(file, store, workers=1)
    file.write_text(YAML.replace("flip]", "flip]\nrepeats: 2"))
    assert ak.study(file, store, workers=1).computed == 20


@pytest.mark.slow
def test_classes_with_few_groups_are_left_out_of_a_cell_and_said_aloud(store):
    design = Design((("linear", {}),), {"second": ("b",)}, arms=("real",))
    assert any("normal is left out of second" in note for note in ak.plan(design, store).notes)
    (cell,) = ak.study(design, store, workers=1).cells
    found = cell.evaluation
    assert found.test_images == 60 and "without normal" in found.protocol
    assert np.isnan(found.arms[0].metrics["sensitivity:normal"].value)
    assert found.arms[0].metrics["balanced_accuracy"].value > 0.5


@pytest.mark.slow
def test_generators_are_fitted_anew_for_each_data_set_and_partition(store):
    ak.augment(store, "oracle", n=3)
    design = Design((("linear", {}),), {"first": ("a",)}, arms=("real", "oracle"))
    plan = ak.plan(design, store)
    found = ak.study(design, store, workers=2)
    assert found.failed == 0 and found.computed == plan.tasks
    snapshot = store.snapshot()
    fitted = [run for run in snapshot.runs.values() if run.name.startswith("oracle.")]
    assert len(fitted) == 5
    at_a = set(np.flatnonzero(snapshot.real.datasets == "a").tolist())
    assert all(set(run.fitted_on) <= at_a for run in fitted)
    assert found.cells[0].evaluation.arms[1].metrics


@pytest.mark.slow
def test_a_cell_that_cannot_be_done_stops_nothing_and_says_why(store, monkeypatch):
    monkeypatch.setenv("AUGKIT_OFFLINE", "1")
    design = Design(
        (("linear", {}), ("resnet", {"depth": 18, "weights": "imagenet"})),
        {"first": ("a",)},
        arms=("real", "flip"),
    )
    found = ak.study(design, store, workers=1)
    good, bad = found.cells
    assert good.evaluation is not None and bad.evaluation is None
    assert "weights of resnet" in bad.failure
    assert bad.failure in str(found)


@pytest.mark.slow
def test_a_crashing_fit_marks_its_arm_and_the_rest_is_done(store, file, monkeypatch):
    from augkit import studies
    from augkit.engines.engine import Ended

    class Flaky:
        def run(self, function, items):
            for index, item in enumerate(items):
                trial = studies._trial(item)
                if trial.tasks[item.number].arm == "flip" and item.number == 1:
                    yield Ended(index, "the worker process died (signal 9), 3 times", 3)
                else:
                    function(item)
                    yield Ended(index, None, 1)

    monkeypatch.setattr(studies, "choose_engine", lambda *_, **__: Flaky())
    found = ak.study(file, store)
    assert found.failed == 2
    for cell in found.cells:
        arms = {arm.name: arm for arm in cell.evaluation.arms}
        assert arms["real"].metrics and not arms["flip"].metrics
        assert "signal 9" in arms["flip"].unavailable
        assert cell.evaluation.verdicts == ()
    monkeypatch.undo()
    mended = ak.study(file, store, workers=1)
    assert (mended.computed, mended.failed) == (2, 0)
    assert all(cell.evaluation.verdicts for cell in mended.cells)


@pytest.mark.slow
def test_a_commit_in_between_disturbs_nothing(store, file, monkeypatch):
    from augkit import studies
    from augkit.engines.engine import Ended

    class Slow:
        def run(self, function, items):
            for index, item in enumerate(items):
                if index == 3:
                    ak.augment(store.path, "zoom")
                    names = ["benign"] * 6 + ["cyst"] * 6
                    keys = [f"new-{i}.png" for i in range(12)]
                    more = images(12, 5)
                    ak.ingest_arrays(store.path, [more], names, keys=keys, find_relatives=False)
                function(item)
                yield Ended(index, None, 1)

    monkeypatch.setattr(studies, "choose_engine", lambda *_, **__: Slow())
    found = ak.study(file, store)
    assert (found.computed, found.failed) == (20, 0)
    for cell in found.cells:
        assert cell.evaluation.classes == ("benign", "malignant", "normal")
        metrics = [c.metric for c in cell.evaluation.comparisons]
        assert metrics.count("balanced_accuracy") == 2 and metrics[0] == "balanced_accuracy"


@pytest.mark.slow
def test_another_data_set_makes_nothing_of_the_first_anew(store, file):
    file.write_text("classifiers: [linear]\ndatasets: {first: [a]}\narms: [real]")
    ak.study(file, store, workers=1)
    names = [c for c in ("benign", "malignant", "normal") for _ in range(10)]
    keys = [f"{i}.png" for i in range(30)]
    ak.ingest_arrays(store, [images(30, 5)], names, dataset="c", keys=keys, find_relatives=False)
    assert ak.study(file, store, workers=1).computed == 0


@pytest.mark.slow
def test_a_generator_that_fails_is_the_cause_that_its_arm_gives(store, monkeypatch):
    from augkit import studies
    from augkit.engines.engine import Ended

    ak.augment(store, "oracle", n=3)
    design = Design((("linear", {}),), {"first": ("a",)}, arms=("real", "oracle"))

    class Broken:
        def run(self, function, items):
            for index, item in enumerate(items):
                if isinstance(item, studies._Refit):
                    yield Ended(index, "RuntimeError: out of memory", 1)
                else:
                    function(item)
                    yield Ended(index, None, 1)

    monkeypatch.setattr(studies, "choose_engine", lambda *_, **__: Broken())
    found = ak.study(design, store)
    assert found.failed == 5
    arms = {arm.name: arm for arm in found.cells[0].evaluation.arms}
    assert "out of memory" in arms["oracle"].unavailable and arms["real"].metrics


@pytest.mark.slow
def test_two_designs_leave_two_outcomes(store):
    for arms in (("real",), ("real", "flip")):
        ak.study(Design((("linear", {}),), {"first": ("a",)}, arms=arms), store, workers=1)
    assert len(list(store.side_folder("outcomes").glob("*.json"))) == 2


@pytest.mark.slow
def test_tasks_can_be_done_one_by_one_as_jobs_of_an_array(store, file):
    names = [ak.run_task(file, number, store) for number in range(20)]
    assert len(set(names)) == 20
    assert names[0] == "first, linear, real, fold 1 of 5 of a, seed 0"
    assert ak.study(file, store, workers=1).computed == 0
    with pytest.raises(OptionError, match="there is no task 20; there are 20, counted from 0"):
        ak.run_task(file, 20, store)


@pytest.mark.slow
def test_an_array_fits_generators_first(store):
    ak.augment(store, "oracle", n=3)
    design = Design((("linear", {}),), {"first": ("a",)}, arms=("real", "oracle"), split="70/15/15")
    with pytest.raises(OptionError, match="there is no task 1; there are 1"):
        ak.run_task(design, 1, store)
    assert ak.run_task(design, 0, store) == "oracle for 70/15/15 of a"
    assert ak.run_task(design, 1, store).startswith("first, linear, real")


BAD = {
    "classifier: linear": "there is no key 'classifier'; the keys are: classifiers, datasets",
    "classifiers: linear": "classifiers is 'linear'; it must be a list",
    "classifiers: []": "name at least one classifier",
    "arms: [real]": "name at least one classifier",
    "classifiers: [{nom: linear}]": "is no classifier; write a name, or name: and options:",
    "classifiers: [linear]\nfolds: five": "folds is 'five'; it must be a whole number",
    "classifiers: [linear]\nfolds: true": "folds is True; it must be a whole number",
    "classifiers: [linear]\nprotocol: mine": "protocol is 'mine'; it must be augkit or paper",
    "classifiers: [linear]\ndatasets: [a]": "it must be a mapping",
    "classifiers: [linear]\ndatasets: {x: [z]}": "there is no data set 'z'; there are: a, b",
    "classifiers: [linear]\narms: [gan]": "there is no arm 'gan'",
    "classifiers: [linear]\nprimary: luck": "the primary metric is 'luck'",
    "classifiers: [linear]\ndatasets: {x: []}": "x must name a data set",
    "classifiers: [linear]\nseeds: -3": "seeds is -3; it must be at least 1",
    "classifiers: [linear]\ntest_on: zz": "there is no data set 'zz'; there are: a, b",
    "classifiers: [linear]\npositive: cat": "there is no class 'cat'",
    "classifiers: [linear]\nfolds: 7": "folds is 7; it must be one of",
    "classifiers: [linaer]": "did you mean 'linear'",
    "classifiers: [{name: linear, options: {depth: 3}}]": "linear has no option 'depth'",
    "- linear": "holds no study",
    "classifiers: [": "is no YAML",
    "!!python/object/apply:os.system [ls]": "is no YAML",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_files_are_refused_in_one_plain_line(made, tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(AugkitError) as refused:
        ak.study(path, made)
    assert BAD[text] in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(AugkitError):
        ak.plan(path, made)


def test_a_file_that_is_not_there_is_said_to_be(made):
    with pytest.raises(InputError, match=r"cannot read nowhere\.yaml: No such file"):
        ak.study("nowhere.yaml", made)


def test_fewer_groups_than_folds_is_a_marked_cell_and_no_number(tmp_path):
    store = ak.DatasetStore.create(tmp_path / "a.store", height=24, width=32)
    names = ["benign"] * 30 + ["malignant"] * 30
    patients = [f"{name}-{i % 3}" for i, name in enumerate(names)]
    ak.ingest_arrays(
        store,
        [images(60)],
        names,
        keys=[f"{i}.png" for i in range(60)],
        groups=patients,
        find_relatives=False,
    )
    (cell,) = ak.study(Design((("linear", {}),), arms=("real",)), store, workers=1).cells
    assert cell.evaluation is None and "groups" in cell.failure


def test_the_paper_is_checked_before_generators_are_trained(tmp_path, monkeypatch):
    from augkit import studies

    empty = ak.DatasetStore.create(tmp_path / "empty.store", height=24, width=32)
    monkeypatch.setattr(studies, "augment_all", lambda *a, **k: pytest.fail("it was trained"))
    with pytest.raises(StoreError, match="holds no images yet: augkit ingest FOLDER"):
        ak.study("paper", empty, workers=1)


@pytest.mark.seconds
def test_the_paper_is_sixty_cells(store, monkeypatch):
    ak.augment(store, "oracle", n=3, run="dagan")
    from augkit import designs, studies

    cheap = Design(tuple((name, {}) for name in designs.NETWORKS), arms=("real", "flip", "all"))
    assert len(designs.PAPER.classifiers) == 5 and designs.PAPER.arms == designs.ARMS
    assert designs.PAPER.split == "70/15/15" and designs.PAPER.seeds is None
    assert list(studies._datasets(store.snapshot(), cheap)) == ["a", "b", "a + b"]


KILLED = """
import sys
import augkit as ak
ak.study(sys.argv[1], sys.argv[2], workers=2)
"""


@pytest.mark.slow
def test_a_study_killed_five_times_ends_with_the_same_results(store, made, file, tmp_path):
    import shutil

    file.write_text(YAML.replace("flip]", "flip]\nrepeats: 3"))  # 60 tasks
    shutil.copytree(made, tmp_path / "whole.store")
    whole = ak.open(tmp_path / "whole.store")
    assert ak.study(file, whole, workers=2).computed == 60
    rng, environment = random.Random(0), os.environ | {"OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-c", KILLED, str(file), str(store.path)]
    kills = 0
    while kills < 5:
        before = len(results(store))
        running = subprocess.Popen(line, env=environment, start_new_session=True)
        patience = time.monotonic() + 120
        while len(results(store)) < min(before + 2, 60) and time.monotonic() < patience:
            time.sleep(rng.uniform(0.01, 0.3))
            if running.poll() is not None:
                break
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        kills += 1
    found = ak.study(file, store, workers=2)
    assert found.failed == 0 and 0 < found.computed < 60
    assert results(store) == results(whole)
