"""Consent withdrawn: an image and all that derives from it really leave the store."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import test_crash as crash
from commands import command, works
from hostile import resign
from toys import images, toy_store

import augkit as ak
from augkit.errors import DamagedStore, OptionError, StoreError
from augkit.features import FeatureCache
from augkit.partitions import HOLDOUT
from augkit.results import Result, Results
from augkit.store import DatasetStore, durable, traces
from augkit.store.traces import Search, of_images, of_text

pytestmark = pytest.mark.seconds

FORMS = ["toy.store", "toy.h5"]
KEY = "toy/benign/0.png"
"""A training image, the first of its patient."""

PATIENTS = [f"patient-{i // 2:04}" for i in range(60)]


def furnished(path: Path) -> DatasetStore:
    """Return a store with runs that derive from KEY, and others that do not; all on disk."""
    store = toy_store(path, 20, masks=True, groups=PATIENTS)
    ak.augment(store, "flip", workers=1)
    ak.augment(store, "zoom", n=12, workers=1)
    ak.retract(store, "zoom")
    ak.augment(store, "scale", n=2, seed=5, run="few", workers=1)
    return store


def others(store: DatasetStore) -> list[str]:
    """Return the keys of training images that no row of the run `few` was made from."""
    snapshot = store.snapshot()
    training = np.flatnonzero(snapshot.parts(HOLDOUT) == 0)
    return snapshot.real.keys[np.setdiff1d(training, snapshot.parents("few"))].tolist()


def files_of(path: Path) -> dict[str, bytes]:
    """Return the bytes of all files of a store, with what lies beside a packed one."""
    if path.is_dir():
        return {str(p): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    beside = [p for p in path.parent.rglob("*") if p.is_file()]
    return {str(p): p.read_bytes() for p in beside if path.name in str(p)}


def lines_of(rows: np.ndarray) -> list[bytes]:
    """Return every line of pixels of some images that is not flat."""
    lines = [line.tobytes() for image in rows for line in image]
    return [line for line in lines if len(set(line)) > 4]


def held_by(path: Path, wanted: list[bytes]) -> list[bytes]:
    """Return what is found in any file of a store, by the plainest of all searches."""
    everything = b"\0".join(files_of(path).values())
    return [each for each in wanted if each in everything]


def traces_of(store: DatasetStore, key: str, runs: list[str]) -> list[bytes]:
    snapshot = store.snapshot()
    (row,) = np.flatnonzero(snapshot.real.keys == key)
    sha256 = str(snapshot.real.sha256[row])
    found = [key.encode(), bytes.fromhex(sha256)]
    found += lines_of(snapshot.inspect()[int(row) : int(row) + 1])
    return found + [line for run in runs for line in lines_of(snapshot.inspect(run)[:])]


@pytest.mark.parametrize("form", FORMS)
def test_an_image_and_all_that_derives_from_it_leave_every_byte(tmp_path, form):
    store = furnished(tmp_path / form)
    ak.evaluate(store, "linear", arms=["real"], folds=5)
    wanted = traces_of(store, KEY, ["flip"])
    assert set(held_by(store.path, wanted)) == set(wanted)
    found = ak.purge(store, KEY)
    assert held_by(store.path, wanted) == []
    assert found.images == (KEY,) and found.runs == ("flip",)
    assert found.rows == 42 + 36  # also those of the run that was retracted
    assert found.pieces > 100 and found.searched > 50_000
    assert ak.verify(store).sound
    assert KEY not in store.snapshot().real.keys
    assert list(store.snapshot().runs) == ["few"]


@pytest.mark.parametrize("form", FORMS)
def test_what_stays_is_as_it_was(tmp_path, form):
    store = furnished(tmp_path / form)
    key = others(store)[0]
    before = ak.open(store.path).snapshot()
    stays = before.real.keys != key
    kept = [np.array(getattr(before.real, name)[stays]) for name in NAMES]
    pixels, masks = before.inspect()[:][stays], before.inspect().masks(slice(None))[0][stays]
    run = [before.inspect("few")[:], before.inspect("few").ids, before.params("few")]
    parents = before.real.keys[before.parents("few")]
    ak.purge(store, key)
    after = ak.open(store.path).snapshot()
    assert all(np.array_equal(v, getattr(after.real, n)) for n, v in zip(NAMES, kept, strict=True))
    assert np.array_equal(after.inspect()[:], pixels)
    assert np.array_equal(after.inspect().masks(slice(None))[0], masks)
    now = [after.inspect("few")[:], after.inspect("few").ids, after.params("few")]
    assert all(np.array_equal(a, b) for a, b in zip(run, now, strict=True))
    assert np.array_equal(after.real.keys[after.parents("few")], parents)
    replayed = ak.replay(store, "few")
    assert replayed.identical == replayed.rows == 6


NAMES = ("keys", "groups", "folds", "masked", "colour", "patients", "sha256")


def test_a_test_image_takes_no_run_with_it_and_the_same_line_is_still_done(tmp_path):
    store = furnished(tmp_path / "toy.store")
    snapshot = store.snapshot()
    key = snapshot.real.keys[snapshot.parts(HOLDOUT) == 2][0]
    found = ak.purge(store, str(key))
    assert found.runs == () and found.rows == 0
    assert not ak.augment(store, "flip").made


def test_models_fitted_on_it_go_with_their_runs(tmp_path):
    root = crash.prepare(tmp_path, "pack", "a.store")
    store = ak.open(root / "a.store")
    (model,) = store.snapshot().models
    found = ak.purge(store, "first/a/0.png")  # row 0, on which the model was fitted
    assert found.models == (model,) and "gan" in found.runs
    assert "rival" not in found.runs or "rival" not in store.snapshot().runs
    assert not store.snapshot().models and ak.verify(store).sound
    assert held_by(store.path, [model.encode(), bytes(range(256)) * 3]) == []


def test_a_model_fitted_on_others_stays_and_names_the_same_images(tmp_path):
    root = crash.prepare(tmp_path, "pack", "a.store")
    store = ak.open(root / "a.store")
    before = store.snapshot()
    fitted = before.real.keys[list(next(iter(before.models.values())).fitted_on)]
    ak.ingest_arrays(store, [images(1, 9, store.shape)], ["a"], keys=["new.png"], dataset="late")
    moved = next(k for k in before.real.keys.tolist() if k not in fitted)
    ak.purge(store, moved)
    (model,) = store.snapshot().models.values()
    assert np.array_equal(store.snapshot().real.keys[list(model.fitted_on)], fitted)


@pytest.mark.parametrize("form", FORMS)
def test_a_dry_run_says_the_same_and_changes_nothing(tmp_path, form):
    store = furnished(tmp_path / form)
    ak.evaluate(store, "linear", arms=["real"], folds=5)
    before = files_of(store.path)
    said = works("purge", "--key", KEY, "--dry-run", "--json", "--store", form, cwd=tmp_path).json
    assert files_of(store.path) == before
    done = works("purge", "--key", KEY, "--json", "--store", form, cwd=tmp_path).json
    assert not said["done"] and done["done"]
    for name in ("images", "runs", "rows", "models", "again"):
        assert said[name] == done[name]
    assert set(said["notes"]) <= set(done["notes"])


def test_the_lines_that_make_it_again_do_so(tmp_path):
    store = toy_store(tmp_path / "toy.store")
    ak.augment(store, "flip+zoom", {"zoom.side_range": "0.5,1"}, n=14, seed=3, run="both")
    ak.augment(store, "zoom", total=40)
    ak.evaluate(store, "linear", {"C": "0.5"}, arms=["real"], folds=5)
    key = str(store.snapshot().real.keys[store.snapshot().parents("zoom")[0]])
    shown = works("purge", "--key", key, "--store", store.path, cwd=tmp_path).out
    again = [line.strip() for line in shown.splitlines() if line.startswith("  augkit ")]
    assert len(again) == 3
    for line in again:
        works(*shlex.split(line)[1:], cwd=tmp_path)
    snapshot = ak.open(store.path).snapshot()
    assert {n: (r.rows, r.recipe["seed"]) for n, r in snapshot.runs.items()} == {
        "both": (42, 3), "zoom": (40, 0),
    }  # fmt: skip
    assert snapshot.runs["both"].recipe["plugins"][1]["options"]["side_range"] == [0.5, 1.0]


@pytest.mark.parametrize("name", [KEY, "patient-0000", "toy/patient-0000", "0"])
def test_a_group_is_named_by_an_image_a_patient_or_its_number(tmp_path, name):
    store = toy_store(tmp_path / "toy.store", groups=PATIENTS)
    found = ak.purge(store, group=name)
    assert found.images == (KEY, "toy/benign/1.png")
    assert held_by(store.path, [b"patient-0000"]) == []
    assert len(held_by(store.path, [b"patient-0001"])) == 1


def test_relatives_that_stay_are_told_and_so_is_the_same_file_of_another_name(tmp_path):
    store = toy_store(tmp_path / "toy.store", groups=PATIENTS)
    twin = store.snapshot().inspect()[:1]
    ak.ingest_arrays(store, [twin], ["benign"], keys=["twin.png"], dataset="toy")
    notes = "\n".join(ak.purge(store, KEY).notes)
    assert "2 relatives stay" in notes and "--group KEY takes all" in notes
    assert "the same file stays under another key, toy/twin.png" in notes
    assert "1 row cannot be searched for" in notes
    assert "toy/twin.png" in store.snapshot().real.keys


def test_a_class_of_too_few_groups_is_told(tmp_path):
    store = toy_store(tmp_path / "toy.store", 2)
    notes = "\n".join(ak.purge(store, KEY, dry_run=True).notes)
    assert "class benign has 1 group left: too few to train and to test" in notes


def test_a_conflict_that_the_image_made_is_settled_and_told(tmp_path):
    store = toy_store(tmp_path / "toy.store", groups=["both", *PATIENTS[1:59], "both"])
    conflicting = store.snapshot().real.keys[store.snapshot().real.conflict].tolist()
    assert conflicting == [KEY, "toy/normal/59.png"]
    notes = "\n".join(ak.purge(store, KEY).notes)
    assert "the images left in group 0 carry one class now" in notes
    assert not store.snapshot().real.conflict.any()


def test_a_whole_ingest_can_go_and_the_groups_of_the_rest_stay(tmp_path):
    store = toy_store(tmp_path / "toy.store")
    keys = [f"{i}.png" for i in range(4)]
    ak.ingest_arrays(store, [images(4, 7)], ["other"] * 4, keys=keys, dataset="late")
    folds = store.snapshot().real.folds[:60]
    ak.purge(store, [f"late/{key}" for key in keys])
    assert np.array_equal(store.snapshot().real.folds, folds)
    assert store.snapshot().classes == ("benign", "malignant", "normal")
    assert ak.verify(store).sound


def test_decisions_about_it_go_and_others_name_the_same_images(tmp_path):
    store = toy_store(tmp_path / "toy.store")
    keys = store.snapshot().real.keys.tolist()
    ak.ingest_arrays(store, [images(1, 7)], ["benign"], keys=["a"], dataset="late")
    write_decisions(store, [[0, 5, "different"], [7, 9, "same"]])
    ak.purge(store, KEY)
    assert store.snapshot().grouping["decisions"] == [[6, 8, "same"]]
    assert store.snapshot().real.keys[[6, 8]].tolist() == [keys[7], keys[9]]


def write_decisions(store: DatasetStore, rows: list[list]) -> None:
    """Commit a table of groups with decisions, as a review does."""
    store.commit(lambda now: {"kind": "grouping", "grouping": {**now.grouping, "decisions": rows}})


def test_the_log_says_first_and_last_that_there_was_a_purge_and_not_of_whom(tmp_path):
    store = furnished(tmp_path / "toy.store")
    n = store.snapshot().number
    ak.purge(store, KEY)
    ak.purge(store, group="patient-0007")
    entries = store.snapshot().entries
    assert len(entries) == n + 2
    assert [purge["rows"] for purge in entries[0]["rewritten"]] == [1 + 42 + 36, 2]
    assert [e["kind"] for e in entries] == [
        "ingest", "purged", "purged", "purged", "run", "purge", "purge",
    ]  # fmt: skip
    assert {k: entries[-2][k] for k in ("images", "rows", "runs", "models")} == {
        "images": 1, "rows": 78, "runs": 2, "models": 0,
    }  # fmt: skip
    assert entries[1].keys() <= {"format", "number", "kind", "previous", "digest"}


def test_a_purged_store_takes_new_images_runs_and_evaluations(tmp_path):
    store = furnished(tmp_path / "toy.store")
    ak.purge(store, KEY)
    ak.ingest_arrays(store, [images(2, 7)], ["benign"] * 2, keys=["a", "b"], dataset="late")
    assert ak.augment(store, "flip").made
    ak.evaluate(store, "linear", arms=["real", "flip"], folds=5)
    packed = ak.pack(store, tmp_path / "b.h5")
    assert ak.verify(ak.unpack(packed, tmp_path / "c.store")).sound


REFUSED = [
    ("", "which image?", "--key KEY", "--group KEY", "augkit info --rows"),
    ("--key toy/nothing", "holds no image 'toy/nothing'", "augkit info --rows"),
    ("--group nobody", "has no group 'nobody'", "augkit info --rows"),
    (f"--key {KEY} --group {KEY}", "--key or --group, not both"),
]


@pytest.mark.parametrize(("line", "words"), [(line, words) for line, *words in REFUSED])
@pytest.mark.parametrize("form", FORMS)
def test_a_bad_purge_is_refused_and_changes_nothing(tmp_path, form, line, words):
    store = toy_store(tmp_path / form, 2)
    before = files_of(store.path)
    outcome = command("purge", *shlex.split(line), "--store", form, cwd=tmp_path)
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert all(word in outcome.err for word in words)
    assert files_of(store.path) == before


def test_all_images_are_not_purged_one_deletes_the_store(tmp_path):
    store = toy_store(tmp_path / "toy.store", 2)
    with pytest.raises(OptionError, match=r"all images of .*: delete it whole"):
        ak.purge(store, store.snapshot().real.keys.tolist())


def test_a_patient_of_two_data_sets_is_asked_for(tmp_path):
    store = toy_store(tmp_path / "toy.store", groups=PATIENTS)
    ak.ingest_arrays(
        store, [images(1, 7)], ["benign"], keys=["a"], dataset="late", groups=["patient-0000"]
    )
    with pytest.raises(OptionError, match=r"choose --group late/patient-0000 or toy/patient-0000"):
        ak.purge(store, group="patient-0000")


# -- others at work ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_who_began_to_write_before_fails_plainly_and_leaves_nothing(tmp_path, form):
    furnished(tmp_path / form)
    other = ak.open(tmp_path / form)
    snapshot = other.snapshot()
    writer = other.write_shard({"classes": ["benign", "malignant", "normal"]}, masks=False)
    writer.append(snapshot.inspect()[:1])
    ak.purge(tmp_path / form, KEY)
    assert not writer.path.exists()
    with pytest.raises(StoreError, match="cannot write to"):
        writer.finish({"labels": np.zeros(1, np.int64)})
    for begin in (
        lambda: other.write_shard({}, masks=False),
        other.stage_model,
        other.snapshot,
        lambda: ak.retract(other, "few"),
    ):
        with pytest.raises(StoreError, match=r"was purged, or replaced .* run it again"):
            begin()
    assert ak.verify(ak.open(tmp_path / form)).uncommitted == []


@pytest.mark.parametrize("form", FORMS)
def test_an_evaluation_that_began_before_keeps_nothing_afterwards(tmp_path, form):
    store = furnished(tmp_path / form)
    snapshot = store.snapshot()
    guard = store.standing(snapshot).held
    results = Results(store.side_folder("results"), guard)
    cache = FeatureCache(store.side_folder("cache"), guard=guard)
    ak.purge(tmp_path / form, KEY)
    with pytest.raises(StoreError, match="was purged"):
        results.write({"task": 1}, Result(np.ones((2, 3), np.float32)))
    held = ak.ArraySamples(images(3), np.zeros(3, np.int64))
    with pytest.raises(StoreError, match="was purged"):
        cache("k", lambda x: x.reshape(len(x), -1).astype(np.float32), held)
    assert not store.side_folder("results").exists() and not store.side_folder("cache").exists()


@pytest.mark.parametrize("form", FORMS)
def test_an_old_snapshot_with_open_files_fails_plainly(tmp_path, form):
    furnished(tmp_path / form)
    old = ak.open(tmp_path / form).snapshot()
    assert len(old.inspect()[:]) == 60 and len(old.inspect("flip")[:]) == 42
    ak.purge(tmp_path / form, KEY)
    for run in (None, "flip"):
        with pytest.raises(StoreError, match=r"purged since|was purged since|has lost shard"):
            old.inspect(run)[:]


def test_a_commit_of_another_command_waits_for_the_end_of_a_purge(tmp_path):
    store = furnished(tmp_path / "toy.store")
    line = "import augkit as ak, sys; print('ready', flush=True); ak.retract(sys.argv[1], 'flip')"
    with durable.locked(store.path):  # as a purge holds it
        other = subprocess.Popen(
            [sys.executable, "-c", line, store.path], stdout=subprocess.PIPE, text=True
        )
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(1)
        assert "flip" in store.snapshot().runs
    assert other.wait(60) == 0
    assert "flip" not in store.snapshot().runs
    other.stdout.close()


@pytest.mark.parametrize("form", FORMS)
def test_while_a_model_is_trained_nothing_is_purged(tmp_path, form):
    store = furnished(tmp_path / form)
    folder = store.side_folder("training") / "0123456789abcdef"
    folder.mkdir(parents=True)
    before = files_of(store.path)
    with durable.locked(folder), pytest.raises(StoreError, match=r"training a model .* wait"):
        ak.purge(store, KEY)
    assert files_of(store.path) == before
    (folder / "step-1.safetensors").write_bytes(b"weights")
    ak.purge(store, KEY)
    assert not folder.exists()


def test_a_damaged_store_is_not_rewritten(tmp_path):
    store = furnished(tmp_path / "toy.store")
    (shard,) = [e["shard"]["name"] for e in store.snapshot().entries if e["kind"] == "ingest"]
    store.close()
    with h5py.File(store.path / f"shards/{shard}.h5", "r+") as file:
        file["images"][30] ^= 255
    os.environ["AUGKIT_EXAMINE"] = "never"
    before = files_of(store.path)
    try:
        with pytest.raises(DamagedStore, match="augkit verify"):
            ak.purge(store.path, KEY)
    finally:
        del os.environ["AUGKIT_EXAMINE"]
    assert files_of(store.path) == before


# -- the search --------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["key", "pixels", "derived", "sha256", "free space"])
def test_a_purge_is_not_done_while_any_file_in_the_store_holds_a_trace(tmp_path, what):
    store = furnished(tmp_path / "toy.store")
    snapshot, alien = store.snapshot(), store.path / "notes.bin"
    content = {
        "key": f'{{"image": "{KEY}"}}'.encode(),
        "pixels": b"..." + snapshot.inspect()[:1].tobytes()[: 24 * 16],  # the upper half
        "derived": b"." + snapshot.inspect("flip")[40:41].tobytes(),
        "sha256": bytes.fromhex(str(snapshot.real.sha256[0])),
        "free space": b"",
    }[what]
    if content:
        alien.write_bytes(content)
    else:
        with h5py.File(alien, "w") as file:
            file["old"], file["new"] = snapshot.inspect()[:1], np.zeros(9)
            del file["old"]
    for _ in range(2):
        outcome = command("purge", "--key", KEY, "--store", "toy.store", cwd=tmp_path)
        assert outcome.code == 2 and str(alien) in outcome.err and "delete or move" in outcome.err
    for line in ("info", "verify", "augment --plugin zoom", "evaluate --classifier linear"):
        refused = command(*line.split(), "--store", "toy.store", cwd=tmp_path)
        assert refused.code == 2 and "augkit purge --store" in refused.err
    alien.unlink()
    assert "none is left" in works("purge", "--key", KEY, "--store", "toy.store", cwd=tmp_path).out
    assert KEY not in ak.open(store.path).snapshot().real.keys


@pytest.mark.parametrize("what", ["file", "folder", "text"])
def test_the_name_of_a_patient_is_a_trace_wherever_it_stands(tmp_path, what):
    store = furnished(tmp_path / "toy.store")
    alien = store.path / ("letter" if what == "text" else "of patient-0000")
    if what == "folder":
        alien.mkdir()
    else:
        alien.write_text("patient-0000 called" if what == "text" else "")
    line = ("purge", "--group", KEY, "--store", "toy.store")
    outcome = command(*line, cwd=tmp_path)
    assert outcome.code == 2 and str(alien) in outcome.err and "delete or move" in outcome.err
    alien.rmdir() if what == "folder" else alien.unlink()
    assert "none is left" in works(*line, cwd=tmp_path).out


def test_no_group_is_not_the_group_of_all_without_a_patient(tmp_path):
    toy_store(tmp_path / "toy.store", 4)
    outcome = command("purge", "--group", "", "--store", "toy.store", cwd=tmp_path)
    assert outcome.code == 2 and "--group names no group" in outcome.err


def test_lines_to_be_typed_again_are_lines_of_augkit_alone(tmp_path):
    """An outcome of a store that somebody else wrote could say anything."""
    store = toy_store(tmp_path / "toy.store")
    (store.path / "outcomes").mkdir()
    good = "augkit evaluate --classifier linear"
    said = ["rm -rf ~", f"{good}; rm x", "augkit study $(x)", "[" * 9999, good]
    for number, line in enumerate(said):
        text = json.dumps({"command": line}) if number != 3 else line
        (store.path / "outcomes" / f"{number}.json").write_text(text)
    (again,) = ak.purge(store, KEY, dry_run=True).again
    assert again == f"{good} --store {store.path}"


def test_a_purge_that_somebody_else_began_is_no_traceback(tmp_path):
    store = toy_store(tmp_path / "toy.store", 4)
    for extra in ({}, {"chain": [{}]}, {"chain": [{"kind": "x"}], "pieces": "zz"}):
        resign(store.path, lambda _, entry, extra=extra: entry.update(kind="purging", **extra))
        with pytest.raises(DamagedStore, match="entry 1 of the log cannot be used"):
            ak.purge(store.path, KEY)


def test_a_stopped_purge_is_finished_by_the_bare_command_and_then_by_another_key(tmp_path):
    store = furnished(tmp_path / "toy.store")
    (store.path / "notes.txt").write_text(KEY)
    for ends in ([], ["--key", "toy/normal/50.png"]):
        with pytest.raises(StoreError):
            ak.purge(store.path, KEY)
        (store.path / "notes.txt").unlink(missing_ok=True)
        works("purge", *ends, "--store", "toy.store", cwd=tmp_path)
        assert KEY not in ak.open(store.path).snapshot().real.keys
        if not ends:
            break
    assert "toy/normal/50.png" in ak.open(store.path).snapshot().real.keys
    (store.path / "notes.txt").write_text("toy/normal/51.png")
    with pytest.raises(StoreError, match=r"notes\.txt"):
        ak.purge(store.path, "toy/normal/51.png")
    (store.path / "notes.txt").unlink()
    works("purge", "--key", "toy/normal/50.png", "--store", "toy.store", cwd=tmp_path)
    left = ak.open(store.path).snapshot().real.keys.tolist()
    assert not {KEY, "toy/normal/50.png", "toy/normal/51.png"} & set(left)


@pytest.mark.parametrize("at", [0, 1, 7, 8, 99, 4090, 4096, 8190, 12_000 - 24])
def test_a_piece_is_found_at_any_place_of_a_file(tmp_path, monkeypatch, at):
    monkeypatch.setattr(traces, "_BLOCK", 4096)
    noise = np.random.default_rng(0).integers(0, 256, 12_000, np.uint8).tobytes()
    piece, absent = b"\0" + bytes(range(100, 123)), b"\0" + bytes(range(101, 124))
    (tmp_path / "f").write_bytes(noise[:at] + piece + noise[at + 24 :])
    assert Search([piece, absent]).in_file(tmp_path / "f") == {piece}


@pytest.mark.parametrize("at", [0, 4000, 4060, 4096])
def test_a_text_within_a_longer_one_that_stays_is_no_trace(tmp_path, monkeypatch, at):
    monkeypatch.setattr(traces, "_BLOCK", 4096)
    search = Search([b"toy/a/1.png"], {b"toy/a/1.png": [b"more-toy/a/1.png.png"]})
    (tmp_path / "f").write_bytes(b"." * at + b"more-toy/a/1.png.png" + b"." * 5000)
    assert search.in_file(tmp_path / "f") == set()
    (tmp_path / "f").write_bytes(b"." * at + b"more-toy/a/1.png" + b"." * 5000)
    assert search.in_file(tmp_path / "f") == {b"toy/a/1.png"}


def test_pieces_are_spread_over_an_image_and_never_flat():
    picture = images(1)[0]
    picture[6:10] = 0
    (found,) = of_images(picture[None], 4)
    assert len(found) == 4 and len(set(found)) == 4
    assert all(piece in picture.tobytes() and len(set(piece)) >= 8 for piece in found)
    assert of_images(np.zeros((2, 24, 32, 1), np.uint8), 4) == [[], []]
    assert of_images(np.zeros((1, 4, 4, 1), np.uint8), 4) == [[]]


def test_a_text_is_looked_for_as_json_writes_it_too():
    assert of_text('Grüße/"1".png') == {
        'Grüße/"1".png'.encode(), b'Gr\\u00fc\\u00dfe/\\"1\\".png', 'Grüße/\\"1\\".png'.encode(),
    }  # fmt: skip
    assert of_text("a/1") == set()


# -- killed at any moment ----------------------------------------------------------------------

DOOMED = "first/a/0.png"

crash.COMMANDS["purge"] = lambda root, form: ak.purge(root / form, DOOMED)


def doomed_store(root: Path, form: str) -> Path:
    crash.prepare(root, "pack", form)
    crash.evaluate(root / form)
    return root


@pytest.mark.parametrize("form", crash.FORMS)
@pytest.mark.parametrize(
    ("n_points", "seed"), [(2, 0), pytest.param(crash.SAMPLE, 1, marks=pytest.mark.slow)]
)
def test_a_killed_purge_is_undone_done_or_finished_by_the_same_line(tmp_path, form, n_points, seed):
    assert kill_and_check(tmp_path, form, n_points, seed) > n_points


def kill_and_check(tmp_path: Path, form: str, n_points: int, seed: int) -> int:
    """Kill a purge, and hold what is left against the promise; return how often."""
    base = doomed_store(tmp_path / "base", form)
    (tmp_path / "killed").mkdir()
    before = crash.contents(base)
    snapshot = ak.open(base / form).snapshot()
    wanted = [DOOMED.encode(), *lines_of(snapshot.inspect()[:1])]
    for run in ("flip", "zoom"):
        wanted += lines_of(snapshot.inspect(run)[:][snapshot.parents(run) == 0])
    assert len(wanted) > 1 + 2 * 40
    driver = subprocess.run(
        [sys.executable, __file__, form, base, tmp_path / "killed", str(n_points), str(seed)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert driver.returncode == 0, driver.stderr
    calls = json.loads(driver.stdout)
    after = crash.contents(tmp_path / "killed/end")
    assert after != before and len(calls) > 20
    ends = set()
    for root in sorted((tmp_path / "killed").iterdir()):
        try:
            ends.add(state_of(root, form, before, after, wanted))
        except BaseException as error:
            at = root.name.partition("-")[2]
            error.add_note(f"killed {root.name}: {calls[int(at) - 1] if at else ''}")
            raise
    assert {"before", "after"} <= ends or (n_points and not seed)
    assert form == "a.h5" or "between" in ends or (n_points and not seed)
    return len(list((tmp_path / "killed").iterdir())) - 1


def state_of(root: Path, form: str, before: dict, after: dict, wanted: list[bytes]) -> str:
    """Hold what a killed purge left against the promise, give it again; return which state."""
    try:
        now = crash.contents(root)
    except StoreError as error:
        assert "augkit purge --store" in str(error)
        state = "between"
    else:
        assert now in (before, after)
        state = "after" if now == after else "before"
    if state == "after":
        assert held_by(root / form, wanted) == []
        with pytest.raises(OptionError, match="holds no image"):
            ak.purge(root / form, DOOMED)
    else:
        ak.purge(root / form, DOOMED)
    assert crash.contents(root) == after
    assert ak.verify(ak.open(root / form)).sound
    ak.augment(root / form, "brightness", n=1, workers=1)
    assert held_by(root / form, wanted) == []
    assert crash.leftovers(root) == []
    return state


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    crash.warm_up()
    form, base, target, *numbers = sys.argv[1:]
    crash.drive("purge", form, Path(base), Path(target), *map(int, numbers))
