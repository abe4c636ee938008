"""The budget of an evaluation: what it will take, and what fits into the time that a CPU gets.

All arms have the same seeds, optimiser steps and looks at the validation part. An evaluation that
would need longer than `LIMIT` on a CPU is cut, equally for all arms: first to three seeds, since
fewer fits allow no verdict, then in its steps and looks. Features cannot be cut: where they take
most of the time, the fits still get `LEAST` of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from augkit.interfaces import Cost, Schedule
from augkit.tables import counted

LIMIT = 30 * 60.0
"""Seconds that an evaluation on a CPU may take where the user does not ask for all of it."""

LEAST = 5 * 60.0
"""Seconds that the fits get whatever the features take."""

LEAST_SEEDS = 3
_STEPS_A_LOOK = 10


@dataclass(frozen=True)
class Work:
    """What there is to do for one arm under one partition."""

    fits_left: tuple[bool, ...]
    """For each seed, whether there is no fit yet with all steps."""
    n_validation: int
    n_test: int
    schedule: Schedule

    def seconds(self, cost: Cost, share: float = 1.0) -> float:
        """Return how long one fit takes with a share of its steps."""
        schedule = part_of(self.schedule, share)
        look = cost.look + self.n_validation * cost.image
        trained = schedule.steps * cost.step + schedule.looks * look
        return cost.setup + trained + self.n_test * cost.image


@dataclass(frozen=True)
class Budget:
    """What every arm gets."""

    seeds: int
    share: float = 1.0
    """Of the steps of each fit."""
    reduced: str | None = None
    """In words what was cut; None: nothing."""

    @classmethod
    def from_json(cls, found: dict[str, Any] | None) -> Budget | None:
        """Return the budget whose fields these are, or None if they are not."""
        try:
            values = found or {}
            budget = cls(int(values["seeds"]), float(values["share"]), str(values["reduced"]))
        except (KeyError, TypeError, ValueError):
            return None
        return budget if budget.seeds > 0 and 0 <= budget.share <= 1 else None


def part_of(schedule: Schedule, share: float) -> Schedule:
    """Return a share of a schedule: at least a step and a look, at most a look in ten steps."""
    if share == 1:
        return schedule
    steps = max(1, int(schedule.steps * share + 1e-6))
    return Schedule(steps, max(1, min(schedule.looks, steps // _STEPS_A_LOOK)))


def seconds(works: Sequence[Work], cost: Cost) -> float:
    """Return how long all fits that are left will take, without the features."""
    return sum(sum(work.fits_left) * work.seconds(cost) for work in works)


def cut_to_fit(works: Sequence[Work], cost: Cost, *, features: float) -> Budget:
    """Return the largest budget whose fits, with the features, take no longer than `LIMIT`.

    features: seconds that computing the features takes. Where not even one step a fit would do,
    that is what is returned.
    """
    asked = len(works[0].fits_left)
    room = max(LIMIT - features, LEAST)
    for seeds in range(asked, min(LEAST_SEEDS, asked) - 1, -1):
        fewer = sum(sum(work.fits_left[:seeds]) * work.seconds(cost) for work in works)
        if fewer <= room:
            return Budget(seeds, 1.0, _said(works, seeds, 1.0))
    seeds = min(LEAST_SEEDS, asked)
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        fits = seeds * sum(work.seconds(cost, middle) for work in works)
        low, high = (middle, high) if fits <= room else (low, middle)
    return Budget(seeds, low, _said(works, seeds, low))


def in_words(duration: float) -> str:
    """Return a duration as people say it, such as `40 seconds`, `12 minutes` or `3.5 hours`."""
    if duration < 90:
        return counted(max(1, round(duration)), "second")
    if duration < 90 * 60:
        return f"{round(duration / 60)} minutes"
    return f"{duration / 3600:.1f} hours"


def _said(works: Sequence[Work], seeds: int, share: float) -> str | None:
    """Return in words what is left of what was asked for; None: all of it."""
    asked, longest = len(works[0].fits_left), max(work.schedule for work in works)
    parts = [f"{seeds} of {asked} seeds"] if seeds < asked else []
    if share < 1:
        left = part_of(longest, share)
        parts.append(f"{left.steps} of {longest.steps} steps")
        parts.append(f"{left.looks} of {longest.looks} looks")
    return ", ".join(parts) or None
