from dataclasses import dataclass

import numpy as np
import pytest
from commands import command, works
from learners import Mean
from PIL import Image
from toys import offer, toy_store

import augkit as ak
from augkit.errors import OptionError, StoreError
from augkit.interfaces import Augmenter

SHAPE = (96, 128, 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store that nobody writes into."""
    return toy_store(tmp_path_factory.mktemp("a") / "a.store", 20, shape=SHAPE)


def key_in(store, part):
    snapshot = store.snapshot()
    return str(snapshot.real.keys[np.flatnonzero(snapshot.parts(ak.HOLDOUT) == part)[0]])


def cells(path, row_tops):
    with Image.open(path) as file:
        sheet = np.array(file.convert("L"))
    return [
        [sheet[y : y + 96, 16 + c * 136 : 16 + c * 136 + 128] for c in range(6)] for y in row_tops
    ]


def test_one_image_goes_through_every_augmenter(store, tmp_path):
    key = key_in(store, 0)
    shown = ak.preview(store, parent=key, output=tmp_path / "p.png", n=6)
    assert (shown.shows, shown.images, shown.runs) == ("parent", 2 + 3 * 6, ())
    snapshot = store.snapshot()
    parent = snapshot.inspect()[:][snapshot.real.keys == key][0, ..., 0]
    top = 16 + 28
    first, *_ = cells(tmp_path / "p.png", [top])
    assert np.array_equal(first[0], parent) and np.array_equal(first[1], parent[:, ::-1])
    others = cells(tmp_path / "p.png", [top + 96 + 20 + 8 + 20 + i * (96 + 28) for i in range(3)])
    for row in others:
        assert len({image.tobytes() for image in row} | {parent.tobytes()}) > 5


def test_the_end_of_a_key_will_do(store, tmp_path):
    key = key_in(store, 0)
    full, short = (tmp_path / f"{n}.png" for n in "ab")
    ak.preview(store, parent=key, output=full)
    ak.preview(store, parent=key.rpartition("/")[2], output=short)
    assert full.read_bytes() == short.read_bytes()


def test_the_seed_draws_what_is_shown(store, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for seed, path in zip((0, 0, 1), paths, strict=True):
        ak.preview(store, parent=key_in(store, 0), output=path, n=2, seed=seed)
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()


def test_images_that_are_not_there_or_not_trained_on_are_refused(store, tmp_path):
    def shown(key):
        ak.preview(store, parent=key, output=tmp_path / "p.png")

    with pytest.raises(OptionError, match=r"no image 'x'; augkit info --rows"):
        shown("x")
    with pytest.raises(OptionError, match=r"did you mean 'toy/benign/1\.png'"):
        shown("toy/benign/1.pn")
    with pytest.raises(OptionError, match="lies in the test part; choose an image of the training"):
        shown(key_in(store, 2))


def test_an_end_that_two_keys_share_is_refused(tmp_path):
    store = ak.DatasetStore.create(tmp_path / "a.store", height=8, width=8)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
    keys = ["a/1.png", "b/1.png", "a/2.png", "b/2.png"]
    classes = ["a", "b"] * 2
    ak.ingest_arrays(store, [pixels], classes, keys=keys, dataset="d", find_relatives=False)
    with pytest.raises(OptionError, match=r"2 images end with '1.png', such as 'd/a/1.png' and"):
        ak.preview(store, parent="1.png", output=tmp_path / "p.png")


def test_an_augmenter_that_fails_is_left_out(store, tmp_path, monkeypatch, caplog):
    @dataclass
    class Broken(Augmenter):
        name = "broken"

        def apply(self, images, labels, params):
            raise ValueError("no")

    from augkit import registry as module

    installed = module.registry()
    added = module.Plugin("broken", "augmenter", "traditional", "toys", "1", Broken)
    together = module.Registry((*installed.plugins, added), ())
    monkeypatch.setattr("augkit.reports.filmstrips.registry", lambda: together)
    shown = ak.preview(store, parent=key_in(store, 0), output=tmp_path / "p.png", n=1)
    assert shown.images == 5
    assert "broken is left out: plugin 'broken' failed in apply(): ValueError: no" in caplog.text


@dataclass
class Way(Mean):
    """Shows the way between two of its images: one fades into the other."""

    name = "way"

    def interpolate(self, label, params, shares):
        a, b = self.apply(None, np.full(2, label), params).astype(float)
        return np.stack([np.rint((1 - s) * a + s * b) for s in shares]).astype(np.uint8)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A store with a run that can be interpolated."""
    offer(monkeypatch, Way, Mean)
    store = toy_store(tmp_path / "a.store", 10, shape=SHAPE)
    ak.augment(store, "way", n=3)
    return store


def test_the_way_begins_and_ends_with_rows_of_the_run(made, tmp_path):
    shown = ak.preview(made, between=[(3, 5), (0, 1)], output=tmp_path / "p.png", n=6)
    assert (shown.shows, shown.images, shown.runs) == ("interpolation", 12, ("way",))
    rows = made.snapshot().inspect("way")[:][..., 0]
    tops = [16 + 28 + 20, 16 + 28 + 20 + 96 + 28 + 20]
    for (first, last), row in zip([(3, 5), (0, 1)], cells(tmp_path / "p.png", tops), strict=True):
        assert np.array_equal(row[0], rows[first]) and np.array_equal(row[-1], rows[last])
        assert len({image.tobytes() for image in row}) == 6


def test_without_rows_there_is_a_line_for_each_class(made, tmp_path):
    shown = ak.preview(made, interpolate=True, output=tmp_path / "p.png", n=4)
    assert shown.images == 3 * 4


@pytest.mark.seconds
def test_ways_that_do_not_exist_are_plain_errors(made, tmp_path):
    def shown(**how):
        ak.preview(made, output=tmp_path / "p.png", **how)

    with pytest.raises(OptionError, match="row 0 is benign and row 3 is malignant"):
        shown(between=[(0, 3)])
    with pytest.raises(OptionError, match="has rows 0 to 8; not 9"):
        shown(between=[(0, 9)])
    with pytest.raises(OptionError, match="n is 2; from one image to another it takes at least 3"):
        shown(between=[(0, 1)], n=2)
    with pytest.raises(OptionError, match="--parent is about every augmenter"):
        shown(between=[(0, 1)], parent="x")
    ak.augment(made, "mean", n=3)
    with pytest.raises(OptionError, match="'mean' of run 'mean' does not interpolate"):
        shown(runs=["mean"], between=[(0, 1)])
    ak.augment(made, "way", n=3, seed=1)
    with pytest.raises(OptionError, match="which run\\? Name one with --run: way, way-2"):
        shown(interpolate=True)


def test_a_store_without_such_a_run_says_how_to_make_one(store, tmp_path):
    with pytest.raises(StoreError, match="augkit augment --plugin dagan --n 100 makes one"):
        ak.preview(store, interpolate=True, output=tmp_path / "p.png")


def test_the_command_draws_all_of_them(made, tmp_path):
    line = ("preview", "--store", made.path, "--n", 3, "--json")
    found = works(*line, "--between", 0, 1, "--between", 3, 4, cwd=tmp_path).json
    assert found == {
        "path": "preview.png", "runs": ["way"], "images": 6, "shows": "interpolation"
    }  # fmt: skip
    assert works(*line, "--parent", key_in(made, 0), cwd=tmp_path).json["shows"] == "parent"
    assert works(*line, cwd=tmp_path).json["shows"] == "runs"
    wrong = command(*line, "--parent", "x", "--run", "way", cwd=tmp_path)
    assert wrong.code == 2 and "no --run" in wrong.err
