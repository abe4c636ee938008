import csv
import json
from pathlib import Path

import numpy as np
import pytest
from toys import CLASSES, toy_store

import augkit as ak
from augkit.errors import InputError
from augkit.features import FeatureCache
from augkit.interfaces import ArraySamples
from augkit.store import DatasetStore
from augkit.summary import _detectable_difference, _size, summarise
from augkit.tables import counted, one_line, table, typed

ODD = ("$\\foo$", "two\nlines", '<b>"bold"</b>', "乳 腺", "\x1b[31mred", "a,b;c", "-", "100 %")


@pytest.fixture
def empty(tmp_path: Path) -> DatasetStore:
    """A store as it is when the first commit was killed after store.json was written."""
    store = toy_store(tmp_path / "toy.store")
    for path in [*(store.path / "log").iterdir(), *(store.path / "shards").iterdir()]:
        path.unlink()
    return DatasetStore.open(store.path)


def like_busi(path: Path) -> DatasetStore:
    """Return a store with as many images of each class as BUSI has, none with a relative."""
    store = DatasetStore.create(path, height=8, width=8)
    labels = ["benign"] * 437 + ["malignant"] * 210 + ["normal"] * 133
    pixels = np.random.default_rng(0).integers(0, 256, (780, 8, 8, 1), np.uint8)
    keys = [f"{i}.png" for i in range(780)]
    ak.ingest_arrays(store, [pixels], labels, keys=keys, find_relatives=False)
    return store


def test_the_smallest_detectable_difference_is_that_of_the_formula():
    assert _detectable_difference([66, 32, 20], 0.04) == pytest.approx(0.058, abs=0.0005)
    assert _detectable_difference([437, 210, 133], 0.04) == pytest.approx(0.0225, abs=0.0005)
    assert _detectable_difference([10, 10], 0.15) == pytest.approx(2.8 * (0.15 / 5) ** 0.5 / 2)


@pytest.mark.parametrize("counts", [[], [0, 5], [0.0, 0.0]])
def test_without_test_images_of_a_class_nothing_can_be_detected(counts):
    assert _detectable_difference(counts, 0.04) == 1


def test_on_a_store_like_busi_it_is_six_points_on_one_split_and_two_on_five_folds(tmp_path):
    shown = ak.info(like_busi(tmp_path / "busi.store"))
    found = shown.values["real"]["smallest_detectable"]
    assert found["70/15/15"] == pytest.approx((0.058, 0.112), abs=0.001)
    assert found["5 folds"] == pytest.approx((0.0225, 0.0436), abs=0.001)
    assert "to show: 2.3 to 4.4 points with 5 folds, 5.8 to 11.2 points with 70/15/15" in str(shown)


def test_an_empty_store_says_what_to_do_next(empty):
    shown = ak.info(empty)
    assert str(shown) == (
        f"{empty.path}: images of 32x24 grey, 0 commits\n\nno images yet: augkit ingest FOLDER"
    )
    assert json.loads(shown.to_json())["real"]["rows"] == 0


def test_a_store_without_runs_says_what_to_do_next(tmp_path):
    shown = str(ak.info(toy_store(tmp_path / "toy.store")))
    assert shown.startswith(f"{tmp_path}/toy.store: images of 32x24 grey, 1 commit\n")
    assert shown.endswith("no augmentation yet: augkit augment --plugin flip")
    assert "60 groups of images that stay together; 0 images with a mask; 0 came in colour" in shown


def test_counts_agree_with_each_other_and_with_the_table(tmp_path):
    store = toy_store(tmp_path / "toy.store", masks=True)
    shown = ak.info(store)
    real = shown.values["real"]
    assert sum(real["by_class"].values()) == sum(real["by_part"].values()) == real["rows"] == 60
    for part, count in real["by_part"].items():
        assert sum(real["by_part_and_class"][part].values()) == count
    assert (real["groups"], real["masks"], real["conflicts"]) == (60, 60, [])
    lines = [line.split() for line in str(shown).split("\n")]
    assert [
        "all",
        "60",
        *(str(real["by_part"][p]) for p in ("train", "validation", "test")),
    ] in lines


def test_runs_are_shown_with_their_options_as_they_are_typed(tmp_path):
    store = toy_store(tmp_path / "toy.store")
    ak.augment(store, "zoom", {"side_range": "0.8,0.9", "exact": "true"}, seed=7, n=2)
    ak.augment(store, "brightness+scale", {"brightness.gain_range": "0.9,1.1"})
    run, chain = ak.info(store).values["runs"]
    assert run == {
        "name": "zoom", "plugin": "zoom", "family": "traditional", "rows": 6,
        "by_class": dict.fromkeys(CLASSES, 2), "seed": 7,
        "options": {"zoom": {"side_range": [0.8, 0.9], "exact": True}},
        "model": None, "partition": "70/15/15", "stale": False, "note": "", "copies": None,
    }  # fmt: skip
    assert set(chain["options"]) == {"brightness", "scale"}
    shown = str(ak.info(store))
    assert "side_range=0.8,0.9" in shown and "exact=true" in shown
    assert "brightness.gain_range=0.9,1.1" in shown and "scale.exact=false" in shown


def test_a_retracted_run_is_not_shown(tmp_path):
    store = toy_store(tmp_path / "toy.store")
    ak.augment(store, "flip")
    ak.retract(store, "flip")
    assert ak.info(store).values["runs"] == []


@pytest.mark.parametrize(("name", "cache"), [("a.store", "a.store/cache"), ("a.h5", ".a.h5.cache")])
def test_the_feature_cache_is_shown_with_its_place_once_there_is_one(tmp_path, name, cache):
    store = toy_store(tmp_path / name)
    before = ak.info(store)
    assert before.values["cache"] == {"path": str(tmp_path / cache), "bytes": 0, "files": 0}
    assert "feature cache" not in str(before)
    samples = ArraySamples(np.zeros((300, 4, 4, 1), np.uint8), np.zeros(300, np.int64))
    FeatureCache(store.side_folder("cache"))("k", lambda x: x[:, 0, :, 0], samples)
    held = json.loads(ak.info(store).to_json())["cache"]
    assert held["files"] == 2 and 4800 < held["bytes"] < 6000
    last = str(ak.info(store)).split("\n")[-1]
    assert last == f"feature cache: 5 kB in 2 files, safe to delete: {tmp_path / cache}"


def test_odd_class_names_keep_the_table_in_shape(tmp_path):
    store = toy_store(tmp_path / "toy.store", classes=ODD)
    ak.augment(store, "flip")
    shown = ak.info(store)
    assert shown.values["classes"] == sorted(ODD)
    assert json.loads(shown.to_json())["real"]["by_class"] == dict.fromkeys(ODD, 20)
    body = str(shown).split("\n\n")[1].split("\n")
    assert len(body) == 2 + len(ODD) + 1
    assert all(line.isprintable() for line in str(shown).split("\n"))


def test_the_rows_come_as_csv_with_names_as_they_are(tmp_path):
    store = toy_store(tmp_path / "toy.store", classes=ODD)
    ak.info(store, rows=tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [r["class"] for r in rows] == [c for c in ODD for _ in range(20)]
    assert list(rows[0]) == ["key", "dataset", "class", "group", "fold", "part"]
    assert {r["part"] for r in rows} == {"train", "validation", "test"}
    snapshot = store.snapshot()
    assert [int(r["fold"]) for r in rows] == snapshot.real.folds.tolist()
    assert [r["key"] for r in rows] == snapshot.real.keys.tolist()


def test_rows_that_are_left_out_say_so(tmp_path):
    groups = ["shared" if i in (0, 20) else str(i) for i in range(60)]
    store = toy_store(tmp_path / "toy.store", groups=groups)
    shown = ak.info(store, rows=tmp_path / "rows.csv")
    assert len(shown.values["real"]["conflicts"]) == 2
    assert "2 images left out, with relatives of another class" in str(shown)
    lines = {line.split()[0]: line.split()[1:] for line in str(shown).split("\n") if line}
    assert lines["real"][-2:] == ["left", "out"]
    assert [lines[c][-1] for c in (*CLASSES, "all")] == ["1", "1", "0", "2"]
    assert (tmp_path / "rows.csv").read_text().count(",left out\n") == 2
    assert "so many are seldom wrong labels" not in str(shown)


def test_where_many_are_left_out_it_is_said_how_to_look_at_what_relates_them(tmp_path):
    groups = [str(i % 20) if i % 20 < 4 else str(i) for i in range(60)]
    store = toy_store(tmp_path / "toy.store", groups=groups)
    shown = ak.info(store)
    assert len(shown.values["real"]["conflicts"]) == 12
    assert "so many are seldom wrong labels: ingest SOURCE --review pairs.html" in str(shown)


def test_rows_that_cannot_be_written_are_a_plain_error(tmp_path):
    store = toy_store(tmp_path / "toy.store")
    with pytest.raises(InputError, match=r"cannot write .*rows\.csv: No such file or directory"):
        ak.info(store, rows=tmp_path / "nowhere" / "rows.csv")


def test_a_store_of_colour_says_so(tmp_path):
    store = toy_store(tmp_path / "toy.h5", shape=(16, 20, 3))
    shown = summarise(store.snapshot())
    assert shown.values["image"] == {"height": 16, "width": 20, "channels": 3}
    assert "toy.h5: images of 20x16 colour, 1 commit" in str(shown)


def test_numbers_stand_to_the_right_and_names_to_the_left():
    shown = table(["name", "images"], [["a", 5], ["bc", 1234]])
    assert shown.split("\n") == ["name  images", "----  ------", "a          5", "bc      1234"]


def test_counts_and_values_are_worded_for_people():
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [typed(v) for v in ([0.8, 1.2], False, None, "Words", 3)] == [
        "0.8,1.2", "false", "none", "Words", "3",
    ]  # fmt: skip
    assert [_size(n) for n in (3, 77_123, 76_810_561, 1_234_567_890)] == [
        "1 kB", "77 kB", "77 MB", "1.2 GB",
    ]  # fmt: skip
    assert one_line("a\nb\x1b") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
