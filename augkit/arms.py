"""Arms: the ways to fill the training part of an evaluation, and what each trains on.

`real` holds real images only; the others add the rows of runs. Under a partition that a run was not
made for, a traditional run is made again from its recipe; a generative one has to be fitted anew on
that training part, which makes a run of its own. The control of an arm, `balanced`, repeats real
images until its classes stand to each other as in the arm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from augkit.errors import AugkitError, OptionError
from augkit.interfaces import Samples
from augkit.making import make
from augkit.partitions import HOLDOUT, HOMES, Partition, Protocol
from augkit.store import Run, Snapshot
from augkit.store.format import digest_of
from augkit.store.samples import JoinedSamples, StoredSamples

REAL = "real"
BALANCED = "balanced"
ALIKE = 0.05
"""Arms whose class shares differ by no more than this in any class have the same control..."""
ALIKE_TIMES = 1.25
"""... unless a class has so many times the share."""


def choose_arms(snapshot: Snapshot, wanted: Sequence[str] | None) -> dict[str, tuple[str, ...]]:
    """Return arm -> runs, `real` among them. Raises OptionError for an arm that does not exist.

    `balanced` may be asked for, and is no key: every evaluation has the controls that it needs.
    """
    known = _known_arms(snapshot)
    if wanted is None:
        families = [name for name in known if name not in snapshot.runs or name in _own(snapshot)]
        return {name: known[name] for name in families}
    unknown = [name for name in wanted if name not in known and name != BALANCED]
    if unknown:
        there = ", ".join([*known, BALANCED])
        raise OptionError(f"there is no arm {unknown[0]!r}; there are: {there}")
    return {REAL: ()} | {name: known[name] for name in wanted if name != BALANCED}


def _own(snapshot: Snapshot) -> set[str]:
    """Return the generative plugins, each of which is an arm of its own."""
    return {r.plugin for r in snapshot.runs.values() if r.family == "generative"}


def _known_arms(snapshot: Snapshot) -> dict[str, tuple[str, ...]]:
    left_out = superseded(snapshot)
    there = [r for r in snapshot.runs.values() if r.partition in [home.name for home in HOMES]]
    runs = [run for run in _recipes_once(there) if run.name not in left_out]
    arms: dict[str, tuple[str, ...]] = {REAL: ()}
    traditional = tuple(r.name for r in runs if r.family == "traditional")
    if traditional:
        arms["traditional"] = traditional
    for plugin in sorted({run.plugin for run in runs} & _own(snapshot)):
        arms[plugin] = tuple(r.name for r in runs if r.plugin == plugin)
    if runs:
        arms["all"] = tuple(r.name for r in runs)
    for run in there:
        arms.setdefault(run.name, (run.name,))
    return arms


def _recipes_once(runs: Sequence[Run]) -> list[Run]:
    """Return the runs without those for the given split that 70/15/15 has by the same recipe.

    Whatever the partition, either would stand for the other, and the images would come twice.
    """
    usual = {_drawn_by(run) for run in runs if run.partition == HOLDOUT.name}
    return [r for r in runs if r.partition == HOLDOUT.name or _drawn_by(r) not in usual]


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
    return digest_of([_drawn_by(run), run.partition])


def _drawn_by(run: Run) -> str:
    """Return what names the recipe of a run, under whatever partition."""
    members = [[p["name"], p["options"]] for p in run.recipe["plugins"]]
    redraw = run.recipe.get("reject_copies", False)
    return digest_of([members, run.recipe["seed"], run.recipe["amount"], redraw])


def _code_of(run: Run) -> list[list[str]]:
    return [[p["distribution"], p["version"]] for p in run.recipe["plugins"]]


def under(snapshot: Snapshot, name: str, partition: Partition) -> str | None:
    """Return the generative run whose rows stand for run `name` under this partition.

    Itself, if all that it was fitted on is trained on; under a partition that it was not made for
    also the newest run of the same recipe, by the same version of its plugin, that was fitted on
    exactly this training part; None: there is none.
    """
    run = snapshot.run(name)
    if snapshot.trainable(name, partition).all():
        return name
    if run.partition == partition.name:
        return None
    origin = snapshot.training_digest(partition)
    fitted = [
        other.name
        for other in snapshot.runs.values()
        if other.trained_from == origin
        and (_drawn_by(other), _code_of(other)) == (_drawn_by(run), _code_of(run))
        and snapshot.trainable(other.name, partition).all()
    ]
    return fitted[-1] if fitted else None


def to_refit(
    snapshot: Snapshot,
    arms: Mapping[str, Sequence[str]],
    plan: Protocol,
    *,
    everything: bool = False,
) -> list[tuple[str, Partition]]:
    """Return the generative runs that are missing under a partition, each with the partition.

    everything: also those that were fitted anew already.
    """
    names = {name for runs in arms.values() for name in runs}
    generative = [n for n in snapshot.runs if n in names and _generative(snapshot, n)]
    found = [
        (name, partition, under(snapshot, name, partition))
        for partition in plan.partitions
        for name in generative
        if snapshot.run(name).partition != partition.name
    ]
    return [(name, p) for name, p, run in found if run is None or (everything and run != name)]


def _generative(snapshot: Snapshot, name: str) -> bool:
    return snapshot.run(name).family == "generative"


def obstacle(snapshot: Snapshot, runs: Sequence[str], plan: Protocol) -> str | None:
    """Return why the rows of these runs cannot be had under this protocol, or None."""
    for name in runs:
        for partition in plan.partitions:
            why = _obstacle(snapshot, snapshot.run(name), partition)
            if why is not None:
                return why
    return None


def _obstacle(snapshot: Snapshot, run: Run, partition: Partition) -> str | None:
    if run.family == "generative":
        if under(snapshot, run.name, partition) is not None:
            return None
        if run.partition == partition.name:
            return (
                f"run {run.name!r} was fitted on images that are not trained on any more: "
                f"augment again, and augkit retract {run.name}"
            )
        return (
            f"not available under {partition.name}: run {run.name!r} was fitted on images that it "
            f"does not train on; --refit fits it anew for each partition, --split {run.partition} "
            "takes it as it is"
        )
    if not _fits_as_stored(snapshot, run, partition):
        try:
            make(snapshot, run, partition)
        except AugkitError as error:
            return f"not available under {partition.name}: run {run.name!r}: {error}"
    return None


def training_samples(snapshot: Snapshot, partition: Partition, runs: Sequence[str]) -> Samples:
    """Return real training rows and those of the runs, made again where need be."""
    stored, again = [], []
    for name in runs:
        run = snapshot.run(name)
        if run.family == "generative":
            stored.append(under(snapshot, name, partition) or name)
        elif _fits_as_stored(snapshot, run, partition):
            stored.append(name)
        else:
            again.append(run)
    samples = snapshot.training(partition, list(dict.fromkeys(stored)))
    if not again:
        return samples
    return JoinedSamples([samples, *(make(snapshot, run, partition) for run in again)])


def _fits_as_stored(snapshot: Snapshot, run: Run, partition: Partition) -> bool:
    fresh = run.trained_from == snapshot.training_digest(partition)
    return fresh and run.partition == partition.name


def twin(name: str, arms: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return an earlier arm of the same runs."""
    for other in arms:
        if other == name:
            return None
        if set(arms[other]) == set(arms[name]):
            return other
    return None


def controls(shares: Mapping[str, np.ndarray]) -> dict[str, tuple[str, str]]:
    """Return for each augmented arm its control, and the arm whose class counts that control has.

    shares: arm -> float (K,), the share of each class in its training images, `real` among them.
    The control of an arm with the class shares of `real` is `real` itself, and that of the arms
    that come next is `balanced`, then `balanced-2`, and so on.
    """
    patterns = {REAL: REAL}  # control -> the arm that it takes after
    found = {}
    for arm, own in shares.items():
        if arm == REAL:
            continue
        alike = [control for control, a in patterns.items() if _alike(own, shares[a])]
        new = BALANCED if len(patterns) == 1 else f"{BALANCED}-{len(patterns)}"
        control = alike[0] if alike else new
        patterns.setdefault(control, arm)
        found[arm] = (control, patterns[control])
    return found


def _alike(first: np.ndarray, second: np.ndarray) -> bool:
    low, high = np.minimum(first, second), np.maximum(first, second)
    return bool((high - low <= ALIKE).all() and (high <= ALIKE_TIMES * low).all())


def repeated(real: StoredSamples, counts: np.ndarray) -> Samples:
    """Return real training images, and then the same ones again until the classes count as given.

    counts: int64 (K,), of each class, at least as many as there are. Every image of a class comes
    equally often, up to one time.
    """
    labels, chosen = real.labels, []
    rng = np.random.Generator(np.random.Philox(0))
    for label, count in enumerate(counts.tolist()):
        rows = np.flatnonzero(labels == label)
        if len(rows):
            whole, rest = divmod(count - len(rows), len(rows))
            chosen += [np.tile(rows, whole), np.sort(rng.permutation(rows)[:rest])]
    again = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
    return JoinedSamples([real, real.take(again)])
