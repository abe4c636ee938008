"""Guessing how a data set lies there, and reading back what `augkit export` writes."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import command, works
from PIL import Image
from toys import DATA, images, toy_store

import augkit as ak
from augkit.errors import InputError, OptionError
from augkit.ingestion.layouts import LAYOUTS, NAMES, read
from augkit.partitions import HOLDOUT, PARTS


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(images(1, seed)[0, ..., 0]).save(path)
    return path


def pictures(root: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        picture(root / name, i)
    return root


def laid_out(tmp_path: Path, layout: str) -> Path:
    """Write a small data set of a layout."""
    root = tmp_path / layout
    if layout == "folder":
        return pictures(root, "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    if layout == "imagefolder":
        return pictures(
            root, *(f"{p}/{c}/{i}.png" for p in ("train", "test") for c in "ab" for i in "12")
        )
    if layout == "manifest":
        pictures(root, "images/1.png", "images/2.png", "masks/1.png")
        (root / "labels.csv").write_text("image,class\nimages/1.png,a\nimages/2.png,b\n")
        return root
    if layout == "huggingface":
        pictures(root, "train/1.png", "train/2.png", "test/1.png")
        (root / "train/metadata.csv").write_text("file_name,label\n1.png,a\n2.png,b\n")
        (root / "test/metadata.csv").write_text("file_name,label\n1.png,a\n")
        return root
    store = toy_store(tmp_path / "toy.store", 10)
    if layout == "store":
        return Path(store.path)
    ak.export(store, root, layout)
    return root


@pytest.mark.parametrize("layout", NAMES)
def test_every_layout_is_guessed_and_can_be_named(tmp_path, layout, caplog):
    root = laid_out(tmp_path, layout)
    with caplog.at_level("INFO", "augkit"):
        guessed = read(root)
    assert guessed.layout == layout and guessed.read_as
    assert (f"read as: {guessed.read_as} (--layout {layout})" in caplog.text) == (
        layout != "folder"
    )
    named = read(root, layout=layout)
    assert [s.key for s in named.sources] == [s.key for s in guessed.sources]
    assert len(named.sources) >= 2


def test_a_layout_that_does_not_exist_lists_those_that_do(tmp_path):
    pictures(tmp_path / "set", "a/1.png", "b/1.png")
    found = command("ingest", "set", "--layout", "zip", cwd=tmp_path)
    assert found.code == 2
    assert f"there is no layout 'zip'; there are: {', '.join(NAMES)}" in found.err


@pytest.mark.parametrize("layout", NAMES)
def test_a_layout_that_is_not_there_is_a_plain_error(tmp_path, layout):
    root = pictures(tmp_path / "set", "x/1.png") if layout != "folder" else tmp_path / "f.txt"
    if layout == "folder":
        root.write_text("x")
    with pytest.raises(ak.AugkitError):
        read(root, layout=layout)


@pytest.mark.parametrize("layout", NAMES)
def test_an_empty_folder_is_a_plain_error_in_every_layout(tmp_path, layout):
    (tmp_path / "set").mkdir()
    with pytest.raises(ak.AugkitError):
        read(tmp_path / "set", layout=layout)


def test_a_folder_of_classes_with_a_table_beside_them_stays_one(tmp_path):
    root = pictures(tmp_path / "set", "a/1.png", "b/1.png")
    (root / "labels.csv").write_text("image,class\na/1.png,x\n")
    assert read(root).layout == "folder"
    assert read(root).classes == ("a", "b")


def test_a_name_that_cannot_be_stored_is_no_reason_to_crash(tmp_path):
    root = pictures(tmp_path / "set", "a/1.png", "b/1.png")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff")).mkdir()
    assert read(root).layout == "folder"


def test_each_layout_has_a_name_of_its_own_and_words():
    assert len(set(NAMES)) == len(LAYOUTS) and all(layout.said for layout in LAYOUTS)


def test_a_number_of_thousands_of_digits_is_a_name_like_any_other(tmp_path):
    root = pictures(tmp_path / "set", "1.png", "2.png")
    (root / "x.csv").write_text(f"image,class\n1.png,{'9' * 5000}\n2.png,{'1' * 5000}\n")
    assert len(read(root / "x.csv").classes) == 2


# Back from an export


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return a store with groups and runs, and its exports by format."""
    tmp = tmp_path_factory.mktemp("exported")
    groups = [f"p{i // 2}" for i in range(90)]
    store = toy_store(tmp / "toy.store", 30, groups=groups)
    ak.augment(store, "flip")
    for name in ("imagefolder", "huggingface", "webdataset", "npz"):
        ak.export(store, tmp / name, name, arms=["traditional"], parts=PARTS)
    return tmp


@pytest.mark.parametrize("name", ["imagefolder", "huggingface", "webdataset", "npz"])
def test_an_export_comes_back_with_its_pixels_keys_classes_groups_and_parts(
    exported, tmp_path, name, caplog
):
    report = ak.ingest(exported / name, tmp_path / "back.store", find_relatives=False)
    assert "rows of runs are no real images, and are left out" in caplog.text
    assert report.layout == ("huggingface" if name == "imagefolder" else name)
    before = ak.open(exported / "toy.store").snapshot()
    after = ak.open(tmp_path / "back.store").snapshot()
    assert after.shape == before.shape
    assert sorted(after.real.keys.tolist()) == sorted(before.real.keys.tolist())
    rows = {key: i for i, key in enumerate(after.real.keys.tolist())}
    order = [rows[key] for key in before.real.keys.tolist()]
    assert np.array_equal(after.inspect()[:][order], before.inspect()[:])
    classes = np.array(after.classes)[after.real.labels[order]]
    assert classes.tolist() == np.array(before.classes)[before.real.labels].tolist()
    assert np.array_equal(after.real.given[order], before.parts(HOLDOUT))
    same = before.real.groups[:, None] == before.real.groups
    assert np.array_equal(same, after.real.groups[order][:, None] == after.real.groups[order])


@pytest.mark.parametrize("name", ["imagefolder", "huggingface", "webdataset", "npz"])
def test_an_export_of_mixed_parts_comes_back_with_the_part_of_each(exported, tmp_path, name):
    ak.export(exported / "toy.store", tmp_path / "out", name, parts=PARTS, mix_parts=True)
    ak.ingest(tmp_path / "out", tmp_path / "back.store", find_relatives=False)
    before = ak.open(exported / "toy.store").snapshot()
    after = ak.open(tmp_path / "back.store").snapshot()
    was = dict(zip(before.real.keys.tolist(), before.parts(HOLDOUT).tolist(), strict=True))
    assert dict(zip(after.real.keys.tolist(), after.real.given.tolist(), strict=True)) == was


@pytest.mark.parametrize("name", ["imagefolder", "huggingface", "webdataset", "npz"])
def test_an_export_in_colour_comes_back_in_colour(tmp_path, name):
    store = toy_store(tmp_path / "toy.store", 8, shape=(24, 32, 3))
    ak.export(store, tmp_path / "out", name, parts=PARTS)
    ak.ingest(tmp_path / "out", tmp_path / "back.store", find_relatives=False)
    before, after = store.snapshot(), ak.open(tmp_path / "back.store").snapshot()
    rows = {key: i for i, key in enumerate(after.real.keys.tolist())}
    order = [rows[key] for key in before.real.keys.tolist()]
    assert np.array_equal(after.inspect()[:][order], before.inspect()[:])


@pytest.mark.parametrize("name", ["imagefolder", "huggingface", "webdataset", "npz"])
def test_an_export_with_masks_comes_back_with_them_and_without_where_there_was_none(tmp_path, name):
    store = ak.DatasetStore.create(tmp_path / "toy.store", height=24, width=32)
    for seed, masks in ((1, True), (2, False)):  # of the first five masks, one is empty
        pixels = images(20, seed)
        covers = np.where(pixels[..., 0] > 127, 255, 0).astype(np.uint8)
        covers[4] = 0
        keys, labels = [f"{seed}-{i}.png" for i in range(20)], ["a", "b"] * 10
        ak.ingest_arrays(store, [pixels], labels, keys=keys, masks=[covers] if masks else None,
                         find_relatives=False)  # fmt: skip
    ak.export(store, tmp_path / "out", name, parts=PARTS, masks=True)
    ak.ingest(tmp_path / "out", tmp_path / "back.store", find_relatives=False)
    before, after = store.snapshot(), ak.open(tmp_path / "back.store").snapshot()
    rows = {key: i for i, key in enumerate(after.real.keys.tolist())}
    order = np.array([rows[key] for key in before.real.keys.tolist()])
    assert before.real.masked.sum() == 20
    for one, other in zip(before.inspect().masks(slice(None)),
                          after.inspect().take(order).masks(slice(None)), strict=True):  # fmt: skip
        assert np.array_equal(one, other)


def test_an_export_whose_words_were_lost_is_still_a_folder_of_parts(exported, tmp_path):
    shutil.copytree(exported / "imagefolder", tmp_path / "set")
    for name in ("metadata.csv", "export.json"):
        (tmp_path / "set" / name).unlink()
    listing = read(tmp_path / "set")
    assert listing.layout == "imagefolder"
    assert {s.part for s in listing.sources} == {"train", "validation", "test"}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"augkit": 1, "image": {"height": "x"}}', "[" * 99999]
)
def test_a_damaged_export_json_is_as_good_as_none(exported, tmp_path, text):
    shutil.copytree(exported / "huggingface", tmp_path / "set")
    (tmp_path / "set" / "export.json").write_text(text)
    assert read(tmp_path / "set").shape is None


def test_rows_that_do_not_fit_an_exported_archive_are_refused(exported, tmp_path):
    shutil.copytree(exported / "npz", tmp_path / "set")
    path = tmp_path / "set" / "metadata.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(InputError, match=r"metadata.csv has 155 rows for 156 images"):
        read(tmp_path / "set")


# Folders of parts


def test_folders_of_parts_give_classes_parts_and_masks(tmp_path):
    root = pictures(
        tmp_path / "set", "Train/a/1.png", "Train/a/1_mask.png", "Train/b/deep/2.png",
        "val/b/1.png", "test/a/3.png", "test/3.png",
    )  # fmt: skip
    listing = read(root)
    assert [(s.key, s.label, s.part) for s in listing.sources] == [
        ("set/Train/a/1.png", "a", "train"),
        ("set/Train/b/deep/2.png", "b", "train"),
        ("set/test/a/3.png", "a", "test"),
        ("set/val/b/1.png", "b", "validation"),
    ]
    assert len(listing.sources[0].masks) == 1
    (refused,) = listing.refused
    assert (refused.path, "it lies in no class folder of its part" in refused.reason) == (
        "test/3.png",
        True,
    )


def test_a_class_may_be_missing_in_a_part(tmp_path):
    root = pictures(tmp_path / "set", "train/a/1.png", "train/b/1.png", "test/a/1.png")
    (root / "test" / "b").mkdir()
    assert read(root).classes == ("a", "b")


def test_other_folders_beside_the_parts_are_an_error_where_the_layout_is_named(tmp_path):
    root = pictures(tmp_path / "set", "train/a/1.png", "test/a/1.png", "extra/a/1.png")
    with pytest.raises(InputError, match="has the subfolder extra; expected train, val and test"):
        read(root, layout="imagefolder")


# Manifests


def test_a_manifest_may_name_parts(tmp_path):
    root = pictures(tmp_path / "set", "1.png", "2.png")
    (root / "x.csv").write_text("image,class,split\n1.png,a,Training\n2.png,b,\n")
    assert [s.part for s in read(root / "x.csv").sources] == ["train", ""]
    (root / "x.csv").write_text("image,class,part\n1.png,a,fold 3\n2.png,b,\n")
    with pytest.raises(InputError, match="has the part 'fold 3'; it must be train, validation or"):
        read(root / "x.csv")


def test_another_part_for_an_image_that_is_there_is_refused(tmp_path):
    root = pictures(tmp_path / "set", *(f"{i}.png" for i in range(8)))
    lines = [f"{i}.png,{'ab'[i % 2]},{'train' if i < 4 else 'test'}" for i in range(8)]
    (root / "x.csv").write_text("\n".join(["image,class,part", *lines]))
    ak.ingest(root / "x.csv", tmp_path / "t.store", size="48x40")
    lines[0] = lines[0].replace("train", "test")
    (root / "x.csv").write_text("\n".join(["image,class,part", *lines]))
    with pytest.raises(ak.AugkitError, match=r"0.png is in .* with another part of its own split"):
        ak.ingest(root / "x.csv", tmp_path / "t.store")


@pytest.mark.skipif(not (DATA / "breast").is_dir(), reason="needs the data of a second site")
def test_the_folder_of_a_second_site_is_read_by_its_manifest():
    listing = read(DATA / "breast")
    assert (listing.layout, len(listing.sources), len(listing.classes)) == ("manifest", 256, 3)
    assert listing.read_as == "CSV manifest labels.csv"
    assert listing.sources == read(DATA / "breast" / "labels.csv").sources


@pytest.mark.seconds
def test_the_layout_stands_in_the_json(tmp_path):
    toy_store(tmp_path / "toy.store")
    found = works("ingest", "toy.store", "--store", "b.store", "--json", cwd=tmp_path)
    assert json.loads(found.out)["layout"] == "store"


def test_an_option_of_python_is_checked_as_on_the_command_line(tmp_path):
    with pytest.raises(OptionError, match="there is no layout 'x'"):
        read(tmp_path, layout="x")
