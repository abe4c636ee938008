"""Errors teach: every message names a way out, and a command line shows each that a user can reach.

The messages are taken from the syntax trees, with what functions return that make one: a new one
is found by itself. `NOT_BY_COMMAND` has those that no command line of the tests reaches, with
the reason.
"""

import ast
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from commands import command
from error_reasons import NOT_BY_COMMAND
from toys import toy_store

from augkit import errors
from augkit.errors import AugkitError, DamagedStore, PluginFailed

ROOT = Path(__file__).parents[1]

KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, AugkitError)
}


@dataclass(frozen=True)
class Template:
    """A message as the source makes it: fixed text, and places for values."""

    file: str
    line: int
    kind: str
    pattern: str
    """A regular expression, `.*` for values."""

    @property
    def text(self) -> str:
        """Return it with dots for values."""
        return re.sub(r"\\(.)", r"\1", self.pattern.replace(".*", "..."))

    def fits(self, message: str) -> bool:
        """Return True for such a message; what is wrong with one of many files stands within it."""
        within = self.file.startswith("augkit/ingestion/")
        match = re.search if within else re.fullmatch
        return match(self.pattern, message, re.DOTALL) is not None


@cache
def templates() -> tuple[Template, ...]:
    """Return what every error of users says, but for those that only pass on another's words."""
    found = set()
    for path in sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _name(node.func) in KINDS and node.args:
                for pattern in patterns(node.args[0], tree):
                    if re.search(r"\w{3}", pattern):
                        file = path.relative_to(ROOT).as_posix()
                        found.add(Template(file, node.lineno, _name(node.func), pattern))
    return tuple(sorted(found, key=lambda t: (t.file, t.line, t.pattern)))


def sources() -> list[Path]:
    return [
        p for place in ("augkit", "cli", "plugins") for p in sorted((ROOT / place).rglob("*.py"))
    ]


def patterns(node: ast.expr, tree: ast.AST) -> set[str]:
    """Return the forms of a text: those of both branches, or those that a function here returns."""
    if isinstance(node, ast.IfExp):
        return patterns(node.body, tree) | patterns(node.orelse, tree)
    if isinstance(node, ast.Call):
        made = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)]
        said = [f for f in made if f.name == _name(node.func)]
        returned = [n.value for f in said for n in ast.walk(f) if isinstance(n, ast.Return)]
        return {pattern(value) for value in returned if value is not None}
    return {pattern(node)}


@cache
def constants() -> dict[str, str]:
    """Return the texts that modules give a name in capitals, such as EXPECTED."""
    return {
        target.id: node.value.value
        for path in sources()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value.value, str)
    }


def pattern(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return re.escape(str(node.value))
    if isinstance(node, ast.JoinedStr):
        return "".join(map(pattern, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return pattern(node.left) + pattern(node.right)
    plain = isinstance(node, ast.FormattedValue) and node.conversion == -1
    if plain and isinstance(node.value, ast.Name):
        return re.escape(constants().get(node.value.id, "")) or ".*"
    return ".*"


def _name(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]


# -- a way out -----------------------------------------------------------------------------------

WAYS = re.compile(
    r"augkit [a-z]|--[a-z]|-o [a-z]|--\.\.\.|pip install|docs/|\.csv"  # a command, flag, page
    r"|\b(again|add|ask for|chain it|choose|copy|delete|export (it|the)|fill|give|ingest|install|"
    r"leave|lower|make|mend|move|name|open it|purge|put|remove|repeat|run (it|this)|save|say|"
    r"scale|set|split it|take|train|try|unpack|use|wait|write)\b"  # what to do
    r"|\b(must|may be|needs?|needed|at (least|most)|one of|such as|like|limits?( is| are)?|known|"
    r"did you mean|least is|ends in|fewer|smaller|comes? first|as augkit)\b"  # what would do
    r"|\b(its|the|there) [\w ]*(are|is):? |\b(its|it) \w+: |expected |keep one|\bread are: "
    r"|\bto \.\.\.; |\btakes? "
    r"|(images|labels|sides|volumes|options|sections|pictures?|weights|it) (are|is|count) ",
    re.IGNORECASE,
)


@pytest.mark.seconds
def test_every_message_names_a_way_out():
    without = [
        f"{t.file}:{t.line}: {t.text}"
        for t in templates()
        if not WAYS.search(t.text) and not KINDS[t.kind].remedy and t.text not in PLAIN
    ]
    assert without == []


PLAIN = {
    "... lists no image that can be read; the first: ... ...",
    "... lists no real image that can be read...",
    "... holds no real image that can be read...",
    "plugin ... of ... cannot be used: ...",
    "timm has no network ......",
}
"""Messages whose way out is in the values: the first bad file, the cause, a name that is close."""


@pytest.mark.parametrize(
    "text", ["invalid run", "store.h5 is damaged", "the file could not be read", "..."]
)
def test_a_message_that_helps_nobody_would_be_seen(text):
    assert not WAYS.search(text)


@pytest.mark.parametrize("kind", [DamagedStore, PluginFailed])
def test_the_remedy_of_a_class_is_told_where_a_message_has_none(kind):
    assert kind("it broke").told() == f"it broke; {kind.remedy}"
    assert kind("it broke: augkit verify").told() == "it broke: augkit verify"
    assert AugkitError("it broke").told() == "it broke"


def test_a_command_line_tells_the_remedy(tmp_path):
    store = toy_store(tmp_path / "toy.store", 2)
    (store.path / "log/0000000001.json").write_bytes(b"{}")
    told = command("info", "--store", "toy.store", cwd=tmp_path)
    assert told.code == 2 and told.err.endswith(f"; {DamagedStore.remedy}\n")


# -- every one reached ---------------------------------------------------------------------------

READERS = (
    "appraisal", "bad_input", "cli", "conformance", "exporting", "filmstrips", "fitting", "given",
    "hostile_plugins", "ingest", "layouts", "npz", "purging", "refusals", "replaying",
    "scaffolding", "screening", "stores", "windowing",
)  # fmt: skip
"""The files whose tests type command lines."""


@pytest.mark.slow
def test_every_message_is_met_by_a_command_line_or_excused(tmp_path):
    notes = tmp_path / "messages.jsonl"
    files = [ROOT / f"tests/test_{name}.py" for name in READERS]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--seconds", "-p", "messages",
         "-p", "no:cacheprovider", "--deselect", "tests/test_cli.py::test_demo_goes_the_whole_way",
         *[file for file in files if file.exists()]],
        cwd=ROOT, capture_output=True, text=True,
        env=os.environ
        | {"AUGKIT_TEST_MESSAGES": str(notes)}
        | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    lines = notes.read_text().splitlines()
    met = {message for how, message in map(json.loads, lines) if how == "command"}
    unmet, stale = judged(met)
    assert unmet == []
    assert stale == []


def judged(met: set[str]) -> tuple[list[str], list[str]]:
    """Return which messages nobody met and none excuses, and which excuses are for none."""
    reached = {t for t in templates() if any(t.fits(m) or t.fits(_bare(m, t)) for m in met)}
    excused = {t for t in templates() if _is_excused(t)}
    unmet = [f"{t.file}:{t.line}: {t.text}" for t in templates() if t not in reached | excused]
    return unmet, [
        f"{file}: {text}"
        for file, texts in excuses()
        for text in texts
        if text != ALL and not any(t.file == file and text in t.text for t in templates())
    ]


def _bare(message: str, template: Template) -> str:
    """Return a message without the remedy of its class."""
    return message.removesuffix(f"; {KINDS[template.kind].remedy}")


ALL = "*"


def excuses() -> list[tuple[str, tuple[str, ...]]]:
    return [item for files in NOT_BY_COMMAND.values() for item in files.items()]


def _is_excused(template: Template) -> bool:
    return any(
        template.file == file and any(text == ALL or text in template.text for text in texts)
        for file, texts in excuses()
    )


def test_what_excuses_a_message_is_still_there():
    assert judged(set())[1] == []


def test_a_new_message_that_no_command_line_shows_would_be_seen(monkeypatch):
    new = Template("augkit/x.py", 1, "OptionError", "something new: .*")
    monkeypatch.setitem(globals(), "templates", lambda: (new,))
    assert judged({"something old: 1"})[0] == ["augkit/x.py:1: something new: ..."]
    assert judged({"something new: 1"})[0] == []
