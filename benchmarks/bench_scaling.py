"""What each command costs as a store grows: processor time, wall time and peak memory.

    python -m benchmarks.bench_scaling --csv benchmarks/results/scaling.csv \
        --plot docs/images/scaling.png

A store of 300 synthetic real images of 192x160 in two classes, and one run of flip, brightness,
scale and zoom with 1,000, 10,000 or 100,000 rows; each command is a process of its own, as from a
terminal, on one worker where it takes workers. `read` reads the training part once, in shuffled
batches of 64, as training does. The largest store has 3 GB, and is made in the folder that
$AUGKIT_BENCH_FOLDER names, by default the usual one for temporary files.

A line of cost that grows with rows has a slope of 1 in the plot; memory that does not is level.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from benchmarks import runner

REAL, HEIGHT, WIDTH = 300, 160, 192
RUN = "made"
READ = """
import numpy as np, augkit as ak
train = ak.open({store!r}).snapshot().training(ak.HOLDOUT, [{run!r}])
order = np.random.default_rng(0).permutation(len(train))
for start in range(0, len(train), 64):
    train.gather(order[start : start + 64])
"""
AUGKIT = (sys.executable, "-c", "from augkit_cli.main import run; run()")


@dataclass(frozen=True)
class Cost:
    """What one process took."""

    wall_s: float
    cpu_s: float
    """Of the user and of the system, of all threads."""
    peak_mb: float
    """The most memory that was resident at once, files that were mapped included."""


def commands(folder: Path, rows: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each command, and how it is called; the first makes the run."""
    store = str(folder / "bench.store")
    chain = ["--plugin", "flip+brightness+scale+zoom", "--run", RUN, "--total", str(rows)]
    yield "augment", [*AUGKIT, "augment", *chain, "--workers", "1", "--store", store]
    yield "info", [*AUGKIT, "info", "--store", store]
    yield "read", [sys.executable, "-c", READ.format(store=store, run=RUN)]
    yield "verify", [*AUGKIT, "verify", "--store", store]
    for layout in ("npz", "webdataset"):
        target = str(folder / f"export-{layout}")
        how = ["--format", layout, "--arms", RUN, "--store", store]
        yield f"export {layout}", [*AUGKIT, "export", target, *how]
    yield "preview", [*AUGKIT, "preview", "--output", str(folder / "p.png"), "--store", store]
    yield "replay", [*AUGKIT, "replay", "--run", RUN, "--store", store]
    yield "pack", [*AUGKIT, "pack", str(folder / "bench.h5"), "--store", store]
    yield "unpack", [*AUGKIT, "unpack", str(folder / "bench.h5"), str(folder / "back.store")]
    how = ["--split", "70/15/15", "--arms", f"real,{RUN}", "--seeds", "1", "--store", store]
    yield "evaluate linear", [*AUGKIT, "evaluate", "--classifier", "linear", *how]


def begin(folder: Path) -> None:
    """Make the store of real images, which are noise blurred to the grain of ultrasound."""
    import numpy as np

    import augkit as ak
    from benchmarks.bench_augment import speckle

    store = ak.DatasetStore.create(folder / "bench.store", height=HEIGHT, width=WIDTH)
    images = np.concatenate([speckle(HEIGHT, WIDTH)] * (REAL // 64 + 1))[:REAL]
    labels = ["benign" if i % 2 else "malignant" for i in range(REAL)]
    keys = [f"{i}.png" for i in range(REAL)]
    ak.ingest_arrays(store, [images], labels, keys=keys, find_relatives=False)


def cost(command: Sequence[str]) -> Cost:
    """Run a command and return what it took. Raises RuntimeError, with its words, if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        child = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {said.read().decode()[-500:]}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def measure(rows: int, repeats: int, only: Sequence[str]) -> dict[str, list[Cost]]:
    """Return the costs of each command, or of some, on a store of so many rows."""
    found: dict[str, list[Cost]] = {}
    place = os.environ.get("AUGKIT_BENCH_FOLDER")
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(dir=place) as name:
            # Not here: a process begins with the peak memory of the one that started it.
            subprocess.run(
                [sys.executable, "-m", "benchmarks.bench_scaling", "--begin", name], check=True
            )
            for command, line in commands(Path(name), rows):
                if only and command not in (*only, "augment"):
                    continue
                found.setdefault(command, []).append(cost(line))
                shutil.rmtree(Path(name) / "export-npz", ignore_errors=True)
    return found


def plot(results: dict[tuple[str, int], Cost], path: Path) -> None:
    """Draw processor time and peak memory over the rows, a line for each command."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    sizes = sorted({rows for _, rows in results})
    names = list(dict.fromkeys(command for command, _ in results))
    for k, name in enumerate(names):
        style = {"marker": "osD^v"[k % 5], "markersize": 4, "label": name, "color": f"C{k % 10}"}
        costs = [results[name, rows] for rows in sizes]
        time_axes.plot(sizes, [c.cpu_s for c in costs], linestyle="-" if k < 10 else "--", **style)
        memory_axes.plot(sizes, [c.peak_mb for c in costs], **style)
    guide = [2e-5 * rows for rows in sizes]
    time_axes.plot(sizes, guide, color="grey", linestyle=":", label="in proportion to rows")
    time_axes.set(xscale="log", yscale="log", xlabel="rows of the run", ylabel="processor time, s")
    memory_axes.set(
        xscale="log", xlabel="rows of the run", ylabel="peak memory, MB", ylim=(0, None)
    )
    figure.legend(*time_axes.get_legend_handles_labels(), loc="outside right", frameon=False)
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, and append it to a CSV file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_scaling")
    parser.add_argument("--csv", type=Path, help="append the rows, as in benchmarks/results/")
    parser.add_argument("--plot", type=Path, help="draw what the CSV file has into this PNG file")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=1, help="medians over so many (default: 1)")
    parser.add_argument("--begin", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="*", default=[], help="these commands, and augment")
    options = parser.parse_args(argv)
    if options.begin:
        begin(options.begin)
        return
    print(f"{'command':20} {'rows':>8} {'wall s':>9} {'cpu s':>9} {'peak MB':>9}")
    for rows in options.rows:
        measured = measure(rows, options.repeats, options.only)
        middle_of: dict[str, Cost] = {}
        for name, costs in measured.items():
            middle = Cost(
                *(statistics.median(values) for values in zip(*map(astuple, costs), strict=True))
            )
            middle_of[name] = middle
            print(
                f"{name:20} {rows:8} {middle.wall_s:9.2f} {middle.cpu_s:9.2f} {middle.peak_mb:9.0f}"
            )
        if options.csv:
            runner.append(options.csv, [columns(n, rows, c) for n, c in middle_of.items()])
    if options.plot and options.csv:
        plot(newest(options.csv), options.plot)


def newest(path: Path) -> dict[tuple[str, int], Cost]:
    """Return the last cost that a CSV file has of each command and number of rows."""
    with path.open(encoding="utf-8", newline="") as file:
        return {
            (row["command"], int(row["rows"])): Cost(
                float(row["wall_s"]), float(row["cpu_s"]), float(row["peak_mb"])
            )
            for row in csv.DictReader(file)
        }


def columns(name: str, rows: int, found: Cost) -> dict[str, object]:
    """Return a line of the CSV file."""
    values = {key: f"{value:.4g}" for key, value in vars(found).items()}
    return {"command": name, "rows": rows, **values}


if __name__ == "__main__":
    main()
