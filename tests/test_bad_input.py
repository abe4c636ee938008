"""Whatever a user does wrong: one plain line, exit code 2, nothing written."""

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import command, works
from PIL import Image

import augkit as ak
from augkit.testing import write_phantoms

NEW = "--store new.store"
OLD = "--store breast.store"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets, good and bad, and stores. No test changes it: each checks that."""
    root = tmp_path_factory.mktemp("lab")
    good = write_phantoms(root / "breast", 6, height=40, width=48)
    works("ingest", good, "--size", "48x40", *OLD.split(), cwd=root)
    works("augment", "--plugin", "flip", *OLD.split(), cwd=root)
    make_bad_folders(root, good)
    make_bad_manifests(root)
    make_bad_stores(root)
    return root


def make_bad_folders(root: Path, good: Path) -> None:
    (root / "empty").mkdir()
    for name in ("lonely", "hollow", "text", "truncated", "changed/breast", "unreadable", "wordy"):
        shutil.copytree(good, root / name)
    for file in (root / "lonely/normal").iterdir():
        if not file.name.startswith("normal (1)"):
            file.unlink()
    for file in (root / "hollow/normal").iterdir():
        file.unlink()
    (root / "text/benign/notes.png").write_text("no image at all")
    comment = b"#" + b"x" * 100_000
    (root / "wordy/benign/scan.pgm").write_bytes(b"P5 " + comment + b"\n8 8 255\n" + bytes(64))
    cut = root / "truncated/benign/benign (1).png"
    cut.write_bytes(cut.read_bytes()[:-200])
    Image.new("L", (48, 40), 9).save(root / "changed/breast/malignant/malignant (2).png")
    for file in (root / "unreadable").rglob("*.png"):
        file.write_text("none of these is an image")


def make_bad_manifests(root: Path) -> None:
    image = "breast/benign/benign (1).png"
    manifests = {
        "no-class.csv": f"image,kind\n{image},benign\n",
        "no-rows.csv": "image,class\n",
        "twice.csv": f"image,class\n{image},benign\n{image},malignant\n",
        "no-files.csv": "image,class\nnothing.png,benign\n",
    }
    for name, text in manifests.items():
        (root / name).write_text(text)
    # The key is that of an image in the store, whose class is another.
    text = "image,class,dataset\nbenign/benign (1).png,malignant,breast\n"
    (root / "changed/breast/relabelled.csv").write_text(text)


def make_bad_stores(root: Path) -> None:
    for name in ("future.store", "two/a.store", "two/b.store"):
        shutil.copytree(root / "breast.store", root / name)
    described = json.loads((root / "future.store/store.json").read_text())
    (root / "future.store/store.json").write_text(json.dumps({**described, "format": 99}))
    (root / "notes.txt").write_text("no store")
    works("pack", "breast.h5", *OLD.split(), cwd=root)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return every file with its bytes, and every folder."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
    }


def refused(line: str | list[str], folder: Path, *words: str) -> None:
    """Hold a command line against everything that the refusal of one must be."""
    before = contents(folder)
    outcome = command(*(shlex.split(line) if isinstance(line, str) else line), cwd=folder)
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("augkit: ")
    assert outcome.err.count("\n") == 1 and outcome.err.endswith("\n")
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.err
    assert contents(folder) == before


BAD_FOLDERS = [
    ("nowhere", "nowhere does not exist", "one subfolder per class"),
    ("empty", "empty holds no subfolder with images", "one subfolder per class"),
    ("lonely", "class 'normal' has 1 image in 1 usable group", "at least 2 groups", "add images"),
    ("hollow", "hollow/normal holds no image", "add images or remove the folder"),
    ("text", "benign/notes.png", "is no image of a known format", "--skip-bad"),
    ("text --size 48x40", "1 file", "benign/notes.png", "Nothing was committed", "--skip-bad"),
    ("truncated", "benign/benign (1).png: is truncated", "Nothing was committed", "--skip-bad"),
    ("wordy", "benign/scan.pgm: holds more comments than a picture needs", "save it again"),
    ("unreadable --skip-bad", "none of the 18 files can be read", "nothing was committed"),
    ("unreadable --skip-bad --size 48x40", "none of the 18 files", "nothing was committed"),
    ("breast/benign", "breast/benign holds no subfolder", "one subfolder per class"),
    ("notes.txt", "is neither a folder nor a .csv, .npz or .tar file", "one subfolder per class"),
    ("no-class.csv", "no-class.csv has no column class or label", "it has: image, kind"),
    ("no-rows.csv", "no-rows.csv lists no image", "a line of column names"),
    ("twice.csv", "twice.csv, line 3", "which line 2 lists already", "keep one of them"),
    ("no-files.csv", "no-files.csv lists no image that can be read", "nothing.png is no file"),
]


@pytest.mark.parametrize(("source", "words"), [(f, w) for f, *w in BAD_FOLDERS])
def test_a_bad_data_set_is_refused_and_leaves_no_store(lab, source, words):
    refused(f"ingest {source} {NEW}", lab, *words)


@pytest.mark.seconds
@pytest.mark.parametrize("source", ["empty", "hollow", "text", "truncated", "no-class.csv"])
@pytest.mark.parametrize("store", [OLD, "--store breast.h5"])
def test_a_bad_data_set_leaves_a_store_as_it_was(lab, source, store):
    refused(f"ingest {source} {store} --dataset other", lab)


@pytest.mark.parametrize("size", ["", "big", "96", "-8x40", "1e3x40", "96x80x1"])
def test_a_size_that_is_none_is_refused(lab, size):
    words = (f"size '{size}' is not understood", "width x height", "192x160")
    refused(["ingest", "breast", "--size", size, *NEW.split()], lab, *words)


@pytest.mark.parametrize("size", ["4x40", "48x0", "999999x40"])
def test_a_size_out_of_range_is_refused(lab, size):
    refused(f"ingest breast --size {size} {NEW}", lab, "must be 8 to 4096 pixels")


BAD_INGESTS = [
    (f"breast {OLD} --size 64x64", "breast.store holds grey images of 48x40", "--store PATH"),
    (f"breast {OLD} --colour", "breast.store holds grey images", "another store, --store PATH"),
    (f"changed/breast {OLD}", "breast/malignant/malignant (2).png", "other bytes", "--dataset"),
    (f"changed/breast/relabelled.csv {OLD}", "another class", "--dataset NAME"),
    ("breast --store notes.txt", "notes.txt exists already", "choose another"),
    ("breast --store empty/hidden/x.h5", "there is no folder"),
    ("breast --store future.store", "format version 99", "use the augkit that wrote it"),
    (f"breast {NEW} --dataset a/b", "'a/b' cannot name a data set", "--dataset NAME"),
    (f"breast {NEW} --fit squash", "'squash'", "'stretch', 'pad'", "--help"),
    (f"breast {NEW} --conflicts maybe", "'maybe'", "'drop', 'keep'"),
    (f"breast {NEW} --start-method magic", "'magic'", "'threads'"),
    (f"breast {NEW} --workers 0", "workers is 0; it must be at least 1"),
    (f"breast {NEW} --workers many", "'many'", "integer"),
]


@pytest.mark.parametrize(("line", "words"), [(f, w) for f, *w in BAD_INGESTS])
def test_a_bad_ingest_is_refused(lab, line, words):
    refused(f"ingest {line}", lab, *words)


BAD_STORES = [
    ("--store nowhere.store", "there is no store at nowhere.store", "augkit ingest FOLDER"),
    ("--store future.store", "future.store", "format version 99", "use the augkit that wrote it"),
    ("--store notes.txt", "notes.txt is no augkit store"),
    ("--store empty", "empty is no augkit store"),
    (f"--store {'a' * 5000}", "aaa...: the name is too long; give a shorter one"),
]


@pytest.mark.parametrize(
    "verb",
    [
        "info",
        "augment --plugin flip",
        "evaluate --classifier linear",
        "preview",
        "verify",
        "retract flip",
        "pack copy.h5",
    ],
)
@pytest.mark.parametrize(("store", "words"), [(f, w) for f, *w in BAD_STORES])
def test_a_store_that_cannot_be_used_is_refused(lab, verb, store, words):
    refused(f"{verb} {store}", lab, *words)


@pytest.mark.parametrize("verb", ["info", "ingest ../breast", "augment --plugin flip", "verify"])
def test_several_stores_are_listed_to_choose_from(lab, verb):
    before = contents(lab)
    refused(verb, lab / "two", "several stores", "a.store, b.store", "--store PATH")
    assert contents(lab) == before


@pytest.mark.parametrize("verb", ["info", "augment --plugin flip", "evaluate --classifier linear"])
def test_a_folder_without_a_store_is_named(lab, verb):
    refused(verb, lab / "empty", "no store in", "empty", "--store PATH", "augkit ingest")


def test_a_store_named_by_the_environment_must_be_there(lab, monkeypatch):
    monkeypatch.setenv("AUGKIT_STORE", "gone.store")
    refused("info", lab, "there is no store at gone.store", "augkit ingest FOLDER")


BAD_AUGMENTS = [
    ("--plugin flop", "no augmenter 'flop'", "did you mean 'flip'?", "copy, dagan, flip"),
    ("--plugin zoom+", "no augmenter ''", "there are: brightness"),
    ("--plugin linear", "no augmenter 'linear'", "there are: brightness"),
    ("--plugin zoom -o sides=1", "no option 'sides'", "zoom: side_range, exact"),
    ("--plugin zoom -o side_range", "-o side_range is not KEY=VALUE", "augkit plugins"),
    ("--plugin zoom -o side_range=wide,1", "side_range", "'wide'", "a number"),
    ("--plugin zoom -o side_range=1,0.5", "side_range", "the smaller end comes first"),
    ("--plugin zoom -o side_range=0.5,7", "side_range", "7", "at most"),
    ("--plugin zoom -o side_range=nan,1", "side_range", "a number"),
    ("--plugin zoom -o exact=maybe", "'maybe'", "true or false"),
    ("--plugin zoom -o flip.exact=true", "no option 'flip.exact'"),
    ("--plugin flip -o strength=2", "no option 'strength'", "flip: none"),
    ("--plugin zoom --n 0", "n is 0; it must be at least 1"),
    ("--plugin zoom --n -4", "n is -4; it must be at least 1"),
    ("--plugin zoom --n 1000000000000", "n is 1000000000000", "at most 100000000"),
    (f"--plugin {'+'.join(['flip'] * 120)}", "could not be read again", "take shorter names"),
    ("--plugin zoom --n many", "'many'", "integer", "augkit augment --help"),
    ("--plugin zoom --total 0", "total is 0; it must be at least 1"),
    ("--plugin zoom --n 1 --total 2", "--n", "--total", "not both"),
    ("--plugin flip --n 100", "makes one image of each source", "or fewer", "flip+zoom"),
    ("--plugin zoom --seed -1", "seed is -1; it must be at least 0"),
    ("--plugin zoom --run flip", "'flip' exists already", "breast.store", "augkit retract flip"),
    ("--plugin zoom --run all", "'all' is the name of an arm; choose another"),
    ("--plugin zoom --run a/b", "'a/b'", "letters, digits"),
    ("--plugin zoom --plugin scale --run x", "--run is for one run"),
    ("--plugin zoom --plugin scale --weights x", "--weights is for one run"),
    ("--plugin zoom --budget 30m", "zoom learn nothing: --budget is for plugins that do"),
    ("--plugin zoom --reject-copies", "zoom learn nothing: --reject-copies is for plugins that do"),
    ("--plugin zoom --workers 0", "workers is 0; it must be at least 1"),
    ("--plugin zoom --workers 1000000000", "workers is 1000000000", "at most 2048"),
    ("", "missing option '--plugin'", "augkit augment --help"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "words"), [(f, w) for f, *w in BAD_AUGMENTS])
def test_a_bad_augment_is_refused(lab, line, words):
    refused(f"augment {line} {OLD}", lab, *words)


def test_of_several_plugins_none_runs_if_one_is_wrong(lab):
    refused(f"augment --plugin zoom --plugin flop {OLD}", lab, "no augmenter 'flop'")
    refused(f"augment --plugin zoom --plugin flip --n 100 {OLD}", lab, "flip has nothing")


BAD_EVALUATIONS = [
    ("--classifier linaer", "no classifier 'linaer'", "did you mean 'linear'?"),
    ("--classifier linear -o depth=3", "linear has no option 'depth'", "C, class_weight"),
    ("--classifier linear -o C=-1", "'C' of linear is -1.0", "at least"),
    ("--classifier linear -o C=big", "'C' of linear is 'big'", "a number"),
    ("--classifier linear --split 70/20/20", "'70/20/20'", "add up to 100", "70/15/15"),
    ("--classifier linear --split 71/14/15", "'71/14/15'", "steps of 5", "70/15/15"),
    ("--classifier linear --split half", "'half'", "70/15/15"),
    ("--classifier linear --folds 3", "folds is 3", "2, 4, 5, 10, 20"),
    ("--classifier linear --folds five", "'five'", "integer"),
    ("--classifier linear --folds 5 --split 70/15/15", "--split or --folds, not both"),
    ("--classifier linear --repeats 0", "repeats is 0; it must be at least 1"),
    ("--classifier linear --repeats 1000000000", "repeats is 1000000000", "at most 1000"),
    ("--classifier linear --seeds 0", "seeds is 0; it must be at least 1"),
    ("--classifier linear --arms real,rotate", "no arm 'rotate'", "real, traditional, all, flip"),
    ("--classifier linear --real-share 0", "real share is 0.0", "at most 1"),
    ("--classifier linear --protocol lenient", "'lenient'", "augkit", "paper"),
    ("--classifier resnet --device gpu", "no device 'gpu' here", "cpu"),
    ("--classifier resnet -o depth=51", "'depth' of resnet is '51'", "18, 34, 50, 101, 152"),
    ("--classifier resnet -o weights=gone.pth", "no weights file gone.pth", "imagenet, none"),
    ("--classifier resnet -o input_size=big", "'input_size' of resnet is 'big'", "224x224"),
    ("--classifier resnet -o weights=none -o input_size=20x40", "at least 32 pixels a side"),
    ("--classifier resnet -o weights=none -o train=head", "a body of random numbers", "train=all"),
    ("--classifier alexnet -o variant=paper -o weights=imagenet", "variant=paper of alexnet"),
    ("--classifier timm -o model=nosuch", "timm has no network 'nosuch'"),
    ("--classifier svm -o weights=auto", "'weights' of svm is 'auto'", "imagenet"),
    ("--classifier texture -o machine=adaboost -o C=1", "takes neither C nor kernel"),
    ("", "missing option '--classifier'", "augkit evaluate --help"),
]


@pytest.mark.seconds
@pytest.mark.parametrize(("line", "words"), [(f, w) for f, *w in BAD_EVALUATIONS])
def test_a_bad_evaluate_is_refused(lab, line, words):
    refused(f"evaluate {line} {OLD}", lab, *words)


BAD_OTHERS = [
    (f"retract zoom {OLD}", "no run 'zoom'", "its runs: flip"),
    (f"retract {OLD}", "missing argument 'RUN'", "augkit retract --help"),
    (f"preview --run zoom {OLD}", "no run 'zoom'", "its runs: flip"),
    (f"preview --n 0 {OLD}", "n is 0; it must be at least 1"),
    (f"preview --seed -1 {OLD}", "--seed", "-1"),
    (f"preview --output nodir/x.png {OLD}", "cannot write nodir/x.png"),
    (f"info --rows nodir/x.csv {OLD}", "cannot write nodir/x.csv"),
    (f"pack copy.zip {OLD}", "a packed store ends in .h5; copy.zip does not"),
    (f"pack breast.h5 {OLD}", "breast.h5 exists already", "choose another name"),
    (f"pack nodir/x.h5 {OLD}", "there is no folder nodir"),
    ("unpack nowhere.h5 folder", "there is no store at nowhere.h5"),
    ("unpack notes.txt folder", "notes.txt is no augkit store"),
    ("unpack breast.h5 breast", "breast exists already", "choose another name"),
    ("demo breast", "breast is not empty", "augkit demo FOLDER"),
    ("ingest", "missing argument 'SOURCE'", "augkit ingest --help"),
    ("info breast", "unexpected extra argument (breast)", "augkit info --help"),
    ("info --fast", "no such option '--fast'", "augkit info --help"),
    ("info --store", "'--store' requires an argument"),
    ("imagine", "no such command 'imagine'", "augkit --help"),
    ("--loud", "no such option '--loud'", "augkit --help"),
    ("", "which command?", "augkit --help"),
]


@pytest.mark.parametrize(("line", "words"), [(f, w) for f, *w in BAD_OTHERS])
def test_any_other_bad_command_line_is_refused(lab, line, words):
    refused(line, lab, *words)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere: read-only is NOT tested here")
@pytest.mark.parametrize("line", ["ingest ../breast", "augment --plugin zoom --store x.store"])
def test_a_read_only_folder_is_named(lab, tmp_path, line):
    shutil.copytree(lab / "breast", tmp_path / "breast")
    shutil.copytree(lab / "breast.store", tmp_path / "locked/x.store")
    if line.startswith("ingest"):
        shutil.rmtree(tmp_path / "locked/x.store")
    folders = [tmp_path / "locked", *(p for p in (tmp_path / "locked").rglob("*") if p.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        refused(line, tmp_path / "locked", "cannot write to", "store")
    finally:
        for folder in folders:
            folder.chmod(0o755)


def in_a_process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("augkit")
    return subprocess.run([script, *arguments], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize(
    "line",
    [
        "ingest nowhere",
        "augment --plugin flop --store breast.store",
        "imagine",
        "",
    ],
)
def test_a_real_process_ends_in_one_line_and_2(lab, line):
    before = contents(lab)
    done = in_a_process(*shlex.split(line), cwd=lab)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("augkit: ") and done.stderr.count("\n") == 1
    assert contents(lab) == before


def test_verbose_shows_where_an_error_came_from(lab):
    done = in_a_process("--verbose", "ingest", "nowhere", cwd=lab)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "nowhere does not exist" in done.stderr


ODD_NAMES = [
    "with  spaces", "it's \"quoted\"", "two\nlines", "[brackets] (1) {a}", "x" * 200, "$HOME;`ls`",
    "-dash", "Grüße 乳房", "%s %d", "tab\there",
]  # fmt: skip


def picture(path: Path, seed: int) -> Path:
    """Write a grey PNG that resembles no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (80, 96), np.uint8)
    Image.fromarray(noise).save(path, format="PNG")
    return path


def test_odd_names_are_read_kept_and_printed_on_one_line(tmp_path):
    for i, name in enumerate(ODD_NAMES):
        picture(tmp_path / "odd" / "a" / f"{name}.png", i)
        picture(tmp_path / "odd" / "b" / f"{name}.png", 100 + i)
    report = works("ingest", "odd", "--json", cwd=tmp_path).json
    assert report["real"]["rows"] == 2 * len(ODD_NAMES)
    works("info", "--rows", "rows.csv", cwd=tmp_path)
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        keys = {row["key"] for row in csv.DictReader(file)}
    assert keys == {f"odd/{c}/{name}.png" for c in "ab" for name in ODD_NAMES}
    assert works("verify", cwd=tmp_path).out.rstrip().endswith("sound")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_bad_file_of_an_odd_name_is_named_on_one_line(tmp_path, name):
    for label in "ab":
        for i in range(2):
            picture(tmp_path / "odd" / label / f"{i}.png", i)
    (tmp_path / "odd" / "a" / f"{name}.png").write_text("no image")
    shown = name.replace("\n", "\\n").replace("\t", "\\t")
    refused("ingest odd", tmp_path, f"{shown}.png", "is no image of a known format", "--skip-bad")


def test_odd_names_of_folders_are_shown_on_one_line(tmp_path):
    refused(["ingest", "no\nsuch\x1b[31mfolder"], tmp_path, "does not exist", "\\n")
    refused(["info", "--store", "no\nsuch"], tmp_path, "no\N{REPLACEMENT CHARACTER}such")


def formats(root: Path) -> dict[str, int]:
    """Write the same ramp in many forms; return file -> grey level expected at its left end."""
    ramp = np.tile(np.linspace(40, 200, 64).astype(np.uint8), (48, 1))
    grey = Image.fromarray(ramp)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown a quarter turn clockwise
    files = {
        "sixteen.png": Image.fromarray(ramp.astype(np.uint16) * 257),
        "palette.png": grey.convert("P"),
        "rgba.png": Image.merge("RGBA", [grey, grey, grey, Image.new("L", grey.size, 255)]),
        "cmyk.jpg": grey.convert("RGB").convert("CMYK"),
        "two-levels.bmp": grey.point(lambda v: 255 * (v > 39)).convert("1"),
    }
    root.mkdir(parents=True)
    for name, image in files.items():
        image.save(root / name)
    grey.transpose(Image.Transpose.ROTATE_90).save(root / "exif.jpg", exif=turned, quality=95)
    return {**dict.fromkeys([*files, "exif.jpg"], 40), "two-levels.bmp": 255}


def test_images_of_every_mode_come_in_upright_and_with_their_grey_levels(tmp_path):
    expected = formats(tmp_path / "modes" / "a")
    for i in range(3):
        picture(tmp_path / "modes" / "b" / f"{i}.png", i)
        picture(tmp_path / "modes" / "a" / f"{i}.png", 10 + i)
    report = works("ingest", "modes", "--size", "64x48", "--json", cwd=tmp_path).json
    assert report["real"]["by_class"] == {"a": 9, "b": 3}

    snapshot = ak.open(tmp_path / "augkit.store").snapshot()
    for key, image in zip(snapshot.real.keys.tolist(), snapshot.inspect()[:], strict=True):
        name = key.rpartition("/")[2]
        if name in expected:
            assert abs(int(image[24, 1, 0]) - expected[name]) <= 6, name
            assert int(image[24, -2, 0]) >= 190, name


def test_an_image_of_one_pixel_shows_nothing_and_is_refused(tmp_path):
    for i in range(2):
        picture(tmp_path / "set" / "a" / f"{i}.png", i)
        picture(tmp_path / "set" / "b" / f"{i}.png", 10 + i)
    Image.new("L", (1, 1), 77).save(tmp_path / "set" / "b" / "dot.png")
    ended = command("ingest", "set", cwd=tmp_path)
    assert ended.code == 2
    assert "b/dot.png: has 1x1 pixels; an image needs at least 8 on each side" in ended.err
    assert not (tmp_path / "augkit.store").exists()
    found = works("ingest", "set", "--skip-bad", "--json", cwd=tmp_path).json
    assert found["real"]["rows"] == 4
    assert found["refused"][0]["path"] == "b/dot.png"


def test_with_skip_bad_unreadable_files_are_listed_and_the_rest_comes_in(lab, tmp_path):
    shutil.copytree(lab / "truncated", tmp_path / "breast")
    (tmp_path / "breast/normal/notes.png").write_text("no image")
    (tmp_path / "breast/stray.png").write_bytes((tmp_path / "breast/normal/notes.png").read_bytes())
    report = works("ingest", "breast", "--skip-bad", "--json", cwd=tmp_path).json
    found = {refusal["path"]: refusal["reason"] for refusal in report["refused"]}
    assert set(found) == {"benign/benign (1).png", "normal/notes.png", "stray.png"}
    assert "truncated" in found["benign/benign (1).png"]
    assert "no class" in found["stray.png"]
    assert (report["real"]["rows"], report["added"]) == (17, 17)


def test_skip_bad_twice_is_a_no_op(lab, tmp_path):
    shutil.copytree(lab / "truncated", tmp_path / "breast")
    works("ingest", "breast", "--skip-bad", cwd=tmp_path)
    before = contents(tmp_path)
    again = works("ingest", "breast", "--skip-bad", cwd=tmp_path)
    assert "nothing to do" in again.out and "is truncated" in again.out
    assert contents(tmp_path) == before


def test_skip_bad_does_not_leave_a_class_without_images(lab, tmp_path):
    shutil.copytree(lab / "breast", tmp_path / "breast")
    for file in (tmp_path / "breast/normal").glob("*).png"):
        file.write_text("no image")
    refused("ingest breast --skip-bad", tmp_path, "class 'normal' has 0 images", "add images")
