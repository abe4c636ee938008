"""The verb `purge`: an image and all that derives from it really leave the store.

For when somebody withdraws consent. What goes is found by lineage, the store is rewritten as if the
image had never come in, and a search of every byte of it shows that nothing is left.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from augkit.errors import DamagedStore, OptionError
from augkit.interfaces import Progress, silent
from augkit.outcomes import command_line
from augkit.partitions import GIVEN, HOMES
from augkit.recipes import Amount, listed
from augkit.store import DatasetStore, Snapshot
from augkit.store.entries import LARGEST_ENTRY
from augkit.store.erasing import (
    SIDE_FOLDERS,
    Doomed,
    Rewriting,
    alone,
    doomed,
    finish,
    pending,
)
from augkit.store.erasing import replace as replace_log
from augkit.store.format import Entry
from augkit.store.locate import open_store
from augkit.store.plain import read_plain
from augkit.store.samples import StoredSamples
from augkit.store.traces import Search, of_images, of_text
from augkit.tables import counted

_BLOCK = 64
_MOST_PIECES = 200_000
"""Pieces of images that are looked for: of more rows than that, of each second or third."""

_OF_REAL, _OF_MADE = 16, 2
"""Pieces of each image."""


@dataclass(frozen=True)
class Purge:
    """What went, or would go."""

    store: str
    done: bool
    """False: a dry run; nothing was changed."""
    images: tuple[str, ...]
    """Keys of the real images."""
    runs: tuple[str, ...]
    rows: int
    """Rows of these runs and of retracted ones."""
    models: tuple[str, ...]
    again: tuple[str, ...]
    """The lines that make again what went, without these images."""
    notes: tuple[str, ...]
    pieces: int = 0
    """Pieces of images and names that were looked for."""
    searched: int = 0
    """Bytes in which none of them was found."""

    def to_json(self) -> str:
        """Return the fields as JSON."""
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        verb = "purged from" if self.done else "would be purged from"
        lines = [f"{counted(len(self.images), 'image')} {verb} {self.store}: {_some(self.images)}"]
        if self.rows:
            names = f": {', '.join(self.runs)}" if self.runs else ", all retracted"
            lines.append(f"with {counted(self.rows, 'row')} of runs that derive from them{names}")
        if self.models:
            lines.append(f"with {counted(len(self.models), 'model')} fitted on them")
        lines.append(f"with all of {', '.join(SIDE_FOLDERS)}, and checkpoints of these models")
        if self.done:
            lines.append(
                f"searched {self.searched / 1e6:.1f} MB, every byte of the store, for "
                f"{self.pieces} pieces of these images, rows and names: none is left"
            )
        lines += [f"note: {note}" for note in self.notes]
        if self.again:
            lines += ["to be made again:", *(f"  {line}" for line in self.again)]
        return "\n".join(lines)


def purge(
    store: DatasetStore | str | Path | None = None,
    key: str | Sequence[str] | None = None,
    group: str | None = None,
    *,
    dry_run: bool = False,
    progress: Progress = silent,
) -> Purge:
    """Delete images from a store, and every row and model that derives from them.

    key: of one image, or of several. group: the key of an image, whose relatives go with it, or the
    patient that a manifest named, or the number of a group in `augkit info --rows`. Neither: finish
    a purge that was stopped. dry_run: only say what would go. Groups, folds and pixels of what
    stays are as they were. Raises OptionError for what is not there, StoreError where other
    commands are at work; then nothing has changed.
    """
    opened = open_store(store)
    keys = [key] if isinstance(key, str) else list(key or ())
    asked = {"keys": keys, "group": group}
    if keys and group is not None:
        raise OptionError("give --key or --group, not both")
    with alone(opened):
        stopped = pending(opened)
        if stopped is not None and not dry_run:
            ended = _finished(opened, stopped, progress)
            if stopped["asked"]["request"] == asked or not (keys or group):
                return ended
        snapshot = opened.snapshot()
        gone = doomed(snapshot, _chosen(snapshot, keys, group))
        found = _purge(opened, snapshot, gone)
        return found if dry_run else _erase(opened, snapshot, gone, found, asked, progress)


def _finished(store: DatasetStore, stopped: Entry, progress: Progress) -> Purge:
    """End a purge that was stopped."""
    said = stopped["asked"]["found"]
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items()}
    try:
        found = Purge(**fields)
    except TypeError as error:
        raise DamagedStore(f"{store.path}: its purge does not say what it was to do") from error
    return replace(found, done=True, searched=finish(store, stopped, progress))


def _erase(
    store: DatasetStore,
    snapshot: Snapshot,
    gone: Doomed,
    found: Purge,
    asked: dict[str, Any],
    progress: Progress,
) -> Purge:
    search, silent_rows = _search(snapshot, gone, progress)
    notes = [*found.notes]
    if silent_rows:
        notes.append(
            f"{counted(silent_rows, 'row')} cannot be searched for: blank, or the same as images "
            "that stay; they went like the others"
        )
    found = replace(found, done=True, pieces=len(search.pieces), notes=tuple(notes))
    about = {"images": len(found.images), "rows": found.rows}
    about |= {"runs": len(gone.runs), "models": len(gone.models)}
    work = Rewriting(store, snapshot, gone, about, progress)
    try:
        work.run()
        note = {"request": asked, "found": asdict(found)}
        searched = replace_log(work, search, note, progress)
    finally:
        work.discard()
    return replace(found, searched=searched)


# -- what is meant -----------------------------------------------------------------------------


def _chosen(snapshot: Snapshot, keys: Sequence[str], group: str | None) -> np.ndarray:
    """Return int64 (n,): the real rows that are meant. Raises OptionError if there are none."""
    if not keys and group is None:
        raise OptionError(
            "which image? --key KEY, or --group KEY for all its relatives; augkit info --rows "
            "FILE.csv lists the keys"
        )
    real = snapshot.real
    row_of = {key: row for row, key in enumerate(real.keys.tolist())}
    if group == "":  # that of all images of which no patient is known
        raise OptionError("--group names no group: give a patient, or the key of an image")
    if group is not None:
        return _group(snapshot, row_of, group)
    for key in listed("key", keys):
        if key not in row_of:
            raise OptionError(
                f"{snapshot.path} holds no image {key!r}: augkit info --rows FILE.csv lists the "
                "keys"
            )
    return _unless_all(snapshot, np.array([row_of[key] for key in keys], np.int64))


def _group(snapshot: Snapshot, row_of: dict[str, int], group: str) -> np.ndarray:
    """Return the rows of all groups that are named."""
    real = snapshot.real
    patients = real.patients.tolist()
    within = [p.partition("/")[2] for p in patients]
    if group in row_of:
        named = np.arange(len(real.keys)) == row_of[group]
    elif group in patients:
        named = real.patients == group
    elif group in within:
        named = np.array([p == group for p in within])
        whole = sorted(set(real.patients[named].tolist()))
        if len(whole) > 1:
            raise OptionError(
                f"several data sets have a group {group!r}: choose --group {' or '.join(whole)}"
            )
    else:
        named = np.array([str(g) == group for g in real.groups.tolist()], bool)
    if not named.any():
        raise OptionError(
            f"{snapshot.path} has no group {group!r}, and no image of that key: augkit info --rows "
            "FILE.csv lists them"
        )
    return _unless_all(snapshot, np.flatnonzero(np.isin(real.groups, real.groups[named])))


def _unless_all(snapshot: Snapshot, rows: np.ndarray) -> np.ndarray:
    if len(np.unique(rows)) == len(snapshot.real.keys):
        raise OptionError(
            f"these are all images of {snapshot.path}: delete it whole, with what lies beside it"
        )
    return rows


# -- what goes, and how it is made again -------------------------------------------------------


def _purge(store: DatasetStore, snapshot: Snapshot, gone: Doomed) -> Purge:
    live = {run.shard.number for run in snapshot.runs.values()}
    runs = [entry for number, entry in gone.runs.items() if number in live]
    return Purge(
        store=str(store.path),
        done=False,
        images=tuple(snapshot.real.keys[gone.rows].tolist()),
        runs=tuple(entry["run"] for entry in runs),
        rows=sum(entry["shard"]["rows"] for entry in gone.runs.values()),
        models=tuple(gone.models),
        again=tuple(dict.fromkeys(_again(store, runs, gone))),
        notes=tuple(_notes(snapshot, gone)),
    )


def _again(store: DatasetStore, runs: Sequence[Entry], gone: Doomed) -> Iterator[str]:
    """Yield the lines that make again what goes: models without a run, runs, evaluations."""
    sampled = {entry["lineage"].get("model") for entry in runs}
    where = str(store.path)
    for name, entry in gone.models.items():
        if name not in sampled and entry["partition"] in _HOMES:
            plugin = entry["recipe"]["plugin"]
            flags = {"plugin": plugin["name"], **_split(entry["partition"]), "store": where}
            yield command_line("fit", _changed([plugin]), flags)
    for entry in runs:
        recipe = entry["recipe"]
        if recipe["partition"] in _HOMES:
            yield _augment_line(recipe, entry["run"], where)
    for path in sorted(store.side_folder("outcomes").glob("*.json")):
        line = _said_line(path)
        if line:
            yield line if "--store" in line else f"{line} --store {shlex.quote(where)}"


def _said_line(path: Path) -> str:
    """Return the command line that an outcome names; empty unless it is one of augkit alone.

    Whoever wrote the store wrote that too, and it is shown for a user to type.
    """
    try:
        line = json.loads(read_plain(path, LARGEST_ENTRY))["command"]
        words = shlex.split(line)
        plain = line.isprintable() and shlex.join(words) == line
        return line if plain and words[:2] in _EVALUATING else ""
    except (OSError, DamagedStore, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""


_EVALUATING = (["augkit", "evaluate"], ["augkit", "study"])


_HOMES = [home.name for home in HOMES]


def _split(partition: str) -> dict[str, str]:
    return {"split": GIVEN.name} if partition == GIVEN.name else {}


def _augment_line(recipe: dict[str, Any], run: str, where: str) -> str:
    amount = Amount(**recipe["amount"])
    flags = {
        "plugin": recipe["plugin"],
        "n": amount.per_class,
        "total": amount.total,
        "seed": recipe["seed"] or None,
        "run": run if run != recipe["plugin"] else None,
        "reject-copies": bool(recipe.get("reject_copies")),
        **_split(recipe["partition"]),
        "store": where,
    }
    return command_line("augment", _changed(recipe["plugins"]), flags)


def _changed(plugins: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the options that are not those of an installed plugin by default."""
    from augkit.registry import registry

    usual = {p.name: p.options for p in registry().of_kind("augmenter")}
    return {
        f"{plugin['name']}.{key}" if len(plugins) > 1 else key: value
        for plugin in plugins
        for key, value in plugin["options"].items()
        if usual.get(plugin["name"], {}).get(key, None) != value
    }


def _notes(snapshot: Snapshot, gone: Doomed) -> Iterator[str]:
    """Yield what the user should know besides."""
    real = snapshot.real
    stays = np.ones(len(real.keys), bool)
    stays[gone.rows] = False
    twins = real.keys[stays & np.isin(real.sha256, real.sha256[gone.rows])].tolist()
    if twins:
        yield f"the same file stays under another key, {_some(twins)}: purge that as well"
    relatives = int((stays & np.isin(real.groups, real.groups[gone.rows])).sum())
    if relatives:
        are = "a relative stays" if relatives == 1 else f"{relatives} relatives stay"
        yield f"{are} (near-duplicates, or of the same patient): --group KEY takes all"
    for label, name in enumerate(snapshot.classes):
        before, after = (len(np.unique(real.groups[m & (real.labels == label)]))
                         for m in (np.ones_like(stays), stays))  # fmt: skip
        if after < 2 <= before:
            yield f"class {name} has {counted(after, 'group')} left: too few to train and to test"
    settled = np.unique(real.groups[real.conflict & ~stays])
    for group in settled.tolist():
        if len(np.unique(real.labels[stays & (real.groups == group)])) == 1:
            yield f"the images left in group {group} carry one class now, and take part again"
    others = sum(e["recipe"].get("partition") not in _HOMES for e in gone.runs.values())
    if others:
        yield (
            f"{counted(others, 'run')} of other partitions: evaluate --refit or study makes them "
            "again"
        )
    yield (
        "reports, previews, exports, packed copies, backups and the image file itself lie outside "
        "the store: delete them by hand"
    )


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# -- what must not be found any more -----------------------------------------------------------


def _search(snapshot: Snapshot, gone: Doomed, progress: Progress) -> tuple[Search, int]:
    """Return what is looked for, and how many rows have nothing that could be."""
    real = snapshot.real
    lost = np.zeros(len(real.keys), bool)
    lost[gone.rows] = True
    everything = snapshot.inspect()
    found = list(_pieces(everything.take(np.flatnonzero(lost)), _OF_REAL, 1))
    n_rows = sum(entry["shard"]["rows"] for entry in gone.runs.values())
    step = 1 + _OF_MADE * n_rows // _MOST_PIECES
    for entry in gone.runs.values():
        found += _pieces(snapshot.inspect_entry(entry), _OF_MADE, step)
    ours = Search(piece for pieces in found for piece in pieces)
    kept = [everything.take(np.flatnonzero(~lost))]
    numbers = gone.runs.keys()
    kept += [
        snapshot.inspect_entry(entry)
        for entry in snapshot.entries
        if entry["kind"] == "run" and entry["number"] not in numbers
    ]
    common = {piece for samples in kept for piece in _shared(ours, samples, progress)}
    without = sum(not set(pieces) - common for pieces in found)
    texts = _texts(snapshot, lost)
    pieces = [piece for piece in ours.pieces if piece not in common]
    return Search([*pieces, *texts], texts), without


def _pieces(samples: StoredSamples, each: int, step: int) -> Iterator[list[bytes]]:
    for images in samples.take(np.arange(0, len(samples), step)).blocks(_BLOCK):
        yield from of_images(images, each)


def _shared(search: Search, samples: StoredSamples, progress: Progress) -> Iterator[bytes]:
    """Yield the pieces that images which stay have as well, such as burned-in text."""
    for done, images in enumerate(samples.blocks(_BLOCK), 1):
        yield from search.in_bytes(images.tobytes())
        progress("compare", min(done * _BLOCK, len(samples)), len(samples))


def _texts(snapshot: Snapshot, lost: np.ndarray) -> dict[bytes, list[bytes]]:
    """Return names and hashes to look for, each with the texts of what stays that contain it."""
    real = snapshot.real
    stays = {*real.keys[~lost].tolist(), *real.patients[~lost].tolist()} - {""}
    kept = "\n".join(stays)
    wanted: dict[bytes, list[bytes]] = {}
    for key in real.keys[lost].tolist():
        around = [t for t in stays if key in t] if key in kept else []
        longer = [form for text in around for form in of_text(text)]
        wanted |= dict.fromkeys(of_text(key), longer)
    names = {key.rpartition("/")[2] for key in real.keys[lost].tolist()}
    names |= {patient.partition("/")[2] for patient in real.patients[lost].tolist()}
    for text in names | set(real.patients[lost].tolist()):
        if text not in kept:  # else it is that of others too
            wanted.update((form, []) for form in of_text(text))
    for sha256 in set(real.sha256[lost].tolist()) - set(real.sha256[~lost].tolist()):
        wanted |= {bytes.fromhex(sha256): [], sha256.encode(): []}
    return wanted
