"""The same commands and seeds give the same bytes, and any row can be made again."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toys import toy_store

import augkit as ak
from augkit.interfaces import Samples
from augkit.making import make
from augkit.partitions import HOLDOUT, k_fold
from augkit.recipes import rebuild
from augkit.store import DatasetStore

LINES: list[tuple[str, dict[str, Any]]] = [
    ("flip", {}),
    ("zoom", {"n": 9, "seed": 3}),
    ("scale+brightness", {"total": 31, "options": {"factor_range": "0.5,1.5"}}),
    ("flip+brightness+scale+zoom", {"n": 17}),
]
"""Commands whose runs are compared."""

Rows = dict[str, tuple[np.ndarray, ...]]


def rows(store: DatasetStore) -> Rows:
    """Return all that can be seen of every run: images, masks, labels, parents, parameters."""
    snapshot, found = store.snapshot(), {}
    for name in snapshot.runs:
        made = snapshot.inspect(name)
        masks, masked = made.masks(slice(None))
        about = (made.labels, snapshot.parents(name), snapshot.params(name))
        found[name] = (made[:], masks, masked, *about)
    return found


def assert_same(one: Rows, other: Rows) -> None:
    assert one.keys() == other.keys()
    for name in one:
        for a, b in zip(one[name], other[name], strict=True):
            assert a.dtype == b.dtype, name
            assert a.shape == b.shape, name
            assert a.tobytes() == b.tobytes(), name


def augmented(path: Path, lines: Any = LINES, **how: Any) -> DatasetStore:
    """Return a store with the runs of the lines, made in the way that is asked for."""
    store = toy_store(path, 8, masks=True)
    for plugin, given in lines:
        assert ak.augment(store, plugin, **given, **how).made
    return store


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    folder = tmp_path_factory.mktemp("reference")
    return rows(augmented(folder / "a.store", workers=1))


@pytest.mark.parametrize(
    ("workers", "block"), [(1, 1), (1, 7), (2, 1), (2, 7), (2, 64), (3, 7), (3, 64)]
)
def test_workers_and_blocks_change_nothing(
    tmp_path: Path, reference: Rows, workers: int, block: int
) -> None:
    assert_same(rows(augmented(tmp_path / "a.store", workers=workers, block=block)), reference)


@pytest.mark.parametrize(
    "start_method",
    [
        "threads",
        "fork",
        pytest.param("spawn", marks=pytest.mark.slow),
        pytest.param("forkserver", marks=pytest.mark.slow),
    ],
)
def test_how_workers_are_started_changes_nothing(
    tmp_path: Path, reference: Rows, start_method: Any
) -> None:
    made = augmented(tmp_path / "a.store", workers=2, start_method=start_method, block=5)
    assert_same(rows(made), reference)


def test_a_spawned_worker_makes_the_same_image(tmp_path: Path, reference: Rows) -> None:
    (line,) = LINES[-1:]
    made = augmented(tmp_path / "a.store", [line], workers=2, start_method="spawn", block=30)
    assert_same(rows(made), {line[0]: reference[line[0]]})


def test_the_form_of_the_store_changes_nothing(tmp_path: Path, reference: Rows) -> None:
    assert_same(rows(augmented(tmp_path / "a.h5", workers=2)), reference)


def test_the_order_of_commands_changes_nothing(tmp_path: Path, reference: Rows) -> None:
    for number, lines in enumerate(itertools.islice(itertools.permutations(LINES), 7, 24, 15)):
        assert_same(rows(augmented(tmp_path / f"{number}.store", lines)), reference)


def test_other_runs_and_retractions_between_change_nothing(tmp_path: Path, reference: Rows) -> None:
    store = toy_store(tmp_path / "a.store", 8, masks=True)
    for plugin, given in LINES:
        ak.augment(store, "brightness", seed=99, run="other")
        ak.augment(store, plugin, **given)
        ak.retract(store, "other")
    assert_same(rows(store), reference)


def test_packing_and_unpacking_change_nothing(tmp_path: Path, reference: Rows) -> None:
    store = augmented(tmp_path / "a.store")
    packed = ak.pack(store, tmp_path / "b.h5")
    assert_same(rows(packed), reference)
    assert_same(rows(ak.unpack(packed, tmp_path / "c.store")), reference)


def test_a_run_that_was_retracted_comes_back_the_same(tmp_path: Path, reference: Rows) -> None:
    store = augmented(tmp_path / "a.store")
    ak.retract(store, "zoom")
    assert ak.augment(store, "zoom", n=9, seed=3).made
    assert_same(rows(store), reference)


def test_the_log_keeps_the_same_content_of_a_run_whatever_the_workers(tmp_path: Path) -> None:
    logs = []
    for number, how in enumerate(({"workers": 1, "block": 1}, {"workers": 3}, {"workers": 2})):
        snapshot = augmented(tmp_path / f"{number}.store", **how).snapshot()
        logs.append([e["shard"]["content"] for e in snapshot.entries])
    assert logs[0] == logs[1] == logs[2]


def test_the_pixels_do_not_depend_on_the_name_of_the_run(tmp_path: Path, reference: Rows) -> None:
    store = toy_store(tmp_path / "a.store", 8, masks=True)
    ak.augment(store, "zoom", n=9, seed=3, run="mine")
    assert_same({"zoom": rows(store)["mine"]}, {"zoom": reference["zoom"]})


def test_another_seed_gives_other_images(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store", 8)
    seeds = [0, 1, 2, 2**62]
    names = [ak.augment(store, "zoom", seed=seed).run for seed in seeds]
    found = rows(store)
    for one, other in itertools.combinations(names, 2):
        changed = (found[one][0] != found[other][0]).any(axis=(1, 2, 3))
        assert changed.mean() > 0.8
        assert not np.array_equal(found[one][-1], found[other][-1])


def test_two_plugins_with_one_seed_draw_independently(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store", 20)
    for plugin in ("zoom", "scale"):
        ak.augment(store, plugin, n=300)
    zoom, scale = store.snapshot().params("zoom"), store.snapshot().params("scale")
    assert abs(np.corrcoef(zoom["side"], scale["factor"])[0, 1]) < 0.15


@pytest.mark.parametrize("form", ["a.store", "a.h5"])
def test_each_row_can_be_made_again_from_its_parent_and_parameters(
    tmp_path: Path, form: str
) -> None:
    store = augmented(tmp_path / form)
    snapshot = DatasetStore.open(store.path).snapshot()
    real = snapshot.inspect()[:]
    for name, run in snapshot.runs.items():
        made, labels = snapshot.inspect(name)[:], snapshot.inspect(name).labels
        parents, params = snapshot.parents(name), snapshot.params(name)
        augmenter = rebuild(run.recipe)
        for i in np.random.default_rng(0).permutation(len(made))[:25].tolist():
            one = slice(i, i + 1)
            again = augmenter.apply(real[parents[one]], labels[one], params[one])
            assert again.tobytes() == made[one].tobytes(), (name, i)
        again = augmenter.apply(real[parents], labels, params)
        assert np.array_equal(again, made), name


def test_a_recipe_survives_json(tmp_path: Path) -> None:
    snapshot = augmented(tmp_path / "a.store").snapshot()
    for run in snapshot.runs.values():
        copy = json.loads(json.dumps(run.recipe))
        assert copy == run.recipe
        again = rebuild(copy)
        real = snapshot.inspect()[:][snapshot.parents(run.name)]
        labels = snapshot.inspect(run.name).labels
        made = again.apply(real, labels, snapshot.params(run.name))
        assert np.array_equal(made, snapshot.inspect(run.name)[:])


def test_a_run_made_again_for_its_own_partition_is_what_was_stored(tmp_path: Path) -> None:
    snapshot = augmented(tmp_path / "a.store").snapshot()
    for name, run in snapshot.runs.items():
        again: Samples = make(snapshot, run, HOLDOUT)
        assert np.array_equal(again[:], snapshot.inspect(name)[:])
        assert np.array_equal(again.labels, snapshot.inspect(name).labels)
        assert np.array_equal(np.concatenate(list(again.blocks(5))), again[:])


def test_a_run_made_for_another_partition_is_the_same_every_time(tmp_path: Path) -> None:
    snapshots = [augmented(tmp_path / f"{i}.store").snapshot() for i in range(2)]
    for partition in k_fold(5):
        for name in snapshots[0].runs:
            one, other = (make(s, s.run(name), partition) for s in snapshots)
            assert np.array_equal(one[:], other[:])
            assert one.digest == other.digest


def picture_folder(root: Path) -> Path:
    """Write small pictures of several kinds, some with a mask."""
    rng = np.random.default_rng(4)
    for i in range(16):
        folder = root / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shape = (48 + i, 64 - i) if i % 3 else (50, 60, 3)
        pixels = rng.integers(0, 256, shape, np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        if i % 4 == 0:
            mask = np.where(pixels[..., 0] if pixels.ndim == 3 else pixels, 255, 0)
            Image.fromarray(mask.astype(np.uint8)).save(folder / f"{i}_mask.png")
    return root


def ingested(folder: Path, store: Path, **how: Any) -> list[dict[str, Any]]:
    """Return what the log keeps of an ingest, without what names the moment."""
    ak.ingest(folder, store, size="64x48", **how)
    (entry,) = ak.open(store).snapshot().entries
    kept = {k: v for k, v in entry.items() if k not in ("time", "digest")}
    return [kept | {"shard": {k: v for k, v in entry["shard"].items() if k != "name"}}]


@pytest.mark.seconds
def test_an_ingest_gives_the_same_shard_whatever_the_workers(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "set")
    ways: list[dict[str, Any]] = [
        {"workers": 1},
        {"workers": 2},
        {"workers": 3},
        {"workers": 2, "start_method": "fork"},
        {"workers": 2, "start_method": "spawn"},
    ]
    logs = [ingested(folder, tmp_path / f"{i}.store", **how) for i, how in enumerate(ways)]
    assert len(logs[0][0]["shard"]["sha256"]) == 64
    for log, how in zip(logs, ways, strict=True):
        assert log == logs[0], how


@pytest.mark.slow
def test_an_ingest_with_a_fork_server_gives_the_same_shard(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "set")
    logs = [
        ingested(folder, tmp_path / f"{method}.store", workers=2, start_method=method)
        for method in ("threads", "forkserver")
    ]
    assert logs[0] == logs[1]


def test_both_forms_of_a_store_hold_the_same_after_an_ingest(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "set")
    ak.ingest(folder, tmp_path / "a.store", size="64x48")
    ak.ingest(folder, tmp_path / "b.h5", size="64x48")
    one, other = (ak.open(tmp_path / n).snapshot() for n in ("a.store", "b.h5"))
    assert np.array_equal(one.inspect()[:], other.inspect()[:])
    assert one.training_digest(HOLDOUT) == other.training_digest(HOLDOUT)
    assert one.training(HOLDOUT).digest == other.training(HOLDOUT).digest
