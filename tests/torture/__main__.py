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

from . import commands, crowds, faults, flips, interrupts, kills, power, resume
from .worlds import FORMS, Tally, make_empty, make_world, scratch

Line = tuple[str, int, str, Tally]
"""Form of the store, writers at once, what was done to it, and what was found."""

_KILLS = {"folder": (125, 80), "file": (60, 45)}
"""Of each call with each of four numbers of writers: of those that make a commit, and of the
others; 500 or more of each in all."""
_OF_A_COMMIT = ("write", "fsync", "rename", "link")
_ALONE = {"folder": {"link": 125}, "file": {"rmdir": 125, "sendfile": 125}}
"""Calls that are made in one form only."""
_FLIPS = {"folder": 2000, "file": 5000}
"""In each file; most files of the small store have fewer bytes."""
_RANDOM = {"folder": 150, "file": 80}
"""Random subsets of what was not flushed, for each recording of a commit."""
_INTERRUPTS = 200
"""Lines of ours before which Ctrl-C comes, drawn from all that a command comes to."""
_POWER = (("images", "images"), ("run", "run"), ("model", "run"))


def kill_lines(root: Path) -> Iterator[Line]:
    """Kill one to four writers at every call."""
    rng = np.random.default_rng(0)
    for form in FORMS:
        world = make_world(form, root)
        for n_writers in (1, 2, 3, 4):
            most, least = _KILLS[form]
            each = defaultdict(lambda least=least: least, dict.fromkeys(_OF_A_COMMIT, most))
            each |= _ALONE[form]
            found = kills.campaign(world, n_writers, each, root, rng)
            for name, tally in sorted(found.items()):
                yield form, n_writers, name, tally


def power_lines(root: Path) -> Iterator[Line]:
    """Cut the power at every moment of a commit, alone and with a rival in its midst."""
    rng = np.random.default_rng(1)
    for form in FORMS:
        for kinds in _POWER:
            world = (make_empty if kinds[0] == "images" else make_world)(form, root)
            found = power.campaign(world, kinds, root, rng, n_random=_RANDOM[form], every=2)
            yield form, 2, " and ".join(kinds), found
            shutil.rmtree(world.base)


def fault_lines(root: Path) -> Iterator[Line]:
    """Refuse every call of a commit, send signals at it, turn the clock back."""
    for form in FORMS:
        world = make_world(form, root)
        for fault in faults.FAULTS:
            yield form, 1, fault, faults.campaign(world, fault, root, 1)
        yield form, 1, "clock goes back", faults.clocks(world, root, 8)


def crowd_lines(root: Path) -> Iterator[Line]:
    """Let eight writers and four readers loose on one store for five minutes."""
    for form in FORMS:
        world = make_world(form, root)
        found, done = crowds.campaign(world, root, seconds=300)
        yield form, 8, "; ".join(f"{n} {what}" for what, n in done.items()), found


def flip_lines(root: Path) -> Iterator[Line]:
    """Flip a bit of as many bytes of every file as there are, or of so many."""
    for form in FORMS:
        found = flips.campaign(make_world(form, root), root, _FLIPS[form])
        yield form, 0, "verify", found


def resume_lines(root: Path) -> Iterator[Line]:
    """Kill every command at twenty points, and give it again."""
    for form in FORMS:
        for command in resume.COMMANDS:
            found = resume.campaign(command, form, root / form, 20)
            kept = (f"{found.twice[what]} of {found.begun[what]} {what}s twice"
                    for what in resume.KEPT.get(command, ()))  # fmt: skip
            yield form, 1, f"{command}: {'; '.join(kept) or 'anew'}", found.tally


def interrupt_lines(root: Path) -> Iterator[Line]:
    """Press Ctrl-C before the lines of ours that a command comes to."""
    rng = np.random.default_rng(2)
    for form in FORMS:
        for command in interrupts.COMMANDS:
            world = (make_empty if command == "images" else make_world)(form, root)
            found = interrupts.campaign(world, command, root, rng, _INTERRUPTS)
            yield form, 1, command, found
            shutil.rmtree(world.base)


def command_lines(root: Path) -> Iterator[Line]:
    """Kill every command at every call, and give it again."""
    for form in FORMS:
        for command in commands.COMMANDS:
            yield form, 1, command, commands.campaign(command, form, root / "killed")


PARTS: dict[str, Callable[[Path], Iterator[Line]]] = {
    "kills": kill_lines,
    "power": power_lines,
    "faults": fault_lines,
    "crowds": crowd_lines,
    "flips": flip_lines,
    "resume": resume_lines,
    "interrupts": interrupt_lines,
    "commands": command_lines,
}


def main() -> int:
    """Run the campaign; return 0 if nothing was lost, seen too early, or in need of a repair."""
    parser = argparse.ArgumentParser(prog="python -m torture")
    parser.add_argument("--csv", type=Path, help="write what was found into this file, and leave "
                        "there what it has of other parts")  # fmt: skip
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    options = parser.parse_args()
    done, began = _kept(options.csv), time.monotonic()
    clean = True
    with tempfile.TemporaryDirectory(dir=scratch(), prefix="augkit-torture-") as name:
        os.environ["AUGKIT_EXAMINED"] = f"{name}/examined"
        for part in options.parts:
            (root := Path(name) / part).mkdir()
            done[part] = []
            for line in PARTS[part](root):
                _show(part, line, time.monotonic() - began)
                done[part].append(_row(part, line))
                clean &= line[-1].clean
                _keep(options.csv, done)
            shutil.rmtree(root)
    return 0 if clean else 1


def _show(part: str, line: Line, seconds: float) -> None:
    form, writers, at, tally = line
    found = f"{tally.n}: lost {tally.lost}, visible {tally.visible}, errors {tally.errors}"
    print(f"{seconds:6.0f} s  {part}, {form}, {writers}, {at}: {found}", flush=True)
    for note in tally.notes[:5]:
        print(f"    {note}", file=sys.stderr, flush=True)


def _row(part: str, line: Line) -> list[str]:
    form, writers, at, tally = line
    return list(map(str, (part, form, writers, at, *tally.counts)))


_HEAD = ["part", "form", "writers", "at", "n", "lost", "visible", "errors"]


def _kept(path: Path | None) -> dict[str, list[list[str]]]:
    """Return the rows of every part that an earlier campaign has left in a file."""
    found: dict[str, list[list[str]]] = {part: [] for part in PARTS}
    if path is not None and path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            for row in [*csv.reader(file)][1:]:
                found[row[0]].append(row)
    return found


def _keep(path: Path | None, done: dict[str, list[list[str]]]) -> None:
    """Write the rows of all parts, those of this campaign in place of older ones."""
    if path is None:
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_HEAD)
        for rows in done.values():
            writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
