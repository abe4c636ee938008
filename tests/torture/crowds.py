"""Crowds: many writers and readers on one store; every reader names the snapshot that it saw."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np

import augkit as ak
from augkit.partitions import HOLDOUT

from .kills import child
from .worlds import Tally, World, contents, digest


def write(path: Path, number: int, until: float, told: Path) -> None:
    """Commit runs, each of another seed, and take some of them back, until it is time."""
    made, retracted = [], []
    while time.monotonic() < until:
        seed = 1000 * (number + 1) + len(made)
        ak.augment(path, "zoom", n=1, seed=seed, run=f"run-{seed}", workers=1)
        made.append(f"run-{seed}")
        if len(made) % 20 == 0:
            ak.retract(path, made[-10])
            retracted.append(made[-10])
    told.write_text(json.dumps({"made": made, "retracted": retracted}))


def read(path: Path, number: int, until: float, told: Path) -> None:
    """Look at the newest snapshot and at an older one again and again; note what each held."""
    rng = np.random.default_rng(number)
    seen: dict[str, set[str]] = {}
    reads = 0
    while time.monotonic() < until:
        store = ak.open(path)
        newest = store.snapshot()
        for snapshot in (newest, store.snapshot(int(rng.integers(3, newest.number + 1)))):
            name = f"{snapshot.number} {snapshot.digest}"
            found = digest(*_sample(snapshot, snapshot.number))
            seen.setdefault(name, set()).add(found)
            reads += 1
        store.close()
    told.write_text(json.dumps({"reads": reads, "seen": {k: sorted(v) for k, v in seen.items()}}))


def _sample(snapshot: ak.Snapshot, seed: int) -> list[object]:
    """Return what a snapshot holds: the names of all runs, the rows of some, the training part."""
    runs = sorted(snapshot.runs)
    rng = np.random.default_rng(seed)
    some = [runs[i] for i in rng.integers(0, len(runs), 4).tolist()] if runs else []
    rows = [snapshot.inspect(run)[:] for run in some]
    return ["\n".join(runs), *rows, snapshot.training(HOLDOUT, some)[:]]


def campaign(
    world: World, root: Path, *, writers: int = 8, readers: int = 4, seconds: float
) -> tuple[Tally, dict[str, int]]:
    """Let writers and readers loose on one store; return what was wrong, and how much was done."""
    path, until = world.copy(root / "crowd"), time.monotonic() + seconds
    people = [(write, i) for i in range(writers)] + [(read, i) for i in range(readers)]
    reports = [root / f"{work.__name__}-{i}.json" for work, i in people]
    pids = [
        child(lambda work=work, i=i, told=told: work(path, i, until, told))  # type: ignore[misc]
        for (work, i), told in zip(people, reports, strict=True)
    ]
    found = Tally()
    for pid, report in zip(pids, reports, strict=True):
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status:
            found.errors += 1
            found.notes.append(f"{world.form}: {report.stem} ended with {status}")
    told = [json.loads(report.read_bytes()) for report in reports if report.exists()]
    made = {run for each in told for run in each.get("made", ())}
    kept = made - {run for each in told for run in each.get("retracted", ())}
    there = {k for k in contents(ak.open(path)) if k not in world.before}
    found.lost, found.visible = len(kept - there), len(there - kept)
    seen: dict[str, set[str]] = {}
    numbers: Counter[str] = Counter()
    for name, digests in ((n, d) for each in told for n, d in each.get("seen", {}).items()):
        seen.setdefault(name, set()).update(digests)
    for name, digests in seen.items():
        numbers[name.split()[0]] += 1
        if len(digests) > 1:
            found.errors += 1
            found.notes.append(f"{world.form}: snapshot {name} was read in {len(digests)} ways")
    twice = [n for n, count in numbers.items() if count > 1]
    if twice:
        found.errors += 1
        found.notes.append(f"{world.form}: snapshots {twice} have several digests")
    verified = ak.verify(ak.open(path))
    if not verified.sound:
        found.errors += 1
        found.notes.append(str(verified))
    reads = sum(each.get("reads", 0) for each in told)
    found.n = len(made)
    return found, {"commits": ak.open(path).snapshot().number, "reads": reads, "seen": len(seen)}
