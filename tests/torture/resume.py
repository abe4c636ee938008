"""Commands that are killed and given again: the same bytes, and how much is begun twice.

What is begun is noted in a file: each fit of a classifier, each training step of a generator, each
block of images. A command is killed before a call that changes the disk, or as it begins something.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import augkit as ak
from augkit import making, studies
from augkit.designs import Design
from augkit.store.locate import is_store
from augkit.testing import phantoms

from .calls import Call, Do, install
from .kills import child
from .worlds import FORMS, Contents, Tally, contents, digest

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
    studies._do = in_worker
    return ak.study(asked, root / FORMS[form], workers=1).computed


_do = studies._do


def in_worker(task: Any) -> None:
    """Do one task of a study in its child process, and note what is begun."""
    global _noting
    if not _noting:
        _noting = True
        note_what_is_begun("study", lambda: None)
    _do(task)


_noting = False
_NOTES = "AUGKIT_TORTURE_NOTES"


def note_what_is_begun(command: str, also: Callable[[], None]) -> None:
    """Note each fit, step and block that this process begins, and then do something."""
    from augkit_classifiers.linear import Linear

    _noted(Linear, "fit", "fit", also)
    _noted(making, "_make", "block", also)
    if command == "dagan":
        from augkit_dagan import training

        training.CHECKPOINT_SECONDS, training.TURN_SECONDS = -1.0, 0.0  # after each step
        _noted(training.ClassTraining, "_generator_step", "step", also)


def _is_rehearsal(first: Any) -> bool:
    """Return True for a training that is only to show that there is enough memory."""
    return hasattr(first, "context") and first.context.folder is None


def _noted(owner: Any, name: str, what: str, also: Callable[[], None]) -> None:
    real = getattr(owner, name)

    def noted(*args: Any, **more: Any) -> Any:
        if _is_rehearsal(args[0]):
            return real(*args, **more)
        handle = os.open(os.environ[_NOTES], os.O_WRONLY | os.O_APPEND)
        os.write(handle, f"{what}\n".encode())
        os.close(handle)
        also()
        return real(*args, **more)

    setattr(owner, name, noted)


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
KEPT = {"evaluate": ("fit",), "study": ("fit",), "dagan": ("step", "block")}
"""What these keep; the others are one task."""


def outcome(root: Path) -> Contents:
    """Return digests of all that a command can leave: rows, models, results, outcomes, exports."""
    found: Contents = {}
    for path in sorted(root.rglob("*")):
        name, inside = str(path.relative_to(root)), {p.name for p in path.parents}
        if "~" in path.name:
            continue  # left by the killed command; the next one removes it
        if not inside & {"shards", "tmp"} and is_store(path):
            store = ak.open(path)
            real = store.snapshot().real.folds, store.snapshot().real.groups
            found |= {f"{name}: {what}": value for what, value in contents(store).items()}
            found[name] = digest(*real)
            store.close()
        elif path.is_file() and (kept := _kept(path)):
            found[name] = kept
    return found


def _kept(path: Path) -> str | None:
    """Return a digest of a result, an outcome, or an exported file; None for anything else."""
    folder = path.parent.name
    if any(parent.name == "exported" for parent in path.parents):
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
    """Kills this process before a call, or as it begins something."""

    at: int
    n: int = 0

    def __call__(self, call: Call, do: Do, half: Do | None) -> Any:
        self.step()
        return do()

    def step(self) -> None:
        self.n += 1
        if self.n == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def _run(command: str, form: str, root: Path, at: int) -> int:
    """Run a command in a child process, and kill it at a point; return the number of the child."""
    told = root.parent / "points.txt"

    def work() -> None:
        watch = Deadly(at)
        if command != "study":
            install(watch, root)
            note_what_is_begun(command, watch.step)
        COMMANDS[command](root, form)
        n, watch.at = watch.n, -1
        told.write_text(str(n))

    return child(work)


def _points(command: str, form: str, root: Path) -> int:
    """Run a command to its end; return at how many points it can be killed."""
    assert os.waitpid(_run(command, form, root, -1), 0)[1] == 0, command
    return int((root.parent / "points.txt").read_text())


def _kill(command: str, form: str, root: Path, at: int, seconds: float) -> bool:
    """Run a command and kill it at a point; a study, which has children that work, after a time."""
    pid = _run(command, form, root, at)
    if command == "study":
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.5)  # its child ends once it sees that its parent is gone
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@dataclass
class Resumed:
    """What the kills of one command led to."""

    tally: Tally
    begun: Counter[str]
    """How many fits, steps and blocks an undisturbed command begins."""
    twice: Counter[str]
    """How many of them were begun twice, at most."""


def campaign(command: str, form: str, root: Path, n: int, seed: int = 0) -> Resumed:
    """Kill a command n times, each time a fresh one, and give it again."""
    _warm_up(command)
    shutil.rmtree(root, ignore_errors=True)
    base, here, rng = root / "base", root / "here", np.random.default_rng(seed)
    prepare(base, form)
    os.environ[_NOTES] = str(root / "begun.txt")
    _begin(base, here)
    began = time.monotonic()
    _points(command, form, here)
    took, begun, expected = time.monotonic() - began, _begun(root), outcome(here)
    _begin(base, here)
    points = _points(command, form, here)
    found = Resumed(Tally(), begun, Counter())
    assert outcome(here) == expected, f"{command} does not repeat itself"
    while found.tally.n < n:
        _begin(base, here)
        at = int(rng.integers(1, max(points, 1) + 1))  # a study has none of its own
        if not _kill(command, form, here, at, rng.uniform(0.1, 1) * took):
            continue
        where = f"{form}: {command} killed at {at} of {points}"
        _go_on(command, form, here, expected, found, where)
    return found


def _go_on(
    command: str, form: str, here: Path, expected: Contents, found: Resumed, where: str
) -> None:
    """Give a killed command again, and hold what it did against what it had to do."""
    found.tally.n += 1
    if outcome(here) != expected:
        status = os.waitpid(_run(command, form, here, -1), 0)[1]
        if status or outcome(here) != expected:
            found.tally.errors += 1
            found.tally.notes.append(f"{where}: another outcome")
    twice = _begun(here.parent) - found.begun
    found.twice |= twice
    if any(twice[what] > 1 for what in KEPT.get(command, ())):
        found.tally.lost += 1
        found.tally.notes.append(f"{where}: begun twice: {dict(twice)}")


def _begun(root: Path) -> Counter[str]:
    return Counter((root / "begun.txt").read_text().split())


def _warm_up(command: str) -> None:
    """Import here, once, what every child needs."""
    for name in ak.__all__:
        getattr(ak, name)
    needed = ["scipy.stats", "sklearn.linear_model", "augkit_classifiers.linear", "augkit.quality"]
    for name in [
        *needed,
        *(["augkit_dagan.training", "torch._dynamo"] if command == "dagan" else []),
    ]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _begin(base: Path, here: Path) -> None:
    """Make a fresh copy, always in the same place: an outcome names its store."""
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(base, here)
    (here.parent / "begun.txt").write_text("")
