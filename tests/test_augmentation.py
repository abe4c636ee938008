import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import CLASSES, images, labels, toy_store, tree

import augkit as ak
from augkit import recipes
from augkit.errors import NameTaken, OptionError, PluginFailed, PluginNotFound, StoreError
from augkit.interfaces import Augmenter
from augkit.partitions import HOLDOUT
from augkit.registry import Plugin, Registry, registry
from augkit.store import DatasetStore

TRAIN = 14
"""Training images of each class in a toy store of twenty a class."""


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return toy_store(tmp_path / "toy.store")


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that adds augmenter classes to the installed ones."""

    def add(*classes: type[Augmenter]) -> None:
        known = registry()
        extra = tuple(Plugin(c.name, "augmenter", c.family, "toys", "1", c) for c in classes)
        both = Registry(known.plugins + extra, known.failures)
        monkeypatch.setattr(recipes, "registry", lambda: both)

    return add


def uses(store: DatasetStore, run: str) -> np.ndarray:
    """Return how often each training image is the parent of a row."""
    parents = store.snapshot().parents(run)
    counts = np.bincount(parents, minlength=len(store.snapshot().real.keys))
    assert not counts[store.snapshot().parts(HOLDOUT) != 0].any()
    return counts[store.snapshot().parts(HOLDOUT) == 0]


def test_without_an_amount_each_training_image_gives_one(store: DatasetStore) -> None:
    result = ak.augment(store, "zoom")
    assert (result.run, result.rows, result.made) == ("zoom", 3 * TRAIN, True)
    assert result.by_class == dict.fromkeys(CLASSES, TRAIN)
    assert uses(store, "zoom").tolist() == [1] * (3 * TRAIN)


@pytest.mark.parametrize("n", [1, TRAIN - 1, TRAIN, TRAIN + 1, 3 * TRAIN, 101])
def test_n_counts_new_images_of_each_class(store: DatasetStore, n: int) -> None:
    result = ak.augment(store, "zoom", n=n)
    assert result.by_class == dict.fromkeys(CLASSES, n)
    found = uses(store, "zoom")
    assert found.sum() == 3 * n
    for label in range(3):
        one = found[label * TRAIN : (label + 1) * TRAIN]
        assert one.sum() == n
        assert one.max() - one.min() <= 1


@pytest.mark.parametrize("total", [1, 41, 42, 43, 100])
def test_total_counts_new_images_in_all(store: DatasetStore, total: int) -> None:
    result = ak.augment(store, "brightness", total=total)
    assert result.rows == total
    found = uses(store, "brightness")
    assert found.sum() == total
    assert found.max() - found.min() <= 1


def test_which_sources_give_one_more_is_drawn_and_not_the_first(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    chosen = [ak.augment(store, "zoom", n=3, seed=s).run for s in range(8)]
    parents = [frozenset(store.snapshot().parents(run).tolist()) for run in chosen]
    assert len(set(parents)) > 6


def test_an_empty_store_says_how_to_fill_it(tmp_path: Path) -> None:
    store = DatasetStore.create(tmp_path / "a.store", height=24, width=32)
    with pytest.raises(StoreError, match="has no training images: augkit ingest FOLDER"):
        ak.augment(store, "zoom")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n": 0}, "n is 0; it must be at least 1"),
        ({"n": -3}, "n is -3; it must be at least 1"),
        ({"total": 0}, "total is 0; it must be at least 1"),
        ({"n": 1, "total": 1}, r"give --n .* or --total .*, not both"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"seed": 2**63}, "seed is 9223372036854775808; it must be at least 0 and below"),
        ({"workers": 0}, "workers is 0; it must be at least 1"),
        ({"block": 0}, "block is 0; it must be at least 1"),
        ({"start_method": "magic"}, "'magic'; it is one of: threads, fork, spawn, forkserver"),
    ],
)
def test_a_bad_amount_seed_or_worker_is_refused(
    store: DatasetStore, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        ak.augment(store, "zoom", **given)
    assert store.snapshot().number == 1


def test_flip_refuses_more_than_one_image_a_source(store: DatasetStore) -> None:
    with pytest.raises(OptionError, match=r"15 of 14 sources cannot be had.*flip\+zoom"):
        ak.augment(store, "flip", n=TRAIN + 1)
    with pytest.raises(OptionError, match="15 of 14 sources"):
        ak.augment(store, "flip", total=3 * TRAIN + 1)
    assert store.snapshot().number == 1
    assert ak.augment(store, "flip", n=TRAIN).rows == 3 * TRAIN
    assert uses(store, "flip").max() == 1


def test_a_chain_with_something_random_makes_many_images_of_a_source(store: DatasetStore) -> None:
    assert ak.augment(store, "flip+brightness", n=50).rows == 150


def test_the_same_line_again_does_nothing(store: DatasetStore) -> None:
    first = ak.augment(store, "zoom", {"side_range": "0.5,0.9"}, n=5, seed=3)
    before = tree(store.path)
    again = ak.augment(store, "zoom", {"side_range": (0.5, 0.9)}, n=5, seed=3)
    assert (again.made, again.run, again.rows) == (False, first.run, first.rows)
    assert "is there already (15 images): nothing to do" in str(again)
    assert tree(store.path) == before


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"n": 6}, {"total": 15, "n": None}, {"options": {"exact": True}}]
)
def test_another_seed_amount_or_option_makes_another_run(
    store: DatasetStore, change: dict[str, Any]
) -> None:
    given = {"n": 5, "seed": 0, "options": None}
    assert ak.augment(store, "zoom", **given).run == "zoom"
    assert ak.augment(store, "zoom", **(given | change)).run == "zoom-2"
    assert ak.augment(store, "zoom", **(given | {"seed": 9})).run == "zoom-3"
    assert list(store.snapshot().runs) == ["zoom", "zoom-2", "zoom-3"]


def test_a_run_can_be_named(store: DatasetStore) -> None:
    assert ak.augment(store, "zoom", run="mine").run == "mine"
    assert not ak.augment(store, "zoom", run="mine").made
    assert not ak.augment(store, "zoom").made
    assert list(store.snapshot().runs) == ["mine"]


def test_a_name_with_another_recipe_is_taken(store: DatasetStore) -> None:
    ak.augment(store, "zoom", run="mine")
    with pytest.raises(NameTaken, match=r"run 'mine' exists already .* augkit retract mine"):
        ak.augment(store, "zoom", run="mine", seed=1)
    with pytest.raises(NameTaken, match="'mine' exists already"):
        ak.augment(store, "flip", run="mine")
    with pytest.raises(NameTaken, match="the same images are run 'mine'"):
        ak.augment(store, "zoom", run="other")
    assert list(store.snapshot().runs) == ["mine"]
    ak.retract(store, "mine")
    assert ak.augment(store, "flip", run="mine").made


@pytest.mark.parametrize("name", ["real", "traditional", "generative", "all", "balanced"])
def test_names_of_arms_are_reserved(store: DatasetStore, name: str) -> None:
    with pytest.raises(OptionError, match=f"run name '{name}' is the name of an arm"):
        ak.augment(store, "zoom", run=name)


@pytest.mark.parametrize("name", ["", "a b", "-x", "../x", "a/b", "a\nb", "ä", "x" * 101])
def test_a_name_that_cannot_be_typed_is_refused(store: DatasetStore, name: str) -> None:
    with pytest.raises(OptionError, match="must be up to 100 letters, digits"):
        ak.augment(store, "zoom", run=name)
    assert store.snapshot().number == 1


def test_a_plugin_with_the_name_of_an_arm_gets_a_number(
    store: DatasetStore, offer: Callable[..., None]
) -> None:
    @dataclass
    class All(Augmenter):
        name = "all"

        def apply(self, images, labels, params):
            return 255 - images

    offer(All)
    assert ak.augment(store, "all").run == "all-2"


def test_an_option_goes_to_every_plugin_that_has_it(store: DatasetStore) -> None:
    ak.augment_all(store, ["zoom", "scale", "flip"], {"exact": "true"}, n=2)
    runs = store.snapshot().runs
    assert runs["zoom"].recipe["plugins"][0]["options"]["exact"] is True
    assert runs["scale"].recipe["plugins"][0]["options"]["exact"] is True
    assert runs["flip"].recipe["plugins"][0]["options"] == {}


def test_an_option_with_the_name_of_a_plugin_goes_to_that_one_alone(store: DatasetStore) -> None:
    ak.augment(store, "zoom+scale", {"zoom.exact": True, "side_range": "0.5,0.6"})
    zoom, scale = store.snapshot().runs["zoom+scale"].recipe["plugins"]
    assert zoom["options"] == {"exact": True, "side_range": [0.5, 0.6]}
    assert scale["options"] == {"exact": False, "factor_range": [0.8, 1.2]}


@pytest.mark.parametrize(
    ("plugins", "options", "error", "message"),
    [
        (["flip", "zoom"], {"sides": 1}, OptionError, r"no option 'sides'.* zoom: side_range"),
        (["flip", "zoom"], {"flip.exact": 1}, OptionError, "no option 'flip.exact'"),
        (["flip", "zoom"], {"scale.exact": 1}, OptionError, "no option 'scale.exact'"),
        (["flip", "zoom"], {"exact": "maybe"}, OptionError, "'maybe'; it must be true or false"),
        (["flip", "zoom"], {"side_range": "0.9,0.5"}, OptionError, "smaller end comes first"),
        (["flip", "zoom"], {"side_range": "0.5,2"}, OptionError, "it must be at most 1"),
        (["flip", "zom"], {}, PluginNotFound, r"no augmenter 'zom' \(did you mean 'zoom'\?\)"),
        (["flip", "zoom+"], {}, PluginNotFound, "no augmenter ''"),
        (["flip", ""], {}, PluginNotFound, "no augmenter ''"),
        (["zoom", "flip"], {}, OptionError, "flip has nothing random"),
    ],
)
def test_everything_is_checked_before_the_first_run_is_written(
    store: DatasetStore, plugins: list[str], options: dict, error: type[Exception], message: str
) -> None:
    before = tree(store.path)
    with pytest.raises(error, match=message):
        ak.augment_all(store, plugins, options, n=TRAIN + 1)
    assert tree(store.path) == before


def test_the_same_plugin_twice_in_a_line_is_one_run(store: DatasetStore) -> None:
    first, second = ak.augment_all(store, ["zoom", "zoom"])
    assert (first.made, second.made) == (True, False)
    assert list(store.snapshot().runs) == ["zoom"]


def test_several_plugins_of_one_line_equal_each_by_itself(tmp_path: Path) -> None:
    one, other = toy_store(tmp_path / "a.store"), toy_store(tmp_path / "b.store")
    ak.augment_all(one, ["zoom", "brightness"], n=4, seed=5)
    ak.augment(other, "brightness", n=4, seed=5)
    ak.augment(other, "zoom", n=4, seed=5)
    for run in ("zoom", "brightness"):
        assert np.array_equal(one.snapshot().inspect(run)[:], other.snapshot().inspect(run)[:])


def test_masks_move_with_their_images(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store", masks=True)
    ak.augment(store, "flip")
    snapshot = store.snapshot()
    parents = snapshot.parents("flip")
    masks, masked = snapshot.inspect("flip").masks(slice(None))
    assert masked.all()
    assert np.array_equal(masks, snapshot.inspect().masks(slice(None))[0][parents][:, :, ::-1])
    assert np.array_equal(snapshot.inspect("flip")[:], snapshot.inspect()[:][parents][:, :, ::-1])


def test_the_mask_of_a_zoomed_image_covers_what_it_covered(tmp_path: Path) -> None:
    store = DatasetStore.create(tmp_path / "a.store", height=48, width=64)
    pixels, masks = np.zeros((24, 48, 64, 1), np.uint8), np.zeros((24, 48, 64), np.uint8)
    for i in range(24):
        masks[i, 12 + i % 8 : 36, 16 : 40 + i % 8] = 255
    pixels[masks > 0] = 200
    keys = [str(i) for i in range(24)]
    ak.ingest_arrays(
        store, [pixels], list("ab") * 12, keys=keys, masks=[masks], find_relatives=False
    )
    for plugin in ("zoom+scale+flip", "brightness", "scale+brightness"):
        ak.augment(store, plugin, n=20)
        made = store.snapshot().inspect(plugin)
        moved, masked = made.masks(slice(None))
        assert masked.all()
        bright = made[:][..., 0] > 90
        assert ((moved > 0) != bright).mean() < 0.02, plugin
        assert set(np.unique(moved).tolist()) == {0, 255}


def test_rows_without_a_mask_stay_without(tmp_path: Path) -> None:
    store = DatasetStore.create(tmp_path / "a.store", height=24, width=32)
    pixels = images(24)
    for dataset, masks in (("with", [np.full((12, 24, 32), 255, np.uint8)]), ("without", None)):
        block = pixels[:12] if masks else pixels[12:]
        ak.ingest_arrays(
            store, [block], list("ab") * 6, keys=[str(i) for i in range(12)], dataset=dataset,
            masks=masks, find_relatives=False,
        )  # fmt: skip
    ak.augment(store, "zoom", n=30)
    snapshot = store.snapshot()
    masks, masked = snapshot.inspect("zoom").masks(slice(None))
    assert np.array_equal(masked, snapshot.real.masked[snapshot.parents("zoom")])
    assert 0 < masked.sum() < len(masked)
    assert (masks[masked] == 255).all()
    assert not masks[~masked].any()


def test_a_plugin_that_cannot_move_masks_makes_rows_without(
    tmp_path: Path, offer: Callable[..., None]
) -> None:
    @dataclass
    class Shuffle(Augmenter):
        name = "shuffle"

        def apply(self, images, labels, params):
            return images[:, ::-1]

    offer(Shuffle)
    store = toy_store(tmp_path / "a.store", masks=True)
    for plugin in ("shuffle", "zoom+shuffle"):
        ak.augment(store, plugin)
        assert not store.snapshot().inspect(plugin).masks(slice(None))[1].any()


def test_after_a_later_ingest_the_same_line_makes_a_new_run(store: DatasetStore) -> None:
    ak.augment(store, "zoom")
    keys = [str(i) for i in range(60)]
    ak.ingest_arrays(
        store, [images(60, 8)], labels(20), keys=keys, dataset="more", find_relatives=False
    )
    again = ak.augment(store, "zoom")
    assert (again.made, again.run, again.rows) == (True, "zoom-2", 6 * TRAIN)
    assert not ak.augment(store, "zoom").made
    first = store.snapshot().parents("zoom")
    assert np.array_equal(first, store.snapshot().parents("zoom-2")[: len(first)])


def test_a_later_ingest_of_test_images_only_changes_no_run(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store", groups=[f"p{i}" for i in range(60)])
    ak.augment(store, "zoom")
    parts, real = store.snapshot().parts(HOLDOUT), store.snapshot().real
    tested = int(np.flatnonzero(parts == 2)[0])
    ak.ingest_arrays(
        store, [images(1, 9)], [CLASSES[real.labels[tested]]], keys=["new"], dataset="toy",
        groups=[f"p{tested}"], find_relatives=False,
    )  # fmt: skip
    assert store.snapshot().parts(HOLDOUT)[-1] == 2
    assert not ak.augment(store, "zoom").made


def test_a_flip_says_that_text_is_mirrored_too(store: DatasetStore) -> None:
    assert "a flip mirrors burned-in text" in str(ak.augment(store, "flip"))
    assert "mirrors" not in str(ak.augment(store, "zoom"))


def test_results_print_and_turn_into_json(store: DatasetStore) -> None:
    result = ak.augment(store, "zoom", n=2, seed=4)
    assert str(result) == "run 'zoom': 6 new images (2 benign, 2 malignant, 2 normal), seed 4"
    found = json.loads(result.to_json())
    assert found["by_class"] == {"benign": 2, "malignant": 2, "normal": 2}
    assert {"run", "plugin", "rows", "seed", "made", "notes"} <= set(found)


@dataclass
class Wrong(Augmenter):
    """Breaks the contract in the way that its option names."""

    name = "wrong"
    how: str = "not at all"

    def plan(self, labels, shape, rng):
        params = super().plan(labels, shape, rng)
        match self.how:
            case "plan raises":
                raise RuntimeError("no plan")
            case "plan of objects":
                return params.astype([("seed", object)])
            case "plan of text":
                return params.astype([("seed", "U20")])
            case "plan of nested objects":
                return np.zeros(len(labels), [("a", [("b", object)])])
            case "plan of dates":
                return np.zeros(len(labels), [("day", "M8[D]")])
            case "plan without fields":
                return params["seed"]
            case "plan too short":
                return params[:-1]
            case "plan of a list":
                return params.tolist()
        return params

    def apply(self, images, labels, params):
        match self.how:
            case "raises":
                raise ZeroDivisionError("no images")
            case "raises later" if labels[0] == 2:
                raise ZeroDivisionError("no images")
            case "float":
                return images / 1
            case "int16":
                return images.astype(np.int16)
            case "no channel":
                return images[..., 0]
            case "transposed":
                return images.transpose(0, 2, 1, 3)
            case "one less":
                return images[1:]
            case "one more":
                return np.concatenate([images, images[:1]])
            case "nothing":
                return None
            case "list":
                return list(images)
            case "modifies":
                images += 1
                return images
        return images.copy()

    def apply_masks(self, masks, params):
        match self.how:
            case "masks raise":
                raise ZeroDivisionError("no masks")
            case "one mask less":
                return masks[1:]
            case "masks of floats":
                return masks / 255
            case "masks in a list":
                return list(masks)
        return masks


HOWS = {
    "raises": r"failed in apply\(\): ZeroDivisionError: no images",
    "raises later": r"failed in apply\(\): ZeroDivisionError: no images",
    "float": r"apply\(\) returned float64 \(.*\) instead of uint8 \(",
    "int16": r"apply\(\) returned int16",
    "no channel": r"apply\(\) returned uint8 \(\d+, 24, 32\) instead of uint8 \(\d+, 24, 32, 1\)",
    "transposed": r"returned uint8 \(\d+, 32, 24, 1\)",
    "one less": r"returned uint8 \(13, 24, 32, 1\) instead of uint8 \(14,",
    "one more": r"returned uint8 \(15, 24, 32, 1\) instead of uint8 \(14,",
    "nothing": r"returned NoneType instead of uint8",
    "list": "returned list instead of uint8",
    "modifies": r"failed in apply\(\): ValueError: .*read-only",
    "plan raises": r"failed in plan\(\): RuntimeError: no plan",
    "plan of objects": r"plan\(\) must return a structured array of numbers, 42 rows",
    "plan of nested objects": r"plan\(\) must return a structured array of numbers",
    "plan of text": r"plan\(\) must return a structured array of numbers",
    "plan of dates": r"plan\(\) must return a structured array of numbers",
    "plan without fields": r"plan\(\) must return a structured array of numbers",
    "plan too short": r"plan\(\) must return a structured array of numbers",
    "plan of a list": r"plan\(\) must return a structured array of numbers",
    "masks raise": r"failed in apply_masks\(\): ZeroDivisionError: no masks",
    "one mask less": r"apply_masks\(\) returned",
    "masks of floats": r"apply_masks\(\) returned",
    "masks in a list": r"apply_masks\(\) returned",
}


@pytest.mark.parametrize("how", HOWS)
def test_a_plugin_that_breaks_the_contract_is_named_and_nothing_is_committed(
    tmp_path: Path, offer: Callable[..., None], how: str
) -> None:
    offer(Wrong)
    store = toy_store(tmp_path / "a.store", masks=True)
    before = tree(store.path)
    with pytest.raises(PluginFailed, match=HOWS[how]) as caught:
        ak.augment(store, "wrong", {"how": how}, block=14, workers=2)
    assert str(caught.value).startswith("plugin 'wrong'")
    assert "\n" not in str(caught.value)
    assert tree(store.path) == before
    assert ak.augment(store, "wrong", {"how": "not at all"}).made


def test_what_a_plugin_raised_is_kept_as_the_cause(
    store: DatasetStore, offer: Callable[..., None]
) -> None:
    offer(Wrong)
    with pytest.raises(PluginFailed) as caught:
        ak.augment(store, "wrong", {"how": "raises"}, start_method="fork", workers=2)
    assert "ZeroDivisionError" in str(caught.value)
    with pytest.raises(PluginFailed) as caught:
        ak.augment(store, "wrong", {"how": "raises"})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_broken_member_of_a_chain_is_named(
    store: DatasetStore, offer: Callable[..., None]
) -> None:
    offer(Wrong)
    for how in ("float", "raises", "plan of objects", "plan of text", "modifies"):
        with pytest.raises(PluginFailed, match="wrong"):
            ak.augment(store, "wrong+zoom", {"how": how})
    assert store.snapshot().number == 1


def test_a_plugin_whose_message_has_several_lines_gives_one(
    store: DatasetStore, offer: Callable[..., None]
) -> None:
    @dataclass
    class Wordy(Augmenter):
        name = "wordy"

        def apply(self, images, labels, params):
            raise ValueError("one\n  two\nthree")

    offer(Wordy)
    with pytest.raises(PluginFailed) as caught:
        ak.augment(store, "wordy")
    assert re.search("one two three", str(caught.value))


def test_a_generative_plugin_needs_an_amount_and_gives_rows_without_a_parent(
    store: DatasetStore, offer: Callable[..., None]
) -> None:
    @dataclass
    class Noise(Augmenter):
        name = "noise"
        family = "generative"

        def apply(self, images, labels, params):
            assert images is None
            rngs = [np.random.default_rng(s) for s in params["seed"].tolist()]
            return np.stack([r.integers(0, 256, (24, 32, 1), np.uint8) for r in rngs])

    offer(Noise)
    with pytest.raises(OptionError, match="say how many images noise is to make: --n"):
        ak.augment(store, "noise")
    assert ak.augment(store, "noise", n=5).by_class == dict.fromkeys(CLASSES, 5)
    with pytest.raises(OptionError, match="'noise' in the chain"):
        ak.augment(store, "noise+zoom", n=5)
    assert ak.verify(store).sound
    assert len(store.snapshot().training(HOLDOUT, ["noise"])) == 3 * TRAIN + 15


@pytest.mark.parametrize("block", [1, 8, 64, 500])
def test_masks_are_kept_whatever_block_the_first_masked_parent_lies_in(
    tmp_path: Path, block: int
) -> None:
    store = DatasetStore.create(tmp_path / "a.store", height=24, width=32)
    for name, masked in (("bare", False), ("drawn", True)):
        ak.ingest_arrays(
            store,
            [images(40, seed=len(name))],
            [name] * 40,
            keys=[str(i) for i in range(40)],
            dataset=name,
            masks=[np.full((40, 24, 32), 255, np.uint8)] if masked else None,
            find_relatives=False,
        )
    ak.augment(store, "flip", block=block)
    snapshot = store.snapshot()
    found, masked = snapshot.inspect("flip").masks(slice(None))
    parents = snapshot.parents("flip")
    assert np.array_equal(masked, snapshot.real.masked[parents])
    assert masked.sum() == 28
    assert (found[masked] == 255).all()
    assert (found[~masked] == 0).all()


@pytest.mark.parametrize("total", [1, 7, 41, 42, 43, 100])
def test_a_total_is_shared_among_the_classes_by_their_sizes(tmp_path: Path, total: int) -> None:
    names = ("few", "some", "many")
    store = DatasetStore.create(tmp_path / "a.store", height=24, width=32)
    ak.ingest_arrays(
        store,
        [images(60)],
        [names[0]] * 6 + [names[1]] * 18 + [names[2]] * 36,
        keys=[str(i) for i in range(60)],
        find_relatives=False,
    )
    made = ak.augment(store, "zoom", total=total)
    sizes = store.snapshot().count_by_class(store.snapshot().parts(HOLDOUT) == 0)
    assert sum(made.by_class.values()) == total
    for name, count in made.by_class.items():
        assert abs(count - total * sizes[name] / sum(sizes.values())) < 1
    used = np.bincount(store.snapshot().parents("zoom"), minlength=60)
    used = used[store.snapshot().parts(HOLDOUT) == 0]
    assert used.max() - used.min() <= 1


@pytest.mark.parametrize("value", [2.5, "3", 3.0])
def test_amounts_and_seeds_are_whole_numbers(store: DatasetStore, value: Any) -> None:
    for name in ("n", "total", "seed"):
        with pytest.raises(OptionError, match=f"{name} is .*; it must be a whole number"):
            ak.augment(store, "zoom", **{name: value})
    assert ak.augment(store, "zoom", n=np.int64(3), seed=np.int64(5)).made
