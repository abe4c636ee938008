from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import toy_store

import augkit as ak
from augkit.errors import InputError, OptionError, StoreError


def test_children_stand_below_their_parents(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    ak.augment(store, "flip")
    shown = ak.preview(store, output=tmp_path / "p.png", n=4)
    assert shown.images == 3 * 2 * 4
    sheet = np.array(Image.open(tmp_path / "p.png"))
    line = 24 + 14 + 12
    assert sheet.shape == (2 * 16 + 6 * line, 2 * 16 + 4 * (32 + 6) - 6, 3)
    for row in (0, 2, 4):
        for column in range(4):
            left = 16 + column * 38
            parent, child = (
                sheet[top : top + 24, left : left + 32]
                for top in (16 + (row + k) * line + 20 for k in (0, 1))
            )
            assert np.array_equal(child, parent[:, ::-1])


def test_parents_that_have_children_are_chosen_first(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    ak.augment(store, "zoom", n=3)
    assert ak.preview(store, output=tmp_path / "p.png", n=3).images == 3 * 2 * 3


def test_a_store_without_runs_shows_its_real_images(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store", shape=(24, 32, 3))
    assert ak.preview(store, output=tmp_path / "p.png", n=2).images == 6


def test_class_names_of_any_letters_are_drawn(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store", classes=("gut\nartig", "злокачественный"))
    assert ak.preview(store, output=tmp_path / "p.png", n=2).path.exists()


def test_large_images_are_shrunk_to_what_can_be_looked_at(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store", 4, shape=(300, 400, 3))
    ak.preview(store, output=tmp_path / "p.png", n=2)
    with Image.open(tmp_path / "p.png") as sheet:
        assert sheet.size == (2 * 16 + 2 * (256 + 6) - 6, 2 * 16 + 3 * (192 + 14 + 12))


def test_bad_requests_are_plain_errors(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    with pytest.raises(StoreError, match="no run 'x'"):
        ak.preview(store, runs=["x"], output=tmp_path / "p.png")
    with pytest.raises(OptionError, match="n is 0"):
        ak.preview(store, n=0, output=tmp_path / "p.png")
    with pytest.raises(InputError, match="cannot write"):
        ak.preview(store, output=tmp_path / "no" / "p.png")


def test_an_empty_store_has_nothing_to_show(tmp_path: Path) -> None:
    store = ak.DatasetStore.create(tmp_path / "a.store", height=8, width=8)
    with pytest.raises(StoreError, match="no training images"):
        ak.preview(store, output=tmp_path / "p.png")
