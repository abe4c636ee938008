"""What `quality` found: a table, JSON, a frame, and for each class a plain sentence.

A sentence claims only what an interval supports: that the images of a run do worse than real ones
where the whole interval of the difference is below 0, that they do as well where all of it is
above `-MARGIN`, and otherwise that nobody can tell.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from augkit.fidelity import Estimate, Measured
from augkit.memorisation import FALSE_ALARMS
from augkit.tables import counted, one_line, table

MARGIN = 0.2
"""By how much less precision or recall than real images still counts as no less."""

_TITLES = {"kid": "KID"}
_PARTS = {
    0.1: "a tenth",
    0.2: "a fifth",
    0.25: "a quarter",
    1 / 3: "a third",
    0.5: "half",
    2 / 3: "two thirds",
    0.75: "three quarters",
}


@dataclass(frozen=True)
class Copies:
    """How many images of a class look like copies of training images, of all that were compared."""

    n: int
    of: int
    share: Estimate
    threshold: float
    """The correlation that a copy exceeds."""


@dataclass(frozen=True)
class ClassQuality:
    """What was found for one class."""

    name: str
    images: dict[str, int]
    """`made`, `validation` and `training`: how many there are that may be looked at."""
    looked_at: dict[str, int]
    """How many of each were looked at."""
    set_size: int
    """Images of each set for precision, recall, density and coverage."""
    measures: dict[str, Measured]
    copies: Copies | None
    """None where nothing was generated, or nothing compared."""

    def sentence(self, noun: str) -> str:
        """Return what is good and what is wrong. noun: samples, or images."""
        subject = f"{noun} of {one_line(self.name)}"
        if math.isnan(self.measures["kid"].made.value):
            return f"{subject}: too few to say anything, of them or of the real ones"
        good, bad, doubt, few = self._clauses()
        claims = ", but ".join(_listed(part) for part in (good, bad) if part)
        unknown = "cannot tell whether they " + " or ".join(doubt) if doubt else ""
        silent = "too few to say whether they " + " or ".join(few) if few else ""
        unknown = "; ".join(filter(None, (unknown, silent)))
        if not claims:
            return f"{subject}: {unknown or 'nothing is wrong that could be seen'}"
        return f"{subject} {claims}" + (f"; {unknown}" if unknown else "")

    def _clauses(self) -> tuple[list[str], list[str], list[str], list[str]]:
        """Return what they do well, what not, what cannot be told, and what was not measured."""
        good: list[str] = []
        bad: list[str] = []
        doubt: list[str] = []
        few: list[str] = []
        real, varied = self.measures["precision"], self.measures["recall"]
        for word, found, well, badly in (
            ("precision", real, "look real", _unreal(real)),
            ("recall", varied, "show the variety of real images", _lacking(varied)),
        ):
            if found.difference.high < 0:
                bad.append(badly + _seen(word, found))
            elif found.difference.low > -MARGIN:
                good.append(well + _seen(word, found))
            elif math.isnan(found.difference.value):
                few.append(well)
            else:
                doubt.append(well + _seen(word, found))
        if self.measures["kid"].difference.low > 0:
            bad.append("are as a set unlike real images" + _seen("KID", self.measures["kid"], 4))
        if self.copies is not None and self.copies.share.low > FALSE_ALARMS:
            share = f"{100 * self.copies.share.value:.0f} % of them look like a training image"
            bad.append(f"{share}, where {100 * FALSE_ALARMS:.0f} % of real ones would")
        return good, bad, doubt, few


def _seen(word: str, found: Measured, digits: int = 2) -> str:
    """Return the numbers that a claim rests on."""
    made, real = (_number(e.value, digits) for e in (found.made, found.real))
    apart = _cell(found.difference, digits, "+")
    return f" ({word} {made}, real images {real}, difference {apart})"


def _listed(words: list[str]) -> str:
    """Return words as a sentence has them: a, b and c."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _unreal(found: Measured) -> str:
    if found.made.high < 0.5:
        return "mostly do not look real"
    return "look real less often than real images do"


def _lacking(found: Measured) -> str:
    ratio = found.made.value / found.real.value if found.real.value else 1.0
    if ratio < 0.05:
        return "show hardly any of the variety"
    if ratio > 0.85:
        return "show less of the variety"
    nearest = min(_PARTS, key=lambda part: abs(part - ratio))
    return f"show about {_PARTS[nearest]} of the variety"


@dataclass(frozen=True)
class Quality:
    """How good the images of a run are."""

    store: str
    run: str
    family: str
    partition: str
    features: str
    weights: str
    seed: int
    classes: tuple[ClassQuality, ...]
    notes: tuple[str, ...] = ()
    sheets: tuple[str, ...] = ()
    """Pictures that were written."""

    @property
    def noun(self) -> str:
        """Return what the images of the run are called."""
        return "samples" if self.family == "generative" else "images"

    @property
    def sentences(self) -> dict[str, str]:
        """Return class -> what is good and what is wrong."""
        return {found.name: found.sentence(self.noun) for found in self.classes}

    def to_json(self) -> str:
        """Return everything as JSON; see docs/json.md."""
        values = asdict(self)
        for found in values["classes"]:
            found["sentence"] = self.sentences[found["name"]]
        return json.dumps(_finite(values | {"reference": "validation"}))

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row for each class and measure (needs pandas)."""
        import pandas as pd

        rows = []
        for found in self.classes:
            for name, measured in found.measures.items():
                row = {"run": self.run, "class": found.name, "measure": name}
                for which, estimate in vars(measured).items():
                    row |= {f"{which}_{end}": value for end, value in vars(estimate).items()}
                rows.append(row)
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        made = sum(found.images["made"] for found in self.classes)
        by = f"{self.features}, {self.weights}" if self.weights else self.features
        head = (
            f"{self.run} on {one_line(self.store)}: {counted(made, 'image')}, beside real images "
            f"of the validation part of {self.partition}\nfeatures of {by}"
        )
        parts = [head, self._counts(), table(self._head(), list(self._rows())), _CAPTION]
        parts.append("\n".join(self.sentences.values()))
        parts.append("\n".join(f"note: {note}" for note in self.notes))
        parts.append("\n".join(f"written: {path}" for path in self.sheets))
        return "\n\n".join(part for part in parts if part)

    def _counts(self) -> str:
        kinds = {"made": self.run, "validation": "validation", "training": "training"}
        rows = [
            [c.name, *(_of(c.looked_at[k], c.images[k]) for k in kinds), str(c.set_size)]
            for c in self.classes
        ]
        return table(["images looked at", *kinds.values(), "in a set"], rows)

    def _head(self) -> list[str]:
        return ["class", "measure", self.run, "real, of the training part", "difference"]

    def _rows(self) -> Iterator[list[str]]:
        for found in self.classes:
            shown = found.name
            for name, m in found.measures.items():
                digits = 4 if name == "kid" else 2
                cells = (_cell(e, digits) for e in (m.made, m.real))
                yield [shown, _TITLES.get(name, name), *cells, _cell(m.difference, digits, "+")]
                shown = ""
            if found.copies is not None:
                yield ["", "copies", _cell(found.copies.share, 3), f"{FALSE_ALARMS} by design", ""]


_CAPTION = """\
In brackets: 95 % intervals over groups of real images and over the images of the run, for this run
and this model. KID: 0 where both show the same; lower is better. Precision and density: how many
look real. Recall, coverage and diversity: how much of the variety they show. What real images of
the training part reach is what can be reached."""


def _of(looked_at: int, there: int) -> str:
    return str(there) if looked_at == there else f"{looked_at} of {there}"


def _cell(found: Estimate, digits: int = 2, sign: str = "") -> str:
    if math.isnan(found.value):
        return "too few images"
    numbers = (_number(x, digits, sign) for x in (found.value, found.low, found.high))
    return "{} [{}, {}]".format(*numbers)


def _number(value: float, digits: int = 2, sign: str = "") -> str:
    text = f"{value:{sign}.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text


def _finite(value: Any) -> Any:
    """Return JSON values with null in place of NaN."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
