"""Every command and every block of Python in the documents is typed, page by page, to the letter.

Each page has a folder of its own, in which lies what its reader is supposed to have: synthetic
images instead of patients. A block that cannot be run says why, in a comment over it; how many
these may be is bounded. Numbers that are printed are not compared: they are of other images.
"""

import ast
import csv
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import augkit as ak
from augkit.designs import Design
from augkit.testing import write_phantoms

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]

ELSEWHERE = {
    ("docs/plugins.md", "sh"): "test_tutorial.py",
    ("docs/plugins.md", "python"): "test_tutorial.py",
    ("docs/examples/augkit-ultrasound/README.md", "sh"): "test_example_package.py",
    ("docs/examples/augkit-ultrasound/README.md", "python"): "test_example_package.py",
    ("docs/export.md", "python"): "test_exporting.py",
    ("docs/ingest.md", "sh"): "test_ingest_page.py",
    ("docs/ingest.md", "python"): "test_ingest_page.py",
}
"""Blocks that another file of tests runs, since they need an environment of their own."""

SHORTER = (
    (r"--n 5000\b", "--n 8"),
    (r"--plugin dagan\b", r"\g<0> -o preset=quick -o steps=2"),
    (r"(--classifier efficientnet-lite0) --folds 5\b", r"\1 --folds 2"),
)
"""What is typed instead, so that a page takes a minute and not a day."""

MOST_NOT_RUN = 0.15
"""The largest share of blocks that may be marked as not run."""


@dataclass(frozen=True)
class Block:
    """One block of code of a page."""

    page: str
    kind: str
    """sh, python, yaml, make, or text: what is there only to be read."""
    text: str
    """What is typed; of a dialogue, the lines after `$`."""
    not_run: str
    """Why it is not run; empty if it is."""


FENCE = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+) -->\n)?"
    r"(?P<indent> *)```(?P<language>\w*)\n(?P<body>.*?)^(?P=indent)```",
    re.M | re.S,
)


def blocks(path: Path) -> Iterator[Block]:
    """Yield the blocks of a page in order."""
    page = str(path.relative_to(ROOT))
    for found in FENCE.finditer(path.read_text()):
        body = re.sub(f"^{found['indent']}", "", found["body"], flags=re.M)
        kind = found["language"] or kind_of(body)
        if body.startswith("$ "):
            lines = re.findall(r"^\$ ((?:.*\\\n)*.*)$", body, re.M)
            body = "\n".join(lines) + "\n"
        yield Block(page, kind, body, found["why"] or "")


def kind_of(body: str) -> str:
    """Return what a block without a language holds, by its first line."""
    first = body.partition("\n")[0]
    if re.match(r"(\$ )?(augkit|pip|ray) |#SBATCH|#!/bin/bash", first):
        return "sh"
    return "make" if first.startswith("make ") else "text"


def every_block() -> list[Block]:
    return [block for path in PAGES for block in blocks(path)]


# What can be seen without running anything


def test_each_block_is_of_a_kind_that_is_known():
    known = {"sh", "python", "yaml", "make", "text", "toml"}
    assert {block.kind for block in every_block()} <= known
    assert {block.kind for block in every_block()} >= {"sh", "python", "yaml"}


def test_few_blocks_are_not_run_and_each_says_why():
    to_run = [block for block in every_block() if block.kind in ("sh", "python")]
    left = [block for block in to_run if block.not_run]
    for block in left:
        print(f"not run, {block.not_run}: {block.page}: {block.text.splitlines()[0]}")
    assert len(to_run) > 40
    assert len(left) <= MOST_NOT_RUN * len(to_run), left
    assert not [block for block in left if block.kind == "python"]


def test_a_mark_stands_right_over_its_block():
    for path in PAGES:
        marks = path.read_text().count("<!-- not run")
        assert marks == sum(bool(block.not_run) for block in blocks(path)), path


def test_what_is_run_elsewhere_is_run_there():
    for (page, _), test in ELSEWHERE.items():
        names = {page, *Path(page).parts[1:], Path(page).name}
        text = (ROOT / "tests" / test).read_text()
        assert any(f'"{name}"' in text for name in names), page
        assert any(block.page == page for block in every_block())


def test_python_in_the_documents_is_python():
    for block in every_block():
        if block.kind == "python":
            ast.parse(block.text, block.page)


def test_studies_in_the_documents_are_studies():
    found = [block for block in every_block() if block.kind == "yaml"]
    assert len(found) >= 2
    for block in found:
        assert Design.of(yaml.safe_load(block.text), block.page).classifiers


def test_what_make_is_told_it_knows():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for path in (*PAGES, ROOT / "CONTRIBUTING.md"):
        for block in blocks(path):
            if block.kind == "make":
                for line in block.text.splitlines():
                    assert_known(shlex.split(line, comments=True), targets, path)


def assert_known(words: list[str], targets: set[str], path: Path) -> None:
    """Assert that make has these targets, or that Python has that module of ours."""
    if words[:1] == ["make"]:
        assert {word for word in words[1:] if word.isalpha()} <= targets, (path, words)
    elif words:
        ours = [word for word in words if re.match(r"(benchmarks|tests)[./]", word)]
        for word in ours:
            file = word if "/" in word else word.replace(".", "/") + ".py"
            assert (ROOT / file).exists(), (path, word)


def test_every_public_name_is_in_the_reference():
    named = set(re.findall(r"^::: augkit\.(\w+)$", (ROOT / "docs/python.md").read_text(), re.M))
    assert "errors" in named
    assert {*ak.__all__} - {"AugkitError"} <= named


def test_every_page_is_in_the_navigation():
    text = (ROOT / ".ci" / "mkdocs.yml").read_text()
    listed = re.findall(r"[\w/-]+\.md", text.partition("\nnav:")[2])
    assert len(listed) == len(set(listed))
    assert {*listed} == {str(path.relative_to(ROOT / "docs")) for path in PAGES[1:]}


def test_ten_lines_of_h5py_are_ten_lines():
    first = next(b for b in blocks(ROOT / "docs" / "inside.md") if b.kind == "python")
    assert len([line for line in first.text.splitlines() if line.strip()]) <= 10


# What a reader has in the folder where a page is typed


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images and stores of all kinds that pages speak of; it is only copied from."""
    shelf = tmp_path_factory.mktemp("shelf")
    images = write_phantoms(
        shelf / "Dataset_BUSI_with_GT", 24, height=96, width=115, difficulty=0.2, variety=1
    )
    manifest(images)
    ak.ingest(images / "groups.csv", shelf / "busi.store", dataset="busi")
    store = ak.open(shelf / "busi.store")
    ak.augment_all(store, ["flip", "brightness", "scale", "zoom"])
    ak.augment(store, "dagan", {"preset": "quick", "steps": 2}, n=8)
    ak.pack(store, shelf / "busi.h5")
    patients = write_phantoms(shelf / "scans", 22, height=96, width=115, difficulty=0.2, seed=1)
    for mask in patients.glob("*/*_mask.png"):
        mask.unlink()
    for number, path in enumerate(sorted(patients.glob("*/*.png"))):
        path.rename(path.parent / f"P{number:03}_left.png")
    (shelf / "study.yaml").write_text("classifiers: [linear]\narms: [real, flip]\nfolds: 5\n")
    return shelf


def manifest(images: Path) -> None:
    """Write groups.csv: each image a patient of its own, so that no chance joins phantoms."""
    with open(images / "groups.csv", "w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["image", "class", "mask", "group"])
        found = [p for p in sorted(images.glob("*/*.png")) if not p.stem.endswith("_mask")]
        for number, path in enumerate(found):
            name = path.relative_to(images)
            mask = name.with_name(f"{name.stem}_mask.png")
            lines.writerow([name, name.parts[0], mask, f"patient-{number}"])


NEEDS: dict[str, dict[str, str]] = {
    "README.md": {"Dataset_BUSI_with_GT": "Dataset_BUSI_with_GT", "busi.h5": "busi.h5"},
    "docs/quickstart.md": {"my-images": "Dataset_BUSI_with_GT"},
    "docs/own-study.md": {"my-images": "scans"},
    "docs/concepts.md": {"my.store": "busi.store"},
    "docs/inside.md": {"my.store": "busi.store"},
    "docs/ray.md": {"my.store": "busi.store", "study.yaml": "study.yaml"},
    "docs/gpu.md": {"busi.store": "busi.store", "study.yaml": "study.yaml"},
    "docs/studies.md": {"busi.store": "busi.store", "study.yaml": "study.yaml"},
    "docs/store.md": {"busi.store": "busi.store", "busi.h5": "busi.h5"},
}
"""What lies in the folder of a page, and what on the shelf it is; else a store, busi.store."""


@pytest.fixture
def desk(shelf: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that lays out what the reader of a page has, and returns the folder."""

    def lay_out(page: str) -> Path:
        for name, source in NEEDS.get(page, {"busi.store": "busi.store"}).items():
            copy = shutil.copytree if (shelf / source).is_dir() else shutil.copy
            copy(shelf / source, tmp_path / name)
        return tmp_path

    return lay_out


# What is typed


def shorter(text: str) -> str:
    """Return lines with less to do."""
    lines = text.replace("\\\n", " ").splitlines()
    for pattern, instead in SHORTER:
        lines = [re.sub(pattern, instead, line) for line in lines]
    return "\n".join(lines)


def type_in(text: str, folder: Path, **more: str) -> str:
    """Run lines as a shell does, and end at the first that fails; return what was printed."""
    environment = os.environ | {
        "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}",
        "AUGKIT_OFFLINE": "1",
        "COLUMNS": "100",
    }
    done = subprocess.run(
        ["bash", "-e", "-c", shorter(text)],
        cwd=folder,
        env=environment | more,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr
    return done.stdout


def typed(path: Path) -> list[Block]:
    """Return the blocks of a page that are typed here."""
    kinds = ("sh", "python", "yaml")
    return [
        block
        for block in blocks(path)
        if block.kind in kinds and not block.not_run and (block.page, block.kind) not in ELSEWHERE
    ]


def pages_to_type() -> list[Path]:
    return [path for path in PAGES if any(block.kind != "yaml" for block in typed(path))]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of libraries that a reader sees as well
@pytest.mark.parametrize("path", pages_to_type(), ids=lambda path: path.stem)
def test_every_line_of_a_page_does_what_it_says(path, desk, monkeypatch):
    page = str(path.relative_to(ROOT))
    if page == "docs/ray.md":
        pytest.importorskip("ray")
    folder = desk(page)
    monkeypatch.chdir(folder)
    names: dict[str, object] = {"__name__": "page", "ak": ak}
    for block in typed(path):
        if block.kind == "yaml":
            if not (folder / "study.yaml").exists():
                (folder / "study.yaml").write_text(block.text)
        elif block.kind == "sh":
            type_in(block.text, folder)
        else:
            exec(compile(block.text, page, "exec"), names)


# The script for Slurm, with stand-ins for its two commands

SRUN = """#!/bin/bash
# Runs the command; the first time it is told to stop as soon as it says how long a step takes.
"$@" -o preset=quick -o steps=8 2> said &
if [ ! -e stopped ]; then
    until grep -q "a step" said; do
        kill -0 $! || exit 99
        sleep 0.05
    done
    touch stopped
    kill -TERM $!
fi
wait $!
"""


@pytest.mark.slow
def test_the_script_for_slurm_goes_on_after_it_was_stopped(desk, shelf):
    folder = desk("docs/gpu.md")
    (script,) = (b for b in blocks(ROOT / "docs" / "gpu.md") if "scontrol" in b.text)
    (folder / "job.sh").write_text(script.text)
    (folder / "bin").mkdir()
    for name, text in (("srun", SRUN), ("scontrol", '#!/bin/bash\necho "$@" >> queued\n')):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    first, second = run_job(folder), run_job(folder)
    assert first.returncode == 128 + signal.SIGINT, first.stderr
    assert (folder / "queued").read_text() == "requeue 7\n"
    assert second.returncode == 0, second.stderr
    assert "complete" in second.stdout
    assert (folder / "queued").read_text() == "requeue 7\n"  # no second time


def run_job(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the script as a job of Slurm."""
    scripts = sysconfig.get_path("scripts")
    return subprocess.run(
        ["bash", "job.sh"],
        cwd=folder,
        env=os.environ
        | {"PATH": f"{folder}/bin:{scripts}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_the_scripts_are_those_of_this_python():
    assert (Path(sysconfig.get_path("scripts")) / "augkit").exists(), sys.executable
