"""Drafts: a run of a model that is killed goes on with the blocks that it had made."""

import hashlib
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from learners import Parrot
from toys import offer, toy_store

import augkit as ak
from augkit.drafts import SUFFIX, Draft
from augkit.store import DatasetStore

pytestmark = pytest.mark.seconds

BLOCKS = [
    {"images": np.full((3, 4, 4, 1), i, np.uint8), "score": np.array([0.5, i, np.nan])}
    for i in range(4)
]


def kept(path: Path) -> list[int]:
    with Draft(path) as draft:
        return [int(block["images"].max()) for block in draft.read()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Draft(tmp_path / "training/a.draft") as draft:
        assert list(draft.read()) == []
        for block in BLOCKS:
            draft.keep(block)
    return tmp_path / "training/a.draft"


def test_blocks_come_back_in_order_and_as_they_were(path):
    with Draft(path) as draft:
        found = list(draft.read())
    for block, expected in zip(found, BLOCKS, strict=True):
        assert block.keys() == expected.keys()
        for name in block:
            np.testing.assert_array_equal(block[name], expected[name])
            assert block[name].dtype == expected[name].dtype


def test_a_block_that_was_cut_off_is_left_out_wherever_the_cut_is(path):
    content, size = path.read_bytes(), path.stat().st_size // 4
    for cut in range(2 * size, 3 * size, 37):
        path.write_bytes(content[:cut])
        assert kept(path) == [0, 1]
        assert path.stat().st_size == 2 * size, "what is added next follows the last whole block"


def test_a_flipped_byte_ends_the_draft_before_its_block(path):
    content, size = path.read_bytes(), path.stat().st_size // 4
    for at in range(size, 2 * size, 41):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert kept(path) == [0]


def compressed(block: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **block)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", b"PK\5\6" + bytes(18), compressed({"images": np.zeros(10**7)})],
    ids=["empty", "text", "no arrays", "bomb"],
)
def test_a_record_that_somebody_else_wrote_ends_the_draft(path, content):
    """Its digest fits; the block of no arrays is one that fits no run."""
    head = len(content).to_bytes(8, "little") + hashlib.sha256(content).digest()
    path.write_bytes(path.read_bytes() + head + content)
    with Draft(path) as draft:
        found = list(draft.read(lambda block: "images" in block))
    assert len(found) == 4


def test_what_is_made_again_follows_what_is_whole(path):
    path.write_bytes(path.read_bytes()[:-1])
    with Draft(path) as draft:
        assert len(list(draft.read())) == 3
        draft.keep(BLOCKS[0])
    assert kept(path) == [0, 1, 2, 0]


def test_two_commands_do_not_write_into_one_draft(path):
    with Draft(path) as first, Draft(path) as second:
        assert list(second.read()) == []
        second.keep(BLOCKS[0])
        assert len(list(first.read())) == 4
    assert kept(path) == [0, 1, 2, 3]


def test_a_draft_with_another_name_elsewhere_is_neither_read_nor_written(path):
    outside = path.parent.parent / "letter.txt"
    outside.write_text("mine")
    path.unlink()
    os.link(outside, path)
    with Draft(path) as draft:
        assert list(draft.read()) == []
        draft.keep(BLOCKS[0])
    assert outside.read_text() == "mine"


def test_without_a_place_nothing_is_kept():
    with Draft(None) as draft:
        draft.keep(BLOCKS[0])
        assert list(draft.read()) == []


def test_a_disk_that_refuses_costs_the_draft_and_nothing_else(path, monkeypatch, caplog):
    (path.parent / "file").write_text("")
    with Draft(path.parent / "file/b.draft") as draft:
        draft.keep(BLOCKS[0])
    assert "the images made so far are not kept" in caplog.text


ROWS, BLOCK = 30, 5


@pytest.fixture
def applied(monkeypatch) -> Iterator[list[int]]:
    """Count the calls of apply() for whole blocks; one image at once is drawn again."""
    offer(monkeypatch, Parrot)
    found, apply = [], Parrot.apply

    def counted(self, images, labels, params):
        found.extend([1] if len(labels) == BLOCK else [])
        return apply(self, images, labels, params)

    monkeypatch.setattr(Parrot, "apply", counted)
    return found


def store_in(folder: Path, form: str) -> DatasetStore:
    folder.mkdir()
    store = toy_store(folder / form, 12, shape=(40, 48, 1))
    ak.fit(store, "parrot")
    return store


def augment(store, reject):
    return ak.augment(store, "parrot", n=10, reject_copies=reject, workers=1, block=BLOCK)


def kill(store, reject: bool, calls: int, applied: list[int]) -> None:
    """Run `augment` in a child process that kills itself after so many calls of apply()."""
    pid = os.fork()
    if pid == 0:
        apply, before = Parrot.apply, len(applied)

        def deadly(self, images, labels, params):
            if len(labels) == BLOCK and len(applied) - before == calls:
                os.kill(os.getpid(), signal.SIGKILL)
            return apply(self, images, labels, params)

        Parrot.apply = deadly
        augment(store, reject)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize(("form", "reject"), [("a.store", False), ("a.h5", True)])
def test_a_killed_run_repeats_one_block_at_the_most(tmp_path, applied, form, reject):
    whole = store_in(tmp_path / "whole", form)
    applied.clear()
    augment(whole, reject)
    begun = len(applied) - ROWS // BLOCK  # the first block of a process is made twice, to compare
    store = store_in(tmp_path / "killed", form)
    kill(store, reject, begun + 2, applied)
    kill(store, reject, begun + 1, applied)
    (draft,) = tmp_path.rglob(f"*{SUFFIX}")
    done = len(kept(draft))
    assert done == 3, "each of the two lost the block that it had on its way, and no other"
    applied.clear()
    assert augment(store, reject).made
    assert len(applied) == begun + ROWS // BLOCK - done
    a, b = (s.snapshot() for s in (whole, store))
    np.testing.assert_array_equal(a.inspect("parrot")[:], b.inspect("parrot")[:])
    np.testing.assert_array_equal(a.params("parrot"), b.params("parrot"))
    assert a.run("parrot").memorisation == b.run("parrot").memorisation
    assert not draft.exists(), "what is committed has no draft"
    assert ak.verify(store).sound


LIES = {
    "another size": lambda b: {**b, "images": b["images"][:, 1:]},
    "another type": lambda b: {**b, "images": b["images"].astype(np.float32)},
    "no such image": lambda b: {**b, "index": b["index"] + 10**6},
    "another plan": lambda b: {**b, "params": np.zeros(len(b["index"]))},
    "no number": lambda b: {**b, "score": np.full_like(b["score"], np.nan)},
    "more rows": lambda b: {k: np.concatenate([v] * 9) if v.ndim else v for k, v in b.items()},
    "no rows": lambda b: {k: v[:0] if v.ndim else v for k, v in b.items()},
    "no images": lambda b: {"index": b["index"]},
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_blocks_that_are_none_of_this_run_are_made_anew(tmp_path, applied):
    store = store_in(tmp_path / "a", "a.store")
    kill(store, False, 4, applied)
    (draft,) = store.side_folder("training").rglob(f"*{SUFFIX}")
    with Draft(draft) as opened:
        blocks = list(opened.read())
    whole = augment(store, False).run
    expected = store.snapshot().inspect(whole)[:]
    for lie in LIES.values():
        ak.retract(store, whole)
        draft.unlink(missing_ok=True)
        with Draft(draft) as opened:
            for block in blocks[:-1]:
                opened.keep(block)
            opened.keep(lie(blocks[-1]))
        assert augment(store, False).made
        np.testing.assert_array_equal(store.snapshot().inspect(whole)[:], expected)
