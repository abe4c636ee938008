"""What is weak about the data themselves: relatives, conflicts, imbalance, copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from augkit.partitions import HOLDOUT
from augkit.store import Snapshot
from augkit.summary import summarise
from augkit.tables import counted

Fault = dict[str, str]
"""What it is, what was found, what it means."""


def faults(snapshot: Snapshot) -> list[Fault]:
    """Return what is weak about the data themselves: what, how much, what it means."""
    values = summarise(snapshot).values
    real = values["real"]
    if not real["rows"]:
        return []
    return [
        *_faults_of_groups(snapshot, real),
        *_faults_of_classes(snapshot, real),
        _detectable(real),
        *_faults_of_runs(values["runs"]),
    ]


def _fault(what: str, found: str, meaning: str) -> Fault:
    return {"what": what, "found": found, "meaning": meaning}


def _faults_of_groups(snapshot: Snapshot, real: dict[str, Any]) -> list[Fault]:
    sizes = np.bincount(snapshot.real.groups)
    several = int((sizes > 1).sum())
    together = int(sizes[sizes > 1].sum())
    found = "none"
    if several:
        found = f"{together} images in {counted(several, 'group')}, at most {sizes.max()} in one"
    n_out = len(real["conflicts"])
    return [
        _fault(
            "near-duplicates and relatives",
            found,
            "kept in one part; the sample is the groups, not the images",
        ),
        _fault(
            "relatives of different classes",
            f"{counted(n_out, 'image')} left out" if n_out else "none",
            "either a label is wrong or the images cannot be told apart",
        ),
    ]


def _faults_of_classes(snapshot: Snapshot, real: dict[str, Any]) -> list[Fault]:
    used = snapshot.count_by_class(~snapshot.real.conflict)
    counts = {name: n for name, n in used.items() if n} or real["by_class"]
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    ratio = counts[most] / counts[least]
    balance = f"{counts[most]} {most} to {counts[least]} {least}: {ratio:.1f} to 1"
    parts, labels, groups = snapshot.parts(HOLDOUT), snapshot.real.labels, snapshot.real.groups
    tested = {
        name: len(np.unique(groups[(parts == 2) & (labels == k)]))
        for k, name in enumerate(snapshot.classes)
    }
    fewest = min(tested, key=tested.__getitem__)
    weight = f"{100 / tested[fewest]:.0f} points" if tested[fewest] else "all"
    return [
        _fault(
            "imbalance of the classes",
            balance if ratio > 1 else f"none: {counts[most]} of each",
            "accuracy favours the larger class; balanced accuracy does not",
        ),
        _fault(
            f"fewest test groups of a class, {HOLDOUT.name}",
            f"{tested[fewest]} {fewest}",
            f"one group moves the sensitivity of its class by {weight}; folds test every group",
        ),
    ]


def _detectable(real: dict[str, Any]) -> Fault:
    told = [
        f"{100 * low:.1f} to {100 * high:.1f} points with {name}"
        for name, (low, high) in real["smallest_detectable"].items()
        if high < 1
    ]
    return _fault(
        "smallest difference in balanced accuracy that can be expected to show",
        ", ".join(reversed(told)) or "none",
        "for arms that disagree on 4 % and on 15 % of the images; what is smaller stays unseen",
    )


def _faults_of_runs(runs: Sequence[dict[str, Any]]) -> list[Fault]:
    stale = [r["name"] for r in runs if r["stale"]]
    checked = [r for r in runs if r["copies"] is not None]
    found = []
    if stale:
        meaning = "some rows derive from images that are no longer trained on: augment again"
        found.append(_fault("stale runs", ", ".join(stale), meaning))
    if checked:
        copies = ", ".join(f"{r['copies']} of {r['rows']} in {r['name']}" for r in checked)
        meaning = "a generator that repeats its training images adds nothing"
        found.append(_fault("generated images that look like copies", copies, meaning))
    return found
