"""Ctrl-C before every line of our own code: the command says so, and leaves nothing behind.

The signal comes where Python would answer it, in the main thread, while others are at work.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import augkit as ak

from .kills import child
from .worlds import KINDS, Tally, World, check, leftovers

OURS = str(Path(ak.__file__).parent)
Line = tuple[str, int]
"""A file, and the number of a line in it."""


def run(path: Path, number: int) -> None:
    """Commit a run, made by two threads."""
    ak.augment(path, "zoom+brightness", n=2, seed=number, run=f"run-{number}", workers=2, block=9)


COMMANDS: dict[str, Callable[[Path, int], Any]] = {
    "run": run,
    "model": KINDS["model"],
    "images": KINDS["images"],
    "pack": lambda path, number: _convert(path),
    "export": lambda path, number: ak.export(path, path.parent / "exported", "webdataset"),
}


def _convert(path: Path) -> None:
    store = ak.open(path)
    if store.form == "folder":
        ak.pack(store, path.parent / "other.h5")
    else:
        ak.unpack(store, path.parent / "other.store")


class Interrupter:
    """Notes each line of ours that this thread comes to, and presses Ctrl-C before one of them."""

    def __init__(self, at: int):
        self.at = at
        """Counted from 0; -1: never."""
        self.lines: list[Line] = []

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        if event == "line":
            self.lines.append((frame.f_code.co_filename, frame.f_lineno))
            if len(self.lines) == self.at + 1:
                os.kill(os.getpid(), signal.SIGINT)
        return self


def watched(command: str, path: Path, at: int, told: Path) -> tuple[str, list[Line]]:
    """Run a command in a child process; return how it ended, and the lines that it came to."""
    told.unlink(missing_ok=True)

    def work() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        how, watch = "", Interrupter(at)
        try:
            sys.settrace(watch)
            COMMANDS[command](path, 0)
        except BaseException as error:
            how = f"{type(error).__name__}: {error}"
        finally:
            sys.settrace(None)
        told.write_text(json.dumps([how, watch.lines if at < 0 else []]))

    os.waitpid(child(work), 0)
    how, lines = json.loads(told.read_text()) if told.exists() else ("died", [])
    return how, [(file, number) for file, number in lines]


def points(lines: list[Line], n: int, rng: np.random.Generator) -> list[int]:
    """Return one of the times that each line is come to: of n lines, or of all if n is 0."""
    times: dict[Line, list[int]] = {}
    for at, line in enumerate(lines):
        times.setdefault(line, []).append(at)
    chosen = [int(rng.choice(each)) for each in times.values()]
    return chosen if not n else sorted(rng.permutation(chosen)[:n].tolist())


def campaign(world: World, command: str, root: Path, rng: np.random.Generator, n: int = 0) -> Tally:
    """Press Ctrl-C before n of the lines that a command comes to, or before each of them."""
    home, told, found = root / "interrupted", root / "told.json", Tally()
    how, lines = watched(command, world.copy(home), -1, told)
    assert not how and lines, (command, how)
    for at in points(lines, n, rng):
        path = world.copy(home)
        how, _ = watched(command, path, at, told)
        file, number = lines[at]
        where = f"{world.form}: Ctrl-C at {Path(file).name}:{number} of {command}"
        wrong = [] if how == "KeyboardInterrupt: " else [how or "not stopped"]
        if left := leftovers(path):
            wrong.append(f"left: {left}")
        for other in (*home.glob("other.*"), *home.glob("exported")):  # whole, or not there
            wrong += [] if _is_whole(other) else [f"{other.name} is not whole"]
            shutil.rmtree(other) if other.is_dir() else other.unlink()
        found.add(check(path, world.before, world.commits.get((command, 0), {}), where))
        found.n += 1
        found.errors += bool(wrong)
        found.notes += [f"{where}: {'; '.join(wrong)}"] if wrong else []
    return found


def _is_whole(other: Path) -> bool:
    if other.name == "exported":
        return (other / "export.json").exists()
    return bool(ak.verify(ak.open(other)).sound)
