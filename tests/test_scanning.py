"""One pass over a file gives its SHA-256 and the checksums of the rows in it."""

import hashlib
import zlib
from pathlib import Path

import numpy as np
import pytest

from augkit.store import scanning
from augkit.store.scanning import Rows, scan


@pytest.fixture(params=[64, 100, 2**20])
def block(request, monkeypatch) -> int:
    """Rows begin and end anywhere in what is read at once, or span several of them."""
    monkeypatch.setattr(scanning, "_BLOCK", request.param)
    return request.param


@pytest.fixture
def content() -> bytes:
    return np.random.default_rng(0).bytes(10_000)


def rows_in(content: bytes, offsets: list[int], size: int) -> Rows:
    sums = [zlib.crc32(content[at : at + size]) for at in offsets]
    return Rows(np.array(offsets), size, np.array(sums, np.uint32))


@pytest.mark.parametrize("start", [0, 512])
def test_the_hash_is_that_of_the_bytes_from_the_start_on(tmp_path, content, block, start):
    path = tmp_path / "a"
    path.write_bytes(content)
    assert scan(path, [], start) == (hashlib.sha256(content[start:]).hexdigest(), [])


def test_rows_are_found_wherever_they_lie_and_in_any_order(tmp_path, content, block):
    path = tmp_path / "a"
    tables = [
        rows_in(content, [9_000, 600, 751, 2_000], 150),
        rows_in(content, [], 3),
        rows_in(content, [9_999, 902, 7_000], 1),
    ]
    for damaged, expected in (
        ([], [[], [], []]),
        ([600], [[1], [], []]),
        ([900, 902], [[2], [], [1]]),
        ([9_149, 9_999, 751], [[0, 2], [], [0]]),
        ([599, 750, 901, 9_150], [[], [], []]),
    ):
        changed = bytearray(content)
        for at in damaged:
            changed[at] ^= 1
        path.write_bytes(changed)
        assert [rows.tolist() for rows in scan(path, tables, 512)[1]] == expected, damaged


def test_a_row_beyond_the_end_of_the_file_is_damaged(tmp_path, content, block):
    path = tmp_path / "a"
    rows = rows_in(content, [100, 9_900], 100)
    path.write_bytes(content[:9_950])
    assert scan(path, [rows])[1][0].tolist() == [1]


def test_rows_that_share_bytes_are_never_sound(tmp_path, content, block):
    path = tmp_path / "a"
    path.write_bytes(content)
    rows = rows_in(content, [100, 150, 400], 100)
    assert scan(path, [rows])[1][0].tolist() == [1]


def test_what_cannot_be_opened_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        scan(tmp_path / "none", [])
