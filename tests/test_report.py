from __future__ import annotations

import copy
import csv
import json
import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import toy_store

import augkit as ak
from augkit.errors import InputError
from augkit.reports.exports import methods, read_cells, to_latex, to_markdown, write_tables
from augkit.reports.figures import ticks, write_figures
from augkit.reports.page import headline, render, write_page
from augkit.reports.paper import site_of
from augkit.reports.reporting import read_outcome, report
from augkit.store import DatasetStore

CLASSES = ["benign", "malignant", "normal"]
DASH = "\N{EN DASH}"
HOSTILE = [
    "<script>alert('x')</script>",
    "</title><img src=x onerror=alert(1)>",
    '" onload="alert(1)',
    "$\\foo$",
    "a|b & 50 % #1_{x}^~",
    "=cmd()",
    "{{ 7 * 7 }}",
    "\u202egnp.exe\ud800",
]


def an_estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def an_arm(name: str, accuracy: float, **more: Any) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "accuracy": an_estimate(accuracy),
        "balanced_accuracy": an_estimate(accuracy - 0.01),
        "auroc": an_estimate(accuracy + 0.1),
        "sensitivity:benign": {"value": None, "low": None, "high": None},
    }
    roc = {c: [round(0.2 + 0.008 * i, 4) for i in range(101)] for c in CLASSES}
    confusion = [[8.0, 1.0, 1.0], [2.0, 7.5, 0.5], [0.0, 0.0, 0.0]]
    arm = {"name": name, "runs": [], "rows": 117, "metrics": metrics, "control": False}
    learning = [
        {"step": step, "train_loss": 0.9 - step / 1000, "validation_loss": 1.0 - step / 2000}
        for step in (78, 156, 390, 780)
    ]
    curves = {"confusion": confusion, "roc": roc, "learning": learning}
    return {**arm, "curves": curves, **more}


def a_comparison(arm: str, versus: str, control: str, **more: Any) -> dict[str, Any]:
    found = {"arm": arm, "versus": versus, "control": control, "metric": "balanced_accuracy"}
    return {**found, "difference": 0.0417, "low": 0.0123, "high": 0.0711, **more}


def an_evaluation(arm: str = "flip", word: str | None = "helps") -> dict[str, Any]:
    judged = {"p": 0.0123, "p_holm": 0.0246, "verdict": word, "smallest_detectable": 0.0333}
    return {
        "store": "s",
        "classifier": "linear",
        "options": {"C": None},
        "protocol": "5 folds",
        "seeds": 3,
        "classes": list(CLASSES),
        "test_images": 60,
        "test_groups": 57,
        "arms": [
            an_arm("real", 0.7),
            an_arm(arm, 0.75, runs=["flip"], rows=234),
            an_arm("balanced", 0.72, rows=234, control=True),
            an_arm("all", 0.75, same_as=arm),
            {"name": "gan", "rows": 0, "metrics": {}, "unavailable": "not under 5 folds"},
        ],
        "fits": 30,
        "notes": {"flip": "prototype: 7 of 70 steps"},
        "primary": "balanced_accuracy",
        "comparisons": [
            a_comparison(arm, "real", "real", **judged),
            a_comparison(arm, "balanced", "balanced", **judged),
            a_comparison(arm, "real", "real") | {"metric": "auroc"},
        ],
        "verdicts": [{"arm": arm, "word": word, "sentence": f"{arm} {word}: 4.2 points"}],
        "device": "cpu",
        "steps": 780,
        "looks": 10,
        "weights": "imagenet",
        "reduced": "3 of 5 seeds",
    }


def an_outcome(*evaluations: dict[str, Any], dataset: str = "toy") -> dict[str, Any]:
    cells = [
        {"dataset": dataset, "classifier": e["classifier"], "evaluation": e, "failure": None}
        for e in evaluations or (an_evaluation(),)
    ]
    failed = {"dataset": "other", "classifier": "svm", "evaluation": None, "failure": "too few"}
    return {
        "kind": "augkit outcome",
        "version": "0.1.0",
        "command": "augkit evaluate --classifier linear",
        "created": "2026-11-26T05:20:00+00:00",
        "environment": {"python": "3.11.7"},
        "cells": [*cells, failed],
    }


class Page(HTMLParser):
    """What a browser would make of a page: its tags, and its words without styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def page_of(outcome: dict[str, Any], snapshot: Any = None) -> Page:
    return Page(render(outcome, snapshot))


# -- the page --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["helps", "cannot tell", "hurts", None], "1 of 4 arms helps"),
        (["helps", "helps"], "2 of 2 arms help"),
        (["cannot tell", "hurts"], "None of 2 arms is shown to help"),
        (["cannot tell"], "The arm is not shown to help"),
        ([None, None], "No verdict"),
        ([], "No verdict"),
    ],
)
def test_the_headline_counts_only_arms_that_are_said_to_help(
    words: list[str | None], line: str
) -> None:
    evaluation = an_evaluation()
    evaluation["verdicts"] = [{"arm": "a", "word": w, "sentence": ""} for w in words]
    assert headline(read_cells(an_outcome(evaluation))) == line
    assert page_of(an_outcome(evaluation)).text.count(line) >= 1


def test_what_weakens_the_numbers_stands_with_the_verdicts() -> None:
    evaluation = an_evaluation()
    evaluation["warnings"] = ["LEAKY: split by image. These flatter"]
    evaluation["caveat"] = "chosen with BUSI at hand"
    text = page_of(an_outcome(evaluation)).text
    verdicts = text[text.index("Does the augmentation help") : text.index("Each arm less")]
    for said in ("leaky", "reduced", "3 of 5 seeds", "caveat", "prototype", "7 of 70 steps"):
        assert said in verdicts
    for said in ("not available", "not under 5 folds", "failed", "too few", "all is the same as"):
        assert said in verdicts


def test_every_number_is_that_of_the_outcome() -> None:
    evaluation = an_evaluation()
    text = page_of(an_outcome(evaluation)).text.replace("\N{MINUS SIGN}", "-")
    for arm in evaluation["arms"]:
        for metric, found in arm["metrics"].items() if not arm.get("same_as") else ():
            if found["value"] is not None:
                shown = f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
                assert shown in text, (arm["name"], metric)
    assert "+0.042 [+0.012, +0.071]" in text
    assert "0.033" in text and "0.025" in text
    assert "7.5 75 %" in text  # of the confusion matrix


def test_learning_curves_are_drawn_and_told_in_numbers() -> None:
    evaluation = an_evaluation()
    for arm, lowest in zip(evaluation["arms"][:2], (390, 780), strict=True):
        for look in arm["curves"]["learning"]:
            look["validation_loss"] = 0.5 + abs(look["step"] - lowest) / 1000
    evaluation["arms"][2]["curves"]["learning"] = []  # an outcome of an older version
    text = page_of(an_outcome(evaluation)).text
    curves = text[text.index("Learning curves of") : text.index("Confusion matrices")]
    assert "optimiser step" in curves and "balanced 0" not in curves
    assert "real 390 0.500 0.510 0.890 0.120" in curves
    assert "flip 780 0.500 0.120 0.500 0.120" in curves

    for arm in evaluation["arms"][:2]:
        del arm["curves"]["learning"]
    assert "Learning curves" not in page_of(an_outcome(evaluation)).text


def test_a_missing_value_is_a_dash_and_no_number() -> None:
    evaluation = an_evaluation()
    evaluation["arms"] = [an_arm("real", 0.7)]
    evaluation["comparisons"], evaluation["verdicts"] = [], []
    assert f"sensitivity of benign {DASH} " in page_of(an_outcome(evaluation)).text


def hostile_outcome() -> dict[str, Any]:
    outcome = an_outcome(*(an_evaluation(name) for name in HOSTILE))
    for cell, name in zip(outcome["cells"], HOSTILE, strict=False):
        cell["dataset"] = cell["classifier"] = name
        found = cell["evaluation"]
        found.update(store=name, classes=[name, *CLASSES[1:]], weights=name, caveat=name)
        found.update(options={name: name}, warnings=[name], notes={"flip": name}, reduced=name)
        found["arms"][1]["curves"]["roc"] = {name: [0.0, 0.5, 1.0]}
        found["arms"][1]["metrics"][f"ppv:{name}"] = an_estimate(0.5)
    return {**outcome, "command": HOSTILE[0], "environment": {HOSTILE[1]: HOSTILE[0]}}


def test_hostile_names_are_shown_as_text() -> None:
    page = page_of(hostile_outcome())
    assert not page.all("script")
    assert not page.all("img")
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    assert HOSTILE[0] in page.text and HOSTILE[6] in page.text
    assert "\u202e" not in page.text
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_the_page_fetches_nothing_and_runs_nothing(tmp_path: Path) -> None:
    store = with_generated(tmp_path)
    text = render(an_outcome(), store.snapshot())
    page = Page(text)
    places = [a[k] or "" for _, a in page.tags for k in ("src", "href", "data", "action") if k in a]
    assert places
    assert all(place.startswith(("#", "data:image/png;base64,")) for place in places)
    assert not re.search(r"https?:|@import|url\(", text)
    assert not [a for tag, a in page.tags if tag in ("script", "link", "iframe", "object")]
    (policy,) = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_headings_tables_and_drawings_can_be_read_aloud(tmp_path: Path) -> None:
    page = page_of(an_outcome(), with_generated(tmp_path).snapshot())
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all("scope" in a for a in page.all("th"))
    drawn = [a for a in page.all("svg") if a.get("role") == "img"]
    assert len(drawn) >= 4
    assert all(a.get("aria-hidden") or a.get("role") == "img" for a in page.all("svg"))
    assert len([t for t, _ in page.tags if t == "desc"]) == len(drawn)
    assert all(a["alt"] for a in page.all("img"))
    assert page.all("html") == [{"lang": "en"}]


@pytest.mark.parametrize("key", sorted(an_evaluation()))
def test_a_missing_piece_is_left_out(key: str, tmp_path: Path) -> None:
    evaluation = an_evaluation()
    evaluation.pop(key)
    outcome = an_outcome(an_evaluation() | {"classifier": "x"})
    outcome["cells"][0]["evaluation"] = evaluation
    assert "Verdicts" in page_of(outcome).text
    write_tables(outcome, tmp_path)


@pytest.mark.parametrize("key", ["version", "command", "created", "environment"])
def test_an_outcome_without_its_origin_can_be_read(key: str) -> None:
    outcome = an_outcome()
    del outcome[key]
    assert "Verdicts" in page_of(outcome).text
    assert "Verdicts" in page_of({**an_outcome(), key: None}).text


def test_an_outcome_of_failures_alone_has_a_page(tmp_path: Path) -> None:
    outcome = an_outcome()
    del outcome["cells"][0]
    page = page_of(outcome)
    assert "No verdict" in page.text and "too few" in page.text
    assert write_figures(outcome, tmp_path) == []
    assert "failed\\: too few" in write_tables(outcome, tmp_path)[3].read_text()


# -- beside the paper ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("BUSI", "BUSI"),
        ("Dataset_BUSI_with_GT", "BUSI"),
        ("UDIAT", "B"),
        ("BrEaST", "B"),
        ("BrEaST-Lesions_USG", "B"),
        ("b", "B"),
        ("second site", "B"),
        ("busi+breast", "BUSI + B"),
        ("both", "BUSI + B"),
        ("toy", None),
        ("bananas", None),
        ("our breast scans", None),
        ("BUSI + toy", None),
    ],
)
def test_a_data_set_of_the_paper_is_known_by_its_names(name: str, site: str | None) -> None:
    assert site_of(name) == site


def test_the_papers_numbers_stand_beside_ours_and_are_called_one_split() -> None:
    evaluation = an_evaluation("dagan") | {"classifier": "vgg16"}
    text = page_of(an_outcome(evaluation, dataset="BUSI")).text
    assert "one split, without spread" in text
    assert f"VGG16 paper 70 74 84 88 here 70.0 [65.0, 75.0] {DASH} 75.0 [70.0, 80.0] 75.0" in text
    assert "BUSI ResNet paper 79 82 89 93" in text
    assert "over-fitting" not in text  # of data set B, which is not there


def test_two_evaluations_of_one_name_stay_apart() -> None:
    first, second = (an_evaluation("dagan") | {"classifier": "vgg16"} for _ in range(2))
    second["arms"][0] = an_arm("real", 0.1)
    page = page_of(an_outcome(first, second, dataset="BUSI"))
    assert "here 70.0 [65.0, 75.0]" in page.text and "here 10.0 [5.0, 15.0]" in page.text
    assert "vgg16 on BUSI (2)" in page.text


def test_without_a_data_set_or_network_of_the_paper_its_table_is_left_out() -> None:
    text = page_of(an_outcome()).text
    assert "Table II" not in text
    assert "Accuracy of every arm" in text


# -- the store -------------------------------------------------------------------------------------


def with_generated(tmp_path: Path) -> ak.DatasetStore:
    """Return a store with a generative run and the log of a training."""
    store = toy_store(tmp_path / "a.store", 10)
    ak.augment(store, "oracle", n=3)
    training = store.side_folder("training") / "0123456789abcdef"
    training.mkdir(parents=True, exist_ok=True)
    lines = [{"class": c, "step": s, "wasserstein": 1 / s} for s in (100, 200) for c in CLASSES]
    broken = ['{"class": "benign"', '{"step": NaN, "wasserstein": 1, "class": "x"}', "7", "[]"]
    text = "\n".join([*map(json.dumps, lines), *broken])
    (training / "log.jsonl").write_text(text, encoding="utf-8")
    return store


def test_the_store_adds_pictures_curves_and_the_faults_of_the_data(tmp_path: Path) -> None:
    store = with_generated(tmp_path)
    page = page_of(an_outcome(), store.snapshot())
    assert len(page.all("img")) == 2 * len(CLASSES)
    assert "made by run oracle" in page.text
    assert "training 0123456789abcdef" in page.text and "generator step" in page.text
    assert "none: 10 of each" in page.text
    assert "smallest difference in balanced accuracy" in page.text
    (model,) = store.snapshot().models
    assert model in page.text and store.snapshot().entries[-1]["digest"] in page.text


def test_groups_and_imbalance_are_counted(tmp_path: Path) -> None:
    names = ["a"] * 3 + [f"g{i}" for i in range(7)] + [f"h{i}" for i in range(20)]
    store = toy_store(tmp_path / "a.store", 10, groups=names)
    text = page_of(an_outcome(), store.snapshot()).text
    assert "3 images in 1 group, at most 3 in one" in text


def test_images_that_are_left_out_do_not_balance_the_classes(tmp_path: Path) -> None:
    store = DatasetStore.create(tmp_path / "a.store", height=16, width=16)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 1), np.uint8)
    groups = [*(f"g{i}" for i in range(15)), *(f"g{i}" for i in range(5, 20))]
    ak.ingest_arrays(
        store,
        [pixels],
        ["ill"] * 10 + ["well"] * 20,
        keys=[str(i) for i in range(30)],
        groups=groups,
        find_relatives=False,
    )
    assert len(store.snapshot().real.keys[store.snapshot().real.conflict]) == 10
    assert "15 well to 5 ill: 3.0 to 1" in page_of(an_outcome(), store.snapshot()).text


# -- the methods -----------------------------------------------------------------------------------


def numbers(value: Any) -> Iterator[str]:
    """Yield every run of digits in a JSON value."""
    yield from re.findall(r"\d+", json.dumps(value))


def test_the_methods_hold_no_number_that_was_not_recorded() -> None:
    outcome = an_outcome(an_evaluation() | {"warnings": ["weak"], "caveat": "beware"})
    said = methods(outcome)
    assert set(re.findall(r"\d+", said)) <= {*numbers(outcome), "95"}
    for fact in (
        "augkit 0.1.0",
        "python 3.11.7",
        "2026-11-26",
        "5 folds",
        "3 seeds",
        "60 real test",
    ):
        assert fact in said
    for fact in ("57 groups", "780 optimiser steps", "10 looks", "imagenet", "30 fits on cpu"):
        assert fact in said
    for fact in ("Holm", "balanced accuracy", "3 of 5 seeds", "weak.", "beware.", "7 of 70 steps"):
        assert fact in said


def test_the_methods_are_silent_on_what_was_not_recorded() -> None:
    bare = {"arms": [{"name": "real", "metrics": {"accuracy": an_estimate(0.5)}}]}
    outcome = {"kind": "augkit outcome", "cells": [{"dataset": "d", "evaluation": bare}]}
    said = methods(outcome)
    assert said == (
        "The classifier unnamed classifier was evaluated on d. "
        "Training images in the first partition: real not recorded."
    )
    assert "Holm" not in methods(an_outcome(an_evaluation() | {"verdicts": []}))


def test_a_leaky_split_is_not_said_to_keep_groups_together() -> None:
    claim = "never divided"
    assert claim in methods(an_outcome())
    leaky = an_evaluation() | {"protocol": "5 folds, split by image"}
    assert claim not in methods(an_outcome(leaky))
    warned = an_evaluation() | {"warnings": ["LEAKY: split by image"]}
    assert claim not in methods(an_outcome(warned))


def test_the_methods_name_runs_seeds_and_models_of_the_store(tmp_path: Path) -> None:
    store = with_generated(tmp_path)
    evaluation = an_evaluation("oracle")
    evaluation["arms"][1]["runs"] = ["oracle"]
    said = methods(an_outcome(evaluation), store.snapshot())
    (model,) = store.snapshot().models
    assert (
        f"oracle (plugin oracle, 9 images, seed 0, difficulty=0.5, variety=0.0, model {model[:12]})"
        in said
    )
    assert "30 real images (10 benign, 10 malignant, 10 normal) of 32x24 pixels, grey" in said


# -- tables and figures ----------------------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_tables_hold_every_digit(tmp_path: Path) -> None:
    outcome = an_outcome()
    written = write_tables(outcome, tmp_path)
    assert [path.name for path in written] == [
        *("metrics.csv", "comparisons.csv", "outcome.json", "table.md", "table.tex")
    ]
    metrics = rows_of(tmp_path / "metrics.csv")
    assert len(metrics) == 4 * 4
    found = outcome["cells"][0]["evaluation"]["arms"][1]["metrics"]["auroc"]
    (row,) = (r for r in metrics if (r["arm"], r["metric"]) == ("flip", "auroc"))
    assert [float(row[k]) for k in ("value", "low", "high")] == list(found.values())
    assert {r["value"] for r in metrics if r["metric"] == "sensitivity:benign"} == {""}
    compared = rows_of(tmp_path / "comparisons.csv")
    assert [r["metric"] for r in compared] == ["balanced_accuracy", "balanced_accuracy", "auroc"]
    assert (compared[0]["p_holm"], compared[2]["p_holm"]) == ("0.0246", "")
    assert json.loads((tmp_path / "outcome.json").read_text()) == outcome
    line = "| linear on toy | flip | 234 | 0.750 \\[0.700, 0.800\\] "
    assert line in (tmp_path / "table.md").read_text()
    assert "flip & 234 & 0.750 [0.700, 0.800] & " in (tmp_path / "table.tex").read_text()


@pytest.mark.parametrize("name", ["=cmd()", "+1", "-1", "@x", " =1+1", "\t=1", "\uff1d1"])
def test_no_name_is_a_formula_of_a_spreadsheet(name: str, tmp_path: Path) -> None:
    outcome = an_outcome(an_evaluation(name), dataset=name)
    write_tables(outcome, tmp_path)
    for path in (tmp_path / "metrics.csv", tmp_path / "comparisons.csv"):
        for row in rows_of(path):
            assert not row["dataset"].lstrip().startswith(("=", "+", "-", "@", "\uff1d"))
            assert not row["arm"].lstrip().startswith(("=", "+", "-", "@", "\uff1d"))


def test_a_negative_number_stays_a_number(tmp_path: Path) -> None:
    evaluation = an_evaluation()
    evaluation["comparisons"][0]["low"] = -0.5
    write_tables(an_outcome(evaluation), tmp_path)
    assert rows_of(tmp_path / "comparisons.csv")[0]["low"] == "-0.5"
    assert "[$-$0.500, " in (tmp_path / "table.tex").read_text()


def test_latex_sets_hostile_names_as_they_are() -> None:
    assert to_latex("$\\foo$") == "\\$\\textbackslash{}foo\\$"
    assert to_latex("a&b%c#d_e{f}") == "a\\&b\\%c\\#d\\_e\\{f\\}"
    assert to_latex("~^<|>") == (
        "\\textasciitilde{}\\textasciicircum{}\\textless{}\\textbar{}\\textgreater{}"
    )
    assert to_latex("[x]*\n") == "{[}x{]}{*}?"


def test_markdown_shows_hostile_names_as_they_are() -> None:
    assert to_markdown("a|b") == "a\\|b"
    assert to_markdown("<script>&") == "&lt;script&gt;&amp;"
    assert to_markdown("[x](y) `z` $a$ *b* _c_") == "\\[x\\](y) \\`z\\` \\$a\\$ \\*b\\* \\_c\\_"
    assert to_markdown("https://x\ny") == "https\\://x\ufffdy"


def test_a_hostile_table_keeps_its_columns(tmp_path: Path) -> None:
    write_tables(hostile_outcome(), tmp_path)
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    rows = (tmp_path / "table.tex").read_text(encoding="utf-8").splitlines()
    n_columns = {len(re.findall(r"(?<!\\)&", r)) for r in rows if r.endswith("\\\\") and " & " in r}
    assert len(n_columns) == 1


@pytest.mark.seconds
def test_figures_are_the_same_bytes_each_time_and_have_no_date(tmp_path: Path) -> None:
    first = write_figures(an_outcome(), tmp_path / "a")
    second = write_figures(copy.deepcopy(an_outcome()), tmp_path / "b")
    assert [path.name for path in first] == ["figure6.pdf", "roc.pdf"]
    for one, other in zip(first, second, strict=True):
        content = one.read_bytes()
        assert content == other.read_bytes()
        assert content.startswith(b"%PDF") and b"CreationDate" not in content
        assert b"/Subtype /Image" not in content


@pytest.mark.seconds
def test_figures_draw_hostile_names(tmp_path: Path) -> None:
    outcome = hostile_outcome()
    outcome["cells"] = outcome["cells"][3:]
    assert len(write_figures(outcome, tmp_path)) == 2


def test_ticks_are_round_and_reach_beyond_both_ends() -> None:
    assert ticks(0.61, 0.88) == [0.6, 0.7, 0.8, 0.9]
    assert ticks(-0.13, 0.13, 4) == [-0.2, -0.1, 0.0, 0.1, 0.2]
    assert ticks(0.5, 0.5)[0] < 0.5 < ticks(0.5, 0.5)[-1]


# -- the verb --------------------------------------------------------------------------------------


def saved(folder: Path, outcome: Any, name: str = "a.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(outcome), encoding="utf-8")
    return folder / name


@pytest.mark.seconds
def test_the_newest_outcome_of_a_store_is_reported(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    outcomes = store.side_folder("outcomes")
    old = saved(outcomes, an_outcome(an_evaluation(word="hurts")), "b.json")
    os.utime(old, (1, 1))
    saved(outcomes, an_outcome(), "a.json")
    made = report(store, output=tmp_path / "out")
    assert made.path == tmp_path / "out" / "report.html"
    assert str(made) == f"open {made.path}"
    assert "1 of 1 arm helps" in made.path.read_text(encoding="utf-8")
    assert sorted(made.files) == sorted((tmp_path / "out").iterdir())
    assert json.loads(made.to_json())["path"] == str(made.path)
    assert len(json.loads(made.to_json())["files"]) == 8


@pytest.mark.seconds
def test_a_file_alone_shows_the_store_that_it_names_if_that_fits(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    outcome = an_outcome(an_evaluation() | {"store": str(store.path)})
    made = report(outcome=saved(tmp_path, outcome), output=tmp_path / "out")
    assert "What is weak about the data" in made.path.read_text(encoding="utf-8")
    outcome["cells"][0]["evaluation"]["classes"] = ["x", "y"]
    made = report(outcome=saved(tmp_path, outcome), output=tmp_path / "out")
    assert "What is weak about the data" not in made.path.read_text(encoding="utf-8")


def test_without_an_evaluation_the_error_says_what_to_type(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "a.store")
    with pytest.raises(
        InputError, match=r"nothing was evaluated yet .*: augkit evaluate --classif"
    ):
        report(store, output=tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "which must be JSON"),
        ("[" * 100_000, "which must be JSON"),
        ("[]", "its kind must be 'augkit outcome'"),
        ('{"kind": "other"}', "its kind must be 'augkit outcome'"),
        ('{"kind": "augkit outcome"}', "is broken"),
        ('{"kind": "augkit outcome", "cells": []}', "is broken"),
        ('{"kind": "augkit outcome", "cells": [7]}', "is broken"),
        ('{"kind": "augkit outcome", "cells": [{"evaluation": []}]}', "is broken"),
        ('{"kind": "augkit outcome", "cells": [{"evaluation": {"arms": [{}]}}]}', "is broken"),
        ('{"kind": "augkit outcome", "cells": [{"evaluation": {"seeds": "x"}}]}', "is broken"),
        ('{"kind": "augkit outcome", "cells": [{"evaluation": {"seeds": true}}]}', "is broken"),
    ],
)
def test_a_broken_file_is_one_plain_line(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        report(outcome=tmp_path / "a.json", output=tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_missing_file_and_a_place_that_cannot_be_written_are_plain(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*none\.json: No such file"):
        report(outcome=tmp_path / "none.json", output=tmp_path / "out")
    path = saved(tmp_path, an_outcome())
    with pytest.raises(InputError, match="cannot write"):
        write_page(an_outcome(), None, path / "report.html")


def test_infinities_and_nan_are_read_as_missing(tmp_path: Path) -> None:
    evaluation = an_evaluation()
    evaluation["arms"][1]["metrics"]["accuracy"]["high"] = float("inf")
    path = saved(tmp_path, an_outcome(evaluation))
    assert "Infinity" in path.read_text()
    found = read_outcome(path)
    assert found["cells"][0]["evaluation"]["arms"][1]["metrics"]["accuracy"]["high"] is None
    assert not re.search(r"\b(nan|inf)\b", page_of(found).text)
