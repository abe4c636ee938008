import json
import multiprocessing
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from toys import CLASSES, SHAPE, images, labels, toy_store, tree

import augkit as ak
from augkit.errors import (
    DamagedStore,
    FormatError,
    InputError,
    NameTaken,
    StoreError,
    StoreNotFound,
)
from augkit.partitions import HOLDOUT
from augkit.store import DatasetStore, locate
from augkit.store.format import encode_entry

FORMS = ["toy.store", "toy.h5"]


@pytest.fixture(params=FORMS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> DatasetStore:
    return toy_store(tmp_path / request.param)


def test_images_come_back_as_they_went_in(store: DatasetStore) -> None:
    samples = store.snapshot().inspect()
    assert np.array_equal(samples[:], images(60))
    assert samples.labels.tolist() == [0] * 20 + [1] * 20 + [2] * 20
    assert store.snapshot().classes == CLASSES


def test_blocks_join_to_the_whole(store: DatasetStore) -> None:
    samples = store.snapshot().inspect()
    for n in (1, 7, 64):
        blocks = list(samples.blocks(n))
        assert [len(b) for b in blocks[:-1]] == [n] * (len(blocks) - 1)
        assert np.array_equal(np.concatenate(blocks), samples[:])


def test_slices_with_steps_work_as_in_numpy(store: DatasetStore) -> None:
    samples = store.snapshot().inspect()
    for rows in (slice(None, None, 7), slice(40, 2, -3), slice(-5, None), slice(5, 5)):
        assert np.array_equal(samples[rows], images(60)[rows])


def test_a_snapshot_does_not_see_later_commits(store: DatasetStore) -> None:
    before = store.snapshot()
    ak.augment(store, "flip")
    assert before.runs == {}
    assert list(store.snapshot().runs) == ["flip"]


def test_another_process_of_the_store_sees_the_commit(store: DatasetStore) -> None:
    other = DatasetStore.open(store.path)
    assert other.snapshot().number == 1
    ak.augment(store, "flip")
    assert list(other.snapshot().runs) == ["flip"]
    assert len(other.snapshot().inspect("flip")[:]) == other.snapshot().runs["flip"].rows


def test_a_written_but_uncommitted_shard_is_invisible(store: DatasetStore) -> None:
    writer = store.write_shard({"kind": "test"}, masks=False)
    writer.append(images(3))
    writer.finish({"labels": np.zeros(3, np.int64)})
    assert DatasetStore.open(store.path).snapshot().number == 1
    assert ak.verify(store).sound


def test_masks_come_back_as_they_went_in(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "m.store", masks=True, shape=(24, 27, 1))
    masks, masked = store.snapshot().inspect().masks(slice(None))
    expected = np.where(images(60, shape=(24, 27, 1))[..., 0] > 127, 255, 0)
    assert masked.all()
    assert np.array_equal(masks, expected)


def test_colour_images_are_stored_with_three_channels(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "c.store", shape=(24, 32, 3))
    assert np.array_equal(store.snapshot().inspect()[:], images(60, shape=(24, 32, 3)))


def test_a_shard_can_be_read_with_plain_h5py(tmp_path: Path) -> None:
    toy_store(tmp_path / "a.store")
    (path,) = (tmp_path / "a.store" / "shards").glob("*.h5")
    with h5py.File(path) as file:
        assert np.array_equal(file["images"][:], images(60))
        assert file["key"].asstr()[0] == "toy/benign/0.png"
        assert json.loads(file.attrs["classes"]) == list(CLASSES)


def test_a_packed_store_can_be_read_with_plain_h5py(tmp_path: Path) -> None:
    toy_store(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        (shard,) = file["shards"].values()
        assert np.array_equal(shard["images"][:], images(60))
        entry = json.loads(bytes(file["log/0000000001"][:]))
        assert entry["kind"] == "ingest"


def test_pack_and_unpack_keep_every_row_and_every_identity(tmp_path: Path) -> None:
    folder = toy_store(tmp_path / "a.store", masks=True)
    ak.augment(folder, "zoom", n=30)
    packed = ak.pack(folder, tmp_path / "b.h5")
    back = ak.unpack(packed, tmp_path / "c.store")
    first, *others = (s.snapshot() for s in (folder, packed, back))
    for other in others:
        for run in (None, "zoom"):
            assert np.array_equal(first.inspect(run)[:], other.inspect(run)[:])
            assert first.inspect(run).digest == other.inspect(run).digest
            assert np.array_equal(
                first.inspect(run).masks(slice(None))[0], other.inspect(run).masks(slice(None))[0]
            )
        assert first.training_digest(HOLDOUT) == other.training_digest(HOLDOUT)
        assert np.array_equal(first.params("zoom"), other.params("zoom"))
    assert all(ak.verify(s).sound for s in (folder, packed, back))


def test_pack_does_not_overwrite(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    (tmp_path / "b.h5").write_bytes(b"mine")
    with pytest.raises(StoreError, match="exists already"):
        ak.pack(store, tmp_path / "b.h5")
    assert (tmp_path / "b.h5").read_bytes() == b"mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.store", "b.h5"]


def test_every_command_reads_and_writes_a_packed_store(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.h5")
    ak.augment(store, "flip")
    ak.retract(store, "flip")
    ak.augment(store, "zoom")
    assert list(ak.open(tmp_path / "a.h5").snapshot().runs) == ["zoom"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def _augment(path: Path, seed: int) -> None:
    ak.augment(path, "zoom", seed=seed, workers=1)


@pytest.mark.seconds
@pytest.mark.parametrize("name", FORMS)
def test_two_writers_at_once_lose_nothing(tmp_path: Path, name: str) -> None:
    toy_store(tmp_path / name)
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(4) as pool:
        pool.starmap(_augment, [(tmp_path / name, seed) for seed in range(12)])
    snapshot = ak.open(tmp_path / name).snapshot()
    assert {r.recipe["seed"] for r in snapshot.runs.values()} == set(range(12))
    assert len(snapshot.runs) == 12
    assert ak.verify(ak.open(tmp_path / name)).sound


@pytest.mark.seconds
def test_the_same_run_by_two_writers_is_committed_once(tmp_path: Path) -> None:
    toy_store(tmp_path / "a.store")
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(4) as pool:
        pool.starmap(_augment, [(tmp_path / "a.store", 7)] * 8)
    assert list(ak.open(tmp_path / "a.store").snapshot().runs) == ["zoom"]


@pytest.mark.seconds
def test_the_pool_keeps_a_bounded_number_of_shards_open(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store", 10)
    for seed in range(40):
        ak.augment(store, "zoom", seed=seed, workers=1)
    snapshot = store.snapshot()
    total = sum(len(snapshot.inspect(run)[:]) for run in snapshot.runs)
    assert total == sum(r.rows for r in snapshot.runs.values())
    assert len(store._pool._open) == 32


def test_samples_can_be_sent_to_another_process(store: DatasetStore) -> None:
    samples = pickle.loads(pickle.dumps(store.snapshot().inspect()))
    assert np.array_equal(samples[:], images(60))


def test_a_flipped_bit_in_an_image_is_an_error_and_never_zeros(tmp_path: Path) -> None:
    toy_store(tmp_path / "a.store")
    (path,) = (tmp_path / "a.store" / "shards").glob("*.h5")
    with h5py.File(path) as file:
        offset = file["images"].id.get_chunk_info(17).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 5] ^= 1
    path.write_bytes(content)
    store = ak.open(tmp_path / "a.store")
    samples = store.snapshot().inspect()
    assert len(samples[:17]) == 17
    with pytest.raises(DamagedStore, match="damaged at row 17"):
        samples[:]
    (problem,) = ak.verify(store).problems
    assert problem.rows == (17,)
    assert "real images" in problem.where


def is_sound(path: Path) -> bool:
    """Return False also where the structure of a packed store is not fit to be opened."""
    try:
        return ak.verify(DatasetStore.open(path)).sound
    except DamagedStore:
        return False


@pytest.mark.seconds
@pytest.mark.parametrize("name", FORMS)
def test_verify_finds_a_flipped_byte_wherever_it_is(tmp_path: Path, name: str) -> None:
    store = toy_store(tmp_path / name, 5, shape=(16, 16, 1))
    ak.augment(store, "flip")
    store.close()
    rng = np.random.default_rng(1)
    files = [tmp_path / name] if name.endswith(".h5") else []
    files += [*(tmp_path / name).glob("shards/*"), *(tmp_path / name).glob("log/*")]
    for path in files:
        content = path.read_bytes()
        for position in rng.integers(0, len(content), 25).tolist():
            if name.endswith(".h5") and position < 512:
                continue  # the user block: its padding carries nothing
            changed = bytearray(content)
            changed[position] ^= 1 << int(rng.integers(8))
            path.write_bytes(changed)
            assert not is_sound(tmp_path / name), (path.name, position)
        path.write_bytes(content)
    assert ak.verify(DatasetStore.open(tmp_path / name)).sound


def test_a_shard_edited_by_hand_is_found(tmp_path: Path) -> None:
    toy_store(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        (shard,) = file["shards"].values()
        shard["labels"][0] = 2
    found = ak.verify(ak.open(tmp_path / "a.h5"))
    assert any("columns" in p.what for p in found.problems)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    toy_store(tmp_path / "a.store")
    (path,) = (tmp_path / "a.store" / "shards").glob("*.h5")
    path.unlink()
    found = ak.verify(ak.open(tmp_path / "a.store"))
    assert path.stem in found.problems[0].where
    with pytest.raises(DamagedStore, match=path.stem):
        ak.open(tmp_path / "a.store").snapshot().real  # noqa: B018


def test_a_lost_log_entry_is_an_error_not_a_shorter_store(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    ak.augment(store, "flip")
    ak.augment(store, "zoom")
    (tmp_path / "a.store/log/0000000002.json").unlink()
    with pytest.raises(DamagedStore, match="lost entry 2"):
        ak.open(tmp_path / "a.store").snapshot()


def test_a_changed_log_entry_is_an_error(tmp_path: Path) -> None:
    toy_store(tmp_path / "a.store")
    path = tmp_path / "a.store/log/0000000001.json"
    path.write_bytes(path.read_bytes().replace(b'"malignant"', b'"malignent"', 1))
    with pytest.raises(DamagedStore, match="entry 1 of the log is damaged"):
        ak.open(tmp_path / "a.store").snapshot()


def test_a_log_entry_taken_from_another_store_is_found(tmp_path: Path) -> None:
    for name, seed in (("a.store", 0), ("b.store", 1)):
        ak.augment(toy_store(tmp_path / name, seed=seed), "flip")
    stolen = (tmp_path / "b.store/log/0000000002.json").read_bytes()
    (tmp_path / "a.store/log/0000000002.json").write_bytes(stolen)
    found = ak.verify(ak.open(tmp_path / "a.store"))
    assert "does not follow" in found.problems[0].what


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    toy_store(tmp_path / "a.store")
    spec = tmp_path / "a.store/store.json"
    spec.write_text(spec.read_text().replace('"format":1', '"format":2'))
    with pytest.raises(FormatError, match="format version 2; this augkit reads version 1"):
        ak.open(tmp_path / "a.store")


def test_a_log_entry_of_another_version_is_refused(tmp_path: Path) -> None:
    toy_store(tmp_path / "a.store")
    path = tmp_path / "a.store/log/0000000001.json"
    entry = json.loads(path.read_bytes())
    entry.pop("digest")
    path.write_bytes(encode_entry({**entry, "format": 9}))
    with pytest.raises(FormatError, match="format version 9"):
        ak.open(tmp_path / "a.store").snapshot()


def test_opening_nothing_says_how_to_make_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound, match="augkit ingest FOLDER --store"):
        ak.open(tmp_path / "no.store")


def test_opening_something_else_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(b"not a store")
    with pytest.raises(FormatError, match=r"x\.h5 is no augkit store"):
        ak.open(tmp_path / "x.h5")


def test_create_does_not_touch_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("x")
    with pytest.raises(StoreError, match="exists already"):
        DatasetStore.create(tmp_path / "mine", height=8, width=8)
    assert tree(tmp_path) == {"mine/file": b"x"}


def test_the_store_that_is_meant_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUGKIT_STORE", raising=False)
    with pytest.raises(StoreNotFound, match="no store in"):
        locate(None, tmp_path)
    toy_store(tmp_path / "one.store")
    assert locate(None, tmp_path) == tmp_path / "one.store"
    assert locate(None, tmp_path / "one.store") == tmp_path / "one.store"
    toy_store(tmp_path / "two.h5")
    with pytest.raises(StoreNotFound, match=r"several stores.*one\.store, two\.h5"):
        locate(None, tmp_path)
    toy_store(tmp_path / "augkit.store")
    assert locate(None, tmp_path) == tmp_path / "augkit.store"
    monkeypatch.setenv("AUGKIT_STORE", str(tmp_path / "two.h5"))
    assert locate(None, tmp_path) == tmp_path / "two.h5"
    assert locate(tmp_path / "given") == tmp_path / "given"


def test_classes_of_several_data_sets_are_matched_by_name(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    names = labels(4, ("normal", "atypical", "benign"))
    keys = [f"{i}" for i in range(12)]
    ak.ingest_arrays(
        store, [images(12, seed=5)], names, keys=keys, dataset="second", find_relatives=False
    )
    snapshot = store.snapshot()
    assert snapshot.classes == ("benign", "malignant", "normal", "atypical")
    assert [snapshot.classes[i] for i in snapshot.real.labels[60:]] == names
    assert set(snapshot.real.datasets.tolist()) == {"toy", "second"}


def test_a_key_that_is_in_use_is_refused(store: DatasetStore) -> None:
    with pytest.raises(NameTaken, match="use other keys"):
        ak.ingest_arrays(store, [images(1)], ["benign"], keys=["benign/0.png"], dataset="toy")
    assert store.snapshot().number == 1


def test_blocks_of_another_shape_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    store = DatasetStore.create(tmp_path / "a.store", height=24, width=32)
    with pytest.raises(InputError, match="must be uint8"):
        ak.ingest_arrays(store, [images(4, shape=(24, 31, 1))], ["a"] * 4, keys=list("abcd"))
    assert list(tmp_path.iterdir()) == []


def test_ids_are_unique_in_a_store(store: DatasetStore) -> None:
    ak.augment(store, "flip")
    ak.augment(store, "zoom")
    ids = store.snapshot().training(HOLDOUT, ["flip", "zoom"]).ids
    assert len(set(ids.tolist())) == len(ids)


def test_a_retracted_run_is_gone_and_its_name_is_free(store: DatasetStore) -> None:
    ak.augment(store, "flip")
    ak.retract(store, "flip")
    assert store.snapshot().runs == {}
    assert ak.augment(store, "flip").made
    with pytest.raises(StoreError, match="no run 'flop'; its runs: flip"):
        ak.retract(store, "flop")


def test_a_full_or_read_only_disk_is_a_plain_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    store = DatasetStore.create(tmp_path / "file" / "a.store", height=24, width=32)
    with pytest.raises(StoreError, match="cannot write to"):
        ak.ingest_arrays(store, [images(4)], ["a"] * 4, keys=list("abcd"))


@pytest.mark.seconds
def test_a_store_written_block_by_block_needs_no_memory_for_its_images(tmp_path: Path) -> None:
    import tracemalloc

    toy_store(tmp_path / "warm.store", 2)  # imports what would be counted below
    store = DatasetStore.create(tmp_path / "a.store", height=96, width=96)
    n, block = 2048, 64
    tracemalloc.start()
    ak.ingest_arrays(
        store,
        (images(block, seed=i, shape=(96, 96, 1)) for i in range(n // block)),
        ["a", "b"] * (n // 2),
        keys=[str(i) for i in range(n)],
        find_relatives=False,
    )
    written = tracemalloc.get_traced_memory()[1]
    total = sum(int(b.sum()) for b in store.snapshot().inspect().blocks(block))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total > 0
    assert max(written, peak) < n * 96 * 96 / 3


def test_shape_is_what_was_asked_for(store: DatasetStore) -> None:
    assert store.shape == SHAPE
    assert DatasetStore.open(store.path).shape == SHAPE


def test_a_packed_store_behind_a_link_is_written_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    toy_store(tmp_path / "far" / "real.h5")
    (tmp_path / "link.h5").symlink_to(tmp_path / "far" / "real.h5")
    ak.augment(ak.open(tmp_path / "link.h5"), "flip")
    assert (tmp_path / "link.h5").is_symlink()
    assert list(ak.open(tmp_path / "far" / "real.h5").snapshot().runs) == ["flip"]


def test_a_folder_of_somebody_else_is_no_place_for_a_store(tmp_path: Path) -> None:
    for name in ("tmp/thesis.txt", "models/net.pt", "shards/notes.h5"):
        path = tmp_path / name.replace("/", "-") / name
        path.parent.mkdir(parents=True)
        path.write_text("mine")
        with pytest.raises(StoreError, match="exists already"):
            toy_store(tmp_path / name.replace("/", "-"))
        assert path.read_text() == "mine"


def test_files_of_others_in_tmp_are_left_alone(tmp_path: Path) -> None:
    import os

    store = toy_store(tmp_path / "a.store")
    mine = tmp_path / "a.store/tmp/notes.txt"
    mine.write_text("mine")
    os.utime(mine, (0, 0))
    ak.augment(store, "flip")
    assert mine.read_text() == "mine"


def test_a_store_that_was_replaced_is_not_written_to(tmp_path: Path) -> None:
    import shutil

    store = toy_store(tmp_path / "a.store")
    store.snapshot()
    shutil.rmtree(tmp_path / "a.store")
    toy_store(tmp_path / "a.store", seed=1)
    with pytest.raises(StoreError, match="was purged, or replaced by another store"):
        ak.augment(store, "flip")
    assert ak.open(tmp_path / "a.store").snapshot().runs == {}


def test_a_relative_path_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = toy_store(Path("a.store"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ak.augment(store, "flip")
    assert list(ak.open(tmp_path / "a.store").snapshot().runs) == ["flip"]


@pytest.mark.seconds
@pytest.mark.parametrize("name", FORMS)
def test_threads_may_share_a_store(tmp_path: Path, name: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    store = toy_store(tmp_path / name)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda s: ak.augment(store, "zoom", seed=s, workers=1), range(16)))
    assert all(result.made for result in made)
    assert len(ak.open(tmp_path / name).snapshot().runs) == 16
    assert ak.verify(ak.open(tmp_path / name)).sound


def ingest_masks(path: Path, masks: list[np.ndarray]) -> DatasetStore:
    store = DatasetStore.create(path, height=24, width=32)
    keys = list("abcd")
    ak.ingest_arrays(
        store, [images(4)], ["x", "x", "y", "y"], keys=keys, masks=masks, find_relatives=False
    )
    return store


def test_masks_may_be_of_truth_values(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).random((4, 24, 32)) > 0.5
    found, masked = (
        ingest_masks(tmp_path / "a.store", [truth]).snapshot().inspect().masks(slice(None))
    )
    assert masked.all()
    assert np.array_equal(found, np.where(truth, 255, 0))


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ([np.zeros((4, 8, 8), np.uint8)], "beside its images it is"),
        ([], "a block of masks is missing"),
        ([np.full((4, 24, 32), 3, np.uint8)], "0 and 255 only"),
    ],
)
def test_masks_of_another_kind_are_refused(
    tmp_path: Path, masks: list[np.ndarray], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        ingest_masks(tmp_path / "a.store", masks)
    assert not (tmp_path / "a.store").exists()
