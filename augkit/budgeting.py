"""The budget of an evaluation: what it will take, and what fits into the time that a CPU gets.

All arms have the same seeds, optimiser steps and looks at the validation part. An evaluation that
would need longer than `LIMIT` on a CPU is cut, equally for all arms: first to three seeds, since
fewer fits allow no verdict, then in its steps and looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from augkit.interfaces import Cost, Schedule
from augkit.tables import counted

LIMIT = 30 * 60.0
"""Seconds that an evaluation on a CPU may take where the user does not ask for all of it."""

LEAST_SEEDS = 3
_STEPS_A_LOOK = 10


@dataclass(frozen=True)
class Work:
    """What there is to do under one partition."""

    n_arms: int
    fits_left: tuple[int, ...]
    """For each seed how many arms are not fitted yet, with all steps."""
    n_validation: int
    n_test: int
    schedule: Schedule


@dataclass(frozen=True)
class Budget:
    """What every arm gets."""

    seeds: int
    schedules: tuple[Schedule | None, ...]
    """For each partition; None: until convergence."""
    reduced: str | None = None
    """In words what was cut; None: nothing."""

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        lengths = [[s.steps, s.looks] if s else None for s in self.schedules]
        return {"seeds": self.seeds, "schedules": lengths, "reduced": self.reduced}

    @classmethod
    def from_json(cls, found: dict[str, object]) -> Budget:
        """Read what `as_json` gave."""
        lengths: Sequence[Sequence[int] | None] = found["schedules"]  # type: ignore[assignment]
        schedules = tuple(Schedule(*pair) if pair else None for pair in lengths)
        return cls(int(found["seeds"]), schedules, found["reduced"])  # type: ignore[arg-type, call-overload]


def seconds(works: Sequence[Work], cost: Cost) -> float:
    """Return how long all fits that are left will take, without the features."""
    return sum(sum(work.fits_left) * _of_a_fit(work, work.schedule, cost) for work in works)


def cut_to_fit(works: Sequence[Work], cost: Cost, *, features: float) -> Budget:
    """Return the largest budget whose fits, with the features, take no longer than `LIMIT`.

    features: seconds that computing the features takes, which nothing can cut. Where not even one
    step a fit would do, that is what is returned.
    """
    asked = len(works[0].fits_left)
    room = LIMIT - features
    for seeds in range(asked, min(LEAST_SEEDS, asked) - 1, -1):
        fewer = [sum(w.fits_left[:seeds]) * _of_a_fit(w, w.schedule, cost) for w in works]
        if sum(fewer) <= room:
            return Budget(seeds, tuple(w.schedule for w in works), _said(works, asked, seeds))
    seeds = min(LEAST_SEEDS, asked)
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        some = [seeds * w.n_arms * _of_a_fit(w, _share(w.schedule, middle), cost) for w in works]
        low, high = (middle, high) if sum(some) <= room else (low, middle)
    schedules = [_share(w.schedule, low) for w in works]
    return Budget(seeds, tuple(schedules), _said(works, asked, seeds, schedules))


def in_words(duration: float) -> str:
    """Return a duration as people say it, such as `40 seconds`, `12 minutes` or `3.5 hours`."""
    if duration < 90:
        return counted(max(1, round(duration)), "second")
    if duration < 90 * 60:
        return f"{round(duration / 60)} minutes"
    return f"{duration / 3600:.1f} hours"


def _of_a_fit(work: Work, schedule: Schedule, cost: Cost) -> float:
    looked_at = schedule.looks * work.n_validation + work.n_test
    return cost.setup + schedule.steps * cost.step + looked_at * cost.image


def _share(schedule: Schedule, share: float) -> Schedule:
    """Return a part of a schedule, in two significant digits: a busy machine changes nothing."""
    steps = max(1, int(float(f"{schedule.steps * share:.1e}")))
    return Schedule(steps, max(1, min(schedule.looks, steps // _STEPS_A_LOOK)))


def _said(
    works: Sequence[Work], asked: int, seeds: int, schedules: Sequence[Schedule] | None = None
) -> str | None:
    parts = [f"{seeds} of {asked} seeds"] if seeds < asked else []
    if schedules:
        parts.append(f"{schedules[0].steps} of {works[0].schedule.steps} steps")
        parts.append(f"{schedules[0].looks} of {works[0].schedule.looks} looks")
    return ", ".join(parts) or None
