"""WebDataset: samples in tar files."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import images

import augkit as ak
from augkit.errors import InputError
from augkit.ingestion.layouts import read
from augkit.ingestion.tars import read_tars


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(images(1, seed)[0, ..., 0]).save(file, "PNG")
    return file.getvalue()


def tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def sample(name: str, seed: int, label: int) -> dict[str, bytes]:
    return {f"{name}.cls": b"%d" % label, f"{name}.png": png(seed)}


def test_samples_come_in_with_class_part_and_pixels(tmp_path):
    root = tmp_path / "set"
    tar(root / "train-000000.tar", sample("a/1", 1, 0) | sample("a/2", 2, 1))
    tar(root / "train-000001.tar", sample("a/1", 3, 0) | sample("b", 4, 1))
    tar(root / "val-000000.tar", sample("c", 5, 0) | sample("d", 6, 1))
    listing = read(root)
    assert [(s.key, s.label, s.part) for s in listing.sources] == [
        ("set/train-000000.tar/a/1.png", "0", "train"),
        ("set/train-000000.tar/a/2.png", "1", "train"),
        ("set/train-000001.tar/a/1.png", "0", "train"),
        ("set/train-000001.tar/b.png", "1", "train"),
        ("set/val-000000.tar/c.png", "0", "validation"),
        ("set/val-000000.tar/d.png", "1", "validation"),
    ]
    ak.ingest(root, tmp_path / "t.store", size="32x24", workers=2, start_method="fork")
    stored = ak.open(tmp_path / "t.store").snapshot().inspect()[:]
    for seed, image in enumerate(stored, 1):
        assert np.array_equal(image, images(1, seed)[0])
    assert ak.ingest(root, tmp_path / "t.store").added == 0


def test_json_names_class_group_and_part(tmp_path):
    about = {"class": "cyst", "patient": "p1", "split": "test", "part": "test"}
    path = tar(tmp_path / "all.tar", {"1.json": json.dumps(about).encode(), "1.jpg": png(1)})
    (source,) = read(path).sources
    assert (source.label, source.group, source.part) == ("cyst", "p1", "test")


def test_what_is_no_sample_is_passed_over(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as file:
        for name, kind in (("l.png", tarfile.SYMTYPE), ("d.png", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            file.addfile(member)
        for name, content in (sample("1", 1, 0) | {"README": b"x", "n.txt": b"x"}).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    assert [s.key.rpartition("/")[2] for s in read(path).sources] == ["1.png"]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"1.png": png(1)}, "has no class: neither .cls, nor class or label in .json"),
        ({"1.json": b"{", "1.png": png(1)}, "1.json is no JSON"),
        ({"1.json": b"[]", "1.png": png(1)}, "1.json is no JSON object"),
        ({"1.json": b"[" * 100_000, "1.png": png(1)}, "1.json is no JSON"),
        ({"1.cls": b"0" * (2**20 + 1), "1.png": png(1)}, "1.cls is too large"),
        ({"1.txt": b"x"}, "holds no real image"),
    ],
)
def test_bad_samples_are_one_plain_line(tmp_path, members, words):
    with pytest.raises(InputError, match=words):
        read_tars(tar(tmp_path / "x.tar", members))


def test_a_sample_that_comes_twice_is_refused(tmp_path):
    path = tmp_path / "x.tar"
    tar(path, sample("1", 1, 0) | sample("2", 2, 0))
    with tarfile.open(path, "a") as file:
        member = tarfile.TarInfo("1.png")
        member.size = len(png(1))
        file.addfile(member, io.BytesIO(png(1)))
        member = tarfile.TarInfo("1.cls")
        member.size = 1
        file.addfile(member, io.BytesIO(b"0"))
    with pytest.raises(InputError, match=r"holds .*/x\.tar/1\.png a second time"):
        read(path)


def test_a_truncated_or_compressed_tar_is_refused(tmp_path):
    path = tar(tmp_path / "x.tar", sample("1", 1, 0) | sample("2", 2, 0))
    path.write_bytes(path.read_bytes()[:2600])
    with pytest.raises(InputError, match="is truncated; copy it again"):
        read(path)
    packed = tar(tmp_path / "y.tar", sample("1", 1, 0), "w:gz")
    with pytest.raises(InputError, match="is no tar file without compression: unpack it"):
        read(packed)
    (tmp_path / "z.tar").write_bytes(b"x" * 5000)
    with pytest.raises(InputError, match="is no tar file without compression"):
        read(tmp_path / "z.tar")


def test_an_image_that_cannot_be_read_is_named_by_its_place(tmp_path):
    members = sample("1", 1, 0) | sample("2", 2, 1) | {"3.cls": b"0", "3.png": b"nothing"}
    path = tar(tmp_path / "set" / "x.tar", members)
    with pytest.raises(InputError, match=r"x\.tar/3\.png: is no image of a known format"):
        ak.ingest(path, tmp_path / "t.store")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_would_fill_the_memory_is_refused(tmp_path, kind):
    path = tar(tmp_path / "a.tar", {})
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, 2**36
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT))
    with path.open("r+b") as file:
        file.truncate(2**37)  # a hole
    with pytest.raises(InputError, match=r"has a header of 68719476736 bytes"):
        read_tars(path)
