import subprocess
import sys

import numpy as np
import pytest
from augkit_classifiers import register_classifiers
from augkit_classifiers.linear import Linear

from augkit.errors import InputError, OptionError, PluginFailed
from augkit.interfaces import ArraySamples, Context, extract
from augkit.options import build
from augkit.testing import check_classifier, toy_samples

THREE = ("benign", "malignant", "normal")
CONTEXT = Context(seed=0, classes=THREE)


def picked(samples, rows):
    return ArraySamples(samples.images[rows], samples.targets[rows])


def fitted(train, val=None, context=CONTEXT, **options):
    classifier = build(Linear, options)
    classifier.fit(train, val or toy_samples(4, seed=9), context)
    return classifier


@pytest.mark.seconds
def test_linear_keeps_the_contract():
    check_classifier(Linear)
    check_classifier(Linear, C=0.5, class_weight="none")


def test_linear_is_offered_by_its_hook():
    assert Linear in register_classifiers()


def test_linear_learns_easy_phantoms_and_nothing_from_shuffled_labels():
    train = toy_samples(40, height=80, width=96, difficulty=0.1)
    test = toy_samples(40, height=80, width=96, difficulty=0.1, seed=1)
    found = fitted(train, toy_samples(8, height=80, width=96)).predict_proba(test)
    assert (found.argmax(1) == test.targets).mean() > 0.85
    shuffled = ArraySamples(train.images, np.random.default_rng(0).permutation(train.targets))
    found = fitted(shuffled, C=1.0).predict_proba(test)
    assert (found.argmax(1) == test.targets).mean() < 0.5


def test_plain_copies_of_the_data_change_nothing():
    train, test = toy_samples(12, difficulty=0.6), toy_samples(12, seed=2, difficulty=0.6)
    once = fitted(train, C=1.0).predict_proba(test)
    twice = fitted(picked(train, np.tile(np.arange(36), 2)), C=1.0).predict_proba(test)
    np.testing.assert_allclose(once, twice, atol=1e-3)


def test_repeating_a_class_until_it_is_as_large_as_the_others_changes_nothing():
    whole, test = toy_samples(12, difficulty=0.6), toy_samples(12, seed=2, difficulty=0.6)
    few = np.flatnonzero((whole.targets > 0) | (np.arange(36) < 12))  # 4 benign, 12 of the others
    lean = picked(whole, few)
    benign = np.flatnonzero(lean.targets == 0)
    equal = picked(lean, np.concatenate([np.arange(len(few)), benign, benign]))
    assert len(set(np.bincount(equal.targets))) == 1
    first, second = (fitted(s, C=1.0).predict_proba(test) for s in (lean, equal))
    np.testing.assert_allclose(first, second, atol=1e-3)
    unweighted = fitted(lean, C=1.0, class_weight="none").predict_proba(test)
    assert np.abs(unweighted - first).max() > 0.05


@pytest.mark.parametrize("shape", [(16, 16, 1), (16, 40, 3), (33, 21, 1), (200, 150, 3)])
def test_any_size_of_image_is_taken(shape):
    height, width, channels = shape
    train = toy_samples(4, height=height, width=width, channels=channels)
    found = fitted(train, train).predict_proba(train)
    assert found.shape == (12, 3) and np.isfinite(found).all()


def test_a_class_that_is_absent_from_training_gets_probability_zero():
    train = toy_samples(8)
    train = picked(train, train.targets != 1)
    found = fitted(train).predict_proba(toy_samples(4, seed=3))
    assert (found[:, 1] == 0).all()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


def test_a_training_part_of_one_class_is_an_error_that_names_it():
    train = toy_samples(8)
    with pytest.raises(InputError, match="only images of class 'malignant'"):
        fitted(picked(train, train.targets == 1))
    with pytest.raises(InputError, match="no images"):
        fitted(picked(train, train.targets == 7))


def test_the_strength_is_chosen_on_the_validation_part():
    train, val = toy_samples(15, difficulty=0.7), toy_samples(15, seed=5, difficulty=0.7)
    chosen = fitted(train, val)
    losses = {}
    for strength in (0.1, 1.0, 10.0):
        chances = fitted(train, val, C=strength).predict_proba(val)
        losses[strength] = -np.log(chances[np.arange(45), val.targets]).mean()
    best = min(losses, key=losses.get)
    np.testing.assert_array_equal(
        chosen.predict_proba(val), fitted(train, val, C=best).predict_proba(val)
    )


def test_an_empty_validation_part_and_an_empty_prediction_are_taken():
    none = picked(toy_samples(2), slice(0, 0))
    found = fitted(toy_samples(4), none).predict_proba(none)
    assert found.shape == (0, 3) and found.dtype == np.float32


def test_features_go_through_the_cache_in_fit_and_prediction():
    asked = []

    def cached(key, function, samples):
        asked.append((key, samples.digest))
        return extract(key, function, samples)

    train, val, test = (toy_samples(4, seed=s) for s in range(3))
    context = Context(0, THREE, cached=cached)
    fitted(train, val, context).predict_proba(test)
    assert {digest for _, digest in asked} == {s.digest for s in (train, val, test)}
    assert len({key for key, _ in asked}) == 1


def test_an_optimiser_that_does_not_converge_says_what_to_do(monkeypatch):
    monkeypatch.setattr("augkit_classifiers.linear._MAX_ITERATIONS", 1)
    with pytest.raises(PluginFailed, match=r"did not converge with C=2\. .*-o C=0\.2"):
        fitted(toy_samples(4), C=2.0)


def test_a_wrong_option_is_refused():
    with pytest.raises(OptionError, match="at least"):
        build(Linear, {"C": "0"})
    assert build(Linear, {"C": "none", "class_weight": "none"}).C is None


def test_importing_the_plugin_imports_neither_opencv_nor_torch_nor_scikit_learn():
    code = (
        "import sys, augkit_classifiers.linear, augkit.testing, augkit.metrics, augkit.stats; "
        "print(sorted({'cv2', 'torch', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
