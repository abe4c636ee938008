"""What is checked of every classifier: its probabilities, its memory, and what it may not see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from augkit.errors import AugkitError, LineageError
from augkit.interfaces import ArraySamples, Classifier, Context
from augkit.phantoms import CLASSES
from augkit.plugin_checks import (
    Specimen,
    it_leaves_its_options_alone,
    it_prints_nothing,
    it_says_what_it_does,
    it_seeds_nothing_shared,
    its_name_can_be_typed,
    its_options_are_declared,
    its_options_are_explained,
    its_options_are_flags,
    its_options_are_only_stored,
    samples_of,
)

Setting = tuple[int, int]
"""How many classes and how many channels."""

_SETTINGS: tuple[Setting, ...] = ((2, 1), (3, 3), (2, 3), (3, 1))
_CLOSELY = _SETTINGS[:2]
"""Where a check needs further fits, these are enough."""


@dataclass
class Trial:
    """A classifier that was fitted once, and what it said of the validation part."""

    train: ArraySamples
    val: ArraySamples
    classifier: Classifier
    """In the settings that are looked at closely; in the others a new one, to save memory."""
    first: Any


@dataclass
class ClassifierSpecimen(Specimen):
    """A classifier class under examination, and what was fitted so far."""

    kept: dict[Setting, Trial] = field(default_factory=dict)

    def parts(self, setting: Setting) -> tuple[ArraySamples, ArraySamples, Context]:
        """Return training part, validation part and context, in new arrays."""
        n_classes, channels = setting
        classes = CLASSES[:n_classes]
        context = Context(seed=1, classes=classes, max_steps=2)
        train = samples_of(6, n_classes, (32, 40, channels), seed=1)
        return train, samples_of(3, n_classes, (32, 40, channels), seed=2), context

    def trial(self, setting: Setting = _SETTINGS[0]) -> Trial:
        """Return a classifier that is fitted in this setting, the same at each call."""
        if setting not in self.kept:
            train, val, context = self.parts(setting)
            classifier = self.fitted(train, val, context)
            first = classifier.predict_proba(val)
            if setting not in _CLOSELY:
                classifier = self.build()
            self.kept[setting] = Trial(train, val, classifier, first)
        return self.kept[setting]

    def fitted(self, train: ArraySamples, val: ArraySamples, context: Context) -> Classifier:
        """Return a new classifier that is fitted on these."""
        classifier = self.build()
        classifier.fit(train, val, context)
        return classifier

    def work(self) -> Classifier:
        """Return a new classifier that was fitted and has predicted."""
        train, val, context = self.parts(_SETTINGS[0])
        classifier = self.fitted(train, val, context)
        classifier.predict_proba(val)
        return classifier


class _Unlabelled(ArraySamples):
    """Samples as a classifier gets them for prediction."""

    @property
    def labels(self) -> np.ndarray:
        raise LineageError("the labels of these samples are not for classifiers")


def it_gives_numbers(plugin: ClassifierSpecimen) -> None:
    """`fit` and `predict_proba` come to an end; the latter gives a float32 array."""
    for setting in _SETTINGS:
        made = plugin.trial(setting).first
        assert isinstance(made, np.ndarray) and made.dtype == np.float32, (
            f"{plugin.name}.predict_proba gives {getattr(made, 'dtype', type(made).__name__)}, "
            f"not float32"
        )


def it_gives_a_column_for_each_class(plugin: ClassifierSpecimen) -> None:
    """Probabilities are (N, classes) for 2 and 3 classes, with 1 channel and with 3."""
    for setting in _SETTINGS:
        trial = plugin.trial(setting)
        _check_shape(plugin.name, trial.first, len(trial.val), setting[0])


def it_gives_probabilities(plugin: ClassifierSpecimen) -> None:
    """No value is below 0, infinite or missing."""
    for setting in _SETTINGS:
        _check_values(plugin.name, plugin.trial(setting).first)


def its_rows_sum_to_1(plugin: ClassifierSpecimen) -> None:
    """The probabilities of an image sum to 1, to 1e-6."""
    for setting in _SETTINGS:
        sums = plugin.trial(setting).first.sum(1, dtype=np.float64)
        assert np.abs(sums - 1).max() <= 1e-6, (
            f"{plugin.name}.predict_proba gives rows that sum to "
            f"{sums.min():.7f}..{sums.max():.7f}, not 1"
        )


def it_does_without_labels(plugin: ClassifierSpecimen) -> None:
    """`predict_proba` does not ask for the labels of what it is to predict."""
    trial = plugin.trial()
    trial.classifier.predict_proba(_Unlabelled(trial.val.images, trial.val.targets))


def it_predicts_a_row_by_itself(plugin: ClassifierSpecimen) -> None:
    """An image has the same probabilities alone and among others."""
    for setting in _CLOSELY:
        trial = plugin.trial(setting)
        one = ArraySamples(trial.val.images[:1], trial.val.targets[:1])
        alone = trial.classifier.predict_proba(one)
        _check_shape(plugin.name, alone, 1, setting[0])
        _same(trial.first[:1], alone, f"{plugin.name} predicts a row differently when it is alone")


def fitting_it_twice_is_fitting_it_once(plugin: ClassifierSpecimen) -> None:
    """The same object, fitted again on the same images, says the same."""
    for setting in _CLOSELY:
        trial, (train, val, context) = plugin.trial(setting), plugin.parts(setting)
        trial.classifier.fit(train, val, context)
        sentence = f"{plugin.name} gives other probabilities when it is fitted twice"
        _same(trial.first, trial.classifier.predict_proba(val), sentence)


def it_repeats_with_the_seed(plugin: ClassifierSpecimen) -> None:
    """A new object, fitted on the same images with the same seed, says the same."""
    for setting in _CLOSELY:
        train, val, context = plugin.parts(setting)
        other = plugin.fitted(train, val, context).predict_proba(val)
        sentence = f"{plugin.name} gives other probabilities for the same seed"
        _same(plugin.trial(setting).first, other, sentence)


def it_is_as_deterministic_as_it_says(plugin: ClassifierSpecimen) -> None:
    """Where it is called deterministic, the seed changes nothing."""
    if not plugin.cls.deterministic:  # type: ignore[attr-defined]
        return
    for setting in _CLOSELY:
        train, val, context = plugin.parts(setting)
        other = plugin.fitted(train, val, Context(context.seed + 1, context.classes, max_steps=2))
        sentence = f"{plugin.name} is called deterministic, but the seed matters"
        _same(plugin.trial(setting).first, other.predict_proba(val), sentence)


def it_forgets_other_fits(plugin: ClassifierSpecimen) -> None:
    """What another object has learned of the same images, which it may train on, does not show."""
    for setting in _CLOSELY:
        train, val, context = plugin.parts(setting)
        first = plugin.trial(setting).first
        plugin.fitted(ArraySamples(val.images, np.roll(val.targets, 1)), train, context)
        train, val, context = plugin.parts(setting)
        _same(
            first,
            plugin.fitted(train, val, context).predict_proba(val),
            f"{plugin.name} remembers what was learned in another fit; "
            f"keep it in the instance alone",
        )


def it_takes_one_image(plugin: ClassifierSpecimen) -> None:
    """A training part of one image is refused in plain words, or gives probabilities."""
    for setting in _CLOSELY:
        train, _, context = plugin.parts(setting)
        one = ArraySamples(train.images[:1], train.targets[:1])
        try:
            classifier = plugin.fitted(one, one, context)
        except AugkitError:
            continue
        made = classifier.predict_proba(one)
        _check_shape(plugin.name, made, 1, setting[0])
        _check_values(plugin.name, made)


def it_takes_a_class_without_images(plugin: ClassifierSpecimen) -> None:
    """A class that is not in the training part still has its column."""
    train, val, context = plugin.parts((3, 1))
    rows = train.targets != 1
    some = ArraySamples(train.images[rows], train.targets[rows])
    try:
        classifier = plugin.fitted(some, val, context)
    except AugkitError:
        return
    made = classifier.predict_proba(val)
    assert np.shape(made) == (len(val), 3), (
        f"{plugin.name} gives shape {np.shape(made)} for {len(val)} rows of 3 classes where one "
        f"class has no training images; a column stands for a class of context.classes"
    )


def it_leaves_the_samples_alone(plugin: ClassifierSpecimen) -> None:
    """Neither images nor labels are changed by fitting and predicting."""
    trial = plugin.trial()
    fresh = plugin.parts(_SETTINGS[0])[:2]
    for seen, expected in zip((trial.train, trial.val), fresh, strict=True):
        same = np.array_equal(seen.images, expected.images)
        assert same and np.array_equal(seen.targets, expected.targets), (
            f"{plugin.name} writes over the samples that it is given; copy before you change"
        )


def _check_shape(name: str, made: np.ndarray, n: int, n_classes: int) -> None:
    assert made.shape == (n, n_classes), (
        f"{name}.predict_proba gives shape {made.shape} for {n} rows of {n_classes} classes"
    )


def _check_values(name: str, made: np.ndarray) -> None:
    assert np.isfinite(made).all() and (made >= 0).all(), (
        f"{name}.predict_proba gives values that are no probabilities"
    )


def _same(first: np.ndarray, second: np.ndarray, sentence: str) -> None:
    """Compare with room for the order of floating-point sums in batches of another size."""
    assert np.allclose(first, second, rtol=0, atol=1e-5), sentence


DECIDES: tuple[Callable[[Any], None], ...] = (
    its_options_are_declared,
    it_gives_numbers,
    it_gives_a_column_for_each_class,
    it_gives_probabilities,
    it_repeats_with_the_seed,
)
"""Where one of these fails, the checks after it cannot be done."""

CHECKS: tuple[Callable[[Any], None], ...] = (
    its_name_can_be_typed,
    its_options_are_declared,
    its_options_are_only_stored,
    its_options_are_flags,
    it_gives_numbers,
    it_gives_a_column_for_each_class,
    it_gives_probabilities,
    its_rows_sum_to_1,
    it_does_without_labels,
    it_predicts_a_row_by_itself,
    fitting_it_twice_is_fitting_it_once,
    it_repeats_with_the_seed,
    it_is_as_deterministic_as_it_says,
    it_forgets_other_fits,
    it_takes_one_image,
    it_takes_a_class_without_images,
    it_leaves_the_samples_alone,
    it_leaves_its_options_alone,
    it_seeds_nothing_shared,
    it_prints_nothing,
    it_says_what_it_does,
    its_options_are_explained,
)
"""Every check of a classifier, in this order."""
