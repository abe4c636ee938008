"""What a campaign found, as docs/trust.md says it.

PYTHONPATH=tests python -m torture.table            print it
PYTHONPATH=tests python -m torture.table --write    put it into docs/trust.md, between its two marks
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results/torture.csv"
PAGE = ROOT / "docs/trust.md"
BEGIN, END = "<!-- made by torture.table -->\n", "<!-- to here -->\n"

Row = dict[str, str]

_PARTS = {
    "kills": "kills, one to four writers at once",
    "power": "states after a power cut",
    "faults": "calls refused, signals before a call, commits while the clock goes back",
    "interrupts": "lines of ours before which Ctrl-C came, of five commands",
    "commands": "kills of every command at every call",
    "resume": "commands killed and given again",
    "flips": "bytes flipped",
    "crowds": "commits of eight writers beside four readers",
}
"""What the table says of each part, in this order."""


def table(rows: Sequence[Row]) -> str:
    """Return the tables: all parts, the kills by system call, and what was begun twice."""
    found = "| what was done | in a folder | packed | lost | seen too early | otherwise wrong |\n"
    found += "|---|---|---|---|---|---|\n"
    for part, said in _PARTS.items():
        own = [row for row in rows if row["part"] == part]
        if own:
            wrong = " | ".join(str(_sum(own, what)) for what in ("lost", "visible", "errors"))
            found += f"| {said} | {_both(own)} | {wrong} |\n"
    return found + "\n" + _calls(rows) + "\n" + _again(rows)


def _sum(rows: Sequence[Row], what: str) -> int:
    return sum(int(row[what]) for row in rows)


def _both(rows: Sequence[Row]) -> str:
    """Return how often something was done to each form."""
    folder, file = ([row for row in rows if row["form"] == form] for form in ("folder", "file"))
    return f"{_sum(folder, 'n'):,} | {_sum(file, 'n'):,}"


def _calls(rows: Sequence[Row]) -> str:
    kills = [row for row in rows if row["part"] == "kills"]
    found = (
        "| killed before, within or after | in a folder | packed | in all |\n|---|---|---|---|\n"
    )
    for call, n in Counter({c: _sum(_at(kills, c), "n") for c in _names(kills)}).most_common():
        found += f"| `{call}` | {_both(_at(kills, call))} | {n:,} |\n"
    return found


def _at(rows: Sequence[Row], what: str) -> list[Row]:
    return [row for row in rows if row["at"] == what]


def _names(rows: Sequence[Row]) -> list[str]:
    return sorted({row["at"] for row in rows})


def _again(rows: Sequence[Row]) -> str:
    """Return what commands that keep what they did began twice, at most, after one kill."""
    own = [row for row in rows if row["part"] == "resume"]
    kept = [row for row in own if not row["at"].endswith("anew")]
    found = (
        "| killed and given again | kills | begun twice after a kill, at most |\n|---|---|---|\n"
    )
    for row in kept:
        command, _, twice = row["at"].partition(": ")
        form = "in a folder" if row["form"] == "folder" else "packed"
        found += f"| `{command}`, {form} | {row['n']} | {twice.replace(' twice', '')} |\n"
    return found


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(prog="python -m torture.table")
    parser.add_argument("--write", action="store_true", help="put it into docs/trust.md")
    made = table(read(RESULTS))
    if not parser.parse_args().write:
        print(made)
        return
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{made}{END}{rest.partition(END)[2]}", encoding="utf-8")


def read(path: Path) -> list[Row]:
    """Return the lines of a campaign."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
