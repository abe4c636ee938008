from dataclasses import dataclass

import numpy as np
import pytest
from augkit_classifiers.linear import Linear
from PIL import Image

from augkit.errors import LineageError, OptionError
from augkit.interfaces import ArraySamples, Augmenter, Classifier, Context
from augkit.options import build, option
from augkit.phantoms import _speckle
from augkit.testing import (
    CLASSES,
    Copy,
    Oracle,
    Poison,
    check_augmenter,
    check_classifier,
    iter_phantoms,
    phantoms,
    toy_samples,
    write_phantoms,
)


def test_phantoms_have_the_shapes_and_types_that_are_promised():
    images, masks, labels = phantoms(2, height=40, width=56, channels=3)
    assert images.shape == (6, 40, 56, 3) and images.dtype == np.uint8
    assert masks.shape == (6, 40, 56) and set(np.unique(masks)) == {0, 255}
    assert labels.tolist() == [0, 1, 2, 0, 1, 2] and labels.dtype == np.int64
    assert (images[..., 0] == images[..., 2]).all()


def test_an_image_depends_on_its_seed_and_index_and_not_on_how_many_are_made():
    few, many = phantoms(2, height=32, width=32)[0], phantoms(5, height=32, width=32)[0]
    np.testing.assert_array_equal(few, many[:6])
    assert (phantoms(2, height=32, width=32, seed=1)[0] != few).mean() > 0.8


def test_the_generator_holds_one_image_at_a_time():
    made = iter_phantoms(10**9, height=16, width=16)
    image, mask, label = next(made)
    assert image.shape == (16, 16, 1) and mask.shape == (16, 16) and label == 0


@pytest.mark.parametrize("height, width", [(16, 16), (17, 120), (300, 200)])
def test_any_size_from_16_pixels_is_made(height, width):
    images, masks, _ = phantoms(2, height=height, width=width)
    assert images.std(axis=(1, 2, 3)).min() > 10
    assert (masks > 0).any(axis=(1, 2)).sum() >= 2


def easy(kind, n=12):
    images, masks, labels = phantoms(n, difficulty=0)
    return images[labels == kind, ..., 0].astype(float), masks[labels == kind] > 0


def extent(mask, axis):
    return int(mask.any(axis=axis).sum())


def behind(image, mask):
    """Return mean grey below the mass less that beside it, at the same depths."""
    y, x = np.nonzero(mask)
    rows = slice(y.max() + 4, min(y.max() + 30, len(image)))
    below, beside = image[rows, int(x.mean()) - 4 : int(x.mean()) + 5], image[rows]
    return below.mean() - np.median(beside)


def test_an_easy_benign_mass_is_dark_wide_and_bright_behind():
    images, masks = easy(0)
    pairs = list(zip(images, masks, strict=True))
    assert all(extent(m, 0) > extent(m, 1) for m in masks)
    assert all(i[m].mean() < i[~m].mean() - 30 for i, m in pairs)
    assert np.mean([behind(i, m) for i, m in pairs]) > 5


def test_an_easy_malignant_mass_is_dark_and_tall_with_a_shadow():
    images, masks = easy(1)
    assert np.mean([extent(m, 1) / extent(m, 0) for m in masks]) > 1.15
    assert np.mean([behind(i, m) for i, m in zip(images, masks, strict=True)]) < -15


def test_a_normal_image_has_no_mass():
    assert not easy(2)[1].any()
    assert not phantoms(20, difficulty=0.2, height=32, width=32)[1][2::3].any(axis=(1, 2)).all()


def test_the_speckle_is_fully_developed():
    flat = _speckle(np.zeros((200, 200), np.float32), 1.0, np.random.default_rng(0))
    amplitude = 10 ** (flat / 20)
    assert amplitude.mean() / amplitude.std() == pytest.approx(1.913, rel=0.03)  # Rayleigh
    assert np.square(amplitude).mean() == pytest.approx(1, rel=0.05)


def alike(images):
    """Return the largest correlation of any two, over small shifts, after a high-pass at 96x96."""
    from scipy.ndimage import gaussian_filter

    small = np.stack([np.asarray(Image.fromarray(i).resize((96, 96))) for i in images])
    high = small.astype(float) - gaussian_filter(small.astype(float), (0, 4, 4))
    spectra = np.fft.rfft2(high / np.sqrt(np.square(high).sum((1, 2), keepdims=True)))
    largest = 0.0
    for i, one in enumerate(spectra[:-1]):
        peaks = np.fft.irfft2(spectra[i + 1 :] * one.conj(), s=(96, 96))
        near = np.roll(peaks, (8, 8), (1, 2))[:, :17, :17]
        largest = max(largest, float(near.max()))
    return largest


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_no_two_phantoms_are_near_duplicates(difficulty):
    first = phantoms(12, difficulty=difficulty)[0]
    second = phantoms(12, difficulty=difficulty, seed=1)[0]
    assert alike(np.concatenate([first, second])[..., 0]) < 0.3


def test_further_classes_take_the_kinds_in_turn_and_differ():
    images, masks, labels = phantoms(3, classes=("a", "normal", "c", "d", "e"), difficulty=0)
    masses = [bool(masks[labels == k].any()) for k in range(5)]
    assert masses == [True, False, True, True, True]
    grain = [np.abs(np.diff(images[labels == k].astype(int), axis=2)).mean() for k in (0, 3)]
    assert grain[0] > 1.15 * grain[1]


@pytest.mark.slow
@pytest.mark.parametrize("difficulty, expected", [(0, 0.99), (0.5, 0.80), (1, 0.35)])
def test_difficulty_costs_the_linear_classifier_what_the_table_says(difficulty, expected):
    def part(n, seed):
        return toy_samples(n, height=80, width=96, difficulty=difficulty, seed=seed)

    test, classifier = part(100, 13), Linear(C=1.0)
    classifier.fit(part(100, 11), part(2, 12), Context(0, CLASSES))
    hits = classifier.predict_proba(test).argmax(1) == test.targets
    assert hits.mean() == pytest.approx(expected, abs=0.08)


def scanned(n, seed, variety):
    return toy_samples(n, height=40, width=48, difficulty=0.1, variety=variety, seed=seed)


def test_variety_is_that_of_scanners():
    spread = [scanned(20, 14, v).images.mean((1, 2, 3)).std() for v in (0.0, 1.0, 3.0)]
    assert spread[0] < spread[1] < spread[2]


@pytest.mark.seconds
@pytest.mark.parametrize("variety, expected", [(0, 0.95), (1, 0.88), (2, 0.77), (3, 0.66)])
def test_variety_costs_the_linear_classifier_what_the_table_says(variety, expected):
    test, classifier = scanned(100, 13, variety), Linear()
    classifier.fit(scanned(100, 11, variety), scanned(20, 12, variety), Context(0, CLASSES))
    hits = classifier.predict_proba(test).argmax(1) == test.targets
    assert hits.mean() == pytest.approx(expected, abs=0.08)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_files_are_named_as_in_busi_and_hold_the_same_pixels(tmp_path):
    folder = write_phantoms(tmp_path / "b", 2, height=24, width=32)
    images, masks, _ = phantoms(2, height=24, width=32)
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.png"))
    assert len(names) == 12 and names[:2] == ["benign/benign (1).png", "benign/benign (1)_mask.png"]
    for index, name in enumerate(("benign", "malignant", "normal")):
        stem = folder / name / f"{name} (2)"
        np.testing.assert_array_equal(pixels(f"{stem}.png"), images[3 + index, ..., 0])
        np.testing.assert_array_equal(pixels(f"{stem}_mask.png"), masks[3 + index])
    write_phantoms(tmp_path / "rgb", 1, height=24, width=32, channels=3)
    assert pixels(tmp_path / "rgb/normal/normal (1).png").shape == (24, 32, 3)


@pytest.mark.parametrize(
    "given, said",
    [
        ({"height": 15}, "the least is 16x16"),
        ({"channels": 2}, "1 or 3"),
        ({"difficulty": 1.1}, "0..1"),
        ({"difficulty": float("nan")}, "0..1"),
        ({"variety": 3.1}, "0..3"),
        ({"seed": -1}, "seed is -1"),
        ({"classes": ("a", "a")}, "each name once"),
        ({"n_per_class": -1}, "at least 0"),
    ],
)
def test_values_out_of_range_are_refused(given, said):
    with pytest.raises(OptionError, match=said):
        iter_phantoms(**{"n_per_class": 1, **given})
    with pytest.raises(OptionError, match=said):
        phantoms(**{"n_per_class": 1, **given})


@pytest.mark.parametrize("cls", [Oracle, Copy, Poison])
def test_the_augmenters_of_known_truth_keep_the_contract(cls):
    check_augmenter(cls)


def made_by(cls, n=60, **options):
    train = toy_samples(2, height=80, width=96)
    augmenter = build(cls, options)
    augmenter.fit(train, Context(0, CLASSES))
    labels = np.arange(n) % 3
    params = augmenter.plan(labels, train.shape, np.random.default_rng(3))
    return augmenter.apply(None, labels, params), labels, params


def test_the_oracle_shows_the_class_that_is_asked_for():
    train = toy_samples(60, height=80, width=96)
    judge = Linear(C=1.0)
    judge.fit(train, train, Context(0, CLASSES))
    images, labels, _ = made_by(Oracle, difficulty=0.0)
    judged = judge.predict_proba(ArraySamples(images, labels)).argmax(1)
    assert (judged == labels).mean() > 0.9


def test_poison_repeats_training_images_its_share_under_the_class_that_comes_next():
    train = toy_samples(100)
    poison = build(Poison, {"share": 0.3})
    poison.fit(train, Context(0, CLASSES))
    labels = np.arange(900) % 3
    params = poison.plan(labels, train.shape, np.random.default_rng(0))
    made = poison.apply(None, labels, params)
    true = {image.tobytes(): c for image, c in zip(train.images, train.targets, strict=True)}
    shown = np.array([true[image.tobytes()] for image in made])
    wrong = shown != labels
    assert wrong.mean() == pytest.approx(0.3, abs=0.05)
    assert ((shown[wrong] + 1) % 3 == labels[wrong]).all()
    seen = {}
    for image, label in zip(made, labels, strict=True):
        assert seen.setdefault(image.tobytes(), label) == label, "one image, two classes"


def test_the_oracle_does_not_repeat_the_phantoms_of_a_store():
    train = toy_samples(2, difficulty=0.5)
    oracle = Oracle()
    oracle.fit(train, Context(0, CLASSES))
    params = np.array([(0,)], [("seed", np.uint64)])
    made = oracle.apply(None, np.array([0]), params)
    assert (made[0] != train.images[0]).mean() > 0.8


@dataclass
class Base(Augmenter):
    name = "broken"

    def apply(self, images, labels, params):
        return 255 - images


class Modifies(Base):
    def apply(self, images, labels, params):
        images[:] = 0
        return images.copy()


class Draws(Base):
    def apply(self, images, labels, params):
        return np.random.default_rng().integers(0, 256, images.shape, np.uint8)


class Floats(Base):
    def apply(self, images, labels, params):
        return images / 255


class Crops(Base):
    def apply(self, images, labels, params):
        return images[:, 1:]


class Mixes(Base):
    def apply(self, images, labels, params):
        return images - images.mean(axis=0).astype(np.uint8)


class GreyOnly(Base):
    def apply(self, images, labels, params):
        return images[..., :1].copy()


class PlansLists(Base):
    def plan(self, labels, shape, rng):
        return [1] * len(labels)


class PlansTooFew(Base):
    def plan(self, labels, shape, rng):
        return super().plan(labels[1:], shape, rng)


class PlansObjects(Base):
    def plan(self, labels, shape, rng):
        return np.zeros(len(labels), [("a", object)])


class PlansByClock(Base):
    def plan(self, labels, shape, rng):
        return super().plan(labels, shape, np.random.default_rng())


class SaysDeterministic(Base):
    deterministic = True

    def apply(self, images, labels, params):
        return images + (params["seed"] % 7).astype(np.uint8)[:, None, None, None]


class GreyMasks(Base):
    def apply_masks(self, masks, params):
        return masks // 2


class LosesModel(Oracle):
    name = "broken"

    def load(self, folder):
        super().load(folder)
        self.classes_ = self.classes_[::-1]


class BadFamily(Base):
    family = "other"


class BadName(Base):
    name = "Not Good"


class PlainClass(Augmenter):
    name = "broken"


@dataclass
class NoDefault(Augmenter):
    strength: float
    name = "broken"


@pytest.mark.parametrize(
    "cls, said",
    [
        (Modifies, "modifies its input"),
        (Draws, "draw in plan"),
        (Floats, "gives float64; it must give uint8"),
        (Crops, "the shape must be kept"),
        (Mixes, "blocks of 1"),
        (GreyOnly, r"shape \(24, 32, 40, 1\) for \(24, 32, 40, 3\)"),
        (PlansLists, "structured array"),
        (PlansTooFew, "one row an output"),
        (PlansObjects, "object fields"),
        (PlansByClock, "for the same seed"),
        (SaysDeterministic, "the seed matters"),
        (GreyMasks, "other than 0 and 255"),
        (LosesModel, "after save and load"),
        (BadFamily, "traditional or generative"),
        (BadName, "lower case"),
        (PlainClass, "is not a dataclass"),
        (NoDefault, "has no default value"),
        (Linear, "is no Augmenter"),
    ],
)
def test_a_broken_augmenter_is_told_what_is_wrong(cls, said):
    if "__dataclass_fields__" not in vars(cls) and cls is not PlainClass:
        cls = dataclass(cls)
    with pytest.raises(AssertionError, match=said):
        check_augmenter(cls)


@dataclass
class Frequencies(Classifier):
    """Predicts how frequent each class is: not clever, but correct."""

    name = "frequencies"
    deterministic = True
    extra: float = option(1.0, "pseudo-count", low=0)

    def fit(self, train, val, context):
        counts = np.bincount(train.labels, minlength=len(context.classes)) + self.extra
        self.shares_ = (counts / counts.sum()).astype(np.float32)

    def predict_proba(self, samples):
        return np.tile(self.shares_, (len(samples), 1))


def test_a_correct_classifier_need_not_be_clever():
    check_classifier(Frequencies, extra=2.0)


class Logits(Frequencies):
    def predict_proba(self, samples):
        return np.log(super().predict_proba(samples))


class Doubles(Frequencies):
    def predict_proba(self, samples):
        return super().predict_proba(samples).astype(np.float64)


class TwoOnly(Frequencies):
    def predict_proba(self, samples):
        return np.full((len(samples), 2), 0.5, np.float32)


class Unnormalised(Frequencies):
    def predict_proba(self, samples):
        return super().predict_proba(samples) * np.float32(1.00001)


class Peeks(Frequencies):
    def predict_proba(self, samples):
        return np.eye(len(self.shares_), dtype=np.float32)[samples.labels]


class Remembers(Frequencies):
    def fit(self, train, val, context):
        self.fits_ = getattr(self, "fits_", 0) + 1
        shares = np.arange(len(context.classes)) + float(self.fits_)
        self.shares_ = (shares / shares.sum()).astype(np.float32)


class Seeded(Frequencies):
    def fit(self, train, val, context):
        super().fit(train, val, context)
        drawn = np.random.default_rng(context.seed).random(len(self.shares_))
        self.shares_ = (drawn / drawn.sum()).astype(np.float32)


class Unseeded(Seeded):
    deterministic = False

    def fit(self, train, val, context):
        fresh = int(np.random.default_rng().integers(2**32))
        super().fit(train, val, Context(fresh, context.classes))


class ByBatch(Frequencies):
    def predict_proba(self, samples):
        made = super().predict_proba(samples).astype(np.float64) ** (1 + len(samples))
        made[:, 0] *= len(samples)
        return (made / made.sum(1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    "cls, said",
    [
        (Logits, "no probabilities"),
        (Doubles, "float64, not float32"),
        (TwoOnly, r"shape \(9, 2\) for 9 rows of 3 classes"),
        (Unnormalised, "not 1"),
        (Remembers, "fitted twice"),
        (Seeded, "called deterministic"),
        (Unseeded, "fitted twice|same seed"),
        (ByBatch, "when it is alone"),
    ],
)
def test_a_broken_classifier_is_told_what_is_wrong(cls, said):
    with pytest.raises(AssertionError, match=said):
        check_classifier(dataclass(cls))


def test_a_classifier_that_peeks_at_labels_is_stopped():
    with pytest.raises(LineageError, match="not for classifiers"):
        check_classifier(dataclass(Peeks))
