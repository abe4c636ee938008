"""Verdicts: does an arm help, hurt, or can nobody tell?

An augmented arm is compared with `real` and with its control, real images repeated to the same
class counts. It *helps* if it is better than both, *hurts* if it is worse than `real`; anything
else is *cannot tell*. One metric decides, named before the run; Holm's correction covers all arms
that one command judges. docs/statistics.md says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from augkit.errors import OptionError
from augkit.scoring import Measured, Tested, difference
from augkit.stats import Mean, holm, smallest_detectable

Word = Literal["helps", "hurts", "cannot tell"]

LEVEL = 0.05
"""The chance that any arm of a command without an effect gets another word than cannot tell."""
LEAST_FITS = 3
"""Fewer fits of an arm say too little of how much fits vary: then there is no verdict."""
PRIMARY = "balanced_accuracy"
PRIMARIES = (PRIMARY, "accuracy", "auroc", "f1", "mcc", "brier")
"""The metrics that can decide; the first is the default."""
LOWER_IS_BETTER = frozenset({"brier"})
VERSUS: tuple[Literal["real"], Literal["balanced"]] = ("real", "balanced")


@dataclass(frozen=True)
class Comparison:
    """An arm less its reference in one metric, on the same test images."""

    arm: str
    versus: Literal["real", "balanced"]
    control: str
    """The arm that stands for `versus`: `real` itself where its class shares are those of the
    arm."""
    metric: str
    difference: float
    low: float
    high: float
    """Ends of the 95 % interval over test groups, fits and partitions."""
    p: float | None = None
    """Of no difference. Of the primary metric only, as all that follows."""
    p_holm: float | None = None
    """Corrected for all arms that were judged together."""
    verdict: Word | None = None
    """Of the arm, from both its comparisons; None: no verdict is given."""
    smallest_detectable: float | None = None
    """The true difference that a comparison like this one finds in 80 of 100 cases."""


@dataclass(frozen=True)
class Verdict:
    """What can be said of an arm."""

    arm: str
    word: Word | None
    sentence: str


@dataclass(frozen=True)
class Case:
    """An arm with what it is held against; every metric of each, on the same rows."""

    arm: str
    control: str
    measured: Mapping[str, Measured]
    real: Mapping[str, Measured]
    balanced: Mapping[str, Measured]
    """Of the control."""
    tested: Tested
    one_split: bool = False
    """There is one partition: what is said is about its training images."""
    obstacle: str = ""
    """Why no verdict can be given whatever the numbers are; empty: one can."""


def check_primary(name: str) -> str:
    """Return the name of a metric that can decide. Raises OptionError for any other."""
    if name not in PRIMARIES:
        known = ", ".join(PRIMARIES)
        raise OptionError(f"the primary metric is {name!r}; it must be one of: {known}")
    return name


def judge(cases: Sequence[Case], primary: str) -> list[tuple[list[Comparison], Verdict]]:
    """Return for each case two comparisons in each metric, and a verdict.

    Holm's correction covers the cases. The p-value of a case is the larger one of its two
    comparisons where it does better than `real`, for `helps` claims both (an intersection-union
    test, Berger 1982), else that against `real`.
    """
    held = [_held(case, primary) for case in cases]
    corrected = holm(np.array([each.p for each in held]))
    against_real = holm(np.array([each.p_real for each in held]))
    against_control = holm(np.array([math.nan if h.obstacle else h.means[1].p for h in held]))
    level = LEVEL / max(1, int(np.isfinite(corrected).sum()))
    judged = []
    for i, each in enumerate(held):
        p, p_real, p_control = (float(of[i]) for of in (corrected, against_real, against_control))
        verdict = _verdict(each, p, p_real, level)
        second = p if each.gains[0] > 0 else p_control  # no claim is made of the control
        comparisons = [
            _decisive(each, 0, p, verdict.word, level),
            _decisive(each, 1, second, verdict.word, level),
        ]
        others = [name for name in each.case.measured if name != primary]
        comparisons += [_compared(each.case, name, k) for name in others for k in (0, 1)]
        judged.append((comparisons, verdict))
    return judged


@dataclass(frozen=True)
class _Held:
    """A case with its two differences in the primary metric."""

    case: Case
    primary: str
    means: tuple[Mean, Mean]
    """Versus `real` and versus the control."""
    obstacle: str

    @property
    def gains(self) -> tuple[float, float]:
        """Return both differences, above 0 where the arm is better."""
        sign = -1 if self.primary in LOWER_IS_BETTER else 1
        return sign * self.means[0].value, sign * self.means[1].value

    @property
    def p_real(self) -> float:
        return math.nan if self.obstacle else self.means[0].p

    @property
    def p(self) -> float:
        """Return the p-value of what this case would claim; NaN: it can claim nothing."""
        if self.obstacle:
            return math.nan
        return max(self.p_real, self.means[1].p) if self.gains[0] > 0 else self.p_real


def _held(case: Case, primary: str) -> _Held:
    means = (_difference(case, primary, 0), _difference(case, primary, 1))
    obstacle = case.obstacle
    if not obstacle and means[0].n_fits < LEAST_FITS:
        obstacle = (
            f"{means[0].n_fits} of the {LEAST_FITS} fits that it takes: give --folds 5, or more "
            "--seeds to a classifier with randomness"
        )
    if not obstacle and not all(math.isfinite(mean.p) for mean in means):
        obstacle = f"{primary.replace('_', ' ')} cannot be computed"
    return _Held(case, primary, means, obstacle)


def _difference(case: Case, metric: str, k: int) -> Mean:
    reference = (case.real, case.balanced)[k]
    return difference(metric, case.measured[metric], reference[metric], case.tested)


def _compared(case: Case, metric: str, k: int) -> Comparison:
    """Return a comparison that decides nothing: a difference with its interval."""
    mean = _difference(case, metric, k)
    low, high = mean.interval()
    control = ("real", case.control)[k]
    return Comparison(case.arm, VERSUS[k], control, metric, mean.value, low, high)


def _decisive(held: _Held, k: int, p: float, word: Word | None, level: float) -> Comparison:
    mean = held.means[k]
    reach = smallest_detectable(mean, level=level)
    plain = _compared(held.case, held.primary, k)
    if held.obstacle:
        return replace(plain, smallest_detectable=reach)
    return replace(
        plain,
        p=mean.p,
        p_holm=max(mean.p, p),
        verdict=word,
        smallest_detectable=reach,
    )


def _verdict(held: _Held, p: float, p_real: float, level: float) -> Verdict:
    """Return the word and the sentence of a case; p, p_real: corrected."""
    found = _said(held, p, p_real, level)
    if found.word is None or not held.case.one_split:
        return found
    return replace(found, sentence=f"{found.sentence}; on this one split")


def _said(held: _Held, p: float, p_real: float, level: float) -> Verdict:
    arm, (gain, beyond), primary = held.case.arm, held.gains, held.primary
    if held.obstacle:
        return Verdict(arm, None, f"no verdict on {arm}: {held.obstacle}")
    metric = primary.replace("_", " ")
    real, control = (_in_words(mean, primary) for mean in held.means)
    both = held.case.control != "real"
    if p < LEVEL and gain > 0 and beyond > 0:
        more = f", and {control} than real images repeated to its class counts" if both else ""
        return Verdict(arm, "helps", f"{arm} helps: {metric} {real} than with real images{more}")
    if p < LEVEL and gain < 0:
        return Verdict(arm, "hurts", f"{arm} hurts: {metric} {real} than with real images")
    if p_real < LEVEL and gain > 0:
        return Verdict(
            arm,
            "cannot tell",
            f"balance, not images: with {arm} {metric} is {real} than with real images, but "
            f"{control} than with real images repeated to its class counts",
        )
    reach = smallest_detectable(held.means[0], level=level)
    return Verdict(
        arm,
        "cannot tell",
        f"cannot tell whether {arm} helps: {metric} {real} than with real images; a true "
        f"difference of {_amount(reach, primary)} would mostly have been found",
    )


def _in_words(mean: Mean, metric: str) -> str:
    """Return a difference as a phrase that `than` follows."""
    low, high = mean.interval()
    more = "higher" if mean.value >= 0 else "lower"
    scale = 100 if metric in _SHARES else 1
    digits = 1 if metric in _SHARES else 3
    ends = f"{scale * low:+.{digits}f} to {scale * high:+.{digits}f}"
    return f"{_amount(abs(mean.value), metric)} {more} (95 %: {ends})"


def _amount(value: float, metric: str) -> str:
    return f"{100 * value:.1f} points" if metric in _SHARES else f"{value:.3f}"


_SHARES = frozenset({"accuracy", PRIMARY, "auroc", "f1"})
