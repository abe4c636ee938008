"""Arms: the ways to fill the training part of an evaluation, and what each trains on.

`real` holds real images only; the others add the rows of runs. Under a partition that a run was not
made for, a traditional run is made again from its recipe; a generative one cannot be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from augkit.errors import AugkitError, OptionError
from augkit.interfaces import Samples
from augkit.making import make
from augkit.partitions import Partition, Protocol
from augkit.store import Run, Snapshot
from augkit.store.format import digest_of
from augkit.store.samples import JoinedSamples


def choose_arms(snapshot: Snapshot, wanted: Sequence[str] | None) -> dict[str, tuple[str, ...]]:
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


def obstacle(snapshot: Snapshot, runs: Sequence[str], plan: Protocol) -> str | None:
    """Return why the rows of these runs cannot be had under this protocol, or None."""
    for name in runs:
        run = snapshot.run(name)
        for partition in plan.partitions:
            if run.family == "generative":
                if not snapshot.trainable(name, partition).all():
                    return (
                        f"not available under {plan.name}: run {name!r} was fitted on "
                        f"images that {partition.name} tests; use --split 70/15/15"
                    )
            elif not _fits_as_stored(snapshot, run, partition):
                try:
                    make(snapshot, run, partition)
                except AugkitError as error:
                    return f"not available under {partition.name}: run {name!r}: {error}"
    return None


def training_samples(snapshot: Snapshot, partition: Partition, runs: Sequence[str]) -> Samples:
    """Return real training rows and those of the runs, made again where need be."""
    stored = [n for n in runs if _fits_as_stored(snapshot, snapshot.run(n), partition)]
    again = [snapshot.run(n) for n in runs if n not in stored]
    samples = snapshot.training(partition, stored)
    if not again:
        return samples
    return JoinedSamples([samples, *(make(snapshot, run, partition) for run in again)])


def _fits_as_stored(snapshot: Snapshot, run: Run, partition: Partition) -> bool:
    if run.family == "generative":
        return True
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
