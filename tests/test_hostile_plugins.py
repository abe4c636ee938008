"""Plugins that break the contract while they work: a named error, no row, and all else goes on."""

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from commands import command
from toys import offer, toy_store, tree

import augkit as ak
from augkit.augmentation import augment_all
from augkit.errors import AugkitError, OptionError, PluginFailed, StoreError
from augkit.interfaces import Augmenter
from augkit.registry import Plugin, Registry, registry
from augkit.store import DatasetStore
from augkit.store.format import digest_of

CALLS = itertools.count()


@dataclass
class Rogue(Augmenter):
    """Does in `apply` what its option says."""

    name = "rogue"
    how: str = "nothing"

    def plan(self, labels, shape, rng):
        if self.how == "loops in plan":
            forever()
        drawn = super().plan(labels, shape, rng)
        plans = {
            "plans too little": lambda: drawn[1:],
            "plans nothing": lambda: None,
            "plans fields of nothing": lambda: np.zeros(len(labels), [("none", "f8", (0,))]),
            "plans words": lambda: np.full(len(labels), "x", [("word", "U3")]),
            "plans objects": lambda: np.full(len(labels), None, [("thing", object)]),
            "plans plain numbers": lambda: np.zeros(len(labels)),
        }
        return plans.get(self.how, lambda: drawn)()

    def apply(self, images, labels, params):
        acts = {
            "another shape": lambda: images[:, 1:],
            "fewer images": lambda: images[1:],
            "more images": lambda: np.concatenate([images, images]),
            "another type": lambda: images.astype(np.float32),
            "no numbers": lambda: np.full(images.shape, np.nan),
            "a list": images.tolist,
            "None": lambda: None,
            "changes images": lambda: images.__setitem__(0, 0),
            "changes labels": lambda: labels.__setitem__(0, 0),
            "changes the plan": lambda: params["seed"].__setitem__(0, 0),
            "other pixels each time": lambda: images + np.uint8(next(CALLS)),
            "raises": lambda: 1 / 0,
            "prints": lambda: print("[") or images,
            "raises halfway": lambda: 1 / 0 if params["seed"][0] in LATER else images,
            "exits": lambda: sys.exit(0),
            "is cancelled": lambda: fails(asyncio.CancelledError()),
            "raises what cannot be shown": lambda: fails(Mute()),
            "the same memory": lambda: same_memory(255 - images),
            "loops": forever,
        }
        return acts.get(self.how, lambda: images)()

    def environment(self):
        return {"environment of numbers": {"a": 1}, "no environment": None}.get(self.how, {})

    def apply_masks(self, masks, params):
        acts = {
            "changes masks": lambda: masks.__setitem__(0, 7),
            "fewer masks": lambda: masks[1:],
            "masks of another type": lambda: masks > 0,
        }
        return acts.get(self.how, lambda: masks)()


LATER: set[int] = set()
"""The seeds of rows at which a plugin raises."""


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError


def fails(error: BaseException) -> None:
    raise error


MEMORY: dict[int, np.ndarray] = {}


def same_memory(images: np.ndarray) -> np.ndarray:
    """Return images in an array that is used for every block, as large as the largest."""
    MEMORY.setdefault(images[0].size, np.empty((64, *images.shape[1:]), np.uint8))
    held = MEMORY[images[0].size][: len(images)]
    held[:] = images
    return held


def forever() -> None:
    while True:
        time.sleep(0.001)


MISDEEDS = {
    "another shape": r"apply\(\) returned uint8 \(8, 23, 32, 1\) instead of uint8 \(8, 24, 32, 1\)",
    "fewer images": r"apply\(\) returned uint8 \(7,",
    "more images": r"apply\(\) returned uint8 \(16,",
    "another type": r"apply\(\) returned float32",
    "no numbers": r"apply\(\) returned float64",
    "a list": r"apply\(\) returned list",
    "None": r"apply\(\) returned NoneType",
    "changes images": r"failed in apply\(\): ValueError: assignment destination is read-only",
    "changes labels": "read-only",
    "changes the plan": "read-only",
    "changes masks": r"failed in apply_masks\(\): ValueError: assignment destination is read-only",
    "fewer masks": r"apply_masks\(\) returned uint8 \(7,",
    "masks of another type": r"apply_masks\(\) returned bool",
    "other pixels each time": "makes other pixels when it is given the same images",
    "raises": r"failed in apply\(\): ZeroDivisionError: division by zero",
    "exits": r"failed in apply\(\): SystemExit: 0",
    "is cancelled": r"failed in apply\(\): CancelledError",
    "raises what cannot be shown": r"failed in apply\(\): Mute",
    "the same memory": r"apply\(\) returns the same memory again",
    "environment of numbers": r"environment\(\) must return short texts by name",
    "no environment": r"environment\(\) must return short texts by name",
    "loops": "a block of 8 images has not ended after 0.3 s; .* --time-limit SECONDS allows more",
    "loops in plan": r"plan\(\) has not ended after 0.3 s",
    "plans too little": r"plan\(\) must return a structured array of numbers, 12 rows",
    "plans nothing": r"plan\(\) must return",
    "plans fields of nothing": r"plan\(\) must return",
    "plans words": r"plan\(\) must return",
    "plans objects": r"plan\(\) must return",
    "plans plain numbers": r"plan\(\) must return",
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetStore:
    offer(monkeypatch, Rogue)
    return toy_store(tmp_path / "a.store", 6, masks=True)


def is_clean(store: DatasetStore) -> bool:
    """Return True if nothing was committed or left behind, and another plugin works."""
    left = [name for name in tree(store.path) if name.startswith("tmp/")]
    runs = dict(store.snapshot().runs)
    return not left and not runs and ak.augment(store, "flip", workers=1).made


@pytest.mark.seconds
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("how, words", MISDEEDS.items(), ids=MISDEEDS)
def test_a_misdeed_is_a_named_error_and_no_row_is_committed(
    store: DatasetStore, how: str, words: str, workers: int
) -> None:
    with pytest.raises(PluginFailed, match=words) as error:
        ak.augment(store, "rogue", {"how": how}, workers=workers, block=8, time_limit=0.3)
    assert "'rogue'" in str(error.value)
    assert is_clean(store)


def test_what_behaves_is_no_misdeed(store: DatasetStore) -> None:
    assert ak.augment(store, "rogue", {"how": "nothing"}, block=8, time_limit=30).made


@dataclass
class Keeper(Augmenter):
    """Keeps its plan and what it returned, and changes both afterwards."""

    name = "keeper"

    def plan(self, labels, shape, rng):
        self.plan_ = super().plan(labels, shape, rng)
        self.made_ = []
        return self.plan_

    def apply(self, images, labels, params):
        self.plan_["seed"] = 7
        for made in self.made_:
            made[:] = 0
        self.made_.append(255 - images)
        return self.made_[-1]

    def as_window(self, params, shape):
        raise RuntimeError("not to be asked")

    def apply_masks(self, masks, params):
        return masks


def test_what_a_plugin_changes_after_it_returned_it_is_not_what_is_stored(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, Keeper)
    assert ak.augment(store, "keeper", workers=1, block=4).made
    snapshot = store.snapshot()
    assert len(set(snapshot.params("keeper")["seed"].tolist())) == 12
    parents = snapshot.inspect().take(snapshot.parents("keeper"))
    np.testing.assert_array_equal(snapshot.inspect("keeper")[:], 255 - parents[:])


def test_a_commit_that_could_not_be_read_again_is_none(store: DatasetStore) -> None:
    """Whatever brought it there: a store with such an entry would be lost."""
    long = "+".join(["flip"] * 120)
    with pytest.raises(StoreError, match=r"could not be read again: .*; take shorter names"):
        ak.augment(store, long, workers=1)
    assert is_clean(store)


@pytest.mark.parametrize("limit", [float("inf"), 1e30])
def test_a_time_limit_may_be_none_at_all(store: DatasetStore, limit: float) -> None:
    assert ak.augment(store, "rogue", {"how": "nothing"}, block=8, time_limit=limit).made


def test_an_exception_halfway_leaves_nothing(store: DatasetStore) -> None:
    ak.augment(store, "rogue", workers=1, block=4)
    LATER.update(store.snapshot().params("rogue")["seed"][8:].tolist())
    ak.retract(store, "rogue")
    shards = len(list((store.path / "shards").iterdir()))
    with pytest.raises(PluginFailed, match="ZeroDivisionError"):
        ak.augment(store, "rogue", {"how": "raises halfway"}, workers=1, block=4)
    assert len(list((store.path / "shards").iterdir())) == shards
    assert is_clean(store)


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["spawn", "fork", "forkserver"])
def test_a_process_that_hangs_is_killed(tmp_path: Path, start_method: str) -> None:
    code = (
        "import augkit as ak, multiprocessing, pytest\n"
        "from test_hostile_plugins import Rogue\nfrom toys import offer\n"
        "if __name__ == '__main__':\n"
        "  offer(pytest.MonkeyPatch(), Rogue)\n"
        "  try:\n"
        f"    ak.augment('a.store', 'rogue', {{'how': 'loops'}}, workers=2, block=4,\n"
        f"               start_method={start_method!r}, time_limit=8)\n"
        "  except ak.AugkitError as error:\n"
        "    print(error, len(multiprocessing.active_children()))\n"
    )
    toy_store(tmp_path / "a.store", 6)
    (tmp_path / "script.py").write_text(code)
    done = run(["script.py"], tmp_path)
    assert "a block of 4 images has not ended after 8 s" in done.stdout, done.stderr
    assert done.stdout.split()[-1] == "0"


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths()))},
        capture_output=True,
        text=True,
        timeout=100,
    )


def paths() -> list[str]:
    return [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]


@pytest.mark.seconds
def test_a_thread_that_hangs_does_not_keep_the_process_alive(tmp_path: Path) -> None:
    toy_store(tmp_path / "a.store", 6)
    code = (
        "import augkit as ak, pytest\nfrom test_hostile_plugins import Rogue\n"
        "from toys import offer\noffer(pytest.MonkeyPatch(), Rogue)\n"
        "try: ak.augment('a.store', 'rogue', {'how': 'loops'}, time_limit=0.3)\n"
        "except ak.AugkitError as error: print(error)\n"
        "print(ak.augment('a.store', 'flip'))"
    )
    done = run(["-c", code], tmp_path)
    assert "has not ended after 0.3 s" in done.stdout, done.stderr
    assert "run 'flip': 12 new images" in done.stdout
    assert done.returncode == 0


def test_a_worker_process_that_ends_is_a_named_error(tmp_path: Path) -> None:
    toy_store(tmp_path / "a.store", 6)
    code = (
        "import os, augkit as ak, pytest\nfrom test_hostile_plugins import Rogue\n"
        "from toys import offer\n"
        "class Gone(Rogue):\n"
        "  name = 'gone'\n"
        "  def apply(self, images, labels, params): os._exit(0)\n"
        "offer(pytest.MonkeyPatch(), Gone)\n"
        "try: ak.augment('a.store', 'gone', start_method='fork', workers=2)\n"
        "except ak.AugkitError as error: print(error)"
    )
    done = run(["-c", code], tmp_path)
    assert "a worker process died" in done.stdout, done.stderr


def test_the_other_plugins_of_a_command_go_on(store: DatasetStore) -> None:
    with pytest.raises(PluginFailed) as error:
        augment_all(store, ["rogue", "flip", "zoom"], {"how": "raises"}, workers=1)
    assert "'rogue' failed in apply()" in str(error.value)
    assert "these runs are there: flip, zoom" in str(error.value)
    assert list(store.snapshot().runs) == ["flip", "zoom"]


def test_the_command_line_says_it_in_one_line(store: DatasetStore) -> None:
    line = ["augment", "--plugin", "rogue", "--store", "a.store", "--time-limit", "0.3"]
    ended = command(*line, "-o", "how=loops", cwd=store.path.parent)
    assert ended.code == 2
    assert ended.err.count("\n") == 1 and "has not ended after 0.3 s" in ended.err
    ended = command(*line[:-1], "0", cwd=store.path.parent)
    assert (ended.code, "it must be above 0 seconds" in ended.err) == (2, True)


def test_what_a_plugin_prints_does_not_come_between_results(store: DatasetStore) -> None:
    line = ["augment", "--plugin", "rogue", "--store", "a.store", "--workers", "1", "--json"]
    ended = command(*line, "-o", "how=prints", cwd=store.path.parent)
    assert ended.json[0]["made"] and "[" in ended.err


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_time_limit_is_above_zero(store: DatasetStore, limit: float) -> None:
    with pytest.raises(OptionError, match="must be above 0 seconds"):
        ak.augment(store, "flip", time_limit=limit)


# -- which code it was -----------------------------------------------------------------------------


def test_a_run_names_the_package_its_version_and_the_hash_of_its_record(
    store: DatasetStore,
) -> None:
    from augkit.provenance import installed, record_hash

    ak.augment(store, "flip+zoom", workers=1)
    (code,) = store.snapshot().runs["flip+zoom"].code
    own = installed("augkit")
    assert code == {
        "distribution": "augkit",
        "version": own.version,
        "record": record_hash(own),
    }
    assert len(code["record"]) == 64


def test_the_code_is_no_part_of_the_recipe_so_that_older_runs_stay_the_same(
    store: DatasetStore,
) -> None:
    ak.augment(store, "flip", workers=1)
    recipe = store.snapshot().runs["flip"].recipe
    assert set(recipe) == {"plugin", "plugins", "seed", "amount", "partition"}
    assert set(recipe["plugins"][0]) == {"name", "distribution", "version", "options"}
    then = {"plugin": "flip", "seed": 0, "amount": {}, "partition": "70/15/15"}
    then["plugins"] = [
        {"name": "flip", "distribution": "augkit", "version": ak.__version__, "options": {}}
    ]
    assert digest_of(recipe) == digest_of(then)


def test_replay_says_when_a_package_is_another_than_the_one_that_made_a_run(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from augkit import provenance

    ak.augment(store, "flip", workers=1)
    assert ak.replay(store, "flip").versions == ""
    monkeypatch.setattr(provenance, "_record_of", lambda name: "f" * 64)
    replayed = ak.replay(store, "flip")
    assert replayed.equal
    assert replayed.versions == f"augkit {ak.__version__} has other files"


def test_a_run_from_before_code_was_recorded_is_read_and_replayed(store: DatasetStore) -> None:
    from hostile import resign

    ak.augment(store, "flip", workers=1)

    def edit(number: int, entry: dict[str, Any]) -> None:
        entry.pop("code", None)

    resign(store.path, edit)
    opened = ak.open(store.path)
    assert opened.snapshot().runs["flip"].code == []
    assert ak.replay(opened, "flip").versions == ""
    assert not ak.augment(opened, "flip").made, "it is the same run"
    assert "code" not in json.loads(sorted((store.path / "log").iterdir())[-1].read_bytes())


def test_an_outcome_names_the_packages_of_others_whose_classifiers_it_is_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from augkit import outcomes

    strange = Plugin("x", "classifier", "", "strange", "2.0", object)
    known = Registry((strange, *registry().plugins), ())
    monkeypatch.setattr(outcomes, "registry", lambda: known)
    cells = [
        outcomes.Cell("d", name, SimpleNamespace(classifier=name)) for name in ("x", "linear", "no")
    ]
    assert outcomes._packages(cells) == {"strange": "2.0, RECORD none"}


def test_errors_of_plugins_are_errors_of_augkit() -> None:
    assert issubclass(PluginFailed, AugkitError)
