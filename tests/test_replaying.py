"""The verb replay: rows made again, and held against what was committed."""

import numpy as np
import pytest
from commands import command, works
from learners import Mean
from PIL import Image
from toys import offer, toy_store

import augkit as ak
from augkit.errors import InputError, OptionError, StoreError

pytestmark = pytest.mark.seconds


@pytest.fixture(autouse=True)
def offered(monkeypatch):
    offer(monkeypatch, Mean)


@pytest.fixture(params=["a.store", "a.h5"])
def store(tmp_path, request):
    store = toy_store(tmp_path / request.param, 12)
    ak.augment(store, "zoom+brightness", n=30)
    ak.augment(store, "mean", n=30)
    return store


@pytest.mark.parametrize("run", ["zoom+brightness", "mean"])
def test_every_row_is_the_same_byte_for_byte(store, run):
    found = ak.replay(store, run)
    assert (found.rows, found.identical, found.largest_difference) == (90, 90, 0)
    assert found.equal and "identical, byte for byte" in str(found)


def test_one_row_names_what_it_was_made_from(store):
    generated, traditional = (ak.replay(store, r, row=17) for r in ("mean", "zoom+brightness"))
    assert generated.model == store.snapshot().run("mean").model
    assert generated.seed == int(store.snapshot().params("mean")["seed"][17])
    assert f"latent seed {generated.seed}" in str(generated)
    assert traditional.parent in store.snapshot().real.keys
    assert traditional.parent in str(traditional)


def test_a_plugin_that_makes_other_pixels_now_is_found_out(store, monkeypatch):
    good = Mean.apply
    monkeypatch.setattr(Mean, "apply", lambda self, *a: np.clip(good(self, *a), 1, 255) - 1)
    found = ak.replay(store, "mean")
    assert not found.equal and found.largest_difference == 1
    assert "NOT the same" in str(found)


def test_one_grey_level_is_explained_by_other_versions_and_two_are_not(store, monkeypatch):
    good = Mean.apply
    monkeypatch.setattr(Mean, "environment", lambda self: {"toy": "2"})
    for off, equal in ((1, True), (2, False)):

        def other(self, *a, off=off):
            made = good(self, *a).astype(int)
            made[:, 0, 0] += np.where(made[:, 0, 0] > 100, -off, off)
            return made.astype(np.uint8)

        monkeypatch.setattr(Mean, "apply", other)
        found = ak.replay(store, "mean")
        assert (found.equal, found.largest_difference) == (equal, off)
        assert "changed since then: toy 1 -> 2" in str(found)


def test_the_image_can_be_written(store, tmp_path):
    found = ak.replay(store, "mean", row=3, output=tmp_path / "row.png")
    with Image.open(tmp_path / "row.png") as image:
        stored = store.snapshot().inspect("mean")[3:4][0, :, :, 0]
        assert np.array_equal(np.asarray(image), stored)
    assert "written to" in str(found)


def test_what_is_not_there_is_refused(store, tmp_path):
    with pytest.raises(StoreError, match="has no run 'none'"):
        ak.replay(store, "none")
    with pytest.raises(OptionError, match="rows 0 to 89; there is no row 90"):
        ak.replay(store, "mean", row=90)
    with pytest.raises(OptionError, match="name it with --row"):
        ak.replay(store, "mean", output=tmp_path / "x.png")
    with pytest.raises(InputError, match=r"--output .*x.png"):
        ak.replay(store, "mean", row=1, output=tmp_path / "x.gif")


def test_the_command_exits_with_2_where_pixels_differ(store, monkeypatch):
    folder = store.path.parent
    line = ("replay", "--run", "mean", "--row", 17, "--store", store.path)
    assert "identical, byte for byte" in works(*line, cwd=folder).out
    assert works(*line, "--json", cwd=folder).json["equal"]
    monkeypatch.setattr(
        Mean, "apply", lambda self, i, labels, p: np.zeros((len(labels), 24, 32, 1), np.uint8)
    )
    outcome = command(*line, cwd=folder)
    assert outcome.code == 2 and "NOT the same" in outcome.out
