"""Borderline pairs are shown to a person, and what the person decides holds."""

import csv
import html
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from commands import command, works
from PIL import Image

import augkit as ak
from augkit.errors import DamagedStore, InputError
from augkit.ingestion import review
from augkit.ingestion.grouping import part_groups
from augkit.ingestion.intake import IngestReport
from augkit.ingestion.prints import ALIKE
from augkit.partitions import HOLDOUT
from augkit.reports.pairs import Candidate, render
from augkit.store import entries


def speckled(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (80, 96), np.uint8)


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def mixed(seed: int, other: int, share: float) -> np.ndarray:
    """Return an image that correlates with another by about the share."""
    a, b = speckled(seed) - 127.5, speckled(other) - 127.5
    return np.clip(127.5 + share * a + (1 - share**2) ** 0.5 * b, 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of unlike images, a clear pair (a/0, a/copy), a weak one (b/0, b/weak)."""
    for label, first in (("a", 0), ("b", 100)):
        for i in range(4):
            save(speckled(first + i), tmp_path / "set" / label / f"{i}.png")
    save((speckled(0) * 0.9).astype(np.uint8), tmp_path / "set" / "a" / "copy.png")
    save(mixed(100, 900, 0.135), tmp_path / "set" / "b" / "weak.png")
    return tmp_path / "set"


def ingest(folder: Path, **flags: object) -> IngestReport:
    flags.setdefault("store", folder.parent / "s.store")
    if not Path(flags["store"]).exists():
        flags["size"] = "96x80"
    return ak.ingest(folder, **flags)


def table(path: Path, *rows: tuple[str, str, str]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("first", "second", "score", "decision")])
        csv.writer(file).writerows((a, b, "0.1", word) for a, b, word in rows)
    return path


def groups(folder: Path) -> dict[str, int]:
    real = ak.open(folder.parent / "s.store").snapshot().real
    return dict(zip(real.keys.tolist(), real.groups.tolist(), strict=True))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


COPY = ("set/a/0.png", "set/a/copy.png")
WEAK = ("set/b/0.png", "set/b/weak.png")


def test_a_review_shows_the_borderline_pair_and_not_the_clear_one(folder, tmp_path):
    report = ingest(folder, review=tmp_path / "look.html")
    (row,) = rows_of(tmp_path / "look.csv")
    assert (row["first"], row["second"], row["decision"]) == (*WEAK, "")
    assert ALIKE < float(row["score"]) < review.HIGHEST
    page = (tmp_path / "look.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "Line 2" in page and WEAK[1] in page and COPY[1] not in page
    assert "1 borderline pair to look at" in str(report)
    assert json.loads(report.to_json())["borderline_pairs"] == 1


def test_the_page_escapes_names_and_asks_for_nothing(tmp_path):
    name = "<img src=http://x/y.png onerror=alert(1)>"
    image = speckled(0)[..., None]
    pair = Candidate((name, name), ("<b>", "b"), (image, image), 0.13, False, "")
    page = render([pair], 0.132, "pairs.csv")
    assert name not in page and html.escape(name) in page.replace("&#34;", "&quot;")
    assert "default-src 'none'" in page and "<script" not in page
    assert page.count("<img ") == page.count('src="data:image/png;base64,') == 2


def test_a_folder_gets_the_page_and_the_table(folder, tmp_path):
    report = ingest(folder, review=tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"review.html", "review.csv"}
    assert report.review.page == tmp_path / "out" / "review.html"


def test_same_joins_and_different_parts(folder, tmp_path):
    ingest(folder)
    before = groups(folder)
    assert before[COPY[0]] == before[COPY[1]] and before[WEAK[0]] != before[WEAK[1]]
    made = table(tmp_path / "d.csv", (*WEAK, "same"), (*COPY, "different"))
    report = ingest(folder, decisions=made)
    after = groups(folder)
    assert after[COPY[0]] != after[COPY[1]] and after[WEAK[0]] == after[WEAK[1]]
    others = set(before) - {*COPY, *WEAK}
    assert {k: before[k] for k in others} == {k: after[k] for k in others}
    assert "2 decisions taken in" in str(report)
    assert "2 pairs decided by hand: 1 different, 1 same" in str(report.info)
    assert report.info.values["real"]["decisions"] == [
        {"first": COPY[0], "second": COPY[1], "decision": "different"},
        {"first": WEAK[0], "second": WEAK[1], "decision": "same"},
    ]
    assert ak.verify(ak.open(tmp_path / "s.store")).sound


def test_decisions_can_come_with_the_images(folder, tmp_path):
    made = table(tmp_path / "d.csv", (*WEAK, "same"), (*COPY, "different"))
    report = ingest(folder, decisions=made)
    after = groups(folder)
    assert after[COPY[0]] != after[COPY[1]] and after[WEAK[0]] == after[WEAK[1]]
    assert report.pairs == 0


def test_decisions_taken_in_twice_change_nothing(folder, tmp_path):
    ingest(folder)
    made = table(tmp_path / "d.csv", (*COPY, "different"), (*WEAK, ""))
    ingest(folder, decisions=made)
    commits = ak.open(tmp_path / "s.store").snapshot().number
    assert "nothing to do" in str(ingest(folder, decisions=made))
    assert ak.open(tmp_path / "s.store").snapshot().number == commits


def test_a_later_decision_replaces_a_former_one(folder, tmp_path):
    ingest(folder)
    start = groups(folder)
    ingest(folder, decisions=table(tmp_path / "d.csv", (*COPY, "different")))
    ingest(folder, decisions=table(tmp_path / "e.csv", (COPY[1], COPY[0], "Same")))
    assert groups(folder)[COPY[0]] == groups(folder)[COPY[1]] == start[COPY[0]]


def test_decisions_outlive_a_later_ingest_and_a_copy_of_the_store(folder, tmp_path):
    ingest(folder)
    made = table(tmp_path / "d.csv", (*WEAK, "same"), (*COPY, "different"))
    ingest(folder, decisions=made)
    save(speckled(55), tmp_path / "more" / "a" / "x.png")
    ingest(tmp_path / "more")
    after = groups(folder)
    assert after[COPY[0]] != after[COPY[1]] and after[WEAK[0]] == after[WEAK[1]]
    ak.pack(ak.open(tmp_path / "s.store"), tmp_path / "s.h5")
    assert len(ak.open(tmp_path / "s.h5").snapshot().decisions) == 2


def test_pairs_that_others_hold_together_are_named(folder, tmp_path):
    save((speckled(0) * 0.8).astype(np.uint8), folder / "a" / "third.png")
    ingest(folder)
    report = ingest(folder, decisions=table(tmp_path / "d.csv", (*COPY, "different")))
    assert groups(folder)[COPY[0]] == groups(folder)[COPY[1]]
    assert report.overruled == (COPY,)
    assert f"yet together through others: {COPY[0]} and {COPY[1]}" in str(report)


def test_an_image_of_the_same_patient_or_file_is_not_parted(folder, tmp_path):
    shutil.copy(folder / "a" / "1.png", folder / "a" / "twin.png")
    ingest(folder)
    pair = ("set/a/1.png", "set/a/twin.png")
    report = ingest(folder, decisions=table(tmp_path / "d.csv", (*pair, "different")))
    assert groups(folder)[pair[0]] == groups(folder)[pair[1]] and report.overruled == (pair,)


def test_runs_that_decisions_make_stale_are_named(folder, tmp_path):
    for i in range(20, 40):
        save(speckled(i), folder / "ab"[i % 2] / f"{i}.png")
    ingest(folder)
    ak.augment(tmp_path / "s.store", "flip")
    snapshot = ak.open(tmp_path / "s.store").snapshot()
    parts, keys = snapshot.parts(HOLDOUT), snapshot.real.keys.tolist()
    tested, trained = (np.flatnonzero(parts == p).tolist() for p in (2, 0))
    pair = next((t, r) for t in tested for r in trained if t < r)
    made = table(tmp_path / "d.csv", (keys[pair[0]], keys[pair[1]], "same"))
    report = ingest(folder, decisions=made, conflicts="keep")
    assert report.stale == ("flip",)


def test_a_review_shows_what_was_decided_and_keeps_a_filled_table(folder, tmp_path):
    ingest(folder, decisions=table(tmp_path / "d.csv", (*WEAK, "same")))
    ingest(folder, review=tmp_path / "look.html")
    (row,) = rows_of(tmp_path / "look.csv")
    assert row["decision"] == "same"
    with pytest.raises(InputError, match=r"look\.csv holds decisions: give it back with"):
        ingest(folder, review=tmp_path / "look.html")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("set/a/0.png", "set/a/9.png", "same")], r"line 2: the store has no image 'set/a/9.png'"),
        ([(*COPY, "perhaps")], "line 2: 'perhaps' is no decision: write same, different, or"),
        ([(COPY[0], COPY[0], "same")], "line 2: a decision is about two images"),
        ([(*COPY, "same"), (*COPY[::-1], "different")], "line 3 says different where .*line 2"),
    ],
)
def test_what_is_no_decision_is_refused(folder, tmp_path, rows, message):
    ingest(folder)
    commits = ak.open(tmp_path / "s.store").snapshot().number
    with pytest.raises(InputError, match=message):
        ingest(folder, decisions=table(tmp_path / "d.csv", *rows))
    assert ak.open(tmp_path / "s.store").snapshot().number == commits


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n", "has no column first or second or decision"),
        (b"", "has no column first"),
        (b"first,second,decision\n\xff,b,same\n", "no CSV table in UTF-8"),
        (b'first,second,decision\n"x,b,same\n', "no CSV table in UTF-8"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(tmp_path, content, message):
    path = tmp_path / "d.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        review.read_decisions(path)
    with pytest.raises(InputError, match="cannot be read"):
        review.read_decisions(tmp_path / "absent.csv")


def test_the_command_line_writes_a_review_and_reads_it_back(folder):
    cwd = folder.parent
    works(
        "ingest", "set", "--size", "96x80", "--review", "look.html", "--store", "s.store", cwd=cwd
    )
    text = (cwd / "look.csv").read_text()
    (cwd / "look.csv").write_text(text.strip() + "same\n")
    works("ingest", "set", "--decisions", "look.csv", "--store", "s.store", cwd=cwd)
    assert "1 pair decided by hand: 1 same" in works("info", "--store", "s.store", cwd=cwd).out
    done = command("ingest", "set", "--decisions", "no.csv", "--store", "s.store", cwd=cwd)
    assert done.code == 2 and "no.csv cannot be read" in done.err


def test_a_group_taken_apart_keeps_its_number_where_its_first_image_stays():
    old = np.array([0, 1, 0, 0, 2, 0])
    first, second = np.array([0, 3, 0]), np.array([2, 5, 1])
    parted = part_groups(old, np.array([0]), first, second, 7)
    assert parted.tolist() == [0, 1, 0, 7, 2, 7]


def test_the_page_shows_both_images_in_a_browser(tmp_path):
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no Chromium here")
    image = speckled(0)[..., None]
    pair = Candidate(("set/a", "set/b"), ("a", "b"), (image, image), 0.13, True, "same")
    (tmp_path / "p.html").write_text(render([pair], 0.132, "p.csv"))
    shot = tmp_path / "p.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,900"]
    line = [browser, *flags, f"--screenshot={shot}", f"file://{tmp_path}/p.html"]
    subprocess.run(line, check=True, capture_output=True, timeout=60)
    pixels = np.asarray(Image.open(shot).convert("L"), np.float32)
    left, right = pixels[:, :500], pixels[:, 500:]
    assert left.std() > 40 and right.std() > 40


def test_a_store_with_decisions_about_no_image_is_damaged(folder, tmp_path):
    ingest(folder)
    snapshot = ak.open(tmp_path / "s.store").snapshot()
    snapshot.__dict__["grouping"] = {**snapshot.grouping, "decisions": [[0, 99, "same"]]}
    with pytest.raises(DamagedStore, match="a decision is about an image that does not exist"):
        _ = snapshot.decisions


@pytest.mark.parametrize("wrong", [[1, 0, "same"], [0, 1, "perhaps"], [0, 1], [0, "1", "same"]])
def test_a_log_with_decisions_that_are_none_is_refused(wrong):
    table = {"version": 1, "groups": [0, 1], "folds": [0, 1], "conflicts": "drop"}
    assert entries._GROUPING({**table, "decisions": [[0, 1, "same"]]})
    assert not entries._GROUPING({**table, "decisions": [wrong]})
