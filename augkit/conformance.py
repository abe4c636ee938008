"""The contract as single checks: walked through until one fails, or each with its finding.

`check_augmenter` and `check_classifier` are for a test: they raise. `examine` is for a report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from augkit import augmenter_checks, classifier_checks
from augkit import options as plugin_options
from augkit.augmenter_checks import AugmenterSpecimen
from augkit.classifier_checks import ClassifierSpecimen
from augkit.errors import AugkitError
from augkit.interfaces import ArraySamples, Augmenter, Classifier, Context
from augkit.phantoms import CLASSES, toy_samples
from augkit.plugin_checks import Specimen


@dataclass(frozen=True)
class Check:
    """One claim that a plugin is held to."""

    name: str
    """The claim, such as "it keeps the shape"."""
    meaning: str
    """What is looked at, in one sentence."""
    decides: bool
    """True if the checks after it cannot be done where it fails."""
    hold: Callable[[Any], None]
    """Raises what is wrong with a specimen."""


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    plugin: str
    check: str
    meaning: str
    fault: str
    """One plain sentence; empty: nothing is wrong."""
    reached: bool = True
    """False if an earlier check failed, without which this one cannot be done."""

    @property
    def ok(self) -> bool:
        """True if nothing is wrong."""
        return not self.fault


def _listed(module: Any) -> tuple[Check, ...]:
    return tuple(
        Check(
            function.__name__.replace("_", " "),
            (function.__doc__ or "").strip().partition("\n")[0],
            function in module.DECIDES,
            function,
        )
        for function in module.CHECKS
    )


AUGMENTER_CHECKS = _listed(augmenter_checks)
CLASSIFIER_CHECKS = _listed(classifier_checks)


def check_augmenter(cls: type[Augmenter], **options: Any) -> None:
    """Hold an augmenter against the contract, with the given options, on 24 small phantoms.

    Goes through `AUGMENTER_CHECKS` and ends at the first that fails. Those that learn are fitted
    with a budget of 2 steps. Raises AssertionError with one plain sentence, or what the plugin
    raises.
    """
    _hold(cls, Augmenter, options)


def check_classifier(cls: type[Classifier], **options: Any) -> None:
    """Hold a classifier against the contract, with the given options, on small phantoms.

    Goes through `CLASSIFIER_CHECKS` and ends at the first that fails. Fits have a budget of 2
    steps. Raises AssertionError with one plain sentence, or what the plugin raises.
    """
    _hold(cls, Classifier, options)


def _hold(cls: type, base: type, options: dict[str, Any]) -> None:
    assert isinstance(cls, type) and issubclass(cls, base), f"{cls!r} is no {base.__name__}"
    specimen = _specimen(cls, options)
    for check in checks_of(_kind(cls)):
        check.hold(specimen)


def checks_of(kind: str) -> tuple[Check, ...]:
    """Return the checks of an augmenter or a classifier, in order."""
    return CLASSIFIER_CHECKS if kind == "classifier" else AUGMENTER_CHECKS


def _kind(cls: type) -> str:
    return "classifier" if issubclass(cls, Classifier) else "augmenter"


def _specimen(cls: type, options: dict[str, Any]) -> Specimen:
    kind = ClassifierSpecimen if issubclass(cls, Classifier) else AugmenterSpecimen
    return kind(cls, options)


def examine(
    cls: type, *, begin: Callable[[Check], None] | None = None, **options: Any
) -> Iterator[Finding]:
    """Yield what each check finds of a plugin, with the given options.

    begin: told of each check before it is done.
    """
    specimen = _specimen(cls, options)
    failed = ""
    for check in checks_of(_kind(cls)):
        if failed:
            yield unreached(specimen.name, check, failed)
            continue
        if begin is not None:
            begin(check)
        fault = _fault(check, specimen)
        failed = check.name if fault and check.decides else ""
        yield Finding(specimen.name, check.name, check.meaning, fault)


def unreached(plugin: str, check: Check, failed: str) -> Finding:
    """Return the finding of a check that cannot be done, since the check `failed` has failed."""
    return Finding(plugin, check.name, check.meaning, f"not done: not {failed!r}", reached=False)


def _fault(check: Check, specimen: Specimen) -> str:
    """Return what is wrong, in one sentence; empty: nothing."""
    try:
        check.hold(specimen)
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())
        if isinstance(error, AssertionError) and said:
            return said
        kind = "" if isinstance(error, AugkitError) else type(error).__name__
        return f"{specimen.name} raises {': '.join(part for part in (kind, said) if part)}"
    return ""


def check_learning(cls: type[Classifier], max_steps: int | None = None, **options: Any) -> None:
    """Hold a classifier against the claim that it learns, with the given options.

    It must know 8 phantoms by heart after it was fitted on them, as training and validation part,
    and must do no better than chance on new ones after it was fitted on shuffled labels. max_steps:
    of each fit. Raises AssertionError with one plain sentence.
    """
    classes = CLASSES[:2]
    context = Context(seed=1, classes=classes, max_steps=max_steps, looks=max_steps and 10)
    eight = toy_samples(4, classes=classes, seed=3)
    classifier = plugin_options.build(cls, options)
    classifier.fit(eight, eight, context)
    right = (classifier.predict_proba(eight).argmax(1) == eight.targets).sum()
    assert right == 8, f"{cls.name} knows only {right} of 8 images by heart"
    train, test = (toy_samples(20, classes=classes, seed=seed) for seed in (4, 5))
    mixed = ArraySamples(train.images, np.random.default_rng(0).permutation(train.targets))
    classifier = plugin_options.build(cls, options)
    classifier.fit(mixed, mixed, context)
    share = (classifier.predict_proba(test).argmax(1) == test.targets).mean()
    assert share < 0.75, f"{cls.name} is right {share:.0%} of the time after shuffled labels"
