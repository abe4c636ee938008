"""What does a penalty on every fourth critic step do to the samples? Phantoms, several seeds.

    python -m benchmarks.report_penalty --csv benchmarks/results/dagan_penalty.csv

For each seed the preset `quick` is trained twice on the same 300 phantoms at 48x40, with the
penalty on every critic step and on every fourth, and 200 images of each class are sampled. `own` is
the KID (fixed features) to real phantoms of the same class that training never saw, `other` to the
nearest other class, averaged over the classes; `seconds` is the training alone.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks import runner

SHAPE = (40, 48, 1)
N_SAMPLED = 200


def outcome(penalty_every: int, seed: int) -> dict[str, object]:
    """Train once; return the row of the table."""
    import torch
    from augkit_dagan import Dagan

    from augkit.descriptors import outline
    from augkit.distances import class_distances, standardised
    from augkit.interfaces import ArraySamples, Context
    from augkit.testing import CLASSES, phantoms

    def real(draw: int) -> tuple[np.ndarray, np.ndarray]:
        images, _, labels = phantoms(100, height=40, width=48, seed=draw, difficulty=0.0)
        return images, labels

    plugin = Dagan(preset="quick", fit_seed=seed, penalty_every=penalty_every)
    plugin = plugin.settle(SHAPE, "cpu")
    start = time.perf_counter()
    plugin.fit(ArraySamples(*real(seed)), Context(seed, CLASSES))
    seconds = time.perf_counter() - start
    wanted = np.repeat([0, 1, 2], N_SAMPLED)
    made = plugin.apply(None, wanted, plugin.plan(wanted, SHAPE, np.random.default_rng(seed)))
    others, true = real(seed + 1000)
    seen = outline(others)
    apart = class_distances(
        standardised(outline(made), seen),
        wanted,
        standardised(seen, seen),
        real_labels=true,
        n_classes=3,
    )
    nearest_other = np.where(np.eye(3, dtype=bool), np.inf, apart).min(1)
    return {
        "threads": torch.get_num_threads(),
        "penalty_every": penalty_every,
        "seed": seed,
        "own": f"{np.diagonal(apart).mean():.4g}",
        "other": f"{nearest_other.mean():.4g}",
        "seconds": f"{seconds:.0f}",
    }


def main() -> None:
    """Print and append the rows as they come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    chosen = parser.parse_args()
    for seed in range(chosen.seeds):
        for penalty_every in (1, 4):
            row = outcome(penalty_every, seed)
            print(row, flush=True)
            if chosen.csv:
                runner.append(chosen.csv, [row])


if __name__ == "__main__":
    main()
