"""The contract, which augkit checks for every plugin, and what is particular to these two."""

import numpy as np
import pytest
from augkit_ultrasound import DepthGain, NearestMean

from augkit import Context
from augkit.testing import check_augmenter, check_classifier, toy_samples

GREY = np.full((1, 57, 4, 1), 100, np.uint8)  # 8 sliders, 8 rows apart


def gain(*sliders):
    return np.array([(sliders,)], [("gain", np.float64, 8)])


def test_depth_gain_keeps_the_contract():
    check_augmenter(DepthGain)
    check_augmenter(DepthGain, gain_range=(-60, 60), dynamic_range=20)


@pytest.mark.parametrize("n_bands", [1, 4, 16])
def test_nearest_mean_keeps_the_contract(n_bands):
    check_classifier(NearestMean, n_bands=n_bands)


def test_six_decibels_of_sixty_are_a_tenth_of_full_white():
    made = DepthGain().apply(GREY, None, gain(*[6.0] * 8))
    assert (made == round(100 + 25.5)).all()


def test_the_gain_changes_linearly_between_two_sliders():
    made = DepthGain().apply(GREY, None, gain(0, 0, 0, 16, 0, 0, 0, 0))[0, :, 0, 0]
    steps = np.array([0, 2, 4, 6, 8, 10, 12, 14, 16, 14]) * 255 / 60
    assert (made[16:26] == np.rint(100 + steps)).all()
    assert (made[:17] == 100).all() and (made[32:] == 100).all()


def test_black_stays_black_and_white_does_not_overflow():
    images = np.array([0, 1, 250, 255], np.uint8).reshape(1, 2, 2, 1)
    made = DepthGain().apply(images, None, gain(*[60.0] * 8))
    assert made.ravel().tolist() == [0, 255, 255, 255]


def test_nearest_mean_tells_easy_phantoms_apart():
    train, test = toy_samples(40, seed=1), toy_samples(40, seed=2)
    classifier = NearestMean()
    classifier.fit(train, test, Context(seed=0, classes=("benign", "malignant", "normal")))
    right = classifier.predict_proba(test).argmax(1) == test.labels
    assert right.mean() > 0.6
