"""The tutorial of docs/plugins.md, typed to the letter: every line of it, and nothing else."""

import os
import re
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[1] / "docs" / "plugins.md"
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}
"""For want of a network; to pip the last one means that there is no isolation."""


def tutorial():
    """Return the blocks of the tutorial, each with its language."""
    section = DOCUMENT.read_text().split("## From an empty folder")[1].split("\n## ")[0]
    return re.findall(r"```(\w+)\n(.*?)```", section, re.S)


@pytest.fixture
def environment(tmp_path):
    """A new environment with what is installed here, as it is after it was activated."""
    folder = tmp_path / "venv"
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # addsitedir, unlike a plain line, also reads the .pth files there: augkit may be editable.
    here = sysconfig.get_path("purelib")
    (packages / "here.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    for name, code in (
        ("augkit", "from augkit_cli.main import run; run()"),
        ("pip", "from pip._internal.cli.main import main; raise SystemExit(main())"),
    ):
        script = folder / "bin" / name
        script.write_text(f"#!{folder}/bin/python\n{code}\n")
        script.chmod(0o755)
    path = f"{folder}/bin{os.pathsep}{os.environ['PATH']}"
    return os.environ | OFFLINE | {"PATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def type_in(lines, folder, environment):
    """Run lines as a shell does, and end at the first that fails."""
    done = subprocess.run(
        ["bash", "-e", "-c", lines],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{lines}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_it_takes_twenty_lines_of_typing():
    blocks = tutorial()[:3]
    assert [language for language, _ in blocks] == ["sh", "python", "sh"]
    typed = [line for _, text in blocks for line in text.splitlines() if line.strip()]
    assert len(typed) <= 20


@pytest.mark.slow
def test_every_line_of_it_does_what_it_says(tmp_path, environment):
    (_, begin), (_, plugin), (_, use), (_, test) = tutorial()
    work = tmp_path / "empty"
    work.mkdir()
    type_in(begin, work, environment)
    package = work / "augkit-speckle"
    module = package / "augkit_speckle.py"
    module.write_text(module.read_text().partition("@dataclass\n")[0] + plugin)
    said = type_in(use, package, environment)
    assert "checks done, the contract is kept" in said
    assert "augmenter speckle, augkit-speckle 0.1.0" in said
    assert "standard deviation of the factor" in said
    assert (package / "preview.png").is_file()
    (package / "tests" / "test_augkit_speckle.py").write_text(test)
    assert "1 passed" in type_in("python -m pytest -W error", package, environment)
    said = type_in("augkit plugin check augkit-speckle", tmp_path, environment)  # the installed one
    assert said.endswith("the contract is kept\n")
