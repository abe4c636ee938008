"""Partitions: which of the 20 folds train, validate and test.

Every group of images lies in one fold, so a partition never separates relatives. 70/15/15 is folds
0-13, 14-16 and 17-19; five-fold cross-validation tests folds 4k to 4k+3, validates on the next
three and trains on thirteen. Repeat r > 0 deals the folds anew, by a permutation that r seeds.
To test on another data set, 17 folds of all others train and three validate. The given split is
that of the data sets themselves, less what would leak: `given_parts`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from augkit.errors import OptionError

N_FOLDS = 20
MOST_REPEATS = 1000
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Scope:
    """Which images a partition deals with, and what is kept together."""

    datasets: tuple[str, ...] = ()
    """Only images of these data sets; (): of all."""
    without: tuple[str, ...] = ()
    """Classes that are left out."""
    held_out: str = ""
    """A data set that is tested whole, and that nothing else is tested on; empty: none."""
    by_image: bool = False
    """Deal images into folds, not groups: relatives of test images are trained on. A leak, only
    for showing what it does."""

    def __post_init__(self) -> None:
        if self.held_out and self.datasets and self.held_out not in self.datasets:
            raise OptionError(
                f"{self.held_out} is to be tested on and is not among the data sets "
                f"{', '.join(self.datasets)}: add it"
            )


EVERYTHING = Scope()


@dataclass(frozen=True)
class Partition:
    """Disjoint sets of folds that train, validate and test."""

    name: str
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    scope: Scope = EVERYTHING
    given: bool = False
    """The parts are those that the data sets came with; folds decide where they say nothing."""

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
    repeats: int = 1
    """The partitions are so many rounds, one after another; each tests an image at most once."""


def split(shares: str = "70/15/15", repeat: int = 0) -> Partition:
    """Return one partition from three percentages in steps of five, such as 70/15/15."""
    match = re.fullmatch(r"(\d+)/(\d+)/(\d+)", shares.strip())
    numbers = [int(n) for n in match.groups()] if match else []
    if sum(numbers) != 100 or any(n % 5 or not n for n in numbers):
        raise OptionError(
            f"split {shares!r} is not three percentages in steps of 5 that add up to 100, "
            "such as 70/15/15; given is the split that the data came with"
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


def protocol(
    shares: str | None, folds: int | None, repeats: int, scope: Scope = EVERYTHING
) -> Protocol:
    """Return a holdout split or k folds, or a test on the data set that is held out.

    All of it `repeats` times over. Raises OptionError for numbers that make no protocol.
    """
    if not 1 <= repeats <= MOST_REPEATS:
        raise OptionError(
            f"repeats is {repeats}; it must be at least 1, and at most {MOST_REPEATS}"
        )
    if shares is not None and folds is not None:
        raise OptionError("give --split or --folds, not both")
    if scope.held_out and (shares is not None or folds is not None):
        raise OptionError("a test on another data set takes all of it: no --split, no --folds")
    if shares == GIVEN.name and repeats > 1:
        raise OptionError("the given split is one split: no --repeats; --seeds fits it more often")
    partitions: list[Partition] = []
    for repeat in range(repeats):
        if scope.held_out:
            partitions.append(_across(scope.held_out, repeat))
        elif folds is not None:
            partitions += k_fold(folds, repeat)
        elif shares == GIVEN.name:
            partitions.append(GIVEN)
        else:
            partitions.append(split(shares or "70/15/15", repeat))
    name = f"{folds} folds" if folds is not None else partitions[0].name
    if repeats > 1:
        name += f", {repeats} repeats"
    within = _in_words(scope)
    named = (replace(p, name=p.name + within, scope=scope) for p in partitions)
    return Protocol(name + within, tuple(named), repeats)


def empty_part(part: str, partition: Partition) -> str:
    """Return in words that nothing lies in a part, and what to do."""
    why = "the groups are too few; add images, or choose --split or --folds"
    if partition.given:
        why = "no data set came with one; choose --split 70/15/15, or --folds"
    return f"the {part} part is empty under {partition.name}: {why}"


def _across(dataset: str, repeat: int) -> Partition:
    """Return the partition that tests on one data set and trains on all others."""
    order = _order(repeat)
    return Partition(_named(f"tested on {dataset}", repeat), order[:17], order[17:], ())


def _in_words(scope: Scope) -> str:
    words = f" of {' and '.join(scope.datasets)}" if scope.datasets else ""
    words += f" without {', '.join(scope.without)}" if scope.without else ""
    return words + (", split by image" if scope.by_image else "")


def _order(repeat: int) -> tuple[int, ...]:
    if repeat == 0:
        return tuple(range(N_FOLDS))
    rng = np.random.Generator(np.random.Philox(repeat))
    return tuple(int(f) for f in rng.permutation(N_FOLDS))


def _named(name: str, repeat: int) -> str:
    return name if repeat == 0 else f"{name}, repeat {repeat}"


HOLDOUT = split()
"""The partition that runs are made for unless told otherwise: 70/15/15."""

GIVEN = Partition("given", (*range(14), *range(17, N_FOLDS)), (14, 15, 16), (), given=True)
"""The split that the data sets came with. Where one gives no validation part, folds 14 to 16 of its
training part validate."""

HOMES = (HOLDOUT, GIVEN)
"""The partitions that runs may be made for; under any other they are made again."""


def home(shares: str | None) -> Partition:
    """Return the partition that a run is made for. Raises OptionError for any other."""
    for partition in HOMES:
        if shares in (None, partition.name):
            return partition
    raise OptionError(
        f"split is {shares!r}; a run is made for {HOLDOUT.name} or for the {GIVEN.name} split, and "
        "evaluate makes it again for any other"
    )


def given_parts(
    given: np.ndarray, by_fold: np.ndarray, datasets: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """Return int8 (N,): the part of each image under the given split, -1 for what is left out.

    given: int8 (N,), the part that its data set gives an image, -1: none. by_fold: int8 (N,), that
    of its fold, which decides only in a data set without validation images: there it takes them
    from the training part. datasets: str (N,). groups: int64 (N,); relatives stay together in the
    latest part that one of them is in, and those of an earlier part are left out. So the test part
    is whole, as it was published, and nothing that is trained on has a relative in it.
    """
    parts = given.astype(np.int8)
    for name in np.unique(datasets):
        own = datasets == name
        if not (given[own] == 1).any():
            parts[own & (given == 0) & (by_fold == 1)] = 1
    latest = np.full(int(groups.max(initial=-1)) + 1, -1, np.int8)
    np.maximum.at(latest, groups, parts)
    parts[parts < latest[groups]] = -1
    return parts
