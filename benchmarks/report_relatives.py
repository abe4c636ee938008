"""What the search for near-duplicates calls relatives: in BUSI, between hospitals, among strangers.

    python -m benchmarks.report_relatives --csv benchmarks/results/relatives.csv

All pairs are compared, at the size of the store. BUSI and BrEaST are sought in $AUGKIT_DATA, by
default shared/data beside the checkout; what needs them is left out where they are not. Pairs of
two hospitals and pairs within BrEaST, an image a patient, cannot be related. Nor can 42 images of
BUSI of different groups, turned by 4 degrees, which leaves black corners; phantoms; and textures,
some of them made at 33x31 and blown up. `groups` are of all images, `of one class` what is left
without groups of several classes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from augkit.ingestion.duplicates import Traces, related_pairs
from augkit.ingestion.pairs import Pairs, clusters
from augkit.ingestion.prints import ALIKE, THRESHOLD
from augkit.phantoms import phantoms
from benchmarks import runner

DATA = Path(os.environ.get("AUGKIT_DATA") or Path(__file__).parents[2] / "shared" / "data")
HEIGHT, WIDTH = 160, 192
ALL = 10**6
"""More images than there are: all pairs are compared."""

Row = dict[str, object]


def rows() -> Iterator[Row]:
    """Yield what was found, a row for each set of images and threshold."""
    busi, labels = site("busi")
    breast, _ = site("breast")
    if len(busi) and len(breast):
        yield from real(busi, labels, breast)
    for difficulty in (0.1, 0.5):
        name = f"300 plain phantoms, difficulty {difficulty}"
        images, _, _ = phantoms(100, height=HEIGHT, width=WIDTH, difficulty=difficulty)
        yield strangers(name, found_in(images), 300 * 299 // 2)
    small, large = textures(15, 31, 33, 0), textures(45, HEIGHT, WIDTH, 1)
    mixed = found_in(np.concatenate([small, large]))
    yield strangers("15 textures of 33x31 among 45 of 192x160", mixed, 60 * 59 // 2)


def real(busi: np.ndarray, labels: np.ndarray, breast: np.ndarray) -> Iterator[Row]:
    """Yield the rows of the two hospitals."""
    n, m = len(busi), len(breast)
    pairs = found_in(np.concatenate([busi, breast]))
    inside = pairs.second < n
    own, others = pairs.where(inside), pairs.where(~inside)
    groups = np.empty(0, np.int64)
    for threshold in (0.16, 0.25, THRESHOLD, ALIKE):
        over = own.over(threshold)
        groups = clusters(n, over.first, over.second) if threshold > ALIKE else groups
        yield row("BUSI", own, n * (n - 1) // 2, threshold) | grouped(groups, labels, threshold)
    yield strangers("BUSI with BrEaST, BrEaST", others, n * m + m * (m - 1) // 2)
    yield strangers("42 of BUSI, turned", found_in(turned(busi, groups)), 42 * 41 // 2)


def grouped(groups: np.ndarray, labels: np.ndarray, threshold: float) -> Row:
    """Return how many groups there are, and how many of one class, with so many images."""
    if threshold == ALIKE:
        return {}
    n_classes = np.array([len({*labels[groups == group]}) for group in range(groups.max() + 1)])
    kept = n_classes[groups] == 1
    whole = {"groups": int(groups.max()) + 1, "of one class": int((n_classes == 1).sum())}
    return whole | {"images of one class": int(kept.sum())}


def strangers(name: str, pairs: Pairs, compared: int) -> Row:
    """Return the row of images that are not related."""
    return row(name, pairs, compared, THRESHOLD)


def row(name: str, pairs: Pairs, compared: int, threshold: float) -> Row:
    """Return a row: how many pairs score over a threshold, and the highest score of all."""
    highest = float(pairs.score.max(initial=0))
    found = {"images": name, "pairs": compared, "threshold": threshold}
    return found | {"over": len(pairs.over(threshold)), "highest": round(highest, 4)}


def found_in(images: np.ndarray) -> Pairs:
    """Return all pairs of images, uint8 (n, H, W, 1), that score over the lowest bound."""
    return related_pairs(Traces.of(images), threshold=ALIKE, many=ALL)


def site(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of a data set as the store has them, and the folder of each."""
    files = [p for p in sorted((DATA / name).rglob("*.png")) if "mask" not in str(p)]
    if not files:
        runner.skipped(name, f"It is sought in {DATA}: set AUGKIT_DATA to the folder that holds it")
        return np.empty((0, HEIGHT, WIDTH, 1), np.uint8), np.empty(0, str)
    size, fine = (WIDTH, HEIGHT), Image.Resampling.LANCZOS
    images = [np.asarray(Image.open(path).convert("L").resize(size, fine)) for path in files]
    return np.stack(images)[..., None], np.array([path.parent.name for path in files])


def turned(images: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return 42 images of different groups, turned by 4 degrees about their centres."""
    first = np.unique(groups, return_index=True)[1]
    chosen = first[np.linspace(0, len(first) - 1, 42).astype(np.int64)]
    bicubic = Image.Resampling.BICUBIC
    each = [Image.fromarray(images[i, :, :, 0]).rotate(4, bicubic) for i in chosen]
    return np.stack([np.asarray(image) for image in each])[..., None]


def textures(n: int, height: int, width: int, seed: int) -> np.ndarray:
    """Return noise of all sizes that so many pixels can hold, as a store would have it."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(n):
        total = np.full((height, width), 120.0)
        for octave in range(2, int(np.log2(width)) + 1):
            noise = rng.normal(0, 26 / (octave - 1) ** 0.5, (2**octave,) * 2).astype(np.float32)
            total += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        picture = Image.fromarray(np.clip(total, 0, 255).astype(np.uint8))
        made.append(np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)))
    return np.stack(made)[..., None]


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table, and append it to a CSV file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_relatives")
    parser.add_argument("--csv", type=Path, help="append the rows, as in benchmarks/results/")
    options = parser.parse_args(argv)
    columns = ["groups", "of one class", "images of one class"]
    found = [dict.fromkeys(columns, "") | each for each in rows()]
    for each in found:
        print("  ".join(f"{name} {value}" for name, value in each.items() if value != ""))
    if options.csv:
        runner.append(options.csv, found)


if __name__ == "__main__":
    main()
