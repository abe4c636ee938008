"""Do the intervals hold the truth as often as they say, and do verdicts cry wolf or sleep?

Simulated predictions of arms, scored and judged by the code that `evaluate` uses. Truth: the
expected difference in the primary metric over new groups, fits and partitions.

    python -m benchmarks.report_calibration --csv benchmarks/results/verdict_calibration.csv

An image is right where a margin is above 0: a difficulty that its group shares, one of its own,
what a fit makes of it, what all fits of a partition have in common, and the effect of the arm.
`coverage`: the share of 95 % intervals that hold the truth, of `--trials` with a true effect; on
one split the truth for its own training images, which is what its verdict is about, and `beyond`
the share that holds the truth for any training images;
`false`: trials of 200 with any verdict where all arms are drawn alike; `found`: the share of 200
trials with an effect as large as the smallest detectable difference that those reported, in which
the arm is found to help. Where balance alone helps (`of_balance`), the arm is as much better than
`real` as its control is, and `false` counts the trials in which it is said to help; then nothing
is to be found.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from augkit.metrics import score
from augkit.scoring import Fit, Tested, measure
from augkit.verdicts import PRIMARY, Case, Comparison, judge
from benchmarks import runner

CLASSES = ("benign", "malignant", "normal")
SHARES = (0.56, 0.27, 0.17)
"""Of the classes, as in BUSI."""
BASE = 0.9
"""Mean margin of an image: about 0.75 of the images are right."""


@dataclass(frozen=True)
class World:
    """What is random in one scenario; all in units of the margin."""

    name: str
    groups: int
    seeds: int
    folds: int
    """1: a test part of 15 %."""
    of_group: float = 1.0
    of_image: float = 0.5
    of_fit_and_image: float = 0.4
    """How differently fits treat the same image."""
    of_fit: float = 0.05
    """How much fits differ as a whole."""
    of_partition: float = 0.0
    """How much what all fits of a partition share makes the arms differ."""
    repeats: int = 1
    """Rounds of folds, each dealt anew."""
    metric: str = PRIMARY
    arms: int = 1
    """Augmented arms that are judged together; the first has the effect."""
    of_balance: float = 0.0
    """How much better the control is than `real`."""


WORLDS = (
    World("five folds, 5 seeds", 577, 5, 5),
    World("five folds, 1 fit each", 577, 1, 5, of_fit_and_image=0.2),
    World("five folds, 1 fit each, arms drawn anew", 577, 1, 5, of_partition=0.08),
    World("five folds, 5 seeds, arms drawn anew", 577, 5, 5, of_partition=0.08),
    World("five folds, 3 seeds, few groups", 150, 3, 5, of_fit=0.1),
    World("70/15/15, 5 seeds", 577, 5, 1),
    World("70/15/15, 5 seeds, arms drawn anew", 577, 5, 1, of_partition=0.08),
    World("70/15/15, 3 seeds, fits that vary", 577, 3, 1, of_fit=0.15),
    World("five folds, 5 seeds, AUROC", 577, 5, 5, metric="auroc"),
    World("70/15/15, 5 seeds, AUROC", 577, 5, 1, metric="auroc"),
    World(
        "three rounds of five folds, arms drawn anew",
        577,
        1,
        5,
        of_partition=0.08,
        repeats=3,
        of_fit_and_image=0.2,
    ),
    World("five folds, 5 seeds, four arms", 577, 5, 5, arms=4),
    World("five folds, 5 seeds, balance alone helps", 577, 5, 5, of_balance=0.2),
)


@dataclass(frozen=True)
class Drawn:
    """One simulated evaluation."""

    comparisons: list[Comparison]
    """With `real`, in the metric, of each arm."""
    of_partition: tuple[float, float]
    """What all fits of the last partition share: those of `real`, those of the first arm."""

    @property
    def first(self) -> Comparison:
        """Return the comparison of the arm that has the effect."""
        return self.comparisons[0]


def draw(world: World, effect: float, rng: np.random.Generator) -> Drawn:
    """Return one simulated evaluation."""
    labels_of_groups = rng.choice(len(CLASSES), world.groups, p=SHARES)
    groups = np.repeat(
        np.arange(world.groups), rng.choice([1, 2, 3], world.groups, p=[0.8, 0.1, 0.1])
    )
    labels = labels_of_groups[groups]
    margin = BASE + world.of_group * rng.standard_normal(world.groups)[groups]
    margin += world.of_image * rng.standard_normal(len(groups))
    other = (labels + rng.integers(1, 3, len(groups))) % 3
    n_folds = max(world.folds, 7 if world.folds == 1 else 1)
    rows: list[np.ndarray] = []
    for _ in range(world.repeats):
        fold = (rng.permutation(world.groups) % n_folds)[groups]
        rows += [np.flatnonzero(fold == k) for k in range(world.folds)]
    order = np.unique(np.concatenate(rows))
    tested = Tested(
        labels[order],
        groups[order],
        tuple(np.searchsorted(order, r) for r in rows),
        CLASSES,
        world.repeats,
    )
    arms, shared = [], []
    controls = [world.of_balance] if world.of_balance else []
    augmented = [effect + world.of_balance] + [world.of_balance] * (world.arms - 1)
    for shift in (0.0, *augmented, *controls):
        fits = []
        for k, here in enumerate(rows):
            of_partition = world.of_partition * rng.standard_normal()
            for seed in range(world.seeds):
                own = margin[here] + shift + of_partition + world.of_fit * rng.standard_normal()
                own += world.of_fit_and_image * rng.standard_normal(len(here))
                fits.append(Fit(k, seed, chances(own, labels[here], other[here])))
        arms.append(measure(fits, tested))
        shared.append(of_partition)
    real, control = arms[0], arms[-1] if controls else arms[0]
    name = "balanced" if controls else "real"
    cases = [
        Case(f"arm {k}", name, arm, real, control, tested)
        for k, arm in enumerate(arms[1 : 1 + world.arms])
    ]
    judged = judge(cases, world.metric)
    every = [c for found, _ in judged for c in found]
    own = [c for c in every if (c.metric, c.versus) == (world.metric, "real")]
    return Drawn(own, (shared[0], shared[1]))


def chances(margin: np.ndarray, labels: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return probabilities (n, 3) whose largest is that of the true class where margin > 0.

    other: int (n,), the class that each image is taken for if not for its own.
    """
    n = len(labels)
    right = 1 / (1 + np.exp(-margin))
    chances = np.full((n, 3), 0.001)
    chances[np.arange(n), labels] += right
    chances[np.arange(n), other] += 1 - right
    return chances / chances.sum(1, keepdims=True)


def truth(world: World, effect: float, given: tuple[float, float] | None = None) -> float:
    """Return the true difference that an effect makes; given: under the partition of a trial."""
    if world.metric == "auroc":
        return _auroc(world, effect) - _auroc(world, 0.0)
    from scipy.stats import norm

    # The chance of a right answer is the same for all classes.
    parts = [world.of_group, world.of_image, world.of_fit_and_image, world.of_fit]
    spread = float(np.linalg.norm(parts if given else [*parts, world.of_partition]))
    of_real, of_arm = given or (0.0, 0.0)
    return float(norm.cdf((BASE + effect + of_arm) / spread) - norm.cdf((BASE + of_real) / spread))


@lru_cache
def _auroc(world: World, effect: float) -> float:
    """Return the expected macro AUROC of a fit, from so many simulated images that it is exact to
    a tenth of a point; the same images for every effect.
    """
    n, rng = 20_000, np.random.default_rng(0)
    found = []
    for _ in range(30):
        labels = rng.choice(len(CLASSES), n, p=SHARES)
        of_fit = np.hypot(world.of_fit, world.of_partition) * rng.standard_normal()
        of_image = np.linalg.norm([world.of_group, world.of_image, world.of_fit_and_image])
        margin = BASE + effect + of_fit + of_image * rng.standard_normal(n)
        other = (labels + rng.integers(1, 3, n)) % 3
        found.append(score(labels, chances(margin, labels, other), CLASSES)["auroc"].value)
    return float(np.mean(found))


def effect_of(world: World, difference: float) -> float:
    """Return the effect in units of the margin that makes this true difference."""
    from scipy.optimize import brentq

    highest = truth(world, 9.0)
    return float(brentq(lambda e: truth(world, e) - min(difference, highest), -3, 9.1))


def report(world: World, trials: int, seeds: Sequence[int]) -> dict[str, object]:
    """Return the row of one scenario."""
    even = replace(world, of_balance=0.0)
    small = effect_of(even, 0.02)
    drawn = [draw(even, small, np.random.default_rng([1, trial])) for trial in range(trials)]
    beyond = [d.first.low <= truth(even, small) <= d.first.high for d in drawn]
    inside = beyond
    if world.folds == 1 and world.metric == PRIMARY:
        own = [truth(even, small, d.of_partition) for d in drawn]
        inside = [d.first.low <= value <= d.first.high for d, value in zip(drawn, own, strict=True)]
    alike = [draw(world, 0.0, np.random.default_rng([2, seed])) for seed in seeds]
    reach = float(np.median([d.first.smallest_detectable or 0.0 for d in alike]))
    planted = effect_of(even, reach)
    false, heard = ("helps",), []
    if not world.of_balance:
        false = ("helps", "hurts")
        heard = [draw(even, planted, np.random.default_rng([3, seed])) for seed in seeds]
    return {
        "world": world.name,
        "groups": world.groups,
        "fits": world.seeds * world.folds * world.repeats,
        "trials": trials,
        "coverage": round(float(np.mean(inside)), 4),
        "beyond": round(float(np.mean(beyond)), 4),
        "alike": len(alike),
        "false": sum(any(c.verdict in false for c in d.comparisons) for d in alike),
        "smallest_detectable": round(reach, 4),
        "found": round(float(np.mean([d.first.verdict == "helps" for d in heard])), 4)
        if heard
        else "",
    }


def main() -> None:
    """Print and append a row for each scenario."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--only", default="", help="scenarios with this in their name")
    given = parser.parse_args()
    for world in (w for w in WORLDS if given.only in w.name):
        row = report(world, given.trials, range(given.seeds))
        print("; ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        if given.csv:
            runner.append(given.csv, [row])


if __name__ == "__main__":
    main()
