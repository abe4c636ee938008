"""What a real training of the DAGAN gave: curves, quality and a sheet of generated images.

    augkit fit --plugin dagan -o preset=small -o steps=2000 --store busi.store
    augkit augment --plugin dagan -o preset=small -o steps=2000 --n 500 --store busi.store
    python -m benchmarks.report_dagan busi.store dagan

Appends to dagan_curves.csv and dagan_quality.csv in benchmarks/results, and writes
docs/images/dagan.png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import augkit as ak
from augkit.descriptors import describe, outline
from augkit.distances import class_distances, kid, standardised
from augkit.reports.sheets import SheetRow, draw_sheet
from augkit.store import Run, Snapshot
from augkit.store.format import digest_of
from benchmarks import runner

RESULTS = Path(__file__).parent / "results"
SHEET = Path(__file__).parents[1] / "docs" / "images" / "dagan.png"


def curves(store: ak.DatasetStore, run: Run) -> list[dict[str, Any]]:
    """Return the log of the training of a run, a row for each line."""
    model = store.snapshot().model(run.model or "")
    folder = store.side_folder("training") / digest_of(model.recipe)[:16]
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    found = [{"model": model.name[:12], **json.loads(line)} for line in lines]
    return [{k: round(v, 5) if isinstance(v, float) else v for k, v in f.items()} for f in found]


def quality(snapshot: Snapshot, run: Run) -> list[dict[str, Any]]:
    """Return for each class how far samples, held-out real images and noise are from real ones."""
    train, held_out = snapshot.training(ak.HOLDOUT), snapshot.validation(ak.HOLDOUT)
    made = snapshot.inspect(run.name)
    classes, rows = snapshot.classes, []
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (200, *snapshot.shape), np.uint8)
    for features in (outline, describe):
        real = features(train[:])

        def seen(images: np.ndarray, features: Any = features, real: Any = real) -> np.ndarray:
            return standardised(features(images), real)

        sets = {"generated": (seen(made[:]), made.labels)}
        sets["validation"] = (seen(held_out[:]), held_out.labels)
        for name, (found, labels) in sets.items():
            apart = class_distances(
                found, labels, seen(train[:]), real_labels=train.labels, n_classes=len(classes)
            )
            for row, label in zip(apart, classes, strict=True):
                to = {f"kid_to_{c}": round(float(v), 4) for c, v in zip(classes, row, strict=True)}
                n = int((labels == classes.index(label)).sum())
                rows.append(
                    {"features": features.__name__, "images": name, "class": label, "n": n} | to
                )
        to = {
            f"kid_to_{c}": round(kid(seen(noise), seen(train[:])[train.labels == i]), 4)
            for i, c in enumerate(classes)
        }
        rows.append({"features": features.__name__, "images": "noise", "class": "", "n": 200} | to)
    copies = run.memorisation or {}
    about = {"model": (run.model or "")[:12], "copies": copies["copies"], "run_rows": run.rows}
    return [about | row for row in rows]


def sheet(snapshot: Snapshot, run: Run, n: int = 6) -> None:
    """Write a sheet of generated images, the first n of each class; no real image is shown."""
    made = snapshot.inspect(run.name)
    rows = []
    for label, name in enumerate(snapshot.classes):
        first = np.flatnonzero(made.labels == label)[:n]
        rows.append(SheetRow(f"{name}: generated", list(made.take(first)[:])))
    picture = draw_sheet(rows)
    picture.convert("L").save(SHEET, optimize=True)
    with Image.open(SHEET) as written:
        print(f"{SHEET}: {written.size[0]}x{written.size[1]}, {SHEET.stat().st_size // 1024} KB")


def main() -> None:
    """Report on one run of one store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_dagan")
    parser.add_argument("store", type=Path)
    parser.add_argument("run", nargs="?", default="dagan")
    chosen = parser.parse_args()
    store = ak.open(chosen.store)
    snapshot = store.snapshot()
    run = snapshot.run(chosen.run)
    runner.append(RESULTS / "dagan_curves.csv", curves(store, run))
    found = quality(snapshot, run)
    runner.append(RESULTS / "dagan_quality.csv", found)
    for row in found:
        print(*row.values())
    sheet(snapshot, run)


if __name__ == "__main__":
    main()
