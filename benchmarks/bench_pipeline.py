"""From image files to augmented rows in a store, against the scripts that people write for it.

    python -m benchmarks.bench_pipeline --csv benchmarks/results/pipeline.csv --repeats 5

The files are the 437 of the class benign in BUSI, without masks, at 192x160; BUSI is sought in
$AUGKIT_DATA, by default shared/data beside the checkout. 5,000 rows are made by mirror, gain, scale
and zoom. The scripts decode a file for each row that they make, as the tutorials of their libraries
do; ours decodes each once, checks every row, and ends with the bytes on the disk.

`files to rows` are whole processes, from start to end, imports included, each on one core.
`files to rows, two cores` is ours alone, within a process, since imports do not get faster.
`ingest` is ours on two cores, against one, and against decoding and resizing alone on two.
Near-duplicates are looked for in none of them.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import runner

DATA = Path(os.environ.get("AUGKIT_DATA") or Path(__file__).parents[2] / "shared" / "data")
FILES, ROWS, HEIGHT, WIDTH = 437, 5000, 160, 192
CHAIN = "flip+brightness+scale+zoom"
INSTALL = "Install it with: pip install 'augkit[bench]'"


def cases() -> Iterator[runner.Case]:
    """Yield the way from files to rows as whole processes, on two cores, and ingest alone."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("AUGKIT_BENCH_FOLDER")) as name:
        folder = Path(name)
        files = collect(folder / "images")
        peers = [name for name in WORKS if name != "ours" and available(name)]
        yield runner.Case(
            "files to rows",
            process("ours", folder),
            {f"{peer} script": process(peer, folder) for peer in peers},
            ROWS,
            cold=True,
        )
        yield runner.Case(
            "files to rows, two cores",
            on_cores(2, lambda: ours(folder)),
            {"augkit on one core": on_cores(1, lambda: ours(folder))},
            ROWS,
        )
        yield runner.Case(
            "ingest, two cores",
            on_cores(2, lambda: ingest(folder)),
            {
                "augkit on one core": on_cores(1, lambda: ingest(folder)),
                "pillow decode and resize alone": on_cores(2, lambda: decode_alone(files)),
            },
            FILES,
        )


def available(peer: str) -> bool:
    """Return True if a library is installed; if not, say how it is."""
    found = importlib.util.find_spec(peer) is not None
    if not found:
        runner.skipped(peer, INSTALL)
    return found


def collect(images: Path) -> list[Path]:
    """Return copies of the image files of the class, in a folder that holds nothing else."""
    found = sorted((DATA / "busi").rglob("benign (*).png"))
    chosen = [path for path in found if "mask" not in path.name]
    if len(chosen) != FILES:
        sys.exit(f"BUSI is not at {DATA}: set AUGKIT_DATA to the folder that holds it")
    (images / "benign").mkdir(parents=True)
    return [Path(shutil.copy(path, images / "benign")) for path in chosen]


def process(work: str, folder: Path) -> runner.Work:
    """Return a run of one of WORKS in a process of its own, on one core."""
    command = [sys.executable, "-m", "benchmarks.bench_pipeline", "--work", work, str(folder)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "NO_ALBUMENTATIONS_UPDATE": "1"}
    quiet = subprocess.DEVNULL
    return lambda: subprocess.run(command, check=True, env=environment, stdout=quiet, stderr=quiet)


def on_cores(cores: int, work: runner.Work) -> runner.Work:
    """Return the work held to so many cores, whatever threads it begins."""

    def held() -> None:
        usable = os.sched_getaffinity(0)
        os.sched_setaffinity(0, sorted(usable)[:cores])
        try:
            work()
        finally:
            os.sched_setaffinity(0, usable)

    return held


def ours(folder: Path) -> None:
    """Bring the files into a new store and make the rows."""
    import augkit as ak

    store = ingest(folder)
    ak.augment(store, CHAIN, n=ROWS)


def ingest(folder: Path) -> Path:
    """Bring the files into a new store, and return its path."""
    import augkit as ak

    store = folder / "made.store"
    shutil.rmtree(store, ignore_errors=True)
    ak.ingest(folder / "images", store, size=f"{WIDTH}x{HEIGHT}", find_relatives=False)
    return store


def decode_alone(files: list[Path]) -> None:
    """Decode the files and resize them by Pillow on two threads, and keep nothing."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    from PIL import Image

    def load(path: Path) -> np.ndarray:
        with Image.open(path) as image:
            grey = image.convert("L")
        return np.asarray(grey.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))

    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(load, files):
            pass


def albumentations_script(folder: Path) -> None:
    """Make the rows as a script with albumentations, OpenCV and h5py does."""
    import albumentations as peer
    import cv2
    import h5py
    import numpy as np

    cv2.setNumThreads(1)
    transform = peer.Compose(
        [
            peer.HorizontalFlip(p=1),
            peer.RandomBrightnessContrast(brightness_limit=0, contrast_limit=0.2, p=1),
            peer.Affine(scale=(0.8, 1.2), keep_ratio=True, p=1),
            peer.RandomResizedCrop((HEIGHT, WIDTH), scale=(0.49, 1.0), ratio=(1.2, 1.2), p=1),
        ]
    )
    files = itertools.cycle(sorted((folder / "images").rglob("*.png")))
    with h5py.File(folder / "script.h5", "w") as file:
        rows = file.create_dataset(
            "images", (ROWS, HEIGHT, WIDTH), np.uint8, chunks=(1, HEIGHT, WIDTH)
        )
        for i, path in enumerate(itertools.islice(files, ROWS)):
            image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            image = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
            rows[i] = transform(image=image)["image"]


def augmentor_script(folder: Path) -> None:
    """Make the rows with Augmentor, which reads and writes image files."""
    from Augmentor import Pipeline

    output = folder / "augmentor"
    shutil.rmtree(output, ignore_errors=True)
    pipeline = Pipeline(str(folder / "images" / "benign"), output_directory=str(output))
    pipeline.resize(probability=1, width=WIDTH, height=HEIGHT)
    pipeline.flip_left_right(probability=1)
    pipeline.random_brightness(probability=1, min_factor=0.8, max_factor=1.2)
    pipeline.zoom(probability=1, min_factor=1.0, max_factor=1.2)
    pipeline.zoom_random(probability=1, percentage_area=0.7)
    pipeline.sample(ROWS, multi_threaded=False)


WORKS: dict[str, Callable[[Path], None]] = {
    "ours": ours,
    "albumentations": albumentations_script,
    "Augmentor": augmentor_script,
}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        on_cores(1, lambda: WORKS[sys.argv[2]](Path(sys.argv[3])))()
    else:
        runner.main("pipeline", cases())
