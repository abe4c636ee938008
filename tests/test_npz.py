"""NPZ files as MedMNIST publishes them, honest ones and hostile ones."""

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from commands import command, works

import augkit as ak
from augkit.errors import InputError
from augkit.ingestion.decode import Target
from augkit.ingestion.layouts import read
from augkit.ingestion.npz import read_npz
from augkit.partitions import GIVEN

SIZES = {"train": 14, "val": 4, "test": 6}


def arrays(channels: int = 1, side: int = 28) -> dict[str, np.ndarray]:
    """Return noise under the names of MedMNIST, two classes in turn."""
    rng = np.random.default_rng(0)
    found = {}
    for part, n in SIZES.items():
        shape = (n, side, side, *([channels] if channels > 1 else []))
        found[f"{part}_images"] = rng.integers(0, 256, shape, np.uint8)
        found[f"{part}_labels"] = (np.arange(n) % 2)[:, None].astype(np.uint8)
    return found


def saved(path: Path, given: dict[str, np.ndarray] | None = None) -> Path:
    np.savez_compressed(path, **(arrays() if given is None else given))
    return path


def raw(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write an archive of bytes as they are."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    text = header.encode()
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def plain(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_an_archive_comes_in_pixel_for_pixel_in_its_own_size_and_colours(tmp_path, channels):
    given = arrays(channels)
    report = ak.ingest(saved(tmp_path / "med.npz", given), tmp_path / "m.store")
    assert report.info.values["image"] == {"height": 28, "width": 28, "channels": channels}
    snapshot = ak.open(tmp_path / "m.store").snapshot()
    assert snapshot.classes == ("0", "1")
    stored = dict(zip(snapshot.real.keys.tolist(), snapshot.inspect()[:], strict=True))
    for part, n in SIZES.items():
        for row in range(n):
            image = given[f"{part}_images"][row].reshape(28, 28, channels)
            assert np.array_equal(stored[f"med/{part}/{row:06d}"], image)


def test_labels_masks_names_and_parts_stay_with_their_images(tmp_path):
    given = arrays()
    given["classes"] = np.array(["benign", "malignant"])
    given["test_masks"] = np.zeros((6, 28, 28), np.uint8)
    given["test_masks"][2, 4:9, 5:20] = 1
    ak.ingest(saved(tmp_path / "med.npz", given), tmp_path / "m.store")
    snapshot = ak.open(tmp_path / "m.store").snapshot()
    real = snapshot.real
    for key, label, part in zip(real.keys.tolist(), real.labels, real.given, strict=True):
        _, name, row = key.split("/")
        assert label == given[f"{name}_labels"][int(row), 0]
        assert part == list(SIZES).index(name)
    masks, masked = snapshot.inspect().masks(slice(None))
    assert real.keys[masked].tolist() == ["med/test/000002"]
    assert np.array_equal(masks[masked][0] > 0, given["test_masks"][2] > 0)
    assert snapshot.classes == ("benign", "malignant")
    assert snapshot.count_by_part(GIVEN) == {"train": 14, "validation": 4, "test": 6}


def test_the_same_archive_again_is_a_no_op_and_a_changed_one_is_refused(tmp_path):
    path = saved(tmp_path / "med.npz")
    ak.ingest(path, tmp_path / "m.store")
    assert ak.ingest(path, tmp_path / "m.store").added == 0
    changed = arrays()
    changed["val_images"][3, 0, 0] ^= 1
    with pytest.raises(ak.AugkitError, match=r"med/val/000003 is in .* with other bytes"):
        ak.ingest(saved(path, changed), tmp_path / "m.store")


def test_images_without_a_split_are_read_as_one_set(tmp_path):
    given = {"images": arrays()["train_images"], "labels": np.arange(14) % 2}
    listing = read_npz(saved(tmp_path / "one.npz", given))
    assert {source.part for source in listing.sources} == {""}
    assert listing.sources[3].key == "one/images/000003"


def test_texts_may_be_labels(tmp_path):
    given = {"images": arrays()["val_images"], "labels": np.array(["cyst", "fat", "cyst", "fat"])}
    assert read_npz(saved(tmp_path / "one.npz", given)).classes == ("cyst", "fat")


def test_sixteen_bits_go_through_the_window(tmp_path):
    levels = np.arange(64, dtype=np.uint16).reshape(1, 8, 8) * 64
    given = {"images": levels, "labels": np.array([0])}
    listing = read_npz(saved(tmp_path / "deep.npz", given))
    from augkit.ingestion.windowing import Window

    target = Target(8, 8, window=Window.parse("bits"))
    (found,) = listing.pixels.decoded(listing.sources, target)
    assert np.array_equal(found.image[..., 0], np.floor(levels[0] / 4095 * 255 + 0.5))
    with pytest.raises(InputError, match="uses only levels up to 4032 of 65535"):
        list(listing.pixels.decoded(listing.sources, Target(8, 8)))


def test_rows_can_be_read_in_any_choice_and_order(tmp_path):
    given = arrays()
    listing = read_npz(saved(tmp_path / "med.npz", given))
    by_key = {source.key: source for source in listing.sources}
    wanted = ["med/val/000002", "med/train/000009", "med/train/000003", "med/train/000013"]
    found = listing.pixels.decoded([by_key[key] for key in wanted], Target(28, 28))
    for key, each in zip(wanted, found, strict=True):
        _, part, row = key.split("/")
        assert np.array_equal(each.image[..., 0], given[f"{part}_images"][int(row)])


def test_the_command_says_as_what_it_was_read_and_which_split_it_brought(tmp_path):
    saved(tmp_path / "med.npz")
    found = works("ingest", "med.npz", "--store", "m.store", cwd=tmp_path)
    assert (
        "read as: NPZ file with train_images, val_images, test_images (--layout npz)" in found.err
    )
    assert (
        "came with a split of its own, --split given: 14 train, 4 validation, 6 test" in found.out
    )
    assert json.loads(works("info", "--json", cwd=tmp_path).out)["real"]["given"]["rows"] == {
        "train": 14,
        "validation": 4,
        "test": 6,
    }


def test_memory_does_not_grow_with_the_images(tmp_path):
    import tracemalloc

    n, side = 60, 512
    given = {"images": np.zeros((n, side, side), np.uint8), "labels": np.arange(n) % 2}
    listing = read_npz(saved(tmp_path / "large.npz", given))
    del given
    tracemalloc.start()
    for _ in listing.pixels.digests(listing.sources):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < n * side * side / 4


HEADER = "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 8, 8), }\n"
LABELS = plain(np.arange(4) % 2)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"images": npy(HEADER, b"\0" * 255), "labels": LABELS}, "claims 256 bytes and has 255"),
        ({"images": npy(HEADER, b"\0" * 257), "labels": LABELS}, "claims 256 bytes and has 257"),
        (
            {"images": npy(HEADER.replace("4, 8", "2**40, 8")), "labels": LABELS},
            "a header that cannot be read",
        ),
        (
            {"images": npy(HEADER.replace("(4,", "(99999999999,")), "labels": LABELS},
            "claims 6399999999936 bytes and has 0",
        ),
        ({"images": npy(HEADER.replace("(4,", "(-4,")), "labels": LABELS}, "which cannot be"),
        ({"images": npy("[" * 5000), "labels": LABELS}, "a header that cannot be read"),
        ({"images": npy(" " * 20_000), "labels": LABELS}, "is no array that can be read"),
        (
            {"images": npy(HEADER.replace("|u1", "|O"), b"\0" * 256), "labels": LABELS},
            "holds Python objects, which are never loaded",
        ),
        (
            {"images": npy(HEADER.replace("False", "True"), b"\0" * 256), "labels": LABELS},
            "lies column by column",
        ),
        ({"images": b"\x93NUMPY\x03\0", "labels": LABELS}, "is no array that can be read"),
        ({"images": b"", "labels": LABELS}, "is no array that can be read"),
        ({"something": LABELS}, "has no array of images"),
        ({"images": npy(HEADER, b"\0" * 256)}, "has images and no labels"),
    ],
)  # fmt: skip
def test_an_archive_made_to_do_harm_is_refused_before_anything_is_read(tmp_path, members, words):
    with pytest.raises(InputError, match=words.replace("*", r"\*")):
        read(raw(tmp_path / "x.npz", members))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_labels": np.zeros((14, 3), int)}, r"it is \(14, 1\); several labels an image"),
        ({"train_labels": np.zeros(13, int)}, r"for 14 images it is \(14, 1\)"),
        ({"train_labels": np.zeros(14)}, "holds float64; labels are whole numbers or texts"),
        ({"train_labels": np.full(14, -1)}, "holds the label -1; labels count from 0"),
        ({"classes": np.array(["a"])}, "holds the label 1; labels count from 0; there are 1"),
        ({"classes": np.array(["a", "a"])}, "must be different texts"),
        ({"classes": np.array(["a", ""])}, "must be different texts, none of them empty"),
        ({"classes": np.arange(2)}, "classes must be at most 1000 texts"),
        ({"train_images": np.zeros((14, 28, 28))}, "holds float64; images are uint8"),
        ({"train_images": np.zeros((14, 28, 28, 28), np.uint8)}, "volumes are not read"),
        ({"train_images": np.zeros((14, 28), np.uint8)}, r"images are \(N, H, W\)"),
        ({"train_images": np.zeros((14, 4, 4), np.uint8)}, "images of 4x4; sides are 8 to 4096"),
        ({"val_masks": np.zeros((4, 28, 27), np.uint8)}, "val_masks must be uint8 or bool"),
    ],
)
def test_what_makes_no_data_set_is_one_plain_line(tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        read(saved(tmp_path / "x.npz", arrays() | change))


def test_more_labels_than_classes_can_be_are_refused(tmp_path):
    n = 1001
    given = {"images": np.zeros((n, 8, 8), np.uint8), "labels": np.arange(n)}
    with pytest.raises(InputError, match="has 1001 different labels"):
        read(saved(tmp_path / "x.npz", given))


def test_a_mask_of_other_levels_is_refused(tmp_path):
    given = arrays() | {"val_masks": np.full((4, 28, 28), 7, np.uint8)}
    with pytest.raises(InputError, match="a mask of other levels than 0 and 1, or 0 and 255"):
        ak.ingest(saved(tmp_path / "x.npz", given), tmp_path / "m.store")


def test_a_damaged_image_stops_the_ingest_and_commits_nothing(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, **arrays())
    data = bytearray(path.read_bytes())
    place = data.index(arrays()["test_images"][3].tobytes())
    data[place] ^= 1
    path.write_bytes(data)
    found = command("ingest", "x.npz", "--store", "m.store", cwd=tmp_path)
    assert found.code == 2 and "is no NPZ file, or damaged; copy it again" in found.err
    assert (
        not (tmp_path / "m.store").exists() or not ak.open(tmp_path / "m.store").snapshot().number
    )


@pytest.mark.parametrize("cut", [0, 10, 400, -30])
def test_a_truncated_archive_is_refused(tmp_path, cut):
    path = saved(tmp_path / "x.npz")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match="is no NPZ file, or damaged"):
        read(path)


def test_other_ways_of_compression_are_refused(tmp_path):
    members = {"images": npy(HEADER, b"\0" * 256), "labels": LABELS}
    path = raw(tmp_path / "x.npz", members, zipfile.ZIP_LZMA)
    with pytest.raises(InputError, match="compressed in a way that is not read"):
        read(path)


def test_an_array_that_comes_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", npy(HEADER, b"\0" * 256))
        archive.writestr("labels.npy", LABELS)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("labels.npy", LABELS)
    with pytest.raises(InputError, match="holds the array labels twice"):
        read(tmp_path / "x.npz")


@pytest.mark.parametrize("name", ["labels", "classes"])
@pytest.mark.parametrize("letter", [b"\xff\xff\xff\xff", b"\0\xd8\0\0"])
def test_texts_of_no_characters_are_refused(tmp_path, name, letter):
    header = "{'descr': '<U1', 'fortran_order': False, 'shape': (%d,), }\n"
    n = 8 if name == "labels" else 2
    members = {"images": plain(np.zeros((8, 28, 28), np.uint8))}
    members["labels"] = plain(np.arange(8) % 2)
    members[name] = npy(header % n, letter * n)
    with pytest.raises(InputError, match=r"no text|different texts"):
        read(raw(tmp_path / "x.npz", members))
