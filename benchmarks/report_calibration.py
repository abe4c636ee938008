"""Do the intervals hold the truth as often as they say, and do verdicts cry wolf or sleep?

Simulated predictions of two arms, scored and judged by the code that `evaluate` uses. Truth: the
expected difference in balanced accuracy over new groups, fits and partitions.

    python -m benchmarks.report_calibration --csv benchmarks/results/verdict_calibration.csv

An image is right where a margin is above 0: a difficulty that its group shares, one of its own,
what a fit makes of it, what all fits of a partition have in common, and the effect of the arm.
`coverage`: the share of 95 % intervals that hold the truth, of `--trials` with a true effect;
`false`: verdicts among 200 trials with two arms drawn alike; `found`: the share of 200 trials with
an effect as large as the smallest detectable difference that those reported, in which the arm is
found to help.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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


WORLDS = (
    World("five folds, 5 seeds", 577, 5, 5),
    World("five folds, 1 fit each", 577, 1, 5, of_fit_and_image=0.2),
    World("five folds, 1 fit each, arms drawn anew", 577, 1, 5, of_partition=0.08),
    World("five folds, 5 seeds, arms drawn anew", 577, 5, 5, of_partition=0.08),
    World("five folds, 3 seeds, few groups", 150, 3, 5, of_fit=0.1),
    World("70/15/15, 5 seeds", 577, 5, 1),
    World("70/15/15, 5 seeds, arms drawn anew", 577, 5, 1, of_partition=0.08),
    World("70/15/15, 3 seeds, fits that vary", 577, 3, 1, of_fit=0.15),
)


def draw(world: World, effect: float, rng: np.random.Generator) -> list[Comparison]:
    """Return the two comparisons of one simulated evaluation in the primary metric."""
    labels_of_groups = rng.choice(len(CLASSES), world.groups, p=SHARES)
    groups = np.repeat(
        np.arange(world.groups), rng.choice([1, 2, 3], world.groups, p=[0.8, 0.1, 0.1])
    )
    labels = labels_of_groups[groups]
    margin = BASE + world.of_group * rng.standard_normal(world.groups)[groups]
    margin += world.of_image * rng.standard_normal(len(groups))
    n_folds = max(world.folds, 7 if world.folds == 1 else 1)
    fold = (rng.permutation(world.groups) % n_folds)[groups]
    rows = tuple(np.flatnonzero(fold == k) for k in range(world.folds))
    tested_rows = np.concatenate(rows)
    order = np.sort(tested_rows)
    tested = Tested(
        labels[order],
        groups[order],
        tuple(np.searchsorted(order, r) for r in rows),
        CLASSES,
    )
    arms = []
    for shift in (0.0, effect):
        fits = []
        for k, here in enumerate(rows):
            of_partition = world.of_partition * rng.standard_normal()
            for seed in range(world.seeds):
                own = margin[here] + shift + of_partition + world.of_fit * rng.standard_normal()
                own += world.of_fit_and_image * rng.standard_normal(len(here))
                fits.append(Fit(k, seed, _chances(own, labels[here], rng)))
        arms.append(measure(fits, tested))
    case = Case("arm", "real", arms[1], arms[0], arms[0], tested)
    return [c for c in judge([case], PRIMARY)[0][0] if c.metric == PRIMARY]


def _chances(margin: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return probabilities (n, 3) whose largest is that of the true class where margin > 0."""
    n = len(labels)
    other = (labels + rng.integers(1, 3, n)) % 3
    right = 1 / (1 + np.exp(-margin))
    chances = np.full((n, 3), 0.001)
    chances[np.arange(n), labels] += right
    chances[np.arange(n), other] += 1 - right
    return chances / chances.sum(1, keepdims=True)


def truth(world: World, effect: float) -> float:
    """Return the true difference: the chance of a right answer is the same for all classes."""
    from scipy.stats import norm

    parts = (world.of_group, world.of_image, world.of_fit_and_image, world.of_fit)
    spread = float(np.linalg.norm([*parts, world.of_partition]))
    return float(norm.cdf((BASE + effect) / spread) - norm.cdf(BASE / spread))


def effect_of(world: World, difference: float) -> float:
    """Return the effect in units of the margin that makes this true difference."""
    from scipy.optimize import brentq

    highest = truth(world, 9.0)
    return float(brentq(lambda e: truth(world, e) - min(difference, highest), -3, 9.1))


def report(world: World, trials: int, seeds: Sequence[int]) -> dict[str, object]:
    """Return the row of one scenario."""
    small = effect_of(world, 0.02)
    inside = [
        found.low <= truth(world, small) <= found.high
        for found in (
            draw(world, small, np.random.default_rng([1, trial]))[0] for trial in range(trials)
        )
    ]
    alike = [draw(world, 0.0, np.random.default_rng([2, seed]))[0] for seed in seeds]
    reach = float(np.median([found.smallest_detectable or 0.0 for found in alike]))
    planted = effect_of(world, reach)
    heard = [draw(world, planted, np.random.default_rng([3, seed]))[0] for seed in seeds]
    return {
        "world": world.name,
        "groups": world.groups,
        "fits": world.seeds * world.folds,
        "trials": trials,
        "coverage": round(float(np.mean(inside)), 4),
        "alike": len(alike),
        "false": sum(found.verdict != "cannot tell" for found in alike),
        "smallest_detectable": round(reach, 4),
        "found": round(float(np.mean([found.verdict == "helps" for found in heard])), 4),
    }


def main() -> None:
    """Print and append a row for each scenario."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=200)
    given = parser.parse_args()
    for world in WORLDS:
        row = report(world, given.trials, range(given.seeds))
        print("; ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        if given.csv:
            runner.append(given.csv, [row])


if __name__ == "__main__":
    main()
