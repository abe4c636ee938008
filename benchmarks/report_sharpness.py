"""How sharp what the chain makes is, against one warp, and against two in a row.

    python -m benchmarks.report_sharpness --csv benchmarks/results/sharpness.csv

Scale and zoom on speckle of two sizes, and on BUSI where it is (in $AUGKIT_DATA, by default
shared/data beside the checkout) at 192x160: our chain, which interpolates once in a window of
whole pixels; one affine warp by the same parameters, without that rounding; and a warp for each of
the two, as libraries do. The figure is the variance of the Laplacian, three pixels and more within
the image, over that of the single warp: the median over the images, and where the middle 90 % lie.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from augkit_traditional import Scale, Zoom
from PIL import Image

from augkit.chain import chain
from benchmarks import runner
from benchmarks.bench_augment import speckle

DATA = Path(os.environ.get("AUGKIT_DATA") or Path(__file__).parents[2] / "shared" / "data")
N = 256


def sources() -> Iterator[tuple[str, np.ndarray]]:
    """Yield a name and images, uint8 (N, H, W, 1)."""
    for height, width in ((160, 192), (500, 500)):
        yield f"speckle {width}x{height}", np.concatenate([speckle(height, width)] * (N // 64))
    files = sorted((DATA / "busi").rglob("benign (*).png"))
    files = [path for path in files if "mask" not in path.name][:N]
    if files:
        resized = [
            Image.open(path).convert("L").resize((192, 160), Image.Resampling.LANCZOS)
            for path in files
        ]
        yield "BUSI 192x160", np.stack([np.asarray(image) for image in resized])[..., None]


def sharpness(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return, for the chain and for two warps, the sharpness of each image over one warp's."""
    made = chain([Scale(), Zoom()])
    labels, shape = np.zeros(len(images), np.int64), images.shape[1:]
    params = made.plan(labels, shape, np.random.default_rng(0))
    ours = made.apply(images, labels, params)[..., 0]
    found: dict[str, list[float]] = {"chain": [], "two warps": []}
    for image, row, out in zip(images[..., 0], params, ours, strict=True):
        first, then = scaling(row["scale"], image.shape), zooming(row["zoom"], image.shape)
        inside = cv2.erode(warp(np.full_like(image, 255), first @ then), np.ones((7, 7)))
        single = variance(warp(image, first @ then), inside)
        found["chain"].append(variance(out, inside) / single)
        found["two warps"].append(variance(warp(warp(image, first), then), inside) / single)
    return {name: np.array(values) for name, values in found.items()}


def scaling(row: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return (3, 3), where in its input each pixel of a scaled image lies."""
    centre, factor = ((shape[1] - 1) / 2, (shape[0] - 1) / 2), 1 / float(row["factor"])
    moved = [(1 - factor) * c for c in centre]
    return np.array([[factor, 0, moved[0]], [0, factor, moved[1]], [0, 0, 1]])


def zooming(row: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return (3, 3), where in its input each pixel of a zoomed image lies."""
    wide, high = float(row["width"]) / shape[1], float(row["height"]) / shape[0]
    x, y = float(row["x"]) + wide / 2 - 0.5, float(row["y"]) + high / 2 - 0.5
    return np.array([[wide, 0, x], [0, high, y], [0, 0, 1]])


def warp(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return an image warped linearly, black beyond its edges."""
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix[:2], image.shape[::-1], flags=how)


def variance(image: np.ndarray, inside: np.ndarray) -> float:
    """Return the variance of the Laplacian where `inside` is full."""
    return float(cv2.Laplacian(image, cv2.CV_64F)[inside == 255].var())


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table, and append it to a CSV file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_sharpness")
    parser.add_argument("--csv", type=Path, help="append the rows, as in benchmarks/results/")
    options = parser.parse_args(argv)
    rows: list[dict[str, object]] = []
    for source, images in sources():
        for what, ratios in sharpness(images).items():
            low, middle, high = np.percentile(ratios, [5, 50, 95])
            print(f"{source:18} {what:10} {middle:.3f} ({low:.3f} - {high:.3f})")
            values = {"ratio": middle, "low": low, "high": high}
            told = {key: f"{value:.4f}" for key, value in values.items()}
            rows.append({"images": source, "n": len(images), "what": what, **told})
    if options.csv:
        runner.append(options.csv, rows)


if __name__ == "__main__":
    main()
