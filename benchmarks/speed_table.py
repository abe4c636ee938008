"""The table of speed in the README, made from the newest figures in benchmarks/results.

python -m benchmarks.speed_table            print it
python -m benchmarks.speed_table --write    put it into the README, between its two marks
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).with_name("results")
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- made by benchmarks.speed_table -->\n", "<!-- to here -->\n"


@dataclass(frozen=True)
class Line:
    """A line of the table: a case of a benchmark against one peer."""

    file: str
    case: str
    """As in the CSV file, or how it begins."""
    peer: str
    shown: str
    """What the table calls it."""
    aim: float
    """The ratio that was wanted."""


LINES = (
    Line("augment", "chain 192x160", "albumentations", "chain of four, 192x160", 8),
    Line("augment", "chain 192x160", "torchvision", "chain of four, 192x160", 25),
    Line("augment", "chain 192x160", "kornia", "chain of four, 192x160", 25),
    Line("augment", "chain 500x500", "albumentations", "chain of four, 500x500", 6),
    Line("augment", "chain 500x500", "torchvision", "chain of four, 500x500", 25),
    Line("augment", "chain 500x500", "kornia", "chain of four, 500x500", 25),
    Line("pipeline", "files to rows", "albumentations script", "437 files to 5,000 rows", 10),
    Line("pipeline", "files to rows", "Augmentor script", "437 files to 5,000 rows", 10),
    Line("pipeline", "files to rows, two cores", "augkit on one core", "the same, two cores", 1.8),
    Line("pipeline", "ingest, two cores", "augkit on one core", "ingest, two cores", 1.8),
    Line(
        "pipeline",
        "ingest, two cores",
        "pillow decode and resize alone",
        "ingest, two cores",
        1 / 1.15,
    ),
    Line("store", "append", "numpy memmap", "append", 1 / 1.3),
    Line("store", "append", "h5py d[i] = image", "append", 1),
    Line("store", "provenance", "augkit without provenance", "append with provenance", 1 / 1.05),
    Line("store", "read in order", "numpy memmap", "read in order", 1 / 1.3),
    Line("store", "read shuffled batches", "numpy memmap", "read shuffled batches", 1 / 1.3),
    Line("store", "read shuffled batches", "h5py fancy indexing", "read shuffled batches", 30),
    Line(
        "store",
        "read shuffled batches",
        "h5py fancy indexing, chunk = image",
        "read shuffled batches",
        30,
    ),
    Line("store", "training batches", "numpy memmap", "training batches of a store", 1 / 1.3),
)


def table() -> str:
    """Return the table as Markdown. Raises ValueError for a figure that has not been measured."""
    lines = ["| what | against | times | spread | aim |", "|---|---|---|---|---|"]
    lines += [_row(line, _newest(line)) for line in LINES]
    return "\n".join(lines) + "\n"


def in_place() -> str:
    """Return the README with the table as it has to be. Raises ValueError without the marks."""
    before, begin, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{README.name} lacks the marks {BEGIN.strip()} and {END.strip()}")
    return before + BEGIN + table() + END + after


def _newest(line: Line) -> dict[str, str]:
    """Return the last row that was appended for a line."""
    found = [row for row in _rows(line.file) if _is_of(line, row)]
    if not found:
        raise ValueError(f"{line.file}.csv has no figure of {line.case!r} against {line.peer!r}")
    return found[-1]


def _rows(file: str) -> Iterator[dict[str, str]]:
    with (RESULTS / f"{file}.csv").open(encoding="utf-8", newline="") as opened:
        yield from csv.DictReader(opened)


def _is_of(line: Line, row: dict[str, str]) -> bool:
    # "provenance, 85 bytes a row" is a case of "provenance", "chain exact" none of "chain".
    case = row["case"] == line.case or (line.case == "provenance" and line.case in row["case"])
    return case and row["peer"] == line.peer


def _row(line: Line, found: dict[str, str]) -> str:
    median, low, high = (float(found[f"ratio_{key}"]) for key in ("median", "min", "max"))
    peer = f"{line.peer} {found['peer_version']}" if line.peer in VERSIONED else line.peer
    met = "" if median >= line.aim else " (missed)"
    cells = line.shown, peer, _short(median), f"{_short(low)} - {_short(high)}", _short(line.aim)
    return f"| {' | '.join(cells)}{met} |"


VERSIONED = {"albumentations", "torchvision", "kornia", "numpy memmap", "h5py fancy indexing"}


def _short(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, or write it into the README."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed_table")
    parser.add_argument("--write", action="store_true", help="put it into the README")
    if parser.parse_args(argv).write:
        README.write_text(in_place(), encoding="utf-8")
    else:
        print(table(), end="")


if __name__ == "__main__":
    main()
