"""Review: borderline pairs of near-duplicates, and what a person decided about them.

A review is a page to look at and, beside it, a CSV table to write "same" or "different" into. What
was decided is kept in the table of groups, in the log, as rows: [first, second, "same"].
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from augkit.errors import InputError
from augkit.ingestion.grouping import equal_pairs
from augkit.ingestion.manifests import records
from augkit.ingestion.pairs import Pairs, clusters
from augkit.ingestion.readers import printable
from augkit.interfaces import Progress, silent
from augkit.reports.pairs import Candidate, render
from augkit.store import Snapshot

if TYPE_CHECKING:  # SciPy, which it is made of, takes longer to import than many an ingest takes
    from augkit.ingestion.duplicates import Traces

Row = tuple[int, int, str]
"""Two real rows, the lower one first, and "same" or "different"."""

HIGHEST = 0.25
"""Scores from `ALIKE` up to this are borderline: in BUSI, over it lies the same scan throughout."""

N_SHOWN = 200
"""Pairs on a page, at most: those nearest to the threshold."""

_BLOCK = 64
_HEAD = ("first", "second", "score", "decision")
_WORDS = ("same", "different")


@dataclass(frozen=True)
class Decision:
    """What a person decided about two images."""

    first: str
    """Key of one image."""
    second: str
    """Key of the other."""
    word: str
    """"same": of one scan or lesion, they stay together. "different": they only look alike."""
    where: str
    """The file and the line, for messages."""


@dataclass(frozen=True)
class Review:
    """What was written for a person to decide."""

    page: Path
    table: Path
    pairs: int
    left_out: int
    """Borderline pairs that were too many to show."""

    def __str__(self) -> str:
        if not self.pairs:
            return f"no borderline pair is left to decide on ({self.page})"
        more = f", and {self.left_out} farther from the threshold" if self.left_out else ""
        return (
            f"{self.pairs} borderline pair{'s' * (self.pairs != 1)} to look at{more}: {self.page}; "
            f"write same or different into {self.table} and give it back with --decisions"
        )


def traces_of(snapshot: Snapshot, room: int = 0, rows: np.ndarray | None = None) -> Traces:
    """Return the traces of the real images, or of some rows, with room for more images.

    rows: int64 (n,), rising; by default all.
    """
    from augkit.ingestion.duplicates import Traces

    samples = snapshot.inspect()
    samples = samples if rows is None else samples.take(rows)
    traces = Traces(len(samples) + room)
    for images in samples.blocks(_BLOCK):
        traces.add(images)
    return traces


def read_decisions(path: str | Path) -> tuple[Decision, ...]:
    """Return the decisions in a table that a review wrote; lines without one are skipped.

    Raises InputError for what is no such table, a word that is no decision, an image paired with
    itself, or a pair that is decided twice and differently.
    """
    where = printable(Path(path))
    try:
        lines = list(records(Path(path)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{where} is no CSV table in UTF-8: save it anew as CSV") from error
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}; name another file") from error
    head = [cell.strip().lower() for cell in lines[0][1]] if lines else []
    missing = [name for name in ("first", "second", "decision") if name not in head]
    if missing:
        raise InputError(
            f"{where} has no column {' or '.join(missing)}; --review FILE.html writes such a table"
        )
    found: dict[frozenset[str], Decision] = {}
    for line, cells in lines[1:]:
        decision = _decision(dict(zip(head, cells, strict=False)), f"{where}, line {line}")
        if decision is None:
            continue
        former = found.setdefault(frozenset((decision.first, decision.second)), decision)
        if former.word != decision.word:
            raise InputError(
                f"{decision.where} says {decision.word} where {former.where} says {former.word}: "
                "keep one of them"
            )
    return tuple(found.values())


def _decision(cells: dict[str, str], where: str) -> Decision | None:
    word = cells.get("decision", "").strip().lower()
    if not word:
        return None
    if word not in _WORDS:
        raise InputError(
            f"{where}: {printable(word)!r} is no decision: write same, different, or nothing"
        )
    first, second = (cells.get(name, "").strip() for name in ("first", "second"))
    if not first or not second or first == second:
        raise InputError(
            f"{where}: a decision is about two images, and names both by their keys: write both, "
            "or remove the line"
        )
    return Decision(first, second, word, where)


def as_rows(decisions: Sequence[Decision], keys: Sequence[str]) -> list[Row]:
    """Return decisions as rows of the images with these keys. Raises InputError for other keys."""
    row_of = {key: row for row, key in enumerate(keys)}
    rows = []
    for decision in decisions:
        for key in (decision.first, decision.second):
            if key not in row_of:
                raise InputError(
                    f"{decision.where}: the store has no image {printable(key)!r}; augkit info "
                    "--rows FILE.csv lists the keys"
                )
        a, b = sorted((row_of[decision.first], row_of[decision.second]))
        rows.append((a, b, decision.word))
    return rows


def joined(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """Return all decisions, in order of their rows; a new one about the same pair replaces one."""
    word = {(a, b): w for a, b, w in (*old, *new)}
    return [(a, b, word[a, b]) for a, b in sorted(word)]


def split(decisions: Sequence[Row], word: str) -> tuple[np.ndarray, np.ndarray]:
    """Return first and second, int64 (n,), of the pairs that were decided so."""
    pairs = np.array([(a, b) for a, b, w in decisions if w == word], np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def without(pairs: Pairs, first: np.ndarray, second: np.ndarray) -> Pairs:
    """Return the pairs but for some."""
    out = set(zip(first.tolist(), second.tolist(), strict=True))
    kept = np.array(
        [p not in out for p in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)], bool
    )
    return pairs.where(kept)


def write_review(
    snapshot: Snapshot,
    path: str | Path,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> Review:
    """Write a page of the borderline pairs of a store, and a table to decide in.

    path: the page, ending in .html, or a folder, which gets review.html; the table is beside it,
    with the ending .csv. Raises InputError if the table there holds decisions, or for a folder that
    cannot be written to.
    """
    from augkit.ingestion.duplicates import THRESHOLD
    from augkit.reports.exports import write

    page, table = places(path)
    pairs = borderline(snapshot, workers=workers, progress=progress)
    order = np.argsort(np.abs(pairs.score - THRESHOLD), kind="stable")[:N_SHOWN]
    order = order[np.argsort(-pairs.score[order], kind="stable")]
    candidates = _candidates(snapshot, pairs, order)
    write(table, _table(candidates).encode())
    write(page, render(candidates, THRESHOLD, table.name).encode())
    return Review(page, table, len(candidates), len(pairs) - len(candidates))


def places(path: str | Path) -> tuple[Path, Path]:
    """Return where page and table go. Raises InputError if the table there holds decisions."""
    given = Path(path)
    page = given if given.suffix.lower() in (".html", ".htm") else given / "review.html"
    table = page.with_suffix(".csv")
    if table.exists() and read_decisions(table):
        raise InputError(
            f"{printable(table)} holds decisions: give it back with --decisions, then name another "
            "page or remove it"
        )
    return page, table


def borderline(
    snapshot: Snapshot, *, workers: int | None = None, progress: Progress = silent
) -> Pairs:
    """Return the pairs whose score is borderline and whose decision would matter.

    It would not where two images are together anyway: by a patient, a file, or a better pair.
    """
    from augkit.ingestion.duplicates import ALIKE, related_pairs

    real = snapshot.real
    found = related_pairs(traces_of(snapshot), threshold=ALIKE, workers=workers, progress=progress)
    same = split(snapshot.decisions, "same")
    clear = found.score >= HIGHEST
    edges = [
        (found.first[clear], found.second[clear]),
        equal_pairs(real.patients, ignore=""),
        equal_pairs(real.sha256),
        same,
    ]
    first, second = (np.concatenate([e[k] for e in edges]) for k in (0, 1))
    together = clusters(len(real.keys), first, second)
    decided = set(zip(*(part.tolist() for part in same), strict=True))
    open_ = [
        not clear[i] and (together[a] != together[b] or (a, b) in decided)
        for i, (a, b) in enumerate(zip(found.first.tolist(), found.second.tolist(), strict=True))
    ]
    return found.where(np.array(open_, bool))


def _candidates(snapshot: Snapshot, pairs: Pairs, chosen: np.ndarray) -> list[Candidate]:
    real, samples = snapshot.real, snapshot.inspect()
    word = {(a, b): w for a, b, w in snapshot.decisions}
    found = []
    for first, second, score in zip(
        pairs.first[chosen].tolist(),
        pairs.second[chosen].tolist(),
        pairs.score[chosen].tolist(),
        strict=True,
    ):
        found.append(
            Candidate(
                keys=(str(real.keys[first]), str(real.keys[second])),
                labels=tuple(snapshot.classes[real.labels[row]] for row in (first, second)),
                images=(samples[first : first + 1][0], samples[second : second + 1][0]),
                score=score,
                together=bool(real.groups[first] == real.groups[second]),
                decision=word.get((first, second), ""),
            )
        )
    return found


def _table(candidates: Sequence[Candidate]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_HEAD)
    for each in candidates:
        writer.writerow([*each.keys, f"{each.score:.3f}", each.decision])
    return text.getvalue()
