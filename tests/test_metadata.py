"""Hugging Face's imagefolder with metadata.csv or metadata.jsonl."""

import gc
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import images

import augkit as ak
from augkit.errors import InputError
from augkit.ingestion.layouts import read
from augkit.ingestion.metadata import read_metadata


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(images(1, seed)[0, ..., 0]).save(path)


def dataset(root: Path, text: str, *names: str, metadata: str = "metadata.csv") -> Path:
    for i, name in enumerate(names):
        picture(root / name, i)
    (root / metadata).parent.mkdir(parents=True, exist_ok=True)
    (root / metadata).write_text(text, encoding="utf-8")
    return root


def test_metadata_of_the_whole_name_files_in_folders_of_parts(tmp_path):
    root = dataset(
        tmp_path / "set",
        "file_name,label,patient_id,age\ntrain/1.png,a,7,40\nvalidation/2.png,b,,\ndev/3.png,a,7,\n",
        *("train/1.png", "validation/2.png", "dev/3.png", "train/4.png"),
    )
    listing = read(root)
    assert [(s.key, s.label, s.part, s.group) for s in listing.sources] == [
        ("set/dev/3.png", "a", "validation", "7"),
        ("set/train/1.png", "a", "train", "7"),
        ("set/validation/2.png", "b", "validation", None),
    ]
    assert listing.unread == ("age",)
    assert listing.notes == ("1 images that the metadata do not list are left out",)
    assert listing.read_as == "Hugging Face imagefolder with metadata.csv"


def test_metadata_of_each_part_name_files_beside_them(tmp_path):
    root = tmp_path / "set"
    for part in ("train", "test"):
        line = json.dumps({"file_name": "x/1.png", "label": 3, "mask_file_name": "1_m.png"})
        name = f"{part}/metadata.jsonl"
        dataset(root, line + "\n\n", f"{part}/x/1.png", f"{part}/1_m.png", metadata=name)
    first, second = read(root).sources
    assert (first.key, first.part, first.label) == ("set/test/x/1.png", "test", "3")
    assert [mask.name for mask in second.masks] == ["1_m.png"]
    assert read(root).notes == ()


def test_a_list_of_masks_is_merged(tmp_path):
    root = tmp_path / "set"
    rows = [
        {"file_name": f"{i}.png", "class": "ab"[i % 2], "mask": ["l.png", "r.png"]}
        for i in range(4)
    ]
    dataset(root, "\n".join(map(json.dumps, rows)), *(f"{i}.png" for i in range(4)),
            metadata="metadata.jsonl")  # fmt: skip
    for name, box in (("l.png", (0, 0, 8, 24)), ("r.png", (24, 0, 32, 24))):
        mask = Image.new("L", (32, 24))
        mask.paste(255, box)
        mask.save(root / name)
    ak.ingest(root, tmp_path / "t.store", size="32x24")
    masks, masked = ak.open(tmp_path / "t.store").snapshot().inspect().masks(slice(None))
    assert masked.all()
    assert (masks[:, :, :8] == 255).all() and (masks[:, :, 24:] == 255).all()
    assert (masks[:, :, 8:24] == 0).all()


def test_class_goes_before_label_and_folders_name_a_class_where_neither_is(tmp_path):
    root = dataset(
        tmp_path / "a", "file_name,label,class\n1.png,0,cyst\n2.png,1,fat\n", "1.png", "2.png"
    )
    assert read(root).classes == ("cyst", "fat")
    root = dataset(
        tmp_path / "b", "file_name,text\ntrain/x/1.png,-\ny/2.png,-\n", "train/x/1.png", "y/2.png"
    )
    assert read(root).classes == ("x", "y")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lists no real image that can be read"),
        ("file_name,label\n", "lists no real image that can be read"),
        ("file,label\n1.png,a\n", "line 2 has no file_name; its columns are: file, label"),
        ("file_name,label\n1.png,\n", "line 2 has no class: fill in a column"),
        ("file_name,text\n1.png,x\n", "line 2 has no class: fill in a column"),
        ("file_name,label\n1.png,a,b\n", "line 2 has 3 cells where the first line has 2"),
        ("file_name,label\n1.png,a\n./1.png,b\n", "line 3 lists ./1.png again, which .* line 2"),
        ("file_name,label\n../1.png,a\n", "the first: ../1.png leaves the manifest's folder"),
        ("file_name,label\nnone.png,a\n", "the first: none.png is no file"),
        ("file_name,label\nx.exe,a\n", "the first: x.exe does not end in one of"),
        ("file_name,label,part\n1.png,a,fold1\n", "has the part 'fold1'; it must be train"),
        ("file_name,label,dataset\n1.png,a,x/y\n", "'x/y' cannot name a data set"),
        ('file_name,label\n"1.png,a\n', "is no valid CSV"),
    ],
)
def test_bad_metadata_are_one_plain_line(tmp_path, text, words):
    root = dataset(tmp_path / "set", text, "1.png")
    with pytest.raises(InputError, match=words):
        read_metadata(root)


@pytest.mark.parametrize(
    "text", ["{", "[1]", "3", "[" * 100_000, '{"file_name": ' + "9" * 5000 + "}", "x" * 2**21]
)
def test_json_that_is_none_is_one_plain_line(tmp_path, text):
    root = dataset(tmp_path / "set", text, "1.png", metadata="metadata.jsonl")
    with pytest.raises(InputError, match="line 1 is no JSON object on one line"):
        read_metadata(root)


def test_parquet_is_refused_with_what_to_do(tmp_path):
    root = dataset(tmp_path / "set", "PAR1", "1.png", metadata="metadata.parquet")
    with pytest.raises(InputError, match=r"write it as metadata\.csv beside the images"):
        read(root)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    root = dataset(tmp_path / "set", "", "1.png")
    (root / "metadata.csv").write_bytes(b"file_name,label\n1.png,\xff\n")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read(root)


@pytest.mark.parametrize("key", ["other/1.png", "set/", "", "/etc/passwd"])
def test_a_key_is_only_taken_from_an_export_and_within_its_data_set(tmp_path, key):
    text = f"file_name,class,run,row,key\n1.png,a,real,0,{key}\n"
    (source,) = read(dataset(tmp_path / "set", text, "1.png")).sources
    assert source.key == "set/1.png"


def test_generated_rows_never_become_real_ones(tmp_path):
    text = "file_name,class,run\n1.png,a,real\n2.png,a,dagan\n3.png,a,-\n"
    listing = read(dataset(tmp_path / "set", text, "1.png", "2.png", "3.png"))
    assert [s.path.name for s in listing.sources] == ["1.png", "3.png"]
    assert listing.notes == ("1 rows of runs are no real images, and are left out",)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_hugging_face_and_augkit_read_the_same_images_and_labels(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    names = [f"train/{i}.png" for i in range(4)]
    text = "file_name,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(4))
    root = dataset(tmp_path / "set", text, *names, metadata="train/metadata.csv")
    theirs = datasets.load_dataset(
        "imagefolder", data_dir=str(root), split="train", cache_dir=str(tmp_path / "cache")
    )
    ours = read(root).sources
    assert [row["label"] for row in theirs] == [s.label for s in ours]
    for row, source in zip(theirs, ours, strict=True):
        with Image.open(source.path) as image:
            assert np.array_equal(np.asarray(row["image"]), np.asarray(image))
    gc.collect()  # it leaves files to the collector, which warns of them
