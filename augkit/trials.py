"""Trials: one classifier with all its arms, fit by fit.

An arm is a way to fill the training part: `real` images only, with the rows of runs added, or real
images repeated as the control of another arm (`arms`). Validation and test parts are real images,
always. Each fit is a task named by a hash of all that decides its outcome; its probabilities are
written once, atomically, and never computed twice.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from math import isfinite
from typing import Any

import numpy as np

from augkit import options as option_tools
from augkit.arms import (
    BALANCED,
    REAL,
    controls,
    obstacle,
    repeated,
    superseded,
    training_samples,
    twin,
)
from augkit.budgeting import LIMIT, Budget, Work, cut_to_fit, in_words, part_of, seconds
from augkit.errors import AugkitError, PluginFailed, TrainingFailed, cause
from augkit.features import FeatureCache
from augkit.given import GivenSplit
from augkit.interfaces import (
    Classifier,
    Context,
    Cost,
    Extractor,
    Look,
    Progress,
    Samples,
    Schedule,
    silent,
)
from augkit.outcome import HEADLINE, Arm, Evaluation
from augkit.partitions import Partition, Protocol
from augkit.plans import call
from augkit.registry import Plugin
from augkit.results import Result, Results, are_probabilities
from augkit.scoring import Estimate as Scored
from augkit.scoring import Fit, Measured, Tested, curves, estimates, measure, within
from augkit.store import DatasetStore, Snapshot
from augkit.store.format import digest_of
from augkit.store.reading import require_training
from augkit.store.samples import JoinedSamples, StoredSamples
from augkit.tables import counted
from augkit.verdicts import Case, Comparison, Verdict

log = logging.getLogger("augkit")

SEEDS_APART = 1000
"""Fits under different partitions have different seeds: their randomness is not the same."""
_SLOW = 5.0
"""Seconds of a fit from which on its progress is shown."""
_WORTH_SAYING = 20.0
"""Seconds from which on an estimate is printed."""
_MANY_FEATURES = 300
_ONE_SITE = 0.95
"""The share of a class in one data set from which on the class tells the data set."""


@dataclass(frozen=True)
class How:
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
class Task:
    """One fit: an arm under a partition, with a seed."""

    number: int
    """Of the partition."""
    partition: Partition
    arm: str
    seed: int
    train: Samples
    n_real: int
    schedule: Schedule | None


@dataclass(frozen=True)
class Estimated:
    """How long it takes to do what is left."""

    seconds: float
    features: float
    """Of these seconds, those that computing features takes."""
    fits: int
    works: Sequence[Work]
    cost: Cost


@dataclass
class Trial:
    """One classifier with all its arms, on the images of one scope."""

    store: DatasetStore
    snapshot: Snapshot
    plugin: Plugin
    classifier: Classifier
    """With its options settled."""
    how: How
    arms: Mapping[str, tuple[str, ...]]
    """Arm -> runs."""
    progress: Progress = silent
    failed: dict[str, str] = field(default_factory=dict)
    """Arms that could not be fitted, each with the cause."""

    def __post_init__(self) -> None:
        guard = self.store.standing(self.snapshot).held
        self.results = Results(self.store.side_folder("results"), guard)
        self.cache = FeatureCache(self.store.side_folder("cache"), guard=guard)
        self.provenance = _told(self.classifier, "provenance", _is_provenance)
        self.parts = [self._parts(partition) for partition in self.plan.partitions]
        self._found: dict[str, Result] = {}
        self.slow = False
        self.computed = 0
        self.missing = self._missing()
        self.trains: dict[tuple[int, str], Samples] = {
            (number, name): training_samples(self.snapshot, partition, runs)
            for number, partition in enumerate(self.plan.partitions)
            for name, runs in self.arms.items()
            if name not in self.missing
        }
        self.control_of = self._add_controls(self.trains)
        self.budget = self._budget(self.trains)
        self.tasks = self._tasks(self.trains, self.budget)

    def _missing(self) -> dict[str, str]:
        """Return the arms that cannot be had under this protocol, each with the reason."""
        found = {name: obstacle(self.snapshot, runs, self.plan) for name, runs in self.arms.items()}
        return {name: why for name, why in found.items() if why is not None}

    def _parts(self, partition: Partition) -> tuple[StoredSamples, StoredSamples, StoredSamples]:
        """Return the real images of the training, validation and test part."""
        snapshot = self.snapshot
        return (
            snapshot.training(partition),
            snapshot.validation(partition),
            snapshot.test(partition),
        )

    def fit_all(self) -> None:
        """Do every fit that is not there yet."""
        if self._unlimited:
            self._announce(self.estimate())
        begun: list[Task] = []
        for done, task in enumerate(self.tasks, 1):
            if done > 1 and task.number != self.tasks[done - 2].number:
                self.cache.forget_unstored()
            before = self.computed
            self.fit(task)
            begun += [task] if self.computed > before else []
            self.progress("fit", done, len(self.tasks))
        self._require_no_memory(begun)

    def _require_no_memory(self, begun: Sequence[Task]) -> None:
        """Do the first of these fits again: what the others have seen since must not show.

        Some trained on the images that it tests. Raises PluginFailed, and keeps none of the fits.
        """
        several = len({task.number for task in begun}) > 1
        if not several or (self.classifier.uses_device and self.how.kind != "cpu"):
            return
        first = self.fit(begun[0]).probabilities
        if np.allclose(first, self._compute(begun[0]).probabilities, rtol=0, atol=1e-3):
            return
        for task in begun:
            self.results.forget(self._identity(task))
        raise PluginFailed(
            f"classifier {self.plugin.name!r} predicts otherwise when its first fit is done again "
            "after the others: it remembers other folds, or draws without the seed. None of these "
            "fits was kept; what it learns belongs into the instance alone"
        )

    def fit(self, task: Task) -> Fit:
        """Return the outcome of one fit, from the results if it is there already."""
        identity = self._identity(task)
        name = digest_of(identity)
        found = self._known(task, name, identity)
        if found is None:
            found = self._found[name] = self._compute(task)
            self.results.write(identity, found)
            self.computed += 1
        return Fit(task.number, task.seed, found.probabilities, found.looks)

    def _known(self, task: Task, name: str, identity: dict[str, Any]) -> Result | None:
        """Return the outcome of a fit, if it is there; a result is read once."""
        if name not in self._found:
            found = self.results.read(identity)
            if found is None or found.probabilities.shape != self._shape_of(task):
                return None
            self._found[name] = found
        return self._found[name]

    def _shape_of(self, task: Task) -> tuple[int, int]:
        """Return how many test images and classes a fit gives probabilities for."""
        return len(self.parts[task.number][2]), len(self.snapshot.classes)

    def name_of(self, task: Task) -> str:
        """Return what names a fit; two of the same name have the same outcome."""
        return digest_of(self._identity(task))

    def is_done(self, task: Task) -> bool:
        """Return True if the outcome of a fit is there already."""
        identity = self._identity(task)
        return self._known(task, digest_of(identity), identity) is not None

    # -- outcome -------------------------------------------------------------------------------

    @cached_property
    def tested(self) -> Tested:
        """Return what this protocol tests."""
        return Tested.under(self.plan, self.snapshot)

    @cached_property
    def fits(self) -> dict[str, list[Fit]]:
        """Return the outcomes by arm, of the arms whose fits are all there."""
        found: dict[str, list[Fit]] = {}
        for task in self.tasks:
            if task.arm not in self.failed:
                found.setdefault(task.arm, []).append(self.fit(task))
        return found

    @cached_property
    def measured(self) -> dict[str, dict[str, Measured]]:
        """Return each metric of each arm."""
        return {name: measure(fits, self.tested) for name, fits in self.fits.items()}

    def cases(self) -> list[Case]:
        """Return the augmented arms with what each is held against."""
        return [
            Case(
                arm,
                control,
                self.measured[arm],
                self.measured[REAL],
                self.measured[control],
                self.tested,
                len(self.plan.partitions) == 1,
                self._no_verdict(),
            )
            for arm, control in self.control_of.items()
            if {arm, control, REAL} <= set(self.measured) and twin(arm, self.arms) is None
        ]

    def outcome(self, judged: Sequence[tuple[Sequence[Comparison], Verdict]]) -> Evaluation:
        """Return what was found. judged: what `judge` says of the cases, in their order."""
        comparisons = [comparison for found, _ in judged for comparison in found]
        verdicts = [verdict for _, verdict in judged]
        verdicts += [
            Verdict(arm, None, f"no verdict on {arm}: its control {control} failed")
            for arm, control in self.control_of.items()
            if arm in self.measured and control in self.failed and control != REAL
        ]
        longest = max((t.schedule for t in self.tasks if t.schedule), default=None)
        arms = tuple(self._arms())
        return Evaluation(
            store=str(self.store.path),
            classifier=self.plugin.name,
            options=option_tools.values(self.classifier),
            protocol=self.plan.name + (", equal epochs as in the paper" if self.how.paper else ""),
            seeds=self.budget.seeds,
            classes=self.snapshot.classes,
            test_images=len(self.tested.labels),
            test_groups=len(np.unique(self.tested.groups)),
            arms=arms,
            primary=self.how.primary,
            positive=self.how.positive,
            comparisons=tuple(comparisons),
            verdicts=tuple(verdicts),
            warnings=self._warnings(),
            fits=len(self.tasks),
            computed=self.computed,
            superseded=superseded(self.snapshot),
            notes=self._notes(arms),
            device=self.how.device,
            steps=longest.steps if longest else None,
            looks=longest.looks if longest else None,
            weights=self.provenance.get("weights"),
            reduced=self.budget.reduced,
            caveat=caveat(self.classifier),
        )

    def _arms(self) -> list[Arm]:
        """Return all arms, `real` first."""
        found = []
        # Of the first partition:
        steps = {t.arm: t.schedule.steps for t in reversed(self.tasks) if t.schedule}
        for name in {**self.arms, **dict.fromkeys(self.control_of.values()), **self.fits}:
            runs = self.arms.get(name, ())
            if name not in self.fits:
                why = self.missing.get(name) or self.failed.get(name)
                found.append(Arm(name, runs, 0, {}, unavailable=why, control=name not in self.arms))
                continue
            metrics = estimates(self.measured[name], self.tested)
            found.append(
                Arm(
                    name,
                    runs,
                    len(self.trains[0, name]),
                    metrics,
                    steps.get(name),
                    twin(name, self.arms) if name in self.arms else None,
                    control=name not in self.arms,
                    over_fitting=self.how.paper
                    and metrics["accuracy"].value <= self._guessing + 1e-9,
                    curves=curves(self.fits[name], self.tested),
                    by_dataset=self._by_dataset(name),
                )
            )
        own = any(control != REAL for control in self.control_of.values())
        if len(self.arms) > 1 and REAL in self.fits and not own and BALANCED not in self.fits:
            # All arms have the class shares of real.
            found.append(replace(found[0], name=BALANCED, same_as=REAL, control=True))
        return found

    @cached_property
    def _guessing(self) -> float:
        """Return the accuracy of always naming the most frequent class of the test images."""
        return float(np.bincount(self.tested.labels).max() / len(self.tested.labels))

    @cached_property
    def _datasets(self) -> np.ndarray:
        """Return str (N,), the data set of each tested image."""
        parts = [self.snapshot.parts(partition) == 2 for partition in self.plan.partitions]
        return self.snapshot.real.datasets[np.any(parts, axis=0)]

    def _by_dataset(self, arm: str) -> dict[str, dict[str, Scored]]:
        """Return the headline metrics of an arm for each data set; empty where there is but one."""
        names = np.unique(self._datasets).tolist()
        if len(names) < 2:
            return {}
        found = {n: within(self.fits[arm], self.tested, self._datasets == n) for n in names}
        return {n: {m: each[m] for m in HEADLINE} for n, each in found.items()}

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
        """Return the partitions."""
        return self.how.protocol

    # -- budget --------------------------------------------------------------------------------

    def _budget(self, trains: Mapping[tuple[int, str], Samples]) -> Budget:
        """Return what every arm gets: all that was asked for, or what fits into the time."""
        whole = Budget(self.how.seeds)
        if self._unlimited:
            return whole
        tasks = self._tasks(trains, whole)
        line = {"reduced": digest_of([self._identity(task) for task in tasks])}
        known = Budget.from_json(self.results.recall(line))
        if known is not None and self._not_done(tasks):
            self.slow = True  # or it would not have been reduced
            return known
        estimate = self._estimate(tasks)
        self._announce(estimate)
        if estimate is None or not estimate.works or estimate.seconds <= LIMIT:
            return whole
        budget = cut_to_fit(estimate.works, estimate.cost, features=estimate.features)
        if budget.reduced:
            log.warning(
                "REDUCED to fit into %s: %s, for all arms alike; --full does all",
                in_words(LIMIT),
                budget.reduced,
            )
            self.results.remember(line, asdict(budget))
        return budget

    def estimate(self) -> Estimated | None:
        """Return how long the fits take that are not there yet, by measured steps; None: seconds.

        None too where nothing is left to do.
        """
        return self._estimate(self.tasks)

    def _estimate(self, tasks: Sequence[Task]) -> Estimated | None:
        left = self._not_done(tasks)
        cost = self._cost(left[-1]) if left else None
        if cost is None:
            return None
        works = list(self._works(tasks, left))
        features, fits = self._seconds_of_features(cost, left), seconds(works, cost)
        self.slow = fits / len(left) > _SLOW
        return Estimated(fits + features, features, len(left), works, cost)

    def _announce(self, found: Estimated | None) -> None:
        """Say how long it will take, where it takes long enough for anybody to care."""
        if found is None or found.seconds < _WORTH_SAYING:
            return
        features = in_words(found.features)
        alone = f", {features} of it to compute features" if found.features >= 1 else ""
        log.info(
            "about %s for %s, by measured steps%s",
            in_words(found.seconds),
            counted(found.fits, "fit"),
            alone,
        )

    def _not_done(self, tasks: Sequence[Task]) -> list[Task]:
        """Return the fits that are to be computed; one that two arms share counts once."""
        identities = [self._identity(task) for task in tasks]
        distinct = {digest_of(i): (t, i) for t, i in zip(tasks, identities, strict=True)}
        return [t for name, (t, i) in distinct.items() if self._known(t, name, i) is None]

    @property
    def _unlimited(self) -> bool:
        """Return True if nothing is cut, however long it takes."""
        return self.how.full or self.how.kind != "cpu"

    def _tasks(self, trains: Mapping[tuple[int, str], Samples], budget: Budget) -> list[Task]:
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
                    Task(number, partition, arm, seed, train, n_real, schedule)
                    for seed in range(budget.seeds)
                ]
        return made

    def _schedule(self, n_real: int, largest: int, own: int) -> Schedule | None:
        """Return what all arms share; the paper lets each arm pass equally often over its own."""
        asked = partial(_told, self.classifier, "schedule", _is_schedule)
        return asked(own, own, equal_epochs=True) if self.how.paper else asked(n_real, largest)

    def _works(self, tasks: Sequence[Task], left: Sequence[Task]) -> Iterator[Work]:
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

    def _cost(self, task: Task) -> Cost | None:
        return _told(self.classifier, "cost", _is_cost, task.train, self._context(task))

    def _seconds_of_features(self, cost: Cost, left: Sequence[Task]) -> float:
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

    def _identity(self, task: Task) -> dict[str, Any]:
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
            "seed": 0 if self.classifier.deterministic else self._seed(task),
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
            counts.pop("weights", None)
        return counts

    def _context(self, task: Task) -> Context:
        schedule = task.schedule
        return Context(
            seed=self._seed(task),
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

    def _seed(self, task: Task) -> int:
        return SEEDS_APART * task.number + task.seed

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

    def _compute(self, task: Task) -> Result:
        """Fit a fresh classifier and let it look at the test images."""
        require_training(task.train)
        _, validation, test = self.parts[task.number]
        classifier = self.plugin.build(option_tools.values(self.classifier))
        where = f"arm {task.arm!r}, {task.partition.name}, seed {task.seed}"
        context = self._context(task)

        try:
            classifier.fit(task.train, validation, context)
            found = classifier.predict_proba(test)
            looks = _checked_looks(classifier.history(), self.plugin.name)
        except TrainingFailed as error:
            raise TrainingFailed(f"{self.plugin.name} on {where}: {error}") from error
        except (AugkitError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise PluginFailed(
                f"classifier {self.plugin.name!r} failed on {where}: {cause(error)}"
            ) from error
        return Result(_checked(found, self._shape_of(task), self.plugin.name), looks)

    def _warnings(self) -> tuple[str, ...]:
        """Return what is weak about this protocol, for everybody who reads the numbers."""
        found = [self._tells_the_site(label) for label in range(len(self.snapshot.classes))]
        if any(partition.scope.by_image for partition in self.plan.partitions):
            found.append(
                "LEAKY: split by image. Images of one patient or sequence are trained and tested "
                "on; these numbers flatter, and no verdict follows from them"
            )
        found += self._of_the_given_split()
        if len(self.plan.partitions) == 1:
            found.append(
                "one split: what is particular to its training images shows in no interval, and a "
                "verdict is about these; --folds 5 or --repeats 5 sees more of it"
            )
        if self.how.paper:
            found.append(
                "the protocol of the paper: one small test part, longer training for larger arms, "
                "no class weights. A difference may be due to any of these"
            )
        return tuple(filter(None, found))

    def _of_the_given_split(self) -> list[str]:
        given = [p.scope for p in self.plan.partitions if p.given]
        return [said for s in given for said in GivenSplit.of(self.snapshot, s).sentences()]

    def _tells_the_site(self, label: int) -> str:
        """Return a warning where a class comes almost only from one of several data sets."""
        real = self.snapshot.real
        used = self.snapshot.parts(self.plan.partitions[0]) >= 0
        names, index = np.unique(real.datasets[used], return_inverse=True)
        shares = np.bincount(index, real.labels[used] == label, len(names))
        if len(names) < 2 or not shares.sum() or shares.max() < _ONE_SITE * shares.sum():
            return ""
        name, site = self.snapshot.classes[label], names[shares.argmax()]
        return (
            f"{name} comes almost only from {site}: a classifier that tells the data sets apart "
            f"scores well on it without telling {name}"
        )

    def _notes(self, arms: tuple[Arm, ...]) -> dict[str, str]:
        """Return what the models say of the runs that these arms use."""
        used = {run for arm in arms if arm.metrics for run in arm.runs}
        notes = {}
        for run in (self.snapshot.run(name) for name in sorted(used)):
            note = self.snapshot.model(run.model).note if run.model else ""
            if note:
                notes[run.name] = note
        return notes


def caveat(classifier: Classifier) -> str:
    """Return what everybody who reads the numbers must know; empty: nothing."""
    return str(_told(classifier, "caveat", lambda said: isinstance(said, str)))


def _told(
    classifier: Classifier,
    method: str,
    fits: Callable[[Any], bool],
    *arguments: Any,
    **named: Any,
) -> Any:
    """Return what a classifier says of itself. Raises PluginFailed where that is something else."""
    found = call(classifier, method, *arguments, **named)
    if not fits(found):
        raise PluginFailed(
            f"classifier {classifier.name!r}: {method}() returned {found!r:.80}, which the "
            "contract does not know"
        )
    return found


def _is_provenance(said: Any) -> bool:
    return isinstance(said, dict) and all(
        isinstance(k, str) and isinstance(v, str) for k, v in said.items()
    )


def _is_schedule(said: Any) -> bool:
    if said is None:
        return True
    counts = [said.steps, said.looks] if isinstance(said, Schedule) else []
    return bool(counts) and all(isinstance(n, int) and n > 0 for n in counts)


def _is_cost(said: Any) -> bool:
    """Return True for None, or for seconds that can be counted with."""
    if not isinstance(said, Cost):
        return said is None
    parts = [said.setup, said.step, said.look, said.image, *said.features.values()]
    return all(isinstance(n, int | float) and isfinite(n) and n >= 0 for n in parts)


def _checked(found: Any, shape: tuple[int, int], name: str) -> np.ndarray:
    """Return probabilities as float32. Raises PluginFailed where they are none."""
    if not isinstance(found, np.ndarray) or found.shape != shape:
        got = getattr(found, "shape", type(found).__name__)
        raise PluginFailed(f"classifier {name!r}: predict_proba() returned {got}, not {shape}")
    if found.dtype.kind not in "fiub":
        raise PluginFailed(
            f"classifier {name!r}: predict_proba() returned {found.dtype}, not probabilities"
        )
    if not are_probabilities(found):
        raise PluginFailed(
            f"classifier {name!r}: predict_proba() returned rows that are no probabilities"
        )
    return np.array(found, np.float32)


def _checked_looks(found: Any, name: str) -> tuple[Look, ...]:
    """Return the looks whose losses are numbers. Raises PluginFailed where they are no looks."""
    looks = tuple(found)
    if not all(isinstance(look, Look) for look in looks):
        raise PluginFailed(f"classifier {name!r}: history() returned something else than looks")
    plain = [Look(int(k.step), float(k.train_loss), float(k.validation_loss)) for k in looks]
    return tuple(k for k in plain if isfinite(k.train_loss) and isfinite(k.validation_loss))
