"""New packages of plugins: complete, working at once, and written over nothing."""

import os
import subprocess
import sys
import tomllib

import pytest
from commands import command, works

from augkit.errors import InputError, OptionError
from augkit.examination import check
from augkit.scaffolding import new

KINDS = ("augmenter", "classifier")


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_keeps_the_contract_at_once(tmp_path, kind):
    written = new("two-words", kind, tmp_path / "p")
    found = check(written.folder)
    assert found.sound, str(found)
    assert {f.plugin for f in found.findings} == {"augkit-two-words", "two-words"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_its_own_tests_pass_at_once(tmp_path, kind):
    folder = new("two-words", kind, tmp_path / "p").folder
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},  # as an installation would
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_it_has_an_entry_point_tests_and_a_readme_without_holes(tmp_path, kind):
    written = new("two-words", kind, tmp_path / "p")
    files = {str(p.relative_to(tmp_path / "p")) for p in (tmp_path / "p").rglob("*.*")}
    assert files == set(written.files) | {"pyproject.toml"}
    assert {"README.md", "augkit_two_words.py", "tests/test_augkit_two_words.py"} < files
    about = tomllib.loads((written.folder / "pyproject.toml").read_text())
    assert about["project"]["name"] == "augkit-two-words"
    assert about["project"]["entry-points"]["augkit"] == {"two-words": "augkit_two_words"}
    texts = [(written.folder / file).read_text() for file in written.files]
    assert not any("$" in text for text in texts)
    assert all(len(line) <= 88 for text in texts for line in text.splitlines())


@pytest.mark.parametrize(
    "name, said",
    [
        ("Blur", "lower case, hyphenated. Type: augkit plugin new blur"),
        ("my blur", "Type: augkit plugin new my-blur"),
        ("a+b", "Type: augkit plugin new a-b"),
        ("-blur-", "Type: augkit plugin new blur"),
        ("../blur", "Type: augkit plugin new blur"),
        ("3d", "Type: augkit plugin new d"),
        ("", "Type: augkit plugin new speckle"),
        ("x" * 41, "Type: augkit plugin new " + "x" * 37),
        ("Flip", "Type: augkit plugin new my-flip"),
        ("flip", "a built-in plugin has this name. Type: augkit plugin new my-flip"),
        ("linear", "a built-in plugin has this name. Type: augkit plugin new my-linear"),
        ("augmenter", "what all of them are called. Type: augkit plugin new my-augmenter"),
        ("cli", "a module augkit_cli is installed already. Type: augkit plugin new my-cli"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_with_one_that_can(tmp_path, name, said):
    with pytest.raises(OptionError) as caught:
        new(name, folder=tmp_path / "p")
    assert str(caught.value).endswith(said) and repr(name) in str(caught.value)
    assert not (tmp_path / "p").exists()
    new(str(caught.value).split()[-1], folder=tmp_path / "p")


def test_what_is_to_be_typed_keeps_the_kind(tmp_path):
    with pytest.raises(OptionError, match="new my-flip --classifier"):
        new("flip", "classifier", tmp_path / "p")
    with pytest.raises(OptionError, match="kind is 'chain'; it is one of: augmenter, classifier"):
        new("blur", "chain", tmp_path / "p")


def test_nothing_is_overwritten(tmp_path):
    new("blur", folder=tmp_path / "p")
    (tmp_path / "p" / "README.md").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for there in ("p", "file"):
        with pytest.raises(InputError, match="exists already, and nothing is overwritten"):
            new("blur", folder=tmp_path / there)
    assert (tmp_path / "p" / "README.md").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/p cannot be written: Not a directory"):
        new("blur", folder=tmp_path / "file" / "p")


def test_the_command_says_what_it_wrote_and_what_to_type_next(tmp_path):
    said = works("plugin", "new", "blur", cwd=tmp_path).out
    assert said.startswith("augkit-blur: the augmenter blur, complete and working\n")
    assert (tmp_path / "augkit-blur" / "augkit_blur.py").is_file()
    lines = [line.split() for line in said.splitlines() if line.startswith("  augkit plugin check")]
    ((_, *arguments),) = lines
    works(*arguments, cwd=tmp_path)
    said = works("plugin", "new", "near", "--classifier", "--folder", "a/b", cwd=tmp_path).out
    assert said.startswith("a/b: the classifier near") and (tmp_path / "a/b/README.md").is_file()
    refused = command("plugin", "new", "blur", cwd=tmp_path)
    assert refused.code == 2
    assert refused.err == (
        "augkit: augkit-blur exists already, and nothing is overwritten. "
        "Write elsewhere: augkit plugin new blur --folder FOLDER\n"
    )


@pytest.mark.parametrize("name", [(), ("new",), ("check",)])
def test_help_fits_on_a_screen(tmp_path, name):
    said = works("plugin", *name, "--help", cwd=tmp_path).out
    assert max(map(len, said.splitlines())) <= 80 and "..." not in said.replace("[ARGS]...", "")
