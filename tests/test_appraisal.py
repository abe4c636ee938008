import json
from pathlib import Path

import numpy as np
import pytest
from commands import command, works
from learners import Mean, Parrot
from PIL import Image
from toys import CLASSES, DATA, images, labels, offer, toy_store

import augkit as ak
from augkit.errors import InputError, LineageError, OptionError, StoreError
from augkit.fidelity import MEASURES
from augkit.partitions import k_fold

QUICK = {"features": "descriptors"}
TWO = CLASSES[:2]


@pytest.fixture(scope="module")
def flipped(tmp_path_factory):
    """A store of two classes of noise, with mirror images; nobody writes into it."""
    store = toy_store(tmp_path_factory.mktemp("a") / "a.store", 60, classes=TWO)
    ak.augment(store, "flip")
    return store


@pytest.fixture(scope="module")
def judged(flipped):
    return ak.quality(flipped, "flip", **QUICK)


def test_mirrored_noise_is_as_good_as_noise(judged):
    assert [c.name for c in judged.classes] == list(TWO)
    for each in judged.classes:
        assert each.set_size == each.images["validation"] >= 8
        assert each.copies is None
        for name in ("precision", "recall", "kid"):
            difference = each.measures[name].difference
            assert difference.low < 0 < difference.high or difference.value == 0, name


def test_the_json_has_the_keys_of_the_document(judged):
    found = json.loads(judged.to_json())
    assert {
        *("store", "run", "family", "partition", "reference", "features", "weights", "seed"),
        *("classes", "notes", "sheets"),
    } == set(found)
    each = found["classes"][0]
    assert set(each) == {
        *("name", "images", "looked_at", "set_size", "measures", "copies", "sentence")
    }
    assert set(each["images"]) == {"made", "validation", "training"}
    assert tuple(each["measures"]) == MEASURES
    assert set(each["measures"]["kid"]) == {"made", "real", "difference"}
    assert set(each["measures"]["kid"]["made"]) == {"value", "low", "high"}


def test_what_there_is_not_is_null_in_json(tmp_path):
    store = toy_store(tmp_path / "a.store", 20)
    ak.augment(store, "flip")
    result = ak.quality(store, "flip", **QUICK)
    found = json.loads(result.to_json())["classes"][0]
    assert found["images"]["validation"] < 8
    assert found["measures"]["recall"]["made"] == {"value": None, "low": None, "high": None}
    assert "too few images" in str(result)
    few = "too few to say whether they look real or show the variety of real images"
    assert all(few in sentence for sentence in result.sentences.values())
    assert "nothing is wrong" not in str(result)


def test_the_frame_has_a_row_for_each_class_and_measure(judged):
    frame = judged.to_frame()
    assert len(frame) == len(TWO) * len(MEASURES)
    assert (frame["made_low"] <= frame["made_value"]).all()


def test_the_same_line_says_the_same_and_another_seed_looks_at_others(flipped):
    once, again, other = (ak.quality(flipped, "flip", n=20, seed=s, **QUICK) for s in (0, 0, 1))
    assert once.to_json() == again.to_json()
    assert once.classes[0].measures["kid"] != other.classes[0].measures["kid"]


def test_no_more_images_are_looked_at_than_asked(flipped):
    found = ak.quality(flipped, "flip", n=9, **QUICK)
    for each in found.classes:
        assert set(each.looked_at.values()) == {9}
        assert each.images["training"] > 30
    assert "9 of" in str(found)


def test_neither_test_images_nor_their_number_count(tmp_path):
    """Two stores that differ in their test images alone say the same of a run."""
    names = labels(40, TWO)
    pixels = images(len(names))
    stores = []
    for other in (False, True):
        store = ak.DatasetStore.create(tmp_path / f"{other}.store", height=24, width=32)
        if other:
            tested = stores[0].snapshot().parts(ak.HOLDOUT) == 2
            assert tested.sum() >= 10
            pixels = np.where(tested[:, None, None, None], 255 - pixels // 2, pixels)
        keys = [f"{name}/{i}.png" for i, name in enumerate(names)]
        ak.ingest_arrays(store, [pixels], names, keys=keys, dataset="toy", find_relatives=False)
        ak.augment(store, "flip")
        stores.append(store)
    same = [s.snapshot().parts(ak.HOLDOUT) for s in stores]
    assert np.array_equal(*same)
    one, other = (ak.quality(s, "flip", **QUICK) for s in stores)
    assert one.classes == other.classes


def test_copies_are_counted_and_named(tmp_path, monkeypatch):
    offer(monkeypatch, Parrot)
    store = toy_store(tmp_path / "a.store", 20, classes=TWO)
    ak.augment(store, "parrot", {"share": 0.5}, n=20)
    found = ak.quality(store, "parrot", sheets=tmp_path / "sheets", **QUICK)
    total = sum(c.copies.n for c in found.classes)
    assert total == store.snapshot().run("parrot").memorisation["copies"]
    assert 10 < total < 30
    for each in found.classes:
        assert each.copies.of == 20
        assert each.copies.share.low < each.copies.n / 20 < each.copies.share.high
        assert (
            "% of them look like a training image, where 1 % of real ones would"
            in (found.sentences[each.name])
        )
    assert len(found.sheets) == 2 and all(Path(p).exists() for p in found.sheets)


def test_a_class_that_came_later_has_no_copies_in_a_run_from_before(tmp_path, monkeypatch):
    offer(monkeypatch, Mean)
    store = toy_store(tmp_path / "a.store", 20, classes=TWO)
    ak.augment(store, "mean", n=4)
    ak.ingest_arrays(
        store,
        [images(20, seed=7)],
        ["third"] * 20,
        keys=[f"third/{i}.png" for i in range(20)],
        find_relatives=False,
    )
    found = ak.quality(store, "mean", **QUICK)
    assert [each.name for each in found.classes if each.copies is None] == ["third"]


def test_what_does_not_look_real_is_said(tmp_path, monkeypatch):
    offer(monkeypatch, Mean)
    store = toy_store(tmp_path / "a.store", 60, classes=TWO)
    ak.augment(store, "mean", {"noise": 1}, n=12)
    found = ak.quality(store, "mean", **QUICK)
    for sentence in found.sentences.values():
        assert sentence.startswith("samples of ") and "do not look real (precision 0.00" in sentence
        assert "show hardly any of the variety (recall 0.00" in sentence
        assert "are as a set unlike real images (KID" in sentence
    assert any(note.startswith("model ") for note in found.notes)


def test_a_pair_is_an_image_beside_its_parent(tmp_path):
    store = toy_store(tmp_path / "a.store", 14, classes=TWO, shape=(96, 128, 1))
    ak.augment(store, "flip")
    found = ak.quality(store, "flip", sheets=tmp_path / "sheets", **QUICK)
    assert [Path(p).name for p in found.sheets] == [
        "1-benign-nearest.png",
        "2-malignant-nearest.png",
    ]
    with Image.open(found.sheets[0]) as file:
        sheet = np.array(file.convert("L"))
    top = 16 + 20 + 8 + 20
    made, real = (sheet[top : top + 96, left : left + 128] for left in (16, 16 + 128 + 2))
    assert np.array_equal(made, real[:, ::-1])
    assert (store.snapshot().inspect()[:][..., 0] == real).all((1, 2)).any()


@pytest.mark.seconds
def test_best_median_and_worst_are_drawn(flipped, tmp_path):
    found = ak.quality(flipped, "flip", sheets=tmp_path / "s", **QUICK)
    names = sorted(p.name for p in (tmp_path / "s").iterdir())
    assert names == sorted(Path(p).name for p in found.sheets)
    assert [n.endswith("-realism.png") for n in names] == [False, True] * 2
    with Image.open(tmp_path / "s" / "1-benign-realism.png") as file:
        width, height = file.size
    assert width >= 2 * 16 + 6 * 128 and height > 4 * 96


def test_features_are_kept_where_evaluations_find_them(tmp_path):
    store = toy_store(tmp_path / "a.store", 20, classes=TWO)
    ak.augment(store, "flip")
    assert not (store.path / "cache").exists()
    ak.quality(store, "flip", **QUICK)
    files = {p: p.stat().st_mtime_ns for p in store.path.rglob("*.features")}
    assert files
    from augkit.feature_space import FeatureSpace
    from augkit.features import FeatureCache

    snapshot = store.snapshot()
    assert FeatureSpace.open(store, snapshot, "descriptors")(snapshot.validation(ak.HOLDOUT)).any()
    known = FeatureCache(store.side_folder("cache"))
    assert known.missing("linear-features-1", snapshot.validation(ak.HOLDOUT)) == 0
    assert known.missing("linear-features-1", snapshot.test(ak.HOLDOUT)) > 0


def test_a_packed_store_is_read_as_well(tmp_path):
    store = toy_store(tmp_path / "a.h5", 20, classes=TWO)
    ak.augment(store, "flip")
    assert ak.quality(store, "flip", **QUICK).classes[0].images["made"] == 14


def test_bad_requests_are_plain_errors(flipped, tmp_path):
    for flags, error, said in (
        ({"run": "x"}, StoreError, "no run 'x'"),
        ({"n": 0}, OptionError, "n is 0; it must be 1 to 5000"),
        ({"n": "many"}, OptionError, "n is 'many'; it must be a whole number"),
        ({"seed": -1}, OptionError, "seed is -1"),
        ({"features": "x"}, OptionError, "features are 'x'; there are: efficientnet-lite0, desc"),
    ):
        with pytest.raises(error, match=said):
            ak.quality(flipped, **({"run": "flip", **QUICK} | flags))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write into"):
        ak.quality(flipped, "flip", sheets=tmp_path / "file" / "x", **QUICK)


def test_a_run_of_an_evaluation_is_refused(tmp_path, monkeypatch):
    from augkit.augmentation import refit

    offer(monkeypatch, Mean)
    store = toy_store(tmp_path / "a.store", 20, classes=TWO)
    ak.augment(store, "mean", n=4)
    made = refit(store, "mean", k_fold(5)[1])
    with pytest.raises(LineageError, match="was made for fold 2 of 5, by an evaluation"):
        ak.quality(store, made.run, **QUICK)


def test_a_store_without_validation_images_is_refused(tmp_path):
    store = toy_store(tmp_path / "a.store", 2, classes=TWO)
    ak.augment(store, "flip")
    assert not len(store.snapshot().validation(ak.HOLDOUT))
    with pytest.raises(StoreError, match="no validation images"):
        ak.quality(store, "flip", **QUICK)


def test_the_command_prints_a_table_and_sentences(flipped, tmp_path):
    line = ("quality", "--run", "flip", "--features", "descriptors", "--store", flipped.path)
    shown = works(*line, cwd=tmp_path).out
    for word in ("precision", "recall", "KID", "images of benign", "validation", "training"):
        assert word in shown
    assert works(*line, "--json", cwd=tmp_path).json["run"] == "flip"
    wrong = command("quality", "--run", "no", "--store", flipped.path, cwd=tmp_path)
    assert wrong.code == 2 and wrong.err.startswith("augkit: ")


@pytest.mark.slow
def test_the_network_sees_what_augmentation_does(tmp_path):
    """Of phantoms: fresh ones are as good as real ones, and noise is not."""
    from augkit.testing import phantoms

    pixels, _, truth = phantoms(70, height=40, width=48, classes=TWO, difficulty=0.0)
    store = ak.DatasetStore.create(tmp_path / "a.store", height=40, width=48)
    names = [TWO[i] for i in truth]
    keys = [f"{i}.png" for i in range(len(names))]
    ak.ingest_arrays(store, [pixels], names, keys=keys, dataset="p", find_relatives=False)
    ak.augment(store, "oracle", {"difficulty": 0.0}, n=40)
    found = ak.quality(store, "oracle", n=40)
    assert "imagenet" in found.weights
    for each in found.classes:
        assert each.measures["kid"].difference.low < 0 < each.measures["kid"].difference.high
        assert each.measures["recall"].made.value > 0.5
    ak.augment(store, "poison", {"share": 1.0}, n=40)  # the other class, under this one's name
    for each in ak.quality(store, "poison", n=40).classes:
        assert each.measures["kid"].difference.low > 0


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "busi").exists(), reason="needs BUSI")
def test_zoomed_real_images_look_real(tmp_path):
    source = next((DATA / "busi").glob("**/benign")).parent
    ak.ingest(source, tmp_path / "a.store", size="96x80", find_relatives=False)
    ak.augment(tmp_path / "a.store", "flip")
    found = ak.quality(tmp_path / "a.store", "flip", n=60)
    for each in found.classes:
        difference = each.measures["precision"].difference
        assert difference.low < 0.05 and difference.high > -0.05, each.name
