"""A store as if some images had never been in it: a new log, new shards, and the old ones gone.

Entries keep their numbers, images that stay keep their groups and folds. What derives from an image
that goes, goes whole: a run with one such row, every model that was fitted on it, every run of such
a model, retracted or not.

In a folder the new log becomes the past in one commit, an entry of the kind `purging` that holds
it whole. From then on no command but a purge uses the store, and whatever is killed, the next purge
goes on from this entry. It is replaced last, when nothing of the old is left and the bytes of
all files were searched. A packed store is written anew and searched before it takes its place.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from augkit.errors import DamagedStore, StoreError
from augkit.interfaces import Progress
from augkit.interruption import interrupts_held
from augkit.store import durable
from augkit.store.entries import is_modest
from augkit.store.folder import Folder
from augkit.store.format import (
    FORMAT_VERSION,
    Entry,
    decode_entry,
    digest_of,
    encode_entry,
    signed,
    unsigned,
)
from augkit.store.models import read_model
from augkit.store.packed import PackedFile, add_entry, add_model, open_to_write, seal
from augkit.store.reading import Snapshot, require_whole
from augkit.store.shards import Shard, ShardWriter
from augkit.store.standing import PURGING, read_entry
from augkit.store.store import DatasetStore
from augkit.store.traces import Search

SIDE_FOLDERS = ("results", "outcomes", "cache")
"""What evaluations left: each took all images in one part or another."""

_BLOCK = 64
_OWN_COLUMNS = {"images", "crc32", "masks", "masked"}
"""Columns that the writer of a shard makes itself."""


@dataclass(frozen=True)
class Doomed:
    """What goes, by the lineage of some images."""

    rows: np.ndarray
    """int64, sorted: real rows."""
    runs: dict[int, Entry] = field(default_factory=dict)
    """By the number of their commit; retracted ones too."""
    models: dict[str, Entry] = field(default_factory=dict)
    """By name, each with its newest entry."""


def doomed(snapshot: Snapshot, rows: np.ndarray) -> Doomed:
    """Return all that derives from these real rows."""
    found = Doomed(np.unique(rows))
    for entry in snapshot.entries:
        if entry["kind"] == "model" and np.isin(entry["fitted_on"], found.rows).any():
            found.models[entry["model"]["name"]] = entry
    for entry in snapshot.entries:
        if entry["kind"] == "run" and _derives(snapshot, entry, found):
            found.runs[entry["number"]] = entry
    return found


def _derives(snapshot: Snapshot, entry: Entry, found: Doomed) -> bool:
    lineage = entry["lineage"]
    if lineage.get("model") is not None:
        return lineage["model"] in found.models
    if lineage.get("fitted_on") is not None:
        return bool(np.isin(lineage["fitted_on"], found.rows).any())
    return bool(np.isin(_column(snapshot, entry, "parent"), found.rows).any())


def _column(snapshot: Snapshot, entry: Entry, name: str) -> np.ndarray:
    with snapshot._pool.shard(entry["shard"]["name"], entry["shard"]["rows"]) as shard:
        return shard.column(name)


# -- the new log -------------------------------------------------------------------------------


@dataclass
class Rewriting:
    """A new log on its way, and the shards that are new in it."""

    store: DatasetStore
    snapshot: Snapshot
    gone: Doomed
    about: dict[str, int]
    """What the log says of this purge: numbers, and no name."""
    progress: Progress
    chain: list[Entry] = field(default_factory=list)
    staged: dict[str, Path] = field(default_factory=dict)
    """New shards by name."""

    def run(self) -> None:
        """Write the new shards and make the entries; nothing that is there changes."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        lost = np.zeros(len(self.snapshot.real.keys), bool)
        lost[self.gone.rows] = True
        self._new_row = np.where(lost, -1, np.cumsum(~lost) - 1)  # old row -> new row
        self._real_rows = 0
        retracted = _retractions(self.snapshot, self.gone)
        for entry in self.snapshot.entries:
            self._add(entry, self._rewritten(entry, retracted))
            self.progress("rewrite", entry["number"], self.snapshot.number)
        rewritten = self.chain[0].get("rewritten", [])
        rows = self.about["images"] + self.about["rows"]
        first = {**self.chain[0], "rewritten": [*rewritten, {"time": now, "rows": rows}]}
        rest, self.chain = self.chain[1:], []
        for entry in (first, *rest, self._last(now)):
            self._add(entry, unsigned(entry) or entry)

    def _add(self, old: Entry, entry: Entry) -> None:
        entry = {k: v for k, v in entry.items() if k != "digest"}
        entry["previous"] = self.chain[-1]["digest"] if self.chain else None
        self.chain.append(signed(entry))

    def _last(self, now: str) -> Entry:
        from augkit import __version__

        own = {"format": FORMAT_VERSION, "number": self.snapshot.number + 1, "time": now}
        return {**own, "augkit": __version__, "kind": "purge", **self.about}

    def _rewritten(self, entry: Entry, retracted: set[int]) -> Entry:
        """Return an entry as it would be had the images that go never come."""
        kind, number = entry["kind"], entry["number"]
        if (kind == "run" and number in self.gone.runs) or number in retracted:
            return _stub(entry)
        if kind == "model":
            lost = entry["model"]["name"] in self.gone.models
            return _stub(entry) if lost else {**entry, "fitted_on": self._moved(entry["fitted_on"])}
        if kind == "run":
            return self._run(entry)
        if kind == "ingest":
            return self._ingest(entry)
        return {**entry, "grouping": self._grouping(entry)} if "grouping" in entry else entry

    def _moved(self, rows: Sequence[int] | np.ndarray) -> list[int]:
        if not all(0 <= row < len(self._new_row) for row in rows):
            raise DamagedStore(f"{self.store.path}: its log names images that do not exist")
        return [int(self._new_row[row]) for row in rows]

    def _run(self, entry: Entry) -> Entry:
        """Return the entry of a run that stays; its rows may have to name their parents anew."""
        lineage = entry["lineage"]
        if lineage.get("fitted_on"):
            entry = {
                **entry,
                "lineage": {**lineage, "fitted_on": self._moved(lineage["fitted_on"])},
            }
        with self._shard(entry) as shard:
            named = {n: shard.column(n) for n in ("parent", "nearest") if shard.has(n)}
        for column in named.values():
            require_whole(column, f"{self.store.path}: a run has rows of images")
            if (column >= len(self._new_row)).any() or (column < -1).any():
                raise DamagedStore(f"{self.store.path}: a run is of images that do not exist")
        moved = {n: np.where(v < 0, v, self._new_row[v]) for n, v in named.items()}
        if all(np.array_equal(moved[name], named[name]) for name in named):
            return entry
        return {**entry, "shard": self._copy(entry, np.arange(entry["shard"]["rows"]), moved)}

    def _ingest(self, entry: Entry) -> Entry:
        """Return the entry of an ingest without the images that go."""
        first, self._real_rows = self._real_rows, self._real_rows + entry["shard"]["rows"]
        stays = self._new_row[first : self._real_rows] >= 0
        entry = {**entry, "grouping": self._grouping(entry)}
        if stays.all():
            return entry
        if not stays.any():
            return {**_stub(entry), "kind": "grouping", "grouping": entry["grouping"]}
        with self._shard(entry) as shard:
            masked = shard.column("masked")[~stays].sum() if shard.has("masked") else 0
        files = max(0, entry["mask_files"] - int(masked))
        shard_about = self._copy(entry, np.flatnonzero(stays), {})
        return {**entry, "mask_files": files, "shard": shard_about}

    def _grouping(self, entry: Entry) -> dict[str, Any]:
        """Return a table of groups and folds without the images that go; no number changes."""
        table = entry["grouping"]
        stays = self._new_row[: len(table["groups"])] >= 0
        groups = [g for g, stay in zip(table["groups"], stays.tolist(), strict=True) if stay]
        used = set(groups)
        folds = [fold if group in used else None for group, fold in enumerate(table["folds"])]
        made = {**table, "groups": groups, "folds": folds}
        if "decisions" in table:
            moved = [(*self._moved([a, b]), word) for a, b, word in table["decisions"]]
            made["decisions"] = [[a, b, word] for a, b, word in moved if min(a, b) >= 0]
        return made

    @contextlib.contextmanager
    def _shard(self, entry: Entry) -> Iterator[Shard]:
        about = entry["shard"]
        self.snapshot._pool.require_intact(about["name"], about["rows"], about["content"])
        with self.snapshot._pool.shard(about["name"], about["rows"]) as shard:
            yield shard

    def _copy(
        self, entry: Entry, rows: np.ndarray, columns: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        """Write some rows of a shard into a new one; return what the log keeps of it."""
        form = self.store._form
        with self._shard(entry) as shard:
            said = {name: _word(value) for name, value in shard._group.attrs.items()}
            name = uuid.uuid4().hex
            self.staged[name] = path = form.stage()  # before it is there: `discard` has to know
            with interrupts_held():
                writer = ShardWriter(path, self.store.shape, said, masks=shard.has("masks"))
            try:
                for start in range(0, len(rows), _BLOCK):
                    some = rows[start : start + _BLOCK]
                    writer.append(shard.images(some), *shard.masks(some))
                kept = {n: shard.column(n)[rows] for n in shard._group if n not in _OWN_COLUMNS}
                return {"name": name, **writer.finish({**kept, **columns})}
            except BaseException:
                writer.discard()
                raise

    def discard(self) -> None:
        """Delete what was staged and not committed."""
        for path in self.staged.values():
            durable.remove(path)


def _word(value: Any) -> str | int:
    """Return what a shard says of itself: text, or a whole number. Raises DamagedStore."""
    if isinstance(value, str):
        return value
    if isinstance(value, np.integer | np.bool_):
        return int(value)
    raise DamagedStore(f"a shard says of itself what augkit never writes: {value!r:.80}")


def _stub(entry: Entry) -> Entry:
    """Return what stays of an entry that goes: that there was one."""
    return {"format": FORMAT_VERSION, "number": entry["number"], "kind": "purged"}


def _retractions(snapshot: Snapshot, gone: Doomed) -> set[int]:
    """Return the numbers of the commits that retract runs that go."""
    found, newest = set(), {}
    for entry in snapshot.entries:
        if entry["kind"] == "run":
            newest[entry["run"]] = entry["number"]
        elif entry["kind"] == "retraction" and newest.get(entry["run"]) in gone.runs:
            found.add(entry["number"])
    return found


# -- taking the place of the old ---------------------------------------------------------------


@contextlib.contextmanager
def alone(store: DatasetStore) -> Iterator[None]:
    """Hold off all who write into a store, as long as this process lives.

    Raises StoreError where that cannot be, or while a model is being trained.
    """
    form = store._form
    place = form.path if isinstance(form, Folder) else form.path.parent
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(durable.locked(place))
        except OSError as error:
            raise StoreError(
                f"cannot hold off other commands at {place}: {error.strerror}; copy the store to a "
                "disk of this machine, purge the copy, and delete this one"
            ) from error
        for folder in _trainings(store):
            _require_idle(folder)
        yield


def _trainings(store: DatasetStore) -> list[Path]:
    folder = store.side_folder("training")
    return sorted(path for path in folder.glob("*") if path.is_dir() and not path.is_symlink())


def _require_idle(folder: Path) -> None:
    """Raise StoreError if a command is training there."""
    try:
        with durable.locked(folder, wait=False):
            pass
    except BlockingIOError as error:
        raise StoreError(
            f"a command is training a model in {folder}: wait for its end, or stop it; then give "
            "this command again"
        ) from error


def pending(store: DatasetStore) -> Entry | None:
    """Return the entry of a purge that was stopped, or None."""
    form = store._form
    count = form.count()
    newest = read_entry(form, count) if count else None
    return newest if newest is not None and newest["kind"] == PURGING else None


def replace(work: Rewriting, search: Search, note: Mapping[str, Any], progress: Progress) -> int:
    """Let the new log take the place of the old; return how many bytes were searched.

    note: what `pending` returns of this purge should it be killed. Only for who is `alone`.
    """
    if isinstance(work.store._form, PackedFile):
        return _replace_file(work, work.store._form, search, progress)
    entry = _intent(work, search, note)
    things = {f"shards/{name}": path for name, path in work.staged.items()}
    if not work.store._form.put(work.snapshot.number + 1, entry, things):
        raise StoreError(f"another command has just written to {work.store.path}: run this again")
    return finish(work.store, decode_entry(entry, "the entry of this purge"), progress)


def _intent(work: Rewriting, search: Search, note: Mapping[str, Any]) -> bytes:
    excused = {k.hex(): [text.hex() for text in v] for k, v in search.excused.items()}
    content = encode_entry(
        {
            **{k: work.chain[-1][k] for k in ("format", "number", "time", "augkit")},
            "previous": work.snapshot.entries[-1]["digest"],
            "kind": PURGING,
            "chain": work.chain,
            "pieces": " ".join(piece.hex() for piece in search.pieces),
            "excused": excused,
            "asked": dict(note),
        }
    )
    if not is_modest(content):
        raise StoreError(
            f"the log of {work.store.path} is too long to be rewritten at once ({len(content)} "
            "bytes): purge fewer images at a time"
        )
    return content


def finish(store: DatasetStore, intent: Entry, progress: Progress) -> int:
    """Delete all that the new log does not name, search every byte, and end the purge.

    Returns how many bytes were searched. May be killed and done again. Only for who is `alone`.
    """
    form = store._form
    assert isinstance(form, Folder)
    chain = intent["chain"]
    contents = [encode_entry(unsigned(entry) or {}) for entry in chain]
    with durable.writing(store.path):
        for number, content in enumerate(contents[:-1], 1):
            if form.entry(number) != content:
                form.rewrite_entry(number, content)
        form.keep_only(*(_named(chain, kind) for kind in ("shard", "model")))
        _drop_side_folders(store, chain)
    pieces = [bytes.fromhex(piece) for piece in intent["pieces"].split()]
    excused = {
        bytes.fromhex(k): [bytes.fromhex(t) for t in v] for k, v in intent["excused"].items()
    }
    search = Search(pieces, excused)
    there = [p for p in form.path.rglob("*") if p.is_file() or p.is_dir()]
    files = [p for p in there if p != form.entry_path(len(chain))]
    searched = require_none(search, files, progress) + len(contents[-1])
    assert not search.in_bytes(contents[-1])
    with durable.writing(store.path):
        form.rewrite_entry(len(chain), contents[-1])
    store.forget()
    return searched


def require_none(search: Search, files: Iterable[Path], progress: Progress) -> int:
    """Return how many bytes these files have. Raises StoreError if one holds what must be gone.

    Also if it, or a folder, is called so.
    """
    listed, searched, held = sorted(files), 0, []
    for done, path in enumerate(listed, 1):
        whole = not path.is_dir()
        if search.in_bytes(os.fsencode(path.name)) or (whole and search.in_file(path)):
            held.append(path)
        searched += path.stat().st_size if whole else 0
        progress("search", done, len(listed))
    if held:
        names = ", ".join(map(str, held[:3])) + (f" and {len(held) - 3} more" if held[3:] else "")
        raise StoreError(
            f"what is to be purged is also in {names}, which the store did not write: delete or "
            "move that, then give this command again, which finishes the purge"
        )
    return searched


def _named(chain: Sequence[Entry], kind: str) -> set[str]:
    return {str(entry[kind]["name"]) for entry in chain if kind in entry}


def _drop_side_folders(store: DatasetStore, chain: Sequence[Entry]) -> None:
    """Delete what evaluations left, and the trainings of models that are gone."""
    for name in SIDE_FOLDERS:
        durable.remove(store.side_folder(name))
    recipes = [read_model(entry).recipe for entry in chain if entry["kind"] == "model"]
    kept = {digest_of(recipe)[:16] for recipe in recipes}
    for folder in _trainings(store):
        _require_idle(folder)
        if folder.name not in kept:
            durable.remove(folder)


def _replace_file(work: Rewriting, form: PackedFile, search: Search, progress: Progress) -> int:
    """Write a packed store anew, search it, and put it in place of the old one."""
    with durable.writing(form.path):
        staged = form.stage()
        try:
            _write_file(work, form, staged)
            searched = require_none(search, [staged], progress)
            if form.count() != work.snapshot.number:
                raise StoreError(f"another command has just written to {form.path}: run this again")
            form.drop_staged(keep=staged)
            _drop_side_folders(work.store, work.chain)
            kept = [
                p for folder in _trainings(work.store) for p in folder.rglob("*") if p.is_file()
            ]
            searched += require_none(search, kept, progress)
            form.replace_whole(staged)
        finally:
            staged.unlink(missing_ok=True)
    work.store.forget()
    return searched


def _write_file(work: Rewriting, form: PackedFile, staged: Path) -> None:
    room = sum(path.stat().st_size for path in work.staged.values()) + form.path.stat().st_size
    with contextlib.closing(open_to_write(staged, work.store.shape, room)) as file:
        for entry in work.chain:
            if "shard" in entry:
                name = entry["shard"]["name"]
                target = file.create_group(f"shards/{name}")
                if name in work.staged:
                    form.copy_staged(work.staged[name], target)
                else:
                    form.export_shard(name, target)
            if "model" in entry:
                name = entry["model"]["name"]
                with form.lend_model(name) as folder:
                    add_model(file, f"models/{name}", folder)
            add_entry(file, entry["number"], encode_entry(unsigned(entry) or {}))
    seal(staged, len(work.chain))
