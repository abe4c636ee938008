"""The verb `evaluate`: one classifier, several arms, the same partitions and seeds for all.

An arm is a way to fill the training part: `real` images only, or with the rows of runs added.
Validation and test parts are real images, always. Each fit is a task named by a hash of all that
decides its outcome; its probabilities are written once, atomically, and never computed twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from augkit import options as option_tools
from augkit.errors import AugkitError, OptionError, PluginFailed, StoreError
from augkit.features import FeatureCache
from augkit.interfaces import Classifier, Context, Progress, Samples, silent
from augkit.making import make
from augkit.metrics import Score, score
from augkit.partitions import Partition, Protocol, protocol
from augkit.registry import Plugin, registry
from augkit.results import Results
from augkit.stats import effective_groups, interval, mean_of_fits, standard_error
from augkit.store import DatasetStore, Run, Snapshot
from augkit.store.format import digest_of
from augkit.store.locate import open_store
from augkit.store.reading import require_training
from augkit.store.samples import JoinedSamples, StoredSamples
from augkit.tables import table

log = logging.getLogger("augkit")

N_SEEDS = 5
_BOUNDS = {"mcc": (-1.0, 1.0)}
HEADLINE = ("accuracy", "balanced_accuracy", "auroc")


@dataclass(frozen=True)
class Estimate:
    """A metric of an arm with its 95 % interval, which covers test groups and fits."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "cannot be computed"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Arm:
    """One way to fill the training part, and how well the classifier then did."""

    name: str
    runs: tuple[str, ...]
    rows: int
    """Training rows in the first partition."""
    metrics: dict[str, Estimate]
    same_as: str | None = None
    """Another arm of exactly the same rows."""
    unavailable: str | None = None
    """Why this arm has no numbers under this protocol."""


@dataclass(frozen=True)
class Evaluation:
    """The outcome of `evaluate`."""

    store: str
    classifier: str
    options: dict[str, Any]
    protocol: str
    seeds: int
    classes: tuple[str, ...]
    test_images: int
    test_groups: int
    arms: tuple[Arm, ...]
    fits: int
    computed: int
    """Fits that this call computed; the others were there already."""
    superseded: dict[str, str]
    """Runs that arms of several runs leave out, each with the newer one that replaces it."""
    notes: dict[str, str]
    """What to know of runs: prototypes, models that have not learned their classes."""
    weights: str | None = None
    reduced: str | None = None

    def to_json(self) -> str:
        """Return the keys of --json; see docs/json.md."""
        return json.dumps(_finite({**asdict(self), "comparisons": []}))

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row for each arm and metric (needs pandas)."""
        import pandas as pd

        rows = [
            {"arm": arm.name, "rows": arm.rows, "metric": name, **asdict(estimate)}
            for arm in self.arms
            for name, estimate in arm.metrics.items()
        ]
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        head = (
            f"{self.classifier} on {self.store}: {self.protocol}, "
            f"{self.seeds} {'seed' if self.seeds == 1 else 'seeds'}, "
            f"{self.test_images} real test images in {self.test_groups} groups"
        )
        lines = [head, "", self._table(HEADLINE), "", self._by_class(), "", _CAPTION]
        lines += [f"note: {a.name} is the same as {a.same_as}" for a in self.arms if a.same_as]
        lines += [f"note: {a.name}: {a.unavailable}" for a in self.arms if a.unavailable]
        lines += [
            f"note: run {old!r} is left out: {new!r} is the same recipe on the images, or by the "
            "model, of today"
            for old, new in self.superseded.items()
        ]
        lines += [f"note: run {run!r}: {note}" for run, note in self.notes.items()]
        return "\n".join(lines)

    def _distinct(self) -> list[Arm]:
        return [arm for arm in self.arms if arm.metrics and arm.same_as is None]

    def _table(self, names: Sequence[str]) -> str:
        rows = [[a.name, a.rows, *(a.metrics[n] for n in names)] for a in self._distinct()]
        return table(["arm", "training images", *(n.replace("_", " ") for n in names)], rows)

    def _by_class(self) -> str:
        rows = []
        for arm in self._distinct():
            for name in self.classes:
                found = [arm.metrics[f"{m}:{name}"] for m in ("sensitivity", "specificity")]
                rows.append([arm.name, name, *found])
        return table(["arm", "class", "sensitivity", "specificity"], rows)


_CAPTION = (
    "In brackets: 95 % intervals over test groups and fits. Whether the intervals of two arms "
    "overlap says\nlittle of their difference, for the arms share their test images. "
    "No verdict is given."
)


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
    progress: Progress = silent,
) -> Evaluation:
    """Return how well a classifier does with each arm, on real images that it never saw.

    arms: names among real, traditional, all, generative plugins and runs; by default real, each
    family, all. split: "70/15/15"; folds: 5; neither: five folds for a classifier that takes
    seconds, else 70/15/15. repeats: deal the folds anew so often. seeds: fits on each partition
    (default 5; 1 for a classifier without randomness). An interrupted call continues.
    """
    if split is not None and folds is not None:
        raise OptionError("give --split or --folds, not both")
    if seeds is not None and seeds < 1:
        raise OptionError(f"seeds is {seeds}; it must be at least 1")
    opened = open_store(store)
    plugin = registry().find(classifier, "classifier")
    built = plugin.build(options)
    if split is None and folds is None and built.fast:
        folds = 5
    plan = protocol(split, folds, repeats)
    n_seeds = 1 if built.deterministic else seeds or N_SEEDS
    snapshot = opened.snapshot()
    _check_parts(snapshot, plan)
    work = _Evaluation(opened, snapshot, plugin, built, plan, n_seeds, progress)
    return work.run(_choose_arms(snapshot, arms))


def _choose_arms(snapshot: Snapshot, wanted: Sequence[str] | None) -> dict[str, tuple[str, ...]]:
    """Return arm -> runs. Raises OptionError for an arm that does not exist."""
    known = _known_arms(snapshot)
    if wanted is None:
        families = [name for name in known if name not in snapshot.runs or name in _own(snapshot)]
        return {name: known[name] for name in families}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise OptionError(f"there is no arm {unknown[0]!r}; there are: {', '.join(known)}")
    return {name: known[name] for name in wanted}


def _own(snapshot: Snapshot) -> set[str]:
    """Return the generative plugins, each of which is an arm of its own."""
    return {r.plugin for r in snapshot.runs.values() if r.family == "generative"}


def _known_arms(snapshot: Snapshot) -> dict[str, tuple[str, ...]]:
    left_out = superseded(snapshot)
    runs = [run for run in snapshot.runs.values() if run.name not in left_out]
    arms: dict[str, tuple[str, ...]] = {"real": ()}
    traditional = tuple(r.name for r in runs if r.family == "traditional")
    if traditional:
        arms["traditional"] = traditional
    for plugin in sorted(_own(snapshot)):
        arms[plugin] = tuple(r.name for r in runs if r.plugin == plugin)
    if runs:
        arms["all"] = tuple(r.name for r in runs)
    for name in snapshot.runs:
        arms.setdefault(name, (name,))
    return arms


def superseded(snapshot: Snapshot) -> dict[str, str]:
    """Return the runs that a newer run of the same recipe replaces, each with the newer one.

    The same line after a later ingest makes such a run; an arm of several runs takes the newest,
    since both would give the same images.
    """
    newest: dict[str, str] = {}
    for run in snapshot.runs.values():
        newest[_same_images(run)] = run.name
    return {
        run.name: newest[_same_images(run)]
        for run in snapshot.runs.values()
        if newest[_same_images(run)] != run.name
    }


def _same_images(run: Run) -> str:
    members = [[p["name"], p["options"]] for p in run.recipe["plugins"]]
    return digest_of([members, run.recipe["seed"], run.recipe["amount"], run.fitted_on])


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
class _Fit:
    """The outcome of one fit."""

    partition: int
    seed: int
    probabilities: np.ndarray


@dataclass
class _Evaluation:
    """One evaluation on its way."""

    store: DatasetStore
    snapshot: Snapshot
    plugin: Plugin
    classifier: Classifier
    plan: Protocol
    n_seeds: int
    progress: Progress

    def __post_init__(self) -> None:
        self.results = Results(self.store.side_folder("results"))
        self.cache = FeatureCache()
        self.computed = 0
        self.done = 0
        self.total = 0

    def run(self, arms: Mapping[str, tuple[str, ...]]) -> Evaluation:
        missing = {name: self._obstacle(runs) for name, runs in arms.items()}
        fits: dict[str, list[_Fit]] = {n: [] for n, why in missing.items() if why is None}
        rows: dict[str, int] = {}
        self.total = len(fits) * len(self.plan.partitions) * self.n_seeds
        for number, partition in enumerate(self.plan.partitions):
            for name in fits:
                train = self._training(partition, arms[name])
                rows.setdefault(name, len(train))
                fits[name] += self._fits(number, partition, name, train)
            self.cache.forget_unstored()
        found = tuple(
            Arm(name, arms[name], 0, {}, unavailable=missing[name])
            if name not in fits
            else Arm(name, arms[name], rows[name], self._metrics(fits[name]), _twin(name, arms))
            for name in arms
        )
        return self._evaluation(found, sum(map(len, fits.values())))

    def _evaluation(self, arms: tuple[Arm, ...], fits: int) -> Evaluation:
        tested = np.zeros(len(self.snapshot.real.keys), bool)
        for partition in self.plan.partitions:
            tested |= self.snapshot.parts(partition) == 2
        return Evaluation(
            store=str(self.store.path),
            classifier=self.plugin.name,
            options=option_tools.values(self.classifier),
            protocol=self.plan.name,
            seeds=self.n_seeds,
            classes=self.snapshot.classes,
            test_images=int(tested.sum()),
            test_groups=len(np.unique(self.snapshot.real.groups[tested])),
            arms=arms,
            fits=fits,
            computed=self.computed,
            superseded=superseded(self.snapshot),
            notes=self._notes(arms),
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

    def _obstacle(self, runs: Sequence[str]) -> str | None:
        """Return why the rows of these runs cannot be had under this protocol, or None."""
        for name in runs:
            run = self.snapshot.run(name)
            for partition in self.plan.partitions:
                if run.family == "generative":
                    if not self.snapshot.trainable(name, partition).all():
                        return (
                            f"not available under {self.plan.name}: run {name!r} was fitted on "
                            f"images that {partition.name} tests; use --split 70/15/15"
                        )
                elif not self._fits_as_stored(run, partition):
                    try:
                        make(self.snapshot, run, partition)
                    except AugkitError as error:
                        return f"not available under {partition.name}: run {name!r}: {error}"
        return None

    def _training(self, partition: Partition, runs: Sequence[str]) -> Samples:
        """Return real training rows and those of the runs, made again where need be."""
        stored = [n for n in runs if self._fits_as_stored(self.snapshot.run(n), partition)]
        again = [self.snapshot.run(n) for n in runs if n not in stored]
        samples = self.snapshot.training(partition, stored)
        if not again:
            return samples
        return JoinedSamples([samples, *(make(self.snapshot, run, partition) for run in again)])

    def _fits_as_stored(self, run: Run, partition: Partition) -> bool:
        if run.family == "generative":
            return True
        fresh = run.trained_from == self.snapshot.training_digest(partition)
        return fresh and run.partition == partition.name

    def _fits(self, number: int, partition: Partition, arm: str, train: Samples) -> Iterator[_Fit]:
        validation = self.snapshot.validation(partition)
        test = self.snapshot.test(partition)
        for seed in range(self.n_seeds):
            task = self._task(train, validation, test, seed)
            found = self.results.read(task)
            if found is None:
                where = f"arm {arm!r}, {partition.name}, seed {seed}"
                found = self._compute(train, validation, test, seed, where)
                self.results.write(task, found)
                self.computed += 1
            self.done += 1
            self.progress("fit", self.done, self.total)
            yield _Fit(number, seed, found)

    def _task(self, train: Samples, val: Samples, test: Samples, seed: int) -> dict[str, Any]:
        """Return everything that decides the outcome of a fit."""
        return {
            "classifier": self.plugin.name,
            "distribution": self.plugin.distribution,
            "version": self.plugin.version,
            "options": option_tools.values(self.classifier),
            "classes": list(self.snapshot.classes),
            "train": train.digest,
            "labels": hashlib.sha256(train.labels.tobytes()).hexdigest(),
            "validation": val.digest,
            "test": test.digest,
            "seed": seed,
        }

    def _compute(
        self, train: Samples, val: Samples, test: StoredSamples, seed: int, where: str
    ) -> np.ndarray:
        """Fit a fresh classifier and return float32 (N, classes) for the test images."""
        require_training(train)
        context = Context(seed=seed, classes=self.snapshot.classes, cached=self.cache)
        classifier = self.plugin.build(option_tools.values(self.classifier))
        try:
            classifier.fit(train, val, context)
            found = classifier.predict_proba(test)
        except AugkitError:
            raise
        except Exception as error:
            raise PluginFailed(
                f"classifier {self.plugin.name!r} failed on {where}: "
                f"{type(error).__name__}: {error}"
            ) from error
        return _checked(found, (len(test), len(self.snapshot.classes)), self.plugin.name)

    def _metrics(self, fits: list[_Fit]) -> dict[str, Estimate]:
        """Return each metric: per seed and repeat over its folds, then averaged."""
        rounds: dict[tuple[int, int], list[_Fit]] = {}
        per_repeat = max(1, len(self.plan.partitions) // self._repeats())
        for fit in fits:
            rounds.setdefault((fit.partition // per_repeat, fit.seed), []).append(fit)
        scores = [self._score(r) for r in rounds.values()]
        groups = self.snapshot.real.groups
        return {
            name: _estimate([s[name] for s in scores], groups, _BOUNDS.get(name, (0.0, 1.0)))
            for name in scores[0]
        }

    def _repeats(self) -> int:
        return len({p.name.partition(", repeat ")[2] for p in self.plan.partitions})

    def _score(self, fits: list[_Fit]) -> dict[str, Score]:
        """Return the metrics of one round of folds, as scores over all real rows."""
        tested = [
            np.flatnonzero(self.snapshot.parts(self.plan.partitions[fit.partition]) == 2)
            for fit in fits
        ]
        index = np.concatenate(tested)
        scored = score(
            self.snapshot.real.labels[index],
            np.concatenate([fit.probabilities for fit in fits]),
            self.snapshot.classes,
            fits=np.repeat([fit.partition for fit in fits], [len(rows) for rows in tested]),
        )
        n = len(self.snapshot.real.keys)
        return {name: _spread(found, index, n) for name, found in scored.items()}


def _spread(found: Score, index: np.ndarray, n: int) -> Score:
    """Return a score of the tested rows as one of all n rows; the others do not move it."""
    influence, weight = np.zeros(n), np.zeros(n)
    influence[index], weight[index] = found.influence, found.weight
    return Score(found.value, influence, weight)


def _estimate(scores: Sequence[Score], groups: np.ndarray, bounds: tuple[float, float]) -> Estimate:
    """Return the mean of the rounds (seeds, repeats) with its interval over groups and fits."""
    weight = np.mean([s.weight for s in scores], axis=0)
    used = weight > 0
    influences = np.stack([s.influence[used] for s in scores])
    values = [s.value for s in scores]
    if np.isnan(values).any() or not used.any():
        return Estimate(float("nan"), float("nan"), float("nan"))
    mean = mean_of_fits(values, influences, groups[used])
    error = standard_error(mean.influence, groups[used])
    n_groups = effective_groups(weight[used], groups[used])
    low, high = interval(
        mean.value, error, n_groups=n_groups, fits=mean.fit_variance, bounds=bounds
    )
    return Estimate(mean.value, low, high)


def _twin(name: str, arms: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return an earlier arm of the same runs."""
    for other in arms:
        if other == name:
            return None
        if set(arms[other]) == set(arms[name]):
            return other
    return None


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


def _finite(value: Any) -> Any:
    """Return JSON values with null in place of NaN."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
