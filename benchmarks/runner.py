"""Measure our code against its peers, side by side in one process.

Absolute times do not travel from machine to machine; ratios do. So every repeat runs ours and then
each peer, and what counts is the median of the ratios of the repeats, with its spread.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Work = Callable[[], object]
Clock = Callable[[], float]

SHORTEST = 0.1
"""Seconds that one timing takes at least; shorter work is repeated within it."""


@dataclass(frozen=True)
class Case:
    """One piece of work, done by us and by peers."""

    name: str
    ours: Work
    peers: dict[str, Work]
    """By name; its first word is the distribution whose version is recorded."""
    units: int = 1
    """How many units, such as images, one call works through; times are given for one."""
    clock: Clock = time.perf_counter
    """time.process_time suits work on one thread without waiting: others' load falls out."""
    cold: bool = False
    """True for processes of their own: nothing warms up, each timing is one call."""


@dataclass(frozen=True)
class Row:
    """One peer in one case. A ratio is the peer's time over ours: above 1, ours is faster."""

    peer: str
    peer_version: str
    ratio_median: float
    ratio_min: float
    ratio_max: float
    ours_us: float
    peer_us: float
    repeats: int


def measure(
    ours: Work,
    peers: dict[str, Work],
    repeats: int,
    *,
    units: int = 1,
    clock: Clock = time.perf_counter,
    cold: bool = False,
) -> list[Row]:
    """Return one row a peer: ratios over `repeats` alternating runs, microseconds a unit.

    Each is run once beforehand, so that imports and caches are warm, unless `cold`. Times are
    medians.
    """
    works = {"": ours, **peers}
    counts = {name: 1 if cold else _calls(work, clock) for name, work in works.items()}
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(_seconds(work, counts[name], clock) / units)
    return [_row(name, times[""], times[name]) for name in peers]


def machine() -> dict[str, str]:
    """Return what the numbers depend on: processor, cores, Python and library versions."""
    facts = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    for name in ("numpy", "h5py", "opencv-python-headless", "opencv-python", "torch"):
        if version(name):
            facts[name] = version(name)
    if gpu := _gpu():
        facts["gpu"] = gpu
    return facts


def version(distribution: str) -> str:
    """Return the installed version of a distribution; empty if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ""


def main(benchmark: str, cases: Iterable[Case], argv: Sequence[str] | None = None) -> None:
    """Measure the cases, print a table, and append it to the file given with `--csv`."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.bench_{benchmark}")
    parser.add_argument("--csv", type=Path, help="append the rows, as in benchmarks/results/")
    parser.add_argument("--repeats", type=int, default=9, help="alternating runs (default: 9)")
    options = parser.parse_args(argv)
    print("; ".join(f"{key} {value}" for key, value in machine().items()))
    print(
        f"{'case':24} {'peer':32} {'times ours':>10} {'spread':>15} {'ours us':>9} {'peer us':>9}"
    )
    for case in cases:
        rows = measure(
            case.ours,
            case.peers,
            options.repeats,
            units=case.units,
            clock=case.clock,
            cold=case.cold,
        )
        for row in rows:
            _print(case.name, row)
        if options.csv is not None:
            append(options.csv, [_columns(benchmark, case.name, row) for row in rows])


def append(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Append rows to a CSV file, each with date and machine; a new file gets its header."""
    facts = machine()
    python = facts.pop("python")
    common = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": "; ".join(f"{key} {value}" for key, value in facts.items()),
        "python": python,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*common, *rows[0]], lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(common | dict(row) for row in rows)


def skipped(peer: str, remedy: str) -> None:
    """Say on stderr that a peer is missing, and how to have it measured."""
    print(f"skipped {peer}: not installed. {remedy}", file=sys.stderr)


def _calls(work: Work, clock: Clock) -> int:
    """Return how many calls fill the shortest timing; the first call only warms up."""
    work()
    return max(1, round(SHORTEST / max(_seconds(work, 1, clock), 1e-9)))


def _seconds(work: Work, calls: int, clock: Clock) -> float:
    start = clock()
    for _ in range(calls):
        work()
    return (clock() - start) / calls


def _row(peer: str, ours: Sequence[float], theirs: Sequence[float]) -> Row:
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return Row(
        peer=peer,
        peer_version=version(peer.split()[0]),
        ratio_median=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        ours_us=statistics.median(ours) * 1e6,
        peer_us=statistics.median(theirs) * 1e6,
        repeats=len(ratios),
    )


def _columns(benchmark: str, case: str, row: Row) -> dict[str, object]:
    values = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in vars(row).items()}
    return {"benchmark": benchmark, "case": case} | values


def _print(case: str, row: Row) -> None:
    spread = f"{row.ratio_min:.2f} - {row.ratio_max:.2f}"
    peer = f"{row.peer} {row.peer_version}".strip()
    print(
        f"{case:24} {peer:32} {row.ratio_median:10.2f} {spread:>15} "
        f"{row.ours_us:9.1f} {row.peer_us:9.1f}"
    )


def _gpu() -> str:
    """Return the name of the CUDA device; empty if there is none, or nothing uses torch."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
