"""More of what a user can do wrong: studies, files of every kind, damaged stores, weights, options.

`test_bad_input` has the daily ones; `test_errors` holds the messages against both.
"""

import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from commands import command, works
from PIL import Image
from test_bad_input import refused

from augkit.testing import write_phantoms

OLD = "--store b.store"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and things that are wrong. No test changes it: each checks that."""
    root = tmp_path_factory.mktemp("desk")
    good = write_phantoms(root / "breast", 6, height=40, width=48)
    works("ingest", good, "--size", "48x40", *OLD.split(), cwd=root)
    works("augment", "--plugin", "flip", *OLD.split(), cwd=root)
    works("pack", "b.h5", *OLD.split(), cwd=root)
    studies(root)
    outcomes(root)
    data_sets(root, good)
    manifests(root)
    arrays(root)
    damaged(root)
    weights(root)
    return root


STUDIES = {
    "yaml": "classifiers: [", "list": "- linear", "alias": "classifiers: &a [linear]\narms: *a",
    "key": "classifiers: [linear]\nfoldz: 5", "empty": "classifiers: []",
    "protocol": "classifiers: [linear]\nprotocol: lenient",
    "digits": "classifiers: [linear]\nseeds: 99999999999999999999",
    "kind": "classifiers: [linear]\nseeds: many", "nested": "classifiers: [[linear]]",
    "none": "classifiers: [linear]\ndatasets: {x: []}", "good": "classifiers: [linear]\nfolds: 5",
    "stranger": "classifiers: [linear]\ndatasets: {x: [elsewhere]}",
}  # fmt: skip


def studies(root: Path) -> None:
    for name, text in STUDIES.items():
        (root / f"{name}.yaml").write_text(text)
    (root / "large.yaml").write_text("#" * (2**20 + 1))


BAD_STUDIES = [
    ("", "name a YAML file, or give --preset paper"),
    ("nothing.yaml", "cannot read nothing.yaml", "name a YAML file"),
    ("breast", "breast is no file that can be read", "name a YAML file"),
    ("large.yaml", "large.yaml is larger than a study can be", "split it"),
    ("yaml.yaml", "yaml.yaml is no YAML", "docs/studies.md"),
    ("alias.yaml", "alias.yaml is no YAML", "write the values out"),
    ("list.yaml", "list.yaml holds no study: it needs a list of classifiers"),
    ("key.yaml", "there is no key 'foldz'", "the keys are: ", "folds"),
    ("empty.yaml", "name at least one classifier"),
    ("protocol.yaml", "protocol is", "lenient", "it must be augkit or paper"),
    ("digits.yaml", "seeds must be a number of fewer digits"),
    ("kind.yaml", "seeds is", "many", "it must be"),
    ("nested.yaml", "is no classifier; write a name"),
    ("none.yaml", "x must name a data set at least"),
    ("stranger.yaml", "no data set 'elsewhere'", "there are: breast"),
    ("good.yaml --task 999", "there is no task 999; there are"),
    ("good.yaml --engine ray --workers 2", "engine 'ray' takes no workers"),
    ("good.yaml --gpus-per-task 1", "engine 'local' takes no", "engine 'ray' does"),
    ("good.yaml --workers 0", "workers is 0; it must be at least 1"),
]


@pytest.mark.parametrize(("line", "words"), [(line, words) for line, *words in BAD_STUDIES])
def test_a_bad_study_is_refused(desk, line, words):
    refused(f"study {line} {OLD}", desk, *words)


def outcomes(root: Path) -> None:
    texts = {"text": "{", "other": '{"kind": "other"}', "broken": '{"kind": "augkit outcome"}'}
    for name, text in texts.items():
        (root / f"{name}.json").write_text(text)
    shutil.copytree(root / "b.store", root / "evaluated.store")
    line = "evaluate --classifier linear --arms real --split 70/15/15 --store evaluated.store"
    works(*line.split(), cwd=root)
    (found,) = (root / "evaluated.store/outcomes").glob("*.json")
    changed = json.loads(found.read_text())
    (root / "changed.json").write_text(json.dumps({**changed, "command": "augkit evaluate"}))


BAD_OTHERS = [
    ("report", "nothing was evaluated yet in b.store", "augkit evaluate --classifier linear"),
    ("report --outcome gone.json", "cannot read gone.json", "outcomes/"),
    ("report --outcome text.json", "text.json is no outcome of augkit", "must be JSON"),
    ("report --outcome other.json", "its kind must be 'augkit outcome'"),
    ("report --outcome broken.json", "broken.json is broken: evaluate again"),
    ("report --outcome changed.json", "changed.json was changed by hand: evaluate again"),
    ("replay --run flip --row 99", "has rows 0 to", "there is no row 99"),
    ("replay --run flip --output x.png", "name it with --row"),
    ("replay --run flip --row 0 --output x.gif", "is written as PNG: --output x.png"),
    ("export out --fold 1", "Give --folds as well"),
    ("export out --folds 5", "Give --fold, 1 to 5"),
    ("export out --folds 5 --fold 9", "fold is 9; it must be 1 to 5"),
    ("export out --arms balanced", "balanced repeats real images"),
    ("export out --arms flip --parts test", "belong to the training part alone"),
    ("export breast", "breast exists already"),
    ("export nodir/out", "there is no folder nodir"),
    ("pack x.txt", "a packed store ends in .h5"),
    ("evaluate --classifier linear --budget 30m", "--budget is for generators that --refit"),
    ("evaluate --classifier linear --primary luck", "the primary metric is 'luck'"),
    ("evaluate --classifier linear --split given", "came with a split of its own"),
    ("evaluate --classifier linear --test-on moon", "no data set 'moon'", "breast"),
    (
        "evaluate --classifier linear --test-on breast --split 70/15/15",
        "takes all of it: no --split, no --folds",
    ),
    ("augment --plugin flip --run again", "the same images are run 'flip' of b.store already"),
    ("augment --plugin flip+dagan --n 2", "only traditional augmenters can be chained"),
    ("augment --plugin dagan", "say how many images dagan is to make: --n"),
    ("augment --plugin dagan --n 2 -o size=big", "'size' of dagan is 'big'", "96x80"),
    ("augment --plugin dagan --n 2 -o size=50x50", "dagan cannot double up to", "-o size="),
    ("augment --plugin dagan --n 2 -o epochs=1 -o steps=1", "epochs or steps, not both"),
    ("augment --plugin dagan --n 2 -o diffaugment=flip,flip", "name each once"),
    ("augment --plugin dagan --n 2 -o widths=8", "'widths' of dagan has 1 numbers", "need"),
    ("augment --plugin brightness -o gain_range=1", "takes 2 values separated by a comma"),
    ("augment --plugin dagan --n 2 --weights gone", "there is no folder gone: --weights"),
    ("augment --plugin dagan --n 2 --weights breast", "does not say what its model was fitted on"),
    ("fit --plugin flip", "flip learns nothing: augkit augment --plugin flip"),
    ("fit --plugin dagan --budget soon", "budget is 'soon'", "30m"),
    ("fit --plugin dagan --device moon", "no device 'moon' here", "Choose with --device"),
]


@pytest.mark.seconds
@pytest.mark.parametrize(("line", "words"), [(line, words) for line, *words in BAD_OTHERS])
def test_another_bad_command_line_is_refused(desk, line, words):
    refused(f"{line} {OLD}", desk, *words)


WITHOUT_STORE = [
    ("unpack b.h5 x.h5", "a store folder must not end in .h5"),
    ("plugin new Tint!", "name is 'Tint!'", "augkit plugin new"),
    ("plugin new tint --folder breast", "breast"),
    ("plugin check breast --timeout 0", "timeout is 0.0; it must be above 0"),
    ("plugin check nowhere", "'nowhere' is", "augkit plugin new NAME"),
    ("demo text.json", "text.json is a file: name a folder, augkit demo FOLDER"),
]


@pytest.mark.parametrize(("line", "words"), [(line, words) for line, *words in WITHOUT_STORE])
def test_a_bad_command_line_that_needs_no_store_is_refused(desk, line, words):
    refused(line, desk, *words)


def test_a_class_that_is_too_small_to_learn_from_is_named(desk, tmp_path):
    shutil.copytree(desk / "b.store", tmp_path / "b.store")
    line = f"augment --plugin dagan --n 2 -o steps=1 -o size=48x40 {OLD}"
    told = command(*line.split(), cwd=tmp_path)
    assert told.code == 2 and "dagan needs at least 8 of each class" in told.err
    assert not re.search(r"\b1 training images", told.err)


def test_a_limit_of_the_cache_that_is_no_number_is_refused(desk, monkeypatch):
    monkeypatch.setenv("AUGKIT_CACHE_LIMIT", "much")
    line = f"evaluate --classifier linear --arms real {OLD}"
    refused(line, desk, "AUGKIT_CACHE_LIMIT is 'much'", "such as 4 or 0.5")


# -- data sets -----------------------------------------------------------------------------------


def data_sets(root: Path, good: Path) -> None:
    grey = Image.new("L", (48, 40), 9)
    for name in ("animated", "mask-size", "mask-level", "deep", "tiny"):
        shutil.copytree(good, root / name)
    grey.save(root / "animated/benign/more.tif", save_all=True, append_images=[grey])
    Image.new("L", (9, 9), 255).save(root / "mask-size/benign/benign (1)_mask.png")
    Image.new("L", (48, 40), 9).save(root / "mask-level/benign/benign (1)_mask.png")
    deep = np.full((40, 48), 300, np.uint16)
    Image.fromarray(deep).save(root / "deep/benign/deep.png")
    Image.new("L", (2, 2)).save(root / "tiny/benign/tiny.png")
    shutil.copytree(good / "benign", root / "single/data/benign")
    shutil.copytree(good / "benign", root / "parts/train/benign")
    (root / "text.tar").write_text("no tar")
    (root / "tarless").mkdir()


def manifests(root: Path) -> None:
    image = "breast/benign/benign (1).png"
    texts: dict[str, bytes] = {
        "latin": "image,class\nGr\xfc\xdfe.png,a\n".encode("latin-1"),
        "ragged": f"image,class\n{image},benign,much\n".encode(),
        "double": f"image,class,label\n{image},benign,benign\n".encode(),
        "part": f"image,class,part\n{image},benign,tomorrow\n".encode(),
        "nul": b"image,class\n\0\0,\0\n",
    }
    for name, text in texts.items():
        (root / f"{name}.csv").write_bytes(text)
    for name, text in {
        "meta-ragged": "file_name,label\na.png,b,c\n", "meta-nameless": "name,label\na.png,b\n",
        "meta-classless": "file_name,size\na.png,3\n",
        "meta-part": "file_name,label,split\na.png,b,x\n",
    }.items():  # fmt: skip
        (root / name).mkdir()
        (root / name / "metadata.csv").write_text(text)
        Image.new("L", (48, 40), 9).save(root / name / "a.png")
    (root / "meta-json").mkdir()
    (root / "meta-json/metadata.jsonl").write_text("[1]\n")
    (root / "short.txt").write_text("abc")


def arrays(root: Path) -> None:
    pixels, labels = np.zeros((4, 40, 48), np.uint8), np.array([0, 0, 1, 1])
    pixels[:, ::2] = 200
    for name, held in {
        "imageless": {"other": labels},
        "labelless": {"train_images": pixels},
        "objects": {"train_images": pixels, "train_labels": np.array([None] * 4, object)},
        "floats": {"train_images": pixels.astype(float), "train_labels": labels},
        "volumes": {"train_images": np.zeros((4, 8, 8, 8, 3), np.uint8), "train_labels": labels},
        "small": {"train_images": np.zeros((4, 4, 4), np.uint8), "train_labels": labels},
        "negative": {"train_images": pixels, "train_labels": labels - 1},
        "several": {"train_images": pixels, "train_labels": np.zeros((4, 3), int)},
        "real": {"train_images": pixels, "train_labels": labels.astype(float)},
    }.items():
        np.savez(root / f"{name}.npz", **held)
    (root / "text.npz").write_text("no archive")


BAD_DATA = [
    ("animated", "holds several pictures (frames or pages); save them one by one"),
    ("mask-size", "is a mask of 9x9 pixels for an image of 48x40", "must be equal"),
    ("mask-level", "a mask whose brightest level is 9; inside must be 255"),
    ("deep", "uses only levels up to 300 of 65535", "--window"),
    ("tiny", "has 2x2 pixels; an image needs at least"),
    ("single", "has one subfolder only", "one subfolder per class"),
    ("latin.csv", "latin.csv is not UTF-8 text; save it as CSV in UTF-8"),
    ("ragged.csv", "ragged.csv, line 2 has 3 cells", "put text with commas in double quotes"),
    ("double.csv", "has the columns", "which mean the same; keep one"),
    ("part.csv", "has the part 'tomorrow'", "train, validation or test"),
    ("short.txt", "short.txt", "one subfolder per class"),
    ("meta-ragged", "has 3 cells where the first line has 2"),
    ("meta-nameless", "has no file_name; its columns are"),
    ("meta-classless", "has no class: fill in a column"),
    ("meta-part", "has the part 'x'; it must be train, validation or test"),
    ("meta-json", "is no JSON object on one line"),
    ("imageless.npz", "has no array of images; expected train_images"),
    ("labelless.npz", "has train_images and no train_labels"),
    ("objects.npz", "holds Python objects, which are never loaded"),
    ("floats.npz", "holds float64; images are uint8"),
    ("volumes.npz", "volumes are not read"),
    ("small.npz", "has images of 4x4; sides are 8 to 4096"),
    ("negative.npz", "holds the label -1; labels count from 0"),
    ("several.npz", "for 4 images it is (4, 1)"),
    ("real.npz", "holds float64; labels are whole numbers or texts"),
    ("text.npz", "text.npz"),
    ("text.tar", "text.tar is no tar file without compression: unpack it"),
    ("tarless --layout webdataset", "holds no .tar file"),
    ("breast --layout npz", "is no .npz file, and no folder with one"),
    ("breast --layout tars", "no layout 'tars'; there are"),
    ("breast --secret short.txt", "--secret is for --keys hash"),
    ("breast --keys hash --secret short.txt", "is no secret: it needs"),
    ("breast --keys hash --secret breast", "cannot be read as a secret"),
    ("breast --group-by patient", "is for DICOM files, and there are none"),
]


@pytest.mark.parametrize(("line", "words"), [(line, words) for line, *words in BAD_DATA])
def test_another_bad_data_set_is_refused(desk, line, words):
    refused(f"ingest {line} --store new.store", desk, *words)


# -- damaged stores ------------------------------------------------------------------------------


def damaged(root: Path) -> None:
    for name in DAMAGE:
        if name.endswith(".h5"):
            shutil.copyfile(root / "b.h5", root / name)
        else:
            shutil.copytree(root / "b.store", root / name)
        DAMAGE[name](root / name)


def _without_shard(store: Path) -> None:
    sorted((store / "shards").iterdir())[0].unlink()
    sorted((store / "shards").iterdir())[0].unlink()


def _flipped_entry(store: Path) -> None:
    path = store / "log/0000000001.json"
    path.write_bytes(path.read_bytes().replace(b"ingest", b"INGEST"))


def _flipped_pixels(store: Path) -> None:
    for path in (store / "shards").iterdir():
        content = bytearray(path.read_bytes())
        with h5py.File(path) as file:
            place = content.index(file["images"][0].tobytes())
        content[place : place + 48] = bytes(255 - b for b in content[place : place + 48])
        path.write_bytes(content)


DAMAGE = {
    "entry-lost.store": lambda s: (s / "log/0000000001.json").unlink(),
    "entry-flipped.store": _flipped_entry,
    "entry-swapped.store": lambda s: shutil.copyfile(
        s / "log/0000000001.json", s / "log/0000000002.json"
    ),
    "shard-lost.store": _without_shard,
    "pixels-flipped.store": _flipped_pixels,
    "no-json.store": lambda s: (s / "store.json").write_text("{"),
    "no-size.store": lambda s: (s / "store.json").write_text('{"format": 1, "image": {}}'),
    "link.store": lambda s: (s / "notes").symlink_to("/etc/hostname"),
    "count.h5": lambda s: s.write_bytes(s.read_bytes().replace(b"commits 2", b"commits x", 1)),
    "cut.h5": lambda s: s.write_bytes(s.read_bytes()[:4000]),
}

BAD_STORES = [
    ("entry-lost.store", "has lost entry 1 of its log", "augkit verify"),
    ("entry-flipped.store", "entry 1 of the log is damaged", "augkit verify"),
    ("entry-swapped.store", "entry 2 of the log does not follow", "augkit verify"),
    ("shard-lost.store", "has lost shard", "augkit verify"),
    ("no-json.store", "is no augkit store: its description is unreadable"),
    ("no-size.store", "does not say what size its images are"),
    ("link.store", "is a link: augkit neither makes nor follows any", "remove it"),
    ("count.h5", "does not say how many commits it holds", "augkit verify"),
    ("cut.h5", "cut.h5"),
]


@pytest.mark.parametrize(("store", "words"), [(store, words) for store, *words in BAD_STORES])
def test_a_damaged_store_is_named_with_what_helps(desk, store, words):
    refused(f"info --store {store}", desk, *words)


def test_flipped_pixels_are_named_with_what_helps(desk):
    line = "export copied --store pixels-flipped.store"
    refused(line, desk, "is damaged at row 0", "augkit verify lists what is affected")


# -- weights -------------------------------------------------------------------------------------


def weights(root: Path) -> None:
    from safetensors.numpy import save_file

    (root / "text.pth").write_text("no weights")
    save_file({"a": np.zeros(3, np.float32)}, root / "other.safetensors")


BAD_WEIGHTS = [
    ("text.pth", "text.pth is not loaded as a weights file", "-o weights=FILE names another"),
    ("other.safetensors", "are the weights of another network"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("file", "words"), [(file, words) for file, *words in BAD_WEIGHTS])
def test_weights_that_are_none_are_refused(desk, file, words):
    line = f"evaluate --classifier resnet -o depth=18 --arms real -o weights={file} {OLD}"
    refused(line, desk, *words)
