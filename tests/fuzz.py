"""Hostile inputs by chance: shards, logs, packed stores, manifests, study files, images.

python tests/fuzz.py --n 20000 --csv benchmarks/results/fuzz.csv

Half and more of the inputs carry hashes that fit, so that they come to the parsers. Each is given
to a worker process, which does with it what commands do. What must not be: that a worker ends or
hangs, an error that is no AugkitError, a file outside that is opened or changed.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import platform
import random
import resource
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
PATIENCE = 30.0
"""Seconds after which an input counts as a hang."""

COLUMNS = (
    *("target", "mutation", "inputs", "fitting hashes", "accepted", "refused", "tracebacks"),
    *(
        "crashes",
        "hangs",
        "touched outside",
        "ended in the child",
        "stopped in the child",
        "slowest s",
        "most MB more",
    ),
)


# -- mutations of bytes and of values --------------------------------------------------------------


def mutate_bytes(content: bytes, rng: random.Random, *, most: int = 12) -> bytes:
    """Return content with some bytes changed, cut out, doubled or cut off."""
    data = bytearray(content)
    for _ in range(rng.randint(1, most)):
        at = rng.randrange(max(1, len(data)))
        how = rng.randrange(8)
        if how < 3:
            data[at : at + 1] = bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))])
        elif how == 3:
            data[at : at + 8] = rng.choice((b"\xff" * 8, b"\0" * 8, struct.pack("<Q", at)))
        elif how == 4:
            del data[at : at + rng.randint(1, 64)]
        elif how == 5:
            data[at:at] = data[at : at + rng.randint(1, 64)]
        elif how == 6 and rng.random() < 0.2:
            del data[at:]
        else:
            data[at] = data[at] ^ (1 << rng.randrange(8)) if at < len(data) else 0
        if not data:
            return b""
    return bytes(data)


MARKS = (b"TREE", b"HEAP", b"SNOD", b"GCOL", b"OHDR", b"OCHK", b"BTHD", b"FRHP")


def repoint(content: bytes, rng: random.Random) -> bytes:
    """Return HDF5 some of whose addresses lead to other parts: loops, and parts of two owners."""
    data = bytearray(content)
    parts = [at for mark in MARKS for at in _places(content, mark)] or [0]
    words = [
        at
        for at in range(0, min(len(data), 40_000) - 8, 4)
        if 0 < int.from_bytes(data[at : at + 8], "little") < len(data)
    ]
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.choice(words or [0])
        to = rng.choice(parts) if rng.random() < 0.8 else rng.randrange(len(data))
        data[at : at + 8] = to.to_bytes(8, "little")
    if rng.random() < 0.3:  # a leaf that becomes a branch, whose children are branches
        for at in _places(content, b"TREE"):
            data[at + 5] = rng.choice((0, 1, 1, 2))
            step = rng.choice((16, 56))
            for child in range(at + 24 + step - 8, min(at + 24 + 8 * step, len(data) - 8), step):
                data[child : child + 8] = at.to_bytes(8, "little")
    return bytes(data)


def _places(content: bytes, mark: bytes) -> list[int]:
    found, at = [], -1
    while (at := content.find(mark, at + 1)) >= 0:
        found.append(at)
    return found


SPECIAL: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 20, 2**31, 2**63, 2**64, 10**30, 1e308, 0.5, float("nan")),
    *("", "x" * 70_000, "../../canary.h5", "/etc/passwd", "\0", "a\nb", "\u202e", "benign", "7"),
    *([], {}, [[]], [None], ["a", "a"], {"name": "flip"}, [-1], [10**20], [0.5]),
)


def mutate_value(value: Any, rng: random.Random) -> Any:
    """Return JSON values with one to three of them replaced, removed or moved, however deep."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.randint(1, 3)):
        holder, key = _somewhere(value, rng)
        if holder is None:
            continue
        how = rng.randrange(6)
        if how == 0:
            del holder[key]
        elif how == 1 and isinstance(holder, list):
            holder.insert(0, holder[key])
        elif how == 2:
            other, name = _somewhere(value, rng)
            holder[key] = json.loads(json.dumps(other[name])) if other else 0
        elif how == 3 and isinstance(holder[key], int):
            holder[key] += rng.choice((-1, 1, 2**16, -(2**40)))
        else:
            holder[key] = rng.choice(SPECIAL)
    return value


def _somewhere(value: Any, rng: random.Random) -> tuple[Any, Any]:
    """Return a container within a value and a key of it; None where there is none."""
    holder, key = None, None
    for _ in range(rng.randint(1, 6)):
        if not isinstance(value, (list, dict)) or not value:
            break
        holder = value
        key = rng.choice(sorted(value)) if isinstance(value, dict) else rng.randrange(len(value))
        value = value[key]
    return holder, key


# -- HDF5 ------------------------------------------------------------------------------------------


def mutate_group(group: Any, outside: Path, rng: random.Random) -> None:
    """Change a group of columns through h5py: every file that comes out is well formed."""
    import h5py
    import numpy as np

    names = [n for n in group if isinstance(group.get(n, getlink=True), h5py.HardLink)]
    name = rng.choice(names) if names else "labels"
    new = name if rng.random() < 0.8 else rng.choice(("more", "params", "masks", "patient", ".."))
    rows = rng.choice((0, 1, 5, 15, 16, 2**20, 2**40))
    few = min(rows, 1000)
    kind = rng.choice(("u1", "i1", "i8", ">i4", "f2", "f8", "S1", "S9000", "?", "c16", "V3"))

    def put(**how: Any) -> None:
        if new in group:
            del group[new]
        group.create_dataset(new, **how)

    def external() -> None:
        put(shape=(few,), dtype=kind, external=[(str(outside), 0, few * np.dtype(kind).itemsize)])

    def virtual() -> None:
        layout = h5py.VirtualLayout((few,), kind)
        layout[:] = h5py.VirtualSource(str(outside), "x", (few,))
        if new in group:
            del group[new]
        group.create_virtual_dataset(new, layout)

    def link() -> None:
        if new in group:
            del group[new]
        group[new] = rng.choice(
            (h5py.ExternalLink(str(outside), "x"), h5py.SoftLink("/labels"), h5py.SoftLink("/"))
        )

    record = np.dtype([("a", kind), ("b", "f4", (2,)), ("c", [("d", "i2")])])
    actions: list[Callable[[], object]] = [
        external,
        virtual,
        link,
        lambda: put(shape=(rows,), dtype=kind),
        lambda: put(shape=(rows, 24, 32, 1), dtype="u1", chunks=(1, 24, 32, 1)),
        lambda: put(data=np.zeros(few, kind)),
        lambda: put(data=np.zeros((few, rng.randint(1, 3)), kind)),
        lambda: put(data=np.zeros(few, record)),
        lambda: put(data=np.full(few, rng.choice((-1, 7, 2**31)), "i8")),
        lambda: put(data=np.full(few, np.nan)),
        lambda: put(data=np.zeros(few, "u1"), compression="gzip", chunks=(max(1, few),)),
        lambda: put(data=["x"] * min(few, 20), dtype=h5py.string_dtype()),
        lambda: put(data=[b"\xff\xfe"] * few if few else [b"a"], dtype="S2"),
        lambda: put(shape=(few,), dtype=h5py.vlen_dtype(np.int32)),
        lambda: put(shape=(few,), dtype=h5py.ref_dtype),
        lambda: put(data=5),
        lambda: put(data=h5py.Empty("f4")),
        lambda: group.create_group(rng.choice(("more", "x/y/z"))),
        lambda: group.__setitem__("again", group),
        lambda: group.__setitem__("twin", group[name]),
        lambda: group.attrs.__setitem__("classes", rng.choice(("[", '["a"]', "x" * 70_000))),
        lambda: group.attrs.__setitem__("recipe", rng.choice(("[", "{}", "[" * 9000, "7"))),
        lambda: group.attrs.__setitem__("list", np.arange(5)),
        lambda: group[name].attrs.__setitem__("x", 1),
        lambda: group[name].resize(rng.choice((0, 7, 10**6)), axis=0),
        lambda: group[name].__setitem__(0, group[name][-1]),
        lambda: group.__delitem__(name),
    ]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        try:
            rng.choice(actions)()
        except Exception:  # h5py has no way to write that: another is tried next time
            continue


# -- inputs: each makes a file in a place, and returns what is done with it ------------------------


class Lab:
    """What inputs are made from, and the files outside that none may touch."""

    def __init__(self, folder: Path):
        import h5py
        import numpy as np
        from toys import toy_store

        import augkit as ak

        self.folder = folder
        self.outside = folder / "canary.h5"
        with h5py.File(self.outside, "w") as file:
            file["x"] = np.arange(4096, dtype=np.uint8)
        self.store, self.packed = folder / "good.store", folder / "good.h5"
        store = toy_store(self.store, 4, masks=True)
        ak.augment(store, "zoom", workers=1)
        ak.augment(store, "oracle", n=2, workers=1)
        ak.retract(store, "zoom")
        ak.augment(store, "scale", workers=1)
        ak.pack(store, self.packed)
        store.close()
        rng = np.random.default_rng(0)
        self.images = self._images(rng)
        self.pictures = [self._images(rng)["PNG L"] for _ in range(12)]
        self.work = folder / "work"

    def _images(self, rng: Any) -> dict[str, bytes]:
        from PIL import Image

        pixels = rng.integers(0, 256, (24, 32), "uint8")
        found = {}
        for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF"):
            for mode in ("L", "RGB", "P", "RGBA", "I;16"):
                file = io.BytesIO()
                try:
                    Image.fromarray(pixels).convert(mode).save(file, kind)
                except (OSError, ValueError):
                    continue
                found[f"{kind} {mode}"] = file.getvalue()
        return found

    def fresh(self) -> Path:
        """Return an empty folder; what the last input left is gone."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        return self.work


Act = Callable[[], object]


def shard_bytes(lab: Lab, rng: random.Random) -> Act:
    from hostile import resign

    store = _copy(lab)
    path = rng.choice(sorted((store / "shards").iterdir()))
    content = path.read_bytes()
    if rng.random() < 0.4:
        path.write_bytes(repoint(content, rng))
    else:
        cut = rng.choice((800, 4096, len(content)))  # most of what HDF5 parses stands in front
        path.write_bytes(mutate_bytes(content[:cut], rng) + content[cut:])
    resign(store, blind=True)
    return _use(store, rng)


def shard_structure(lab: Lab, rng: random.Random) -> Act:
    import h5py
    from hostile import resign

    store = _copy(lab)
    path = rng.choice(sorted((store / "shards").iterdir()))
    with h5py.File(path, "r+", locking=False) as file:
        mutate_group(file, lab.outside, rng)
    resign(store)
    return _use(store, rng)


def log_bytes(lab: Lab, rng: random.Random) -> Act:
    store = _copy(lab)
    path = rng.choice([*sorted((store / "log").iterdir()), store / "store.json"])
    path.write_bytes(mutate_bytes(path.read_bytes(), rng))
    return _use(store, rng)


def log_structure(lab: Lab, rng: random.Random) -> Act:
    from hostile import resign

    store = _copy(lab)
    chosen = rng.randint(1, len(list((store / "log").iterdir())))

    def edit(number: int, entry: dict[str, Any]) -> None:
        if number == chosen:
            changed = mutate_value(entry, rng)
            entry.clear()
            entry.update(changed)
            if rng.random() < 0.9:
                entry["number"], entry["format"] = number, 1

    resign(store, edit)
    return _use(store, rng)


def folder_structure(lab: Lab, rng: random.Random) -> Act:
    """Links, pipes, folders and devices in the place of files."""
    store = _copy(lab)
    found = [p for p in store.rglob("*") if rng.random() < 0.3] or [store / "log"]
    path = rng.choice(found)
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
    if not path.parent.is_dir():
        return _use(store, rng)
    how = rng.randrange(5)
    if how == 0:
        path.symlink_to(lab.outside)
    elif how == 1:
        path.symlink_to(rng.choice((lab.outside.parent, Path("/dev/zero"), path)))
    elif how == 2:
        os.mkfifo(path)
    elif how == 3:
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(rng.choice((0, 1, 10**9, 2**42)))
    return _use(store, rng)


def pack_bytes(lab: Lab, rng: random.Random) -> Act:
    path = lab.fresh() / "a.h5"
    content = lab.packed.read_bytes()
    if rng.random() < 0.4:
        path.write_bytes(content[:512] + repoint(content[512:], rng))
    else:
        cut = rng.choice((600, 4096, 20_000, len(content)))
        path.write_bytes(mutate_bytes(content[:cut], rng) + content[cut:])
    if rng.random() < 0.8:
        _seal(path)
    return _use(path, rng)


def pack_structure(lab: Lab, rng: random.Random) -> Act:
    import h5py
    import numpy as np

    from augkit.store.format import encode_entry

    path = lab.fresh() / "a.h5"
    shutil.copyfile(lab.packed, path)
    with h5py.File(path, "r+", locking=False) as file:
        how = rng.randrange(4)
        if how == 0:
            mutate_group(file, lab.outside, rng)
        elif how == 1:
            mutate_group(file["shards"][rng.choice(sorted(file["shards"]))], lab.outside, rng)
        elif how == 2:
            (model,) = file["models"].values()
            mutate_group(rng.choice((model, file["models"], file["log"])), lab.outside, rng)
        else:
            name = rng.choice(sorted(file["log"]))
            entry = json.loads(bytes(file["log"][name][:]))
            del entry["digest"]
            changed = encode_entry(mutate_value(entry, rng) | {"format": 1})
            del file["log"][name]
            file["log"][name] = np.frombuffer(changed, np.uint8)
    _seal(path)
    return _use(path, rng)


def _seal(path: Path) -> None:
    """Write the hash of the rest into the user block."""
    content = path.read_bytes()
    lines = content[:512].split(b"\n")
    digest = hashlib.sha256(content[512:]).hexdigest().encode()
    lines = [b"sha256 " + digest if line.startswith(b"sha256") else line for line in lines]
    path.write_bytes(b"\n".join(lines)[:512].ljust(512, b"\n") + content[512:])


def _copy(lab: Lab) -> Path:
    store = lab.fresh() / "a.store"
    shutil.copytree(lab.store, store)
    return store


def _use(store: Path, rng: random.Random) -> Act:
    """Return what is done with a store: it is read whole, and now and then written to."""
    from hostile import read_everything

    import augkit as ak

    chosen = rng.randrange(12)

    def act() -> None:
        read_everything(store)
        if chosen == 0:
            ak.augment(store, "flip", workers=1)
        elif chosen == 1:
            ak.export(store, store.parent / "out", parts=("train", "test"), arms=("all",))
        elif chosen == 2:
            ak.replay(store, "scale")
        elif chosen == 3 and store.suffix == ".h5":
            ak.unpack(ak.open(store), store.parent / "b.store")
        elif chosen == 3:
            ak.pack(ak.open(store), store.parent / "b.h5")
        elif chosen == 4:
            ak.retract(store, "scale")
        elif chosen == 5:
            ak.preview(store, output=store.parent / "p.png")

    return act


def manifest_bytes(lab: Lab, rng: random.Random) -> Act:
    return _manifest(lab, rng, lambda text: mutate_bytes(text, rng))


def manifest_structure(lab: Lab, rng: random.Random) -> Act:
    def change(text: bytes) -> bytes:
        rows = [line.split(",") for line in text.decode().splitlines()]
        words = ("", "../../canary.h5", '"', "a\0b", "x" * 200_000, "\u202e", "image", "class")
        for _ in range(rng.randint(1, 4)):
            row = rng.choice(rows)
            row[rng.randrange(len(row))] = rng.choice(words)
            if rng.random() < 0.2:
                rows.append(list(rng.choice(rows)))
            if rng.random() < 0.2:
                row.append(rng.choice(words))
        return "\n".join(map(",".join, rows)).encode()

    return _manifest(lab, rng, change)


def _manifest(lab: Lab, rng: random.Random, change: Callable[[bytes], bytes]) -> Act:
    import augkit as ak

    folder = lab.fresh() / "in"
    folder.mkdir()
    lines = ["image,class,mask,group,dataset"]
    for i in range(12):
        (folder / f"{i}.png").write_bytes(lab.pictures[i])
        lines.append(f"{i}.png,{'ab'[i % 2]},,{i},d")
    path = folder / "m.csv"
    path.write_bytes(change("\n".join(lines).encode()))
    skip = rng.random() < 0.5

    def act() -> None:
        ak.ingest(path, lab.work / "new.store", skip_bad=skip, find_relatives=False, workers=1)

    return act


STUDY = {
    "classifiers": ["linear", {"name": "svm", "options": {"C": 1.0}}],
    "datasets": {"toy": ["toy"]},
    "arms": ["real", "traditional"],
    "folds": 5,
    "seeds": 2,
    "primary": "auroc",
    "real_share": 0.5,
}
EVIL = (
    b"!!python/object/apply:os.system ['touch canary']\n",
    b"a: &a [x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
    b"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\nclassifiers: [*d,*d,*d,*d,*d,*d,*d,*d]\n",
    b"classifiers: &a [*a]\n",
    b"? [1]\n: 2\n",
    b"classifiers: " + b"[" * 5000,
    b"folds: 2001-99-99\nclassifiers: [linear]\n",
    b"folds: 1:99:99:99\nclassifiers: [linear]\n",
    b"seeds: 0x" + b"f" * 100_000 + b"\nclassifiers: [linear]\n",
    b"<<: {classifiers: [linear]}\n",
    b"\xff\xfe\0\0",
)


def study_bytes(lab: Lab, rng: random.Random) -> Act:
    import yaml

    if rng.random() < 0.15:
        return _study(lab, rng.choice(EVIL))
    return _study(lab, mutate_bytes(yaml.safe_dump(STUDY).encode(), rng))


def study_structure(lab: Lab, rng: random.Random) -> Act:
    import yaml

    return _study(lab, yaml.safe_dump(mutate_value(STUDY, rng)).encode())


def _study(lab: Lab, content: bytes) -> Act:
    import augkit as ak

    path = lab.fresh() / "s.yaml"
    path.write_bytes(content)
    return lambda: ak.plan(path, lab.store).to_json()


def image_bytes(lab: Lab, rng: random.Random) -> Act:
    content = rng.choice(sorted(lab.images.items()))[1]
    return _decode(mutate_bytes(content, rng))


def image_structure(lab: Lab, rng: random.Random) -> Act:
    """A PNG file whose chunks were changed, moved or doubled, all checksums as they should be."""
    content = rng.choice([c for n, c in sorted(lab.images.items()) if n.startswith("PNG")])
    chunks, at = [], 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    for _ in range(rng.randint(1, 3)):
        i = rng.randrange(len(chunks))
        name, data = chunks[i]
        how = rng.randrange(5)
        if how == 0 and name == b"IHDR":
            sides = [rng.choice((0, 1, 9, 40, 65_535, 2**31 - 1)) for _ in "wh"]
            data = struct.pack(">II", *sides) + data[8:]
        elif how == 1 and name == b"IDAT":
            data = zlib.compress(bytes(rng.choice((0, 100, 10**6, 10**8))))
        elif how == 2:
            chunks.insert(rng.randrange(len(chunks)), (name, data))
        elif how == 3:
            extra = rng.choice((b"iTXt", b"zTXt", b"acTL", b"fdAT", b"eXIf", b"tRNS", b"PLTE"))
            chunks.insert(1, (extra, zlib.compress(bytes(rng.choice((1, 10**7))))))
        else:
            data = mutate_bytes(data, rng) if data else b"x"
        chunks[min(i, len(chunks) - 1)] = (name, data)
    made = content[:8]
    for name, data in chunks:
        made += struct.pack(">I", len(data)) + name + data
        made += struct.pack(">I", zlib.crc32(name + data))
    return _decode(made)


def _decode(content: bytes) -> Act:
    from augkit.ingestion.decode import Target, decode

    return lambda: decode(content, target=Target(24, 32, 1), masks=[content])


MUTATIONS: dict[tuple[str, str], tuple[Callable[[Lab, random.Random], Act], bool, int]] = {
    ("shard", "bytes"): (shard_bytes, True, 4),
    ("shard", "structure"): (shard_structure, True, 4),
    ("log", "bytes"): (log_bytes, False, 2),
    ("log", "structure"): (log_structure, True, 4),
    ("folder", "structure"): (folder_structure, False, 1),
    ("packed store", "bytes"): (pack_bytes, True, 3),
    ("packed store", "structure"): (pack_structure, True, 3),
    ("manifest", "bytes"): (manifest_bytes, False, 1),
    ("manifest", "structure"): (manifest_structure, False, 1),
    ("study", "bytes"): (study_bytes, False, 1),
    ("study", "structure"): (study_structure, False, 1),
    ("image", "bytes"): (image_bytes, False, 2),
    ("image", "structure"): (image_structure, True, 2),
}
"""By target and mutation: what makes an input, whether its hashes fit, and its share."""


# -- the worker: does it, and says what came of it -------------------------------------------------


def serve() -> None:
    """Do the inputs that stdin names, a line of JSON each, and answer with a line each."""
    from hostile import watched

    from augkit.errors import AugkitError

    warnings.simplefilter("ignore")
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory(prefix="augkit-fuzz-") as place:
        lab = Lab(Path(place))
        outside = sorted(p.name for p in lab.folder.iterdir())
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print("ready", file=channel, flush=True)
        for line in sys.stdin:
            target, mutation, seed = json.loads(line)
            act = _made(lab, target, mutation, seed)
            answer = {"end": "accepted", "what": "", "seconds": 0.0, "touched": False}
            before = time.process_time()
            with watched(lab.outside) as events:
                try:
                    act()
                except AugkitError as error:
                    answer |= {"end": "refused", "what": str(error)}
                except BaseException as error:
                    answer |= {"end": "traceback", "what": _trace(error)}
            left = sorted(p.name for p in lab.folder.iterdir() if p.name != "work")
            answer["touched"] = bool(events) or left != [n for n in outside if n != "work"]
            answer["seconds"] = time.process_time() - before
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size
            answer["memory"], size = grown / 1024, size + grown
            print(json.dumps(answer), file=channel, flush=True)


def _made(lab: Lab, target: str, mutation: str, seed: str) -> Act:
    """Return what is done with an input; one that cannot be made is left for the next."""
    make = MUTATIONS[target, mutation][0]
    for attempt in range(20):
        try:
            return make(lab, random.Random(f"{target}{mutation}{seed}{attempt or ''}"))
        except (OSError, ValueError, MemoryError):
            continue
    raise RuntimeError(f"{target} {mutation} {seed} cannot be made")


def _trace(error: BaseException) -> str:
    import traceback

    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/augkit" in f.filename]
    at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {at}: {str(error)[:200]}"


class Worker:
    """One worker process; another takes its place when it ends or hangs."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._child: subprocess.Popen[str] | None = None

    def ask(self, *what: object) -> dict[str, Any]:
        """Return what came of one input."""
        if self._child is None:
            self._child = self._start()
        child = self._child
        assert child.stdin is not None and child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(json.dumps(what) + "\n")
            child.stdin.flush()
        if not select.select([child.stdout], [], [], PATIENCE)[0]:
            self.close()
            return {"end": "hang", "what": "", "seconds": PATIENCE, "touched": False}
        line = child.stdout.readline()
        if line:
            return dict(json.loads(line))
        code = child.wait()
        self.close()
        return {"end": "crash", "what": f"status {code}", "seconds": 0.0, "touched": False}

    def _start(self) -> subprocess.Popen[str]:
        code = "import sys; sys.path[:0] = sys.argv[1:]; from fuzz import serve; serve()"
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(HERE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"AUGKIT_EXAMINED": str(self._folder / "examined")},
        )
        assert child.stdout is not None
        if child.stdout.readline() != "ready\n":
            raise RuntimeError("the worker does not start")
        return child

    def close(self) -> None:
        """End the worker."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()


Lines = list[dict[str, Any]]


def campaign(
    n: int,
    seed: int,
    log: Callable[[str], None],
    keep: Callable[[Lines], None] = lambda lines: None,
) -> Lines:
    """Return one line a target and mutation: how n inputs ended.

    keep: is given the lines so far now and then, in case somebody stops a long campaign.
    """
    chooser = random.Random(seed)
    weighted = [key for key, (_, _, share) in MUTATIONS.items() for _ in range(share)]
    counts: dict[tuple[str, str], dict[str, Any]] = defaultdict(lambda: defaultdict(int))
    with tempfile.TemporaryDirectory(prefix="augkit-fuzz-") as folder:
        worker = Worker(Path(folder))
        try:
            for number in range(n):
                target, mutation = chooser.choice(weighted)
                found = worker.ask(target, mutation, f"{seed}-{number}")
                _count(counts[target, mutation], found)
                if found["end"] not in ("accepted", "refused") or found["touched"]:
                    log(f"{target} {mutation} {seed}-{number}: {found}")
                if number % 500 == 499:
                    log(f"{number + 1} of {n}")
                    keep(_lines(counts))
        finally:
            worker.close()
    return _lines(counts)


def _lines(counts: dict[tuple[str, str], dict[str, Any]]) -> Lines:
    return [
        {"target": t, "mutation": m, "fitting hashes": "yes" if MUTATIONS[t, m][1] else "no"}
        | {k: counts[t, m][k] for k in COLUMNS if k not in ("target", "mutation", "fitting hashes")}
        for t, m in MUTATIONS
    ]


def _count(counts: dict[str, Any], found: dict[str, Any]) -> None:
    ends = {"traceback": "tracebacks", "crash": "crashes", "hang": "hangs"}
    counts["inputs"] += 1
    counts[ends.get(found["end"], found["end"])] += 1
    counts["touched outside"] += found["touched"]
    counts["ended in the child"] += "cannot be examined: reading it" in found["what"]
    counts["stopped in the child"] += "reading it takes too long" in found["what"]
    counts["slowest s"] = max(counts["slowest s"], round(found["seconds"], 2))
    counts["most MB more"] = max(counts["most MB more"], round(found.get("memory", 0)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--n", type=int, default=1000, help="inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", type=Path, help="where the counts are written")
    asked = parser.parse_args()
    about = {"seed": asked.seed, "python": platform.python_version()}
    about |= {"machine": platform.machine(), "date": time.strftime("%Y-%m-%d")}

    def keep(lines: Lines) -> None:
        with asked.csv.open("w", newline="") if asked.csv else os.fdopen(os.dup(1), "w") as out:
            writer = csv.DictWriter(out, [*COLUMNS, *about])
            writer.writeheader()
            writer.writerows(line | about for line in lines)

    def log(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    lines = campaign(asked.n, asked.seed, log, keep if asked.csv else lambda lines: None)
    keep(lines)
    bad = sum(x[k] for x in lines for k in ("tracebacks", "crashes", "hangs", "touched outside"))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
