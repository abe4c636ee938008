"""Power cuts: what a disk may hold after one, at every moment of a recorded commit.

The calls of a commit are recorded, each with its offset and bytes, and played onto a model of a
disk. At a cut everything before the last fsync of a file, or of a folder for the names in it, is
there; of what came after it, any part may be: each write whole, in half or not at all, each name or
none, contents and names apart from each other. That is more than file systems do to their users.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .calls import Call, Do, install
from .kills import child, is_commit
from .worlds import FORMS, KINDS, Contents, Tally, World, check

FILE, FOLDER = "file", "folder"
IN_HDF5 = {"pwrite64", "ftruncate"}
"""Before these no rival can come in: the writer holds the lock of h5py, which both would need."""
WAITS = 9
"""Exit code where a rival would wait for the writer in whose midst it is."""


@dataclass
class Change:
    """One change of a file's bytes or of a folder's names, when it was made, and what it needs."""

    when: int
    what: tuple[Any, ...]
    """("write", offset, bytes), ("size", n, grow only), ("add", name, node), ("remove", name)."""
    needs: Change | None = None
    """Of the old name of a rename: the new one, which is there before."""


@dataclass
class Node:
    """A file or a folder."""

    kind: str
    content: bytes = b""
    names: dict[str, Node] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    syncs: list[int] = field(default_factory=list)

    def pending(self, cut: int) -> tuple[list[Change], list[Change]]:
        """Return what is surely on the disk at a cut, and what may be."""
        last = max((s for s in self.syncs if s < cut), default=-1)
        sure = [c for c in self.changes if c.when < last]
        return sure, [c for c in self.changes if last <= c.when < cut]


class Disk:
    """What is on a disk, with everything that happened to it since it was last at rest."""

    def __init__(self, root: Path):
        self.base = root.resolve()
        self.root = _at_rest(root)
        self.nodes: list[Node] = []
        self.now = 0
        self._enlist(self.root)

    def _enlist(self, node: Node) -> None:
        self.nodes.append(node)
        for below in node.names.values():
            self._enlist(below)

    def play(self, call: Call) -> None:
        """Let one call happen."""
        getattr(self, f"_{call.name}")(call)
        self.now += 1

    def _find(self, path: str) -> Node:
        node = self.root
        for name in Path(path).relative_to(self.base).parts:
            node = _names_of(node)[name]
        return node

    def _change(self, node: Node, *what: Any, needs: Change | None = None) -> Change:
        change = Change(self.now, what, needs)
        node.changes.append(change)
        return change

    def _new(self, path: str, kind: str) -> None:
        node = Node(kind)
        self.nodes.append(node)
        self._change(self._find(str(Path(path).parent)), "add", Path(path).name, node)

    def _creat(self, call: Call) -> None:
        self._new(call.path, FILE)

    def _mkdir(self, call: Call) -> None:
        self._new(call.path, FOLDER)

    def _write(self, call: Call) -> None:
        self._change(self._find(call.path), "write", call.offset, call.data)

    _pwrite64 = _sendfile = _write

    def _ftruncate(self, call: Call) -> None:
        self._change(self._find(call.path), "size", call.size, False)

    def _fallocate(self, call: Call) -> None:
        self._change(self._find(call.path), "size", call.size, True)

    def _fsync(self, call: Call) -> None:
        self._find(call.path).syncs.append(self.now)

    def _link(self, call: Call) -> None:
        target = Path(call.target)
        node = self._find(call.path)
        self._change(self._find(str(target.parent)), "add", target.name, node)

    def _rename(self, call: Call) -> None:
        source, target = Path(call.path), Path(call.target)
        node = self._find(call.path)
        added = self._change(self._find(str(target.parent)), "add", target.name, node)
        self._change(self._find(str(source.parent)), "remove", source.name, needs=added)

    def _unlink(self, call: Call) -> None:
        self._change(self._find(str(Path(call.path).parent)), "remove", Path(call.path).name)

    _rmdir = _unlink

    def after(self, cut: int, luck: Luck) -> dict[str, bytes | None]:
        """Return what is there after a cut before call number `cut`: path -> bytes, None a folder.

        luck: says of everything that is not sure whether it is there.
        """
        kept: set[int] = set()
        unsure: set[int] = set()
        for node in self.nodes:
            sure, maybe = node.pending(cut)
            chosen = {id(c) for c in maybe if luck.keeps(c)}
            unsure |= chosen
            kept |= {id(c) for c in sure} | chosen
        for node in self.nodes:  # a file is never lost by a rename
            for change in node.changes:
                if id(change) in kept and change.needs is not None:
                    kept.add(id(change.needs))
        found: dict[str, bytes | None] = {}
        torn = {id(c): luck.torn(c) for n in self.nodes for c in n.changes if id(c) in unsure}
        _collect(self.root, "", kept, torn, found)
        return found


def _collect(
    node: Node,
    path: str,
    kept: set[int],
    torn: dict[int, tuple[Any, ...]],
    found: dict[str, bytes | None],
) -> None:
    """Take a folder, or a file, with all that is in it into `found`."""
    chosen = [torn.get(id(c), c.what) for c in node.changes if id(c) in kept]
    if node.kind == FILE:
        found[path] = _bytes_after(node.content, chosen)
        return
    if path:
        found[path] = None
    for name, below in _names_after(node.names, chosen).items():
        _collect(below, f"{path}/{name}" if path else name, kept, torn, found)


def _at_rest(path: Path) -> Node:
    if path.is_dir():
        return Node(FOLDER, names={p.name: _at_rest(p) for p in path.iterdir()})
    return Node(FILE, path.read_bytes())


def _names_of(node: Node) -> dict[str, Node]:
    return _names_after(node.names, [c.what for c in node.changes])


def _names_after(names: dict[str, Node], changes: list[tuple[Any, ...]]) -> dict[str, Node]:
    found = dict(names)
    for kind, name, *node in changes:
        if kind == "add":
            found[name] = node[0]
        else:
            found.pop(name, None)
    return found


def _bytes_after(content: bytes, changes: list[tuple[Any, ...]]) -> bytes:
    found = bytearray(content)
    for kind, *what in changes:
        if kind == "size":
            size, only_grow = what
            del found[max(size, len(found) if only_grow else 0) :]
            found.extend(bytes(max(0, size - len(found))))
            continue
        offset, data = what
        found.extend(bytes(max(0, offset + len(data) - len(found))))
        found[offset : offset + len(data)] = data
    return bytes(found)


class Luck:
    """Which of the changes that are not sure are on the disk."""

    def __init__(self, chance: float, tears: float, rng: np.random.Generator):
        self.chance, self.tears, self.rng = chance, tears, rng

    def keeps(self, change: Change) -> bool:
        """Return True if a change is there."""
        return bool(self.rng.random() < self.chance)

    def torn(self, change: Change) -> tuple[Any, ...]:
        """Return a change as far as it is there: of a write perhaps only some whole sectors."""
        if change.what[0] != "write" or self.rng.random() >= self.tears:
            return change.what
        kind, offset, data = change.what
        return kind, offset, data[: 512 * int(self.rng.integers(0, len(data) // 512 + 1))]


@dataclass
class Recording:
    """The calls of a writer, and of one that came in between; when each commit began and ended."""

    calls: list[Call]
    begun: list[int]
    """Number of the call that made each commit visible, in order."""
    ended: list[int]
    """Number of calls when each commit had returned."""
    order: list[tuple[str, int]]
    """Kind and number of the writers, in the order of `begun`."""


class Recorder:
    """Notes every call; before one of them lets another writer do its whole commit."""

    def __init__(self, path: Path, first: tuple[str, int], rival: tuple[str, int], at: int | None):
        self.path, self.first, self.rival, self.at = path, first, rival, at
        self.told = Recording([], [], [], [])
        self.writer = first
        self.came = False

    def __call__(self, call: Call, do: Do, half: Do | None) -> Any:
        due = self.at is not None and self.at <= len(self.told.calls)
        if due and not self.came and call.name not in IN_HDF5:
            self.came = True
            self._let_in()
        result = do()  # raises where the number is taken: then nothing happened
        if is_commit(call, self.path):
            self.told.begun.append(len(self.told.calls))
            self.told.order.append(self.writer)
            self.told.ended.append(-1)
        self.told.calls.append(call)
        return result

    def _let_in(self) -> None:
        """Let the rival commit; where it would wait for us, it is left out for good."""
        real, self.writer = fcntl.flock, self.rival

        def flock(handle: int, kind: int) -> None:
            try:
                real(handle, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if not kind & fcntl.LOCK_NB:
                    os._exit(WAITS)
                raise

        fcntl.flock = flock
        KINDS[self.rival[0]](self.path, self.rival[1])
        fcntl.flock = real
        self._end(self.rival)
        self.writer = self.first

    def _end(self, writer: tuple[str, int]) -> None:
        self.told.ended[self.told.order.index(writer)] = len(self.told.calls)

    def run(self) -> Recording:
        """Do the commit, and return what happened."""
        KINDS[self.first[0]](self.path, self.first[1])
        self._end(self.first)
        return self.told


def record(
    world: World, first: tuple[str, int], rival: tuple[str, int], at: int | None, root: Path
) -> tuple[Disk, Recording] | None:
    """Record a commit; at: the rival comes in before this call (None: there is none).

    Returns None where the rival would have to wait.
    """
    path = world.copy(root / "recorded")
    disk, told = Disk(path.parent), root / "told.pickle"

    def work() -> None:
        recorder = Recorder(path, first, rival, at)
        install(recorder, path.parent)
        told.write_bytes(pickle.dumps(recorder.run()))

    status = os.waitstatus_to_exitcode(os.waitpid(child(work), 0)[1])
    if status == WAITS:
        return None
    if status:
        raise AssertionError(f"recording {first} with {rival} at {at} failed")
    recording: Recording = pickle.loads(told.read_bytes())
    for call in recording.calls:
        disk.play(call)
    return disk, recording


def expected(world: World, told: Recording, cut: int) -> tuple[Contents, Contents]:
    """Return what must be visible after a cut, and what may be."""
    must, may = dict(world.before), {}
    for begun, ended, writer in zip(told.begun, told.ended, told.order, strict=True):
        if cut >= ended:
            must |= world.commits[writer]
        elif cut > begun:
            may |= world.commits[writer]
    return must, may


def states(
    disk: Disk, told: Recording, n_random: int, rng: np.random.Generator
) -> Iterator[tuple[int, dict[str, bytes | None]]]:
    """Yield what may be there after a cut at every call, and the number of that call.

    Each prefix of the calls, whole and with nothing that is not sure; then random subsets, more
    of them where a commit is under way.
    """
    everything = range(len(told.calls) + 1)
    for cut in everything:
        yield cut, disk.after(cut, Luck(1, 0, rng))
        yield cut, disk.after(cut, Luck(0, 0, rng))
    crucial = [c for b, e in zip(told.begun, told.ended, strict=True) for c in range(b - 4, e + 1)]
    for _ in range(n_random):
        cut = int(rng.choice(crucial if rng.random() < 0.5 else everything))
        cut = min(max(cut, 0), len(told.calls))
        yield cut, disk.after(cut, Luck(rng.choice([0.2, 0.5, 0.8]), rng.choice([0, 0.3]), rng))


def campaign(
    world: World, kinds: tuple[str, str], root: Path, rng: np.random.Generator, *,
    n_random: int, every: int,
) -> Tally:  # fmt: skip
    """Try the states of a commit alone, and with a rival in the midst of it.

    every: the rival comes before every so many of its calls, and before all that make names or
    flush.
    """
    found, seen = Tally(), set()
    first, rival = (kinds[0], 0), (kinds[1], 1)
    alone = record(world, first, rival, None, root)
    assert alone is not None
    calls = [(i, call.name) for i, call in enumerate(alone[1].calls)]
    outside = [i for i, name in calls if name not in IN_HDF5]
    named = [i for i, name in calls if name in ("fsync", "link", "rename")]
    points = [None, *sorted({*outside[::every], *named})]
    for at in points:
        recorded = record(world, first, rival, at, root)
        if recorded is None:
            continue
        for cut, state in states(*recorded, n_random, rng):
            must, may = expected(world, recorded[1], cut)
            key = _digest(state, must, may)
            if key in seen:
                continue
            seen.add(key)
            where = f"{world.form}: {first}, {rival} at {at}, cut at {cut}"
            found.add(check(_write(state, root / "cut") / FORMS[world.form], must, may, where,
                            tidy=False))  # fmt: skip
            found.n += 1
    return found


def _digest(state: dict[str, bytes | None], *expected: Contents) -> bytes:
    """Return what tells two states apart, so that equal ones are tried and counted once."""
    total = hashlib.sha256(repr([sorted(e) for e in expected]).encode())
    for path in sorted(state):
        total.update(f"{path} {state[path] is None}".encode() + (state[path] or b""))
    return total.digest()


def _write(state: dict[str, bytes | None], root: Path) -> Path:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for path, content in state.items():  # a folder comes before what is in it
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)
    return root
