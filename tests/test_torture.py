"""The crash campaign in small: `make torture` does the same, thousands of times.

The quick tests hold the campaign itself to account: it has to find what is wrong on purpose.
"""

import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from torture import crowds, faults, flips, interrupts, kills, power, resume, table
from torture.calls import Call
from torture.worlds import FORMS, Tally, World, check, leftovers, make_empty, make_world, scratch

import augkit as ak
from augkit.store import durable

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork") or not Path("/proc/self/fd").exists(), reason="needs fork and /proc"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(dir=scratch(), prefix="augkit-torture-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def worlds(root: Path) -> dict[str, World]:
    return {form: make_world(form, root) for form in FORMS}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def require_clean(found: Tally, least: int) -> None:
    assert found.clean, found
    assert found.n >= least


# What the campaign sees


@pytest.mark.seconds
def test_a_store_that_lost_a_run_or_shows_one_too_many_is_seen(worlds, root):
    world = worlds["folder"]
    path = world.copy(root / "seen")
    ak.augment(path, "scale", n=1, workers=1)
    assert check(path, world.before, {}, "").visible == 1
    path = world.copy(root / "seen")
    ak.retract(path, "run-99")
    assert check(path, world.before, {}, "").lost == 1


def test_what_is_left_after_the_next_commit_is_seen(worlds, root):
    path = worlds["folder"].copy(root / "left")
    (path / "tmp/left.h5").write_bytes(b"")
    assert "left: " in check(path, worlds["folder"].before, {}, "").notes[0]


def test_a_killed_writer_is_seen_at_its_point(worlds, root):
    point = kills.Point("link", 1, "before")
    killed, found = kills.trial(worlds["folder"], [kills.Writer("run", 0, point)], root)
    assert killed == [point]
    require_clean(found, 1)


@pytest.fixture
def disk(tmp_path: Path) -> power.Disk:
    (tmp_path / "disk/tmp").mkdir(parents=True)
    (tmp_path / "disk/log").mkdir()
    found = power.Disk(tmp_path / "disk")
    one = str(found.base / "tmp/one")
    found.play(Call("creat", one))
    found.play(Call("write", one, data=b"0123"))
    found.play(Call("fsync", one))
    found.play(Call("write", one, offset=4, data=b"4567"))
    found.play(Call("rename", one, str(found.base / "log/1")))
    found.play(Call("fsync", str(found.base / "log")))
    return found


def test_a_cut_leaves_all_that_was_flushed_and_some_of_the_rest(disk, rng):
    nothing, everything = power.Luck(0, 0, rng), power.Luck(1, 0, rng)
    files = [
        {name: content for name, content in disk.after(cut, luck).items() if content is not None}
        for cut, luck in ((2, nothing), (4, nothing), (5, everything), (6, nothing))
    ]
    assert files == [{}, {}, {"log/1": b"01234567"}, {"log/1": b"0123"}]
    some = power.Luck(0.5, 0, rng)
    found = {tuple(sorted(disk.after(5, some).items())) for _ in range(200)}
    names = {tuple(k for k, v in state if v is not None) for state in found}
    assert names == {(), ("tmp/one",), ("log/1",), ("log/1", "tmp/one")}


def test_a_name_that_was_flushed_before_its_content_is_found_as_loss(
    worlds, root, rng, monkeypatch
):
    monkeypatch.setattr(durable, "flush_folder", lambda path: None)
    disk, told = power.record(worlds["folder"], ("model", 0), ("run", 1), None, root)
    cut = len(told.calls)
    state = disk.after(cut, power.Luck(0, 0, rng))
    must, may = power.expected(worlds["folder"], told, cut)
    path = power._write(state, root / "cut") / FORMS["folder"]
    assert check(path, must, may, "", tidy=False).lost == 1


def record_with_rival(world: World, kind: str, call: str, end: str, root: Path):
    """Record a commit in which a rival commits before the last call of a name on such a path."""
    writers = (kind, 0), (kind, 1)
    calls = power.record(world, *writers, None, root)[1].calls
    (*_, at) = [i for i, c in enumerate(calls) if c.name == call and c.path.endswith(end)]
    disk, told = power.record(world, *writers, at, root)
    assert told.order[0] == (kind, 0), "the rival comes second"
    return disk, told


def test_a_log_entry_never_outlives_the_one_before_it(worlds, root, rng):
    disk, told = record_with_rival(worlds["folder"], "run", "fsync", "/log", root)
    before, gaps = 3, {()}
    for _ in range(300):
        cut = int(rng.integers(told.begun[0], len(told.calls) + 1))
        state = disk.after(cut, power.Luck(0.5, 0, rng))
        numbers = sorted(int(Path(p).stem) for p in state if "/log/" in p)
        assert numbers == [*range(1, len(numbers) + 1)], cut
        gaps.add(tuple(numbers[before:]))
    assert gaps >= {(), (4,), (4, 5)}


def test_who_commits_first_into_a_store_flushes_its_names(root, tmp_path, rng):
    world = make_empty("folder", tmp_path)
    calls = power.record(world, ("images", 0), ("images", 1), None, root)[1].calls
    (linked,) = [i for i, c in enumerate(calls) if c.target.endswith("/store.json")]
    assert calls[linked + 1].name == "fsync"
    disk, told = power.record(world, ("images", 0), ("images", 1), linked + 1, root)
    assert told.order[0] == ("images", 1), "the rival commits while the maker of the store waits"
    left = disk.after(told.ended[0], power.Luck(0, 0, rng))
    assert {"a.store/store.json", "a.store/log/0000000001.json"} <= left.keys()


@pytest.mark.parametrize("form", FORMS)
def test_ctrl_c_while_a_shard_is_made_leaves_nothing(worlds, root, form):
    path, told = worlds[form].copy(root / "stopped"), root / "told.json"
    how, lines = interrupts.watched("run", path, -1, told)
    assert how == ""
    at = next(i for i, (file, _) in enumerate(lines) if file.endswith("/store/direct.py"))
    path = worlds[form].copy(root / "stopped")
    assert interrupts.watched("run", path, at, told) == ("KeyboardInterrupt: ", [])
    assert leftovers(path) == []


def test_the_page_says_what_the_committed_campaign_found():
    rows = table.read(table.RESULTS)
    assert table.table(rows) in table.PAGE.read_text()
    wrong = [row for row in rows if (row["lost"], row["visible"], row["errors"]) != ("0", "0", "0")]
    assert wrong == []


# The campaign


@pytest.mark.slow
@pytest.mark.parametrize("n_writers", [1, 4])
@pytest.mark.parametrize("form", FORMS)
def test_killed_writers_lose_nothing_and_show_nothing(worlds, root, rng, form, n_writers):
    found = kills.campaign(worlds[form], n_writers, defaultdict(lambda: 6), root, rng)
    for call in ("write", "pwrite64", "fsync", "rename", *(["link"] if form == "folder" else [])):
        require_clean(found[call], 6)
    assert all(tally.clean for tally in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [("images", "images"), ("run", "run"), ("model", "run")])
@pytest.mark.parametrize("form", FORMS)
def test_power_cuts_lose_nothing_and_show_nothing(root, worlds, rng, form, kinds, tmp_path):
    world = make_empty(form, tmp_path) if kinds[0] == "images" else worlds[form]
    found = power.campaign(world, kinds, root, rng, n_random=20, every=1000)
    require_clean(found, 50)


@pytest.mark.slow
@pytest.mark.parametrize("fault", faults.FAULTS)
@pytest.mark.parametrize("form", FORMS)
def test_a_disk_that_refuses_and_signals_leave_all_or_nothing(worlds, root, form, fault):
    require_clean(faults.campaign(worlds[form], fault, root, 5), 10)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_order_of_commits_is_not_that_of_a_clock(worlds, root, form):
    require_clean(faults.clocks(worlds[form], root, 8), 8)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_crowd_loses_nothing_and_reads_what_was_committed(worlds, root, form):
    found, done = crowds.campaign(worlds[form], root, seconds=10)
    require_clean(found, 8)
    assert done["reads"] > 8
    assert done["seen"] > 1


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_verify_finds_flipped_bytes_and_names_shard_and_row(worlds, root, form):
    require_clean(flips.campaign(worlds[form], root, 60), 100)


@pytest.mark.slow
@pytest.mark.parametrize("command", resume.COMMANDS)
@pytest.mark.parametrize("form", FORMS)
def test_a_killed_command_goes_on_to_the_same_bytes(root, form, command):
    found = resume.campaign(
        command, form, root / "resumed", 1 if command in ("dagan", "study") else 3
    )
    require_clean(found.tally, 1)
    for what in resume.KEPT.get(command, ()):
        assert found.begun[what] > 1 >= found.twice[what]


@pytest.mark.slow
@pytest.mark.parametrize("command", interrupts.COMMANDS)
@pytest.mark.parametrize("form", FORMS)
def test_ctrl_c_at_any_line_is_answered_and_leaves_nothing(
    root, worlds, rng, form, command, tmp_path
):
    world = make_empty(form, tmp_path) if command == "images" else worlds[form]
    require_clean(interrupts.campaign(world, command, root, rng, 15), 15)
