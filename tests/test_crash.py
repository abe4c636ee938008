"""Killing any command at any moment: what was committed stays, and nothing else is seen.

Run as a script, this file is the driver: it forks a child for each point in a command's life, and
the child kills itself there, at a call that changes something on the disk.
"""

import builtins
import hashlib
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

import augkit as ak
from augkit import evaluation
from augkit.errors import StoreError
from augkit.interfaces import Classifier
from augkit.registry import Plugin, Registry
from augkit.store import DatasetStore, Snapshot, durable
from augkit.store.folder import Folder
from augkit.store.format import Entry
from augkit.store.packed import PackedFile

pytestmark = pytest.mark.seconds

FORMS = ["a.store", "a.h5"]
STORES = ["a.store", "a.h5", "b.store", "b.h5"]


@dataclass
class Prior(Classifier):
    """Learns how frequent the classes are."""

    name = "prior"

    def fit(self, train, val, context):
        counts = np.bincount(train.labels, minlength=len(context.classes))
        self.prior_ = (counts / counts.sum() + 0.001 * context.seed).astype(np.float32)

    def predict_proba(self, samples):
        rows = np.tile(self.prior_, (len(samples), 1))
        return rows / rows.sum(axis=1, keepdims=True)


def evaluate(store: Path) -> None:
    plugin = Plugin("prior", "classifier", "toy", "tests", "1", Prior)
    normal, evaluation.registry = evaluation.registry, lambda: Registry((plugin,), ())
    try:
        ak.evaluate(store, "prior", split="70/15/15", arms=["real"], seeds=3)
    finally:
        evaluation.registry = normal


def fit(path: Path) -> None:
    """Commit a model and a run of it, each unless it is there; another writer comes in between."""
    store = ak.open(path)
    if not store.snapshot().models:
        commit_model(store, path)
    if "gan" not in store.snapshot().runs:
        with store.new_shard({"classes": ["a", "b"]}, masks=False) as writer:
            writer.append(np.zeros((2, 48, 64, 1), np.uint8))
            shard = writer.finish({"labels": np.array([0, 1]), "parent": np.array([-1, -1])})
            store.commit(lambda now: sampled(now, shard), writer.path)


def commit_model(store: DatasetStore, path: Path) -> None:
    with store.new_model() as folder, durable.writing(path):
        (folder / "settings.json").write_text('{"latent": 100}')
        (folder / "weights.safetensors").write_bytes(bytes(range(256)) * 20)
        store.commit(lambda now: fitted(now, path), model=folder)


def fitted(snapshot: Snapshot, path: Path) -> Entry:
    """Return the log entry of a model, after another writer took its number."""
    if "rival" not in snapshot.runs:
        ak.augment(path, "scale", n=1, run="rival", workers=1)
    plugin = {"name": "gan", "distribution": "toys", "version": "1", "options": {}}
    return {
        "kind": "model", "recipe": {"plugin": plugin, "partition": "70/15/15"},
        "fitted_on": [0, 1], "trained_from": "", "partition": "70/15/15",
        "complete": True, "note": "", "details": {},
    }  # fmt: skip


def sampled(snapshot: Snapshot, shard: dict[str, Any]) -> Entry:
    """Return the log entry of a run of the model that is there."""
    (model,) = snapshot.models
    return {
        "kind": "run", "run": "gan", "family": "generative", "by_class": [1, 1],
        "recipe": {
            "plugin": "gan", "plugins": [], "seed": 0, "amount": {}, "partition": "70/15/15",
        },
        "lineage": {"kind": "fitted", "model": model}, "trained_from": "", "shard": dict(shard),
    }  # fmt: skip


COMMANDS: dict[str, Callable[[Path, str], Any]] = {
    "ingest": lambda root, form: ak.ingest(root / "first", root / form, size="64x48", workers=1),
    "ingest-more": lambda root, form: ak.ingest(root / "second", root / form, workers=1),
    "augment": lambda root, form: ak.augment(root / form, "zoom+brightness", n=9, workers=1),
    "retract": lambda root, form: ak.retract(root / form, "flip"),
    "pack": lambda root, form: ak.pack(ak.open(root / form), root / "b.h5"),
    "unpack": lambda root, form: ak.unpack(ak.open(root / form), root / "b.store"),
    "evaluate": lambda root, form: evaluate(root / form),
    "fit": lambda root, form: fit(root / form),
}
ONCE_ONLY = {"retract", "pack", "unpack"}
"""These refuse, in plain words, to be done twice."""

IN_STEPS = {"fit"}
"""These commit several things, one after another."""


def prepare(root: Path, command: str, form: str) -> Path:
    """Make the images and the store as they are before the command."""
    for dataset, seed in (("first", 1), ("second", 2)):
        rng = np.random.default_rng(seed)
        for i in range(12):
            path = root / dataset / "ab"[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (48, 64), np.uint8)).save(path)
    if command != "ingest":
        ak.ingest(root / "first", root / form, size="64x48")
        ak.augment(root / form, "flip", workers=1)
        ak.augment(root / form, "zoom", n=5, workers=1)
    if command in ("pack", "unpack"):
        fit(root / form)
    return root


class Killer:
    """Counts the calls that change the disk, and kills this process at one of them."""

    def __init__(self, at: int, mode: str):
        self.at = at
        self.mode = mode
        self.calls: list[str] = []

    def step(self, name: str, whole: Callable[[], Any], half: Callable[[], Any] | None) -> Any:
        self.calls.append(name)
        if len(self.calls) != self.at:
            return whole()
        try:
            if self.mode == "within" and half is not None:
                half()
            elif self.mode != "before":
                whole()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        for name in ("link", "rename", "replace", "fsync", "open", "unlink", "mkdir", "rmdir"):
            self._wrap(os, name)
        for owner, name in (
            (h5py.File, "__init__"), (h5py.File, "close"), (h5py.Group, "create_dataset"),
            (h5py.Group, "copy"), (h5py.Dataset, "resize"), (h5py.AttributeManager, "__setitem__"),
        ):  # fmt: skip
            self._wrap(owner, name)
        self._wrap_sendfile()
        self._wrap_open(io)
        self._wrap_open(builtins)

    def _wrap(self, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return self.step(name, lambda: real(*args, **kwargs), None)

        setattr(owner, name, wrapped)

    def _wrap_sendfile(self) -> None:
        real = os.sendfile

        def sendfile(out: int, source: int, offset: int, count: int) -> int:
            half = lambda: real(out, source, offset, 700)  # noqa: E731
            return self.step("sendfile", lambda: real(out, source, offset, count), half)

        os.sendfile = sendfile  # type: ignore[assignment]

    def _wrap_open(self, owner: Any) -> None:
        real = owner.open

        def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not set(mode) & set("wxa+"):
                return real(file, mode, *args, **kwargs)
            made = self.step("create", lambda: real(file, mode, *args, **kwargs), None)
            made.write = self._write(made, made.write)
            return made

        owner.open = opened

    def _write(self, file: Any, real: Callable[[Any], int]) -> Callable[[Any], int]:
        def write(content: Any) -> int:
            def half() -> None:
                real(content[: len(content) // 2])
                file.flush()

            return self.step("write", lambda: real(content), half)

        return write


def drive(command: str, form: str, base: Path, target: Path, n_points: int, seed: int) -> None:
    """Run the command once to its end, then kill it at some points, or at all.

    Leaves in `target` a folder `end`, and one for each kill; prints the names of the calls.
    """
    calls = fork(command, form, base, target / "end", None, 0) or []
    for mode, at in moments(calls, n_points, seed):
        if fork(command, form, base, target / f"{mode}-{at}", mode, at) is not None:
            raise SystemExit(f"{command}: not killed {mode} call {at}")
    print(json.dumps(calls))


def moments(calls: list[str], n: int, seed: int) -> list[tuple[str, int]]:
    """Return how and at which call, counted from 1, the command is killed.

    n: 0 for all; without a seed, points evenly spread, as many before calls as within and after;
    with one, those around the last commit, and as many more, drawn at random.
    """
    everywhere = range(1, len(calls) + 1)
    torn = [i for i in everywhere if calls[i - 1] in ("write", "sendfile")]
    points = {"before": everywhere, "within": torn, "after": everywhere}
    if not n or not seed:
        return [(mode, at) for mode, where in points.items() for at in spread(where, n)]
    chosen = [(mode, at) for at in around_the_commit(calls) for mode in ("before", "after")]
    others = [(mode, at) for mode, where in points.items() for at in where]
    others = [point for point in others if point not in chosen]
    drawn = np.random.default_rng(seed).permutation(len(others))[:n].tolist()
    return chosen + [others[i] for i in sorted(drawn)]


def around_the_commit(calls: list[str]) -> list[int]:
    """Return the last calls that give a file its place or its name, and the flushes beside them."""
    found = {last(calls, name) for name in set(calls) & NAMING}
    end = max(found)
    found |= {last(calls[:end], "fsync"), end + calls[end:].index("fsync")}
    return sorted(at + 1 for at in found)


def last(calls: list[str], name: str) -> int:
    return len(calls) - 1 - calls[::-1].index(name)


def spread(points: Sequence[int], n: int) -> list[int]:
    """Return n of the points, evenly spread between the ends; all of them if n is 0."""
    if not n or len(points) <= n:
        return list(points)
    return sorted({points[round(i)] for i in np.linspace(0, len(points) - 1, n + 2)[1:-1]})


def fork(
    command: str, form: str, base: Path, root: Path, mode: str | None, at: int
) -> list[str] | None:
    """Run the command in a child on a copy of `base`; return its calls, None if it was killed."""
    shutil.copytree(base, root)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        killer = Killer(at, mode or "")
        pipe = os.fdopen(write, "w")
        killer.install()
        COMMANDS[command](root, form)
        pipe.write(json.dumps(killer.calls))
        pipe.flush()
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise SystemExit(f"{command}: exit code {status} {mode} call {at}")
    return json.loads(told) if status == 0 else None


def contents(root: Path) -> dict[str, str]:
    """Return a digest of everything visible: real images, runs and models of every store."""
    found = {}
    for name in STORES:
        if not (root / name).exists() or not ak_is_store(root / name):
            continue
        store = ak.open(root / name)
        snapshot = store.snapshot()
        real = snapshot.real
        if len(real.keys):
            columns = (real.keys, real.labels, real.groups, real.folds, real.sha256, real.conflict)
            found[name] = digest(snapshot.inspect()[:], *columns)
        for run in snapshot.runs.values():
            lineage = run.fitted_on or snapshot.parents(run.name)
            rows = (snapshot.params(run.name), lineage, snapshot.inspect(run.name).labels)
            found[f"{name}: {run.name}"] = digest(snapshot.inspect(run.name)[:], *rows)
        for model in snapshot.models.values():
            with store.model_folder(model.name) as folder:
                files = [np.frombuffer(p.read_bytes(), np.uint8) for p in sorted(folder.iterdir())]
            found[f"{name}: {model.name}"] = digest(*files, model.fitted_on)
        store.close()
    return found


def ak_is_store(path: Path) -> bool:
    return Folder.is_one(path) or (path.is_file() and PackedFile.is_one(path))


def digest(*arrays: Any) -> str:
    total = hashlib.sha256()
    for array in map(np.asarray, arrays):
        total.update(
            f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes()
        )
    return total.hexdigest()


def results(root: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in root.rglob("*.json") if "results" in p.parent.name}


def leftovers(root: Path, *, sound: bool = False) -> list[str]:
    """Return the files that belong to no commit. sound: hold all stores against their hashes."""
    found = [str(p.relative_to(root)) for p in root.rglob("*") if "~" in p.name]
    found += [str(p.relative_to(root)) for p in root.rglob("tmp/*")]
    found += [str(p.relative_to(root)) for p in root.rglob("*.tmp")]
    for name in STORES:
        if (root / name).exists():
            verified = ak.verify(ak.open(root / name))
            assert verified.sound or not sound, str(verified)
            found += verified.uncommitted
    return found


def check(root: Path, command: str, form: str, before: dict[str, str], end: Path) -> None:
    """Hold one killed command against the promise, then give the same command again."""
    for name in STORES:
        if (root / name).exists() and ak_is_store(root / name):
            found = ak.verify(ak.open(root / name))
            assert found.sound, str(found)
        elif (root / name).exists():
            DatasetStore.create(root / name, height=48, width=64)  # raises unless it is free
    after = contents(end)
    now = contents(root)
    assert now in (before, after) or is_between(command, before, now, after)
    assert results(root).items() <= results(end).items()
    if now == after and command in ONCE_ONLY:
        with pytest.raises(StoreError, match=r"exists already|no run 'flip'"):
            COMMANDS[command](root, form)
    else:
        COMMANDS[command](root, form)
    assert contents(root) == after
    assert results(root) == results(end)
    for name in STORES:
        if (root / name).exists():
            ak.augment(root / name, "brightness", n=1, workers=1)
            ak.open(root / name).side_folder("results")
    assert leftovers(root, sound=True) == []


def is_between(
    command: str, before: dict[str, str], now: dict[str, str], after: dict[str, str]
) -> bool:
    """Return True for what a command in steps may leave: all that was, and some of what comes."""
    return command in IN_STEPS and before.items() <= now.items() <= after.items()


Case = tuple[str, str]
"""A command, and the form of its store."""

NAMING = {"link", "rename", "replace"}
SAMPLE = 6
"""Kills of a slow test beside those around the commit; `make torture` kills at every call."""

QUICK: list[Case] = [
    ("ingest", "a.store"),
    ("ingest-more", "a.h5"),
    ("augment", "a.store"),
    ("augment", "a.h5"),
    ("retract", "a.store"),
    ("pack", "a.store"),
    ("unpack", "a.h5"),
    ("evaluate", "a.store"),
    ("fit", "a.store"),
    ("fit", "a.h5"),
]


def kill(root: Path, cases: Sequence[Case], n_points: int, seed: int = 0) -> dict[Case, list[str]]:
    """Let one driver kill each command at so many `moments`; return the calls of each."""
    tasks = []
    for command, form in cases:
        home = root / f"{command}-{form}"
        prepare(home / "base", command, form)
        (home / "killed").mkdir()
        tasks.append([command, form, str(home / "base"), str(home / "killed"), n_points, seed])
    told = run_driver(["kill", json.dumps(tasks)]).splitlines()
    return dict(zip(cases, map(json.loads, told), strict=True))


def check_killed(home: Path, case: Case, calls: list[str], n_points: int) -> int:
    """Hold every killed command against the promise; return how many there are."""
    before = contents(home / "base")
    end = home / "killed/end"
    assert contents(end) != before or results(end)
    killed = sorted(p for p in (home / "killed").iterdir() if p.name != "end")
    assert len(calls) > 5
    assert len(killed) >= (n_points or 2 * len(calls))
    for root in killed:
        try:
            check(root, *case, before, end)
        except BaseException as error:
            at = int(root.name.partition("-")[2])
            error.add_note(f"killed {root.name} of {len(calls)}: {calls[at - 1]}")
            raise
    return len(killed)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Case, list[str]]]:
    root = tmp_path_factory.mktemp("killed")
    return root, kill(root, QUICK, 1)


@pytest.mark.parametrize(("command", "form"), QUICK)
def test_a_killed_command_leaves_all_or_nothing(
    killed: tuple[Path, dict[Case, list[str]]], command: str, form: str
) -> None:
    root, calls = killed
    check_killed(root / f"{command}-{form}", (command, form), calls[command, form], 1)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_killed_at_any_call_leaves_all_or_nothing(
    tmp_path: Path, command: str, form: str
) -> None:
    seed = 1 + FORMS.index(form) + 2 * list(COMMANDS).index(command)
    calls = kill(tmp_path, [(command, form)], SAMPLE, seed)[command, form]
    check_killed(tmp_path / f"{command}-{form}", (command, form), calls, SAMPLE)


@pytest.mark.parametrize("form", FORMS)
def test_all_is_flushed_before_the_commit_and_its_name_after(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to tell which file is flushed")
    root = prepare(tmp_path / "root", "ingest", form)
    steps: list[str] = []

    def note(name: str) -> None:
        real = getattr(os, name)

        def noted(*args: Any) -> Any:
            path = Path(f"/proc/self/fd/{args[0]}").readlink() if name == "fsync" else args[1]
            shown = re.sub(r"([0-9a-f]{12}\.\d+\.)?[0-9a-f]{32}", "*", str(path.relative_to(root)))
            steps.append(f"{name} {shown}")
            return real(*args)

        monkeypatch.setattr(os, name, noted)

    for name in ("fsync", "rename", "link", "replace"):
        note(name)
    COMMANDS["ingest"](root, form)
    shard, entry = "fsync a.store/tmp/*.h5", "fsync a.store/tmp/*.json"
    assert steps == {
        "a.store": [
            shard, entry, "link a.store/store.json", "fsync a.store",
            entry, "rename a.store/shards/*.h5", "fsync a.store/shards", "fsync a.store", "fsync .",
            "link a.store/log/0000000001.json", "fsync a.store/log",
        ],
        "a.h5": ["fsync .a.h5~*.h5", "fsync .a.h5~*.h5", "replace a.h5", "fsync ."],
    }[form]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_what_a_living_command_is_writing_is_left_alone(tmp_path: Path, form: str) -> None:
    store = ak.open(prepare(tmp_path, "augment", form) / form)
    writer = store.write_shard({"classes": ["a", "b"]}, masks=False)
    ak.augment(store, "scale", workers=1)
    assert writer.path.exists()
    writer.discard()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("form", FORMS)
def test_a_commit_whose_shard_has_vanished_is_refused(tmp_path: Path, form: str) -> None:
    store = ak.open(prepare(tmp_path, "augment", form) / form)
    commit_model(store, tmp_path / form)
    before = contents(tmp_path)
    writer = store.write_shard({"classes": ["a", "b"]}, masks=False)
    writer.append(np.zeros((2, 48, 64, 1), np.uint8))
    shard = writer.finish({"labels": np.array([0, 1]), "parent": np.array([-1, -1])})
    writer.path.unlink()
    with pytest.raises(StoreError, match=r"cannot write to .*: No such file"):
        store.commit(lambda _: sampled(store.snapshot(), shard), writer.path)
    assert contents(tmp_path) == before
    assert leftovers(tmp_path) == []


def starve(command: str, form: str, base: Path, target: Path, limits: list[int]) -> None:
    """Run the command where no file may grow beyond each limit; print how each run ended."""
    for limit in limits:
        root = target / str(limit)
        shutil.copytree(base, root)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                COMMANDS[command](root, form)
                print(json.dumps([limit, None, ""]))
            except Exception as error:
                print(json.dumps([limit, type(error).__name__, str(error)]))
            sys.exit()  # as a command does: HDF5 must not crash there
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status:
            raise SystemExit(f"{command}: exit code {status} with a limit of {limit} bytes")


@pytest.mark.parametrize(("command", "form"), [("augment", "a.store"), ("augment", "a.h5")])
def test_a_full_disk_is_a_plain_error_and_commits_nothing(
    tmp_path: Path, command: str, form: str
) -> None:
    starve_and_check(tmp_path, command, form, [0, 150, 290_000])


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_full_at_any_moment_is_a_plain_error_and_commits_nothing(
    tmp_path: Path, command: str, form: str
) -> None:
    limits = [0, 1, 150, 4_000, 40_000, *range(262_144, 400_000, 10_000)]
    starve_and_check(tmp_path, command, form, limits)


def starve_and_check(tmp_path: Path, command: str, form: str, limits: list[int]) -> None:
    base = prepare(tmp_path / "base", command, form)
    before = contents(base)
    limits = [*limits, 2**30]
    arguments = ["starve", command, form, str(base), str(tmp_path), *map(str, limits)]
    driver = run_driver(arguments)
    ends = [json.loads(line) for line in driver.splitlines()]
    after = contents(tmp_path / str(2**30))
    assert [limit for limit, _, _ in ends] == limits
    assert ends[0][1] == "StoreError"
    assert ends[-1][1] is None
    for limit, error, message in ends:
        root = tmp_path / str(limit)
        assert error in (None, "StoreError"), message
        now = contents(root)
        if error is None or not is_between(command, before, now, after):
            assert now == (after if error is None else before), limit
        if error is not None:
            assert re.fullmatch(r"cannot write to .*: File too large", message)
            assert leftovers(root) == [], limit
            assert command == "evaluate" or results(root) == {}
            COMMANDS[command](root, form)
            assert contents(root) == after


def run_driver(arguments: list[str]) -> str:
    driver = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, check=False
    )
    assert driver.returncode == 0, driver.stderr
    return driver.stdout


CLI = "from augkit_cli.main import run; run()"


def interrupted(store: Path, number: int, start_method: str) -> subprocess.CompletedProcess[str]:
    """Send a signal to `augkit augment` and its workers while it writes; return how it ended."""
    line = ["augment", "--plugin", "zoom", "--n", "100000", "--store", str(store)]
    command = subprocess.Popen(
        [sys.executable, "-c", CLI, *line, "--workers", "2", "--start-method", start_method],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while not staged_bytes(store) and command.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        os.killpg(command.pid, number)
        out, err = command.communicate(timeout=60)
    finally:
        command.kill()
    return subprocess.CompletedProcess(line, command.returncode, out, err)


def staged_bytes(store: Path) -> int:
    """Return the size of what is being written, beyond what is claimed at first."""
    staged = [*store.glob("tmp/*.h5"), *store.parent.glob(f".{store.name}~*")]
    return sum(max(0, p.stat().st_size - 2**19) for p in staged)


@pytest.mark.parametrize("form", FORMS)
def test_ctrl_c_is_one_plain_line_and_commits_nothing(tmp_path: Path, form: str) -> None:
    store = prepare(tmp_path, "augment", form) / form
    before = contents(tmp_path)
    ended = interrupted(store, signal.SIGINT, "threads" if form == "a.store" else "fork")
    assert ended.returncode == 130
    assert ended.stdout == ""
    assert re.fullmatch(r"augkit: stopped; .*", ended.stderr.strip())
    assert contents(tmp_path) == before
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("form", FORMS)
def test_a_terminated_command_says_no_more_than_a_line_and_commits_nothing(
    tmp_path: Path, form: str
) -> None:
    store = prepare(tmp_path, "augment", form) / form
    before = contents(tmp_path)
    ended = interrupted(store, signal.SIGTERM, "fork" if form == "a.store" else "threads")
    assert ended.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
    assert ended.stdout == ""
    assert ended.stderr.count("\n") <= 1
    assert contents(tmp_path) == before
    ak.augment(store, "scale", workers=1)
    assert leftovers(tmp_path) == []
    assert ak.verify(ak.open(store)).sound


SYSTEM_CALLS = "pwrite64,write,ftruncate,fallocate,fsync,rename,link,linkat,unlink,mkdir"


def traced(command: str, form: str, root: Path, *inject: str) -> str:
    """Run a command below strace; return the system calls that it made."""
    line = [command, form, str(root)]
    log = root.parent / f"{root.name}.trace"
    subprocess.run(
        ["strace", "-f", "-qq", "-o", log, "-e", f"trace={SYSTEM_CALLS}", *inject,
         sys.executable, "-B", __file__, "once", *line],
        capture_output=True, check=False,
    )  # fmt: skip
    return log.read_text()


@pytest.mark.parametrize(
    ("form", "n_points"),
    [
        ("a.store", 1),
        pytest.param("a.store", 25, marks=pytest.mark.slow),
        pytest.param("a.h5", 25, marks=pytest.mark.slow),
    ],
)
def test_a_command_killed_within_hdf5_leaves_all_or_nothing(
    tmp_path: Path, form: str, n_points: int
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: no kills within HDF5's own writes")
    base = prepare(tmp_path / "base", "augment", form)
    before = contents(base)
    shutil.copytree(base, tmp_path / "end")
    lines = [
        line.split(maxsplit=1) for line in traced("augment", form, tmp_path / "end").splitlines()
    ]
    own = lines[-1][0] if lines else ""
    calls = [call.split("(")[0] for process, call in lines if process == own and "(" in call]
    if "pwrite64" not in calls:
        pytest.skip("strace may not trace here: no kills within HDF5's own writes")
    for at in spread(range(1, len(calls) + 1), n_points):
        root = tmp_path / f"killed-{at}"
        shutil.copytree(base, root)
        name = calls[at - 1]  # strace counts each kind of call by itself
        rule = f"inject={name}:signal=SIGKILL:when={calls[:at].count(name)}"
        assert "killed by SIGKILL" in traced("augment", form, root, "-e", rule)
        check(root, "augment", form, before, tmp_path / "end")


def warm_up() -> None:
    """Import here, once, what every child needs."""
    ak.plugins()
    for name in ak.__all__:
        getattr(ak, name)


if __name__ == "__main__":
    if sys.argv[1] != "once":
        warm_up()
    match sys.argv[1:]:
        case ["kill", tasks]:
            for command, form, base, target, n_points, seed in json.loads(tasks):
                drive(command, form, Path(base), Path(target), n_points, seed)
        case ["starve", command, form, base, target, *limits]:
            starve(command, form, Path(base), Path(target), [int(limit) for limit in limits])
        case ["once", command, form, root]:
            COMMANDS[command](Path(root), form)
