"""Copies planted among real images: how many are found, and how many strangers are called copies.

    python -m benchmarks.bench_memorisation --csv benchmarks/results/memorisation.csv

The training images are those of BUSI at 192x160, split 70/15/15 by groups. Of each one copy of
every kind is planted. Strangers are the validation and test images, as they are and made to look
like the output of a poor generator. BUSI is sought in $AUGKIT_DATA, by default shared/data beside
the checkout. Time is that of all threads together; wall time depends on who else is at work.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.stats import binomtest

import augkit as ak
from augkit.memorisation import Gallery, Nearest
from augkit.store import DatasetStore
from augkit.testing import phantoms
from benchmarks import runner

DATA = Path(os.environ.get("AUGKIT_DATA") or Path(__file__).parents[2] / "shared" / "data")
HEIGHT, WIDTH = 160, 192

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""Takes a grey image float32 (H, W) in 0..255 and returns another, rounded and clipped later."""


def mirrored(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image[:, ::-1]


def shifted(border: int) -> Change:
    """Move by up to 12 % of each side."""

    def change(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        x, y = rng.uniform(-0.12, 0.12, 2) * (WIDTH, HEIGHT)
        matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
        return cv2.warpAffine(image, matrix, (WIDTH, HEIGHT), borderMode=border)

    return change


def cropped(share: float) -> Change:
    """Cut to a share of both sides, anywhere, and enlarge."""

    def change(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        width, height = round(WIDTH * share), round(HEIGHT * share)
        x, y = rng.integers(0, WIDTH - width + 1), rng.integers(0, HEIGHT - height + 1)
        return cv2.resize(image[y : y + height, x : x + width], (WIDTH, HEIGHT))

    return change


def gain(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image * rng.uniform(0.7, 1.3)


def noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Multiply by correlated noise of standard deviation 0.3."""
    return image * (1 + 0.3 * grain(rng))


def respeckled(sigma: float) -> Change:
    """Replace all detail finer than sigma by new speckle of the same local strength."""

    def change(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        smooth = gaussian_filter(image, sigma)
        strength = np.sqrt(gaussian_filter(np.square(image - smooth), 4))
        return smooth + strength * grain(rng)

    return change


def grain(rng: np.random.Generator) -> np.ndarray:
    fine = gaussian_filter(rng.normal(size=(HEIGHT, WIDTH)), (0.7, 1.0))
    return fine / fine.std()


def blurred(sigma: float) -> Change:
    return lambda image, rng: gaussian_filter(image, sigma)


def coarsened(width: int) -> Change:
    """Pass through a smaller image, as from a generator of lower resolution."""

    def change(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        size = (width, round(width * HEIGHT / WIDTH))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)

    return change


def rotated(degrees: float) -> Change:
    def change(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        matrix = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), degrees, 1)
        return cv2.warpAffine(image, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)

    return change


def shrunk(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Show the whole image at 90 % of its size."""
    matrix = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), 0, 0.9)
    return cv2.warpAffine(image, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)


def chained(*changes: Change) -> Change:
    def change(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for one in changes:
            image = one(image, rng)
        return image

    return change


MOVED = shifted(cv2.BORDER_REPLICATE)
COPIES: dict[str, Change] = {
    "exact": lambda image, rng: image,
    "mirrored": mirrored,
    "shifted, border black": shifted(cv2.BORDER_CONSTANT),
    "shifted, border replicated": MOVED,
    "cropped to 90 %": cropped(0.9),
    "gain 0.7 to 1.3": gain,
    "multiplicative noise 0.3": noisy,
    "respeckled below 1.5 px": respeckled(1.5),
    "respeckled below 2.5 px": respeckled(2.5),
    "blurred by 1 px": blurred(1),
    "mirrored and cropped": chained(mirrored, cropped(0.9)),
    "mirrored, shifted, gain, blurred": chained(mirrored, MOVED, gain, blurred(1)),
    "cropped, shifted, noise": chained(cropped(0.9), MOVED, noisy),
    "through 64 px, respeckled": chained(coarsened(64), respeckled(1.5)),
    "beyond: cropped to 85 %": cropped(0.85),
    "beyond: cropped to 80 %": cropped(0.8),
    "beyond: shown at 90 %": shrunk,
    "beyond: rotated by 2 degrees": rotated(2),
    "beyond: rotated by 5 degrees": rotated(5),
    "beyond: respeckled below 4 px": respeckled(4),
}
STRANGERS: dict[str, Change] = {
    "as they are": lambda image, rng: image,
    "blurred by 1 px": blurred(1),
    "blurred by 2 px": blurred(2),
    "blurred by 4 px": blurred(4),
    "through 64 px": coarsened(64),
    "through 32 px": coarsened(32),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_memorisation")
    parser.add_argument("--csv", type=Path, help="append the rows, as in benchmarks/results/")
    parser.add_argument("--repeats", type=int, default=1, help="copies of each kind (default: 1)")
    options = parser.parse_args()
    if not (DATA / "busi").is_dir():
        print(
            f"skipped: no BUSI in {DATA}. Set AUGKIT_DATA to a folder with busi/", file=sys.stderr
        )
        return
    print("; ".join(f"{key} {value}" for key, value in runner.machine().items()))
    with tempfile.TemporaryDirectory() as folder:
        rows = list(measured(Path(folder) / "busi.store", options.repeats))
    if options.csv is not None:
        runner.append(options.csv, rows)


def measured(path: Path, repeats: int) -> Iterator[dict[str, object]]:
    """Yield a row for each kind of copy and of stranger, printing it."""
    store = DatasetStore.create(path, height=HEIGHT, width=WIDTH, channels=1)
    ak.ingest(DATA / "busi" / "Dataset_BUSI_with_GT", store)
    snapshot = store.snapshot()
    parts, groups = snapshot.parts(ak.HOLDOUT), snapshot.real.groups
    images = np.concatenate(list(snapshot.inspect().blocks()))
    train, groups = images[parts == 0], groups[parts == 0]
    others = images[(parts == 1) | (parts == 2)]
    gallery = Gallery.of(snapshot.training(ak.HOLDOUT), snapshot.real.folds[parts == 0])
    print(f"{'shown':9} {'kind':34} {'n':>5} {'copies':>7} {'group':>6} {'score':>17} {'cpu s':>6}")
    for kind, change in COPIES.items():
        shown = changed(np.tile(train, (repeats, 1, 1, 1)), change)
        yield row(gallery, "copy", kind, shown, groups=groups)
    for n in (4, 64, len(train)):
        yield row(gallery, "mean", f"of {n} training images", means(train, n))
    for kind, change in STRANGERS.items():
        yield row(gallery, "stranger", kind, changed(others, change))
    yield row(gallery, "stranger", "phantoms", phantoms(60, height=HEIGHT, width=WIDTH)[0])
    yield row(gallery, "stranger", "plain ellipses", ellipses(200))


def changed(images: np.ndarray, change: Change) -> np.ndarray:
    rng = np.random.default_rng(0)
    made = [change(image[..., 0].astype(np.float32), rng) for image in images]
    return np.clip(np.rint(np.stack(made)), 0, 255).astype(np.uint8)[..., None]


def means(images: np.ndarray, n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    chosen = [
        rng.choice(len(images), n, replace=False) for _ in range(200 if n < len(images) else 1)
    ]
    return np.stack([np.rint(images[c].mean(0)).astype(np.uint8) for c in chosen])


def ellipses(n: int) -> np.ndarray:
    """Return dark ellipses on a grey ground, of all sizes and places, and nothing else."""
    rng, made = np.random.default_rng(0), np.full((n, HEIGHT, WIDTH, 1), 180, np.uint8)
    for image in made:
        centre = rng.integers((60, 50), (130, 110)).tolist()
        axes = rng.integers((20, 15), (60, 45)).tolist()
        cv2.ellipse(image, centre, axes, 0, 0, 360, 60, -1)
    return made


def row(
    gallery: Gallery,
    shown: str,
    kind: str,
    images: np.ndarray,
    *,
    groups: np.ndarray | None = None,
) -> dict[str, object]:
    """Return one row; groups: of the training images, if image i is a copy of one, in turn."""
    cpu, wall = time.process_time(), time.perf_counter()
    nearest = searched(gallery, images)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    copies = int(gallery.copies(nearest).sum())
    interval = binomtest(copies, len(images)).proportion_ci(method="wilson")
    right = np.nan
    if groups is not None:
        right = np.mean(groups[nearest.index] == np.resize(groups, len(images)))
    low, middle, high = np.quantile(nearest.score, (0.05, 0.5, 0.95))
    numbers = {
        "called_copies": copies / len(images),
        "low_95": interval.low,
        "high_95": interval.high,
        "nearest_in_group": right,
        "score_5": low,
        "score_50": middle,
        "score_95": high,
        "threshold": gallery.threshold,
        "cpu_s_per_1000": cpu / len(images) * 1000,
        "wall_s_per_1000": wall / len(images) * 1000,
    }
    print(
        f"{shown:9} {kind:34} {len(images):5} {copies / len(images):7.3f} {right:6.3f} "
        f"{low:5.3f} {middle:5.3f} {high:5.3f} {numbers['cpu_s_per_1000']:6.2f}",
        flush=True,
    )
    rounded = {name: f"{value:.4g}" for name, value in numbers.items() if not np.isnan(value)}
    return {"shown": shown, "kind": kind, "n": len(images)} | rounded


def searched(gallery: Gallery, images: np.ndarray) -> Nearest:
    """Search on all cores, as a caller would."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(gallery.nearest, np.array_split(images, -(-len(images) // 32))))
    return Nearest(
        np.concatenate([f.index for f in found]), np.concatenate([f.score for f in found])
    )


if __name__ == "__main__":
    main()
