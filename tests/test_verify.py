"""Damage is an error wherever it is read, and verify says where it lies."""

import builtins
import io
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from toys import toy_store

import augkit as ak
from augkit.errors import AugkitError, DamagedStore
from augkit.partitions import HOLDOUT
from augkit.results import Result, Results
from augkit.store import DatasetStore
from augkit.store.screening import trust

FORMS = ["a.store", "a.h5"]


@pytest.fixture(params=FORMS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    store = toy_store(tmp_path / request.param, 12, masks=True)
    ak.augment(store, "flip", workers=1)
    store.close()
    return store.path


def spot(path: Path, column: str, row: int, run: str = "") -> tuple[Path, int, int]:
    """Return the file in which a row of a column lies, its first byte and its length."""
    entries = DatasetStore.open(path).snapshot().entries
    (name,) = (e["shard"]["name"] for e in entries if "shard" in e and e.get("run", "") == run)
    file = path if path.is_file() else path / f"shards/{name}.h5"
    with h5py.File(file) as opened:
        rows = opened[f"shards/{name}/{column}" if path.is_file() else column]
        size = int(np.prod(rows.shape[1:])) * rows.dtype.itemsize
        content, wanted = file.read_bytes(), rows[row].tobytes()
    assert content.count(wanted) == 1
    return file, content.index(wanted), size


def overwrite(file: Path, at: int, size: int) -> None:
    content = bytearray(file.read_bytes())
    assert any(content[at : at + size])
    content[at : at + size] = bytes(size)
    file.write_bytes(content)


def test_verify_examines_what_is_known_before_hdf5_opens_it_here(path):
    file = spot(path, "images", 5)[0]
    with h5py.File(file, "r+") as opened:
        opened.attrs["words"] = ["of", "any length"]
    trust(file, "packed" if path.is_file() else "shard", remember=False)  # as what rots is
    said = [str(problem) for problem in ak.verify(ak.open(path)).problems]
    assert any("it is not opened" in each for each in said)


@pytest.mark.parametrize("direct", [True, False])
def test_a_zeroed_image_is_an_error_and_never_zeros(path, monkeypatch, direct):
    overwrite(*spot(path, "images", 5))
    if not direct:
        monkeypatch.delattr(os, "preadv")
    snapshot = ak.open(path).snapshot()
    with pytest.raises(DamagedStore, match="damaged at row 5: augkit verify lists"):
        snapshot.inspect()[:]
    with pytest.raises(DamagedStore, match="damaged"):
        snapshot.training(HOLDOUT)[:]
    (problem, *_) = [p for p in ak.verify(ak.open(path)).problems if p.rows]
    assert problem.rows == (5,)
    assert "(real images)" in problem.where


def test_a_zeroed_mask_is_an_error_and_never_zeros(path):
    overwrite(*spot(path, "masks", 5))
    snapshot = ak.open(path).snapshot()
    for samples in (snapshot.inspect(), snapshot.inspect().take(np.arange(3))):
        with pytest.raises(DamagedStore, match="its columns are not those that were committed"):
            samples.masks(slice(None))
    problems = ak.verify(ak.open(path)).problems
    assert any("columns are not those that were committed" in p.what for p in problems)


@pytest.mark.parametrize("left", [0, 100, 4000, 0.5, 0.9])
def test_a_shard_cut_short_is_an_error_and_never_zeros(path, left):
    file, *_ = spot(path, "images", 20, "flip")
    size = file.stat().st_size
    os.truncate(file, left if left > 1 or left == 0 else int(left * size))
    with pytest.raises(AugkitError):
        ak.open(path).snapshot().inspect("flip")[:]
    assert not is_sound(path)


def test_a_shard_of_zeros_is_an_error_and_never_zeros(path):
    file, *_ = spot(path, "images", 0)
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(AugkitError):
        ak.open(path).snapshot().inspect()[:]
    assert not is_sound(path)


def test_a_shard_of_another_store_in_its_place_is_found(tmp_path):
    files = []
    for name, seed in (("a", 0), ("b", 1)):
        store = toy_store(tmp_path / f"{name}.store", 12, seed=seed)
        files += (store.path / "shards").glob("*.h5")
    files[1].replace(files[0])
    (problem,) = ak.verify(ak.open(tmp_path / "a.store")).problems
    assert files[0].stem in problem.where


def is_sound(path: Path) -> bool:
    try:
        return ak.verify(ak.open(path)).sound
    except AugkitError:
        return False


def test_a_changed_description_is_found(tmp_path):
    path = toy_store(tmp_path / "a.store", 12).path / "store.json"
    path.write_bytes(path.read_bytes().replace(b"uint8", b"uint9"))
    (problem,) = ak.verify(ak.open(tmp_path / "a.store")).problems
    assert str(problem) == f"file: {path}: the bytes are not those that were committed"


def test_a_byte_of_the_text_before_a_packed_store_is_found(tmp_path):
    path = toy_store(tmp_path / "a.h5", 12).path
    content = path.read_bytes()
    for at in (450, 511):  # after the last line of the text
        path.write_bytes(content[:at] + b" " + content[at + 1 :])
        (problem,) = ak.verify(ak.open(path)).problems
        assert problem.where == "file"


def test_a_changed_result_is_found_and_counts_for_nothing(path):
    results, task = Results(ak.open(path).side_folder("results")), {"seed": 3}
    results.write(task, Result(np.eye(3, dtype=np.float32)))
    (file,) = results.folder.iterdir()
    assert ak.verify(ak.open(path)).sound
    file.write_bytes(file.read_bytes().replace(b"0.0", b"0.5", 1))
    (problem,) = ak.verify(ak.open(path)).problems
    assert problem.where == f"results/{file.name}"
    assert "counts for nothing: delete it" in problem.what
    assert results.read(task) is None


def test_every_file_is_read_once(path, monkeypatch):
    """Beyond once: columns and masks, which are a small part of a store of real size."""
    store, read = ak.open(path), {}
    images = sum(run.rows for run in store.snapshot().runs.values()) + 36
    n_bytes = images * int(np.prod(store.shape))
    for owner in (io, builtins):
        real = owner.open

        def opened(file, *args, real=real, **more):
            found = real(file, *args, **more)
            if str(file).endswith(".h5") and args[:1] == ("rb",):
                read[str(file)] = read.get(str(file), 0) + Path(file).stat().st_size
            return found

        monkeypatch.setattr(owner, "open", opened)
    direct, preadv = [], os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda h, into, at: direct.append(len(into[0])) or preadv(h, into, at)
    )
    assert ak.verify(store).sound
    files = [path] if path.is_file() else [*(path / "shards").glob("*.h5")]
    assert sum(read.get(str(file), 0) for file in files) >= n_bytes
    assert sum(direct) < n_bytes / 4, "rows are not read a second time"
