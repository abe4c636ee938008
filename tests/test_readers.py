import os
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from augkit.errors import InputError
from augkit.ingestion.folders import read_folder
from augkit.ingestion.layouts import read
from augkit.ingestion.manifests import read_manifest
from augkit.ingestion.readers import Refusal, natural, printable


def picture(path: Path, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, 90).save(path, format="PNG")
    return path


def dataset(root: Path, *names: str) -> Path:
    for name in names:
        picture(root / name)
    return root


def manifest(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


def keys(listing) -> list[str]:
    return [source.key for source in listing.sources]


def only_refusal(listing) -> Refusal:
    (refusal,) = listing.refused
    return refusal


def test_a_folder_for_each_class_gives_labels_and_keys(tmp_path):
    root = dataset(tmp_path / "set", "b/1.png", "a/deep/er/2.PNG", "a/1.JpEg")
    listing = read_folder(root)
    assert keys(listing) == ["set/a/1.JpEg", "set/a/deep/er/2.PNG", "set/b/1.png"]
    assert listing.classes == ("a", "b")
    assert [source.label for source in listing.sources] == ["a", "a", "b"]
    first = listing.sources[0]
    assert (first.dataset, first.group, first.masks) == ("set", None, ())
    assert first.path == root / "a/1.JpEg"
    assert (listing.refused, listing.ignored) == ((), 0)


def test_the_order_is_natural(tmp_path):
    root = dataset(tmp_path / "set", *(f"x/b ({i}).png" for i in (10, 2, 1, 33)), "x10/a.png")
    dataset(root, "x2/a.png")
    listing = read_folder(root)
    assert keys(listing)[:4] == [f"set/x/b ({i}).png" for i in (1, 2, 10, 33)]
    assert listing.classes == ("x", "x2", "x10")


def test_the_order_is_that_of_words_and_numbers_folder_by_folder():
    def told_apart(text):
        parts = [re.split(r"([0-9]+)", part) for part in text.split("/")]
        return [[int(t or "0") if i % 2 else t for i, t in enumerate(p)] for p in parts], text

    rng = np.random.default_rng(0)
    names = ["".join(rng.choice([*"ab01 9/(._\N{LATIN SMALL LETTER E WITH ACUTE}"], 6))
             for _ in range(3000)]  # fmt: skip
    assert sorted(names, key=natural) == sorted(names, key=told_apart)


def test_a_listing_takes_under_a_kilobyte_an_image(tmp_path):
    n = 3000
    np.savez(
        tmp_path / "many.npz",
        train_images=np.zeros((n, 8, 8), np.uint8),
        train_labels=np.arange(n) % 3,
    )
    read(tmp_path / "many.npz")
    tracemalloc.start()
    try:
        found = read(tmp_path / "many.npz")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found.sources) == n and peak < 1024 * n


def test_the_data_set_can_be_named(tmp_path):
    root = dataset(tmp_path, "a/1.png", "b/1.png")
    assert keys(read_folder(root, dataset="BUSI")) == ["BUSI/a/1.png", "BUSI/b/1.png"]


@pytest.mark.parametrize("name", ["", "  ", "a/b", "..", "\udcff"])
def test_a_bad_name_of_a_data_set_is_an_error(tmp_path, name):
    root = dataset(tmp_path, "a/1.png", "b/1.png")
    with pytest.raises(InputError, match="cannot name a data set"):
        read_folder(root, dataset=name)


def test_a_relative_folder_gives_absolute_paths(tmp_path, monkeypatch):
    dataset(tmp_path / "set", "a/1.png", "b/1.png")
    monkeypatch.chdir(tmp_path / "set")
    (first, _) = read_folder(".").sources
    assert first.key == "set/a/1.png"
    assert first.path == tmp_path / "set/a/1.png"


def test_masks_are_joined_to_the_image_beside_them(tmp_path):
    root = dataset(
        tmp_path / "set",
        *("b/b (1).png", "b/b (1)_mask_10.png", "b/b (1)_mask_2.png", "b/b (1)_mask.png"),
        *("b/b (2).png", "n/n.png"),
    )
    with_masks, without, _ = read_folder(root).sources
    assert [p.name for p in with_masks.masks] == [
        "b (1)_mask.png",
        "b (1)_mask_2.png",
        "b (1)_mask_10.png",
    ]
    assert without.masks == ()


@pytest.mark.parametrize("beside", ["c/x.png", "b/x_mask_mask.png"])
def test_a_mask_without_its_image_is_refused(tmp_path, beside):
    root = dataset(tmp_path / "set", "b/x_mask.png", "b/y.png", beside)
    listing = read_folder(root)
    assert "set/b/x_mask.png" not in keys(listing)
    assert listing.refused[0].path == "b/x_mask.png"
    assert "named like a mask, but no image of that name lies beside it" in (
        listing.refused[0].reason
    )


def test_a_mask_of_two_images_is_refused(tmp_path):
    root = dataset(tmp_path / "set", "b/x.png", "b/x.jpg", "b/x_mask.png", "c/1.png")
    listing = read_folder(root)
    assert "several such images" in only_refusal(listing).reason
    assert all(source.masks == () for source in listing.sources)


def test_hidden_files_are_skipped_and_other_files_counted(tmp_path):
    root = dataset(tmp_path / "set", "a/1.png", "b/1.png", "a/.hidden.png", "__MACOSX/a/1.png")
    for name in ("a/Thumbs.db", "a/.DS_Store", "a/notes.txt", "README.md", "b/table.csv"):
        (root / name).write_text("x")
    listing = read_folder(root)
    assert len(listing.sources) == 2
    assert listing.classes == ("a", "b")
    assert listing.ignored == 3
    assert listing.refused == ()


def test_an_image_beside_the_class_folders_is_refused(tmp_path):
    root = dataset(tmp_path / "set", "a/1.png", "b/1.png", "stray.png")
    refusal = only_refusal(read_folder(root))
    assert refusal == Refusal("stray.png", "has no class: it lies in no class folder")


@pytest.mark.parametrize("inside", ["", "notes.txt", "x_mask.png"])
def test_an_empty_class_folder_is_an_error_that_names_it(tmp_path, inside):
    root = dataset(tmp_path / "set", "a/1.png")
    (root / "odd").mkdir()
    if inside:
        (root / "odd" / inside).write_text("x")
    with pytest.raises(InputError, match=r"class folder .*/odd holds no image"):
        read_folder(root)


def test_a_folder_that_is_none_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, what in (("missing", "does not exist"), ("file", "is a file"), ("empty", "holds no")):
        with pytest.raises(InputError, match=f"{what}.*expected one subfolder per class"):
            read_folder(tmp_path / name)


def test_images_without_class_folders_are_an_error_that_points_to_the_manifest(tmp_path):
    dataset(tmp_path, "1.png", "2.png")
    with pytest.raises(InputError, match="expected one subfolder per class"):
        read_folder(tmp_path)
    manifest(tmp_path, "image,class\n")
    with pytest.raises(InputError, match=r"did you mean .*/labels\.csv\?"):
        read_folder(tmp_path)


@pytest.mark.parametrize("names", [("images", "masks"), ("Train", "test"), ("train", "val", "x")])
def test_folders_that_are_parts_and_not_classes_are_an_error(tmp_path, names):
    dataset(tmp_path, *(f"{name}/1.png" for name in names))
    with pytest.raises(InputError, match="which are no classes"):
        read_folder(tmp_path)


def test_the_folder_above_the_right_one_is_an_error_that_names_it(tmp_path):
    dataset(tmp_path / "busi", "GT/benign/1.png", "GT/normal/1.png")
    with pytest.raises(InputError, match=r"did you mean .*busi/GT\?"):
        read_folder(tmp_path / "busi")


def test_a_link_is_followed_within_the_folder_only(tmp_path):
    root = dataset(tmp_path / "set", "a/1.png", "b/1.png")
    outside = picture(tmp_path / "secret.png")
    (root / "a/inside.png").symlink_to(root / "b/1.png")
    (root / "a/outside.png").symlink_to(outside)
    (root / "a/broken.png").symlink_to(tmp_path / "nothing")
    (root / "a/loop.png").symlink_to(root / "a/loop.png")
    (root / "linked").symlink_to(root / "a")
    listing = read_folder(root)
    assert keys(listing) == ["set/a/1.png", "set/a/inside.png", "set/b/1.png"]
    reasons = {refusal.path: refusal.reason for refusal in listing.refused}
    assert "leaves the folder" in reasons.pop("a/outside.png")
    assert reasons.pop("a/broken.png") == "is a link to nothing"
    assert reasons.pop("a/loop.png") == "is a link to nothing"
    assert "link to a folder" in reasons.pop("linked")
    assert reasons == {}


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    root = dataset(tmp_path / "set", "a/1.png", "b/1.png")
    bad = os.fsencode(root / "a") + b"/caf\xe9.png"
    Path(os.fsdecode(bad)).write_bytes((root / "a/1.png").read_bytes())
    refusal = only_refusal(read_folder(root))
    assert "not valid UTF-8" in refusal.reason
    assert refusal.path == r"a/caf\udce9.png"


@pytest.mark.parametrize("name", ["a b", 'it\'s "q"', "x\ny", "[1] (2)", "ü界", "n" * 200, "a.b"])
def test_odd_names_of_images_and_classes_work(tmp_path, name):
    root = dataset(tmp_path / "set", f"{name}/{name}.png", f"{name}/{name}_mask.png", "z/1.png")
    source = next(s for s in read_folder(root).sources if s.label == name)
    assert source.key == f"set/{name}/{name}.png"
    assert source.path.is_file()
    assert [mask.is_file() for mask in source.masks] == [True]


def test_a_pipe_named_like_an_image_is_not_opened(tmp_path):
    root = dataset(tmp_path / "set", "a/1.png", "b/1.png")
    os.mkfifo(root / "a/pipe.png")
    listing = read_folder(root)
    assert (len(listing.sources), listing.ignored) == (2, 1)


def test_a_printable_path_is_one_line_of_utf8():
    assert printable("a/ü 1.png") == "a/ü 1.png"
    assert printable("a\nb\x1b[31m\udcff") == r"a\nb\x1b[31m\udcff"


def test_a_manifest_gives_labels_groups_masks_and_data_sets(tmp_path):
    dataset(tmp_path / "set", "im/2.png", "im/1.png", "m/1.png", "m/1b.png")
    path = manifest(
        tmp_path / "set",
        "Path,LABEL,Mask,Patient,dataset,note\n"
        "im/2.png,benign,,,,\n"
        "im/1.png,malignant, m/1.png ; m/1b.png,p7,other,hello\n",
    )
    listing = read_manifest(path)
    assert keys(listing) == ["other/im/1.png", "set/im/2.png"]
    first, second = listing.sources
    assert (first.label, first.group, first.dataset) == ("malignant", "p7", "other")
    assert first.masks == (tmp_path / "set/m/1.png", tmp_path / "set/m/1b.png")
    assert (second.label, second.group, second.masks) == ("benign", None, ())
    assert listing.classes == ("benign", "malignant")


def test_a_manifest_takes_byte_order_mark_crlf_quotes_and_blank_lines(tmp_path):
    dataset(tmp_path / "set", "1.png", "a, b.png")
    text = '\r\nimage,class,note\r\n\r\n1.png,x,"two\r\nlines"\r\n,,\r\n"a, b.png",y,\r\n\r\n'
    listing = read_manifest(manifest(tmp_path / "set", text, "utf-8-sig"))
    assert keys(listing) == ["set/1.png", "set/a, b.png"]


def test_a_missing_column_is_an_error_that_lists_what_is_there(tmp_path):
    path = manifest(tmp_path, "file;class\n1.png;x\n")
    with pytest.raises(InputError, match=r"image or path.*class or label.*it has: file;class;"):
        read_manifest(path)


def test_two_columns_of_one_meaning_are_an_error(tmp_path):
    path = manifest(tmp_path, "image,class,Label\n1.png,x,y\n")
    with pytest.raises(InputError, match="'class' and 'Label', which mean the same"):
        read_manifest(path)


@pytest.mark.parametrize("again", ["1.png", "./1.png", "sub/../1.png", "{folder}/1.png"])
def test_an_image_listed_twice_is_an_error_that_names_both_lines(tmp_path, again):
    dataset(tmp_path, "1.png", "2.png")
    again = again.format(folder=tmp_path)
    path = manifest(tmp_path, f"image,class,dataset\n1.png,x,\n2.png,x,\n\n{again},x,o\n")
    with pytest.raises(InputError, match=r"line 5 lists .*1\.png again, which line 2 lists"):
        read_manifest(path)


def test_two_images_of_one_key_are_an_error(tmp_path):
    outside = picture(tmp_path / "elsewhere/1.png")
    picture(Path(f"{tmp_path}/set{outside}"))
    path = manifest(tmp_path / "set", f"image,class\n{outside},x\n{str(outside)[1:]},x\n")
    with pytest.raises(InputError, match="line 3 lists"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1.png,,", "line 4 has no class"),
        (",x,", "line 4 has no image"),
        ("1.png,x", "line 4 has 2 cells where the first line has 3"),
        ("1.png,x,a/b", "line 4: 'a/b' cannot name a data set"),
    ],
)
def test_a_bad_row_is_an_error_with_its_line(tmp_path, row, message):
    dataset(tmp_path, "0.png", "1.png")
    path = manifest(tmp_path, f'image,class,dataset\n0.png,"x\ny",\n{row}\n')
    with pytest.raises(InputError, match=message):
        read_manifest(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lists no image"),
        (b"image,class\n", "lists no image"),
        ("image,class\nü.png,x\n".encode("latin-1"), "is not UTF-8 text"),
        (b'image,class\n1.png,"x\n', "is no valid CSV"),
        (b"image,class\nmissing.png,x\n", r"no image that can be read; the first: missing\.png is"),
    ],
)
def test_a_file_that_is_no_manifest_is_an_error(tmp_path, content, message):
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_manifest(path)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("missing.png", "is no file"),
        ("../secret.png", "leaves the manifest's folder"),
        ("sub/../../secret.png", "leaves the manifest's folder"),
        ("link.png", "is a link that leaves the folder"),
        ("labels.csv", "does not end in one of"),
        ("folder.png", "is no file"),
        ("a\0b.png", "is no file"),
        ("n" * 300 + ".png", "is no file"),
        ("/nowhere/at/all.png", "is no file"),
    ],
)
def test_a_row_whose_file_cannot_be_used_is_refused(tmp_path, cell, reason):
    picture(tmp_path / "secret.png")
    root = dataset(tmp_path / "set", "1.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "folder.png").mkdir()
    listing = read_manifest(manifest(root, f"image,class,mask\n1.png,x,\n{cell},x,\n"))
    assert keys(listing) == ["set/1.png"]
    assert reason in only_refusal(listing).reason
    assert only_refusal(listing).path == printable(cell)


def test_a_row_whose_mask_is_missing_is_refused(tmp_path):
    root = dataset(tmp_path / "set", "1.png", "2.png", "m.png")
    listing = read_manifest(
        manifest(root, "image,class,mask\n1.png,x,m.png;n.png\n2.png,x,m.png\n")
    )
    assert keys(listing) == ["set/2.png"]
    assert only_refusal(listing).path == "n.png"


def test_an_absolute_path_may_lie_elsewhere(tmp_path):
    outside = picture(tmp_path / "elsewhere/1.png")
    inside = picture(tmp_path / "set/2.png")
    listing = read_manifest(
        manifest(tmp_path / "set", f"image,class\n{outside},x\n{inside},x\n"), dataset="d"
    )
    assert set(keys(listing)) == {f"d{outside}", "d/2.png"}


def test_read_chooses_by_what_the_path_is(tmp_path):
    dataset(tmp_path / "set", "a/1.png", "b/1.png")
    path = manifest(tmp_path / "set", "image,class\na/1.png,x\n")
    assert read(tmp_path / "set").classes == ("a", "b")
    assert read(path.rename(path.with_suffix(".CSV")), dataset="d").classes == ("x",)
    for name in ("missing", "missing.npz", "set/a/1.png"):
        with pytest.raises(InputError, match="expected one subfolder per class"):
            read(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read(tmp_path / "missing.csv")
