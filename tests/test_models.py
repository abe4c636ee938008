"""Fitted models are kept as they were saved, under a name that says what is in them."""

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from toys import images, toy_store, tree

import augkit as ak
from augkit.errors import DamagedStore, PluginFailed, StoreError
from augkit.partitions import HOLDOUT
from augkit.store import DatasetStore, Snapshot, durable
from augkit.store.format import Entry, digest_of, encode_entry, staged_name

FORMS = ["toy.store", "toy.h5"]
WEIGHTS = {"generator.safetensors": bytes(range(256)) * 40, "settings.json": b'{"latent": 100}'}


@pytest.fixture(params=FORMS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> DatasetStore:
    return toy_store(tmp_path / request.param)


def save(store: DatasetStore, files: dict[str, bytes] = WEIGHTS) -> Path:
    """Do what a plugin's `save` does, in a new staged folder."""
    folder = store.stage_model()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def described(fitted_on: Sequence[int] = (0, 1), **changed: Any) -> Entry:
    plugin = {"name": "gan", "distribution": "toys", "version": "1", "options": {"fit_seed": 0}}
    return {
        "kind": "model",
        "recipe": {"plugin": plugin, "partition": HOLDOUT.name},
        "fitted_on": list(fitted_on),
        "trained_from": "0" * 64,
        "partition": HOLDOUT.name,
        "complete": True,
        "note": "",
        "details": {"steps": 10},
        **changed,
    }


def commit(
    store: DatasetStore, files: dict[str, bytes] = WEIGHTS, fitted_on: Sequence[int] = (0, 1),
    **changed: Any,
) -> str:  # fmt: skip
    """Commit a model and return its name."""
    entry = described(fitted_on, **changed)
    snapshot = store.commit(lambda _: dict(entry), model=save(store, files))
    return str(snapshot.entries[-1]["model"]["name"])


def sample(store: DatasetStore, model: str, run: str = "gan") -> Snapshot:
    """Commit a run of two generated images."""
    writer = store.write_shard({"classes": list(store.snapshot().classes)}, masks=False)
    writer.append(images(2, seed=9))
    shard = writer.finish({"labels": np.array([0, 1]), "parent": np.array([-1, -1])})
    recipe = {"plugin": "gan", "seed": 0, "amount": {"total": 2}, "partition": HOLDOUT.name}
    recipe["plugins"] = []
    entry = {
        "kind": "run",
        "run": run,
        "family": "generative",
        "recipe": recipe,
        "by_class": [1, 1, 0],
        "lineage": {"kind": "fitted", "model": model},
        "trained_from": "0" * 64,
        "shard": shard,
    }
    return store.commit(lambda _: dict(entry), writer.path)


def staged(folder: Path) -> list[str]:
    """Return what is staged in a folder, or beside the packed store in it."""
    found = [*folder.rglob("tmp/*"), *folder.glob(".*~*")]
    return [str(path.relative_to(folder)) for path in found]


def flip(store: DatasetStore, model: str, file: str) -> None:
    """Flip one bit of one file of a model."""
    store.close()
    if store.form == "file":
        with h5py.File(store.path, "r+") as packed:
            packed["models"][model][file][5] ^= 1
        return
    path = store.path / "models" / model / file
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)


def drop(store: DatasetStore, model: str, file: str) -> None:
    """Delete one file of a model."""
    if store.form == "file":
        with h5py.File(store.path, "r+") as packed:
            del packed["models"][model][file]
        return
    (store.path / "models" / model / file).unlink()


def problems(store: DatasetStore) -> list[str]:
    """Return what `verify` says, but for the one line on the whole of a packed file."""
    return [str(p) for p in ak.verify(ak.open(store.path)).problems if p.where != "file"]


def test_a_model_comes_back_as_it_was_saved(store: DatasetStore, tmp_path: Path) -> None:
    name = commit(store, note="stopped early", complete=False)
    again = ak.open(store.path)
    with again.model_folder(name) as folder:
        assert tree(folder) == WEIGHTS
    model = again.snapshot().model(name)
    assert list(again.snapshot().models) == [name]
    assert (model.name, model.plugin, model.partition) == (name, "gan", "70/15/15")
    assert (model.fitted_on, model.trained_from) == ((0, 1), "0" * 64)
    assert (model.complete, model.note, model.number) == (False, "stopped early", 2)
    assert (model.recipe, model.details) == (described()["recipe"], {"steps": 10})
    assert staged(tmp_path) == []
    found = ak.verify(again)
    assert (found.sound, found.models, json.loads(found.to_json())["models"]) == (True, 1, 1)
    assert str(found).endswith("2 commits, 1 shard, 60 rows, 1 model: sound")


def test_a_name_is_the_hash_of_the_hashes_of_the_files(store: DatasetStore) -> None:
    import hashlib

    hashes = {file: hashlib.sha256(content).hexdigest() for file, content in WEIGHTS.items()}
    assert commit(store) == digest_of(hashes)
    assert commit(store, {"other.json": WEIGHTS["settings.json"]}) != commit(
        store, {"settings.json": WEIGHTS["settings.json"]}
    )


def test_files_lie_where_plain_tools_find_them(tmp_path: Path) -> None:
    folder, packed = (toy_store(tmp_path / form) for form in FORMS)
    name = commit(folder)
    assert commit(packed) == name
    assert tree(folder.path / "models") == {f"{name}/{f}": c for f, c in WEIGHTS.items()}
    with h5py.File(packed.path) as file:
        assert {f: d[:].tobytes() for f, d in file[f"models/{name}"].items()} == WEIGHTS


def test_an_empty_file_and_a_large_one_are_kept(store: DatasetStore) -> None:
    files = {"none.json": b"", "much.safetensors": os.urandom(3_000_000)}
    name = commit(store, files)
    with store.model_folder(name) as folder:
        assert tree(folder) == files
    assert ak.verify(store).sound


def test_equal_weights_are_kept_once_and_the_newest_commit_describes_them(
    store: DatasetStore,
) -> None:
    name = commit(store, note="first")
    other = commit(store, {"a.json": b"1"})
    before = sum(len(content) for content in tree(store.path.parent).values())
    assert commit(store, note="second") == name
    after = sum(len(content) for content in tree(store.path.parent).values())
    assert after - before < len(WEIGHTS["generator.safetensors"])
    models = store.snapshot().models
    assert list(models) == [other, name]
    assert (models[name].note, models[name].number) == ("second", 4)
    assert ak.verify(store).sound


def test_asking_for_an_unknown_model_names_those_that_are_there(store: DatasetStore) -> None:
    with pytest.raises(StoreError, match=r"has no model 'x'; its models: none yet"):
        store.snapshot().model("x")
    name = commit(store)
    with pytest.raises(StoreError, match=f"has no model 'x'; its models: {name}"):
        store.snapshot().model("x")
    with pytest.raises(StoreError, match="has no model 'x'"), store.model_folder("x"):
        pass


@pytest.mark.parametrize(
    "name", ["weights.pt", "weights.pkl", ".hidden.json", "-a.json", "a b.json", "json", "é.json"]
)
def test_a_file_of_another_kind_is_the_fault_of_the_plugin(
    store: DatasetStore, tmp_path: Path, name: str
) -> None:
    folder = save(store, {**WEIGHTS, name: b"x"})
    with pytest.raises(PluginFailed, match=f"the plugin saved '{name}', which cannot be kept"):
        store.commit(lambda _: described(), model=folder)
    assert store.snapshot().number == 1
    assert staged(tmp_path) == []


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_what_is_no_plain_file_is_the_fault_of_the_plugin(
    store: DatasetStore, tmp_path: Path, kind: str
) -> None:
    folder = save(store)
    odd = folder / "odd.json"
    if kind == "folder":
        odd.mkdir()
        (odd / "a.json").write_text("{}")
    elif kind == "link":
        (tmp_path / "secret.json").write_text("{}")
        odd.symlink_to(tmp_path / "secret.json")
    else:
        os.mkfifo(odd)
    with pytest.raises(PluginFailed, match=r"'odd\.json', which cannot be kept"):
        store.commit(lambda _: described(), model=folder)
    assert staged(tmp_path) == []


def test_a_plugin_that_saves_nothing_is_told_so(store: DatasetStore, tmp_path: Path) -> None:
    with pytest.raises(PluginFailed, match="the plugin saved nothing"):
        store.commit(lambda _: described(), model=store.stage_model())
    assert staged(tmp_path) == []


def test_a_model_whose_commit_is_refused_leaves_nothing(
    store: DatasetStore, tmp_path: Path
) -> None:
    before = sorted(tree(tmp_path))

    def refuse(snapshot: Snapshot) -> Entry:
        raise StoreError("no")

    with pytest.raises(StoreError, match="no"):
        store.commit(refuse, model=save(store))
    assert sorted(tree(tmp_path)) == before
    assert store._form.model_names() == set()


def test_a_refused_commit_of_a_kept_model_leaves_the_model(
    store: DatasetStore, tmp_path: Path
) -> None:
    name = commit(store)

    def refuse(snapshot: Snapshot) -> Entry:
        raise StoreError("no")

    with pytest.raises(StoreError, match="no"):
        store.commit(refuse, model=save(store))
    with store.model_folder(name) as folder:
        assert tree(folder) == WEIGHTS
    assert staged(tmp_path) == []


def test_a_model_and_a_shard_may_come_with_one_commit(store: DatasetStore) -> None:
    writer = store.write_shard({"kind": "test"}, masks=False)
    writer.append(images(3))
    shard = writer.finish({"labels": np.zeros(3, np.int64)})
    store.commit(lambda _: {**described(), "shard": shard}, writer.path, model=save(store))
    found = ak.verify(ak.open(store.path))
    assert (found.sound, found.shards, found.rows, found.models) == (True, 2, 63, 1)


def test_a_run_takes_its_lineage_from_its_model(store: DatasetStore) -> None:
    train = np.flatnonzero(store.snapshot().parts(HOLDOUT) == 0).tolist()
    test = np.flatnonzero(store.snapshot().parts(HOLDOUT) == 2).tolist()
    good = commit(store, fitted_on=train)
    leak = commit(store, {"a.json": b"1"}, fitted_on=[*train, test[0]])
    sample(store, good, "good")
    snapshot = sample(store, leak, "leak")
    assert snapshot.run("good").model == good
    assert snapshot.run("good").fitted_on == tuple(train)
    assert snapshot.trainable("good", HOLDOUT).all()
    assert not snapshot.trainable("leak", HOLDOUT).any()
    assert len(snapshot.training(HOLDOUT, ["good", "leak"], real=False)) == 2
    assert ak.verify(store).sound


def test_reading_runs_opens_no_file_of_a_model(tmp_path: Path) -> None:
    import shutil

    store = toy_store(tmp_path / "a.store")
    name = commit(store)
    sample(store, name)
    shutil.rmtree(tmp_path / "a.store/models")
    snapshot = ak.open(store.path).snapshot()
    assert snapshot.run("gan").fitted_on == snapshot.model(name).fitted_on == (0, 1)


def test_a_later_commit_of_equal_weights_does_not_change_the_lineage_of_earlier_runs(
    store: DatasetStore,
) -> None:
    name = commit(store, fitted_on=[0, 1, 2])
    sample(store, name, "first")
    commit(store, fitted_on=[0])
    snapshot = sample(store, name, "second")
    assert snapshot.run("first").fitted_on == (0, 1, 2)
    assert snapshot.run("second").fitted_on == snapshot.model(name).fitted_on == (0,)


def test_a_run_of_a_model_that_no_commit_names_is_damage(store: DatasetStore) -> None:
    model = "7" * 64
    snapshot = sample(store, model)
    with pytest.raises(DamagedStore, match=f"run 'gan' is of model {model}, which no commit"):
        snapshot.runs  # noqa: B018
    assert problems(store) == [f"run gan: its model {model} is in no commit"]


def test_a_model_that_was_fitted_on_images_that_do_not_exist_is_found(
    store: DatasetStore,
) -> None:
    name = commit(store, fitted_on=[0, 60])
    assert problems(store) == [f"model {name}: was fitted on images that do not exist"]


@pytest.mark.parametrize("lacking", ["fitted_on", "complete"])
def test_an_entry_that_describes_no_model_is_damage(store: DatasetStore, lacking: str) -> None:
    entry = described()
    del entry[lacking]
    store.commit(lambda _: dict(entry), model=save(store))
    with pytest.raises(DamagedStore, match="commit 2 describes no model"):
        store.snapshot().models  # noqa: B018
    assert "commit 2 describes no model" in problems(store)[0]


def test_an_entry_whose_files_lie_elsewhere_is_damage(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    commit(store)
    path = tmp_path / "a.store/log/0000000002.json"
    entry = json.loads(path.read_bytes())
    entry.pop("digest")
    files = {"../../../secret.json": {"bytes": 1, "sha256": "0" * 64}}
    entry["model"] = {"name": digest_of({f: a["sha256"] for f, a in files.items()}), "files": files}
    path.write_bytes(encode_entry(entry))
    with pytest.raises(DamagedStore, match="its name is not that of its files"):
        ak.open(store.path).snapshot().models  # noqa: B018


@pytest.mark.parametrize("file", WEIGHTS)
def test_a_flipped_byte_is_never_lent_and_verify_names_it(store: DatasetStore, file: str) -> None:
    name = commit(store)
    flip(store, name, file)
    words = f"the bytes of file '{file}' are not those that were committed"
    with pytest.raises(DamagedStore, match=f"model {name}: {words}"), store.model_folder(name):
        pass
    assert problems(store) == [f"model {name} (gan): {words}"]
    with pytest.raises(DamagedStore, match=words):
        ak.pack(ak.open(store.path), store.path.parent / "packed.h5")
    with pytest.raises(DamagedStore, match=words):
        ak.unpack(ak.open(store.path), store.path.parent / "unpacked.store")
    assert sorted(p.name for p in store.path.parent.iterdir()) == [store.path.name]


def test_a_missing_file_is_never_lent_and_verify_names_it(store: DatasetStore) -> None:
    name = commit(store)
    drop(store, name, "settings.json")
    with pytest.raises(DamagedStore, match=r"'settings\.json' is missing"):
        store.model_folder(name).__enter__()
    assert problems(store) == [f"model {name} (gan): file 'settings.json' is missing"]


def test_a_file_that_does_not_belong_is_found(store: DatasetStore) -> None:
    name = commit(store)
    if store.form == "file":
        with h5py.File(store.path, "r+") as packed:
            packed["models"][name]["more.json"] = np.zeros(3, np.uint8)
    else:
        (store.path / "models" / name / "more.json").write_text("{}")
    with pytest.raises(DamagedStore, match=r"'more\.json' does not belong to it"):
        store.model_folder(name).__enter__()
    assert problems(store) == [f"model {name} (gan): file 'more.json' does not belong to it"]


def test_a_lost_model_is_named(store: DatasetStore) -> None:
    import shutil

    name = commit(store)
    if store.form == "file":
        with h5py.File(store.path, "r+") as packed:
            del packed["models"][name]
    else:
        shutil.rmtree(store.path / "models" / name)
    with pytest.raises(DamagedStore, match=f"has lost model {name}"):
        store.model_folder(name).__enter__()
    (problem,) = problems(store)
    assert f"has lost model {name}" in problem


def test_a_link_in_the_place_of_a_model_is_not_followed(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    name = commit(store)
    place = tmp_path / "a.store/models" / name
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedStore, match="has lost model"):
        store.model_folder(name).__enter__()
    place.unlink()
    (tmp_path / "elsewhere").rename(place)
    (place / "settings.json").rename(tmp_path / "settings.json")
    (place / "settings.json").symlink_to(tmp_path / "settings.json")
    with pytest.raises(DamagedStore, match=r"the bytes of file 'settings\.json'"):
        store.model_folder(name).__enter__()


@pytest.mark.parametrize("kind", ["soft", "external", "virtual", "chunked", "promised", "group"])
def test_only_plain_bytes_of_a_packed_store_are_lent(tmp_path: Path, kind: str) -> None:
    store = toy_store(tmp_path / "a.h5")
    name = commit(store)
    n = len(WEIGHTS["settings.json"])
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.frombuffer(WEIGHTS["settings.json"], np.uint8)
    with h5py.File(store.path, "r+") as packed:
        model = packed["models"][name]
        content = model["settings.json"][:]
        del model["settings.json"]
        if kind == "soft":
            packed["x"] = content
            model["settings.json"] = h5py.SoftLink("/x")
        elif kind == "external":
            model["settings.json"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((n,), np.uint8)
            layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "x", (n,))
            model.create_virtual_dataset("settings.json", layout)
        elif kind == "chunked":
            model.create_dataset("settings.json", data=content, chunks=(4,), compression="gzip")
        elif kind == "promised":  # a terabyte of zeros in a file of some kilobytes
            model.create_dataset("settings.json", (2**40,), np.uint8)
        else:
            model.create_group("settings.json")
    with pytest.raises(DamagedStore, match="it is not opened"):
        store.model_folder(name).__enter__()


def test_a_packed_model_behind_a_link_is_not_followed(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.h5")
    name = commit(store)
    for link in (f"models/{name}", "models"):
        with h5py.File(store.path, "r+") as packed:
            packed.move(link, "x")
            packed[link] = h5py.SoftLink("/x")
        with pytest.raises(DamagedStore, match="it is not opened"):
            store.model_folder(name).__enter__()
        with h5py.File(store.path, "r+") as packed:
            del packed[link]
            packed.move("x", link)


def test_pack_and_unpack_carry_models(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    name = commit(store, fitted_on=[3, 4])
    sample(store, name)
    other = commit(store, {"a.json": b"1"})
    commit(store, note="again")
    packed = ak.pack(store, tmp_path / "b.h5")
    back = ak.unpack(packed, tmp_path / "c.store")
    for copy in (packed, back):
        snapshot = copy.snapshot()
        assert list(snapshot.models.items()) == list(store.snapshot().models.items())
        assert snapshot.run("gan").fitted_on == (3, 4)
        with copy.model_folder(name) as folder:
            assert tree(folder) == WEIGHTS
        assert ak.verify(copy).models == 2
        assert ak.verify(copy).sound
    assert {path.parts[0] for path in map(Path, tree(back.path / "models"))} == {name, other}
    assert staged(tmp_path) == []
    assert len([e for e in back.snapshot().entries if e["kind"] == "model"]) == 3


def test_the_folder_that_is_lent_from_a_packed_store_goes_afterwards(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.h5")
    name = commit(store)
    with store.model_folder(name) as folder:
        assert folder.is_dir()
    assert not folder.exists()


def test_checkpoints_lie_beside_the_data_and_are_not_packed(store: DatasetStore) -> None:
    folder = store.side_folder("training")
    folder.mkdir()
    (folder / "step-100.safetensors").write_bytes(b"x")
    assert ak.verify(ak.open(store.path)).sound
    copy = ak.unpack if store.form == "file" else ak.pack
    target = store.path.parent / ("b.store" if store.form == "file" else "b.h5")
    assert not copy(ak.open(store.path), target).side_folder("training").exists()


def dead_name(suffix: str) -> str:
    """Return the name of something staged by a process that is gone."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    host, _, rest = staged_name(suffix).split(".", 2)
    return f"{host}.{child.pid}.{rest}"


def leave_for_dead(store: DatasetStore, files: dict[str, bytes]) -> str:
    """Leave a folder store as a writer does that dies between its model and its log entry."""
    from augkit.store.models import flush_model

    folder = save(store, files)
    about = flush_model(folder)
    entry = encode_entry({**described(), "model": about})
    (store.path / "tmp" / dead_name(".json")).write_bytes(entry)
    (store.path / "models").mkdir(exist_ok=True)
    folder.rename(store.path / "models" / about["name"])
    return str(about["name"])


def test_what_a_dead_process_was_saving_goes_with_the_next_writer(
    store: DatasetStore, tmp_path: Path
) -> None:
    folder = save(store)
    (folder / "half.json.tmp").write_bytes(b"x")
    prefix = "" if store.form == "folder" else folder.name.partition("~")[0] + "~"
    folder.rename(folder.with_name(prefix + dead_name(".model")))
    living = save(store)
    assert len(staged(tmp_path)) == 1
    assert tree(living) == WEIGHTS


def test_a_model_that_was_put_and_not_committed_goes_with_the_next_writer(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    kept = commit(store)
    orphan = leave_for_dead(store, {"a.json": b"1"})
    found = ak.verify(ak.open(store.path))
    assert (found.sound, found.uncommitted) == (True, [orphan])
    assert "1 leftover of killed commands, which nothing reads" in str(found)
    assert set(store.snapshot().models) == {kept}
    ak.augment(store, "flip", workers=1)
    assert store._form.model_names() == {kept}
    assert staged(tmp_path) == []


def test_a_half_removed_orphan_is_never_taken_for_the_model(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    name = leave_for_dead(store, WEIGHTS)
    (tmp_path / "a.store/models" / name / "settings.json").unlink()
    for path in (tmp_path / "a.store/tmp").iterdir():
        path.unlink()
    assert commit(store) == name
    assert ak.verify(ak.open(store.path)).sound


def test_a_sweep_leaves_alone_what_another_writer_is_about_to_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = toy_store(tmp_path / "a.store")
    other = ak.open(store.path)
    name = leave_for_dead(store, WEIGHTS)
    put = durable.put_if_absent
    swept = []

    def late(staged: Path, target: Path) -> bool:
        with contextlib.ExitStack() as patched:
            patched.callback(monkeypatch.setattr, durable, "put_if_absent", late)
            monkeypatch.setattr(durable, "put_if_absent", put)
            (store.path / "tmp" / dead_name(".json")).write_bytes(staged.read_bytes())
            other.stage_model().rmdir()
            swept.append(sorted(store._form.model_names()))
        return put(staged, target)

    monkeypatch.setattr(durable, "put_if_absent", late)
    assert commit(store) == name
    monkeypatch.undo()
    assert swept == [[name]]
    assert ak.verify(ak.open(store.path)).sound
    assert staged(tmp_path) == []


def test_a_writer_who_loses_the_race_for_a_number_keeps_its_model_and_its_shard(
    store: DatasetStore, tmp_path: Path
) -> None:
    other = ak.open(store.path)
    writer = store.write_shard({"kind": "test"}, masks=False)
    writer.append(images(3))
    shard = writer.finish({"labels": np.zeros(3, np.int64)})
    asked = []

    def describe(snapshot: Snapshot) -> Entry:
        asked.append(snapshot.number)
        assert ak.verify(other).uncommitted == []  # taken out again: a kill would lose track
        if len(asked) < 4:
            ak.augment(other, "zoom", seed=len(asked), workers=1)
        return {**described(), "shard": dict(shard)}

    store.commit(describe, writer.path, model=save(store))
    assert asked == [1, 2, 3, 4]
    assert ak.verify(ak.open(store.path)).sound
    assert staged(tmp_path) == []


def test_a_writer_who_gives_up_after_a_lost_race_leaves_nothing(
    store: DatasetStore, tmp_path: Path
) -> None:
    other = ak.open(store.path)

    def describe(snapshot: Snapshot) -> Entry:
        if snapshot.runs:
            raise StoreError("no longer")
        ak.augment(other, "zoom", workers=1)
        return described()

    with pytest.raises(StoreError, match="no longer"):
        store.commit(describe, model=save(store))
    assert store._form.model_names() == set()
    assert staged(tmp_path) == []


def _commit(path: Path, files: dict[str, bytes], note: str) -> None:
    commit(ak.open(path), files, note=note)


@pytest.mark.seconds
@pytest.mark.parametrize("form", FORMS)
def test_writers_of_equal_weights_at_once_all_succeed(tmp_path: Path, form: str) -> None:
    store = toy_store(tmp_path / form)
    kinds = [WEIGHTS, {"a.json": b"1"}]
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(4) as pool:
        pool.starmap(_commit, [(store.path, kinds[i % 2], str(i)) for i in range(16)])
    entries = store.snapshot().entries
    assert {e["note"] for e in entries if e["kind"] == "model"} == {str(i) for i in range(16)}
    assert len(store.snapshot().models) == 2
    assert ak.verify(ak.open(store.path)).sound
    assert staged(tmp_path) == []


def test_commits_that_fail_take_no_weights_from_those_that_succeed(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    store = toy_store(tmp_path / "a.store")
    commit(store, {"b.json": b"2"})

    def attempt(i: int) -> None:
        def describe(snapshot: Snapshot) -> Entry:
            if i % 3:
                raise StoreError("no")
            return described(note=str(i))

        mine = ak.open(store.path)
        if not i % 4:
            (store.path / "tmp" / dead_name(".json")).write_bytes(b"{}")
        with contextlib.suppress(StoreError):
            mine.commit(describe, model=save(mine))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(attempt, range(30)))
    notes = [e["note"] for e in store.snapshot().entries if e["kind"] == "model"]
    assert sorted(map(int, filter(None, notes))) == list(range(0, 30, 3))
    assert ak.verify(ak.open(store.path)).sound


def test_a_full_or_read_only_disk_is_a_plain_error(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import errno

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = save(store)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"cannot write to .*: No space left on device"):
        store.commit(lambda _: described(), model=folder)
    monkeypatch.undo()
    assert store.snapshot().models == {}
    assert staged(tmp_path) == []


def test_a_store_may_begin_with_a_model_that_is_being_saved(tmp_path: Path) -> None:
    store = DatasetStore.create(tmp_path / "a.store", height=24, width=32)
    folder = save(store)
    DatasetStore.create(tmp_path / "a.store", height=24, width=32)  # raises unless it is free
    (tmp_path / "a.store/tmp/mine.json").write_text("mine")
    with pytest.raises(StoreError, match="exists already"):
        DatasetStore.create(tmp_path / "a.store", height=24, width=32)
    assert tree(folder) == WEIGHTS
