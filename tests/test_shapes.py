"""Data of every shape go the whole way through the command line, or are refused in one line.

Few images a class and many, classes of different sizes, two and twenty of them, grey and colour,
small and large, of mixed sizes, with masks for some, of a few patients, with names in any script.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import Outcome, command, works
from PIL import Image

STORE = "augkit.store"
DAGAN = ("size=24x16", "widths=8,8", "latent=8", "batch=4", "steps=1", "critic_steps=1")
"""The least that a generator can be trained with."""


@dataclass(frozen=True)
class Shape:
    """A folder of images, as a stranger may have one."""

    counts: Mapping[str, int]
    """Images of each class."""
    sizes: Sequence[tuple[int, int]] = ((48, 60),)
    """Height and width; of several, each image has the next one."""
    channels: int = 1
    masked: int = 0
    """Every n-th image has a mask; 0: none."""
    together: int = 0
    """So many images of the first class are of one patient; 0: nothing is said of patients."""
    flags: tuple[str, ...] = ("--size", "64x48")
    """Of ingest; of 192x160, which is usual, all would take several times as long."""

    def write(self, folder: Path) -> str:
        """Write the images into a folder, and return what is to be ingested."""
        rng, lines = np.random.default_rng(0), []
        for label, (name, n) in enumerate(self.counts.items()):
            (folder / "images" / name).mkdir(parents=True)
            for i in range(n):
                size = self.sizes[i % len(self.sizes)]
                path = folder / "images" / name / f"{name} ({i}).png"
                Image.fromarray(picture(rng, label, (*size, self.channels))).save(path)
                if self.masked and i % self.masked == 0:
                    mask = np.zeros(size, np.uint8)
                    mask[size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = 255
                    Image.fromarray(mask).save(path.with_name(f"{path.stem}_mask.png"))
                alone = label > 0 or i >= self.together
                lines.append([path, name, f"{name} {i}" if alone else "one patient"])
        if not self.together:
            return "images"
        with (folder / "images.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("image", "class", "patient_id"), *lines])
        return "images.csv"


def picture(rng: np.random.Generator, label: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Return an image with texture of all sizes; what is coarse in it tells the class."""
    height, width, channels = shape
    total = np.full((height, width, 3), 120, np.float32)
    for octave in range(2, int(np.log2(width)) + 1):
        noise = rng.normal(0, 1, (2**octave, 2**octave + 1, 3)).astype(np.float32)
        noise = 0.5 * noise + 0.8 * noise.mean(2, keepdims=True)
        share = 26 / (octave - 1) ** (0.3 + 0.2 * (label % 5))
        total += share * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    drawn = np.clip(total, 0, 255).astype(np.uint8)
    return drawn if channels == 3 else drawn[:, :, 0]


def three(n: int) -> dict[str, int]:
    return {"benign": n, "malignant": n, "normal": n}


SHAPES = {
    "forty of each class": Shape(three(40)),
    "one class far larger": Shape({"benign": 16, "malignant": 12, "normal": 160}),
    "two classes": Shape({"ill": 20, "well": 24}),
    "twenty classes": Shape({f"kind {k}": 12 for k in range(20)}, sizes=((32, 40),)),
    "colour": Shape(three(14), channels=3, flags=("--colour", "--size", "64x48")),
    "64x64": Shape(three(14), sizes=((64, 64),), flags=("--size", "64x64")),
    "1024x768": Shape(three(12), sizes=((768, 1024),), flags=("--size", "1024x768")),
    "mixed sizes": Shape(three(20), sizes=((48, 64), (90, 50), (300, 200), (66, 62)), flags=()),
    "masks for some": Shape(three(14), masked=2),
    "a class of three images": Shape({"benign": 14, "normal": 14, "rare": 3}),
    "a third of a class in one group": Shape(three(18), together=6),
    "names in any script": Shape({"gut artig": 14, "bösartig": 14, "正常": 14, "Норма 2": 14}),
}


def ready(folder: Path, shape: Shape) -> list[dict[str, str]]:
    """Bring the images of a shape into a store; return what `info --rows` says of each."""
    said = works("ingest", shape.write(folder), *shape.flags, cwd=folder)
    assert f"{sum(shape.counts.values())} images added" in said.out
    works("info", "--rows", "rows.csv", cwd=folder)
    with (folder / "rows.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def stands(folder: Path, *arguments: str | int) -> Outcome:
    """Run a command that must end well, without a word on stderr that a stranger cannot use."""
    found = works(*arguments, cwd=folder)
    assert not re.findall(r"Traceback|Warning|\bnan\b|\bNone\b", found.err + found.out)
    return found


def refused(folder: Path, *arguments: str) -> str:
    """Run a command that must end with one line; return it."""
    found = command(*arguments, cwd=folder)
    *notes, last = found.err.splitlines()
    assert found.code == 2 and not found.out
    assert last.startswith("augkit: ") and all(n.startswith("augkit: note: ") for n in notes)
    return last


def seen(path: Path) -> np.ndarray:
    """Return a picture that must show something."""
    shown = np.asarray(Image.open(path).convert("L"))
    assert shown.std() > 5, f"{path} is blank"
    return shown


def augmented(folder: Path) -> list[str]:
    """Make a run with every traditional plugin that is built in, and a chain."""
    names = ["flip", "brightness", "scale", "zoom", "copy"]
    stands(folder, "augment", *(word for name in names for word in ("--plugin", name)))
    chain = ("--plugin", "flip+brightness+scale+zoom", "--n", 6, "--run", "chain")
    stands(folder, "augment", *chain)
    return [*names, "chain"]


def generated(folder: Path, shape: Shape) -> list[str]:
    """Make a run with every generative plugin that is built in, if there is enough to learn."""
    tests = ["oracle", "poison"] if shape.channels == 3 else ["poison"]  # phantoms take a while
    for name in tests:
        stands(folder, "augment", "--plugin", name, "--n", 4)
    options = [word for option in DAGAN for word in ("-o", option)]
    line = ("augment", "--plugin", "dagan", "--n", "2", *options)
    if min(shape.counts.values()) < 8:
        assert "needs at least 8 of each class" in refused(folder, *line)
        return tests
    stands(folder, *line)
    return [*tests, "dagan"]


def judged(folder: Path, shape: Shape) -> None:
    """Evaluate and report."""
    found = stands(folder, "evaluate", "--classifier", "linear", "--arms", "real,flip")
    assert "flip" in found.out.split("verdict")[-1]
    stands(folder, "report")
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in shape.counts) and not re.search(r"\bnan\b", page)


def exported(folder: Path, shape: Shape, rows: Sequence[Mapping[str, str]]) -> None:
    """Write every format, and read the store back from one."""
    for layout in ("imagefolder", "huggingface", "webdataset", "npz"):
        parts = ("--parts", "train,validation,test", "--masks", "--arms", "real,flip")
        stands(folder, "export", layout, "--format", layout, *parts)
        about = json.loads((folder / layout / "export.json").read_text(encoding="utf-8"))
        assert {each["name"] for each in about["classes"]} == {*shape.counts}
        real = [about["rows"][part]["real"] for part in ("train", "validation", "test")]
        assert sum(sum(part.values()) for part in real) == len([r for r in rows if r["fold"]])
    with np.load(folder / "npz" / "data.npz") as arrays:
        assert {*arrays["classes"].tolist()} == {*shape.counts}
    again = ("huggingface", "--store", "again.store", "--no-find-relatives")
    stands(folder, "ingest", *again)


def looked_at(folder: Path, runs: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Draw all pictures, and ask how good the generated images are."""
    stands(folder, "preview")
    seen(folder / "preview.png")
    parent = next(row["key"] for row in rows if row["part"] == "train")
    stands(folder, "preview", "--parent", parent, "--output", "parent.png")
    seen(folder / "parent.png")
    for run in runs[-2:] if runs[-1] == "dagan" else runs[-1:]:
        how = ("--features", "descriptors", "--sheets", "sheets")
        found = stands(folder, "quality", "--run", run, *how)
        assert "images looked at" in found.out
    for sheet in (folder / "sheets").glob("*.png"):
        seen(sheet)
    if runs[-1] == "dagan":
        way = ("--interpolate", "--n", 3, "--output", "way.png")
        stands(folder, "preview", "--run", "dagan", *way)
        seen(folder / "way.png")


def kept(folder: Path, runs: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Check, make again, give away, take back."""
    assert stands(folder, "verify").out.endswith("sound\n")
    for run in ("zoom", "chain", runs[-1]):
        assert "byte for byte" in stands(folder, "replay", "--run", run).out
    stands(folder, "pack", "packed.h5")
    stands(folder, "unpack", "packed.h5", "back.store")
    assert "sound" in stands(folder, "verify", "--store", "back.store").out
    stands(folder, "retract", "zoom", "--store", STORE)
    gone = next(row["key"] for row in rows if row["part"] == "train")
    stands(folder, "purge", "--key", gone, "--store", STORE)
    left = json.loads(stands(folder, "info", "--json", "--store", STORE).out)
    assert left["real"]["rows"] == len(rows) - 1
    assert {run["name"] for run in left["runs"]} <= {"chain"}  # of few images each class has six
    assert "sound" in stands(folder, "verify", "--store", STORE).out


@pytest.mark.seconds
def test_a_mixture_of_all_that_is_odd_goes_the_whole_way(tmp_path):
    shape = Shape(
        {"gut artig": 10, "正常": 9, "rare": 3},
        sizes=((24, 32), (40, 20)),
        channels=3,
        masked=2,
        together=3,
        flags=("--colour", "--size", "32x24", "--no-find-relatives"),
    )
    rows = ready(tmp_path, shape)
    runs = augmented(tmp_path)
    judged(tmp_path, shape)
    exported(tmp_path, shape, rows)
    looked_at(tmp_path, runs, rows)
    kept(tmp_path, runs, rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_data_of_any_shape_go_the_whole_way(name, tmp_path):
    shape = SHAPES[name]
    rows = ready(tmp_path, shape)
    runs = [*augmented(tmp_path), *generated(tmp_path, shape)]
    judged(tmp_path, shape)
    exported(tmp_path, shape, rows)
    looked_at(tmp_path, runs, rows)
    kept(tmp_path, runs, rows)
