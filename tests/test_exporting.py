"""Exports, read back by the libraries that they are for: the same pixels, labels and histories."""

import csv
import errno
import gc
import json
import os
import re
import runpy
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import command, works
from leaks import part, plant
from PIL import Image
from toys import CLASSES, images, toy_store, tree

import augkit as ak
from augkit.errors import AugkitError, InputError, LineageError, StoreError
from augkit.layouts import LAYOUTS, distinct, safe
from augkit.partitions import HOLDOUT, k_fold
from augkit.store import DatasetStore, Snapshot
from augkit.store.format import staged_name
from augkit.store.samples import StoredSamples

DOCUMENT = Path(__file__).parents[1] / "docs" / "export.md"
FORMATS = sorted(LAYOUTS)
PARTS = ("train", "validation", "test")
RUNS = ("flip", "zoom")

others_warn = pytest.mark.filterwarnings("ignore")
"""For tests that import libraries of others, whose warnings are not ours."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DatasetStore:
    """Sixty real images, and two runs."""
    made = toy_store(tmp_path_factory.mktemp("grey") / "toy.store")
    for run in RUNS:
        ak.augment(made, run)
    return made


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> DatasetStore:
    return toy_store(tmp_path_factory.mktemp("colour") / "toy.h5", 7, shape=(24, 32, 3))


Found = list[tuple[np.ndarray, int, dict[str, str]]]
"""Pixels (H, W) or (H, W, 3), label, and the line of metadata.csv of each image."""


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_imagefolder(folder: Path, name: str) -> Found:
    from torchvision.datasets import ImageFolder

    about = {folder / row["file_name"]: row for row in lines(folder / "metadata.csv")}
    found = ImageFolder(str(folder / name), loader=lambda path: (path, np.array(Image.open(path))))
    assert found.classes == sorted(CLASSES)
    return [(pixels, label, about[Path(path)]) for (path, pixels), label in found]


def read_huggingface(folder: Path, name: str) -> Found:
    return [
        (np.array(Image.open(folder / name / row["file_name"])), int(row["label"]), row)
        for row in lines(folder / name / "metadata.csv")
    ]


def read_webdataset(folder: Path, name: str) -> Found:
    about = {row["id"]: row for row in lines(folder / "metadata.csv")}
    found, samples = [], {}
    for path in sorted(folder.glob(f"{name}-*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                stem, _, kind = member.name.partition(".")
                samples.setdefault(stem, {})[kind] = tar.extractfile(member)
                if kind == "png":
                    pixels = np.array(Image.open(samples[stem]["png"]))
                    beside = json.load(samples[stem]["json"])
                    line = {**beside, "params": json.dumps(beside["params"])}
                    assert {k: str(v) for k, v in line.items()} | {"file_name": path.name} == about[
                        stem
                    ]
                    found.append((pixels, int(samples[stem]["cls"].read()), about[stem]))
    return found


def read_npz(folder: Path, name: str) -> Found:
    short = {"validation": "val"}.get(name, name)
    with np.load(folder / "data.npz") as arrays:
        assert arrays["classes"].tolist() == [*CLASSES]
        pixels, labels = arrays[f"{short}_images"], arrays[f"{short}_labels"]
    about = [row for row in lines(folder / "metadata.csv") if name in (row["part"], "mixed")]
    assert labels.shape == (len(about), 1)
    return list(zip(pixels, labels[:, 0].tolist(), about, strict=True))


READERS: dict[str, Callable[[Path, str], Found]] = {
    "imagefolder": read_imagefolder,
    "huggingface": read_huggingface,
    "webdataset": read_webdataset,
    "npz": read_npz,
}


def assert_same(snapshot: Snapshot, found: Found, name: str, runs: tuple[str, ...] = ()) -> None:
    """Hold what was read back against the store: every row once, and nothing else."""
    real = snapshot.real
    wanted = {("real", row) for row in part(snapshot, PARTS.index(name))}
    for run in runs:
        wanted |= {(run, row) for row in range(snapshot.run(run).rows)}
    assert sorted((row["run"], int(row["row"])) for _, _, row in found) == sorted(wanted)
    for pixels, label, row in found:
        number, run = int(row["row"]), row["run"]
        rows = snapshot.inspect() if run == "real" else snapshot.inspect(run)
        parent = number if run == "real" else int(snapshot.parents(run)[number])
        np.testing.assert_array_equal(np.atleast_3d(pixels), rows[number : number + 1][0])
        assert label == int(row["label"]) == rows.labels[number]
        assert row["class"] == snapshot.classes[label]
        assert (row["part"], row["key"]) == (name, real.keys[parent])
        assert row["source_sha256"] == real.sha256[parent]
        assert (int(row["group"]), int(row["fold"])) == (real.groups[parent], real.folds[parent])


# What is written comes back


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_gives_back_pixels_labels_and_histories(store, tmp_path, format):
    snapshot = store.snapshot()
    done = ak.export(store, tmp_path / "out", format, arms=["traditional"], parts=PARTS)
    for name in PARTS:
        runs = RUNS if name == "train" else ()
        found = READERS[format](tmp_path / "out", name)
        assert_same(snapshot, found, name, runs)
        assert sum(sum(n.values()) for n in done.values["rows"][name].values()) == len(found)
    assert not list(tmp_path.glob(".*")), "nothing is left beside it"


@pytest.mark.parametrize("format", FORMATS)
def test_colour_comes_back_from_a_packed_store(colour, tmp_path, format):
    ak.export(colour, tmp_path / "out", format)
    found = READERS[format](tmp_path / "out", "train")
    assert {pixels.shape for pixels, _, _ in found} == {(24, 32, 3)}
    assert_same(colour.snapshot(), found, "train")


@pytest.mark.parametrize("format", FORMATS)
def test_equal_exports_are_equal_byte_by_byte(store, tmp_path, format):
    for name in ("a", "b"):
        ak.export(store, tmp_path / name, format, arms=["all"], shard_bytes=50_000)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_what_was_drawn_stands_beside_each_augmented_image(store, tmp_path):
    ak.export(store, tmp_path / "out", arms=["zoom"])
    drawn = store.snapshot().params("zoom")
    found = [row for row in lines(tmp_path / "out/metadata.csv") if row["run"] == "zoom"]
    assert len(found) == len(drawn)
    for row in found:
        params = drawn[int(row["row"])]
        assert json.loads(row["params"]) == {n: params[n].tolist() for n in drawn.dtype.names}
        assert (row["plugin"], row["seed"], row["model"]) == ("zoom", "0", "-")


def test_no_cell_is_empty_and_a_column_keeps_its_type(store, tmp_path):
    ak.export(store, tmp_path / "out", "huggingface", arms=["all"], parts=PARTS)
    kinds = []
    for name in PARTS:
        rows = lines(tmp_path / "out" / name / "metadata.csv")
        assert all(value for row in rows for value in row.values())
        whole = re.compile(r"-?\d+")
        kinds.append({key: all(whole.fullmatch(row[key]) for row in rows) for key in rows[0]})
    assert kinds[0] == kinds[1] == kinds[2]
    assert {key for key, number in kinds[0].items() if number} == {
        *("label", "row", "group", "fold", "seed")
    }


def test_generated_rows_name_their_model_and_no_parent(tmp_path):
    store = toy_store(tmp_path / "toy.store", 7)
    train = part(store.snapshot(), 0)
    drawn = np.zeros(
        2, [("latent", np.float32, 2), ("pair", [("a", np.int8), ("b", np.complex64)])]
    )
    drawn["latent"][1] = (0.5, np.nan)
    columns = {"parent": np.full(2, -1), "params": drawn}
    plant(store, "gan", train[:2], fitted_on=train, family="generative", columns=columns)
    ak.export(store, tmp_path / "out", arms=["gan"])
    first, second = [r for r in lines(tmp_path / "out/metadata.csv") if r["run"] == "gan"]
    assert (first["key"], first["dataset"], first["source_sha256"]) == ("-", "-", "-")
    assert (first["group"], first["fold"], first["id"]) == ("-1", "-1", "gan__000000")
    assert json.loads(second["params"]) == {
        "latent": [0.5, "NaN"],
        "pair": {"a": 0, "b": [0.0, 0.0]},
    }


def test_export_json_says_what_the_whole_is(store, tmp_path):
    done = ak.export(store, tmp_path / "out", arms=["flip"], parts=["train", "test"])
    written = json.loads((tmp_path / "out/export.json").read_text())
    assert written == done.values and json.loads(done.to_json()) == {
        "path": str(tmp_path / "out"),
        **written,
    }
    assert [each["name"] for each in written["classes"]] == [*CLASSES]
    assert written["runs"]["flip"] == store.snapshot().run("flip").recipe
    assert (written["format"], written["partition"]) == ("imagefolder", "70/15/15")
    assert written["rows"]["train"]["flip"] == written["rows"]["train"]["real"]


# Parts


def test_only_the_training_part_is_written_unless_others_are_named(store, tmp_path):
    ak.export(store, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("train", "metadata.csv", "export.json")
    }


@pytest.mark.parametrize("format", FORMATS)
def test_parts_are_mixed_only_where_that_is_said(store, tmp_path, format):
    ak.export(store, tmp_path / "out", format, parts=PARTS, mix_parts=True)
    places = {path.name for path in (tmp_path / "out").iterdir()}
    assert not places & set(PARTS)
    if format == "npz":
        with np.load(tmp_path / "out/data.npz") as arrays:
            assert {*arrays} == {"classes", "mixed_images", "mixed_labels"}
            assert len(arrays["mixed_images"]) == 60
    else:
        found = READERS[format](tmp_path / "out", "mixed")
        for name in PARTS:
            assert_same(store.snapshot(), [f for f in found if f[2]["part"] == name], name)


def test_every_part_has_the_folders_of_all_classes_so_that_numbers_agree(tmp_path):
    groups = [str(i) for i in range(14)] + ["one"] * 4 + ["two"] * 3  # normal: two patients
    store = toy_store(tmp_path / "toy.store", 7, groups=groups)
    ak.export(store, tmp_path / "out", parts=PARTS)
    there = {(row["part"], row["class"]) for row in lines(tmp_path / "out/metadata.csv")}
    assert len({part for part, label in there if label == "normal"}) == 2
    for name in PARTS:
        assert {path.name for path in (tmp_path / "out" / name).iterdir()} == set(CLASSES)


# Lineage


@pytest.mark.parametrize("format", FORMATS)
def test_a_row_made_from_a_test_image_is_left_out_and_that_is_said(tmp_path, format, caplog):
    store = toy_store(tmp_path / "toy.store", 7)
    snapshot = store.snapshot()
    train, test = part(snapshot, 0), part(snapshot, 2)
    plant(store, "leaky", [train[0], test[0], train[1]])
    done = ak.export(store, tmp_path / "out", format, arms=["leaky"], parts=PARTS)
    found = [f for name in PARTS for f in READERS[format](tmp_path / "out", name)]
    assert sorted(int(row["row"]) for _, _, row in found if row["run"] == "leaky") == [0, 2]
    leaked = store.snapshot().inspect("leaky")[1:2][0]
    assert not any(np.array_equal(np.atleast_3d(pixels), leaked) for pixels, _, _ in found)
    assert done.values["left_out"] == {"leaky": 1}
    assert "1 rows of run 'leaky' may not be trained on under 70/15/15 and are left out" in (
        caplog.text
    )


def test_a_fold_takes_only_rows_whose_parents_it_trains_on(store, tmp_path):
    fold = k_fold(5)[1]
    done = ak.export(store, tmp_path / "out", arms=["flip"], parts=PARTS, folds=5, fold=2)
    snapshot = store.snapshot()
    keys = {name: set(snapshot.real.keys[part(snapshot, i, fold)]) for i, name in enumerate(PARTS)}
    rows = lines(tmp_path / "out/metadata.csv")
    assert {row["key"] for row in rows if row["run"] == "flip"} < keys["train"]
    for name in PARTS:
        assert {r["key"] for r in rows if (r["part"], r["run"]) == (name, "real")} == keys[name]
    assert done.values["left_out"]["flip"] > 0


def test_an_arm_of_which_nothing_may_be_trained_on_is_refused(tmp_path):
    store = toy_store(tmp_path / "toy.store", 7)
    train, test = part(store.snapshot(), 0), part(store.snapshot(), 2)
    plant(store, "gan", train[:2], fitted_on=train, family="generative")
    plant(store, "bad", test[:1])
    with pytest.raises(LineageError, match=r"no row of 'bad' .* under 70/15/15: .* augment again"):
        ak.export(store, tmp_path / "out", arms=["bad"])
    with pytest.raises(LineageError, match=r"'gan' .* fold 1 of 5: it was made for 70/15/15"):
        ak.export(store, tmp_path / "out", arms=["gan"], folds=5, fold=1)
    assert {path.name for path in tmp_path.iterdir()} == {"toy.store"}


def test_another_data_set_can_be_held_out(store, tmp_path):
    two = toy_store(tmp_path / "two.store", 7)
    keys = [str(i) for i in range(9)]
    labels = [CLASSES[i % 3] for i in range(9)]
    ak.ingest_arrays(two, [images(9, 5)], labels, keys=keys, dataset="other", find_relatives=False)
    done = ak.export(two, tmp_path / "out", parts=PARTS, test_on="other")
    assert done.values["partition"] == "tested on other"
    datasets = {name: set() for name in PARTS}
    for row in lines(tmp_path / "out/metadata.csv"):
        datasets[row["part"]].add(row["dataset"])
    assert datasets == {"train": {"toy"}, "validation": {"toy"}, "test": {"other"}}
    ak.export(two, tmp_path / "only", datasets=["other"])
    assert {row["dataset"] for row in lines(tmp_path / "only/metadata.csv")} == {"other"}


# Names that mean harm


HOSTILE = [
    *("../../../evil", "/etc/passwd", "a b", "a_b", "a__b", "A_B", "..", ".", "-rf", "~", "$(x)"),
    *(
        "x" * 300,
        "é" * 200,
        "乳腺/影像.png",
        "nul",
        "line\nbreak",
        "=1+1",
        "\u202egnp.exe",
        "\\..\\x",
    ),
    *("😀", "tab\t.png.exe", "a.b.c", "C:\\x", "CON.png"),
]


@pytest.mark.parametrize("format", FORMATS)
def test_no_key_and_no_class_leads_out_of_the_folder(tmp_path, format):
    inside = tmp_path / "inside"
    inside.mkdir()
    store = DatasetStore.create(inside / "toy.store", height=24, width=32)
    pixels = images(20 * len(HOSTILE))
    keys = [f"{hostile}{'' if i < len(HOSTILE) else i}" for i, hostile in enumerate(HOSTILE * 20)]
    classes = [HOSTILE[i // 20] for i in range(len(keys))]
    ak.ingest_arrays(store, [pixels], classes, keys=keys, find_relatives=False)
    before = tree(tmp_path)
    ak.export(store, inside / "out", format, parts=PARTS)
    written = {name: content for name, content in tree(tmp_path).items() if name not in before}
    assert all(name.startswith("inside/out/") for name in written)
    assert {n: c for n, c in tree(tmp_path).items() if n in before} == before
    names = [name for name in written if name.endswith(".png")]
    rows = [row for path in (inside / "out").rglob("metadata.csv") for row in lines(path)]
    assert len({row["id"].casefold() for row in rows}) == len(rows) == len(keys)
    assert {row["key"] for row in rows} == {f"arrays/{key}" for key in keys}
    assert not names or len({name.casefold() for name in names}) == len(keys)
    if format == "webdataset":
        for path in (inside / "out").glob("*.tar"):
            with tarfile.open(path) as tar:
                names += tar.getnames()
        assert len(names) == 3 * len(keys)
    for name in names:
        for word in Path(name.removeprefix("inside/")).parts:
            assert re.fullmatch(r"[\w\u0300-\u036f-]+(\.png|\.json|\.cls)?", word), word
            assert len(word.encode()) <= 255 and word.split(".")[0].casefold() != "con"


def test_names_that_become_alike_stay_apart():
    assert distinct(["a b", "a_b", "A/B", "a b-2"]) == ["a_b", "a_b-2", "A_B-3", "a_b-2-2"]
    assert distinct(["..", "/", "nul", "x" * 99]) == ["unnamed", "unnamed-2", "nul-2", "x" * 60]


def test_what_can_be_read_of_a_name_is_kept():
    assert safe("benign (12)") == "benign_12"
    assert safe("乳腺 影像") == "乳腺_影像"
    assert safe("e\u0301") == "\u00e9"
    assert len(safe("é" * 99).encode()) == 60


# Blocks, shards, and whole or nothing


@pytest.mark.parametrize("format", FORMATS)
def test_no_more_than_a_block_is_read_at_once(store, tmp_path, format, monkeypatch):
    monkeypatch.setattr("augkit.exporting.BLOCK_BYTES", 10 * 24 * 32 + 5)
    read, gather = [], StoredSamples.gather

    def counted(self, rows):
        read.append(len(rows))
        return gather(self, rows)

    monkeypatch.setattr(StoredSamples, "gather", counted)
    done = []
    ak.export(
        store,
        tmp_path / "out",
        format,
        arms=["all"],
        parts=PARTS,
        progress=lambda stage, n, total, note="": done.append((stage, n, total)),
    )
    assert 1 < max(read) <= 10 and sum(read) == done[-1][1] == done[-1][2]
    assert done == sorted(done) and {stage for stage, _, _ in done} == {"export"}
    assert_same(store.snapshot(), READERS[format](tmp_path / "out", "train"), "train", RUNS)


@pytest.mark.seconds
@pytest.mark.parametrize("format", ["npz", "webdataset"])
def test_what_is_kept_in_memory_does_not_grow_with_the_images(tmp_path, format, monkeypatch):
    import tracemalloc

    monkeypatch.setattr("augkit.exporting.BLOCK_BYTES", 2**16)
    store = toy_store(tmp_path / "toy.store", 200, shape=(96, 128, 1))
    (snapshot := store.snapshot()).training(HOLDOUT)
    size = sum(snapshot.parts(HOLDOUT) == 0) * 96 * 128
    ak.export(toy_store(tmp_path / "small.store", 7), tmp_path / "small", format)  # imports
    tracemalloc.start()
    ak.export(store, tmp_path / "out", format)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 5_000_000 and peak < size / 3


def test_tar_files_keep_within_their_size(store, tmp_path):
    ak.export(store, tmp_path / "out", "webdataset", arms=["all"], shard_bytes=40_000)
    sizes = [path.stat().st_size for path in (tmp_path / "out").glob("*.tar")]
    assert len(sizes) > 3 and max(sizes) <= 40_000
    assert_same(store.snapshot(), read_webdataset(tmp_path / "out", "train"), "train", RUNS)
    ak.export(store, tmp_path / "tiny", "webdataset", shard_bytes=1)
    for path in (tmp_path / "tiny").glob("*.tar"):
        with tarfile.open(path) as tar:
            assert len(tar.getnames()) == 3, "an image that is larger has a file of its own"


def test_tar_files_say_nothing_of_who_made_them_and_when(store, tmp_path):
    ak.export(store, tmp_path / "out", "webdataset")
    with tarfile.open(tmp_path / "out/train-000000.tar") as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    assert [m.name.partition(".")[2] for m in members[:3]] == ["cls", "json", "png"]


def test_tar_files_have_the_classes_mixed(store, tmp_path):
    ak.export(store, tmp_path / "out", "webdataset")
    labels = [label for _, label, _ in read_webdataset(tmp_path / "out", "train")]
    assert len(set(labels[:10])) == 3


def test_the_archive_of_arrays_has_no_time_in_it(store, tmp_path):
    ak.export(store, tmp_path / "out", "npz")
    with zipfile.ZipFile(tmp_path / "out/data.npz") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.testzip() is None


def png_in(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def mask_in(folder: Path, format: str, index: int, line: dict[str, str]) -> np.ndarray:
    """Return the mask that an export holds for the image of a line of metadata.csv."""
    name = line["mask_file_name"]
    if format == "imagefolder":
        return png_in(folder / name)
    if format == "huggingface":
        return png_in(folder / "train" / name)
    if format == "npz":
        return np.load(folder / name)["train_masks"][index]
    with tarfile.open(folder / name) as tar:
        return np.array(Image.open(tar.extractfile(f"{line['id']}.mask.png")))


@pytest.mark.parametrize("format", FORMATS)
def test_masks_come_back_as_they_are(tmp_path, format, monkeypatch):
    monkeypatch.setattr("augkit.exporting.BLOCK_BYTES", 10 * 24 * 32)
    masked = toy_store(tmp_path / "masked.store", 7, masks=True)
    ak.augment(masked, "zoom")
    ak.export(masked, tmp_path / "out", format, arms=["all"], masks=True)
    snapshot = masked.snapshot()
    real, _ = snapshot.inspect().masks(slice(None))
    made, _ = snapshot.inspect("zoom").masks(slice(None))
    place = tmp_path / "out" / ("train" if format == "huggingface" else "")
    found = lines(place / "metadata.csv")
    assert {line["run"] for line in found} == {"real", "zoom"}
    for index, line in enumerate(found):
        expected = (real if line["run"] == "real" else made)[int(line["row"])]
        np.testing.assert_array_equal(mask_in(tmp_path / "out", format, index, line), expected)
        assert line["masked"] == "1"


def test_where_there_is_no_mask_it_is_black_and_said_so(store, tmp_path, caplog):
    ak.export(store, tmp_path / "out", masks=True)
    assert "has a mask: all that are written are black" in caplog.text
    found = lines(tmp_path / "out" / "metadata.csv")
    assert {line["masked"] for line in found} == {"0"}
    assert not any(png_in(tmp_path / "out" / line["mask_file_name"]).any() for line in found)


def test_without_the_flag_there_are_no_masks(tmp_path):
    ak.export(toy_store(tmp_path / "masked.store", 7, masks=True), tmp_path / "out")
    assert not (tmp_path / "out" / "masks").exists()
    assert "masked" not in lines(tmp_path / "out" / "metadata.csv")[0]


@pytest.mark.seconds
@others_warn
def test_hugging_face_reads_masks_as_images(tmp_path, hugging_face):
    store = toy_store(tmp_path / "a.store", 7, masks=True)
    ak.export(store, tmp_path / "out", "huggingface", masks=True)
    found = hugging_face.load_dataset("imagefolder", data_dir=str(tmp_path / "out"))["train"]
    by_row = lines(tmp_path / "out" / "train" / "metadata.csv")
    assert len(found) == len(by_row)
    for example in found:
        line = by_row[[row["id"] for row in by_row].index(example["id"])]
        mask = png_in(tmp_path / "out" / "train" / line["mask_file_name"])
        np.testing.assert_array_equal(np.array(example["mask"]), mask)


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_that_fails_leaves_nothing(store, tmp_path, format, monkeypatch):
    monkeypatch.setattr("augkit.exporting.BLOCK_BYTES", 10 * 24 * 32)
    add = LAYOUTS[format].add

    def full(self, images, rows, masks=None):
        if len(list(tmp_path.rglob("*.png"))) >= 10 or format in ("npz", "webdataset"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return add(self, images, rows, masks)

    monkeypatch.setattr(LAYOUTS[format], "add", full)
    with pytest.raises(StoreError, match=r"cannot write to .*out: No space left on device"):
        ak.export(store, tmp_path / "out", format)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_removed_by_the_next(store, tmp_path):
    name = "import sys; from augkit.store.format import staged_name; print(staged_name('.export'))"
    gone = subprocess.run([sys.executable, "-c", name], capture_output=True, text=True, check=True)
    for left in (gone.stdout.strip(), staged_name(".export")):
        (tmp_path / f".out~{left}").mkdir()
    ak.export(store, tmp_path / "out")
    assert not (tmp_path / f".out~{gone.stdout.strip()}").exists()
    assert (tmp_path / f".out~{left}").exists(), "that of a process that still works stays"


# What a user can get wrong


WRONG = [
    ({"format": "zip"}, "there is no format 'zip'; there are: imagefolder, huggingface, webdat"),
    ({"arms": ["flop"]}, "there is no arm 'flop'; there are: real, traditional, all, flip, zoom"),
    ({"arms": ["balanced"]}, "balanced repeats real images; take real, and repeat them yourself"),
    ({"arms": "flip"}, r"arms is text; give a list of names, such as \['flip'\]"),
    ({"parts": "test"}, r"parts is text; give a list of names, such as \['test'\]"),
    ({"parts": ["val"]}, "there is no part 'val'; there are: train, validation, test"),
    ({"parts": []}, "no part is named; there are: train, validation, test"),
    (
        {"parts": ["validation", "test"], "arms": ["flip"]},
        "rows of runs belong to the training part alone: leave --arms out for validation and test",
    ),
    ({"split": "70/30"}, "split '70/30' is not three percentages in steps of 5"),
    ({"split": "70/15/15", "folds": 5}, "give --split or --folds, not both"),
    ({"folds": 3, "fold": 1}, "folds is 3; it must be one of: 2, 4, 5, 10, 20"),
    ({"folds": 5}, "which of the 5 folds. Give --fold, 1 to 5"),
    ({"folds": 5, "fold": 0}, "fold is 0; it must be 1 to 5"),
    ({"folds": 5, "fold": 6}, "fold is 6; it must be 1 to 5"),
    ({"folds": 5, "fold": "2"}, "fold is '2'; it must be a whole number"),
    ({"fold": 1}, "fold 1 of how many. Give --folds as well"),
    ({"datasets": ["busi"]}, "there is no data set 'busi'; there are: toy"),
    ({"datasets": "toy"}, "datasets is text; give a list of names"),
    ({"test_on": "busi"}, "there is no data set 'busi'; there are: toy"),
    ({"test_on": "toy", "split": "70/15/15"}, "takes all of it: no --split, no --folds"),
    ({"test_on": "toy", "datasets": ["x"]}, "toy is to be tested on and is not among the data"),
    ({"test_on": "toy"}, "the train part is empty under tested on toy"),
    ({"shard_bytes": 0}, "shard_bytes is 0; it must be at least 1"),
    ({"shard_bytes": "1 MB"}, "shard_bytes is '1 MB'; it must be a whole number"),
]


@pytest.mark.parametrize(("flags", "said"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_what_makes_no_sense_is_one_plain_error_and_writes_nothing(store, tmp_path, flags, said):
    with pytest.raises(AugkitError, match=said) as caught:
        ak.export(store, tmp_path / "out", **flags)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_not_touched(store, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("out", "link", "."):
        with pytest.raises(InputError, match="exists already: choose another name, or remove it"):
            ak.export(store, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "out"]


def test_a_folder_in_no_folder_is_refused(store, tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*out: there is no folder .*none"):
        ak.export(store, tmp_path / "none" / "out")


def test_a_store_without_images_has_nothing_to_export(tmp_path):
    empty = DatasetStore.create(tmp_path / "empty.store", height=24, width=32)
    with pytest.raises(StoreError, match="holds no images yet: augkit ingest FOLDER"):
        ak.export(empty, tmp_path / "out")


# On the command line


def test_the_command_says_what_it_wrote(store, tmp_path):
    line = ("export", "out", "--store", store.path, "--parts", "train,test")
    said = works(*line, cwd=tmp_path)
    assert said.err == ""
    head, _, *rows, _, hint = said.out.splitlines()
    n_train, n_test = (len(part(store.snapshot(), i)) for i in (0, 2))
    assert head == f"out: {n_train + n_test} images as imagefolder, 70/15/15"
    assert rows[0].split() == ["part", "rows", "of", *CLASSES, "all"]
    assert [(row.split()[0], row.split()[-1]) for row in rows[2:]] == [
        ("train", str(n_train)),
        ("test", str(n_test)),
    ]
    assert hint == "real images alone; --arms all takes in the runs: flip, zoom"


def test_the_command_takes_the_words_of_evaluate(store, tmp_path):
    line = ("export", "out", "--store", store.path, "--format", "npz", "--arms", "real, flip")
    flags = ("--folds", "5", "--fold", "3", "--parts", "train,validation", "--mix-parts")
    found = works(*line, *flags, "--json", cwd=tmp_path).json
    assert (found["path"], found["partition"]) == ("out", "fold 3 of 5")
    assert [*found["rows"]["mixed"]] == ["real", "flip"] and found["more"] == []
    wrong = command(*line, cwd=tmp_path)
    assert (wrong.code, wrong.out) == (2, "")
    assert wrong.err == "augkit: out exists already: choose another name, or remove it\n"


# Libraries that are not always here


@pytest.fixture
def hugging_face(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Lend Hugging Face's library, without a network and with a cache of its own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    yield datasets
    gc.collect()  # it leaves files to the collector, which warns of them


@others_warn
def test_hugging_face_reads_back_what_was_written(store, tmp_path, hugging_face):
    ak.export(store, tmp_path / "out", "huggingface", arms=["all"], parts=PARTS)
    found = hugging_face.load_dataset("imagefolder", data_dir=str(tmp_path / "out"))
    assert set(found) == set(PARTS)
    for name in PARTS:
        rows = [
            (np.array(row.pop("image")), row["label"], {k: str(v) for k, v in row.items()})
            for row in found[name]
        ]
        assert_same(store.snapshot(), rows, name, RUNS if name == "train" else ())


@others_warn
def test_hugging_face_reads_folders_of_classes_as_well(store, tmp_path, hugging_face):
    ak.export(store, tmp_path / "out", parts=PARTS)
    found = hugging_face.load_dataset("imagefolder", data_dir=str(tmp_path / "out"))
    assert found["train"].features["label"].names == sorted(CLASSES)
    assert {name: len(found[name]) for name in PARTS} == {
        name: len(part(store.snapshot(), i)) for i, name in enumerate(PARTS)
    }


@others_warn
def test_webdataset_reads_back_what_was_written(store, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    ak.export(store, tmp_path / "out", "webdataset", arms=["all"], shard_bytes=50_000)
    files = sorted(map(str, (tmp_path / "out").glob("train-*.tar")))
    rows = webdataset.WebDataset(files, shardshuffle=False).decode("pil")
    about = {row["id"]: row for row in lines(tmp_path / "out/metadata.csv")}
    found = [(np.array(r["png"].convert("L")), r["cls"], about[r["__key__"]]) for r in rows]
    assert_same(store.snapshot(), found, "train", RUNS)


@others_warn
def test_medmnist_reads_back_what_was_written(store, tmp_path, monkeypatch):
    medmnist = pytest.importorskip("medmnist")
    ak.export(store, tmp_path / "out", "npz", parts=PARTS)
    os.rename(tmp_path / "out/data.npz", tmp_path / "out/toymnist.npz")
    about = {"label": dict(enumerate(CLASSES)), "n_channels": 1, "MD5": "", "url": ""}
    counts = {"train": 0, "val": 0, "test": 0}
    monkeypatch.setitem(medmnist.info.INFO, "toymnist", about | {"n_samples": counts})
    kind = type("Toy", (medmnist.dataset.MedMNIST2D,), {"flag": "toymnist"})
    for name, split in zip(PARTS, ("train", "val", "test"), strict=True):
        read = kind(split=split, root=str(tmp_path / "out"))
        rows = [row for row in lines(tmp_path / "out/metadata.csv") if row["part"] == name]
        found = [
            (np.array(image.convert("L")), int(label[0]), row)
            for (image, label), row in zip(read, rows, strict=True)
        ]
        assert_same(store.snapshot(), found, name)


# The documents tell the truth


def blocks() -> Iterator[tuple[str, str]]:
    """Yield the examples of the document that are in Python, by the heading over each."""
    heading, either = "", re.compile(r"^## ([^\n]+)$|^```python\n(.*?)^```", re.M | re.S)
    for found in either.finditer(DOCUMENT.read_text()):
        heading = found[1] or heading
        if found[2]:
            yield heading, found[2]


@others_warn
@pytest.mark.parametrize(("heading", "code"), [*blocks()], ids=[h for h, _ in blocks()])
def test_the_examples_of_the_document_run(tmp_path, monkeypatch, request, heading, code):
    if heading == "Hugging Face":
        request.getfixturevalue("hugging_face")
    for name in re.findall(r"^(?:from|import) (\w+)", code, re.M):
        pytest.importorskip(name)
    assert len(code.strip().splitlines()) <= 5
    monkeypatch.chdir(tmp_path)
    ak.augment(toy_store(tmp_path / "busi.store", 10, shape=(64, 64, 1)), "flip")
    ak.export("busi.store", "busi-folder", arms=["traditional"], parts=PARTS)
    ak.export("busi.store", "busi-hf", "huggingface", arms=["traditional"], parts=PARTS)
    (tmp_path / "example.py").write_text(code)
    given = {"network": network()} if heading == "Lightning" else {}
    left = runpy.run_path(str(tmp_path / "example.py"), given)
    assert EXPECTED[heading](left)


EXPECTED: dict[str, Callable[[dict[str, object]], bool]] = {
    "PyTorch": lambda left: left["images"].shape[1:] == (1, 64, 64) and "loss" in left,
    "Lightning": lambda left: left["trainer"].global_step == 2,
    "MONAI": lambda left: left["images"].shape[1:] == (1, 48, 48),
    "timm": lambda left: left["scores"].shape[1:] == (3,),
    "Hugging Face": lambda left: left["train"].num_rows == 42 and "label" in left["train"][0],
}


def network() -> object:
    """Return what the reader of the example brings along."""
    import lightning
    import torch

    class Network(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64 * 64, 3))

        def training_step(self, batch, number):
            images, labels = batch
            return torch.nn.functional.cross_entropy(self.layers(images), labels)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    return Network()


def test_every_format_and_column_is_in_the_document():
    from augkit.exporting import COLUMNS

    text = DOCUMENT.read_text()
    assert all(f"`{word}`" in text for word in (*FORMATS, *COLUMNS, "file_name"))
