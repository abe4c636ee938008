import sys
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from augkit_classifiers import register_classifiers
from augkit_classifiers.texture import Texture, texture
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern

from augkit.errors import InputError, OptionError, PluginError
from augkit.interfaces import ArraySamples, Context, extract
from augkit.options import build
from augkit.testing import check_classifier, toy_samples

THREE = ("benign", "malignant", "normal")
FOUND = {}


def remembered(key, function, samples):
    """Return features as `extract` does, once for each set of images in this file."""
    if samples.digest not in FOUND:
        FOUND[samples.digest] = extract(key, function, samples)
    return FOUND[samples.digest]


CONTEXT = Context(seed=0, classes=THREE, cached=remembered)
MACHINES = ({}, {"kernel": "rbf"}, {"machine": "adaboost"})
every_machine = pytest.mark.parametrize(
    "options", MACHINES, ids=lambda options: next(iter(options.values()), "linear")
)


def picked(samples, rows):
    return ArraySamples(samples.images[rows], samples.targets[rows])


@lru_cache
def phantoms_of(n_per_class, seed):
    return toy_samples(n_per_class, height=64, width=72, seed=seed)


def fitted(train, val=None, context=CONTEXT, **options):
    classifier = build(Texture, options)
    classifier.fit(train, val or toy_samples(4, seed=9), context)
    return classifier


def accuracy(classifier, samples):
    return (classifier.predict_proba(samples).argmax(1) == samples.targets).mean()


@pytest.mark.slow
@every_machine
def test_texture_keeps_the_contract(options):
    check_classifier(Texture, **options)


def test_texture_is_offered_by_its_hook_and_says_where_it_comes_from():
    assert Texture in register_classifiers()
    assert "scikit-image" in Texture.about().source and "MIT" in Texture.about().licence


@pytest.mark.slow
@every_machine
def test_texture_learns_easy_phantoms_and_nothing_from_shuffled_labels(options):
    train, val, test = (phantoms_of(n, seed) for seed, n in enumerate((40, 10, 40)))
    assert accuracy(fitted(train, val, **options), test) > 0.8
    rng = np.random.default_rng(0)
    train, val = (ArraySamples(s.images, rng.permutation(s.targets)) for s in (train, val))
    assert accuracy(fitted(train, val, **options), test) < 0.5


@every_machine
def test_eight_images_are_learnt_by_heart(options):
    few = picked(toy_samples(3, difficulty=1), slice(0, 8))
    assert accuracy(fitted(few, few, **options), few) == 1


@every_machine
def test_plain_copies_of_the_data_change_nothing(options):
    train, test = toy_samples(12, difficulty=0.6), toy_samples(12, seed=2, difficulty=0.6)
    once = fitted(train, **options).predict_proba(test)
    twice = fitted(picked(train, np.tile(np.arange(36), 2)), **options).predict_proba(test)
    np.testing.assert_allclose(once, twice, atol=5e-3)


def test_class_weights_are_off_by_option_or_by_context():
    train = toy_samples(12, difficulty=0.8)
    train, test = picked(train, slice(0, 30)), toy_samples(12, seed=2, difficulty=0.8)
    train = picked(train, (train.targets > 0) | (np.arange(30) < 9))
    weighted = fitted(train).predict_proba(test)
    unweighted = fitted(train, class_weight="none").predict_proba(test)
    whatever = fitted(train, context=replace(CONTEXT, balance=False)).predict_proba(test)
    np.testing.assert_array_equal(unweighted, whatever)
    assert np.abs(weighted - unweighted).max() > 0.01


def test_features_go_through_the_cache_in_fit_and_prediction():
    asked = []

    def cached(key, function, samples):
        asked.append((key, samples.digest))
        return extract(key, function, samples)

    train, val, test = (toy_samples(4, seed=s) for s in range(3))
    fitted(train, val, Context(0, THREE, cached=cached)).predict_proba(test)
    assert {digest for _, digest in asked} == {s.digest for s in (train, val, test)}
    assert {key for key, _ in asked} == {"texture-1"}


def test_an_empty_validation_part_and_an_empty_prediction_are_taken():
    none = picked(toy_samples(2), slice(0, 0))
    found = fitted(toy_samples(4), none).predict_proba(none)
    assert found.shape == (0, 3) and found.dtype == np.float32


def test_a_training_part_of_one_class_is_an_error_that_names_it():
    train = toy_samples(8)
    with pytest.raises(InputError, match="only images of class 'malignant'; texture needs"):
        fitted(picked(train, train.targets == 1))
    with pytest.raises(InputError, match="no images"):
        fitted(picked(train, train.targets == 7))


def test_options_of_the_other_machine_are_refused():
    with pytest.raises(OptionError, match="C=2 is for machine=svm"):
        build(Texture, {"machine": "adaboost", "C": "2"})
    with pytest.raises(OptionError, match="kernel=rbf is for machine=svm"):
        build(Texture, {"machine": "adaboost", "kernel": "rbf"})


@pytest.mark.parametrize("package", ["skimage.feature", "pywt"])
def test_a_missing_package_is_named_before_and_at_work(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PluginError, match="pip install scikit-image PyWavelets"):
        Texture().settle((16, 16, 1), "cpu")
    with pytest.raises(PluginError, match=package):
        texture(toy_samples(1).images)


@pytest.mark.parametrize("side", [(8, 8), (8, 40), (16, 16), (21, 33), (48, 50)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_image_gives_finite_features_without_a_warning(side, channels):
    noise = np.random.default_rng(0).integers(0, 256, (3, *side, channels), np.uint8)
    flat = np.stack([np.full((*side, channels), level, np.uint8) for level in (0, 77, 255)])
    found = texture(np.concatenate([noise, flat]))
    assert found.dtype == np.float32 and found.shape[0] == 6 and np.isfinite(found).all()
    assert found.shape[1] == 128 or min(side) < 48
    np.testing.assert_array_equal(texture(noise[1:2]), found[1:2])


def test_a_grey_image_in_three_channels_is_the_same_as_in_one():
    grey = toy_samples(1).images
    np.testing.assert_array_equal(texture(grey), texture(np.repeat(grey, 3, axis=3)))
    colours = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    assert not np.array_equal(texture(colours), texture(colours[..., ::-1]))


def test_features_are_those_of_scikit_image_and_pywavelets():
    import pywt

    image = toy_samples(1, height=64, width=72).images[0, ..., 0]
    found = texture(image[None, ..., None])[0]
    counts = graycomatrix(image // 8, [2], [np.pi / 2], 32, symmetric=True, normed=True)
    contrast, entropy = (graycoprops(counts, p)[0, 0] for p in ("contrast", "entropy"))
    assert found[4 + 2] == pytest.approx(np.log1p(contrast), rel=1e-6)  # distance 2, 90 degrees
    assert found[24 + 4 + 2] == pytest.approx(entropy, rel=1e-6)
    codes = local_binary_pattern(image, 8, 3, "uniform")[3:-3, 3:-3]
    shares = [(codes == code).mean() for code in range(10)]
    np.testing.assert_allclose(np.square(found[72 + 20 : 72 + 30]), shares, atol=1e-6)
    *_, (across, _, _) = pywt.wavedec2(image.astype(float), "db2", level=4)
    at = 102 + 2 + 3 * 3 * 2  # after the coarse band and three scales of three bands
    expected = np.log1p([np.abs(across).mean(), across.std()])
    np.testing.assert_allclose(found[at : at + 2], expected, rtol=1e-5)


def test_binary_patterns_do_not_change_with_a_quarter_turn_but_cooccurrences_do():
    image = toy_samples(1, height=48, width=48).images
    first, turned = texture(image)[0], texture(np.rot90(image, axes=(1, 2)))[0]
    np.testing.assert_allclose(first[72:102], turned[72:102], atol=0.05)
    assert np.abs(first[:72] - turned[:72]).max() > 0.1
    np.testing.assert_allclose(first[4], turned[6], rtol=1e-5)  # across becomes down
