"""The full campaign, or some parts of it, as a CSV file: a line for each thing that was done."""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from . import crowds, faults, flips, kills, power, resume
from .worlds import FORMS, Tally, make_empty, make_world, scratch

Line = tuple[str, str, int, str, Tally]
"""Part, form of the store, writers at once, what was done to it, and what was found."""

_KILLS = {"folder": (125, 60), "file": (60, 35)}
"""Of each call with each number of writers: of those that make a commit, and of the others."""
_OF_A_COMMIT = ("write", "fsync", "rename", "link")
_FLIPS = {"folder": 2000, "file": 5000}
"""In each file; most files of the small store have fewer bytes."""
_RANDOM = {"folder": 150, "file": 80}
"""Random subsets of what was not flushed, for each recording of a commit."""
_POWER = (("images", "images"), ("run", "run"), ("model", "run"))


def kill_lines(root: Path) -> Iterator[Line]:
    """Kill one to four writers at every call."""
    rng = np.random.default_rng(0)
    for form in FORMS:
        world = make_world(form, root)
        for n_writers in (1, 2, 3, 4):
            most, least = _KILLS[form]
            each = defaultdict(lambda least=least: least, dict.fromkeys(_OF_A_COMMIT, most))
            found = kills.campaign(world, n_writers, each, root, rng)
            for name, tally in sorted(found.items()):
                yield "kills", form, n_writers, name, tally


def power_lines(root: Path) -> Iterator[Line]:
    """Cut the power at every moment of a commit, alone and with a rival in its midst."""
    rng = np.random.default_rng(1)
    for form in FORMS:
        for kinds in _POWER:
            world = (make_empty if kinds[0] == "images" else make_world)(form, root)
            found = power.campaign(world, kinds, root, rng, n_random=_RANDOM[form], every=2)
            yield "power cuts", form, 2, " and ".join(kinds), found
            shutil.rmtree(world.base)


def fault_lines(root: Path) -> Iterator[Line]:
    """Refuse every call of a commit, send signals at it, turn the clock back."""
    for form in FORMS:
        world = make_world(form, root)
        for fault in faults.FAULTS:
            yield "faults", form, 1, fault, faults.campaign(world, fault, root, 1)
        yield "faults", form, 1, "clock goes back", faults.clocks(world, root, 8)


def crowd_lines(root: Path) -> Iterator[Line]:
    """Let eight writers and four readers loose on one store for five minutes."""
    for form in FORMS:
        world = make_world(form, root)
        found, done = crowds.campaign(world, root, seconds=300)
        yield "crowd", form, 8, "; ".join(f"{n} {what}" for what, n in done.items()), found


def flip_lines(root: Path) -> Iterator[Line]:
    """Flip a bit of as many bytes of every file as there are, or of so many."""
    for form in FORMS:
        found = flips.campaign(make_world(form, root), root, _FLIPS[form])
        yield "flipped bytes", form, 0, "verify", found


def resume_lines(root: Path) -> Iterator[Line]:
    """Kill every command at twenty points, and give it again."""
    for form in FORMS:
        for command in resume.COMMANDS:
            found, total, twice = resume.campaign(command, form, root / form, 20)
            done = f"of {total} fits {twice} begun twice" if command in resume.KEPT else "anew"
            yield "resume", form, 1, f"{command}, {done}", found


PARTS: dict[str, Callable[[Path], Iterator[Line]]] = {
    "kills": kill_lines,
    "power": power_lines,
    "faults": fault_lines,
    "crowds": crowd_lines,
    "flips": flip_lines,
    "resume": resume_lines,
}


def main() -> int:
    """Run the campaign; return 0 if nothing was lost, seen too early, or in need of a repair."""
    parser = argparse.ArgumentParser(prog="python -m torture")
    parser.add_argument("--csv", type=Path, help="write what was found into this file")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    options = parser.parse_args()
    lines, began = [], time.monotonic()
    with tempfile.TemporaryDirectory(dir=scratch(), prefix="augkit-torture-") as name:
        os.environ["AUGKIT_EXAMINED"] = f"{name}/examined"
        for part in options.parts:
            (root := Path(name) / part).mkdir()
            for line in PARTS[part](root):
                _show(line, time.monotonic() - began)
                lines.append(line)
                _keep(options.csv, lines)
    return 0 if all(line[-1].clean for line in lines) else 1


def _show(line: Line, seconds: float) -> None:
    part, form, writers, at, tally = line
    found = f"{tally.n}: lost {tally.lost}, visible {tally.visible}, errors {tally.errors}"
    print(f"{seconds:6.0f} s  {part}, {form}, {writers}, {at}: {found}", flush=True)
    for note in tally.notes[:5]:
        print(f"    {note}", file=sys.stderr, flush=True)


def _keep(path: Path | None, lines: list[Line]) -> None:
    if path is None:
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["part", "form", "writers", "at", "n", "lost", "visible", "errors"])
        for part, form, writers, at, tally in lines:
            counts = (tally.n, tally.lost, tally.visible, tally.errors)
            writer.writerow([part, form, writers, at, *counts])


if __name__ == "__main__":
    sys.exit(main())
