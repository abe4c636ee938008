"""Do the intervals of `augkit quality` hold the truth 95 times in 100? A simulation on phantoms.

    python -m benchmarks.report_quality --csv benchmarks/results/quality_coverage.csv

Real and made images are drawn again and again from large pools of phantoms, seen through the
features of EfficientNet-Lite0, as `augkit quality` sees them: `like` are fresh phantoms of the
same kind, `poor` are easier ones, blurred. With `relatives` every second image of the real sets
has one: itself, shifted and of other gain. The truth is the mean over all draws, and 0 for the
kernel distance of images of one kind.

`coverage` is the share of the intervals that hold the truth, `width` the median of theirs over that
of an interval that knows how the value is spread. Method `bootstrap`: percentiles of 200 draws of
units with replacement, for comparison; `augkit quality` does not use it. The features of the pools
take some minutes and are kept in the folder `--pools`, if one is given.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import runner

HEIGHT, WIDTH = 80, 96
N_POOL = 1500
N_BOOTSTRAP = 200


@dataclass(frozen=True)
class Case:
    """One kind of comparison."""

    method: str
    kind: str
    n_real: int
    n_made: int
    relatives: bool


CASES = (
    Case("jackknife", "like", 40, 40, False),
    Case("jackknife", "poor", 40, 40, False),
    Case("jackknife", "like", 40, 500, True),
    Case("jackknife", "poor", 40, 500, True),
    Case("jackknife", "like", 20, 500, True),
    Case("jackknife", "poor", 20, 500, True),
    Case("bootstrap", "like", 40, 40, False),
    Case("bootstrap", "poor", 40, 40, False),
)


def pools(folder: Path | None) -> dict[str, np.ndarray]:
    """Return the features of the pools by name: float32 (1500, 1280) each."""
    if folder is not None and (folder / "real.npy").exists():
        return {name: np.load(folder / f"{name}.npy") for name in ("real", "like", "poor", "sib")}
    from augkit.interfaces import ArraySamples, Context
    from augkit.registry import registry

    given = registry().find("efficientnet-lite0", "classifier")
    network = given.build({"weights": "imagenet", "train": "head"})
    network = network.settle((HEIGHT, WIDTH, 1), "cpu")
    context, found = Context(0, ("benign",)), {}
    for name, images in _images().items():
        found[name] = network.features(ArraySamples(images, np.zeros(len(images), int)), context)
        if folder is not None:
            np.save(folder / f"{name}.npy", found[name])
    return found


def _images() -> dict[str, np.ndarray]:
    import cv2

    from augkit.testing import phantoms

    def drawn(seed: int, difficulty: float = 0.5) -> np.ndarray:
        how = {"height": HEIGHT, "width": WIDTH, "seed": seed, "difficulty": difficulty}
        return phantoms(N_POOL, classes=("benign",), **how)[0]  # type: ignore[arg-type]

    rng, real = np.random.default_rng(0), drawn(1)
    related = np.empty_like(real)
    for new, image in zip(related, real, strict=True):
        right, down = rng.integers(-5, 6, 2)
        move = np.array([[1, 0, right], [0, 1, down]], np.float32)
        moved = cv2.warpAffine(image[..., 0], move, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)
        new[..., 0] = np.clip(moved * rng.uniform(0.85, 1.15), 0, 255)
    poor = np.stack([cv2.GaussianBlur(i[..., 0], (0, 0), 1.0)[..., None] for i in drawn(3, 0.1)])
    return {"real": real, "like": drawn(2), "poor": poor, "sib": related}


def rows_of(case: Case, found: dict[str, np.ndarray], repeats: int) -> list[dict[str, object]]:
    """Return a row of the table for each measure: made images, real ones, and their difference."""
    from augkit.fidelity import MEASURES

    drawn = [_once(case, found, seed) for seed in range(repeats)]
    rows = []
    for measure in MEASURES:
        for which in ("made", "real", "difference"):
            if (measure, which) not in drawn[0]:
                continue
            value, low, high = np.array([d[measure, which] for d in drawn]).T
            truth = value.mean()
            if measure == "kid" and (which == "real" or case.kind == "like"):
                truth = 0.0
            width = np.median(high - low) / (2 * 1.96 * value.std())
            rows.append(
                vars(case)
                | {"measure": measure, "of": which, "repeats": repeats}
                | {"truth": f"{truth:.4f}", "sd": f"{value.std():.4f}", "width": f"{width:.2f}"}
                | {
                    "coverage": f"{((low <= truth) & (truth <= high)).mean():.3f}",
                    "too_high": f"{(low > truth).mean():.3f}",
                    "too_low": f"{(high < truth).mean():.3f}",
                }
            )
    return rows


Values = dict[tuple[str, str], tuple[float, float, float]]
"""(measure, of) -> value, low and high."""


def _once(case: Case, found: dict[str, np.ndarray], seed: int) -> Values:
    """Draw the sets once and measure."""
    from augkit.fidelity import Images, compare

    rng = np.random.default_rng(seed)
    real, made = rng.permutation(N_POOL), rng.permutation(N_POOL)[: case.n_made]

    def sets(rows: np.ndarray) -> Images:
        if not case.relatives:
            return Images(found["real"][rows], rows)
        both = np.concatenate([found["real"][rows], found["sib"][rows[::2]]])
        return Images(both, np.concatenate([rows, rows[::2]]))

    reference, beside = sets(real[: case.n_real]), sets(real[case.n_real : 3 * case.n_real])
    images = Images(found[case.kind][made], made)
    if case.method == "bootstrap":
        return _bootstrap(reference.features, images.features, rng)
    measured = compare(reference, images, beside, seed=seed).measures
    return {
        (name, which): (one.value, one.low, one.high)
        for name, both in measured.items()
        for which, one in vars(both).items()
    }


def _bootstrap(real: np.ndarray, made: np.ndarray, rng: np.random.Generator) -> Values:
    """Return percentiles over draws with replacement, as they are usually taken."""
    value = _measures(real, made)
    again = []
    for _ in range(N_BOOTSTRAP):
        one, other = (rng.integers(0, len(x), len(x)) for x in (real, made))
        again.append(_measures(real[one], made[other]))
    ends = {n: np.percentile([a[n] for a in again], (2.5, 97.5)) for n in value}
    return {(n, "made"): (value[n], float(ends[n][0]), float(ends[n][1])) for n in value}


def _measures(real: np.ndarray, made: np.ndarray) -> dict[str, float]:
    from augkit.distances import kid
    from augkit.manifolds import neighbourhoods

    found = {name: statistic.value for name, statistic in neighbourhoods(real, made).items()}
    return {"kid": kid(made, real), **found}


def main() -> None:
    """Print and append the rows of one case after another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_quality")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--pools", type=Path)
    parser.add_argument("--repeats", type=int, default=200)
    chosen = parser.parse_args()
    found = pools(chosen.pools)
    for case in CASES:
        rows = rows_of(case, found, chosen.repeats)
        for row in rows:
            print(*row.values(), flush=True)
        if chosen.csv:
            runner.append(chosen.csv, rows)


if __name__ == "__main__":
    main()
