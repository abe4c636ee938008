"""A store of a stranger is looked at before it is read: nothing in it reaches out of it."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from commands import command
from hostile import read_everything, resign, shard_of, watched
from toys import toy_store

import augkit as ak
from augkit.errors import AugkitError, DamagedStore, FormatError
from augkit.store import entries, screening, structure

needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs inotify")
N = 15


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file outside of the store, which no test may have opened or changed."""
    path = tmp_path / "canary.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(4096, dtype=np.uint8)
        file["labels"] = np.zeros(N, np.int64)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    made = toy_store(tmp_path / "a.store", 5)
    made.close()
    return tmp_path / "a.store"


def replaced(name: str, **how: object) -> Callable[[h5py.File, Path], None]:
    """Return what puts another data set in the place of a column."""

    def change(file: h5py.File, canary: Path) -> None:
        del file[name]
        file.create_dataset(name, **how)

    return change


def external_storage(file: h5py.File, canary: Path) -> None:
    del file["labels"]
    file.create_dataset("labels", (N,), np.int64, external=[(str(canary), 0, 8 * N)])


def external_storage_nearby(file: h5py.File, canary: Path) -> None:
    del file["labels"]
    file.create_dataset("labels", (N,), np.int64, external=[("../../canary.h5", 0, 8 * N)])


def external_link(file: h5py.File, canary: Path) -> None:
    del file["labels"]
    file["labels"] = h5py.ExternalLink(str(canary), "/labels")


def soft_link(file: h5py.File, canary: Path) -> None:
    file.move("labels", "other")
    file["labels"] = h5py.SoftLink("/other")


def loop(file: h5py.File, canary: Path) -> None:
    file["again"] = file["/"]


def soft_loop(file: h5py.File, canary: Path) -> None:
    file["again"] = h5py.SoftLink("/again")


def virtual(file: h5py.File, canary: Path) -> None:
    del file["labels"]
    layout = h5py.VirtualLayout((N,), np.int64)
    layout[:] = h5py.VirtualSource(str(canary), "labels", (N,))
    file.create_virtual_dataset("labels", layout)


def unlimited_virtual(file: h5py.File, canary: Path) -> None:
    """HDF5 opens the sources of such a data set when it is asked for its shape."""
    del file["labels"]
    layout = h5py.VirtualLayout((N,), np.int64, maxshape=(None,))
    source = h5py.VirtualSource(str(canary), "labels", (N,), maxshape=(None,))
    layout[0 : h5py.h5s.UNLIMITED] = source[0 : h5py.h5s.UNLIMITED]
    file.create_virtual_dataset("labels", layout)


def text_of_any_length(file: h5py.File, canary: Path) -> None:
    del file["key"]
    file.create_dataset("key", data=["x"] * N, dtype=h5py.string_dtype())


def numbers_of_any_length(file: h5py.File, canary: Path) -> None:
    file.create_dataset("more", (N,), h5py.vlen_dtype(np.int32))


def references(file: h5py.File, canary: Path) -> None:
    file.create_dataset("more", (N,), h5py.ref_dtype)


def foreign_filter(file: h5py.File, canary: Path) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((N,))
    plan.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((N,))
    h5py.h5d.create(file.id, b"more", h5py.h5t.NATIVE_INT64, space, plan)


def list_attribute(file: h5py.File, canary: Path) -> None:
    file.attrs["classes"] = np.arange(9)


def attributes_of_a_column(file: h5py.File, canary: Path) -> None:
    file["labels"].attrs["x"] = 1


def committed_type(file: h5py.File, canary: Path) -> None:
    file["more"] = np.dtype(np.int32)


def odd_name(file: h5py.File, canary: Path) -> None:
    file.create_dataset("..\\..\\x", data=np.zeros(N))


def many_columns(file: h5py.File, canary: Path) -> None:
    for i in range(200):
        file.create_dataset(f"c{i}", data=np.zeros(N, np.int8))


SHAPE = (N, 24, 32, 1)
HOSTILE = {
    "external storage": (external_storage, "in other files"),
    "external storage beside": (external_storage_nearby, "in other files"),
    "external link": (external_link, "a link to another file"),
    "soft link": (soft_link, "a soft link"),
    "loop": (loop, "no data set"),
    "soft loop": (soft_loop, "a soft link"),
    "virtual": (virtual, "virtual"),
    "unlimited virtual": (unlimited_virtual, "virtual"),
    "text of any length": (text_of_any_length, "variable length"),
    "numbers of any length": (numbers_of_any_length, "variable length"),
    "references": (references, "refers to other objects"),
    "shape bomb": (
        replaced("images", shape=(2**33, *SHAPE[1:]), dtype=np.uint8, chunks=(1, *SHAPE[1:])),
        "claims 6597069766656 bytes and holds 0",
    ),
    "shape bomb without chunks": (
        replaced("labels", shape=(2**42,), dtype=np.int64),
        "claims 35184372088832 bytes and holds 0",
    ),
    "ratio bomb": (
        replaced(
            "images",
            data=np.zeros((4000, *SHAPE[1:]), np.uint8),
            chunks=(1000, *SHAPE[1:]),
            compression="gzip",
        ),
        "compressed or filtered",
    ),
    "foreign filter": (foreign_filter, "compressed or filtered"),
    "chunk bomb": (
        replaced("images", shape=SHAPE, dtype=np.uint8, chunks=(2**25, *SHAPE[1:]),
                 maxshape=(None, *SHAPE[1:])),
        "holds",
    ),
    "wide values": (replaced("labels", data=np.zeros(N, "S60000")), "values of type"),
    "list in an attribute": (list_attribute, "no single text or number"),
    "attributes of a column": (attributes_of_a_column, "has attributes"),
    "committed type": (committed_type, "no data set"),
    "odd name": (odd_name, "belongs to no store"),
    "many columns": (many_columns, "belongs to no store"),
}  # fmt: skip


@needs_linux
@pytest.mark.parametrize("change, words", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_shard_is_refused_and_nothing_outside_is_touched(
    store: Path, canary: Path, change: Callable[[h5py.File, Path], None], words: str
) -> None:
    with h5py.File(shard_of(store), "r+") as file:
        change(file, canary)
    resign(store)
    with watched(canary) as events, pytest.raises(DamagedStore, match="it is not opened") as error:
        read_everything(store)
    assert words in str(error.value)
    assert events == []


@needs_linux
@pytest.mark.parametrize("change, words", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_packed_store_is_refused(
    tmp_path: Path, canary: Path, change: Callable[[h5py.Group, Path], None], words: str
) -> None:
    path = tmp_path / "a.h5"
    toy_store(path, 5).close()
    with h5py.File(path, "r+") as file:
        (name,) = file["shards"]
        change(file["shards"][name], canary)
    with watched(canary) as events:
        for act in (read_everything, lambda p: ak.unpack(ak.open(p), tmp_path / "b.store")):
            with pytest.raises(DamagedStore, match="it is not opened") as error:
                act(path)
            assert words in str(error.value)
    assert events == []
    assert not (tmp_path / "b.store").exists()


def test_what_these_tests_do_is_not_refused_where_it_is_harmless(store: Path) -> None:
    with h5py.File(shard_of(store), "r+") as file:
        labels = file["labels"][:]
        del file["labels"]
        file["labels"] = labels
        file.create_dataset("more", data=np.zeros(N, [("a", "f4"), ("b", "i8", (2,))]))
        file.attrs["note"] = "what a later version may write"
    resign(store)
    read_everything(store)
    assert ak.verify(ak.open(store)).sound


def test_names_that_a_terminal_would_obey_are_shown_as_text(tmp_path: Path) -> None:
    toy_store(tmp_path / "a.store", 5, classes=("a\x1b[2J\x07", "b\x9b2J")).close()
    for line in ("info", "augment --plugin flip", "verify", "preview", "purge --group 3"):
        ended = command(*line.split(), "--store", "a.store", cwd=tmp_path)
        assert ended.code == 0, ended.err
        assert not set("\x1b\x07\x9b") & set(ended.out + ended.err)
    assert "b\N{REPLACEMENT CHARACTER}2J" in command("info", cwd=tmp_path).out


@needs_linux
@pytest.mark.parametrize("name", ["results", "outcomes", "cache", "training"])
def test_what_lies_beside_a_packed_store_may_not_lead_elsewhere(
    tmp_path: Path, canary: Path, name: str
) -> None:
    toy_store(tmp_path / "a.h5", 5).close()
    away = tmp_path / "away"
    away.mkdir()
    beside = tmp_path / f".a.h5.{name}"
    beside.symlink_to(away)
    with pytest.raises(DamagedStore, match=" is a link: augkit"):
        ak.open(tmp_path / "a.h5").side_folder(name)
    beside.unlink()
    beside.mkdir()
    (beside / "x.json").symlink_to(canary)
    with watched(canary) as events, pytest.raises(DamagedStore, match=" is a link: augkit"):
        ak.open(tmp_path / "a.h5").side_folder(name)
    assert not any(away.iterdir()) and events == []


@needs_linux
def test_the_canary_would_have_been_seen(canary: Path) -> None:
    with watched(canary) as events:
        canary.read_bytes()
    assert events


def circular(path: Path) -> None:
    """Let each node of the index of images be its own child."""
    content = bytearray(path.read_bytes())
    at = -1
    while (at := content.find(b"TREE\1", at + 1)) >= 0:  # of chunks, not of names
        content[at + 5] = 1  # its level: its children are nodes
        count = int.from_bytes(content[at + 6 : at + 8], "little")
        for child in range(at + 24 + 48, at + 24 + 56 * count, 56):
            content[child : child + 8] = at.to_bytes(8, "little")
    path.write_bytes(content)


def test_a_file_that_crashes_the_library_is_refused(store: Path) -> None:
    circular(shard_of(store))
    resign(store, blind=True)
    with pytest.raises(DamagedStore, match="reading it ends the process with signal 11: it is not"):
        read_everything(store)


@pytest.mark.parametrize("name", ["store.json", "log/0000000001.json", "shard", "tmp/x.json"])
@pytest.mark.parametrize("what", ["link", "pipe", "device"])
def test_links_pipes_and_devices_in_a_store_are_refused(
    store: Path, canary: Path, name: str, what: str
) -> None:
    path = shard_of(store) if name == "shard" else store / name
    if path.exists():
        shutil.move(path, canary.with_name("moved"))
    target = canary.with_name("moved") if canary.with_name("moved").exists() else canary
    if what == "link":
        path.symlink_to(target)
    elif what == "pipe":
        os.mkfifo(path)
    else:
        try:
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero never ends
        except PermissionError:
            pytest.skip("only root makes devices")
    with watched(target) as events, pytest.raises(AugkitError):
        read_everything(store)
    assert events == []


@pytest.mark.parametrize("name", ["log", "shards", "models", "tmp", "results", "cache", "training"])
def test_a_folder_of_a_store_that_lies_elsewhere_is_neither_read_nor_written(
    store: Path, tmp_path: Path, name: str
) -> None:
    away = tmp_path / "away"
    if (store / name).exists():
        (store / name).rename(away)
    else:
        away.mkdir()
    (store / name).symlink_to(away)
    before = sorted(away.rglob("*"))
    with pytest.raises(DamagedStore, match=f"{name} is a link"):
        ak.augment(store, "flip")
    assert sorted(away.rglob("*")) == before


def test_a_pipe_with_the_name_of_a_packed_store_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.h5")
    ended = command("info", "--store", "a.h5", cwd=tmp_path)
    assert (ended.code, "Traceback" in ended.err) == (2, False)
    assert "a.h5 is no augkit store" in ended.err


ENTRIES = {
    "a shard elsewhere": lambda e: e["shard"].update(name="../../canary"),
    "an absolute shard": lambda e: e["shard"].update(name="/etc/passwd"),
    "a shard without name": lambda e: e["shard"].update(name=None),
    "rows without end": lambda e: e["shard"].update(rows=2**62),
    "negative rows": lambda e: e["shard"].update(rows=-1),
    "no shard": lambda e: e.pop("shard"),
    "no kind": lambda e: e.pop("kind"),
    "another class": lambda e: e.update(shard_classes=["other", "b", "c"]),
    "classes twice": lambda e: e.update(classes=["a", "a"], shard_classes=[]),
    "classes of numbers": lambda e: e.update(classes=[1, 2, 3], shard_classes=[1]),
    "groups of text": lambda e: e["grouping"].update(groups=["a"] * N),
    "groups without end": lambda e: e["grouping"].update(groups=[10**400] * N),
    "a fold that is none": lambda e: e["grouping"].update(folds=[20] * N),
    "groups that are no list": lambda e: e.update(grouping=7),
    "another policy": lambda e: e["grouping"].update(conflicts="ask"),
    "a list": lambda e: e.update(shard=[[]]),
}


@pytest.mark.parametrize("edit", ENTRIES.values(), ids=ENTRIES)
def test_a_log_entry_that_says_what_cannot_be_is_refused(store: Path, edit) -> None:
    resign(store, lambda number, entry: edit(entry) and None)
    with pytest.raises(DamagedStore, match="entry 1 of the log cannot be used"):
        read_everything(store)


def retyped(column: str, kind: str) -> Callable[[h5py.File], None]:
    """Return what gives a column of a shard another type; the values stay, as far as they can."""

    def change(file: h5py.File) -> None:
        values = file[column][:].astype(kind)
        del file[column]
        file[column] = values

    return change


def reshaped(column: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        values = file[column][:, :1]
        del file[column]
        file[column] = values

    return change


def far(file: h5py.File) -> None:
    file["parent"][0] = 2**62


def said(value: object) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.__setitem__("x", value)


@pytest.mark.parametrize("height", ["1e400", "Infinity", "[" * 9999, "9" * 5000, "NaN", "null"])
def test_a_description_that_says_what_cannot_be_is_refused(store: Path, height: str) -> None:
    image = f'"channels":1,"dtype":"uint8","height":{height},"width":32'
    (store / "store.json").write_text(f'{{"format":1,"image":{{{image}}}}}')
    with pytest.raises(FormatError, match=r"no augkit store|not say what size"):
        ak.open(store)


ODD_COLUMNS = {
    "labels of truth": (1, retyped("labels", "?"), "labels that are no whole numbers"),
    "labels with fractions": (1, retyped("labels", "f8"), "labels that are no whole numbers"),
    "labels of a run": (2, retyped("labels", "?"), "labels that are no whole numbers"),
    "parents of truth": (2, retyped("parent", "?"), "no whole numbers: bool|images that do not"),
    "parents with fractions": (2, retyped("parent", "f8"), "that are no whole numbers: float64"),
    "parents far away": (2, far, "parent does not exist|images that do not exist"),
    "short hashes": (1, reshaped("source_sha256"), "has hashes that are none"),
    "hashes of numbers": (1, retyped("source_sha256", "f4"), "has hashes that are none"),
    "bytes that are no text": (1, said(np.bytes_(b"\xff")), "what augkit never writes"),
    "a record": (1, said(np.zeros((), [("a", "i4")])), "what augkit never writes"),
}


@pytest.mark.parametrize("number, change, words", ODD_COLUMNS.values(), ids=ODD_COLUMNS)
def test_a_column_of_another_type_is_a_named_error(store: Path, number: int, change, words) -> None:
    """What can be read as HDF5 need not be what a column is used for."""
    ak.augment(store, "flip", workers=1)
    names = [json.loads(p.read_bytes())["shard"]["name"] for p in sorted((store / "log").iterdir())]
    with h5py.File(store / "shards" / f"{names[number - 1]}.h5", "r+") as file:
        change(file)
    resign(store)

    def use() -> None:
        opened = ak.open(store)
        ak.info(opened)
        opened.snapshot().training(ak.HOLDOUT, ["flip"])
        ak.purge(opened, opened.snapshot().real.keys[opened.snapshot().parts(ak.HOLDOUT) == 2][0])

    with pytest.raises(DamagedStore, match=words):
        use()


RUNS = {
    "a seed below 0": lambda e: e["recipe"].update(seed=-5),
    "an amount above its rows": lambda e: e["recipe"].update(amount={"per_class": 2**31 - 1}),
    "a total above its rows": lambda e: e["recipe"].update(amount={"total": 10**6}),
    "an amount of nothing": lambda e: e["recipe"].update(amount={"per_class": None}),
    "an amount of another kind": lambda e: e["recipe"].update(amount={"n": 1}),
    "two amounts": lambda e: e["recipe"].update(amount={"per_class": 1, "total": 3}),
    "code of no package": lambda e: e.update(code=[{}]),
    "code without a version": lambda e: e.update(code=[{"distribution": "x", "record": ""}]),
    "counts of no rows": lambda e: e.update(by_class=[]),
    "counts of other rows": lambda e: e.update(by_class=[1, 1, 1]),
    "no rows": lambda e: (e["shard"].update(rows=0), e.update(by_class=[0, 0, 0])),
    "copies of other classes": lambda e: e.update(
        memorisation={"threshold": 0.5, "copies": 0, "by_class": [], "redrawn": 0}
    ),
}


@pytest.mark.parametrize("edit", RUNS.values(), ids=RUNS)
def test_a_run_that_says_what_cannot_be_is_refused(store: Path, edit) -> None:
    """Each of these was once followed, or looked up, without a look at the rows."""
    ak.augment(store, "flip", workers=1)
    resign(store, lambda number, entry: edit(entry) and None if number == 2 else None)
    with pytest.raises(DamagedStore, match="entry 2 of the log cannot be used"):
        ak.open(store).snapshot()


def test_a_store_of_more_classes_than_images_is_refused(store: Path) -> None:
    more = [f"class {i}" for i in range(100)]
    resign(store, lambda number, entry: entry["classes"].extend(more))
    with pytest.raises(DamagedStore, match="it has more classes than images"):
        ak.open(store).snapshot()


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"a":' * 50_000, b"[" + b"[]," * 5_000_000, b" " * 2**26, b"9" * 10**6],
    ids=["deep", "deep objects", "many lists", "large", "a long number"],
)
def test_a_log_entry_that_would_fill_the_memory_is_refused(store: Path, content: bytes) -> None:
    (store / "log/0000000001.json").write_bytes(content)
    with pytest.raises(DamagedStore):
        read_everything(store)


def test_long_keys_of_one_shard_do_not_blow_up_those_of_all() -> None:
    from augkit.store.reading import _joined

    long, many = np.array(["x" * 4000]), np.full(70_000, "y")
    with pytest.raises(DamagedStore, match="would take 1120016000 bytes of memory"):
        _joined([long, many])
    assert len(_joined([long, many[:9]])) == 10


def test_parent_and_child_agree_on_the_size_of_an_entry() -> None:
    assert structure.LARGEST_ENTRY == entries.LARGEST_ENTRY


def test_a_sparse_file_that_claims_a_terabyte_is_refused(store: Path) -> None:
    os.truncate(shard_of(store), 2**40)
    with pytest.raises(DamagedStore, match="claims 1099511627776 bytes and holds"):
        ak.open(store).snapshot().real  # noqa: B018


def test_a_child_gets_time_for_every_image(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "many.h5"
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", (20_000, 8, 8, 1), np.uint8, chunks=(1, 8, 8, 1))
        for row in range(len(images)):
            images.id.write_direct_chunk((row, 0, 0, 0), bytes(64))
    given = []
    monkeypatch.setattr(structure, "_limit_time", lambda seconds: given.append(("first", seconds)))
    monkeypatch.setattr(structure, "_allow", lambda seconds: given.append(("more", seconds)))
    structure.check_file(str(path), "shard")
    held = 512 * path.stat().st_blocks
    assert given == [("first", 1.5 + held / 400e6), ("more", 1.0), ("first", 0)]


def test_time_that_is_allowed_adds_up() -> None:
    code = (
        "import runpy, signal, sys; child = runpy.run_path(sys.argv[1], run_name='child');"
        "child['_limit_time'](3); child['_allow'](40.5);"
        "print(round(signal.getitimer(signal.ITIMER_PROF)[0]))"
    )
    line = [sys.executable, "-c", code, structure.__file__]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("43", "44")


def test_a_file_of_tiny_chunks_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "tiny.h5", "w") as file:
        file.create_dataset("images", data=np.zeros((9, 4, 4, 1), np.uint8), chunks=(1, 4, 4, 1))
    with pytest.raises(structure.Fault, match="has chunks of 16 bytes"):
        structure.check_file(str(tmp_path / "tiny.h5"), "shard")


# -- what is known ---------------------------------------------------------------------------------


def children_of(code: str, tmp_path: Path, **environment: str) -> int:
    """Return how many files were examined in a child by a new process that runs this code."""
    counted = (
        "import augkit as ak\nfrom augkit.store import screening\nn = []\n"
        "ask = screening._ask\n"
        "screening._ask = lambda *a: n.append(1) or ask(*a)\n"
        f"{code}\nprint(len(n))"
    )
    done = subprocess.run(
        [sys.executable, "-c", counted],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return int(done.stdout.split()[-1])


@pytest.mark.seconds
@pytest.mark.parametrize("name", ["a.store", "a.h5"])
def test_what_this_user_wrote_or_examined_is_opened_without_a_child(
    tmp_path: Path, name: str
) -> None:
    store = toy_store(tmp_path / name, 5)
    ak.augment(store, "flip", workers=1)
    read = f"s = ak.open('{name}').snapshot(); s.real; s.inspect('flip')[:]"
    assert children_of(read, tmp_path) == 0
    files = 1 if name == "a.h5" else 2
    elsewhere = {"AUGKIT_EXAMINED": str(tmp_path / "known")}
    assert children_of(read, tmp_path, **elsewhere) == files, "another user knows none of it"
    assert children_of(read, tmp_path, **elsewhere) == 0
    assert children_of(read, tmp_path, AUGKIT_EXAMINED="/dev/null/no") == files
    assert children_of(read, tmp_path, AUGKIT_EXAMINED="/nowhere/x", AUGKIT_EXAMINE="never") == 0


def test_a_file_that_was_changed_is_examined_again(tmp_path: Path) -> None:
    toy_store(tmp_path / "a.store", 5)
    (path,) = (tmp_path / "a.store/shards").iterdir()
    about = path.stat()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))  # the time of its change stays
    assert children_of("ak.open('a.store').snapshot().real", tmp_path) == 1


def test_a_copy_is_examined_again(tmp_path: Path) -> None:
    toy_store(tmp_path / "a.store", 5)
    shutil.copytree(tmp_path / "a.store", tmp_path / "b.store")
    assert children_of("ak.open('b.store').snapshot().real", tmp_path) == 1


def test_the_record_does_not_grow_without_end(tmp_path: Path, monkeypatch) -> None:
    known = tmp_path / "known"
    known.write_text("".join(f"{i:032x}\n" for i in range(40_000)))
    monkeypatch.setenv("AUGKIT_EXAMINED", str(known))
    toy_store(tmp_path / "a.store", 5)
    lines = known.read_text().split()
    assert 20_000 <= len(lines) <= 20_002
    assert lines[-2] == f"{39_999:032x}"
    assert [p.name for p in tmp_path.glob("known*")] == ["known"]


def test_a_child_that_is_gone_is_replaced(store: Path, tmp_path: Path) -> None:
    for name in ("b.store", "c.store"):
        shutil.copytree(store, tmp_path / name)
        ak.open(tmp_path / name).snapshot().real  # noqa: B018
        screening._examiner._child.kill()
        screening._examiner._child.wait()


def test_the_child_imports_nothing_of_augkit_and_writes_no_file(tmp_path: Path) -> None:
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1], run_name='child');"
        "print([m for m in sys.modules if m.split('.')[0] == 'augkit'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, structure.__file__], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1], run_name='child')['_confine']();"
        "open('x', 'wb', 0).write(b'written')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, structure.__file__], capture_output=True, cwd=tmp_path
    )
    assert done.returncode != 0
    assert (tmp_path / "x").read_bytes() == b""


SPENT = """
import resource, subprocess, sys
run = [sys.executable, "-c", "from augkit_cli.main import run; run()", *sys.argv[1:]]
code = subprocess.run(run, stdout=subprocess.DEVNULL).returncode
spent = resource.getrusage(resource.RUSAGE_CHILDREN)
print(code, spent.ru_utime + spent.ru_stime, spent.ru_maxrss)
"""
"""Runs augkit from a small process: what a large one begins starts with the peak of its parent."""


@pytest.mark.slow
@pytest.mark.parametrize("change, words", HOSTILE.values(), ids=HOSTILE)
def test_a_refusal_takes_no_time_and_no_memory(
    store: Path, canary: Path, tmp_path: Path, change: Callable[[h5py.File, Path], None], words: str
) -> None:
    with h5py.File(shard_of(store), "r+") as file:
        change(file, canary)
    resign(store)
    done = subprocess.run(
        [sys.executable, "-c", SPENT, "info", "--store", str(store)], capture_output=True, text=True
    )
    code, seconds, kilobytes = done.stdout.split()
    assert code == "2" and done.stderr.startswith("augkit: ")
    assert "Traceback" not in done.stderr
    assert float(seconds) < 2
    assert int(kilobytes) < 512 * 1024
