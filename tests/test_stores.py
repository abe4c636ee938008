"""Another store as the source of images."""

import numpy as np
import pytest
from commands import command, works
from toys import images, toy_store

import augkit as ak
from augkit.ingestion.decode import Target, fit_array


def copied(tmp_path, source, **flags):
    """Bring a store into a new one; return the snapshots of both, rows in the source's order."""
    report = ak.ingest(source.path, tmp_path / "copy.store", **flags)
    before, after = source.snapshot(), ak.open(tmp_path / "copy.store").snapshot()
    rows = {key: i for i, key in enumerate(after.real.keys.tolist())}
    return before, after, np.array([rows[key] for key in before.real.keys.tolist()]), report


@pytest.mark.seconds
@pytest.mark.parametrize("name", ["a.store", "a.h5"])
def test_images_come_over_pixel_for_pixel_with_all_that_belongs_to_them(tmp_path, name):
    groups = [f"p{i // 3}" for i in range(60)]
    source = toy_store(tmp_path / name, 20, groups=groups, masks=True)
    ak.augment(source, "flip")
    before, after, order, report = copied(tmp_path, source)
    assert report.layout == "store" and after.shape == before.shape and after.runs == {}
    assert np.array_equal(after.inspect()[:][order], before.inspect()[:])
    for one, other in zip(before.inspect().masks(slice(None)),
                          after.inspect().take(order).masks(slice(None)), strict=True):  # fmt: skip
        assert np.array_equal(one, other)
    for column in ("keys", "sha256", "patients", "colour", "masked", "given"):
        assert np.array_equal(getattr(after.real, column)[order], getattr(before.real, column))
    assert np.array_equal(after.source_sizes()[order], before.source_sizes())
    names = np.array(after.classes)[after.real.labels[order]]
    assert names.tolist() == np.array(before.classes)[before.real.labels].tolist()
    assert ak.verify(ak.open(tmp_path / "copy.store")).sound


def test_relatives_that_the_store_knows_stay_relatives(tmp_path):
    source = ak.DatasetStore.create(tmp_path / "a.store", height=24, width=32)
    pixels, labels = images(20), ["a", "b"] * 10
    pixels[7] = pixels[3]
    keys = [f"{i}.png" for i in range(20)]
    ak.ingest_arrays(source, [pixels], labels, keys=keys)
    before, after, order, _ = copied(tmp_path, source, find_relatives=False)
    assert before.real.groups[3] == before.real.groups[7]
    same = before.real.groups[:, None] == before.real.groups
    groups = after.real.groups[order]
    assert np.array_equal(same, groups[:, None] == groups)


@pytest.mark.seconds
def test_images_that_are_there_already_are_joined_with_their_relatives(tmp_path):
    groups = [f"p{i // 2}" for i in range(60)]
    source = toy_store(tmp_path / "a.store", 20, groups=groups)
    ak.ingest(source.path, tmp_path / "copy.store")
    again = ak.ingest(source.path, tmp_path / "copy.store")
    assert again.added == 0
    other = toy_store(tmp_path / "b.store", 20, seed=7)  # other images under the same keys
    with pytest.raises(ak.AugkitError, match=r"is in .* with other bytes"):
        ak.ingest(other.path, tmp_path / "copy.store")


@pytest.mark.seconds
def test_another_size_resizes_the_stored_pixels_and_says_so(tmp_path):
    source = toy_store(tmp_path / "a.store", masks=True)
    works("ingest", "a.store", "--store", "b.store", "--size", "16x20", cwd=tmp_path)
    found = works("ingest", "a.store", "--store", "c.store", "--size", "16x20", cwd=tmp_path)
    assert "made from stored pixels of 32x24 in grey" in found.err
    assert "resampled a second time" in found.err
    snapshot = ak.open(tmp_path / "c.store").snapshot()
    before = source.snapshot()
    row = snapshot.real.keys.tolist().index(before.real.keys[5])
    masks, _ = before.inspect().masks(slice(5, 6))
    expected = fit_array(before.inspect()[5:6][0], target=Target(20, 16), sha256=b"", mask=masks[0])
    assert np.array_equal(snapshot.inspect()[row : row + 1][0], expected.image)
    assert np.array_equal(snapshot.inspect().masks(slice(row, row + 1))[0][0], expected.mask)
    assert snapshot.real.sha256[row] == before.real.sha256[5]


@pytest.mark.seconds
def test_two_stores_become_one(tmp_path):
    first = toy_store(tmp_path / "a.store", 10)
    second = ak.DatasetStore.create(tmp_path / "b.store", height=24, width=32)
    ak.ingest_arrays(second, [images(20, 5)], ["benign", "cyst"] * 10,
                     keys=[f"{i}.png" for i in range(20)], dataset="site")  # fmt: skip
    for source in (first, second):
        ak.ingest(source.path, tmp_path / "both.store")
    both = ak.open(tmp_path / "both.store").snapshot()
    assert both.datasets == ("toy", "site") and len(both.real.keys) == 50
    assert both.classes == ("benign", "malignant", "normal", "cyst")


def test_what_cannot_be_is_one_plain_line(tmp_path):
    toy_store(tmp_path / "a.store")
    empty = ak.DatasetStore.create(tmp_path / "empty.store", height=24, width=32)
    empty.commit(lambda snapshot: {"kind": "remark"})
    for line, words in (
        (("a.store", "--store", "a.store"), "is the store itself"),
        (("a.store", "--store", "b.store", "--dataset", "x"), "leave --dataset out"),
        (("empty.store", "--store", "b.store"), "empty.store holds no images"),
    ):
        found = command("ingest", *line, cwd=tmp_path)
        assert found.code == 2 and words in found.err
    assert not (tmp_path / "b.store").exists()


def test_a_damaged_image_of_the_source_is_never_copied(tmp_path):
    source = toy_store(tmp_path / "a.store")
    shard = next((tmp_path / "a.store" / "shards").glob("*.h5"))
    data = bytearray(shard.read_bytes())
    place = data.index(source.snapshot().inspect()[3:4].tobytes())
    data[place + 5] ^= 1
    shard.write_bytes(data)
    found = command("ingest", "a.store", "--store", "b.store", cwd=tmp_path)
    assert found.code == 2 and "is damaged at row 3" in found.err
    left = tmp_path / "b.store"
    assert not left.exists() or ak.open(left).snapshot().number == 0
