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
from functools import partial
from pathlib import Path

import augkit as ak
from augkit.engines.local import ordered_map
from augkit.testing import phantoms
from benchmarks import runner

ADDED = 500
"""New images a class."""
WANTED = {"oracle": "helps", "copy": "cannot tell", "poison": "hurts"}


def judge(seed: int, *, classifier: str, n: int, difficulty: float) -> list[dict[str, object]]:
    """Return a row for each arm."""
    with tempfile.TemporaryDirectory() as folder:
        images, _, labels = phantoms(n, height=80, width=96, seed=seed, difficulty=difficulty)
        names = [("benign", "malignant", "normal")[label] for label in labels]
        store = ak.DatasetStore.create(Path(folder) / "store", height=80, width=96)
        keys = [f"{i}.png" for i in range(len(names))]
        ak.ingest_arrays(
            store, [images], names, dataset="phantoms", keys=keys, find_relatives=False
        )
        ak.augment(store, "copy", n=ADDED)
        ak.augment(store, "oracle", {"difficulty": difficulty}, n=ADDED, seed=seed)
        ak.augment(store, "poison", {"fit_seed": seed}, n=ADDED, seed=seed)
        found = ak.evaluate(store, classifier, arms=[*WANTED], refit=True, folds=5)
    value = {arm.name: arm.metrics["balanced_accuracy"].value for arm in found.arms if arm.metrics}
    return [
        {
            "seed": seed,
            "classifier": classifier,
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
    parser.add_argument("--classifier", default="linear")
    parser.add_argument("--n", type=int, default=100, help="real images of each class")
    parser.add_argument("--difficulty", type=float, default=0.52)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    one = partial(judge, classifier=given.classifier, n=given.n, difficulty=given.difficulty)
    rows = []
    for found in ordered_map(one, range(given.seeds), workers=given.workers, backend="spawn"):
        rows += found
        print(*(f"{r['arm']} {r['difference']:+.3f} {r['verdict']};" for r in found), flush=True)
    for arm, wanted in WANTED.items():
        words = Counter(row["verdict"] for row in rows if row["arm"] == arm)
        print(f"{arm}: {dict(words)}; wanted: {wanted}")
    if given.csv:
        runner.append(given.csv, [{**runner.machine(), **row} for row in rows])


if __name__ == "__main__":
    main()
