"""`augkit verify` against `sha256sum` of the same files, and how both grow with the rows.

    python -m benchmarks.bench_verify --csv benchmarks/results/verify.csv

Grey images of 192x160 in one shard, in the page cache; one thread each. Ours also takes the
checksum of every image, reads all columns, and holds labels and lineage against the rules. The peak
of the memory is that of a process that does nothing else, beyond what it takes with no rows at all.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import augkit as ak
from augkit.store import DatasetStore
from benchmarks import runner

SHAPE = (160, 192, 1)
ROWS = (1_000, 10_000, 100_000)
BLOCK = 500


def make(path: Path, n: int) -> None:
    """Make a store of n real images without near-duplicates."""
    store = DatasetStore.create(path, height=SHAPE[0], width=SHAPE[1])
    labels = [("benign", "malignant")[i % 2] for i in range(n)]
    keys = [f"{i}.png" for i in range(n)]
    ak.ingest_arrays(store, _blocks(n), labels, keys=keys, dataset="noise", find_relatives=False)


def _blocks(n: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for start in range(0, n, BLOCK):
        yield rng.integers(0, 256, (min(BLOCK, n - start), *SHAPE), np.uint8)


def size_of(path: Path) -> int:
    """Return the bytes of all files of a store."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def verify(path: Path) -> tuple[float, float]:
    """Return the processor seconds of verify, and the peak of the memory of its process, in MB."""
    line = [sys.executable, "-m", "benchmarks.bench_verify", "--verify", str(path)]
    told = subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()
    return float(told[0]), float(told[1])


def _verify_here(path: Path) -> None:
    store = ak.open(path)
    store.snapshot().inspect()[:1]  # imports, and the examination of the file
    start = time.process_time()
    assert ak.verify(store).sound
    seconds = time.process_time() - start
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


def sha256sum(path: Path) -> float:
    """Return the processor seconds of sha256sum on all files of a store."""
    files = [str(file) for file in path.rglob("*") if file.is_file()]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(["sha256sum", *files], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measured(path: Path, n: int, repeats: int) -> dict[str, object]:
    """Return a line of the CSV file: ours and the peer, in turns."""
    n_bytes, ours, theirs, peak = size_of(path), [], [], 0.0
    for _ in range(repeats):
        seconds, peak = verify(path)
        ours.append(seconds)
        theirs.append(sha256sum(path))
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {
        "benchmark": "verify",
        "rows": n,
        "bytes": n_bytes,
        "mb_per_s": round(n_bytes / 1e6 / statistics.median(ours)),
        "sha256sum_mb_per_s": round(n_bytes / 1e6 / statistics.median(theirs)),
        "times_sha256sum": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "us_per_row": round(statistics.median(ours) / n * 1e6, 2),
        "peak_mb": round(peak),
        "repeats": repeats,
    }


def main() -> None:
    """Measure, print, and append to the file given with --csv."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_verify")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--verify", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.verify is not None:
        _verify_here(options.verify)
        return
    if shutil.which("sha256sum") is None:
        runner.skipped("sha256sum", "It comes with GNU coreutils.")
        return
    lines = []
    for n in options.rows:
        with tempfile.TemporaryDirectory(dir=os.environ.get("AUGKIT_BENCH_FOLDER")) as folder:
            path = Path(folder) / "a.store"
            make(path, n)
            lines.append(measured(path, n, options.repeats))
        print("; ".join(f"{key} {value}" for key, value in lines[-1].items()), flush=True)
    if options.csv is not None:
        runner.append(options.csv, lines)


if __name__ == "__main__":
    main()
