"""The example package of the docs, installed and used as a stranger would, by its own README."""

import json
import shlex
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from augkit.testing import write_phantoms

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "augkit-ultrasound"

pytestmark = pytest.mark.slow


def run(*command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{shlex.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of a new environment: what is installed here, and the example package."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", symlinks=True)
    executable = folder / "venv" / "bin" / "python"
    (packages,) = folder.glob("venv/lib/python*/site-packages")
    here = sysconfig.get_path("purelib")
    # addsitedir, unlike a plain line, also reads the .pth files there: augkit may be editable.
    (packages / "here.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    copy = shutil.copytree(EXAMPLE, folder / EXAMPLE.name)
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    run(executable, "-m", "pip", "install", "--quiet", *offline, copy, folder=folder)
    assert (packages / "augkit_ultrasound.py").is_file()
    return executable


@pytest.fixture(scope="module")
def augkit(python, tmp_path_factory):
    """Return a function that runs augkit in a folder with synthetic images."""
    folder = tmp_path_factory.mktemp("work")
    write_phantoms(folder / "images", 24, height=48, width=64)
    code = "from augkit_cli.main import run; run()"
    return lambda *arguments: run(python, "-c", code, *arguments, folder=folder)


def readme_commands():
    block = (EXAMPLE / "README.md").read_text().split("```sh\n")[1].split("```")[0]
    return [shlex.split(line) for line in block.splitlines() if line.startswith("augkit ")]


def test_the_commands_of_its_readme_do_what_it_says(augkit):
    commands = readme_commands()
    assert {c[1] for c in commands} == {"plugins", "ingest", "augment", "evaluate"}
    for _, *arguments in commands[:-1]:
        augkit(*arguments)
    result = json.loads(augkit(*commands[-1][1:], "--json"))
    assert result["classifier"] == "nearest-mean"
    arms = {arm["name"]: arm["metrics"]["balanced_accuracy"] for arm in result["arms"]}
    assert set(arms) >= {"real", "traditional"}
    assert all(metric["low"] <= metric["value"] <= metric["high"] for metric in arms.values())
    assert arms["real"]["value"] > 1 / 3
    runs = json.loads(augkit("info", "--json"))["runs"]
    assert [r["plugin"] for r in runs] == ["depth-gain", "flip+depth-gain"]
    assert runs[0]["options"]["depth-gain"]["gain_range"] == [-3.0, 3.0]


def test_it_is_listed_beside_the_built_in_plugins(augkit):
    listed = json.loads(augkit("plugins", "--json"))
    assert listed["failures"] == []
    for kind, name in (("augmenters", "depth-gain"), ("classifiers", "nearest-mean")):
        (plugin,) = [p for p in listed[kind] if p["name"] == name]
        assert (plugin["distribution"], plugin["version"]) == ("augkit-ultrasound", "0.3.0")
        assert any(p["distribution"] == "augkit" for p in listed[kind])


def test_its_own_tests_pass(python, tmp_path):
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    plain = ("-q", "-W", "error", "-p", "no:cacheprovider")
    shown = run(python, "-m", "pytest", *plain, "tests", folder=tmp_path)
    assert " passed" in shown and "failed" not in shown
