"""Keys and groups as pseudonyms: no name in the store, the same name the same pseudonym."""

import hashlib
import hmac
import stat
from pathlib import Path

import numpy as np
import pytest
from commands import command, works
from PIL import Image
from toys import images, tree

import augkit as ak
from augkit.errors import InputError, OptionError
from augkit.ingestion.pseudonyms import Naming

NAME, OTHER = "Quill_Ottoline_1937", "Vane_Hesper_1951"


def pictures(root: Path, n: int = 6) -> Path:
    """Write images whose names name people; a manifest groups them by people as well."""
    rows = ["image,class,group"]
    for i in range(n):
        path = root / "ab"[i % 2] / f"{(NAME, OTHER)[i % 3 == 0]}-{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images(1, i)[0, ..., 0]).save(path)
        rows.append(f"{path.relative_to(root)},{'ab'[i % 2]},{NAME} {i}")
    (root / "people.csv").write_text("\n".join(rows))
    return root


def bytes_of(path: Path) -> bytes:
    if path.is_dir():
        found = tree(path)
        return b"".join(found.values()) + "".join(found).encode()
    return path.read_bytes()


@pytest.mark.seconds
@pytest.mark.parametrize("store", ["t.store", "t.h5"])
@pytest.mark.parametrize("source", ["set", "set/people.csv"])
def test_no_name_of_a_file_or_a_group_is_in_the_bytes_of_the_store(tmp_path, store, source):
    pictures(tmp_path / "set", 24)
    line = ("ingest", source, "--store", store, "--size", "32x24", "--dataset", "site")
    works(*line, "--keys", "hash", cwd=tmp_path)
    works("augment", "--plugin", "flip", "--store", store, cwd=tmp_path)
    works("evaluate", "--classifier", "linear", "--store", store, cwd=tmp_path)
    found = bytes_of(tmp_path / store)
    for name in (NAME, OTHER, "Quill", "Hesper", "people.csv"):
        assert name.encode() not in found
    secret = (tmp_path / f"{store}.secret").read_text().strip()
    assert secret.encode() not in found and bytes.fromhex(secret) not in found
    works(*line[:3], "plain.store", *line[4:], cwd=tmp_path)
    assert NAME.encode() in bytes_of(tmp_path / "plain.store"), "the search finds what is there"


def test_a_pseudonym_is_what_the_documents_say(tmp_path):
    pictures(tmp_path / "set")
    works("ingest", "set", "--store", "t.store", "--size", "32x24", "--keys", "hash", cwd=tmp_path)
    secret = (tmp_path / "t.store.secret").read_text().strip().encode()
    expected = set()
    for path in (tmp_path / "set").rglob("*.png"):
        name = f"key:set/{path.relative_to(tmp_path / 'set').as_posix()}"
        expected.add(f"set/{hmac.new(secret, name.encode(), hashlib.sha256).hexdigest()[:32]}")
    assert set(ak.open(tmp_path / "t.store").snapshot().real.keys.tolist()) == expected


def test_the_order_of_rows_tells_nothing_of_names(tmp_path):
    pictures(tmp_path / "set", 24)
    works("ingest", "set", "--store", "t.store", "--size", "32x24", "--keys", "hash", cwd=tmp_path)
    keys = ak.open(tmp_path / "t.store").snapshot().real.keys.tolist()
    found = ak.open(tmp_path / "t.store").snapshot().real.labels
    assert len(keys) == 24 and (np.diff(found) != 0).sum() > 1, "not class by class"


def test_what_came_under_pseudonyms_is_known_again_and_later_images_follow(tmp_path):
    pictures(tmp_path / "set")
    works("ingest", "set", "--store", "t.store", "--size", "32x24", "--keys", "hash", cwd=tmp_path)
    again = works("ingest", "set", "--store", "t.store", cwd=tmp_path)
    assert "all images are in the store already" in again.out
    pictures(tmp_path / "set", 8)
    works("ingest", "set", "--store", "t.store", cwd=tmp_path)  # --keys hash is remembered
    keys = ak.open(tmp_path / "t.store").snapshot().real.keys.tolist()
    assert len(keys) == 8 and not any("Quill" in key for key in keys)
    assert NAME.encode() not in bytes_of(tmp_path / "t.store")


def test_groups_under_pseudonyms_still_group(tmp_path):
    pictures(tmp_path / "set")
    text = (tmp_path / "set/people.csv").read_text().replace(f"{NAME} 4", f"{NAME} 0")
    (tmp_path / "set/people.csv").write_text(text)
    works("ingest", "set/people.csv", "--store", "t.store", "--size", "32x24", "--keys", "hash",
          "--no-find-relatives", cwd=tmp_path)  # fmt: skip
    groups = ak.open(tmp_path / "t.store").snapshot().real.groups.tolist()
    assert len(set(groups)) == 5


def test_the_secret_is_for_its_owner_and_lies_beside_the_store(tmp_path):
    pictures(tmp_path / "set")
    found = works("ingest", "set", "--store", "t.store", "--keys", "hash", cwd=tmp_path)
    path = tmp_path / "t.store.secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and len(path.read_text().strip()) == 64
    assert "t.store.secret: keep that file for later ingests, and never pass it on" in found.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set", "t.store", "t.store.secret"]


def test_two_stores_call_the_same_image_differently_unless_they_share_a_secret(tmp_path):
    pictures(tmp_path / "set")
    line = ("ingest", "set", "--size", "32x24", "--keys", "hash", "--store")
    (tmp_path / "shared.txt").write_text("a secret of more than thirty-two characters\n")
    for store, flags in (("a.store", ()), ("b.store", ()), ("c.store", ("--secret", "shared.txt")),
                         ("d.store", ("--secret", "shared.txt"))):  # fmt: skip
        works(*line, store, *flags, cwd=tmp_path)
    a, b, c, d = (set(ak.open(tmp_path / f"{x}.store").snapshot().real.keys) for x in "abcd")
    assert not a & b and not a & c and c == d


def test_a_store_of_pseudonyms_asks_for_their_secret(tmp_path):
    pictures(tmp_path / "set")
    works("ingest", "set", "--store", "t.store", "--size", "32x24", "--keys", "hash", cwd=tmp_path)
    before = tree(tmp_path / "t.store")
    (tmp_path / "t.store.secret").rename(tmp_path / "away")
    found = command("ingest", "set", "--store", "t.store", cwd=tmp_path)
    assert (
        found.code == 2 and "their secret is not at" in found.err and "--secret FILE" in found.err
    )
    (tmp_path / "other").write_text("x" * 40)
    found = command("ingest", "set", "--store", "t.store", "--secret", "other", cwd=tmp_path)
    assert found.code == 2 and "other is not the secret that made the pseudonyms" in found.err
    works("ingest", "set", "--store", "t.store", "--secret", "away", cwd=tmp_path)
    assert tree(tmp_path / "t.store") == before


def test_bad_secrets_and_words_are_one_plain_line(tmp_path):
    pictures(tmp_path / "set")
    (tmp_path / "short").write_text("short\n")
    (tmp_path / "odd").write_bytes(b"\xff" * 64)
    for flags, words in (
        (("--secret", "short"), "--secret is for --keys hash or --group-by patient"),
        (("--keys", "hash", "--secret", "short"), "is no secret: it needs 32 characters"),
        (("--keys", "hash", "--secret", "odd"), "odd cannot be read as a secret"),
        (("--keys", "hash", "--secret", "no/where"), "cannot write no/where"),
    ):
        found = command("ingest", "set", "--store", "t.store", *flags, cwd=tmp_path)
        assert found.code == 2 and words in found.err, found.err
    assert not (tmp_path / "t.store").exists()
    for flags in ({"keys": "x"}, {"group_by": "x"}):
        with pytest.raises(OptionError, match="it must be"):
            ak.ingest(tmp_path / "set", tmp_path / "t.store", **flags)


def test_messages_name_the_file_and_the_store_never_does(tmp_path):
    pictures(tmp_path / "set")
    (tmp_path / "set/a" / f"{NAME}-bad.png").write_text("x")
    line = ("ingest", "set", "--store", "t.store", "--size", "32x24", "--keys", "hash")
    found = command(*line, cwd=tmp_path)
    assert found.code == 2 and f"a/{NAME}-bad.png: is no image" in found.err
    found = works(*line, "--skip-bad", cwd=tmp_path)
    assert f"a/{NAME}-bad.png" in found.out
    assert NAME.encode() not in bytes_of(tmp_path / "t.store")


def test_a_secret_that_another_command_writes_at_the_same_time_is_taken(tmp_path):
    path = tmp_path / "t.store.secret"
    one, two = (Naming(True, False, path) for _ in range(2))
    assert one.pseudonym("key", "x") == two.pseudonym("key", "x")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert len({one.pseudonym(kind, "x") for kind in ("key", "group", "patient")}) == 3


def test_a_link_to_nothing_is_no_secret(tmp_path):
    (tmp_path / "s").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="cannot be read as a secret"):
        Naming(True, False, tmp_path / "s").pseudonym("key", "x")
