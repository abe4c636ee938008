"""Groups and folds: relatives stay together, and every fold is a small picture of the whole.

A group is a patient, or a cluster of near-duplicates, or both joined. Each group lies in one of 20
folds, beside those that look alike without being copies, such as other views of one lesion. The
table is kept in the log, a new version whenever an ingest adds or joins groups.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from augkit.ingestion.pairs import clusters
from augkit.partitions import N_FOLDS

_ORDER = (0, 17, 14, 4, 8, 12, 1, 18, 5, 9, 15, 2, 13, 6, 10, 19, 3, 7, 16, 11)
"""Ties go to the first fold of this list: any beginning of it is about 70/15/15, spread evenly over
the five test blocks of cross-validation, so that a class of few groups reaches every part."""


def join_groups(
    old: np.ndarray, patients: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Return int64 (N,): the group of each image, old numbers kept where groups are old.

    old: int64 (M,), groups of the M <= N images already there. patients: str (N,), empty if
    unknown, otherwise unique to a person. first, second: pairs of near-duplicates.
    Groups that a new image or pair connects become one, under the smallest old number.
    """
    n = len(patients)
    pairs = [(first, second), equal_pairs(old), equal_pairs(patients, ignore="")]
    a = np.concatenate([p[0] for p in pairs]).astype(np.int64)
    b = np.concatenate([p[1] for p in pairs]).astype(np.int64)
    cluster = clusters(n, a, b)
    number = np.full(cluster.max(initial=-1) + 1, -1, np.int64)
    for image, group in enumerate(old.tolist()):
        current = number[cluster[image]]
        number[cluster[image]] = group if current < 0 else min(current, group)
    new = number < 0
    number[new] = np.arange(new.sum()) + (old.max() + 1 if len(old) else 0)
    return number[cluster]


def part_groups(
    old: np.ndarray, torn: np.ndarray, first: np.ndarray, second: np.ndarray, n_folds: int
) -> np.ndarray:
    """Return int64 (M,): the group of each image after some groups were taken apart.

    old: int64 (M,). torn: int64 (n,), the groups to take apart. first, second: pairs that still
    hold images together. What the first image of a group belongs to keeps its number; the other
    parts get numbers that no fold was given to, from n_folds or the highest number on.
    """
    groups, number = old.copy(), max(int(old.max(initial=-1)) + 1, n_folds)
    within = np.isin(old, torn)
    kept = within[first] & within[second] & (old[first] == old[second])
    part = clusters(len(old), first[kept], second[kept])
    for group in torn.tolist():
        members = np.flatnonzero(old == group)
        for piece in dict.fromkeys(part[members].tolist()):
            if piece != part[members[0]]:
                groups[members[part[members] == piece]] = number
                number += 1
    return groups


def equal_pairs(values: np.ndarray, ignore: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs (first, second), int64 (n,), that connect all positions of equal value."""
    last: dict[Any, int] = {}
    first, second = [], []
    for position, value in enumerate(values.tolist()):
        if value == ignore:
            continue
        if value in last:
            first.append(last[value])
            second.append(position)
        last[value] = position
    return np.array(first, np.int64), np.array(second, np.int64)


def assign_folds(
    groups: np.ndarray,
    strata: np.ndarray,
    old: list[int | None],
    *,
    classes: np.ndarray | None = None,
    dropped: np.ndarray | None = None,
    alike: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[int | None]:
    """Return the fold of each group number, None for numbers no longer used.

    groups, strata: int64 (N,); a stratum is a data set and a class. Groups in `old` keep their
    fold. New groups, the largest first, go where their strata are rarest, then where their
    `classes`, int64 (N,), are. Groups of `dropped` images, bool (N,), come last and take no place
    from the others. alike: first and second, int64 (n,), of pairs of images whose groups go into
    one fold, the most alike first, as long as these are no more than a twentieth of any stratum.
    """
    n_groups = int(groups.max(initial=-1)) + 1
    folds: list[int | None] = [*old, *([None] * n_groups)][:n_groups]
    sizes = np.bincount(groups, minlength=n_groups)
    share = _shares(groups, strata, n_groups)
    if classes is not None:  # a small weight: it only decides between equals
        share = np.hstack([share, 0.01 * _shares(groups, classes, n_groups)])
    filled = np.zeros((N_FOLDS, share.shape[1]))
    last = np.zeros(n_groups, bool)
    if dropped is not None:
        last[groups[dropped]] = True
    used, leader = sizes > 0, np.arange(n_groups)
    if alike is not None:
        edges = zip(groups[alike[0]].tolist(), groups[alike[1]].tolist(), strict=True)
        leader = _leaders(share, folds, last, edges)
        sizes = np.bincount(leader, sizes, n_groups)
        share = np.stack([np.bincount(leader, column, n_groups) for column in share.T], axis=1)
    for group, fold in enumerate(folds):
        if fold is not None and sizes[group] and not last[group]:
            filled[fold] += share[group]
    rank = np.argsort(_ORDER)
    for group in np.lexsort((-sizes, last)).tolist():
        if sizes[group] and folds[group] is None:
            cost = np.round(filled @ share[group], 12)
            fold = int(np.lexsort((rank, cost))[0])
            folds[group] = fold
            filled[fold] += share[group]
    return [folds[leader[group]] if used[group] else None for group in range(n_groups)]


def _leaders(
    share: np.ndarray, folds: list[int | None], apart: np.ndarray, edges: Iterable[tuple[int, int]]
) -> np.ndarray:
    """Return int64 (n_groups,): for each group one of those that it shares a fold with.

    share: float64 (n_groups, n_strata). folds: those that have one lead, two such are never
    joined. apart: bool (n_groups,), groups that join no others.
    """
    leader, share = np.arange(len(share)), share.copy()
    for first, second in edges:
        a, b = int(leader[first]), int(leader[second])
        if folds[b] is not None:
            a, b = b, a
        if a == b or folds[b] is not None or apart[a] or apart[b]:
            continue
        if (share[a] + share[b]).max() <= 1 / N_FOLDS + 1e-9:
            share[a] += share[b]
            leader[leader == b] = a
    return leader


def _shares(groups: np.ndarray, strata: np.ndarray, n_groups: int) -> np.ndarray:
    """Return float64 (n_groups, n_strata): the share of each stratum that lies in each group."""
    counts = np.zeros((n_groups, int(strata.max(initial=-1)) + 1))
    np.add.at(counts, (groups, strata), 1)
    return counts / np.maximum(counts.sum(axis=0), 1)
