"""Partitions: which of the 20 folds train, validate and test.

Every group of images lies in one fold, so a partition never separates relatives. 70/15/15 is folds
0-13, 14-16 and 17-19; five-fold cross-validation tests folds 4k to 4k+3, validates on the next
three and trains on thirteen. Repeat r > 0 deals the folds anew, by a permutation that r seeds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from augkit.errors import OptionError

N_FOLDS = 20
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Partition:
    """Disjoint sets of folds that train, validate and test."""

    name: str
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    def part_of_fold(self) -> np.ndarray:
        """Return int8 (20,): 0 train, 1 validation, 2 test, -1 none."""
        parts = np.full(N_FOLDS, -1, np.int8)
        for number, folds in enumerate((self.train, self.validation, self.test)):
            parts[list(folds)] = number
        return parts


@dataclass(frozen=True)
class Protocol:
    """The partitions of one evaluation, with the words that a user types for them."""

    name: str
    partitions: tuple[Partition, ...]


def split(shares: str = "70/15/15", repeat: int = 0) -> Partition:
    """Return one partition from three percentages in steps of five, such as 70/15/15."""
    match = re.fullmatch(r"(\d+)/(\d+)/(\d+)", shares.strip())
    numbers = [int(n) for n in match.groups()] if match else []
    if sum(numbers) != 100 or any(n % 5 or not n for n in numbers):
        raise OptionError(
            f"split {shares!r} is not three percentages in steps of 5 that add up to 100, "
            "such as 70/15/15"
        )
    train, validation, _ = [n * N_FOLDS // 100 for n in numbers]
    order = _order(repeat)
    return Partition(
        _named("/".join(map(str, numbers)), repeat),
        order[:train],
        order[train : train + validation],
        order[train + validation :],
    )


def k_fold(folds: int, repeat: int = 0) -> tuple[Partition, ...]:
    """Return the partitions of k-fold cross-validation, k a divisor of 20."""
    if folds not in (2, 4, 5, 10, 20):
        raise OptionError(f"folds is {folds}; it must be one of: 2, 4, 5, 10, 20")
    order, size = _order(repeat), N_FOLDS // folds
    made = []
    for k in range(folds):
        turned = order[k * size :] + order[: k * size]
        name = _named(f"fold {k + 1} of {folds}", repeat)
        rest = turned[size + 3 :]
        made.append(Partition(name, rest, turned[size : size + 3], turned[:size]))
    return tuple(made)


def protocol(shares: str | None, folds: int | None, repeats: int) -> Protocol:
    """Return a holdout split or k folds, `repeats` times over."""
    if repeats < 1:
        raise OptionError(f"repeats is {repeats}; it must be at least 1")
    partitions: list[Partition] = []
    for repeat in range(repeats):
        if folds is not None:
            partitions += k_fold(folds, repeat)
        else:
            partitions.append(split(shares or "70/15/15", repeat))
    name = f"{folds} folds" if folds is not None else partitions[0].name
    return Protocol(name + (f", {repeats} repeats" if repeats > 1 else ""), tuple(partitions))


def _order(repeat: int) -> tuple[int, ...]:
    if repeat == 0:
        return tuple(range(N_FOLDS))
    rng = np.random.Generator(np.random.Philox(repeat))
    return tuple(int(f) for f in rng.permutation(N_FOLDS))


def _named(name: str, repeat: int) -> str:
    return name if repeat == 0 else f"{name}, repeat {repeat}"


HOLDOUT = split()
"""The partition that runs are made for unless told otherwise: 70/15/15."""
