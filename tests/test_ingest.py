"""The verb `ingest`: folders and manifests of image files become rows, groups and folds."""

import csv
import json
import os
import shutil
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from commands import command, works
from PIL import Image
from toys import DATA, tree

import augkit as ak
from augkit.errors import InputError, NameTaken, OptionError
from augkit.partitions import HOLDOUT


def noise(seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """Return a grey picture, width x height, that resembles no other."""
    pixels = np.random.default_rng(seed).integers(0, 256, size[::-1], np.uint8)
    return Image.fromarray(pixels)


def save(image: Image.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def pictures(root: Path, *, classes: str = "ab", n: int = 3, first_seed: int = 0) -> Path:
    """Write n unlike pictures a class and return the folder."""
    for c, label in enumerate(classes):
        for i in range(n):
            save(noise(first_seed + 100 * c + i), root / label / f"{i}.png")
    return root


def manifest(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def ingest(source: Path, **flags: object):
    """Ingest into `toy.store` beside the source; a new store gets a small size."""
    store = flags.pop("store", source.parent / "toy.store")
    if not store.exists():
        flags.setdefault("size", "48x40")
    return ak.ingest(source, store, **flags)


def real(folder: Path):
    """Return the real rows of `toy.store`."""
    return ak.open(folder / "toy.store").snapshot().real


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Return what `augkit info --rows` writes about the only store in a folder."""
    works("info", "--rows", "rows.csv", cwd=folder)
    with (folder / "rows.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def group_of(folder: Path) -> dict[str, int]:
    rows = real(folder)
    return dict(zip(rows.keys.tolist(), rows.groups.tolist(), strict=True))


# Counts, classes, masks, keys


def test_a_folder_gives_its_images_with_their_classes(tmp_path):
    report = ingest(pictures(tmp_path / "set", classes="abc", n=4))
    found = report.info.values
    assert found["classes"] == ["a", "b", "c"]
    assert found["real"]["rows"] == report.added == 12
    assert found["real"]["by_class"] == {"a": 4, "b": 4, "c": 4}
    assert sum(found["real"]["by_part"].values()) == 12
    assert (found["real"]["groups"], report.pairs) == (12, 0)
    assert sorted(group_of(tmp_path))[0] == "set/a/0.png"


def test_pixels_are_those_of_the_file(tmp_path):
    root = pictures(tmp_path / "set")
    for path in root.rglob("*.png"):
        Image.open(path).resize((48, 40)).save(path)
    ingest(root)
    snapshot = ak.open(tmp_path / "toy.store").snapshot()
    for key, image in zip(snapshot.real.keys.tolist(), snapshot.inspect()[:], strict=True):
        with Image.open(tmp_path / key) as file:
            assert np.array_equal(image[..., 0], np.asarray(file))


def test_masks_are_joined_and_merged(tmp_path):
    root = pictures(tmp_path / "set")
    left, right = Image.new("L", (96, 80)), Image.new("L", (96, 80))
    left.paste(255, (0, 0, 48, 80))
    right.paste(255, (48, 0, 72, 80))
    save(left, root / "a" / "0_mask.png")
    save(right, root / "a" / "0_mask_1.png")
    save(left, root / "b" / "2_mask.png")
    found = ingest(root).info.values["real"]
    assert (found["rows"], found["masks"], found["mask_files"]) == (6, 2, 3)
    samples = ak.open(tmp_path / "toy.store").snapshot().inspect()
    masks, masked = samples.masks(slice(None))
    assert np.flatnonzero(masked).tolist() == [0, 5]
    assert (masks[0][:, :36] == 255).all() and (masks[0][:, 36:] == 0).all()
    assert (masks[5][:, :24] == 255).all() and (masks[5][:, 24:] == 0).all()


def test_other_files_are_counted_and_left_alone(tmp_path):
    root = pictures(tmp_path / "set")
    (root / "a" / "notes.txt").write_text("ignored")
    report = ingest(root)
    assert report.ignored == 1
    assert "6 images added; 1 other file ignored" in str(report)


def test_a_manifest_gives_classes_groups_masks_and_data_sets(tmp_path):
    rows = []
    for i in range(8):
        save(noise(i), tmp_path / "files" / f"{i}.png")
        save(Image.new("L", (96, 80), 255), tmp_path / "files" / f"m{i}.png")
        rows.append({
            "path": f"files/{i}.png",
            "label": "sick" if i % 2 else "well",
            "patient": f"p{i // 4}-{i % 2}",
            "mask": f"files/m{i}.png" if i < 3 else "",
            "dataset": "east" if i < 4 else "west",
        })  # fmt: skip
    report = ingest(manifest(tmp_path / "list.csv", rows))
    found = report.info.values["real"]
    assert report.info.values["classes"] == ["sick", "well"]
    assert (found["rows"], found["groups"], found["masks"]) == (8, 4, 3)
    assert found["by_dataset"] == {"east": 4, "west": 4}
    groups = group_of(tmp_path)
    assert groups["east/files/0.png"] == groups["east/files/2.png"]
    assert groups["east/files/0.png"] != groups["east/files/1.png"]


def test_several_images_of_a_patient_stay_in_one_part(tmp_path):
    rows = []
    for i in range(40):
        save(noise(i), tmp_path / "files" / f"{i}.png")
        patient = f"p{i // 4}"
        rows.append({"image": f"files/{i}.png", "class": "ab"[i // 4 % 2], "group": patient})
    ingest(manifest(tmp_path / "list.csv", rows))
    snapshot = ak.open(tmp_path / "toy.store").snapshot()
    parts = defaultdict(set)
    for patient, part in zip(snapshot.real.patients, snapshot.parts(HOLDOUT), strict=True):
        parts[str(patient)].add(int(part))
    assert len(parts) == 10
    assert all(len(found) == 1 for found in parts.values())
    assert set.union(*parts.values()) == {0, 1, 2}


def test_equal_patient_names_of_two_data_sets_are_two_patients(tmp_path):
    rows = []
    for i in range(8):
        save(noise(i), tmp_path / "files" / f"{i}.png")
        site = {"group": "p" if i in (0, 4) else str(i), "dataset": "east" if i < 4 else "west"}
        rows.append({"image": f"files/{i}.png", "class": "ab"[i % 2], **site})
    assert ingest(manifest(tmp_path / "list.csv", rows)).info.values["real"]["groups"] == 8


# Near-duplicates


def brighter_crop(path: Path) -> Image.Image:
    """Return the same scan, darker and cut to nine tenths."""
    with Image.open(path) as image:
        width, height = image.size
        inner = image.crop((0, 0, round(0.9 * width), round(0.9 * height)))
        return inner.point(lambda v: 0.8 * v)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Phantoms of two classes, twelve each, 96 x 80."""
    from augkit.testing import write_phantoms

    names = ("benign", "malignant")
    return write_phantoms(tmp_path / "scans", 12, classes=names, height=80, width=96)


def plant(scans: Path) -> None:
    """Put a relative of a benign scan among the malignant ones, and one of each beside itself."""
    for source, target in [
        ("benign/benign (3).png", "malignant/copy.png"),
        ("benign/benign (5).png", "benign/copy.png"),
        ("malignant/malignant (7).png", "malignant/other.png"),
    ]:
        save(brighter_crop(scans / source), scans / target)


def test_a_relative_in_another_class_is_reported_and_left_out(tmp_path, scans):
    plant(scans)
    report = ingest(scans, size="96x80")
    found = report.info.values["real"]
    assert set(found["conflicts"]) == {"scans/benign/benign (3).png", "scans/malignant/copy.png"}
    assert (report.pairs, report.largest_group, found["groups"]) == (3, 2, 24)
    assert found["rows"] == 27 and sum(found["by_part"].values()) == 25
    assert "2 images left out, with relatives of another class" in str(report)
    groups = group_of(tmp_path)
    assert groups["scans/benign/benign (5).png"] == groups["scans/benign/copy.png"]
    parts = ak.open(tmp_path / "toy.store").snapshot().parts(HOLDOUT)
    assert (parts[real(tmp_path).conflict] == -1).all() and (parts == -1).sum() == 2


def test_with_conflicts_kept_they_are_taken_in_and_stay_together(tmp_path, scans):
    plant(scans)
    report = ingest(scans, size="96x80", conflicts="keep")
    found = report.info.values["real"]
    assert found["conflicts"] == [] and sum(found["by_part"].values()) == 27
    groups = group_of(tmp_path)
    assert groups["scans/benign/benign (3).png"] == groups["scans/malignant/copy.png"]


def test_what_is_done_with_conflicts_can_be_changed_later(tmp_path, scans):
    plant(scans)
    ingest(scans, size="96x80")
    before = group_of(tmp_path)
    kept = ingest(scans, size="96x80", conflicts="keep")
    assert "another class are now kept" in str(kept)
    assert kept.added == 0 and kept.info.values["real"]["conflicts"] == []
    assert group_of(tmp_path) == before
    again = ingest(scans, size="96x80", conflicts="keep")
    assert "nothing to do" in str(again) and again.info.values["commits"] == 2
    assert len(ingest(scans, conflicts="drop").info.values["real"]["conflicts"]) == 2
    assert ak.verify(ak.open(tmp_path / "toy.store")).sound


# The same again, and more


def test_the_same_folder_again_is_a_no_op_that_says_so(tmp_path):
    pictures(tmp_path / "set")
    works("ingest", "set", cwd=tmp_path)
    before = tree(tmp_path)
    again = works("ingest", "set", cwd=tmp_path)
    assert again.out.startswith("all images are in the store already: nothing to do\n")
    assert tree(tmp_path) == before


def test_the_folder_that_holds_the_store_can_be_ingested_again(tmp_path):
    root = pictures(tmp_path / "set")
    works("ingest", ".", cwd=root)
    assert (root / "augkit.store" / "store.json").is_file()
    assert "nothing to do" in works("ingest", ".", cwd=root).out


def test_new_images_of_a_folder_are_added_and_old_ones_kept(tmp_path):
    root = pictures(tmp_path / "set", n=3)
    first = ingest(root)
    old = group_of(tmp_path)
    pictures(root, n=5)
    second = ingest(root)
    assert (first.added, second.added) == (6, 4)
    assert second.info.values["real"]["rows"] == 10
    assert old.items() <= group_of(tmp_path).items()


def test_a_relative_that_comes_later_joins_the_old_group_and_part(tmp_path, scans):
    ingest(scans, size="96x80")
    old, folds = group_of(tmp_path), real(tmp_path).folds.tolist()
    more = tmp_path / "more"
    save(brighter_crop(scans / "benign/benign (4).png"), more / "benign" / "x.png")
    report = ingest(more)
    assert (report.added, report.pairs) == (1, 1)
    new = group_of(tmp_path)
    assert new["more/benign/x.png"] == old["scans/benign/benign (4).png"]
    assert {key: new[key] for key in old} == old
    assert real(tmp_path).folds.tolist()[:-1] == folds


def blend(first: Path, second: Path) -> Image.Image:
    """Return a picture whose left half is of one scan and whose right half is of another."""
    with Image.open(first) as left, Image.open(second) as right:
        joined = right.copy()
        joined.paste(left.crop((0, 0, left.width // 2, left.height)), (0, 0))
        return joined


def test_a_relative_of_two_groups_joins_them_and_stale_runs_are_named(tmp_path, scans):
    ingest(scans, size="96x80")
    snapshot = ak.open(tmp_path / "toy.store").snapshot()
    parts, labels = snapshot.parts(HOLDOUT), snapshot.real.labels
    tested = np.flatnonzero((parts == 2) & (labels == 0))[0]
    trained = np.flatnonzero((parts == 0) & (labels == 0))[-1]
    assert tested < trained  # so that the joined group keeps the fold of the test image
    keys = [snapshot.real.keys[i] for i in (tested, trained)]
    ak.augment(tmp_path / "toy.store", "flip")
    save(blend(*(tmp_path / key for key in keys)), tmp_path / "more" / "benign" / "both.png")
    report = ingest(tmp_path / "more")
    groups = group_of(tmp_path)
    assert groups[keys[0]] == groups[keys[1]] == groups["more/benign/both.png"]
    assert report.info.values["real"]["groups"] == 23
    after = ak.open(tmp_path / "toy.store").snapshot()
    assert [int(after.parts(HOLDOUT)[i]) for i in (tested, trained)] == [2, 2]
    assert report.stale == ("flip",)
    assert "made stale, because groups were joined: flip" in str(report)
    assert "stale: groups were joined since; augment again" in str(report.info)
    assert works("info", "--json", cwd=tmp_path).json["runs"][0]["stale"]
    assert not after.trainable("flip", HOLDOUT).all()


def test_the_same_key_with_other_bytes_is_refused(tmp_path):
    root = pictures(tmp_path / "set")
    ingest(root)
    before = tree(tmp_path / "toy.store")
    save(noise(77), root / "a" / "1.png")
    with pytest.raises(NameTaken, match=r"set/a/1\.png .* other bytes: .* --dataset NAME"):
        ingest(root)
    assert tree(tmp_path / "toy.store") == before
    with pytest.raises(OptionError, match="'squeeze'"):
        ingest(root, fit="squeeze")
    assert ingest(root, dataset="second").added == 6


def test_classes_of_a_second_data_set_are_matched_by_name(tmp_path):
    ingest(pictures(tmp_path / "one", classes="bc"))
    report = ingest(pictures(tmp_path / "two", classes="ab", first_seed=500))
    assert report.info.values["classes"] == ["b", "c", "a"]
    assert report.info.values["real"]["by_class"] == {"b": 6, "c": 3, "a": 3}
    rows = real(tmp_path)
    names = [report.info.values["classes"][i] for i in rows.labels]
    assert names == [key.split("/")[1] for key in rows.keys.tolist()]


# Store, size, colour, fit


def test_without_a_name_the_store_is_augkit_store(tmp_path):
    pictures(tmp_path / "set")
    works("ingest", "set", cwd=tmp_path)
    assert (tmp_path / "augkit.store" / "store.json").is_file()


def test_the_environment_names_the_store(tmp_path, monkeypatch):
    monkeypatch.setenv("AUGKIT_STORE", "mine.h5")
    pictures(tmp_path / "set")
    works("ingest", "set", cwd=tmp_path)
    assert (tmp_path / "mine.h5").is_file() and not (tmp_path / "augkit.store").exists()


def test_a_folder_of_an_odd_name_is_no_choice_of_stores(tmp_path):
    folder = tmp_path / "several stores"
    pictures(folder / "set")
    works("ingest", "set", cwd=folder)
    assert (folder / "augkit.store").is_dir()


@pytest.mark.parametrize(("shape", "size"), [((96, 80), "192x160"), ((80, 80), "160x160")])
def test_the_size_follows_from_the_images_and_is_said_aloud(tmp_path, shape, size):
    for i in range(4):
        save(noise(i, shape), tmp_path / "set" / "ab"[i % 2] / f"{i}.png")
    said = works("ingest", "set", cwd=tmp_path).out.split("\n")[0]
    assert said.startswith(f"4 images added. Size {size}: the median width / height is")
    image = works("info", "--json", cwd=tmp_path).json["image"]
    assert f"{image['width']}x{image['height']}" == size


def test_a_size_that_is_given_is_taken(tmp_path):
    pictures(tmp_path / "set")
    said = works("ingest", "set", "--size", "64x48", cwd=tmp_path).out
    assert "Size 64x48, as asked." in said and "images of 64x48 grey" in said
    assert works("info", "--json", cwd=tmp_path).json["image"] == {
        "height": 48, "width": 64, "channels": 1,
    }  # fmt: skip


def test_colour_is_kept_only_where_asked_and_counted_always(tmp_path):
    root = pictures(tmp_path / "set")
    coloured = np.random.default_rng(9).integers(0, 256, (40, 48, 3), np.uint8)
    save(Image.fromarray(coloured), root / "a" / "colour.png")
    grey = ingest(root).info.values
    assert (grey["image"]["channels"], grey["real"]["colour"]) == (1, 1)
    works("ingest", "set", "--colour", "--size", "48x40", "--store", "c.store", cwd=tmp_path)
    snapshot = ak.open(tmp_path / "c.store").snapshot()
    assert snapshot.shape == (40, 48, 3)
    at = snapshot.real.keys.tolist().index("set/a/colour.png")
    assert np.array_equal(snapshot.inspect()[at : at + 1][0], coloured)


def test_padding_keeps_the_shape_and_leaves_black_borders(tmp_path):
    for i in range(4):
        save(
            noise(i, (80, 80)).point(lambda v: v // 2 + 128),
            tmp_path / f"set/{'ab'[i % 2]}/{i}.png",
        )
    stretched = ingest(tmp_path / "set")
    padded = ingest(tmp_path / "set", store=tmp_path / "p.store", fit="pad")
    assert stretched.added == padded.added == 4
    images = {
        name: ak.open(tmp_path / name).snapshot().inspect()[:] for name in ("toy.store", "p.store")
    }
    assert (images["toy.store"] > 0).all()
    assert (images["p.store"][:, :, :4] == 0).all() and (images["p.store"][:, :, -4:] == 0).all()
    assert (images["p.store"][:, :, 4:-4] > 0).all()


# What --json says, and what fails


def test_json_lists_what_was_refused(tmp_path):
    root = pictures(tmp_path / "set")
    (root / "a" / "bad.png").write_text("no image")
    report = works("ingest", "set", "--skip-bad", "--json", cwd=tmp_path).json
    (refusal,) = report["refused"]
    assert refusal["path"] == "a/bad.png" and "no image of a known format" in refusal["reason"]
    assert (report["added"], report["real"]["rows"]) == (6, 6)


def test_an_ingest_that_fails_leaves_nothing(tmp_path):
    root = pictures(tmp_path / "set", n=5)
    last = root / "b" / "4.png"
    last.write_bytes(last.read_bytes()[:-500])
    before = tree(tmp_path)
    for store in ("toy.store", "toy.h5"):
        with pytest.raises(InputError, match="is truncated"):
            ingest(root, store=tmp_path / store)
        assert tree(tmp_path) == before
        assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_an_ingest_that_is_stopped_leaves_nothing(tmp_path):
    root = pictures(tmp_path / "set")

    def stop(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(root, progress=stop)
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
    assert ingest(root).added == 6


def test_a_class_that_shrinks_to_one_group_of_relatives_is_refused(tmp_path):
    root = pictures(tmp_path / "set", n=3)
    for i in (1, 2):
        shutil.copy(root / "a" / "0.png", root / "a" / f"{i}.png")
    with pytest.raises(InputError, match="'a' has 3 images in 1 usable group of relatives"):
        ingest(root)


@pytest.mark.parametrize(
    "flags",
    [
        {"workers": 1},
        {"workers": 3},
        {"workers": 2, "start_method": "fork"},
        {"workers": 2, "start_method": "forkserver"},
        {"workers": 2, "start_method": "spawn"},
    ],
)
def test_workers_change_nothing(tmp_path, flags):
    root = pictures(tmp_path / "set", n=4)
    save(noise(3).crop((0, 0, 88, 74)), root / "b" / "relative.png")
    digests = []
    for store, how in (("toy.store", {}), ("other.store", flags)):
        ingest(root, store=tmp_path / store, **how)
        snapshot = ak.open(tmp_path / store).snapshot()
        digests.append((snapshot.inspect().digest, snapshot.training_digest(HOLDOUT)))
    assert digests[0] == digests[1]


# Arrays


def test_arrays_without_images_change_nothing(tmp_path):
    ak.ingest(pictures(tmp_path / "set"), tmp_path / "toy.store", size="48x40")
    report = ak.ingest_arrays(tmp_path / "toy.store", [], [], keys=[])
    assert report.added == 0 and report.info.values["commits"] == 1


# Real data


@pytest.fixture(scope="module")
def busi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `augkit.store` holds BUSI and then BrEaST, with what each ingest said."""
    images = DATA / "busi" / "Dataset_BUSI_with_GT"
    if not images.is_dir():
        pytest.skip(f"no BUSI in {DATA}: set AUGKIT_DATA to a folder with busi/ and breast/")
    folder = tmp_path_factory.mktemp("real")
    for name, source, flags in [
        ("busi", images, ("--dataset", "busi")),
        ("breast", DATA / "breast" / "labels.csv", ()),
    ]:
        began = time.monotonic()
        report = works("ingest", source, "--json", *flags, cwd=folder)
        print(f"{name}: {time.monotonic() - began:.0f} s on {os.cpu_count()} cores")
        (folder / f"{name}.json").write_text(report.out)
    return folder


@pytest.mark.slow
def test_busi_comes_in_whole_and_its_relatives_are_found(busi):
    found = json.loads((busi / "busi.json").read_text())
    assert found["image"] == {"height": 160, "width": 192, "channels": 1}
    assert found["classes"] == ["benign", "malignant", "normal"]
    assert found["real"]["by_class"] == {"benign": 437, "malignant": 210, "normal": 133}
    assert (found["real"]["rows"], found["real"]["mask_files"]) == (780, 798)
    assert (found["real"]["masks"], found["real"]["colour"]) == (780, 16)
    assert found["refused"] == [] and found["size_reason"].startswith("Size 192x160")
    assert 560 <= found["real"]["groups"] <= 640
    pair = {"busi/benign/benign (433).png", "busi/malignant/malignant (145).png"}
    assert pair <= set(found["real"]["conflicts"])
    assert len({row["group"] for row in rows_of(busi) if row["key"] in pair}) == 1


@pytest.mark.slow
def test_a_second_site_joins_no_group_of_the_first(busi):
    first, second = (json.loads((busi / f"{n}.json").read_text()) for n in ("busi", "breast"))
    assert second["classes"] == first["classes"]
    assert second["real"]["by_class"] == {"benign": 591, "malignant": 308, "normal": 137}
    added = second["real"]["groups"] - first["real"]["groups"]
    assert second["added"] == 256 and 250 <= added <= 256
    sites = defaultdict(set)
    for row in rows_of(busi):
        sites[row["group"]].add(row["dataset"])
    assert all(len(found) == 1 for found in sites.values())
    assert command("ingest", DATA / "breast" / "labels.csv", cwd=busi).out.startswith("all images")


def test_a_manifest_that_later_names_patients_is_not_taken_for_the_same(tmp_path):
    root = pictures(tmp_path / "set", n=4)
    rows = [
        {"image": f"{c}/{p.name}", "class": c} for c in "ab" for p in sorted((root / c).iterdir())
    ]
    source = manifest(root / "list.csv", rows)
    ingest(source, store=tmp_path / "s.store")
    named = [{**row, "patient_id": f"p{i // 2}"} for i, row in enumerate(rows)]
    with pytest.raises(NameTaken, match="already with another group, or none"):
        ingest(manifest(root / "list.csv", named), store=tmp_path / "s.store")
    with pytest.raises(NameTaken, match="already with no mask"):
        masked = [{**row, "mask": row["image"]} for row in rows]
        ingest(manifest(root / "list.csv", masked), store=tmp_path / "s.store")
    report = ingest(manifest(root / "list.csv", named), store=tmp_path / "t.store")
    assert report.info.values["real"]["groups"] == 4


def test_what_was_not_read_is_named(tmp_path):
    root = pictures(tmp_path / "set")
    for name in ("a/scan.nii", "a/move.gif", "b/notes.txt"):
        (root / name).write_text("x")
    assert "3 other files ignored (.gif, .nii, .txt)" in str(
        ingest(root, store=tmp_path / "a.store")
    )
    rows = [
        {"image": f"set/{c}/{p.name}", "class": c, "grp": "1", "age": "40"}
        for c in "ab"
        for p in sorted((root / c).glob("*.png"))
    ]
    said = str(ingest(manifest(tmp_path / "list.csv", rows), store=tmp_path / "b.store"))
    assert "columns of the manifest that were not read: age, grp" in said
