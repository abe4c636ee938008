"""Small stores of which everything visible is known, and writers that commit to them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import augkit as ak
from augkit.errors import StoreError
from augkit.store import DatasetStore, durable
from augkit.store.locate import is_store
from augkit.store.screening import trust

FORMS = {"folder": "a.store", "file": "a.h5"}
SHAPE = (8, 8, 1)
WRITERS = 4

Contents = dict[str, str]
"""Name of what is visible -> digest of everything in it."""


def make_base(path: Path) -> None:
    """Make a store with real images, a run and a model."""
    commit_images(path, 99)
    commit_run(path, 99)
    commit_model(path, 99)


def commit_images(path: Path, number: int) -> None:
    """Commit a data set of real images, into a new store where there is none yet."""
    try:
        store = DatasetStore.create(path, height=SHAPE[0], width=SHAPE[1])
    except StoreError:  # it is there
        store = ak.open(path)
    names = ["a", "b"] * 6
    pixels = np.random.default_rng(number).integers(0, 256, (len(names), *SHAPE), np.uint8)
    keys = [f"{i}.png" for i in range(len(names))]
    dataset = f"images-{number}"
    ak.ingest_arrays(store, [pixels], names, keys=keys, dataset=dataset, find_relatives=False)


def commit_run(path: Path, number: int) -> None:
    """Commit a run; its content follows from its number alone."""
    ak.augment(path, "zoom+brightness", n=2, seed=number, run=f"run-{number}", workers=1)


def commit_model(path: Path, number: int) -> None:
    """Commit a model; its content follows from its number alone."""
    store = ak.open(path)
    with store.new_model() as staged, durable.writing(path):
        (staged / "settings.json").write_text(f'{{"number": {number}}}')
        (staged / "weights.safetensors").write_bytes(bytes([number]) * 9000)
        store.commit(lambda _: _about_model(number), model=staged)


def _about_model(number: int) -> dict[str, Any]:
    plugin = {"name": "gan", "distribution": "toys", "version": "1", "options": {"n": number}}
    return {
        "kind": "model", "recipe": {"plugin": plugin, "partition": "70/15/15"},
        "fitted_on": [0, 1], "trained_from": "", "partition": "70/15/15",
        "complete": True, "note": f"model-{number}", "details": {},
    }  # fmt: skip


KINDS: dict[str, Callable[[Path, int], None]] = {
    "run": commit_run,
    "model": commit_model,
    "images": commit_images,
}
"""What a writer may commit; images also where there is no store yet."""


def contents(store: DatasetStore) -> Contents:
    """Return everything visible: real images, runs and models, each with a digest."""
    snapshot, found = store.snapshot(), {}
    real, pixels = snapshot.real, snapshot.inspect()[:]
    for name in snapshot.datasets:
        rows = real.datasets == name
        columns = (pixels, real.keys, real.labels, real.sha256)
        found[name] = digest(*(each[rows] for each in columns))
    for name, run in snapshot.runs.items():
        made, fitted = snapshot.inspect(name), run.fitted_on
        lineage = snapshot.parents(name) if fitted is None else fitted
        found[name] = digest(made[:], made.labels, lineage, snapshot.params(name))
    for model in snapshot.models.values():
        with store.model_folder(model.name) as folder:
            files = [np.frombuffer(p.read_bytes(), np.uint8) for p in sorted(folder.iterdir())]
        found[model.note or model.name] = digest(*files, model.fitted_on)
    return found


def digest(*arrays: Any) -> str:
    """Return a SHA-256 of arrays with their types and shapes."""
    total = hashlib.sha256()
    for array in map(np.asarray, arrays):
        total.update(f"{array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def leftovers(path: Path) -> list[str]:
    """Return what lies in or beside a store and belongs to no commit."""
    found = [str(p) for p in path.parent.rglob("*") if "~" in p.name]
    return found + [str(p) for p in path.rglob("tmp/*")]


@dataclass
class Tally:
    """What a part of the campaign found, for one line of the CSV file."""

    n: int = 0
    """Kills, states, or whatever was done to the store."""
    lost: int = 0
    """Committed things that are gone or changed."""
    visible: int = 0
    """Things that are seen and were not committed."""
    errors: int = 0
    """What needed a repair: a store that is not sound, a next commit or an open that failed."""
    notes: list[str] = field(default_factory=list)
    """What happened where something was wrong."""

    def add(self, other: Tally) -> None:
        """Add the counts of another."""
        self.n += other.n
        self.lost += other.lost
        self.visible += other.visible
        self.errors += other.errors
        self.notes += other.notes

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Return n, lost, visible, errors."""
        return self.n, self.lost, self.visible, self.errors

    @property
    def clean(self) -> bool:
        """Return True if nothing was wrong."""
        return not (self.lost or self.visible or self.errors or self.notes)


def check(path: Path, must: Contents, may: Contents, where: str, *, tidy: bool = True) -> Tally:
    """Hold a store against what was committed, then commit once more; no repair in between.

    must: what has to be visible; may: what can be as well, because it was not over yet. tidy: the
    next commit has to remove what was left.
    """
    found = Tally()
    try:
        store = ak.open(path) if is_store(path) else None
        now = contents(store) if store else {}
        found.lost += sum(now.get(name) != value for name, value in must.items())
        found.visible += sum(
            name not in must and may.get(name) != value for name, value in now.items()
        )
        wrong = _go_on(store, path, now, tidy)
    except Exception as error:
        wrong = [f"{type(error).__name__}: {error}"]
    if found.lost or found.visible:
        wrong = [f"lost {found.lost}, visible {found.visible}", *wrong]
    elif wrong:
        found.errors = 1
    found.notes += [f"{where}: {'; '.join(wrong)}"] if wrong else []
    return found


def _go_on(store: DatasetStore | None, path: Path, now: Contents, tidy: bool) -> list[str]:
    """Commit once more, as another command would; return what is wrong then."""
    before = store.snapshot().number if store else 0
    (commit_run if before else commit_images)(path, 77)
    store, wrong = store or ak.open(path), []
    verified, after = ak.verify(store), contents(store)
    if not verified.sound:
        wrong.append(str(verified))
    if store.snapshot().number != before + 1:
        wrong.append("the next commit has not the next number")
    new = after.pop("run-77" if before else "images-77", None)
    if after != now or new is None:
        wrong.append("the next commit is not there, or changed what was")
    if tidy and (left := leftovers(path) + verified.uncommitted):
        wrong.append(f"left: {left}")
    store.close()
    return wrong


@dataclass
class World:
    """A store to start from, in one form, and what each writer's commit holds."""

    form: str
    base: Path
    """A folder with the store in it."""
    before: Contents
    commits: dict[tuple[str, int], Contents]
    """Kind and number of a writer -> what its commit makes visible."""

    def copy(self, target: Path) -> Path:
        """Return the path of a fresh copy of the store."""
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.base, target)
        know(target)
        return target / FORMS[self.form]


def make_empty(form: str, root: Path) -> World:
    """Make a place where no store is yet, and find out what the first commits look like."""
    base = root / f"empty-{form}"
    base.mkdir(parents=True)
    world = World(form, base, {}, {})
    for number in range(2):
        path = world.copy(root / f"try-{form}")
        commit_images(path, number)
        world.commits["images", number] = contents(ak.open(path))
    return world


def make_world(form: str, root: Path) -> World:
    """Make the store, and find out what every writer's commit looks like."""
    base = root / f"base-{form}"
    base.mkdir(parents=True)
    make_base(base / FORMS[form])
    world = World(form, base, contents(ak.open(base / FORMS[form])), {})
    for kind in ("run", "model"):
        for number in range(WRITERS):
            path = world.copy(root / f"try-{form}")
            KINDS[kind](path, number)
            now = contents(ak.open(path))
            world.commits[kind, number] = {k: now[k] for k in now.keys() - world.before.keys()}
    return world


def know(root: Path) -> None:
    """Take our own copies of HDF5 files for known: else a child process has to examine each."""
    for path in root.rglob("*.h5"):
        trust(path, "packed" if path.name == FORMS["file"] else "shard", remember=False)


def scratch() -> Path:
    """Return a folder for the stores: in memory where that can be had, for nothing is at stake."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and os.access(memory, os.W_OK) else Path("/tmp")
