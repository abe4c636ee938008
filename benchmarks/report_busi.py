r"""Keep the comparisons that evaluations of BUSI found, from the outcomes in their store.

    augkit ingest Dataset_BUSI_with_GT --store busi.store
    augkit augment --plugin flip --plugin brightness --plugin scale --plugin zoom --store busi.store
    augkit augment --plugin dagan --n 5000 -o preset=small -o steps=2000 --store busi.store
    augkit evaluate --classifier efficientnet-lite0 --split 70/15/15 --full --store busi.store
    python -m benchmarks.report_busi busi.store --csv benchmarks/results/verdict_busi.csv

The committed rows of the DAGAN are of the model in benchmarks/models/dagan-busi-small, which only a
store with the groups of 2026-11-24 takes; training another takes hours on a CPU.

And for the second site and both together, 22 to 90 minutes of two cores:

    augkit ingest Dataset_BUSI_with_GT --dataset busi --store both.store
    augkit ingest breast/labels.csv --dataset breast --store both.store
    augkit augment --plugin flip --plugin brightness --plugin scale --plugin zoom --store both.store
    augkit study benchmarks/study_busi.yaml --store both.store
    python -m benchmarks.report_busi both.store --csv benchmarks/results/verdict_busi.csv

One line for each arm, reference and outcome, in the primary metric.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import augkit as ak
from benchmarks import runner

COLUMNS = ("arm", "versus", "control", "metric", "difference", "low", "high", "p", "p_holm")


def rows(outcome: Path) -> list[dict[str, object]]:
    """Return the rows of one outcome file."""
    found = json.loads(outcome.read_text(encoding="utf-8"))
    made = []
    for cell in found["cells"]:
        evaluation = cell["evaluation"] or {"comparisons": [], "arms": []}
        value = {
            arm["name"]: arm["metrics"][evaluation["primary"]]["value"]
            for arm in evaluation["arms"]
            if arm["metrics"]
        }
        for comparison in evaluation["comparisons"]:
            if comparison["metric"] != evaluation["primary"]:
                continue
            shown = {name: comparison[name] for name in COLUMNS}
            made.append(
                {
                    "command": found["command"],
                    "dataset": cell["dataset"],
                    "classifier": cell["classifier"],
                    "protocol": evaluation["protocol"],
                    "seeds": evaluation["seeds"],
                    "real": round(value["real"], 4),
                    **{k: round(v, 6) if isinstance(v, float) else v for k, v in shown.items()},
                    "smallest_detectable": comparison["smallest_detectable"],
                    "verdict": comparison["verdict"] or "no verdict",
                    "notes": "; ".join(evaluation["notes"].values()),
                }
            )
    return made


def main() -> None:
    """Print the rows of every outcome in a store, and append them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    folder = ak.open(given.store).side_folder("outcomes")
    for outcome in sorted(folder.glob("*.json")):
        found = rows(outcome)
        for row in found:
            print(*(row[k] for k in ("classifier", "protocol", "arm", "versus", "difference")))
        if given.csv and found:
            runner.append(given.csv, found)


if __name__ == "__main__":
    main()
