"""Commands that are killed and given again: the same bytes, and how much is done twice."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import augkit as ak
from augkit.designs import Design
from augkit.store.locate import is_store
from augkit.testing import phantoms

from .calls import Call, Do, install
from .kills import child
from .worlds import FORMS, Contents, Tally, digest

CLASSES = ("benign", "malignant", "normal")
DAGAN = {
    "preset": "quick", "steps": 6, "batch": 4, "widths": (6, 4), "latent": 5, "size": "32x24",
    "precision": "float32",
}  # fmt: skip
"""A generator that is trained in a second."""


def prepare(root: Path, form: str) -> None:
    """Make a folder of images, and a store of them with a run."""
    made, _, labels = phantoms(22, height=24, width=32, seed=3, difficulty=0.3)
    for i, (image, label) in enumerate(zip(made, labels, strict=True)):
        path = root / "images" / CLASSES[label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    ak.ingest(root / "images", root / FORMS[form], size="32x24", find_relatives=False, workers=1)
    ak.augment(root / FORMS[form], "flip", workers=1)


def evaluate(root: Path, form: str) -> int:
    """Evaluate two arms; return how many fits that took."""
    found = ak.evaluate(root / FORMS[form], "linear", folds=5, arms=["real", "flip"])
    return found.computed


def study(root: Path, form: str) -> int:
    """Do a small study in one child process; return how many fits that took."""
    about = {"classifiers": ["linear"], "arms": ["real", "flip"], "folds": 5, "seeds": 3}
    asked = Design.of(about, "the study")
    return ak.study(asked, root / FORMS[form], workers=1).computed


def augment(root: Path, form: str) -> int:
    """Make a run of 300 images; return how many were made."""
    return 300 * ak.augment(root / FORMS[form], "zoom+brightness", n=100, workers=1).made


def dagan(root: Path, form: str) -> int:
    """Train a small generator and make 96 images with it."""
    made = ak.augment(root / FORMS[form], "dagan", DAGAN, n=32, workers=1, block=16).made
    return 96 * made


def ingest(root: Path, form: str) -> int:
    """Read the images into a second store; return how many were read."""
    target = root / f"second{Path(FORMS[form]).suffix}"
    return ak.ingest(root / "images", target, size="32x24", find_relatives=False, workers=1).added


def export(root: Path, form: str) -> int:
    """Export the store as WebDataset; return how many images were written."""
    ak.export(root / FORMS[form], root / "exported", "webdataset", arms=["all"])
    return 1


def pack(root: Path, form: str) -> int:
    """Turn the store into its other form."""
    store = ak.open(root / FORMS[form])
    if form == "folder":
        ak.pack(store, root / "packed.h5")
    else:
        ak.unpack(store, root / "unpacked.store")
    return 1


COMMANDS: dict[str, Callable[[Path, str], int]] = {
    "ingest": ingest, "augment": augment, "evaluate": evaluate,
    "study": study, "dagan": dagan, "export": export, "pack": pack,
}  # fmt: skip
KEPT = {"evaluate", "study"}
"""These keep every task that is done; the others are one task."""


def outcome(root: Path, form: str) -> Contents:
    """Return digests of all that a command can leave: rows, results, outcomes, exported files."""
    found: Contents = {}
    for path in sorted(root.rglob("*")):
        name, inside = str(path.relative_to(root)), {p.name for p in path.parents}
        if "~" in path.name:
            continue  # left by the killed command; the next one removes it
        if not inside & {"shards", "tmp"} and is_store(path):
            snapshot = ak.open(path).snapshot()
            found[name] = digest(snapshot.inspect()[:], snapshot.real.keys, snapshot.real.folds)
            for run in snapshot.runs:
                found[f"{name}: {run}"] = digest(snapshot.inspect(run)[:], snapshot.params(run))
        elif path.is_file() and (kept := _kept(path)):
            where = "results" if "results" in str(path.parent.name) else path.parent.name
            found[f"{where}/{path.name}"] = kept
    return found


def _kept(path: Path) -> str | None:
    """Return a digest of a result, an outcome, or an exported file; None for anything else."""
    folder = path.parent.name
    if folder == "exported":
        return digest(np.frombuffer(path.read_bytes(), np.uint8))
    if path.suffix == ".json" and folder.endswith(("results", "outcomes")):
        value = json.loads(path.read_bytes())
        if "cells" in value:  # of an outcome: what was found; not when, where and how fast
            return digest(json.dumps(value["cells"], sort_keys=True))
        if "probabilities" in value:
            return digest(value["probabilities"])
    return None


@dataclass
class Deadly:
    """Kills this process before a call."""

    at: int
    n: int = 0

    def __call__(self, call: Call, do: Do, half: Do | None) -> Any:
        self.n += 1
        if self.n == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return do()


def _counted(command: str, form: str, root: Path) -> int:
    """Return how many calls a command makes that change the disk."""
    told = root.parent / "calls.txt"

    def work() -> None:
        watch = Deadly(-1)
        install(watch, root)
        COMMANDS[command](root, form)
        n, watch.at = watch.n, -1
        told.write_text(str(n))

    assert os.waitpid(child(work), 0)[1] == 0, command
    return int(told.read_text())


def _kill(command: str, form: str, root: Path, at: int, seconds: float) -> bool:
    """Run a command and kill it: before a call, or, if it has children that work, after a time."""

    def work() -> None:
        if command != "study":
            install(Deadly(at), root)
        COMMANDS[command](root, form)

    pid = child(work)
    if command == "study":
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.5)  # its child ends once it sees that its parent is gone
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def campaign(command: str, form: str, root: Path, n: int, seed: int = 0) -> tuple[Tally, int, int]:
    """Kill a command n times; return what was found, the work it has in all, and most done twice.

    The work of evaluate and study is fits, that of the others the command itself.
    """
    _warm_up(command)
    shutil.rmtree(root, ignore_errors=True)
    base, here, rng = root / "base", root / "here", np.random.default_rng(seed)
    prepare(base, form)
    _begin(base, here)
    began = time.monotonic()
    total = _work(command, form, here)
    took, expected, found, twice = time.monotonic() - began, outcome(here, form), Tally(), 0
    _begin(base, here)
    calls = _counted(command, form, here)
    for _ in range(n):
        _begin(base, here)
        at = int(rng.integers(1, calls + 1))
        if not _kill(command, form, here, at, rng.uniform(0.2, 1) * took):
            continue
        found.n += 1
        before = outcome(here, form)
        kept = sum(name.startswith("results/") for name in before)
        again = _work(command, form, here) if before != expected or command in KEPT else 0
        if command in KEPT:
            found.lost += again + kept != total
            twice = max(twice, int(again > 0))
        if outcome(here, form) != expected:
            found.errors += 1
            found.notes.append(f"{form}: {command} killed at {at} of {calls}: another outcome")
    return found, total, twice


def _warm_up(command: str) -> None:
    """Import here, once, what every child needs."""
    for name in ak.__all__:
        getattr(ak, name)
    needed = ["scipy.stats", "sklearn.linear_model", "augkit_classifiers.linear", "augkit.quality"]
    for name in [*needed, *(["augkit_dagan.training"] if command == "dagan" else [])]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _begin(base: Path, here: Path) -> None:
    """Make a fresh copy, always in the same place: an outcome names its store."""
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(base, here)


def _work(command: str, form: str, root: Path) -> int:
    """Run a command to its end in a child process; return how much work that was."""
    told = root.parent / "work.txt"

    def work() -> None:
        told.write_text(str(COMMANDS[command](root, form)))

    assert os.waitpid(child(work), 0)[1] == 0, command
    return int(told.read_text())
