"""The verb `evaluate`: one classifier, several arms, the same partitions and seeds for all.

An arm is a way to fill the training part: `real` images only, with the rows of runs added, or real
images repeated as the control of another arm (`arms`). Validation and test parts are real images,
always. Each fit is a task named by a hash of all that decides its outcome; its probabilities are
written once, atomically, and never computed twice.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from augkit import options as option_tools
from augkit.arms import (
    BALANCED,
    REAL,
    choose_arms,
    controls,
    obstacle,
    repeated,
    superseded,
    to_refit,
    training_samples,
    twin,
)
from augkit.augmentation import refit as refit_run
from augkit.budgeting import LIMIT, Budget, Work, cut_to_fit, in_words, part_of, seconds
from augkit.devices import choose_device
from augkit.errors import AugkitError, OptionError, PluginFailed, StoreError, TrainingFailed
from augkit.features import FeatureCache
from augkit.interfaces import (
    Classifier,
    Context,
    Cost,
    Extractor,
    Progress,
    Samples,
    Schedule,
    silent,
)
from augkit.outcome import Arm, Evaluation
from augkit.partitions import Partition, Protocol, Scope, protocol
from augkit.plans import call
from augkit.registry import Plugin, registry
from augkit.results import Results
from augkit.scoring import Fit, Tested, curves, estimates, measure
from augkit.store import DatasetStore, Snapshot
from augkit.store.format import digest_of
from augkit.store.locate import open_store
from augkit.store.reading import require_training
from augkit.store.samples import JoinedSamples, StoredSamples
from augkit.tables import counted
from augkit.verdicts import PRIMARY, Case, check_primary, judge

log = logging.getLogger("augkit")

N_SEEDS = 5
REAL_SHARE = 0.5
_SLOW = 5.0
"""Seconds of a fit from which on its progress is shown."""
_WORTH_SAYING = 20.0
"""Seconds from which on an estimate is printed."""
_MANY_FEATURES = 300
_SEEDS_APART = 1000
"""Fits under different partitions have different seeds: their randomness is not the same."""


def evaluate(
    store: DatasetStore | str | Path | None,
    classifier: str,
    options: Mapping[str, Any] | None = None,
    *,
    arms: Sequence[str] | None = None,
    split: str | None = None,
    folds: int | None = None,
    repeats: int = 1,
    seeds: int | None = None,
    primary: str = PRIMARY,
    positive: str | None = None,
    datasets: Sequence[str] = (),
    test_on: str | None = None,
    split_by: str = "group",
    refit: bool = False,
    budget: str | float | None = None,
    real_share: float = REAL_SHARE,
    paper: bool = False,
    full: bool = False,
    device: str | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Return how well a classifier does with each arm, on real images that it never saw.

    arms: names among real, traditional, all, generative plugins and runs; by default real, each
    family, all. `real` and the controls that verdicts need are always among them. split:
    "70/15/15"; folds: 5; neither: five folds for a classifier that takes seconds, else 70/15/15.
    repeats: deal the folds anew so often. seeds: fits on each partition (default 5; 1 for a
    classifier without randomness).

    primary: the one metric that verdicts are about. positive: a class whose sensitivity and
    specificity the table shows first. datasets: only images of these. test_on: a data set to test
    on whole, after training on all others. split_by: "group", or "image" to see how far images of
    one patient on both sides flatter; that gives no verdict. refit: fit generators anew for each
    partition that they were not fitted for, each within `budget`.

    real_share: the share of real images in a batch of an augmented arm, where a whole network is
    trained. paper: the protocol of Al-Dhabyani et al., one split, equal epochs instead of equal
    steps, and no class weights. full: also where a CPU would need more than half an hour. An
    interrupted call continues.
    """
    _check_numbers(split, folds, seeds, real_share=real_share)
    if split_by not in ("group", "image"):
        raise OptionError(f"split by {split_by!r}; it must be group or image")
    if budget is not None and not refit:
        raise OptionError("--budget is for generators that --refit fits anew")
    check_primary(primary)
    opened = open_store(store)
    plugin = registry().find(classifier, "classifier")
    built = plugin.build(options)
    device = choose_device(device) if built.uses_device or device else "cpu"
    if split is None and folds is None and test_on is None and built.fast and not paper:
        folds = 5
    snapshot = opened.snapshot()
    scope = Scope(tuple(datasets), (), test_on or "", split_by == "image")
    plan = protocol(split, folds, repeats, scope)
    _check_parts(snapshot, plan)
    if positive is not None and positive not in snapshot.classes:
        known = ", ".join(snapshot.classes)
        raise OptionError(f"there is no class {positive!r}; there are: {known}")
    chosen = choose_arms(snapshot, arms)
    if refit:
        for run, partition in to_refit(snapshot, chosen, plan):
            log.info("fitting %s anew for %s", run, partition.name)
            refit_run(opened, run, partition, budget=budget, device=device, progress=progress)
        snapshot = opened.snapshot()
    how = _How(
        protocol=plan,
        primary=primary,
        positive=positive,
        balanced=BALANCED in (arms or ()),
        seeds=1 if built.deterministic else seeds or N_SEEDS,
        real_share=None if paper else real_share,
        paper=paper,
        full=full,
        device=device if built.uses_device else "cpu",
    )
    settled = call(built, "settle", snapshot.shape, how.device)
    if settled.caveat():
        log.warning("NOTE: %s", settled.caveat())
    return _Evaluation(opened, snapshot, plugin, settled, how, progress).run(chosen)


def _check_numbers(
    split: str | None, folds: int | None, seeds: int | None, *, real_share: float
) -> None:
    """Raise OptionError for numbers that make no sense."""
    if split is not None and folds is not None:
        raise OptionError("give --split or --folds, not both")
    if seeds is not None and not 1 <= seeds < _SEEDS_APART:
        raise OptionError(f"seeds is {seeds}; it must be at least 1 and under {_SEEDS_APART}")
    if not 0 < real_share <= 1:
        raise OptionError(f"real share is {real_share}; it must be over 0 and at most 1")


def _check_parts(snapshot: Snapshot, plan: Protocol) -> None:
    """Raise StoreError where a part is empty or the training part lacks a class."""
    if not len(snapshot.real.keys):
        raise StoreError(f"{snapshot.path} holds no images yet: augkit ingest FOLDER")
    if len(snapshot.classes) < 2:
        raise StoreError(f"{snapshot.path} holds one class only: there is nothing to classify")
    for partition in plan.partitions:
        parts = snapshot.parts(partition)
        for number, name in enumerate(("training", "validation", "test")):
            counts = snapshot.count_by_class(parts == number)
            absent = [c for c, n in counts.items() if not n]
            if number == 0 and absent:
                raise StoreError(
                    f"no {name} image of class {absent[0]!r} under {partition.name}: "
                    "its groups are too few; add images, or choose --split or --folds"
                )
            if not sum(counts.values()):
                raise StoreError(
                    f"the {name} part is empty under {partition.name}: the groups are too few; "
                    "add images, or choose --split or --folds"
                )
            if absent and number == 2:
                missing = ", ".join(absent)
                log.warning("note: %s has no %s image of %s", partition.name, name, missing)


@dataclass(frozen=True)
class _How:
    """How an evaluation is done."""

    protocol: Protocol
    primary: str
    positive: str | None
    balanced: bool
    """The control was asked for by name."""
    seeds: int
    real_share: float | None
    paper: bool
    full: bool
    device: str

    @property
    def kind(self) -> str:
        """Return the device without its number."""
        return self.device.partition(":")[0]


@dataclass(frozen=True)
class _Task:
    """One fit: an arm under a partition, with a seed."""

    number: int
    """Of the partition."""
    partition: Partition
    arm: str
    seed: int
    train: Samples
    n_real: int
    schedule: Schedule | None


@dataclass
class _Evaluation:
    """One evaluation on its way."""

    store: DatasetStore
    snapshot: Snapshot
    plugin: Plugin
    classifier: Classifier
    """With its options settled."""
    how: _How
    progress: Progress

    def __post_init__(self) -> None:
        self.results = Results(self.store.side_folder("results"))
        self.cache = FeatureCache(self.store.side_folder("cache"))
        self.provenance = self.classifier.provenance()
        self.parts = [self._parts(partition) for partition in self.plan.partitions]
        self.slow = False
        self.computed = 0

    def _parts(self, partition: Partition) -> tuple[StoredSamples, StoredSamples, StoredSamples]:
        """Return the real images of the training, validation and test part."""
        snapshot = self.snapshot
        return (
            snapshot.training(partition),
            snapshot.validation(partition),
            snapshot.test(partition),
        )

    def run(self, arms: Mapping[str, tuple[str, ...]]) -> Evaluation:
        missing = {name: obstacle(self.snapshot, runs, self.plan) for name, runs in arms.items()}
        there = {name: runs for name, runs in arms.items() if missing[name] is None}
        trains: dict[tuple[int, str], Samples] = {
            (number, name): training_samples(self.snapshot, partition, runs)
            for number, partition in enumerate(self.plan.partitions)
            for name, runs in there.items()
        }
        control_of = self._add_controls(trains)
        self.budget = self._budget(trains)
        fits: dict[str, list[Fit]] = {}
        tasks = self._tasks(trains, self.budget)
        for done, task in enumerate(tasks, 1):
            if done > 1 and task.number != tasks[done - 2].number:
                self.cache.forget_unstored()
            fits.setdefault(task.arm, []).append(self._fit(task))
            self.progress("fit", done, len(tasks))
        tested = Tested.under(self.plan, self.snapshot)
        measured = {name: measure(of_arm, tested) for name, of_arm in fits.items()}
        steps = {t.arm: t.schedule.steps for t in reversed(tasks) if t.schedule}  # of the first
        found = [
            Arm(name, arms[name], 0, {}, unavailable=missing[name])
            if name not in fits
            else Arm(
                name,
                arms.get(name, ()),
                len(trains[0, name]),
                estimates(measured[name], tested),
                steps.get(name),
                twin(name, arms) if name in arms else None,
                control=name not in arms,
                curves=curves(fits[name], tested),
            )
            for name in {**arms, **fits}
        ]
        if len(arms) > 1 and not any(arm.control for arm in found):
            of_real = replace(found[0], name=BALANCED, same_as=REAL, control=True)
            found.append(of_real)  # all arms have its class shares
        cases = [
            Case(
                arm.name,
                control_of[arm.name],
                measured[arm.name],
                measured[REAL],
                measured[control_of[arm.name]],
                tested,
                self._no_verdict(),
            )
            for arm in found
            if arm.name in control_of and arm.same_as is None
        ]
        return self._evaluation(tuple(found), tasks, cases)

    def _add_controls(self, trains: dict[tuple[int, str], Samples]) -> dict[str, str]:
        """Add the training parts of the controls; return the control of each augmented arm."""
        n = len(self.snapshot.classes)

        def counts(number: int, arm: str) -> np.ndarray:
            return np.bincount(trains[number, arm].labels, minlength=n)

        first = [arm for number, arm in trains if number == 0]
        shares = {arm: counts(0, arm) / len(trains[0, arm]) for arm in first}
        found = controls(shares)
        wanted = {control: model for control, model in found.values() if control != REAL}
        for number in range(len(self.plan.partitions)):
            real = self.parts[number][0]
            for control, model in wanted.items():
                trains[number, control] = repeated(real, counts(number, model))
            if self.how.balanced and not wanted:
                own = counts(number, REAL)
                trains[number, BALANCED] = repeated(real, np.full(n, own.max()))
        return {arm: control for arm, (control, _) in found.items()}

    def _no_verdict(self) -> str:
        """Return why this protocol allows no verdict; empty: it does."""
        if any(partition.scope.by_image for partition in self.plan.partitions):
            return "split by image, relatives of test images are trained on"
        return ""

    @property
    def plan(self) -> Protocol:
        return self.how.protocol

    # -- budget --------------------------------------------------------------------------------

    def _budget(self, trains: Mapping[tuple[int, str], Samples]) -> Budget:
        """Return what every arm gets: all that was asked for, or what fits into the time."""
        whole = Budget(self.how.seeds)
        tasks = self._tasks(trains, whole)
        left = self._not_done(tasks)
        if not left:
            return whole
        line = {"reduced": digest_of([self._identity(task) for task in tasks])}
        known = None if self.how.full else Budget.from_json(self.results.recall(line))
        if known is not None:
            self.slow = True  # or it would not have been reduced
            return known
        cost = self._cost(left[-1])
        if cost is None:
            return whole
        features = self._seconds_of_features(cost, left)
        works = list(self._works(tasks, left))
        total = seconds(works, cost) + features
        self.slow = seconds(works, cost) / len(left) > _SLOW
        self._announce(total, features, len(left))
        if not works or total <= LIMIT or self.how.full or self.how.kind != "cpu":
            return whole
        budget = cut_to_fit(works, cost, features=features)
        if budget.reduced:
            log.warning(
                "REDUCED to fit into %s: %s, for all arms alike; --full does all",
                in_words(LIMIT),
                budget.reduced,
            )
            self.results.remember(line, asdict(budget))
        return budget

    def _announce(self, total: float, features: float, n_fits: int) -> None:
        """Say how long it will take, where it takes long enough for anybody to care."""
        if total < _WORTH_SAYING:
            return
        alone = f", {in_words(features)} of it to compute features" if features >= 1 else ""
        log.info(
            "about %s for %s, by measured steps%s", in_words(total), counted(n_fits, "fit"), alone
        )

    def _not_done(self, tasks: Sequence[_Task]) -> list[_Task]:
        """Return the fits that are to be computed; one that two arms share counts once."""
        identities = [self._identity(task) for task in tasks]
        distinct = {digest_of(i): (t, i) for t, i in zip(tasks, identities, strict=True)}
        return [task for task, name in distinct.values() if self.results.read(name) is None]

    def _tasks(self, trains: Mapping[tuple[int, str], Samples], budget: Budget) -> list[_Task]:
        """Return the fits in the order in which they are done."""
        made = []
        for number, partition in enumerate(self.plan.partitions):
            here = {arm: train for (k, arm), train in trains.items() if k == number}
            n_real = len(self.parts[number][0])
            largest = max([n_real, *map(len, here.values())])
            for arm, train in here.items():
                schedule = self._schedule(n_real, largest, len(train))
                if schedule is not None:
                    schedule = part_of(schedule, budget.share)
                made += [
                    _Task(number, partition, arm, seed, train, n_real, schedule)
                    for seed in range(budget.seeds)
                ]
        return made

    def _schedule(self, n_real: int, largest: int, own: int) -> Schedule | None:
        """Return what all arms share; the paper lets each arm pass equally often over its own."""
        if self.how.paper:
            return self.classifier.schedule(own, own, equal_epochs=True)
        return self.classifier.schedule(n_real, largest)

    def _works(self, tasks: Sequence[_Task], left: Sequence[_Task]) -> Iterator[Work]:
        """Yield what is left for each distinct arm under each partition."""
        seeds: dict[tuple[int, str], list[int]] = {}
        for task in left:
            seeds.setdefault((task.number, task.train.digest), []).append(task.seed)
        distinct = {(task.number, task.train.digest): task for task in tasks}
        for key, task in distinct.items():
            if task.schedule is None:
                continue
            _, validation, test = self.parts[task.number]
            open_ = tuple(seed in seeds.get(key, ()) for seed in range(self.how.seeds))
            yield Work(open_, len(validation), len(test), task.schedule)

    def _cost(self, task: _Task) -> Cost | None:
        return call(self.classifier, "cost", task.train, self._context(task))

    def _seconds_of_features(self, cost: Cost, left: Sequence[_Task]) -> float:
        """Return how long the features take that are not known yet, each image counted once."""
        pieces: dict[str, Samples] = {}
        for task in left:
            for samples in (task.train, *self.parts[task.number][1:]):
                for piece in getattr(samples, "pieces", (samples,)):
                    pieces[piece.digest] = piece
        asked = JoinedSamples([*pieces.values()])
        return sum(
            each * self.cache.missing(self._named(key), asked)
            for key, each in cost.features.items()
        )

    # -- fits ----------------------------------------------------------------------------------

    def _fit(self, task: _Task) -> Fit:
        identity = self._identity(task)
        found = self.results.read(identity)
        if found is None:
            found = self._compute(task)
            self.results.write(identity, found)
            self.computed += 1
        return Fit(task.number, task.seed, found)

    def _identity(self, task: _Task) -> dict[str, Any]:
        """Return everything that decides the outcome of a fit."""
        _, validation, test = self.parts[task.number]
        identity = {
            "classifier": self.plugin.name,
            "distribution": self.plugin.distribution,
            "version": self.plugin.version,
            "options": self._what_counts(),
            "classes": list(self.snapshot.classes),
            "train": task.train.digest,
            "labels": hashlib.sha256(task.train.labels.tobytes()).hexdigest(),
            "validation": validation.digest,
            "test": test.digest,
            "seed": task.seed,
            "balance": not self.how.paper,
        }
        if self.classifier.uses_device:
            identity["device"] = self.how.kind
        if task.schedule is not None:
            identity |= {
                "steps": task.schedule.steps,
                "looks": task.schedule.looks,
                "n_real": task.n_real,
                "real_share": self.how.real_share if task.n_real < len(task.train) else None,
            }
        return identity

    def _what_counts(self) -> dict[str, Any]:
        """Return the options that decide an outcome; weights by their content, not their place."""
        counts = option_tools.values(self.classifier) | self.provenance
        if "sha256" in counts:
            del counts["weights"]
        return counts

    def _context(self, task: _Task) -> Context:
        schedule = task.schedule
        return Context(
            seed=_SEEDS_APART * task.number + task.seed,
            classes=self.snapshot.classes,
            device=self.how.device,
            max_steps=schedule.steps if schedule else None,
            looks=schedule.looks if schedule else None,
            n_real=task.n_real,
            real_share=self.how.real_share,
            balance=not self.how.paper,
            progress=self.progress if self.slow else silent,
            cached=self._cached,
        )

    def _named(self, key: str) -> str:
        """Return the key of features with the package, and its version, that computes them."""
        return f"{self.plugin.distribution} {self.plugin.version} {key}"

    def _cached(self, key: str, function: Extractor, samples: Samples) -> np.ndarray:
        """Return features from the cache; says how far it has come where there are many to do."""
        key = self._named(key)
        total = self.cache.missing(key, samples)
        if total < _MANY_FEATURES:
            return self.cache(key, function, samples)
        done = 0

        def watched(images: np.ndarray) -> np.ndarray:
            nonlocal done
            found = function(images)
            done += len(images)
            self.progress("features", min(done, total), total)
            return found

        return self.cache(key, watched, samples)

    def _compute(self, task: _Task) -> np.ndarray:
        """Fit a fresh classifier and return float32 (N, classes) for the test images."""
        require_training(task.train)
        _, validation, test = self.parts[task.number]
        classifier = self.plugin.build(option_tools.values(self.classifier))
        where = f"arm {task.arm!r}, {task.partition.name}, seed {task.seed}"
        context = self._context(task)

        try:
            classifier.fit(task.train, validation, context)
            found = classifier.predict_proba(test)
        except TrainingFailed as error:
            raise TrainingFailed(f"{self.plugin.name} on {where}: {error}") from error
        except AugkitError:
            raise
        except Exception as error:
            raise PluginFailed(
                f"classifier {self.plugin.name!r} failed on {where}: "
                f"{type(error).__name__}: {error}"
            ) from error
        return _checked(found, (len(test), len(self.snapshot.classes)), self.plugin.name)

    # -- what was found ------------------------------------------------------------------------

    def _evaluation(
        self, arms: tuple[Arm, ...], tasks: Sequence[_Task], cases: Sequence[Case]
    ) -> Evaluation:
        longest = max((t.schedule for t in tasks if t.schedule), default=None)
        tested = Tested.under(self.plan, self.snapshot)
        comparisons, verdicts = judge(cases, self.how.primary)
        return Evaluation(
            store=str(self.store.path),
            classifier=self.plugin.name,
            options=option_tools.values(self.classifier),
            protocol=self.plan.name + (", equal epochs as in the paper" if self.how.paper else ""),
            seeds=self.budget.seeds,
            classes=self.snapshot.classes,
            test_images=len(tested.labels),
            test_groups=len(np.unique(tested.groups)),
            arms=arms,
            primary=self.how.primary,
            positive=self.how.positive,
            comparisons=tuple(comparisons),
            verdicts=tuple(verdicts),
            warnings=self._warnings(),
            fits=len(tasks),
            computed=self.computed,
            superseded=superseded(self.snapshot),
            notes=self._notes(arms),
            device=self.how.device,
            steps=longest.steps if longest else None,
            looks=longest.looks if longest else None,
            weights=self.provenance.get("weights"),
            reduced=self.budget.reduced,
            caveat=self.classifier.caveat(),
        )

    def _warnings(self) -> tuple[str, ...]:
        """Return what is weak about this protocol, for everybody who reads the numbers."""
        found = []
        if any(partition.scope.by_image for partition in self.plan.partitions):
            found.append(
                "LEAKY: split by image. Images of one patient or sequence are trained and tested "
                "on; these numbers flatter, and no verdict follows from them"
            )
        if self.how.paper:
            found.append(
                "the protocol of the paper: one small test part, longer training for larger arms, "
                "no class weights. A difference may be due to any of these"
            )
        return tuple(found)

    def _notes(self, arms: tuple[Arm, ...]) -> dict[str, str]:
        """Return what the models say of the runs that these arms use."""
        used = {run for arm in arms if arm.metrics for run in arm.runs}
        notes = {}
        for run in (self.snapshot.run(name) for name in sorted(used)):
            note = self.snapshot.model(run.model).note if run.model else ""
            if note:
                notes[run.name] = note
        return notes


def _checked(found: Any, shape: tuple[int, int], name: str) -> np.ndarray:
    """Return probabilities as float32. Raises PluginFailed where they are none."""
    if not isinstance(found, np.ndarray) or found.shape != shape:
        got = getattr(found, "shape", type(found).__name__)
        raise PluginFailed(f"classifier {name!r}: predict_proba() returned {got}, not {shape}")
    total = found.sum(axis=1, dtype=np.float64)
    if not np.isfinite(found).all() or (found < 0).any() or (abs(total - 1) > 1e-4).any():
        raise PluginFailed(
            f"classifier {name!r}: predict_proba() returned rows that are no probabilities"
        )
    return found.astype(np.float32)
