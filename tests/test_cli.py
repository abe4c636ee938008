"""The command line as a user meets it: what it says, where, and in which form."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from augkit_cli.main import augkit
from augkit_cli.output import progress
from commands import command, works
from PIL import Image
from toys import images, toy_store, tree

import augkit as ak
from augkit.testing import write_phantoms

COMMANDS = sorted(augkit.commands)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the four commands of the user story were typed, and what they printed."""
    folder = tmp_path_factory.mktemp("story")
    write_phantoms(folder / "breast", 10, height=40, width=48)
    lines = {
        "ingest": ("ingest", "breast"),
        "augment": ("augment", "--plugin", "flip", "--plugin", "brightness+zoom", "--n", "6"),
        "evaluate": ("evaluate", "--classifier", "linear"),
        "info": ("info",),
    }
    (folder / "printed").mkdir()
    for name, line in lines.items():
        outcome = works(*line, cwd=folder)
        assert outcome.err == "", f"{name} has nothing to warn of"
        (folder / "printed" / name).write_text(outcome.out)
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to be changed."""
    return shutil.copytree(finished, tmp_path / "copy")


def printed(finished: Path, name: str) -> str:
    return (finished / "printed" / name).read_text()


# The user story


@pytest.mark.seconds
def test_ingest_says_what_came_in_and_what_to_do_next(finished):
    said = printed(finished, "ingest")
    assert said.startswith("30 images added. Size 192x160: ")
    assert "augkit.store: images of 192x160 grey, 1 commit\n" in said
    assert "30 images with a mask" in said
    assert said.endswith("no augmentation yet: augkit augment --plugin flip\n")


def test_augment_says_how_many_images_of_each_class_it_made(finished):
    counts = "18 new images (6 benign, 6 malignant, 6 normal), seed 0"
    assert printed(finished, "augment").split("\n") == [
        f"run 'flip': {counts}",
        "  note: a flip mirrors burned-in text and calipers as well",
        f"run 'brightness+zoom': {counts}",
        "",
    ]


def test_evaluate_prints_arms_with_intervals_and_each_class(finished):
    said = printed(finished, "evaluate")
    assert said.startswith("linear on augkit.store: 5 folds, 1 seed, 30 real test images")
    rows = [line.split() for line in said.split("\n")]
    for arm in ("real", "traditional"):
        compared = 0 if arm == "real" else 1
        assert len([r for r in rows if r and r[0] == arm]) == 1 + 3 + compared
    assert "sensitivity" in said and "note: all is the same as traditional" in said


def test_info_shows_the_runs_as_they_can_be_typed_again(finished):
    said = printed(finished, "info")
    assert "augkit.store: images of 192x160 grey, 3 commits" in said
    assert "brightness.gain_range=0.8,1.2" in said and "zoom.exact=false" in said


def test_the_same_lines_again_change_nothing_and_say_so(copy):
    before = tree(copy)
    line = ("augment", "--plugin", "flip", "--n", "6")
    assert works(*line, cwd=copy).out == "run 'flip' is there already (18 images): nothing to do\n"
    assert works("evaluate", "--classifier", "linear", cwd=copy).out == printed(copy, "evaluate")
    assert "nothing to do" in works("ingest", "breast", cwd=copy).out
    assert tree(copy) == before


def test_another_seed_makes_another_run(copy):
    said = works("augment", "--plugin", "flip", "--n", "6", "--seed", "1", cwd=copy).out
    assert said.startswith("run 'flip-2': 18 new images") and "seed 1" in said


def test_a_run_can_be_named_and_its_options_given(copy):
    line = ("augment", "--plugin", "zoom", "-o", "side_range=0.8,0.9", "--total", "5")
    (made,) = works(*line, "--run", "close-up", "--json", cwd=copy).json
    assert (made["run"], made["plugin"], made["rows"], made["made"]) == (
        "close-up",
        "zoom",
        5,
        True,
    )
    run = works("info", "--json", cwd=copy).json["runs"][-1]
    assert run["options"] == {"zoom": {"side_range": [0.8, 0.9], "exact": False}}


# Keys of --json


REAL_KEYS = {"rows", "by_class", "by_part", "groups", "masks", "conflicts"}
RUN_KEYS = {"name", "plugin", "family", "rows", "by_class", "seed", "options", "model"}


def test_info_as_json_has_the_promised_keys(finished):
    found = works("info", "--json", cwd=finished).json
    assert {"store", "image", "classes", "real", "runs"} <= set(found)
    assert set(found["image"]) == {"height", "width", "channels"}
    assert set(found["real"]) >= REAL_KEYS
    assert set(found["real"]["by_part"]) == {"train", "validation", "test"}
    assert set(found["real"]["by_class"]) == set(found["classes"])
    assert isinstance(found["real"]["conflicts"], list)
    assert [run["name"] for run in found["runs"]] == ["flip", "brightness+zoom"]
    for run in found["runs"]:
        assert set(run) >= RUN_KEYS


def test_ingest_as_json_has_those_of_info_and_what_was_refused(finished, tmp_path):
    found = works("ingest", finished / "breast", "--json", cwd=tmp_path).json
    assert found["refused"] == []
    shown = works("info", "--json", cwd=tmp_path).json
    assert {key: found[key] for key in shown} == shown


def test_plugins_as_json_has_the_promised_keys(tmp_path):
    found = works("plugins", "--json", cwd=tmp_path).json
    assert {"augmenters", "classifiers", "failures"} <= set(found)
    for plugin in (*found["augmenters"], *found["classifiers"]):
        assert {"name", "family", "distribution", "version", "options"} <= set(plugin)
    by_name = {plugin["name"]: plugin for plugin in found["augmenters"]}
    assert {"flip", "brightness", "scale", "zoom"} <= set(by_name)
    assert by_name["zoom"]["options"]["side_range"] == [0.7, 1.0]
    assert "linear" in {plugin["name"] for plugin in found["classifiers"]}


def test_evaluate_as_json_has_the_promised_keys(finished):
    found = works("evaluate", "--classifier", "linear", "--json", cwd=finished).json
    top = {"classifier", "protocol", "weights", "reduced", "arms", "comparisons"}
    assert top <= set(found)
    assert (found["classifier"], found["protocol"]) == ("linear", "5 folds")
    assert [arm["name"] for arm in found["arms"]] == ["real", "traditional", "all", "balanced"]
    names = {"accuracy", "balanced_accuracy", "auroc", "f1", "mcc", "brier", "ece"}
    for arm in found["arms"]:
        assert {"name", "rows", "metrics"} <= set(arm)
        assert names <= set(arm["metrics"])
        for label in ("benign", "malignant", "normal"):
            kinds = ("sensitivity", "specificity", "ppv", "npv")
            assert {f"{kind}:{label}" for kind in kinds} <= set(arm["metrics"])
        for metric in arm["metrics"].values():
            assert set(metric) == {"value", "low", "high"}
    keys = {"arm", "versus", "metric", "difference", "low", "high", "p", "p_holm", "verdict"}
    decisive = []
    for comparison in found["comparisons"]:
        assert set(comparison) >= {*keys, "smallest_detectable"}
        decisive += [comparison] if comparison["verdict"] else []
    assert [(c["arm"], c["versus"], c["metric"]) for c in decisive] == [
        ("traditional", versus, "balanced_accuracy") for versus in ("real", "balanced")
    ]


def test_arms_and_partitions_can_be_chosen(finished):
    line = ("evaluate", "--classifier", "linear", "--arms", "real, flip", "--split", "60/20/20")
    found = works(*line, "--json", cwd=finished).json
    assert [arm["name"] for arm in found["arms"]] == ["real", "flip", "balanced"]
    assert found["protocol"] == "60/20/20"


# The other commands


def test_rows_are_written_with_the_promised_columns(copy):
    works("info", "--rows", "rows.csv", cwd=copy)
    with (copy / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["key", "dataset", "class", "group", "fold", "part"]
    assert len(rows) == 30
    assert rows[0]["key"] == "breast/benign/benign (1).png"
    assert {row["dataset"] for row in rows} == {"breast"}


def test_preview_draws_a_row_of_parents_and_one_for_each_run(copy):
    said = works("preview", "--n", "4", cwd=copy).out
    with Image.open(copy / "preview.png") as sheet:
        # 3 classes of 3 rows: margins of 16, gaps of 6, captions of 14 pixels.
        assert sheet.size == (2 * 16 + 4 * 192 + 3 * 6, 2 * 16 + 9 * (160 + 14 + 2 * 6))
        assert sheet.format == "PNG"
        lightest = sheet.convert("L").getextrema()[1]
    assert lightest == 255
    assert said == "preview.png: 36 images, 2 runs below their parents\n"


def test_preview_shows_the_runs_that_are_asked_for(copy):
    flags = ("--run", "flip", "--n", "2", "--output", "flips.png", "--seed", "3")
    assert works("preview", *flags, cwd=copy).out.startswith("flips.png: 12 images, 1 run")
    with Image.open(copy / "flips.png") as sheet:
        assert sheet.width == 2 * 16 + 2 * 192 + 6


def test_retract_takes_a_run_back_and_frees_its_name(copy):
    assert "'flip' is retracted" in works("retract", "flip", cwd=copy).out
    names = [run["name"] for run in works("info", "--json", cwd=copy).json["runs"]]
    assert names == ["brightness+zoom"]
    assert command("retract", "flip", cwd=copy).code == 2
    line = ("augment", "--plugin", "zoom", "--run", "flip", "--n", "1")
    assert "run 'flip': 3 new images" in works(*line, cwd=copy).out


def test_verify_finds_a_sound_store_sound(copy):
    assert works("verify", cwd=copy).out == ("augkit.store: 3 commits, 3 shards, 66 rows: sound\n")
    assert works("verify", "--json", cwd=copy).json["sound"] is True


@pytest.mark.parametrize("flag", [(), ("--json",)])
def test_verify_ends_with_2_and_the_problem_on_a_damaged_store(copy, flag):
    shard = max((copy / "augkit.store" / "shards").iterdir(), key=lambda p: p.stat().st_size)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    found = command("verify", *flag, cwd=copy)
    assert found.code == 2
    assert shard.stem in found.out and "not those that were committed" in found.out
    assert "sound" not in found.out or found.json["sound"] is False
    assert "Traceback" not in found.err


def test_a_damaged_store_ends_any_command_with_one_line(copy):
    entry = copy / "augkit.store" / "log" / "0000000001.json"
    entry.write_text(entry.read_text().replace("benign", "benigm"))
    for line in (
        ("info",),
        ("augment", "--plugin", "zoom"),
        ("evaluate", "--classifier", "linear"),
    ):
        found = command(*line, cwd=copy)
        assert (found.code, found.out) == (2, "")
        assert found.err.startswith("augkit: ") and found.err.count("\n") == 1
        assert "entry 1 of the log" in found.err and "damaged" in found.err


def test_pack_and_unpack_give_the_same_store_back(copy):
    assert works("pack", "small.h5", cwd=copy).out.startswith("small.h5: ")
    assert works("unpack", "small.h5", "big.store", cwd=copy).out == "big.store: 3 commits\n"
    shown = []
    for store in ("augkit.store", "small.h5", "big.store"):
        found = works("info", "--json", "--store", store, cwd=copy).json
        assert found.pop("store") == store
        del found["cache"]  # of each form its own
        shown.append(found)
        assert works("verify", "--store", store, cwd=copy).out.endswith("sound\n")
    assert shown[0] == shown[1] == shown[2]


@pytest.mark.parametrize("store", ["augkit.store", "packed.h5"])
def test_every_command_takes_either_form_of_a_store(copy, store):
    if store.endswith(".h5"):
        works("pack", store, cwd=copy)
    where = ("--store", store)
    works("ingest", "breast", *where, cwd=copy)
    works("augment", "--plugin", "scale", "--n", "2", *where, cwd=copy)
    works("preview", *where, cwd=copy)
    works("retract", "scale", *where, cwd=copy)
    found = works("info", "--json", *where, cwd=copy).json
    assert found["commits"] == 5 and found["store"] == store


def test_commands_find_the_store_of_their_folder(copy):
    inside = copy / "augkit.store"
    for line in (("info",), ("verify",), ("augment", "--plugin", "scale"), ("retract", "scale")):
        works(*line, cwd=inside)
    assert works("verify", cwd=copy).out.startswith("augkit.store: 5 commits")
    assert works("info", cwd=inside).out.startswith("augkit.store: images of")
    inside.rename(copy / "any-name")
    works("info", cwd=copy)


def test_plugins_lists_what_there_is_and_which_weights_are_here(tmp_path):
    said = works("plugins", cwd=tmp_path).out
    about = next(line.split() for line in said.split("\n") if line.startswith("zoom"))
    assert about[1:4] == ["traditional", "augkit", ak.__version__]
    facts = [line for line in said.split("\n") if line.startswith(("efficientnet-lite0", "nasnet"))]
    assert "4.7 M" in facts[2] and "224x224" in facts[2] and "yes" in facts[2].split()
    assert "88.8 M" in facts[3] and "331x331" in facts[3] and "timm" in facts[3]


def test_plugins_lists_the_options_of_one_as_they_are_typed(tmp_path):
    said = works("plugins", "zoom", cwd=tmp_path).out
    options = {line.split()[0]: line.split() for line in said.split("\n") if line}
    assert options["side_range"][1] == "0.7,1.0"
    assert options["exact"][1] == "false"
    assert "input_size" in works("plugins", "resnet", cwd=tmp_path).out
    wrong = command("plugins", "zom", cwd=tmp_path)
    assert wrong.code == 2 and "no plugin 'zom' (did you mean 'zoom'?)" in wrong.err


# Where things are said


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help_fits_on_one_screen_and_explains_every_flag(tmp_path, name):
    said = works(*([name] if name else []), "--help", cwd=tmp_path).out
    lines = said.rstrip("\n").split("\n")
    assert len(lines) <= 40 and max(map(len, lines)) <= 80
    assert "..." not in said.replace("COMMAND [ARGS]...", ""), "a summary is cut off"
    for parameter in (augkit.commands[name] if name else augkit).params:
        if parameter.param_type_name == "option":
            assert parameter.help and parameter.opts[-1] in said


def test_every_command_is_listed_with_a_summary(tmp_path):
    said = works("-h", cwd=tmp_path).out
    listed = {
        line.split()[0]: line.split()[1:]
        for line in said.split("Commands:\n")[1].split("\n")
        if line
    }
    assert sorted(listed) == COMMANDS
    assert all(listed.values())


def test_the_version_is_that_of_the_package(tmp_path):
    assert works("--version", cwd=tmp_path).out == f"augkit, version {ak.__version__}\n"


def test_messages_go_to_stderr_and_data_to_stdout(tmp_path):
    store = ak.DatasetStore.create(tmp_path / "toy.store", height=24, width=32)
    keys, labels = [str(i) for i in range(23)], ["many"] * 20 + ["few"] * 3
    ak.ingest_arrays(store, [images(23)], labels, keys=keys, find_relatives=False)
    line = ("evaluate", "--classifier", "linear", "--json")
    found = works(*line, cwd=tmp_path)
    assert json.loads(found.out)["classifier"] == "linear"
    assert "augkit: note: fold " in found.err
    assert all(said.startswith("augkit: ") for said in found.err.splitlines())


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


def take_long() -> None:
    with progress() as bar:
        bar("read", 1, 3)
        time.sleep(1.05)
        bar("read", 2, 3)
        bar("read", 3, 3)


@pytest.mark.seconds
def test_a_bar_is_drawn_on_stderr_for_what_takes_long(capsys, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    take_long()
    assert "read" in terminal.getvalue() and "/3" in terminal.getvalue()
    assert capsys.readouterr().out == ""


@pytest.mark.seconds
def test_no_bar_is_drawn_into_a_file(capsys):
    take_long()
    assert capsys.readouterr() == ("", "")


def test_no_bar_is_drawn_for_what_is_quick(capsys, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress() as bar:
        for done in range(4):
            bar("read", done, 3)
    assert (capsys.readouterr().out, terminal.getvalue()) == ("", "")


def process(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("augkit")
    return subprocess.run(
        [script, *arguments],
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, **environment},
    )


def test_in_a_real_process_stdout_is_json_and_nothing_else(finished):
    done = process("info", "--json", cwd=finished)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["real"]["rows"] == 30


def test_names_that_a_terminal_cannot_show_are_escaped(tmp_path):
    toy_store(tmp_path / "toy.store", classes=("benign", "乳腺"))
    done = process("info", cwd=tmp_path, PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u4e73\\u817a" in done.stdout


def test_a_reader_that_goes_away_is_no_error(finished):
    script = Path(sys.executable).with_name("augkit")
    done = subprocess.run(
        f"'{script}' info | true", shell=True, cwd=finished, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr


def test_ctrl_c_says_that_nothing_is_lost(finished, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("augkit.summary.info", stop)
    stopped = command("info", cwd=finished)
    assert stopped.code == 130
    assert stopped.err.strip().startswith("augkit: stopped; what was committed stays")
