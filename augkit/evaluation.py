"""The verb `evaluate`: one classifier, several arms, the same partitions and seeds for all."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from augkit.arms import BALANCED, choose_arms, to_refit
from augkit.augmentation import refit as refit_run
from augkit.devices import choose_device
from augkit.errors import AugkitError, OptionError, StoreError
from augkit.interfaces import Classifier, Progress, silent
from augkit.outcome import Evaluation
from augkit.outcomes import Cell, command_line, keep
from augkit.partitions import Protocol, Scope, empty_part, protocol
from augkit.plans import settled
from augkit.recipes import listed, whole
from augkit.registry import Plugin, registry
from augkit.store import DatasetStore, Snapshot
from augkit.store.locate import open_store
from augkit.trials import SEEDS_APART, How, Trial, caveat
from augkit.verdicts import LOWER_IS_BETTER, PRIMARY, check_primary, judge

log = logging.getLogger("augkit")

N_SEEDS = 5
REAL_SHARE = 0.5


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
    "70/15/15", or "given", the split that the data came with; folds: 5; neither: five folds for a
    classifier that takes seconds, else 70/15/15.
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
    if budget is not None and not refit:
        raise OptionError("--budget is for generators that --refit fits anew")
    request = Request(
        classifier=classifier,
        options=dict(options or {}),
        arms=None if arms is None else listed("arms", arms),
        split=split,
        folds=folds,
        repeats=repeats,
        seeds=seeds,
        primary=primary,
        positive=positive,
        datasets=listed("datasets", datasets),
        test_on=test_on,
        split_by=split_by,
        real_share=real_share,
        paper=paper,
        full=full,
        device=device,
    )
    opened = open_store(store)
    prepared = prepare(opened, request)
    if said := caveat(prepared.classifier):
        log.warning("NOTE: %s", said)
    if refit:
        for run, partition in to_refit(prepared.snapshot, prepared.arms, prepared.how.protocol):
            log.info("fitting %s anew for %s", run, partition.name)
            refit_run(opened, run, partition, budget=budget, device=device, progress=progress)
        prepared = prepare(opened, request)
    if (seeds or 1) > prepared.how.seeds:
        log.warning("note: %s has no randomness: one fit on each partition is all", classifier)
    trial = Trial(opened, *prepared, progress)
    trial.fit_all()
    found = trial.outcome(judge(trial.cases(), primary))
    if split_by == "image":
        flattery = _flattery(opened, request, found)
        found = replace(found, warnings=(*found.warnings, *flattery))
    name = " + ".join(request.datasets or prepared.snapshot.datasets)
    command = command_line("evaluate", request.options, request.flags() | {"refit": refit})
    keep(opened, prepared.snapshot, [Cell(name, classifier, found)], command)
    return found


def _flattery(store: DatasetStore, request: Request, leaky: Evaluation) -> list[str]:
    """Return in words how much better `real` looks than with groups kept together."""
    try:
        honest = Trial(store, *prepare(store, replace(request, split_by="group", arms=("real",))))
        honest.fit_all()
    except AugkitError as error:
        return [f"how far this flatters cannot be said: {error}"]
    kept = honest.outcome(()).arms[0].metrics[request.primary].value
    torn = leaky.arms[0].metrics[request.primary].value
    gain = kept - torn if request.primary in LOWER_IS_BETTER else torn - kept
    metric = request.primary.replace("_", " ")
    return [
        f"{metric} of real images: {torn:.3f} split by image, {kept:.3f} with groups kept "
        f"together; the leak flatters by {gain:+.3f}"
    ]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an evaluation and a study are told alike; see `evaluate`."""

    arms: tuple[str, ...] | None = None
    split: str | None = None
    folds: int | None = None
    repeats: int = 1
    seeds: int | None = None
    primary: str = PRIMARY
    positive: str | None = None
    test_on: str | None = None
    real_share: float = REAL_SHARE
    device: str | None = None


@dataclass(frozen=True)
class Request(Settings):
    """What is to be evaluated: the flags of `evaluate`, as they were given."""

    classifier: str
    options: dict[str, Any] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    """Classes that are left out."""
    split_by: str = "group"
    paper: bool = False
    full: bool = False

    def scope(self) -> Scope:
        """Return which images are dealt with. Raises OptionError where these are none."""
        by_image = self.split_by == "image"
        return Scope(self.datasets, self.without, self.test_on or "", by_image)

    def flags(self) -> dict[str, Any]:
        """Return what the command line would be given, defaults left out."""
        usual = Request(self.classifier)
        given = {k: v for k, v in vars(self).items() if v != getattr(usual, k, None)}
        for name in ("options", "without", "paper"):
            given.pop(name, None)
        flags = {"classifier": self.classifier} | given
        flags |= {"protocol": "paper"} if self.paper else {}
        return {name.replace("_", "-"): value for name, value in flags.items()}


class Prepared(NamedTuple):
    """What a trial needs, checked."""

    snapshot: Snapshot
    plugin: Plugin
    classifier: Classifier
    """With its options settled."""
    how: How
    arms: dict[str, tuple[str, ...]]


def prepare(store: DatasetStore, request: Request, snapshot: Snapshot | None = None) -> Prepared:
    """Check a request against the store. Raises an AugkitError where it cannot be.

    snapshot: the store as it was; None: as it is now.
    """
    check(request)
    plugin = registry().find(request.classifier, "classifier")
    built = plugin.build(request.options)
    device = choose_device(request.device) if built.uses_device or request.device else "cpu"
    folds = request.folds
    if built.fast and not (request.split or folds or request.test_on or request.paper):
        folds = 5
    snapshot = snapshot or store.snapshot()
    plan = protocol(request.split, folds, request.repeats, request.scope())
    _check_parts(snapshot, plan)
    snapshot.require_classes([request.positive] if request.positive is not None else [])
    how = How(
        protocol=plan,
        primary=request.primary,
        positive=request.positive,
        balanced=BALANCED in (request.arms or ()),
        seeds=1 if built.deterministic else request.seeds or N_SEEDS,
        real_share=None if request.paper else request.real_share,
        paper=request.paper,
        full=request.full,
        device=device if built.uses_device else "cpu",
    )
    ready = settled(built, snapshot.shape, how.device)
    return Prepared(snapshot, plugin, ready, how, choose_arms(snapshot, request.arms))


def check(request: Request) -> None:
    """Raise OptionError for what makes no sense whatever the store holds."""
    request.scope()
    for name in ("seeds", "folds", "repeats"):
        if getattr(request, name) is not None:
            whole(name, getattr(request, name))
    seeds, share = request.seeds, request.real_share
    if seeds is not None and not 1 <= seeds < SEEDS_APART:
        raise OptionError(f"seeds is {seeds}; it must be at least 1 and under {SEEDS_APART}")
    if not 0 < share <= 1:
        raise OptionError(f"real share is {share}; it must be over 0 and at most 1")
    if request.split_by not in ("group", "image"):
        raise OptionError(f"split by {request.split_by!r}; it must be group or image")
    check_primary(request.primary)


def _check_parts(snapshot: Snapshot, plan: Protocol) -> None:
    """Raise StoreError where a part is empty or the training part lacks a class."""
    snapshot.require_images()
    if len(snapshot.classes) < 2:
        raise StoreError(f"{snapshot.path} holds one class only: ingest images of another")
    notes = []
    for partition in plan.partitions:
        snapshot.require_parts(partition)
        parts = snapshot.parts(partition)
        for number, name in enumerate(("training", "validation", "test")):
            counts = snapshot.count_by_class(parts == number)
            absent = [c for c, n in counts.items() if not n and c not in partition.scope.without]
            if number == 0 and absent:
                raise StoreError(
                    f"no {name} image of class {absent[0]!r} under {partition.name}: "
                    "its groups are too few; add images, or choose --split or --folds"
                )
            if not sum(counts.values()):
                raise StoreError(empty_part(name, partition))
            if absent and number == 2:
                notes.append(f"{partition.name} has no {name} image of {', '.join(absent)}")
    for note in notes:
        log.warning("note: %s", note)
