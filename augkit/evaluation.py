"""The verb `evaluate`: one classifier, several arms, the same partitions and seeds for all."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augkit.arms import BALANCED, choose_arms, to_refit
from augkit.augmentation import refit as refit_run
from augkit.devices import choose_device
from augkit.errors import OptionError, StoreError
from augkit.interfaces import Progress, silent
from augkit.outcome import Evaluation
from augkit.outcomes import Cell, command_line, keep
from augkit.partitions import Protocol, Scope, protocol
from augkit.plans import call
from augkit.registry import registry
from augkit.store import DatasetStore, Snapshot
from augkit.store.locate import open_store
from augkit.trials import SEEDS_APART, How, Trial
from augkit.verdicts import PRIMARY, check_primary, judge

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
    how = How(
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
    trial = Trial(opened, snapshot, plugin, settled, how, chosen, progress)
    trial.fit_all()
    found = trial.outcome(*judge(trial.cases(), primary))
    flags = {
        "classifier": classifier,
        "arms": arms,
        "split": split,
        "folds": folds,
        "repeats": repeats if repeats > 1 else None,
        "seeds": seeds,
        "primary": primary if primary != PRIMARY else None,
        "positive": positive,
        "datasets": datasets,
        "test-on": test_on,
        "split-by": split_by if split_by != "group" else None,
        "refit": refit,
        "real-share": real_share if real_share != REAL_SHARE else None,
        "protocol": "paper" if paper else None,
        "full": full,
    }
    cell = Cell(" + ".join(datasets or all_datasets(snapshot)), classifier, found)
    keep(opened, snapshot, [cell], command_line("evaluate", options or {}, flags))
    return found


def all_datasets(snapshot: Snapshot) -> list[str]:
    """Return the data sets of a store, in the order in which they came."""
    return list(dict.fromkeys(snapshot.real.datasets.tolist()))


def _check_numbers(
    split: str | None, folds: int | None, seeds: int | None, *, real_share: float
) -> None:
    """Raise OptionError for numbers that make no sense."""
    if split is not None and folds is not None:
        raise OptionError("give --split or --folds, not both")
    if seeds is not None and not 1 <= seeds < SEEDS_APART:
        raise OptionError(f"seeds is {seeds}; it must be at least 1 and under {SEEDS_APART}")
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
