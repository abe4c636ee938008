"""How much work is done, counted instead of timed: decodes, interpolations, bytes, memory.

A slow path shows here on any machine, however busy.
"""

import math
import os
import sys
import threading
import tracemalloc
from collections import Counter, deque
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import augkit as ak
from augkit.making import Making

DECODED = "PngImageFile.load_prepare"
"""What Pillow calls once for each PNG file whose pixels it decodes."""
CHAIN = "flip+brightness+scale+zoom"
AGAIN = 4
"""Rows of every run that are made twice, to see that its plugin repeats itself."""
HEIGHT, WIDTH = 64, 80
ROW = HEIGHT * WIDTH


class Calls:
    """Counts the calls of functions by name while it is entered, on every thread begun in it."""

    def __init__(self, *names: str):
        self.names = set(names)  # qualified, such as "Thing.method", where Python calls Python
        self.counted: Counter[str] = Counter()

    def __enter__(self) -> "Calls":
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def __getitem__(self, name: str) -> int:
        return self.counted[name]

    def _note(self, frame, event, function):
        name = frame.f_code.co_qualname if event == "call" else getattr(function, "__name__", "")
        if event in ("call", "c_call") and name in self.names:
            self.counted[name] += 1


class Transferred:
    """Counts the bytes that this process reads and writes while it is entered."""

    def __enter__(self) -> "Transferred":
        self._before = self._now()
        return self

    def __exit__(self, *error: object) -> None:
        after = self._now()
        self.read, self.written = (after[k] - self._before[k] for k in ("rchar", "wchar"))

    @staticmethod
    def _now() -> dict[str, int]:
        lines = Path("/proc/self/io").read_text().splitlines()
        return {name: int(count) for name, count in (line.split(": ") for line in lines)}


needs_proc = pytest.mark.skipif(
    not os.access("/proc/self/io", os.R_OK), reason="counts what Linux says of a process"
)


def store_of(path: Path, n: int) -> ak.DatasetStore:
    """Return a store of n real images in two classes."""
    store = ak.DatasetStore.create(path, height=HEIGHT, width=WIDTH)
    images = np.random.default_rng(0).integers(0, 256, (n, HEIGHT, WIDTH, 1), np.uint8)
    keys = [str(i) for i in range(n)]
    ak.ingest_arrays(store, [images], ["a", "b"] * (n // 2), keys=keys, find_relatives=False)
    return store


@pytest.fixture
def folder(tmp_path):
    """Return a folder of 2 x 10 image files."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


@pytest.mark.parametrize("workers", [1, 2])
def test_every_file_is_decoded_once(folder, tmp_path, workers):
    with Calls(DECODED) as calls:
        ak.ingest(folder, tmp_path / "a.store", workers=workers)
    assert calls[DECODED] == 20


def test_what_is_in_the_store_is_not_decoded_again(folder, tmp_path):
    ak.ingest(folder, tmp_path / "a.store")
    with Calls(DECODED) as calls:
        ak.ingest(folder, tmp_path / "a.store")
        ak.augment(tmp_path / "a.store", CHAIN, n=30)
    assert calls[DECODED] == 0


def test_a_chain_interpolates_each_row_once(tmp_path):
    store = store_of(tmp_path / "a.store", 20)
    with Calls("resize", "flip", "translate", "warpAffine", "remap") as calls:
        ak.augment(store, CHAIN, total=100, workers=1)
    assert 90 <= calls["resize"] <= 100 + AGAIN, "a window that is the whole image needs none"
    assert calls["flip"] == calls["translate"] == 100 + AGAIN
    assert calls["warpAffine"] == calls["remap"] == 0


def test_a_chain_of_windows_and_tables_asks_no_member_for_pixels(tmp_path):
    store = store_of(tmp_path / "a.store", 20)
    with Calls("render", "_applied") as calls:
        ak.augment(store, CHAIN, total=128, workers=1)
    assert calls["render"] == 2 + 1, "one a block, and the rows that are made twice"
    assert calls["_applied"] == 0


@needs_proc
def test_an_epoch_in_any_order_reads_each_row_once(tmp_path):
    train = store_of(tmp_path / "a.store", 200).snapshot().training(ak.HOLDOUT)
    order = np.random.default_rng(0).permutation(len(train))
    train.gather(order[:1])
    with Transferred() as passed:
        for start in range(0, len(order), 16):
            train.gather(order[start : start + 16])
    assert len(train) * ROW <= passed.read <= len(train) * ROW * 1.05 + 8192


@needs_proc
def test_a_run_is_written_once_and_read_back_once(tmp_path):
    store = store_of(tmp_path / "a.store", 20)
    n = 2000
    with Transferred() as passed:
        ak.augment(store, "zoom", total=n)
    beside = n * 96 + 2**20
    assert n * ROW <= passed.written <= n * ROW + beside
    # Its parents, and the finished shard for its SHA-256.
    assert n * ROW <= passed.read <= 2 * n * ROW + beside


def test_provenance_takes_at_most_96_bytes_a_row(tmp_path):
    store = store_of(tmp_path / "a.store", 20)
    before = set(store.path.rglob("*.h5"))
    ak.augment(store, CHAIN, total=1000)
    (shard,) = set(store.path.rglob("*.h5")) - before
    with h5py.File(shard) as file:
        columns = [name for name in file if name not in ("images", "masks")]
        assert sum(file[name].id.get_storage_size() for name in columns) <= 96 * 1000


@pytest.mark.parametrize("verb", ["augment", "verify", "read", "replay"])
def test_memory_does_not_grow_with_the_rows(verb, tmp_path):
    def peak(n: int) -> int:
        store = store_of(tmp_path / f"{n}.store", 20)
        work = {
            "augment": lambda: ak.augment(store, CHAIN, total=n, run="more", workers=1),
            "verify": lambda: ak.verify(store),
            "read": lambda: deque(store.snapshot().training(ak.HOLDOUT, ["zoom"]).blocks(), 1),
            "replay": lambda: ak.replay(store, "zoom"),
        }
        if verb != "augment":
            ak.augment(store, "zoom", total=n, workers=1)
        tracemalloc.start()
        try:
            work[verb]()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # what is imported and kept once
    small, large = peak(300), peak(1500)
    beside_rows = 1200 * 400  # labels, parents, parameters, ids
    assert large - small <= beside_rows, f"{(large - small) / 1200:.0f} bytes a row; one has {ROW}"


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize("shape", [(160, 192, 1), (768, 1024, 3), (4096, 4096, 3)])
def test_images_under_way_fit_into_the_buffer(shape, workers):
    how = Making(workers=workers)
    rows, least = how.rows_of_block(shape), 2 * math.prod(shape) * (2 * workers + 1)
    assert 1 <= rows <= 64
    assert rows * least <= max(how.BUFFER, least)


def test_a_smaller_buffer_changes_no_image(tmp_path, monkeypatch):
    store = store_of(tmp_path / "a.store", 20)
    ak.augment(store, "zoom", total=40, run="usual")
    monkeypatch.setattr(Making, "BUFFER", 7 * 2 * ROW * 5)
    ak.augment(store_of(tmp_path / "b.store", 20), "zoom", total=40, run="small", workers=2)
    usual, small = (
        ak.open(tmp_path / name).snapshot().inspect(run)[:]
        for name, run in (("a.store", "usual"), ("b.store", "small"))
    )
    np.testing.assert_array_equal(usual, small)
