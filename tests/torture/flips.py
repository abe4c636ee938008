"""Flipped bytes: each byte of every file that a small store consists of, and what verify says."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import augkit as ak
from augkit.errors import AugkitError
from augkit.results import Result, Results
from augkit.store import DatasetStore
from augkit.store.screening import trust

from .kills import child
from .worlds import Tally, World


def fill(path: Path) -> None:
    """Put a result of an evaluation beside the data, as evaluations do."""
    store = ak.open(path)
    results = Results(store.side_folder("results"))
    results.write({"classifier": "toy", "seed": 0}, Result(np.eye(3, 2, dtype=np.float32)))


def files(path: Path) -> list[Path]:
    """Return every file that verify answers for."""
    folders = ("log", "shards", "models", "results")
    if path.is_file():
        return [path, *sorted(path.parent.glob(f".{path.name}.results/*.json"))]
    found = [p for f in folders for p in sorted((path / f).rglob("*")) if p.is_file()]
    return [path / "store.json", *found]


def images_in(file: Path, path: Path) -> dict[int, tuple[str, int]]:
    """Return the first byte of each image in a file -> its shard and its row."""
    found: dict[int, tuple[str, int]] = {}
    if file.suffix != ".h5":
        return found
    for entry in ak.open(path).snapshot().entries:
        shard = entry.get("shard")
        if shard is None or (path.is_dir() and file.stem != shard["name"]):
            continue
        store = ak.open(path)
        with store._pool.shard(shard["name"], shard["rows"]) as opened:
            lying = opened.lying()
        assert lying is not None
        found |= {int(at): (shard["name"], row) for row, at in enumerate(lying.offsets)}
        store.close()
    return found


def campaign(world: World, root: Path, positions: int | None, seed: int = 0) -> Tally:
    """Flip a bit of every byte, or of so many in each file, one at a time; verify the store.

    Counted as lost: a flip that verify does not find. As visible: one in an image that verify
    finds, but not the shard and the row of.
    """
    path = world.copy(root / "flipped")
    fill(path)
    rng, found = np.random.default_rng(seed), Tally()
    assert ak.verify(ak.open(path)).sound
    for file in files(path):
        content, places = file.read_bytes(), images_in(file, path)
        size = int(np.prod(ak.open(path).shape))
        at = [*_chosen(len(content), positions, rng)]
        bits = rng.integers(8, size=len(at)).tolist()
        said_of = problems_of(path, file, [*zip(at, bits, strict=True)])
        for position, said in zip(at, said_of, strict=True):
            found.n += 1
            row = next((v for k, v in places.items() if k <= position < k + size), None)
            where = f"{world.form}: {file.name} at {position}"
            if not said:
                found.lost += 1
                found.notes.append(f"{where}: not found")
            elif row and not any(row[0] in s and f"(rows {row[1]})" in s for s in said):
                found.visible += 1
                found.notes.append(f"{where}: {row} is not named: {said}")
    assert ak.verify(ak.open(path)).sound
    return found


def problems_of(path: Path, file: Path, flips: list[tuple[int, int]]) -> list[list[str]]:
    """Return what verify says after each flip of a bit, all in one child process.

    Where that process ends before its answer, there is none; another goes on.
    """
    content, told = file.read_bytes(), path.parent.with_name("said.jsonl")
    found: list[list[str]] = []

    def work() -> None:
        with told.open("a") as answers:
            for position, bit in flips[len(found) :]:
                changed = bytearray(content)
                changed[position] ^= 1 << bit
                file.write_bytes(changed)
                if file.suffix == ".h5":  # known: it was written here, and only then damaged
                    trust(file, "packed" if path.is_file() else "shard", remember=False)
                answers.write(json.dumps(problems(path)) + "\n")
                answers.flush()

    told.write_text("")
    while len(found) < len(flips):
        os.waitpid(child(work), 0)
        found = [json.loads(line) for line in told.read_text().splitlines()]
        if len(found) < len(flips):
            found.append([])
            told.write_text("".join(json.dumps(each) + "\n" for each in found))
    file.write_bytes(content)
    return found


def problems(path: Path) -> list[str]:
    """Return what verify finds; a store that cannot be opened at all is found as well."""
    try:
        store = DatasetStore.open(path)
        try:
            return [str(problem) for problem in ak.verify(store).problems]
        finally:
            store.close()
    except AugkitError as error:
        return [str(error)]


def _chosen(n: int, positions: int | None, rng: np.random.Generator) -> Iterator[int]:
    everything = range(n) if positions is None or positions >= n else None
    yield from everything or sorted(rng.choice(n, positions, replace=False).tolist())
