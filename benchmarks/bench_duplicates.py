"""Near-duplicates: how many are found, in what time, against pHash and plain correlation.

    python -m benchmarks.bench_duplicates --csv benchmarks/results/duplicates.csv
    python -m benchmarks.bench_duplicates --large 20000 --csv benchmarks/results/duplicates.csv

First 780 images: 390 of BUSI, each once as it is and once changed, so that 390 pairs are known
besides those that BUSI has itself, which count for nobody. Ours, pHash (imagehash, all pairs) and
plain correlation over all shifts (96 x 96, all pairs) look for them; each peer gets the threshold
at which it calls one in 10,000 pairs of strangers relatives. Then, if asked,
ours alone among many images, of which each tenth is a changed copy of another, in a process of its
own, with its peak memory. The others are woven of two scans of BUSI each, so that many share a part
of a scan: those found besides are counted apart from strangers. Without BUSI, phantoms stand in.
BUSI is sought in $AUGKIT_DATA, by default shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image
from scipy import fft

from augkit.ingestion.duplicates import Traces, related_pairs
from augkit.testing import phantoms
from benchmarks import runner

DATA = Path(os.environ.get("AUGKIT_DATA") or Path(__file__).parents[2] / "shared" / "data")
HEIGHT, WIDTH = 160, 192
T = TypeVar("T")
STRANGERS = 1e-4
"""Share of unrelated pairs that a peer may call relatives."""

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Scores = dict[tuple[int, int], float]


def cropped(width: float, height: float) -> Change:
    def change(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        w, h = round(image.shape[1] * width), round(image.shape[0] * height)
        x, y = rng.integers(0, image.shape[1] - w + 1), rng.integers(0, image.shape[0] - h + 1)
        return image[y : y + h, x : x + w]

    return change


def mirrored(change: Change) -> Change:
    return lambda image, rng: change(image, rng)[:, ::-1]


def as_it_is(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image


def gamma(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    bent = 255 * (image / 255.0) ** rng.choice([0.6, 1.6]) * rng.uniform(0.8, 1.2)
    return np.clip(bent, 0, 255).astype(np.uint8)


def marked(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Burn in two calipers with a dotted line between them, and a text."""
    copy = image.copy()
    height, width = copy.shape
    ends = rng.uniform(0.2, 0.7, (2, 2)) * (width, height)
    for x, y in ends.astype(int).tolist():
        cv2.drawMarker(copy, (x, y), 255, cv2.MARKER_CROSS, max(6, width // 30), 2)
    for share in np.linspace(0, 1, 40):
        x, y = (ends[0] * (1 - share) + ends[1] * share).astype(int).tolist()
        cv2.circle(copy, (x, y), 1, 255, -1)
    where = (width // 10, int(height * 0.85))
    cv2.putText(copy, "RT UOQ 2", where, cv2.FONT_HERSHEY_SIMPLEX, width / 600, 255, 2)
    return copy


def recompressed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 25])
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE))


def rotated(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn by 3 degrees to either side."""
    height, width = image.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.choice([-3.0, 3.0]), 1)
    return cv2.warpAffine(image, matrix, (width, height))


CHANGES: dict[str, Change] = {
    "exact": as_it_is,
    "mirrored": mirrored(as_it_is),
    "gain and gamma": gamma,
    "marks and text": marked,
    "JPEG quality 25": recompressed,
    "rotated by 3 degrees": rotated,
    "cropped to 85 %": cropped(0.85, 0.85),
    "cropped to 75 %": cropped(0.75, 0.75),
    "cropped to 65 %": cropped(0.65, 0.65),
    "cropped to 50 %": cropped(0.5, 0.5),
    "cropped to 60 x 80 %": cropped(0.6, 0.8),
    "mirrored, cropped to 85 %": mirrored(cropped(0.85, 0.85)),
    "mirrored, cropped to 75 %": mirrored(cropped(0.75, 0.75)),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_duplicates")
    parser.add_argument("--csv", type=Path, help="append the rows, as in benchmarks/results/")
    parser.add_argument("--large", type=int, metavar="N", help="also ours alone among N images")
    options = parser.parse_args()
    print("; ".join(f"{key} {value}" for key, value in runner.machine().items()))
    rows = list(compared())
    if options.large:
        rows += alone(options.large)
    if options.csv is not None:
        runner.append(options.csv, rows)


def sources(n: int, first: int = 0) -> list[np.ndarray]:
    """Return n grey images at their full size: every other one of BUSI, else phantoms."""
    folder = DATA / "busi" / "Dataset_BUSI_with_GT"
    files = sorted(p for p in folder.glob("*/*.png") if "_mask" not in p.name)
    if not files:
        return list(phantoms(first + n, height=HEIGHT, width=WIDTH)[0][first : first + n, ..., 0])
    chosen = files[first::2][:n]
    return [np.asarray(Image.open(path).convert("L")) for path in chosen]


def stored(image: np.ndarray) -> np.ndarray:
    """Return an image as a store holds it: uint8 (160, 192, 1)."""
    small = Image.fromarray(np.ascontiguousarray(image)).resize(
        (WIDTH, HEIGHT), Image.Resampling.LANCZOS
    )
    return np.asarray(small)[..., None]


def compared() -> Iterator[dict[str, object]]:
    """Yield a row for each searcher and change."""
    rng, full = np.random.default_rng(0), sources(390)
    names = list(CHANGES)
    copies = [CHANGES[names[i % len(names)]](image, rng) for i, image in enumerate(full)]
    images = np.stack([stored(image) for image in [*full, *copies]])
    planted = {(i, len(full) + i): names[i % len(names)] for i in range(len(full))}
    searchers = {"augkit": ours, "imagehash pHash": by_hash, "plain correlation": by_correlation}
    real: set[tuple[int, int]] = set()
    for name, search in searchers.items():
        cpu, wall = time.process_time(), time.perf_counter()
        scores = search(images)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        if name == "augkit":
            real = relatives_of(scores, len(full))
        else:
            scores = cut(scores, planted, real, len(images))
        for kind in names:
            pairs = [pair for pair, made in planted.items() if made == kind]
            yield row(name, kind, len(pairs), sum(p in scores for p in pairs), cpu, wall)
        strangers = len({p for p in scores if p not in planted and p not in real})
        yield row(
            name, "strangers called relatives", count_pairs(len(images)), strangers, cpu, wall
        )


def relatives_of(scores: Scores, n: int) -> set[tuple[int, int]]:
    """Return the pairs that follow from relatives among the n originals, as our search has them.

    A pair with a changed image that is found where its originals are none counts against us.
    """
    found = [(a, b) for a, b in scores if b < n]
    return {(min(x, y), max(x, y)) for a, b in found for x in (a, a + n) for y in (b, b + n)}


def cut(
    scores: Scores, planted: dict[tuple[int, int], str], real: set[tuple[int, int]], n: int
) -> Scores:
    """Return the scores that the allowed share of unrelated pairs stays under."""
    others = sorted(
        (s for p, s in scores.items() if p not in planted and p not in real), reverse=True
    )
    allowed = int(STRANGERS * count_pairs(n))
    bar = others[allowed] if allowed < len(others) else -np.inf
    return {pair: score for pair, score in scores.items() if score > bar}


def count_pairs(n: int) -> int:
    return n * (n - 1) // 2


def ours(images: np.ndarray) -> Scores:
    traces = Traces(len(images))
    for start in range(0, len(images), 64):
        traces.add(images[start : start + 64])
    found = related_pairs(traces)
    pairs = zip(found.first.tolist(), found.second.tolist(), strict=True)
    return dict(zip(pairs, found.score.tolist(), strict=True))


def by_hash(images: np.ndarray) -> Scores:
    """Return less the distance of the hashes of all pairs."""
    import imagehash

    hashes = [imagehash.phash(Image.fromarray(image[..., 0])) for image in images]
    bits = np.array([each.hash.ravel() for each in hashes])
    scores: Scores = {}
    for i, one in enumerate(bits):
        distance = (bits[i + 1 :] != one).sum(1)
        scores.update({(i, i + 1 + k): -float(d) for k, d in enumerate(distance.tolist())})
    return scores


def by_correlation(images: np.ndarray) -> Scores:
    """Return the highest correlation over all shifts of all pairs at 96 x 96."""
    small = np.stack(
        [cv2.resize(i[..., 0], (96, 96), interpolation=cv2.INTER_AREA) for i in images]
    )
    even = small.astype(np.float32) - small.mean((1, 2), keepdims=True, dtype=np.float32)
    even /= np.maximum(np.sqrt((even**2).sum((1, 2), keepdims=True)), 1e-6)
    waves, scores = fft.rfft2(even), {}
    for i, wave in enumerate(waves):
        for start in range(i + 1, len(waves), 32):
            surface = fft.irfft2(wave.conj() * waves[start : start + 32], (96, 96))
            peaks = surface.max((1, 2)).tolist()
            scores.update({(i, start + k): peak for k, peak in enumerate(peaks)})
    return scores


def alone(n: int) -> list[dict[str, object]]:
    """Return the rows of ours among n images, measured in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(among, (n,))


def among(n: int) -> list[dict[str, object]]:
    """Search among n images made one block at a time, so that no more than the traces are held."""
    rng = np.random.default_rng(1)
    base = [stored(image)[..., 0] for image in [*sources(390), *sources(390, 1)]]
    names, traces = list(CHANGES), Traces(n)
    spent = {"cpu": 0.0, "wall": 0.0}
    planted: list[tuple[int, int]] = []
    woven: list[set[int]] = []
    block: list[np.ndarray] = []
    for i in range(n):
        if i % 10 == 9:
            block.append(stored(CHANGES[names[i // 10 % len(names)]](block[-1][..., 0], rng)))
            planted.append((i - 1, i))
            woven.append(woven[-1])
        else:
            image, parents = unlike(base, rng)
            block.append(stored(image))
            woven.append(parents)
        if len(block) == 160 or i == n - 1:
            clocked(spent, partial(traces.add, np.stack(block)))
            block = []
    found = clocked(spent, lambda: related_pairs(traces))
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    cost = (spent["cpu"], spent["wall"], n)
    hits = pairs & set(planted)
    sharing = {(a, b) for a, b in pairs - hits if woven[a] & woven[b]}
    holders = np.bincount([scan for each in woven for scan in each])
    n_sharing = int((holders * (holders - 1) // 2).sum()) - 2 * len(planted)
    made = row("augkit", "all changes", len(planted), len(hits), *cost)
    return [
        made | {"pairs_found": len(pairs), "peak_mb": round(peak_mb())},
        row("augkit", "woven of one scan, called relatives", n_sharing, len(sharing), *cost),
        row(
            "augkit",
            "strangers called relatives",
            count_pairs(n) - n_sharing - len(planted),
            len(pairs - hits - sharing),
            *cost,
        ),
    ]


def peak_mb() -> float:
    """Return the most memory that this process held; getrusage would count its parent's as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def unlike(base: list[np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, set[int]]:
    """Return two of the base woven together anew, and which: seldom like another such image."""
    parents = rng.choice(len(base), 2, replace=False).tolist()
    a, b = (base[i] for i in parents)
    noise = rng.normal(size=a.shape).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    grain = smooth / smooth.std() * 0.5 + 1
    warped = cv2.resize(np.roll(b, rng.integers(-90, 90), axis=1), (WIDTH, HEIGHT))
    mask = cv2.GaussianBlur(rng.normal(size=a.shape).astype(np.float32), (0, 0), 14) > 0
    return np.clip(np.where(mask, a, warped) * grain, 0, 255).astype(np.uint8), set(parents)


def clocked(spent: dict[str, float], work: Callable[[], T]) -> T:
    cpu, wall = time.process_time(), time.perf_counter()
    done = work()
    spent["cpu"] += time.process_time() - cpu
    spent["wall"] += time.perf_counter() - wall
    return done


def row(
    searcher: str, kind: str, n: int, found: int, cpu: float, wall: float, images: int = 780
) -> dict[str, object]:
    print(
        f"{searcher:18} {kind:28} {found:6} of {n:6}  cpu {cpu:7.1f} s  wall {wall:7.1f} s",
        flush=True,
    )
    return {
        "searcher": searcher,
        "images": images,
        "kind": kind,
        "pairs": n,
        "found": found,
        "cpu_s": f"{cpu:.1f}",
        "wall_s": f"{wall:.1f}",
        "pairs_found": "",
        "peak_mb": "",
    }


if __name__ == "__main__":
    main()
