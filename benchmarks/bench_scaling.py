"""What each command costs as a store grows: processor time, wall time and peak memory.

    python -m benchmarks.bench_scaling --csv benchmarks/results/scaling.csv \
        --plot docs/images/scaling.png
    python -m benchmarks.bench_scaling --of real --rows 1000 100000 \
        --csv benchmarks/results/scaling.csv

A store of 300 synthetic real images of 192x160 in two classes, and one run of flip, brightness,
scale and zoom with 1,000, 10,000 or 100,000 rows; each command is a process of its own, as from a
terminal, on one worker where it takes workers. `read` reads the training part once, in shuffled
batches of 64, as training does. The largest store has 3 GB, and is made in the folder that
$AUGKIT_BENCH_FOLDER names, by default the usual one for temporary files.

A line of cost that grows with rows has a slope of 1 in the plot; memory that does not is level.

`--of real` makes the real images many: 1,000 or 100,000 of 32x32 in three classes, as an NPZ file
and as a folder of PNG files, and a flip of each training image. Its commands are called `real: ...`
in the CSV file, and are not drawn.
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
MANY = "real: "
"""What the names of commands begin with where real images are many."""
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


def commands_of_real(folder: Path, rows: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the same where real images are many; `begin_many` has written them."""
    store = ["--store", str(folder / "many.store")]
    alone = ["--no-find-relatives", "--workers", "1"]
    key = "many/train/000000"
    yield "ingest npz", ["ingest", str(folder / "many.npz"), *alone, *store]
    other = ["--store", str(folder / "files.store")]
    yield "ingest folder", ["ingest", str(folder / "files"), *alone, *other]
    yield "info --rows", ["info", "--rows", str(folder / "rows.csv"), *store]
    made = ["--plugin", "flip", "--run", RUN]
    yield "augment", ["augment", *made, "--workers", "1", *store]
    for layout in ("imagefolder", "huggingface", "webdataset", "npz"):
        what = ["--format", layout, "--arms", "all", "--parts", "train,validation,test"]
        yield f"export {layout}", ["export", str(folder / layout), *what, *store]
    for layout in ("huggingface", "webdataset", "npz"):
        back = ["--store", str(folder / f"{layout}.store")]
        yield f"ingest export {layout}", ["ingest", str(folder / layout), *alone, *back]
    yield "quality", ["quality", "--run", RUN, "--n", "100", *store]
    yield "preview", ["preview", "--output", str(folder / "p.png"), *store]
    parent = ["--parent", key, "--output", str(folder / "q.png")]
    yield "preview --parent", ["preview", *parent, *store]
    yield "verify", ["verify", *store]
    yield "replay", ["replay", "--run", RUN, *store]
    yield "pack", ["pack", str(folder / "many.h5"), *store]
    yield "unpack", ["unpack", str(folder / "many.h5"), str(folder / "back.store")]
    how = ["--split", "70/15/15", "--arms", "real", *store]
    yield "evaluate linear", ["evaluate", "--classifier", "linear", *how]
    yield "report", ["report", "--output", str(folder / "report"), *store]
    yield "purge", ["purge", "--key", key, *store]
    yield "retract", ["retract", RUN, "--store", str(folder / "back.store")]


def begin_many(folder: Path, rows: int, *, files: bool) -> None:
    """Write so many small images of three classes, as an NPZ file and, if wanted, as PNG files."""
    import cv2
    import numpy as np
    from PIL import Image

    rng, labels = np.random.default_rng(0), np.arange(rows) % 3
    images = np.empty((rows, 32, 32), np.uint8)
    for i, label in enumerate(labels):
        total = np.full((32, 32), 128, np.float32)
        for octave in (1, 2, 3, 4, 5):
            noise = rng.normal(0, 1, (2**octave + 1, 2**octave + 1)).astype(np.float32)
            total += 30 / (octave + 0.5 * label) * cv2.resize(noise, (32, 32))
        images[i] = np.clip(total, 0, 255)
    names = np.array(["a", "b", "c"])
    np.savez(folder / "many.npz", train_images=images, train_labels=labels[:, None], classes=names)
    if not files:
        return
    for name in names:
        (folder / "files" / name).mkdir(parents=True)
    for i, label in enumerate(labels):
        path = folder / "files" / names[label] / f"{i:06}.png"
        Image.fromarray(images[i]).save(path, compress_level=1)


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


def lines(of: str, folder: Path, rows: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each command and the whole of its line."""
    if of == "run":
        yield from commands(folder, rows)
    else:
        for name, words in commands_of_real(folder, rows):
            yield f"{MANY}{name}", [*AUGKIT, *words]


def measure(of: str, rows: int, repeats: int, only: Sequence[str]) -> dict[str, list[Cost]]:
    """Return the costs of each command, or of some, on a store of so many rows."""
    found: dict[str, list[Cost]] = {}
    place = os.environ.get("AUGKIT_BENCH_FOLDER")
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(dir=place) as name:
            # Not here: a process begins with the peak memory of the one that started it.
            begun = ["--begin", name, "--of", of, "--rows", str(rows), "--only", *only]
            subprocess.run([sys.executable, "-m", "benchmarks.bench_scaling", *begun], check=True)
            for command, line in lines(of, Path(name), rows):
                if only and command not in (*only, "augment"):
                    continue
                found.setdefault(command, []).append(cost(line))
                last = found[command][-1]
                said = f"{command}: {last.wall_s:.0f} s, {last.peak_mb:.0f} MB"
                print(said, file=sys.stderr, flush=True)
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
    parser.add_argument("--of", choices=["run", "real"], default="run", help="what is many")
    parser.add_argument("--begin", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="*", default=[], help="these commands, and augment")
    options = parser.parse_args(argv)
    if options.begin:
        if options.of == "run":
            begin(options.begin)
        else:
            files = not options.only or f"{MANY}ingest folder" in options.only
            begin_many(options.begin, *options.rows, files=files)
        return
    print(f"{'command':28} {'rows':>8} {'wall s':>9} {'cpu s':>9} {'peak MB':>9}")
    for rows in options.rows:
        measured = measure(options.of, rows, options.repeats, options.only)
        middle_of: dict[str, Cost] = {}
        for name, costs in measured.items():
            middle = Cost(
                *(statistics.median(values) for values in zip(*map(astuple, costs), strict=True))
            )
            middle_of[name] = middle
            print(
                f"{name:28} {rows:8} {middle.wall_s:9.2f} {middle.cpu_s:9.2f} {middle.peak_mb:9.0f}"
            )
        if options.csv:
            runner.append(options.csv, [columns(n, rows, c) for n, c in middle_of.items()])
    if options.plot and options.csv:
        plot(newest(options.csv), options.plot)


def newest(path: Path) -> dict[tuple[str, int], Cost]:
    """Return the last cost of each command and number of rows, those of many real images aside."""
    with path.open(encoding="utf-8", newline="") as file:
        return {
            (row["command"], int(row["rows"])): Cost(
                float(row["wall_s"]), float(row["cpu_s"]), float(row["peak_mb"])
            )
            for row in csv.DictReader(file)
            if not row["command"].startswith(MANY)
        }


def columns(name: str, rows: int, found: Cost) -> dict[str, object]:
    """Return a line of the CSV file."""
    values = {key: f"{value:.4g}" for key, value in vars(found).items()}
    return {"command": name, "rows": rows, **values}


if __name__ == "__main__":
    main()
