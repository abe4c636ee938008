import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from toys import CLASSES, offer, toy_store

import augkit as ak
from augkit.errors import LineageError, OptionError, PluginFailed, StoreError
from augkit.interfaces import Augmenter, Classifier, Context, Samples, Schedule
from augkit.partitions import HOLDOUT, k_fold
from augkit.store import DatasetStore
from augkit.store.format import canonical, signed


@dataclass
class Coin(Classifier):
    """Random probabilities from the seed; counts its fits."""

    name = "coin"
    fits: ClassVar[list[tuple[int, int]]] = []

    def fit(self, train: Samples, val: Samples, context: Context) -> None:
        Coin.fits.append((context.seed, len(train)))
        self.rng_ = np.random.default_rng([context.seed, len(train)])
        self.n_ = len(context.classes)

    def predict_proba(self, samples: Samples) -> np.ndarray:
        return self.rng_.dirichlet(np.ones(self.n_), len(samples)).astype(np.float32)


@dataclass
class Stripes(Classifier):
    """Reads the class from a mark that the test draws into the images."""

    name = "stripes"
    deterministic = True
    fast = True

    def fit(self, train: Samples, val: Samples, context: Context) -> None:
        self.n_ = len(context.classes)

    def predict_proba(self, samples: Samples) -> np.ndarray:
        marks = np.concatenate([b[:, 0, 0, 0] for b in samples.blocks()])
        return np.eye(self.n_, dtype=np.float32)[marks]


@pytest.fixture(autouse=True)
def _plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    Coin.fits = []
    offer(monkeypatch, Coin, Stripes)


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return toy_store(tmp_path / "a.store")


def marked_store(path: Path, n_per_class: int = 20) -> DatasetStore:
    """Return a store whose first pixel is the label."""
    store = DatasetStore.create(path, height=16, width=16)
    names = [c for c in CLASSES for _ in range(n_per_class)]
    pixels = np.random.default_rng(0).integers(0, 256, (len(names), 16, 16, 1), np.uint8)
    pixels[:, 0, 0, 0] = np.repeat(np.arange(3), n_per_class)
    ak.ingest_arrays(
        store, [pixels], names, keys=[str(i) for i in range(len(names))], find_relatives=False
    )
    return store


def test_seeds_for_a_classifier_without_randomness_are_not_passed_over_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = ak.evaluate(marked_store(tmp_path / "a.store"), "stripes", seeds=2)
    assert result.seeds == 1
    assert "stripes has no randomness: one fit on each partition is all" in caplog.text


def test_a_classifier_that_knows_everything_scores_one(tmp_path: Path) -> None:
    result = ak.evaluate(marked_store(tmp_path / "a.store"), "stripes")
    (real,) = result.arms
    assert result.comparisons == () and result.protocol == "5 folds"
    assert str(result).endswith("without --arms, every arm takes part")
    assert result.test_images == 60
    for name in ("accuracy", "balanced_accuracy", "auroc", "sensitivity:benign"):
        assert real.metrics[name].value == 1
        assert 0.7 < real.metrics[name].low < 1, "no interval may have no width"


def test_guessing_scores_chance_and_the_interval_covers_it(tmp_path: Path) -> None:
    result = ak.evaluate(toy_store(tmp_path / "a.store", 60), "coin", folds=5)
    found = result.arms[0].metrics["balanced_accuracy"]
    assert found.low < 1 / 3 < found.high
    assert 0.2 < found.value < 0.47


def test_arms_are_real_each_family_and_all(store: DatasetStore) -> None:
    ak.augment(store, "flip")
    ak.augment(store, "zoom")
    result = ak.evaluate(store, "coin", seeds=1)
    assert [a.name for a in result.arms] == ["real", "traditional", "all", "balanced"]
    assert [a.rows for a in result.arms] == [42, 126, 126, 42]
    assert result.arms[1].runs == ("flip", "zoom")
    assert result.arms[2].same_as == "traditional"


def test_equal_arms_are_fitted_once(store: DatasetStore) -> None:
    ak.augment(store, "flip")
    result = ak.evaluate(store, "coin", seeds=2)
    assert sorted(Coin.fits) == [(0, 42), (0, 84), (1, 42), (1, 84)]
    assert result.computed == 4
    assert result.fits == 6


def test_arms_can_be_chosen_also_by_run(store: DatasetStore) -> None:
    ak.augment(store, "flip")
    ak.augment(store, "zoom")
    result = ak.evaluate(store, "coin", arms=["real", "zoom"], seeds=1)
    arms = [(a.name, a.runs) for a in result.arms if not a.control]
    assert arms == [("real", ()), ("zoom", ("zoom",))]
    with pytest.raises(OptionError, match="no arm 'dagan'; there are: real, traditional, all"):
        ak.evaluate(store, "coin", arms=["dagan"])


def test_a_random_classifier_gets_five_seeds_on_one_split(store: DatasetStore) -> None:
    result = ak.evaluate(store, "coin")
    assert result.protocol == "70/15/15"
    assert [seed for seed, _ in Coin.fits] == [0, 1, 2, 3, 4]


def test_folds_repeats_and_seeds_multiply(store: DatasetStore) -> None:
    result = ak.evaluate(store, "coin", folds=5, repeats=2, seeds=3)
    assert result.fits == 30
    assert result.protocol == "5 folds, 2 repeats"
    assert result.test_images == 60


def test_nothing_is_computed_twice_and_numbers_stay(store: DatasetStore) -> None:
    first = ak.evaluate(store, "coin", folds=5, seeds=2)
    Coin.fits = []
    again = ak.evaluate(store, "coin", folds=5, seeds=2)
    assert Coin.fits == []
    assert again.computed == 0
    assert again.arms == first.arms


def test_an_interrupted_evaluation_continues(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Coin.predict_proba

    def interrupted(self: Coin, samples: Samples) -> np.ndarray:
        if len(Coin.fits) == 4:
            raise KeyboardInterrupt
        return honest(self, samples)

    with monkeypatch.context() as patch:
        patch.setattr(Coin, "predict_proba", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ak.evaluate(store, "coin", folds=5, seeds=2)
    Coin.fits = []
    result = ak.evaluate(store, "coin", folds=5, seeds=2)
    assert len(Coin.fits) == 7 + 1, "what was missing, and the first of it once more"
    assert result.fits == 10


def test_a_damaged_result_is_computed_again(store: DatasetStore) -> None:
    first = ak.evaluate(store, "coin", seeds=2)
    for path in (store.path / "results").iterdir():
        path.write_text("{")
    assert ak.evaluate(store, "coin", seeds=2) == first


def test_results_of_other_options_classes_or_images_are_not_mixed_up(tmp_path: Path) -> None:
    a = toy_store(tmp_path / "a.store")
    ak.evaluate(a, "coin", seeds=1)
    ak.augment(a, "flip")
    Coin.fits = []
    ak.evaluate(a, "coin", seeds=1)
    assert Coin.fits == [(0, 84)]


def test_a_packed_store_gives_the_same_numbers_and_keeps_its_file(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    ak.augment(store, "zoom")
    packed = ak.pack(store, tmp_path / "b.h5")
    before = (tmp_path / "b.h5").read_bytes()
    first, second = (ak.evaluate(s, "coin", folds=5, seeds=1) for s in (store, packed))
    assert first.arms == second.arms
    assert (tmp_path / "b.h5").read_bytes() == before


def test_rows_for_another_partition_are_made_from_its_training_part_only(
    store: DatasetStore,
) -> None:
    from augkit.making import make

    ak.augment(store, "flip")
    snapshot = store.snapshot()
    for partition in k_fold(5):
        made = make(snapshot, snapshot.run("flip"), partition)
        parents = snapshot.training(partition)
        assert np.array_equal(made[:], parents[:][:, :, ::-1])
        assert np.array_equal(made.labels, parents.labels)
        assert (made.ids < 0).all()


def test_made_rows_equal_the_stored_ones_on_the_partition_of_the_run(store: DatasetStore) -> None:
    from augkit.making import make

    ak.augment(store, "flip+brightness+scale+zoom", n=40)
    snapshot = store.snapshot()
    (run,) = snapshot.runs.values()
    made = make(snapshot, run, HOLDOUT)
    assert np.array_equal(made[:], snapshot.inspect(run.name)[:])
    assert np.array_equal(made[3:50:7], snapshot.inspect(run.name)[3:50:7])


@dataclass
class Dream(Augmenter):
    """Generates noise."""

    name = "dream"
    family = "generative"

    def apply(
        self, images: np.ndarray | None, labels: np.ndarray, params: np.ndarray
    ) -> np.ndarray:
        assert images is None
        rngs = [np.random.default_rng(int(seed)) for seed in params["seed"]]
        return np.stack([r.integers(0, 256, (24, 32, 1), np.uint8) for r in rngs])


def test_a_generative_plugin_is_an_arm_of_its_own(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, Coin, Dream)
    with pytest.raises(OptionError, match="--n IMAGES_A_CLASS"):
        ak.augment(store, "dream")
    ak.augment(store, "dream", n=7)
    ak.augment(store, "flip")
    result = ak.evaluate(store, "coin", seeds=1)
    assert [(a.name, a.rows) for a in result.arms] == [
        ("real", 42),
        ("traditional", 84),
        ("dream", 63),
        ("all", 105),
        ("balanced", 42),
    ]


@dataclass
class Peek(Coin):
    name = "peek"

    def predict_proba(self, samples: Samples) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[samples.labels]


@dataclass
class Wrong(Coin):
    name = "wrong"
    how: str = "shape"

    def predict_proba(self, samples: Samples) -> np.ndarray:
        found = super().predict_proba(samples)
        return {
            "shape": found[:-1],
            "sum": found * 2,
            "nan": found * np.nan,
            "negative": found * [[-1, 1, 1]],
            "list": found.tolist(),
            "raise": lambda: 1 / 0,
        }[self.how]  # type: ignore[return-value]


def test_a_classifier_that_asks_for_test_labels_is_refused(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, Peek)
    with pytest.raises(LineageError, match="labels of test images are not given"):
        ak.evaluate(store, "peek")


@pytest.mark.parametrize("how", ["shape", "sum", "nan", "negative", "list", "raise"])
def test_wrong_probabilities_are_a_named_error(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    offer(monkeypatch, Wrong)
    with pytest.raises(PluginFailed, match="classifier 'wrong'"):
        ak.evaluate(store, "wrong", {"how": how})
    assert not (store.path / "results").exists()


@dataclass
class Crash(Coin):
    name = "crash"

    def fit(self, train: Samples, val: Samples, context: Context) -> None:
        raise ZeroDivisionError("oh")


def test_a_classifier_that_fails_names_the_cell(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, Crash)
    with pytest.raises(
        PluginFailed, match=r"'crash' failed on arm 'real', 70/15/15, seed 0: ZeroDivisionError: oh"
    ):
        ak.evaluate(store, "crash")


MANNERS = {
    "exits": ("fit", SystemExit(0), r"failed on arm 'real', .*: SystemExit: 0"),
    "is cancelled": ("fit", asyncio.CancelledError(), "failed on arm 'real', .*: CancelledError"),
    "many lines": ("fit", ValueError("a\nb"), "ValueError: a b$"),
    "no settling": ("settle", None, r"settle\(\) returned NoneType, not a plugin"),
    "no provenance": ("provenance", None, r"provenance\(\) returned None"),
    "numbers": ("provenance", {"weights": 7}, r"provenance\(\) returned {'weights': 7}"),
    "raising": ("provenance", OSError("gone"), r"failed in provenance\(\): OSError: gone"),
    "no caveat": ("caveat", None, r"caveat\(\) returned None"),
    "schedule": ("schedule", 5, r"schedule\(\) returned 5"),
    "no steps": ("schedule", Schedule(0, 1), r"schedule\(\) returned Schedule"),
    "texts": ("predict_proba", np.full((9, 3), "a"), r"predict_proba\(\) returned <U1"),
    "objects": ("predict_proba", np.full((9, 3), 1 / 3, object), r"returned object"),
}


@pytest.mark.parametrize("method, said, words", MANNERS.values(), ids=MANNERS)
def test_a_classifier_that_breaks_the_contract_is_a_named_error(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch, method, said, words
) -> None:
    def does(*arguments, **named):
        if isinstance(said, BaseException):
            raise said
        return said

    rude = type("Rude", (Coin,), {"name": "rude", method: does})
    offer(monkeypatch, dataclass(rude))
    with pytest.raises(PluginFailed, match=words) as error:
        ak.evaluate(store, "rude")
    assert "'rude'" in str(error.value) and "\n" not in str(error.value)
    assert not (store.path / "results").exists()


HOSTILE_RESULTS = {
    "an endless number": lambda f: f["probabilities"].__setitem__(0, [10**400, 0, 0]),
    "no numbers": lambda f: f["probabilities"].__setitem__(0, [float("nan")] * 3),
    "fewer images": lambda f: f["probabilities"].pop(),
    "fewer classes": lambda f: f.update(probabilities=[[0.5, 0.5]] * len(f["probabilities"])),
    "no probabilities": lambda f: f["probabilities"].__setitem__(0, [-1, 1, 1]),
    "looks that are none": lambda f: f.update(looks=[["x", None, 3]]),
    "looks without end": lambda f: f.update(looks=[[1, float("inf"), 0]]),
}


@pytest.mark.parametrize("edit", HOSTILE_RESULTS.values(), ids=HOSTILE_RESULTS)
def test_a_kept_result_that_cannot_be_is_computed_again(store: DatasetStore, edit) -> None:
    """Its digest fits: whoever gave the store away may have written it."""
    first = ak.evaluate(store, "coin", seeds=1)
    (path,) = (store.path / "results").iterdir()
    found = json.loads(path.read_bytes())
    del found["digest"]
    edit(found)
    path.write_bytes(canonical(signed(found)))
    again = ak.evaluate(store, "coin", seeds=1)
    assert (again.computed, again.arms) == (1, first.arms)


@pytest.mark.parametrize("how", ["brackets", "hole"])
def test_a_kept_result_that_would_fill_the_memory_is_computed_again(
    store: DatasetStore, how: str
) -> None:
    ak.evaluate(store, "coin", seeds=1)
    for path in [*(store.path / "results").iterdir(), *(store.path / "outcomes").iterdir()]:
        path.write_bytes(b"[" * 200_000)
        if how == "hole":
            os.truncate(path, 2**40)
    assert ak.evaluate(store, "coin", seeds=1).computed == 1


def test_json_has_the_promised_keys(store: DatasetStore) -> None:
    found = json.loads(ak.evaluate(store, "coin", seeds=1).to_json())
    assert {"classifier", "protocol", "weights", "reduced", "arms", "comparisons"} <= set(found)
    arm = found["arms"][0]
    assert {"name", "rows", "metrics"} <= set(arm)
    assert {"value", "low", "high"} == set(arm["metrics"]["accuracy"])
    assert {f"sensitivity:{c}" for c in CLASSES} <= set(arm["metrics"])


def test_the_frame_has_a_row_for_each_arm_and_metric(store: DatasetStore) -> None:
    result = ak.evaluate(store, "coin", seeds=1)
    frame = result.to_frame()
    assert len(frame) == sum(len(a.metrics) for a in result.arms)
    assert set(frame.columns) == {"arm", "rows", "metric", "value", "low", "high"}


def test_one_class_cannot_be_evaluated(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store", classes=("only",))
    with pytest.raises(StoreError, match="holds one class only"):
        ak.evaluate(store, "coin")


def test_an_empty_part_is_a_plain_error(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store", 2)
    with pytest.raises(StoreError, match="groups are too few"):
        ak.evaluate(store, "coin", folds=20)


def test_more_fits_make_the_interval_narrower_than_the_fits_alone_would(
    tmp_path: Path,
) -> None:
    store = toy_store(tmp_path / "a.store", 60)
    few = ak.evaluate(store, "coin", seeds=2, folds=5).arms[0].metrics["accuracy"]
    many = ak.evaluate(store, "coin", seeds=8, folds=5).arms[0].metrics["accuracy"]
    assert many.high - many.low < few.high - few.low


def more_images(store: DatasetStore) -> None:
    from toys import images, labels

    names = labels(4)
    keys = [str(i) for i in range(12)]
    ak.ingest_arrays(store, [images(12, 9)], names, keys=keys, dataset="more", find_relatives=False)


def test_a_run_made_again_after_a_later_ingest_does_not_count_twice(store: DatasetStore) -> None:
    ak.augment(store, "zoom")
    more_images(store)
    again = ak.augment(store, "zoom")
    assert again.run == "zoom-2"
    result = ak.evaluate(store, "coin", seeds=1)
    real, traditional = result.arms[:2]
    assert traditional.runs == ("zoom-2",)
    assert traditional.rows == 2 * real.rows
    assert result.superseded == {"zoom": "zoom-2"}
    assert "run 'zoom' is left out: 'zoom-2' is the same recipe" in str(result)


def test_two_seeds_of_one_recipe_are_two_runs_of_an_arm(store: DatasetStore) -> None:
    ak.augment(store, "zoom")
    ak.augment(store, "zoom", seed=1)
    assert ak.evaluate(store, "coin", seeds=1).arms[1].runs == ("zoom", "zoom-2")


def test_a_run_that_cannot_be_made_for_a_partition_makes_its_arm_unavailable_only(
    store: DatasetStore,
) -> None:
    ak.augment(store, "flip", n=14)
    result = ak.evaluate(store, "coin", folds=5, seeds=1)
    real, traditional = result.arms[:2]
    assert real.metrics
    assert traditional.metrics == {}
    assert "not available under fold 1 of 5" in traditional.unavailable
    assert "flip has nothing random" in str(result)


@dataclass
class Tint(Augmenter):
    name = "tint"
    shift: ClassVar[int] = 10

    def apply(self, images: np.ndarray, labels: np.ndarray, params: np.ndarray) -> np.ndarray:
        return images + np.uint8(self.shift)


@pytest.mark.slow
def test_a_plugin_of_another_version_is_not_taken_for_the_old_one(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    offer(monkeypatch, Tint)
    ak.augment(store, "tint")
    assert ak.evaluate(store, "linear").computed == 10
    assert ak.evaluate(store, "linear").computed == 0
    with monkeypatch.context() as patch:
        offer(patch, Tint, version="2.0")
        assert ak.evaluate(store, "linear").computed == 5
    assert "was made by toys 1.0; for other partitions it is made again by toys 2.0" in caplog.text


def test_only_training_samples_can_be_the_source_of_made_rows(store: DatasetStore) -> None:
    from augkit.making import MadeSamples
    from augkit.plans import draw
    from augkit.recipes import rebuild

    ak.augment(store, "flip")
    snapshot = store.snapshot()
    recipe = snapshot.run("flip").recipe
    for source in (snapshot.inspect(), snapshot.validation(HOLDOUT)):
        with pytest.raises(LineageError, match="may be trained on"):
            MadeSamples(rebuild(recipe), source, draw(rebuild(recipe), recipe, source), "x")


def test_a_store_that_cannot_be_written_to_is_evaluated_without_keeping(
    store: DatasetStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    assert ak.evaluate(store, "coin", seeds=1).computed == 1
    assert "results are not kept" in caplog.text
