r"""The table of classifiers on one store, as rows of a CSV file.

    python -m benchmarks.report_classifiers busi.store --csv benchmarks/results/classifiers_busi.csv

does what `augkit evaluate --classifier NAME --folds 5 --arms real,traditional` does, for each. What
was done before is not done again; `computed` says how many fits the seconds are for. The store of
the committed rows held BUSI at 192x160 and the runs flip, brightness, scale and zoom, one new image
of each training image.

    python -m benchmarks.report_classifiers busi.store --classifiers resnet --split 70/15/15 \
        --arms real --seeds 3 --csv benchmarks/results/classifiers_gpu.csv

does what `augkit evaluate --classifier resnet --split 70/15/15 --full ...` does: networks trained
whole, for a machine with a GPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import augkit as ak
from benchmarks import runner

CLASSIFIERS = ("efficientnet-lite0", "svm", "texture", "linear")
METRICS = ("accuracy", "balanced_accuracy", "auroc")


def rows(store: Path, classifier: str, **how: Any) -> Iterator[dict[str, object]]:
    """Yield a row for each arm and metric of one classifier."""
    start = time.perf_counter()
    found = ak.evaluate(store, classifier, **how)
    seconds = time.perf_counter() - start
    for arm in found.arms:
        for metric in METRICS:
            value = arm.metrics[metric]
            yield {
                "classifier": classifier,
                "protocol": found.protocol,
                "seeds": found.seeds,
                "arm": arm.name,
                "training_images": arm.rows,
                "metric": metric,
                "value": f"{value.value:.4f}",
                "low_95": f"{value.low:.4f}",
                "high_95": f"{value.high:.4f}",
                "computed": found.computed,
                "seconds": f"{seconds:.0f}",
            }


def main() -> None:
    """Print and append the rows of all classifiers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_classifiers")
    parser.add_argument("store", type=Path)
    parser.add_argument("--classifiers", default=",".join(CLASSIFIERS))
    parser.add_argument("--arms", default="real,traditional")
    parser.add_argument("--split", help="one split, such as 70/15/15, instead of five folds")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--csv", type=Path)
    chosen = parser.parse_args()
    how: dict[str, Any] = {"arms": chosen.arms.split(","), "seeds": chosen.seeds}
    how |= {"split": chosen.split, "full": True} if chosen.split else {"folds": 5}
    for classifier in chosen.classifiers.split(","):
        found = list(rows(chosen.store, classifier, **how))
        for row in found:
            print(*row.values())
        if chosen.csv is not None:
            runner.append(chosen.csv, found)


if __name__ == "__main__":
    main()
