"""The verb `study`: data sets x classifiers x arms x partitions x seeds, each fit done once.

A cell is one data set (or several together) and one classifier. Its fits are tasks, which an
engine runs on this machine or on a cluster; each writes its result once, so that a study that is
killed, changed or extended computes only what is missing. Holm's correction covers all cells.
"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from augkit.arms import REAL, choose_arms, to_refit
from augkit.augmentation import augment_all
from augkit.augmentation import refit as refit_run
from augkit.budgeting import in_words
from augkit.designs import PAPER, Design
from augkit.engines.engine import Engine, choose_engine
from augkit.errors import AugkitError, OptionError
from augkit.evaluation import Request, Settings, check, prepare
from augkit.interfaces import Progress, silent
from augkit.outcomes import Cell as Found
from augkit.outcomes import keep
from augkit.partitions import Partition, protocol
from augkit.registry import registry
from augkit.store import DatasetStore, Run, Snapshot
from augkit.store.locate import open_store
from augkit.tables import counted, table
from augkit.trials import Trial
from augkit.verdicts import judge

log = logging.getLogger("augkit")

LEAST_GROUPS = 20
"""A class with fewer groups in the data of a cell is left out of it."""

_TRADITIONAL = ("flip", "brightness", "scale", "zoom")
_GENERATED = 5000
"""Images a class that the paper's generators made."""
_CHARACTERS = 20
"""Of a probability in a result file."""
_MEMORY = {False: 600_000_000, True: 2_000_000_000}
"""Bytes of a worker, by whether the classifier is a network of torch; see docs/classifiers.md."""


@dataclass(frozen=True)
class Plan:
    """What a study will do: the outcome of --dry-run."""

    tasks: int
    """Fits in all, those of the controls among them, and generators to be fitted."""
    done: int
    """Tasks whose result is there already."""
    cells: tuple[dict[str, str], ...]
    """{dataset, classifier, arm}: what Table II would have a number for."""
    notes: tuple[str, ...]
    """What is left out of cells, and cells that cannot be done, with the cause."""
    seconds: float
    bytes: int
    memory: int
    """Bytes, at the most, for each worker."""

    def to_json(self) -> str:
        """Return the keys of --json; see docs/json.md."""
        found = asdict(self)
        estimate = {name: found.pop(name) for name in ("seconds", "bytes", "memory")}
        return json.dumps(found | {"estimate": estimate})

    def __str__(self) -> str:
        rows: dict[tuple[str, str], list[str]] = {}
        for cell in self.cells:
            rows.setdefault((cell["dataset"], cell["classifier"]), []).append(cell["arm"])
        shown = [[*key, ", ".join(arms)] for key, arms in rows.items()]
        lines = [table(["data set", "classifier", "arms"], shown), ""]
        lines += [f"note: {text}" for text in self.notes]
        lines.append(
            f"{counted(len(self.cells), 'cell')}, {counted(self.tasks, 'task')}, {self.done} of "
            f"them done; about {in_words(self.seconds)} of one worker, {self.bytes / 1e6:.0f} MB "
            f"of disk, up to {self.memory / 1e9:.1f} GB of memory a worker"
        )
        return "\n".join(lines)


@dataclass(frozen=True)
class StudyResult:
    """What a study found."""

    cells: tuple[Found, ...]
    computed: int
    """Tasks that this call computed; the others were there already."""
    failed: int
    """Tasks that failed; their cells say why."""

    def to_json(self) -> str:
        """Return the cells as JSON; see docs/json.md."""
        return json.dumps(
            {
                "cells": [cell.as_json() for cell in self.cells],
                "computed": self.computed,
                "failed": self.failed,
            }
        )

    def __str__(self) -> str:
        rows, notes = [], []
        for cell in self.cells:
            found = cell.evaluation
            if found is None:
                notes.append(f"note: {cell.dataset}, {cell.classifier}: {cell.failure}")
                continue
            words = {verdict.arm: verdict.word or "no verdict" for verdict in found.verdicts}
            for arm in found.arms:
                if arm.unavailable:
                    notes.append(
                        f"note: {cell.dataset}, {cell.classifier}, {arm.name}: {arm.unavailable}"
                    )
                elif arm.same_as is None:
                    value = arm.metrics[found.primary]
                    word = words.get(arm.name, "")
                    rows.append([cell.dataset, cell.classifier, arm.name, value, word])
        head = ["data set", "classifier", "arm", "primary metric", "verdict"]
        return "\n".join([table(head, rows), "", *notes, "augkit report writes all of it"])


def study(
    asked: Design | str | Path,
    store: DatasetStore | str | Path | None = None,
    *,
    engine: str = "local",
    workers: int | None = None,
    timeout: float | None = None,
    gpus_per_task: float = 0.0,
    address: str | None = None,
    progress: Progress = silent,
) -> StudyResult:
    """Do every fit of a study that is not there yet, and judge all cells together.

    asked: a Design, the path of a YAML file, or "paper". Generators are fitted anew for every
    partition. engine: "local" or "ray", see `augkit.engines.engine.choose_engine`. A task that
    fails is kept with its cause and stops nothing; the same call tries it again.
    """
    opened = open_store(store)
    chosen = _study(asked, opened, progress)
    runner = choose_engine(
        engine, workers=workers, timeout=timeout, gpus_per_task=gpus_per_task, address=address
    )
    generators = _refits(opened, chosen)
    failed = _run(runner, generators, "generator", progress)
    snapshot = opened.snapshot()
    cells = _cells(opened, chosen, snapshot)
    fits = _fits(cells)
    failed |= _run(runner, fits, "fit", progress)
    found = _judged(cells, failed, chosen.primary)
    keep(opened, snapshot, found, _command(asked), asdict(chosen))
    begun = sum(not item.done for item in (*generators, *fits))
    return StudyResult(tuple(found), begun - len(failed), len(failed))


def _run(engine: Engine, items: Sequence[_Item], stage: str, progress: Progress) -> dict[str, str]:
    """Do what is not done yet; return the cause of each failure, by the identity of its task."""
    left = [item for item in items if not item.done]
    failed = {}
    for count, ended in enumerate(engine.run(_do, [item.sent for item in left]), 1):
        item = left[ended.index]
        progress(stage, count, len(left))
        if ended.failure is not None:
            failed[item.identity] = ended.failure
            log.warning("%s: %s", item.name, ended.failure)
    return failed


def plan(asked: Design | str | Path, store: DatasetStore | str | Path | None = None) -> Plan:
    """Return what a study will do and about how long that takes; nothing is trained or changed."""
    opened = open_store(store)
    chosen = _study(asked, opened, None)
    snapshot = opened.snapshot()
    cells, refits = _cells(opened, chosen, snapshot), _refits(opened, chosen, everything=True)
    tasks, done = len(refits), sum(item.done for item in refits)
    seconds, disk = 0.0, 0
    for cell in cells:
        if cell.trial is None:
            continue
        trial = cell.trial
        items = _fits([cell])
        missing = len(trial.missing) / max(1, len(trial.arms) - len(trial.missing))
        estimate = trial.estimate()
        tasks += round(len(items) * (1 + missing))
        done += sum(item.done for item in items)
        seconds += (estimate.seconds if estimate else len(items)) * (1 + missing)
        disk += len(items) * len(trial.tested.labels) * len(snapshot.classes) * _CHARACTERS
    for item in refits:
        if item.done:
            continue
        run = snapshot.run(item.arm)
        seconds += _seconds_of_fit(snapshot, run)
        disk += run.rows * int(np.prod(opened.shape))
    heavy = any(cell.trial.classifier.uses_device for cell in cells if cell.trial)
    return Plan(
        tasks=tasks,
        done=done,
        cells=tuple(
            {"dataset": cell.dataset, "classifier": cell.classifier, "arm": arm}
            for cell in cells
            for arm in (cell.trial.arms if cell.trial else (REAL,))
        ),
        notes=(
            *_left_out(snapshot, chosen),
            *(f"{c.dataset}, {c.classifier}: {c.failure}" for c in cells if c.failure),
        ),
        seconds=seconds,
        bytes=disk,
        memory=_MEMORY[heavy],
    )


def run_task(
    asked: Design | str | Path, number: int, store: DatasetStore | str | Path | None = None
) -> str:
    """Do one task of a study, counted from 0, as one job of an array; return what it was.

    The generators that are fitted anew come first; the fits can be counted once these are there.
    Raises OptionError for a number that no task has.
    """
    opened = open_store(store)
    chosen = _study(asked, opened, None)
    work = _refits(opened, chosen, everything=True)
    if number >= len(work) and all(item.done for item in work):
        number, work = number - len(work), _fits(_cells(opened, chosen, opened.snapshot()))
    if not 0 <= number < len(work):
        raise OptionError(f"there is no task {number}; there are {len(work)}, counted from 0")
    if not work[number].done:
        _do(work[number].sent)
    return work[number].name


# -- what is to be done ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cell:
    """A data set and a classifier, with its trial or the cause why there can be none."""

    dataset: str
    classifier: str
    request: Request
    trial: Trial | None
    failure: str = ""


@dataclass(frozen=True)
class _Item:
    """One task: what is sent to the process that does it, and its name for people."""

    sent: _Refit | _Fit
    name: str
    identity: str
    arm: str
    done: bool


def _study(asked: Design | str | Path, store: DatasetStore, progress: Progress | None) -> Design:
    """Return the study that is meant. progress: make the runs that the paper's needs; None: not."""
    if isinstance(asked, Design) or str(asked) != "paper":
        chosen = asked if isinstance(asked, Design) else Design.read(asked)
        _check(store.snapshot(), chosen)
        return chosen
    _check(store.snapshot(), replace(PAPER, arms=None))  # before hours go into generators
    there = {run.plugin for run in store.snapshot().runs.values()}
    missing = [name for name in _TRADITIONAL if name not in there]
    if progress is not None and missing:
        augment_all(store, missing, progress=progress)
    if progress is not None and "dagan" not in there:
        augment_all(store, ["dagan"], n=_GENERATED, progress=progress)
    return PAPER


def _check(snapshot: Snapshot, asked: Design) -> None:
    """Raise an AugkitError for what is wrong in every cell, before anything is done."""
    for name, options in asked.classifiers:
        registry().find(name, "classifier").build(options)
    choose_arms(snapshot, asked.arms)
    snapshot.require_images()
    for name, datasets in asked.datasets.items():
        if not datasets:
            raise OptionError(f"{name} must name a data set at least")
        snapshot.require_datasets(datasets)
    snapshot.require_datasets([asked.test_on] if asked.test_on is not None else [])
    snapshot.require_classes([asked.positive] if asked.positive is not None else [])
    for _, _, request in _requests(snapshot, asked):
        check(request)
    protocol(asked.split, asked.folds, asked.repeats)


def _datasets(snapshot: Snapshot, asked: Design) -> dict[str, tuple[str, ...]]:
    """Return name -> data sets; by default each, and all together."""
    if asked.datasets:
        return asked.datasets
    there = snapshot.datasets
    together = {" + ".join(there): there}
    return together if asked.test_on is not None else {d: (d,) for d in there} | together


def _too_few(snapshot: Snapshot, datasets: Sequence[str]) -> tuple[str, ...]:
    """Return the classes with too few groups in these data sets."""
    real = snapshot.real
    here = np.isin(real.datasets, datasets) & ~real.conflict
    return tuple(
        name
        for label, name in enumerate(snapshot.classes)
        if len(np.unique(real.groups[here & (real.labels == label)])) < LEAST_GROUPS
    )


def _left_out(snapshot: Snapshot, asked: Design) -> Iterator[str]:
    for name, datasets in _datasets(snapshot, asked).items():
        for label in _too_few(snapshot, datasets):
            yield f"{label} is left out of {name}: fewer than {LEAST_GROUPS} groups"


def _requests(snapshot: Snapshot, asked: Design) -> Iterator[tuple[str, str, Request]]:
    """Yield the name of a data set, that of a classifier, and what is evaluated."""
    shared = {field.name: getattr(asked, field.name) for field in fields(Settings)}
    for name, datasets in _datasets(snapshot, asked).items():
        without = _too_few(snapshot, datasets)
        for classifier, options in asked.classifiers:
            shown = " ".join([classifier, *(f"{k}={v}" for k, v in options.items())])
            yield (
                name,
                shown,
                Request(
                    classifier,
                    options,
                    datasets=datasets,
                    without=without,
                    paper=asked.protocol == "paper",
                    full=True,
                    **shared,
                ),
            )


def _cells(store: DatasetStore, asked: Design, snapshot: Snapshot) -> list[_Cell]:
    """Return all cells, those that cannot be done with the cause."""
    found = []
    for dataset, classifier, request in _requests(snapshot, asked):
        try:
            trial = Trial(store, *prepare(store, request, snapshot))
        except AugkitError as error:
            found.append(_Cell(dataset, classifier, request, None, str(error)))
        else:
            found.append(_Cell(dataset, classifier, request, trial))
    return found


def _refits(store: DatasetStore, asked: Design, *, everything: bool = False) -> list[_Item]:
    """Return the generators that have to be fitted anew; everything: those that are there too."""
    found: dict[str, _Item] = {}
    now = store.snapshot()
    for _, _, request in _requests(now, asked):
        try:
            prepared = prepare(store, request, now)
        except AugkitError:
            continue  # the cell says why
        snapshot, protocol = prepared.snapshot, prepared.how.protocol
        missing = to_refit(snapshot, prepared.arms, protocol)
        for run, where in to_refit(snapshot, prepared.arms, protocol, everything=everything):
            sent = _Refit(str(store.path), run, where, asked.budget, asked.device)
            name = _refit_name(run, where)
            found[name] = _Item(sent, name, name, run, (run, where) not in missing)
    return list(found.values())


def _refit_name(run: str, partition: Partition) -> str:
    return f"{run} for {partition.name}"


def _fits(cells: Sequence[_Cell]) -> list[_Item]:
    """Return every fit of these cells, each outcome once."""
    found: dict[str, _Item] = {}
    for cell in cells:
        trial = cell.trial
        for number, task in enumerate(trial.tasks if trial else ()):
            assert trial is not None
            identity = trial.name_of(task)
            where = f"{task.partition.name}, seed {task.seed}"
            sent = _Fit(str(trial.store.path), trial.snapshot.number, cell.request, number)
            name = f"{cell.dataset}, {cell.classifier}, {task.arm}, {where}"
            item = _Item(sent, name, identity, task.arm, trial.is_done(task))
            found.setdefault(identity, item)
    return list(found.values())


# -- what a process does ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Refit:
    """A generator that is fitted anew; its images are committed."""

    store: str
    run: str
    partition: Partition
    budget: str | None
    device: str | None


@dataclass(frozen=True)
class _Fit:
    """A fit of a cell; its result is kept in the store."""

    store: str
    commit: int
    """The store as it was when the fits were counted."""
    request: Request
    number: int


def _do(task: _Refit | _Fit) -> None:
    """Do one task."""
    if isinstance(task, _Fit):
        trial = _trial(task)
        trial.fit(trial.tasks[task.number])
    else:
        refit_run(task.store, task.run, task.partition, budget=task.budget, device=task.device)


_last: dict[str, Trial] = {}
"""The trial that this process worked on last: it does many fits of one after another."""


def _trial(task: _Fit) -> Trial:
    name = f"{task.store} {task.commit} {task.request}"
    if name not in _last:
        store = DatasetStore.open(task.store)
        prepared = prepare(store, task.request, store.snapshot(task.commit))
        _last.clear()
        _last[name] = Trial(store, *prepared)
    return _last[name]


# -- what was found --------------------------------------------------------------------------------


def _judged(cells: Sequence[_Cell], failed: Mapping[str, str], primary: str) -> list[Found]:
    """Return what was found in all cells, judged together. A fit without a result has failed."""
    for cell in cells:
        if cell.trial is not None:
            _mark(cell.trial, failed)
    able = [cell for cell in cells if cell.trial and REAL not in cell.trial.failed]
    cases = [(cell, case) for cell in able if cell.trial for case in cell.trial.cases()]
    judged = judge([case for _, case in cases], primary)
    found = []
    for cell in cells:
        trial = cell.trial
        if trial is None or REAL in trial.failed:
            cause = trial.failed[REAL] if trial else cell.failure
            found.append(Found(cell.dataset, cell.classifier, None, cause))
            continue
        own = [each for (of, _), each in zip(cases, judged, strict=True) if of is cell]
        found.append(Found(cell.dataset, cell.classifier, trial.outcome(own)))
    return found


def _mark(trial: Trial, failed: Mapping[str, str]) -> None:
    """Note in a trial which arms have no numbers, and why."""
    for task in trial.tasks:
        cause = failed.get(trial.name_of(task))
        if cause is None and not trial.is_done(task):
            cause = "there is no result"
        if cause is not None:
            where = f"{task.partition.name}, seed {task.seed}"
            trial.failed.setdefault(task.arm, f"failed under {where}: {cause}")
    for arm in trial.missing:
        for run in trial.arms[arm]:
            for partition in trial.plan.partitions:
                cause = failed.get(_refit_name(run, partition))
                if cause is not None:
                    trial.missing[arm] = f"run {run!r} failed under {partition.name}: {cause}"


def _seconds_of_fit(snapshot: Snapshot, run: Run) -> float:
    """Return how long the model of a run took; 0 where nobody noted it."""
    details = snapshot.model(run.model).details if run.model else {}
    seconds = details.get("wall_seconds")
    if isinstance(seconds, int | float) and 0 <= seconds < float("inf"):
        return float(seconds)
    return 0.0  # a plugin, or a stranger, may note anything


def _command(asked: Design | str | Path) -> str:
    """Return the line that does it again, where there is one."""
    if isinstance(asked, Design):
        return "augkit study"
    return shlex.join(["augkit", "study", *(["--preset"] if asked == "paper" else []), str(asked)])
