"""A row whose lineage touches validation or test is never trained on, whoever asks and how."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leaks import (
    SHAPE,
    Cheat,
    Spy,
    assert_clean,
    keep_model,
    part,
    pixels,
    plant,
    regroup,
)
from toys import CLASSES, images, labels, toy_store

import augkit as ak
from augkit import evaluation
from augkit.errors import DamagedStore, LineageError, PluginFailed
from augkit.interfaces import Samples
from augkit.making import make
from augkit.partitions import HOLDOUT, k_fold, split
from augkit.registry import Plugin, Registry
from augkit.store import DatasetStore, Snapshot
from augkit.store.reading import require_training
from augkit.store.samples import JoinedSamples

PARTITIONS = [HOLDOUT, split("50/25/25", 3), k_fold(5)[1], k_fold(5)[4], k_fold(4, 2)[0]]


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Samples, Samples]]]:
    offered = tuple(Plugin(c.name, "classifier", "toy", "toys", "1", c) for c in (Spy, Cheat))
    monkeypatch.setattr(evaluation, "registry", lambda: Registry(offered, ()))
    Spy.seen.clear()
    yield Spy.seen
    Spy.seen.clear()


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    """Return a store of 36 images, each of a patient of its own, and a flip of each."""
    store = toy_store(tmp_path / "a.store", 12, shape=SHAPE, groups=[f"p{i}" for i in range(36)])
    ak.augment(store, "flip", workers=1)
    return store


def assert_no_call_leaks(snapshot: Snapshot) -> None:
    """Try each public call that gives rows for training, under several partitions."""
    for partition in PARTITIONS:
        names = list(snapshot.runs)
        assert_clean(snapshot, snapshot.training(partition), partition)
        assert_clean(snapshot, snapshot.training(partition, names), partition)
        for name in names:
            alone = snapshot.training(partition, [name], real=False)
            assert_clean(snapshot, alone, partition)
            assert_clean(snapshot, pickle.loads(pickle.dumps(alone)), partition)
            assert len(alone) == snapshot.trainable(name, partition).sum()
            run = snapshot.run(name)
            if run.family == "traditional" and run.plugin == "flip":
                assert_clean(snapshot, make(snapshot, run, partition), partition)
        real = set(snapshot.inspect().ids.tolist())
        validation, test = snapshot.validation(partition), snapshot.test(partition)
        assert set(validation.ids.tolist()) <= real
        assert set(test.ids.tolist()) <= real
        assert not set(validation.ids.tolist()) & set(test.ids.tolist())
        assert not pixels(test) & pixels(snapshot.training(partition, names))


def assert_no_fit_leaks(store: DatasetStore, seen: list[tuple[Samples, Samples]]) -> None:
    """Evaluate every arm, and hold what each fit was given against the rule."""
    snapshot = store.snapshot()
    for protocol in ({"split": "70/15/15"}, {"folds": 4}):
        seen.clear()
        found = ak.evaluate(store, "spy", arms=None, seeds=1, **protocol)
        partitions = [HOLDOUT] if "split" in protocol else list(k_fold(4))
        by_validation = {tuple(snapshot.validation(p).ids.tolist()): p for p in partitions}
        arms = [arm for arm in found.arms if arm.unavailable is None]
        assert len(seen) >= len(partitions)
        assert {arm.name for arm in arms} >= {"real", "traditional"}
        for train, validation in seen:
            partition = by_validation[tuple(validation.ids.tolist())]
            assert_clean(snapshot, train, partition)
            real = pixels(snapshot.inspect().take(snapshot.parts(partition) == 0))
            assert real <= pixels(train)


def test_without_leaks_every_row_is_trained_on(store: DatasetStore) -> None:
    snapshot = store.snapshot()
    assert len(snapshot.training(HOLDOUT, ["flip"])) == 2 * len(snapshot.training(HOLDOUT))
    assert snapshot.stale_runs(HOLDOUT) == []
    assert_no_call_leaks(snapshot)


def test_under_another_partition_only_rows_of_its_training_images_remain(
    store: DatasetStore,
) -> None:
    snapshot = store.snapshot()
    parents = snapshot.parents("flip")
    for partition in PARTITIONS[1:]:
        kept = snapshot.trainable("flip", partition)
        assert np.array_equal(kept, snapshot.parts(partition)[parents] == 0)
        assert 0 < kept.sum() < len(kept)


def test_a_regrouping_takes_its_rows_out_of_training(
    store: DatasetStore, spy: list[tuple[Samples, Samples]]
) -> None:
    snapshot = store.snapshot()
    before = snapshot.training(HOLDOUT, ["flip"])
    _, train, report = regroup(store)
    assert report.stale == ("flip",)
    assert "made stale, because groups were joined: flip" in str(report)
    after = store.snapshot()
    assert after.stale_runs(HOLDOUT) == ["flip"]
    assert [r["stale"] for r in ak.info(store).values["runs"]] == [True]
    lost = after.parents("flip")[~after.trainable("flip", HOLDOUT)].tolist()
    assert lost == [train]
    assert len(after.training(HOLDOUT, ["flip"])) == len(before) - 2
    assert_no_call_leaks(after)
    assert_no_fit_leaks(store, spy)
    assert ak.augment(store, "flip").run == "flip-2"
    assert store.snapshot().stale_runs(HOLDOUT) == ["flip"]


def test_a_snapshot_taken_before_a_regrouping_keeps_its_own_rule(store: DatasetStore) -> None:
    before = store.snapshot()
    regroup(store)
    assert before.stale_runs(HOLDOUT) == []
    assert_no_call_leaks(before)


def test_a_regrouping_across_classes_takes_both_groups_out_of_everything(
    store: DatasetStore, spy: list[tuple[Samples, Samples]]
) -> None:
    snapshot = store.snapshot()
    test = part(snapshot, 2)[0]
    train = next(
        row for row in part(snapshot, 0) if snapshot.real.labels[row] != snapshot.real.labels[test]
    )
    ak.ingest_arrays(
        store, [snapshot.inspect()[test : test + 1] // 2], [CLASSES[0]], keys=["half"],
        dataset="toy", groups=[f"p{train}"],
    )  # fmt: skip
    after = store.snapshot()
    assert part(after, -1) == sorted([test, train, 36])
    for partition in PARTITIONS:
        assert part(after, -1, partition) == sorted([test, train, 36])
    out = pixels(after.inspect().take(after.real.conflict))
    for partition in PARTITIONS:
        for samples in (after.validation(partition), after.test(partition)):
            assert not out & pixels(samples)
    assert after.stale_runs(HOLDOUT) == ["flip"]
    assert_no_call_leaks(after)
    assert_no_fit_leaks(store, spy)


def test_a_run_by_hand_with_parents_in_test_gives_only_its_clean_rows(
    store: DatasetStore, spy: list[tuple[Samples, Samples]]
) -> None:
    plant(store, "planted", list(range(36)))
    snapshot = store.snapshot()
    assert snapshot.stale_runs(HOLDOUT) == ["planted"]
    assert len(snapshot.training(HOLDOUT, ["planted"], real=False)) == len(part(snapshot, 0))
    assert_no_call_leaks(snapshot)
    plant(store, "tested", part(snapshot, 2))
    assert len(store.snapshot().training(HOLDOUT, ["tested"], real=False)) == 0
    assert_no_call_leaks(store.snapshot())


def test_a_planted_run_reaches_no_fit(
    store: DatasetStore, spy: list[tuple[Samples, Samples]]
) -> None:
    plant(store, "planted", list(range(36)))
    ak.evaluate(store, "spy", arms=["planted", "all"], split="70/15/15", seeds=1)
    assert len(spy) == 3  # real, planted, all
    for train, _ in spy:
        assert_clean(store.snapshot(), train, HOLDOUT)


@pytest.mark.parametrize("leak", [1, 2])
def test_one_fitted_row_outside_of_training_bars_the_whole_run(
    store: DatasetStore, spy: list[tuple[Samples, Samples]], leak: int
) -> None:
    snapshot = store.snapshot()
    train = part(snapshot, 0)
    plant(store, "gan", train, fitted_on=[*train, part(snapshot, leak)[0]], family="generative")
    plant(store, "good", train, fitted_on=train, family="generative")
    snapshot = store.snapshot()
    assert not snapshot.trainable("gan", HOLDOUT).any()
    assert len(snapshot.training(HOLDOUT, ["gan"], real=False)) == 0
    assert len(snapshot.training(HOLDOUT, ["good"], real=False)) == len(train)
    assert snapshot.stale_runs(HOLDOUT) == ["gan"]
    assert_no_call_leaks(snapshot)
    for partition in k_fold(5):
        assert not snapshot.trainable("good", partition).any()
        with pytest.raises(LineageError, match=f"'good' was fitted on .*{partition.name}"):
            make(snapshot, snapshot.run("good"), partition)
    found = ak.evaluate(store, "spy", arms=["real", "gan", "good"], split="70/15/15", seeds=1)
    assert [arm.unavailable is None for arm in found.arms if not arm.control] == [True, False, True]
    assert "run 'gan' was fitted on images" in str(found.arms[1].unavailable)
    assert_no_fit_leaks(store, spy)


@pytest.mark.parametrize("leak", [1, 2])
def test_a_model_that_was_fitted_outside_of_training_bars_all_its_runs(
    store: DatasetStore, spy: list[tuple[Samples, Samples]], leak: int
) -> None:
    snapshot = store.snapshot()
    train = part(snapshot, 0)
    bad = keep_model(store, [*train, part(snapshot, leak)[0]])
    good = keep_model(store, train)
    for name, model in (("gan", bad), ("gan-2", bad), ("good", good)):
        plant(store, name, train, family="generative", model=model)
    snapshot = store.snapshot()
    assert snapshot.stale_runs(HOLDOUT) == ["gan", "gan-2"]
    assert len(snapshot.training(HOLDOUT, ["gan", "gan-2"], real=False)) == 0
    assert len(snapshot.training(HOLDOUT, ["good"], real=False)) == len(train)
    assert_no_call_leaks(snapshot)
    found = ak.evaluate(store, "spy", arms=["real", "gan-2", "good"], split="70/15/15", seeds=1)
    assert [arm.unavailable is None for arm in found.arms if not arm.control] == [True, False, True]
    assert_no_fit_leaks(store, spy)


def test_a_regrouping_bars_the_runs_of_a_model_that_was_fitted_on_what_is_now_tested(
    store: DatasetStore,
) -> None:
    train = part(store.snapshot(), 0)
    model = keep_model(store, train)
    plant(store, "gan", train, family="generative", model=model)
    assert store.snapshot().trainable("gan", HOLDOUT).all()
    regroup(store)
    snapshot = store.snapshot()
    assert snapshot.model(model).fitted_on == tuple(train)
    assert not snapshot.trainable("gan", HOLDOUT).any()
    assert "gan" in snapshot.stale_runs(HOLDOUT)
    assert_no_call_leaks(snapshot)


def test_a_run_that_calls_itself_traditional_but_was_fitted_is_barred_as_well(
    store: DatasetStore, spy: list[tuple[Samples, Samples]]
) -> None:
    train = part(store.snapshot(), 0)
    plant(store, "odd", train, fitted_on=list(range(36)))
    assert not store.snapshot().trainable("odd", HOLDOUT).any()
    with pytest.raises(LineageError, match="'odd' was fitted on"):
        make(store.snapshot(), store.snapshot().run("odd"), HOLDOUT)
    ak.evaluate(store, "spy", arms=["odd"], split="70/15/15", seeds=1)
    assert [len(given) for given, _ in spy] == [len(train)] * len(spy) and spy


@pytest.mark.parametrize("row", [-1, 36, 10**6])
def test_a_run_that_was_fitted_on_images_that_do_not_exist_is_damage(
    store: DatasetStore, row: int
) -> None:
    plant(store, "gan", [0], fitted_on=[0, row], family="generative")
    with pytest.raises(DamagedStore, match="'gan' was fitted on images that do not exist"):
        store.snapshot().training(HOLDOUT, ["gan"])


def test_a_run_whose_parents_do_not_exist_is_damage(store: DatasetStore) -> None:
    snapshot = store.snapshot()
    for number, wrong in enumerate((-1, 36)):
        writer = store.write_shard({"classes": [*CLASSES]}, masks=False)
        writer.append(images(2, shape=SHAPE))
        zeros = np.zeros(2, np.int64)
        shard = writer.finish({"labels": zeros, "parent": np.array([0, wrong])})
        entry = dict(snapshot.entries[-1]) | {"run": f"wrong-{number}", "shard": shard}
        entry["by_class"] = [2] + [0] * (len(CLASSES) - 1)
        for key in ("format", "number", "previous", "time", "augkit", "digest"):
            entry.pop(key)
        store.commit(lambda _, entry=entry: dict(entry), writer.path)
        with pytest.raises(DamagedStore, match="rows whose parent does not exist"):
            store.snapshot().training(HOLDOUT, [f"wrong-{number}"])


def test_labels_of_test_images_are_withheld_in_every_way(store: DatasetStore) -> None:
    for partition in PARTITIONS:
        test = store.snapshot().test(partition)
        ways: list[Callable[[], Samples]] = [
            lambda test=test: test,
            lambda test=test: test.take(np.arange(2)),
            lambda test=test: pickle.loads(pickle.dumps(test)),
            lambda test=test: JoinedSamples([test, test]),
        ]
        for way in ways:
            with pytest.raises(LineageError, match="labels of test images are not given"):
                way().labels  # noqa: B018
            assert len(way()[:]) == len(way())
        public = [name for name in dir(test) if not name.startswith("_")]
        assert set(public) == {
            "blocks", "checksums", "digest", "gather", "ids", "labels", "masks", "purpose", "shape",
            "take",
        }  # fmt: skip


def test_a_classifier_that_asks_for_test_labels_is_stopped(
    store: DatasetStore, spy: list[tuple[Samples, Samples]]
) -> None:
    with pytest.raises((LineageError, PluginFailed), match="labels of test images are not given"):
        ak.evaluate(store, "cheat", split="70/15/15", seeds=1)


def test_only_training_samples_pass_for_training(store: DatasetStore) -> None:
    snapshot = store.snapshot()
    require_training(snapshot.training(HOLDOUT, ["flip"]))
    require_training(make(snapshot, snapshot.run("flip"), HOLDOUT))
    others: list[tuple[object, str]] = [
        (snapshot.validation(HOLDOUT), "validation"),
        (snapshot.test(HOLDOUT), "test"),
        (snapshot.inspect(), "inspection"),
        (snapshot.inspect("flip").take(np.arange(3)), "inspection"),
        (np.zeros(3), "another purpose"),
    ]
    for samples, purpose in others:
        with pytest.raises(LineageError, match=f"these samples are for {purpose}"):
            require_training(samples)


def test_new_runs_are_made_from_the_training_part_as_it_is_now(store: DatasetStore) -> None:
    regroup(store)
    for plugin in ("zoom", "flip+brightness"):
        run = ak.augment(store, plugin, n=5, workers=1).run
        snapshot = store.snapshot()
        assert set(snapshot.parents(run).tolist()) <= set(part(snapshot, 0))


def groupings() -> st.SearchStrategy[list[str]]:
    """Return a strategy for groups of 18 images in three classes, some of two or three classes."""
    classes = [
        st.lists(st.sampled_from([f"{c}0", f"{c}1", f"{c}2", "x", "y"]), min_size=4, max_size=4)
        for c in CLASSES
    ]
    return st.tuples(*classes).map(
        lambda drawn: [
            g for c, own in zip(CLASSES, drawn, strict=True) for g in (f"{c}0", f"{c}1", *own)
        ]
    )


@pytest.mark.seconds
@given(names=groupings())
@settings(max_examples=15, deadline=None)
def test_every_group_lies_in_one_part_whatever_the_groups(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    store = toy_store(folder / "a.h5", 6, shape=(4, 4, 1), groups=names)
    ak.augment(store, "flip", workers=1)
    snapshot = store.snapshot()
    groups, labels_ = snapshot.real.groups, snapshot.real.labels
    every = [split("70/15/15", r) for r in range(3)] + [
        p for k in (2, 4, 5, 10, 20) for r in range(2) for p in k_fold(k, r)
    ]
    for partition in every:
        parts = snapshot.parts(partition)
        for group in np.unique(groups):
            here = groups == group
            assert len(np.unique(parts[here])) == 1
            assert (parts[here] == -1).all() == (len(np.unique(labels_[here])) > 1)
        trained = snapshot.parents("flip")[snapshot.trainable("flip", partition)]
        assert not set(groups[trained]) & set(groups[parts != 0])
    store.close()


def test_conflicts_that_are_kept_stay_together_in_one_part(tmp_path: Path) -> None:
    store = DatasetStore.create(tmp_path / "a.store", height=24, width=32)
    groups = [f"g{i % 15}" for i in range(60)]
    ak.ingest_arrays(
        store, [images(60)], labels(20), keys=[str(i) for i in range(60)], groups=groups,
        conflicts="keep", find_relatives=False,
    )  # fmt: skip
    snapshot = store.snapshot()
    assert not snapshot.real.conflict.any()
    for partition in PARTITIONS:
        parts = snapshot.parts(partition)
        assert (parts >= 0).all()
        for group in range(15):
            assert len(np.unique(parts[snapshot.real.groups == group])) == 1
