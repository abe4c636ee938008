"""Do the verdicts tell the truth where the truth is known? Phantoms, three augmenters, 20 seeds.

`oracle` adds fresh phantoms and must be found to help, `copy` repeats the real images and must not
be, `poison` repeats them with 30 % under a wrong class and must be found to hurt. Each seed makes
100 phantoms of each class and judges the three arms with five folds.

    python -m benchmarks.report_verdict --csv benchmarks/results/verdict_phantoms.csv

One line a seed and arm. `--workers 2` uses two cores; the numbers are the same.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import augkit as ak
from augkit.engines.local import ordered_map
from augkit.testing import phantoms
from benchmarks import runner

ADDED = 500
"""New images a class."""
WANTED = {"oracle": "helps", "copy": "cannot tell", "poison": "hurts"}


@dataclass(frozen=True)
class Design:
    """What every seed is given."""

    classifier: str
    n: int
    """Real images of each class."""
    width: int
    height: int
    difficulty: float
    variety: float
    repeats: int
    """Rounds of five folds."""


def judge(seed: int, *, design: Design) -> list[dict[str, object]]:
    """Return a row for each arm."""
    with tempfile.TemporaryDirectory() as folder:
        kind = {"difficulty": design.difficulty, "variety": design.variety}
        size = {"height": design.height, "width": design.width}
        images, _, labels = phantoms(design.n, **size, seed=seed, **kind)
        names = [("benign", "malignant", "normal")[label] for label in labels]
        store = ak.DatasetStore.create(Path(folder) / "store", **size)
        keys = [f"{i}.png" for i in range(len(names))]
        ak.ingest_arrays(
            store, [images], names, dataset="phantoms", keys=keys, find_relatives=False
        )
        ak.augment(store, "copy", n=ADDED)
        ak.augment(store, "oracle", kind, n=ADDED, seed=seed)
        ak.augment(store, "poison", {"fit_seed": seed}, n=ADDED, seed=seed)
        found = ak.evaluate(
            store,
            design.classifier,
            arms=[*WANTED],
            refit=True,
            folds=5,
            repeats=design.repeats,
        )
    value = {arm.name: arm.metrics["balanced_accuracy"].value for arm in found.arms if arm.metrics}
    return [
        {
            "seed": seed,
            **asdict(design),
            "arm": c.arm,
            "real": round(value["real"], 4),
            "difference": round(c.difference, 4),
            "low": round(c.low, 4),
            "high": round(c.high, 4),
            "p_holm": round(c.p_holm or 0.0, 6),
            "smallest_detectable": round(c.smallest_detectable or 0.0, 4),
            "verdict": c.verdict,
        }
        for c in found.comparisons
        if c.metric == "balanced_accuracy" and c.versus == "real"
    ]


def main() -> None:
    """Judge all seeds, say how often each verdict came, and keep the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first of the seeds")
    parser.add_argument("--classifier", default="linear")
    parser.add_argument("--n", type=int, default=100, help="real images of each class")
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--height", type=int, default=40)
    parser.add_argument("--difficulty", type=float, default=0.1)
    parser.add_argument("--variety", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    design = Design(**{field.name: getattr(given, field.name) for field in fields(Design)})
    one = partial(judge, design=design)
    rows = []
    seeds = range(given.first, given.first + given.seeds)
    for found in ordered_map(one, seeds, workers=given.workers, backend="spawn"):
        rows += found
        print(*(f"{r['arm']} {r['difference']:+.3f} {r['verdict']};" for r in found), flush=True)
    for arm, wanted in WANTED.items():
        words = Counter(row["verdict"] for row in rows if row["arm"] == arm)
        print(f"{arm}: {dict(words)}; wanted: {wanted}")
    if given.csv:
        runner.append(given.csv, [{**runner.machine(), **row} for row in rows])


if __name__ == "__main__":
    main()
