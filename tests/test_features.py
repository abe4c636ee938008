import errno
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from toys import images, toy_store

import augkit as ak
from augkit.errors import OptionError, PluginFailed
from augkit.features import SEGMENT, FeatureCache, cache_size
from augkit.interfaces import ArraySamples
from augkit.making import make
from augkit.partitions import HOLDOUT, k_fold
from augkit.store import Snapshot, durable
from augkit.store.format import staged_name
from augkit.store.samples import JoinedSamples


class Counting:
    """Mean and spread of an image; counts the images it was shown."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.seen += len(images)
        flat = images.reshape(len(images), -1).astype(np.float32)
        return np.stack([flat.mean(1), flat.std(1)], 1)


def test_features_are_computed_once_for_each_image(tmp_path: Path) -> None:
    snapshot = toy_store(tmp_path / "a.store").snapshot()
    cache, count = FeatureCache(), Counting()
    everything = snapshot.inspect()
    expected = Counting()(everything[:])
    for partition in k_fold(5):
        for part in (snapshot.training, snapshot.validation, snapshot.test):
            samples = part(partition)
            rows = samples._rows.row
            assert np.array_equal(cache("k", count, samples), expected[rows])
    assert count.seen == 60


def test_another_key_is_another_feature(tmp_path: Path) -> None:
    samples = toy_store(tmp_path / "a.store").snapshot().inspect()
    cache, count = FeatureCache(), Counting()
    cache("k", count, samples)
    cache("other", count, samples)
    assert count.seen == 120


def test_joined_and_made_rows_keep_their_order(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    ak.augment(store, "flip")
    ak.augment(store, "zoom", n=30)
    snapshot = store.snapshot()
    partition = k_fold(5)[1]
    made = make(snapshot, snapshot.run("zoom"), partition)
    joined = JoinedSamples([snapshot.training(partition, ["flip"]), made])
    cache, count = FeatureCache(), Counting()
    assert np.allclose(cache("k", count, joined), Counting()(joined[:]))
    seen = count.seen
    assert np.allclose(cache("k", count, joined), Counting()(joined[:]))
    assert count.seen == seen
    cache.forget_unstored()
    cache("k", count, joined)
    assert count.seen == seen + len(made)


def test_features_of_no_images_are_empty(tmp_path: Path) -> None:
    snapshot = toy_store(tmp_path / "a.store").snapshot()
    none = snapshot.training(HOLDOUT).take(np.zeros(0, np.int64))
    assert len(FeatureCache()("k", Counting(), none)) == 0


def test_features_of_another_number_are_refused(tmp_path: Path) -> None:
    samples = toy_store(tmp_path / "a.store").snapshot().inspect()
    with pytest.raises(PluginFailed, match="features of 60 images have shape"):
        FeatureCache()("k", lambda images: np.zeros((1, 3), np.float32), samples)


def test_rows_are_gathered_in_any_order_from_every_kind_of_samples(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    ak.augment(store, "flip")
    ak.augment(store, "zoom")
    snapshot = store.snapshot()
    stored = snapshot.training(HOLDOUT, ["flip"])
    made = make(snapshot, snapshot.run("zoom"), k_fold(5)[1])
    both = JoinedSamples([snapshot.training(k_fold(5)[1]), made])
    held = ArraySamples(stored[:], stored.labels)
    for samples in (stored, made, both, held):
        everything = samples[:]
        rows = np.random.default_rng(0).integers(0, len(samples), 3 * len(samples))
        assert np.array_equal(samples.gather(rows), everything[rows])
        assert samples.gather(rows[:0]).shape == (0, *samples.shape)


def forbidden(images: np.ndarray) -> np.ndarray:
    raise AssertionError(f"{len(images)} images are computed again")


def held(n: int, seed: int = 0) -> ArraySamples:
    """Return n rows that are not stored, no two alike."""
    return ArraySamples(images(n, seed, (4, 4, 1)), np.zeros(n, np.int64))


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["a.store", "a.h5"])
def test_a_later_evaluation_finds_the_features_of_an_earlier_one(tmp_path: Path, name: str) -> None:
    store = toy_store(tmp_path / name)
    ak.augment(store, "flip")
    snapshot, folder = store.snapshot(), store.side_folder("cache")
    joined = JoinedSamples([snapshot.training(HOLDOUT, ["flip"]), held_like(snapshot)])
    expected = FeatureCache(folder)("k", Counting(), joined)
    assert np.allclose(expected, Counting()(joined[:]))
    assert np.array_equal(FeatureCache(folder)("k", forbidden, joined), expected)
    assert len(kept(folder)) == 3
    assert ak.verify(store).sound


def held_like(snapshot: Snapshot) -> ArraySamples:
    return ArraySamples(images(5, 1, snapshot.shape), np.zeros(5, np.int64))


def test_a_function_sees_no_row_that_was_not_asked_for(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    snapshot, folder = store.snapshot(), store.side_folder("cache")
    count, asked = Counting(), 0
    for part in (snapshot.validation, snapshot.training, snapshot.test):
        asked += len(part(HOLDOUT))
        FeatureCache(folder)("k", count, part(HOLDOUT))
        assert count.seen == asked
    assert len(kept(folder)) == 1
    everything = snapshot.inspect()
    assert np.allclose(FeatureCache(folder)("k", forbidden, everything), Counting()(everything[:]))


def test_a_row_asked_for_twice_is_computed_once() -> None:
    samples, count = held(6), Counting()
    twice = JoinedSamples([samples, samples])
    found = FeatureCache()("k", count, twice)
    assert count.seen == 6 and np.array_equal(found[:6], found[6:])


def test_rows_of_a_store_in_any_order_and_twice_get_their_own_features(tmp_path: Path) -> None:
    everything = toy_store(tmp_path / "a.store").snapshot().inspect()
    chosen = everything.take(np.array([7, 3, 59, 3, 0]))
    cache, count = FeatureCache(tmp_path / "cache"), Counting()
    assert np.allclose(cache("k", count, chosen), Counting()(chosen[:]))
    assert count.seen == 4


def test_changing_what_was_returned_does_not_change_the_cache() -> None:
    cache, samples = FeatureCache(), held(6)
    expected = Counting()(samples[:])
    cache("k", Counting(), samples)[:] = 0
    assert np.array_equal(cache("k", forbidden, samples), expected)


def test_other_keys_shards_and_digests_are_not_mixed_up(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    stores = [toy_store(tmp_path / f"{i}.store", seed=i).snapshot().inspect() for i in (0, 1)]
    wide = ArraySamples(images(6, 0, (2, 8, 1)), np.zeros(6, np.int64))
    high = ArraySamples(wide.images.reshape(6, 8, 2, 1), wide.targets)
    for samples in (*stores, held(6, 0), held(6, 1), wide, high):
        for key, shift in (("k", 0), ("other", 1)):
            found = FeatureCache(folder)(key, lambda x, s=shift: edges(x) + s, samples)
            assert np.array_equal(found, edges(samples[:]) + shift)
    assert len(kept(folder)) == 12


def edges(images: np.ndarray) -> np.ndarray:
    """Return features that depend on height and width as well."""
    return np.stack([images[:, 0].sum((1, 2)), images[:, :, 0].sum((1, 2))], 1).astype(np.float32)


def test_a_file_under_the_name_of_another_is_not_believed(tmp_path: Path) -> None:
    for key in ("a", "b"):
        FeatureCache(tmp_path)(key, lambda x, k=key: Counting()(x) + ord(k), held(6))
    first, second = kept(tmp_path)
    second.write_bytes(first.read_bytes())
    count = Counting()
    for key in ("a", "b"):
        FeatureCache(tmp_path)(key, count, held(6))
    assert count.seen == 6


def test_every_changed_byte_and_every_lost_end_is_noticed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    samples = held(3)
    expected = FeatureCache(tmp_path)("k", Counting(), samples)
    (path,) = kept(tmp_path)
    good = path.read_bytes()
    damaged = [good[:n] for n in range(len(good))] + [good + b"\0", b"foreign" * 99]
    for i in range(len(good)):
        damaged += [good[:i] + bytes([good[i] ^ bit]) + good[i + 1 :] for bit in (1 << i % 8, 0xFF)]
    for content in damaged:
        path.write_bytes(content)
        count = Counting()
        assert FeatureCache(tmp_path).missing("k", samples) == 3
        assert np.array_equal(FeatureCache(tmp_path)("k", count, samples), expected)
        assert count.seen == 3 and path.read_bytes() == good


def test_an_interruption_keeps_the_segments_before_it(tmp_path: Path) -> None:
    samples, count = held(2 * SEGMENT + 100), Counting()

    def interrupted(images: np.ndarray) -> np.ndarray:
        if count.seen == 2 * SEGMENT:
            raise KeyboardInterrupt
        return count(images)

    with pytest.raises(KeyboardInterrupt):
        FeatureCache(tmp_path)("k", interrupted, samples)
    assert FeatureCache(tmp_path).missing("k", samples) == 100
    again = Counting()
    assert np.array_equal(FeatureCache(tmp_path)("k", again, samples), Counting()(samples[:]))
    assert again.seen == 100


def test_deleting_the_folder_during_an_evaluation_does_no_harm(tmp_path: Path) -> None:
    folder, samples, count = tmp_path / "cache", held(3 * SEGMENT), Counting()

    def deleting(images: np.ndarray) -> np.ndarray:
        if count.seen == 2 * SEGMENT:
            shutil.rmtree(folder)
        return count(images)

    cache = FeatureCache(folder)
    expected = Counting()(samples[:])
    assert np.array_equal(cache("k", deleting, samples), expected)
    shutil.rmtree(folder)
    assert np.array_equal(cache("k", forbidden, samples), expected)
    assert FeatureCache(folder).missing("k", samples) == 3 * SEGMENT


def test_a_folder_deleted_under_the_pen_is_no_reason_to_warn(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(durable, "write_new", refusing(errno.ENOENT))
    FeatureCache(tmp_path)("k", Counting(), held(3))
    assert not caplog.records


def refusing(number: int):
    def refuse(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_disk_that_refuses_costs_one_warning(tmp_path, monkeypatch, caplog, number) -> None:
    samples = held(2 * SEGMENT)
    FeatureCache(tmp_path)("k", Counting(), samples)
    monkeypatch.setattr(durable, "write_new", refusing(number))
    monkeypatch.setattr(os, "utime", refusing(number))
    cache, expected = FeatureCache(tmp_path), Counting()(samples[:])
    assert np.array_equal(cache("k", forbidden, samples), expected)
    assert np.array_equal(cache("other", Counting(), samples), expected)
    assert np.array_equal(cache("other", forbidden, samples), expected)
    why = os.strerror(number)
    assert caplog.messages == [f"features are not kept for next time: {tmp_path}: {why}"]


def test_a_folder_that_cannot_be_made_costs_one_warning(tmp_path: Path, caplog) -> None:
    (tmp_path / "file").touch()
    cache = FeatureCache(tmp_path / "file" / "cache")
    assert np.array_equal(cache("k", Counting(), held(300)), Counting()(held(300)[:]))
    assert [m.split(":")[0] for m in caplog.messages] == ["features are not kept for next time"]


def test_several_threads_fill_one_cache_and_compute_nothing_twice(tmp_path: Path) -> None:
    samples, count = held(3 * SEGMENT), Counting()
    cache = FeatureCache(tmp_path)
    parts = [ArraySamples(samples.images[i:], samples.targets[i:]) for i in (0, 1, 0, 1, 0, 0)]
    with ThreadPoolExecutor(6) as pool:
        for part, found in zip(parts, pool.map(partial(cache, "k", count), parts), strict=True):
            assert np.array_equal(found, Counting()(part[:]))
    assert count.seen == 6 * SEGMENT - 1


def test_two_who_fill_different_rows_of_a_segment_keep_those_of_both(tmp_path: Path) -> None:
    snapshot = toy_store(tmp_path / "a.store").snapshot()
    one, other = FeatureCache(tmp_path / "cache"), FeatureCache(tmp_path / "cache")

    def meanwhile(images: np.ndarray) -> np.ndarray:
        other("k", Counting(), snapshot.validation(HOLDOUT))
        return Counting()(images)

    one("k", meanwhile, snapshot.training(HOLDOUT))
    missing = FeatureCache(tmp_path / "cache").missing("k", snapshot.inspect())
    assert missing == len(snapshot.test(HOLDOUT))


FILLING = """
import sys
import numpy as np
from test_features import Counting, held
from augkit.features import FeatureCache
from pathlib import Path
samples = held(2000)
for key in range(5):
    found = FeatureCache(Path(sys.argv[1]), limit=40_000)(f"{key}", Counting(), samples)
    assert np.array_equal(found, Counting()(samples[:]))
"""


def test_two_processes_that_fill_at_once_do_not_harm_each_other(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", FILLING, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    running = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in running:
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, "")
    assert {path.suffix for path in kept(tmp_path)} == {".features"}
    assert FeatureCache(tmp_path).missing("4", held(2000)) == 0


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    for age, key in enumerate("dcba"):
        FeatureCache(tmp_path)(key, Counting(), held(9))
        for path in kept(tmp_path):
            if path.stat().st_mtime > 1e9:
                os.utime(path, (1000 + age, 1000 + age))
    size, files = cache_size(tmp_path)
    assert files == 4
    FeatureCache(tmp_path)("d", forbidden, held(9))
    FeatureCache(tmp_path, limit=size)("e", Counting(), held(9))
    assert cache_size(tmp_path) == (size, 4)
    missing = {key: FeatureCache(tmp_path).missing(key, held(9)) for key in "abcde"}
    assert missing == {"a": 0, "b": 0, "c": 9, "d": 0, "e": 0}
    assert len(list(tmp_path.rglob("*"))) == 3 * 4


def test_the_folder_never_grows_beyond_its_limit(tmp_path: Path) -> None:
    cache, largest = FeatureCache(tmp_path, limit=10_000), 0
    for key in range(9):
        cache(f"{key}", Counting(), held(2 * SEGMENT))
        largest = max(largest, cache_size(tmp_path)[0])
    assert 7_000 < largest <= 10_000


def test_what_does_not_fit_is_not_kept_and_drives_nothing_out(tmp_path: Path, caplog) -> None:
    FeatureCache(tmp_path)("k", Counting(), held(9))
    size, _ = cache_size(tmp_path)
    FeatureCache(tmp_path, limit=size)("other", Counting(), held(99))
    assert cache_size(tmp_path) == (size, 1)
    FeatureCache(tmp_path, limit=0)("other", Counting(), held(99))
    assert cache_size(tmp_path) == (0, 0)
    assert not caplog.records


def test_remains_of_killed_writers_go_and_files_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"x" * 10_000)
    (tmp_path / staged_name(".tmp")).write_bytes(b"x" * 10_000)
    assert cache_size(tmp_path) == (10_000, 1)
    FeatureCache(tmp_path, limit=9_000)("k", Counting(), held(9))
    assert [path.suffix for path in kept(tmp_path)] == [".features", ".txt"]


@pytest.mark.parametrize("given", ["much", "nan", "inf", "-1"])
def test_a_limit_that_is_no_number_is_a_plain_error(tmp_path, monkeypatch, given) -> None:
    monkeypatch.setenv("AUGKIT_CACHE_LIMIT", given)
    with pytest.raises(OptionError, match=f"AUGKIT_CACHE_LIMIT is '{given}'; it must be a number"):
        FeatureCache(tmp_path)
    FeatureCache()("k", Counting(), held(3))


def test_the_limit_comes_in_gigabytes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AUGKIT_CACHE_LIMIT", "0.000005")
    for key in range(9):
        FeatureCache(tmp_path)(f"{key}", Counting(), held(99))
    assert 3_000 < cache_size(tmp_path)[0] <= 5_000


def test_missing_counts_each_image_once_and_computes_none(tmp_path: Path) -> None:
    snapshot = toy_store(tmp_path / "a.store").snapshot()
    train, everything = snapshot.training(HOLDOUT), snapshot.inspect()
    for cache in (FeatureCache(), FeatureCache(tmp_path / "cache")):
        assert cache.missing("k", JoinedSamples([train, everything, held_like(snapshot)])) == 65
        assert cache.missing("k", train.take(np.zeros(0, np.int64))) == 0
        cache("k", Counting(), train)
        assert cache.missing("k", everything) == 60 - len(train)
        assert cache.missing("other", everything) == 60
    later = FeatureCache(tmp_path / "cache")
    assert later.missing("k", everything) == 60 - len(train)
    assert not later._tables


def test_forgetting_rows_that_are_not_stored_forgets_them_in_memory_only(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    expected = cache("k", Counting(), held(9))
    cache.forget_unstored()
    assert not cache._tables
    assert np.array_equal(cache("k", forbidden, held(9)), expected)


def test_features_of_two_widths_under_one_key_are_refused(tmp_path: Path) -> None:
    FeatureCache(tmp_path)("k", Counting(), held(9))
    with pytest.raises(PluginFailed, match="under the key 'k' have 1 columns and 2 columns"):
        FeatureCache(tmp_path)(
            "k", lambda x: Counting()(x)[:, :1], JoinedSamples([held(9), held(3, 1)])
        )


def test_numbers_that_are_not_finite_and_features_of_no_columns_are_kept(tmp_path: Path) -> None:
    odd = np.array([[np.nan, np.inf], [-np.inf, 0]], np.float32)
    FeatureCache(tmp_path)("odd", lambda x: odd, held(2))
    assert np.array_equal(FeatureCache(tmp_path)("odd", forbidden, held(2)), odd, equal_nan=True)
    FeatureCache(tmp_path)("none", lambda x: np.zeros((len(x), 0)), held(2))
    assert FeatureCache(tmp_path)("none", forbidden, held(2)).shape == (2, 0)


def test_a_cache_arrives_in_another_process_empty_and_on_the_same_folder(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, limit=5_000)
    cache("k", Counting(), held(9))
    arrived = pickle.loads(pickle.dumps(cache))
    assert (arrived.folder, arrived.limit, arrived._tables) == (tmp_path, 5_000, {})
    arrived("k", forbidden, held(9))


def test_few_rows_of_each_of_many_segments_are_computed_together(tmp_path: Path) -> None:
    """A network computes whole blocks: a row of each segment by itself would cost a block each."""
    n = 10 * SEGMENT
    store = ak.DatasetStore.create(tmp_path / "a.store", height=4, width=4)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, 4, 4, 1), np.uint8)
    keys = [f"{i:05}.png" for i in range(n)]
    ak.ingest_arrays(store, [pixels], ["a"] * n, keys=keys, find_relatives=False)
    samples = store.snapshot().inspect().take(np.arange(0, n, SEGMENT // 40))
    shown: list[int] = []

    def mean(images: np.ndarray) -> np.ndarray:
        shown.append(len(images))
        return images.reshape(len(images), -1).mean(1, keepdims=True)

    folder = tmp_path / "cache"
    found = FeatureCache(folder)("k", mean, samples)
    assert np.allclose(found[:, 0], samples[:].reshape(len(samples), -1).mean(1))
    assert sum(shown) == len(samples) and len(shown) == -(-len(samples) // 64)
    assert cache_size(folder)[1] == 10
    assert np.array_equal(FeatureCache(folder)("k", None, samples), found)  # type: ignore[arg-type]
