"""Plugins of strangers, found as installed packages are: a broken one breaks only itself."""

import importlib.metadata
import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from augkit import registry
from augkit.errors import OptionError, PluginFailed, PluginNotFound
from augkit.rehearsal import rehearse

OWN = {"brightness", "flip", "scale", "zoom"}

PREFIX = """
from dataclasses import dataclass
from augkit import Augmenter, Classifier, hookimpl, option
"""

GOOD = """
@dataclass
class Invert(Augmenter):
    name = "invert"
    white: int = 255

    def apply(self, images, labels, params):
        return self.white - images

@hookimpl
def register_augmenters():
    return [Invert]
"""


def offering(body, hook="register_augmenters"):
    """Source of a module that offers a class X with this body."""
    base = "Augmenter" if hook == "register_augmenters" else "Classifier"
    lines = "\n".join(f"    {line}" for line in dedent(body).strip().splitlines())
    return f"@dataclass\nclass X({base}):\n{lines}\n\n@hookimpl\ndef {hook}():\n    return [X]\n"


APPLY = "def apply(self, images, labels, params): return images"

BROKEN = {
    "import-error": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such"),
    "exit": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "syntax-error": ("def (", "SyntaxError: "),
    "raises-at-import": ("1 / 0", "ZeroDivisionError: division by zero"),
    "misspelt-hook": (
        "@hookimpl\ndef register_augmenter():\n    return []",
        "unknown hook 'register_augmenter'",
    ),
    "unmarked-hook": (
        "def register_augmenters():\n    return []",
        "offers neither register_augmenters nor register_classifiers",
    ),
    "wrong-signature": (
        "@hookimpl\ndef register_augmenters(store):\n    return []",
        "Argument(s) {'store'} are declared in the hookimpl but can not be found",
    ),
    "hook-raises": (
        "@hookimpl\ndef register_augmenters():\n    raise OSError('disk on fire')",
        "register_augmenters() failed: OSError: disk on fire",
    ),
    "hook-exits": (
        "@hookimpl\ndef register_classifiers():\n    raise SystemExit('bye')",
        "register_classifiers() failed: SystemExit: bye",
    ),
    "import-is-cancelled": (
        "import asyncio\nraise asyncio.CancelledError('late')",
        "CancelledError: late",
    ),
    "hook-is-cancelled": (
        "import asyncio\n@hookimpl\ndef register_augmenters():\n    raise asyncio.CancelledError",
        "register_augmenters() failed: CancelledError",
    ),
    "error-that-cannot-speak": (
        "class Mute(Exception):\n    def __str__(self): raise ValueError\nraise Mute",
        "Mute",
    ),
    "class-that-cannot-be-shown": (
        "class Odd:\n    def __repr__(self): raise ValueError('no')\n"
        "@hookimpl\ndef register_augmenters():\n    return [Odd()]",
        "a class cannot be read: ValueError: no",
    ),
    "hook-forgets-return": (
        "@hookimpl\ndef register_augmenters():\n    [1]",
        "returned None instead of a list of classes",
    ),
    "hook-returns-text": (
        "@hookimpl\ndef register_augmenters():\n    return 'invert'",
        "returned str instead of a list of classes",
    ),
    "hook-returns-class": (
        "@hookimpl\ndef register_augmenters():\n    return Augmenter",
        "instead of a list of classes",
    ),
}

BROKEN_CLASSES = {
    "no-class": ("@hookimpl\ndef register_augmenters():\n    return [42]", "42", "is no augmenter"),
    "wrong-kind": (
        offering(f"name = 'x'\n{APPLY}") + "\n@hookimpl\ndef register_classifiers(): return [X]",
        "x",
        "is no classifier",
    ),
    "abstract": (
        offering("name = 'half'\ndef fit(self, a, b, c): pass", "register_classifiers"),
        "half",
        "does not define predict_proba",
    ),
    "no-apply": (offering("name = 'idle'"), "idle", "defines none of apply, as_window, as_lut"),
    "no-name": (offering(APPLY), "X", "name '' is not lower-case letters"),
    "long": (offering(f"name = {'x' * 101!r}\n{APPLY}"), "x" * 100, "has 101 letters, over 100"),
    "capital": (offering(f"name = 'Blur'\n{APPLY}"), "Blur", "name 'Blur' is not lower-case"),
    "plus": (offering(f"name = 'a+b'\n{APPLY}"), "a+b", "name 'a+b' is not lower-case"),
    "number": (offering(f"name = 7\n{APPLY}"), "7", "name 7 is not lower-case"),
    "typed-name": (
        offering(f"name: str = 'typed'\n{APPLY}"),
        "typed",
        "'name' has a type, which makes it an option",
    ),
    "family": (
        offering(f"name = 'x'\nfamily = 'magic'\n{APPLY}"),
        "x",
        "family 'magic' is neither traditional nor generative",
    ),
    "no-dataclass": (
        offering(f"name = 'x'\n{APPLY}").replace("@dataclass\n", ""),
        "x",
        "is not a dataclass",
    ),
    "no-default": (
        offering(f"name = 'x'\ngain: float\n{APPLY}"),
        "x",
        "option 'gain' has no default value",
    ),
    "wrong-default": (
        offering(f"name = 'x'\ngain: float = 'much'\n{APPLY}"),
        "x",
        "the default of option 'gain' is 'much'; it must be a number",
    ),
    "numpy-default": (
        "import numpy\n" + offering(f"name = 'x'\ngain: float = numpy.float32(2)\n{APPLY}"),
        "x",
        "which JSON cannot hold",
    ),
    "untypable-option": (
        offering(f"name = 'x'\nkernel: dict = option(None)\n{APPLY}"),
        "x",
        "option 'kernel' has a type that cannot be typed on a command line",
    ),
    "unknown-type": (
        "from __future__ import annotations\n"
        + PREFIX
        + offering(f"name = 'x'\ngain: Missing = 1\n{APPLY}"),
        "x",
        "options cannot be read: NameError: name 'Missing' is not defined",
    ),
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that puts a package with one module on the path, as pip would."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def put(name, source, *, point=None, version="1.0", record="x.py,,\n"):
        module = name.replace("-", "_")
        header = "" if "__future__" in source else PREFIX
        (tmp_path / f"{module}.py").write_text(header + source)
        about = tmp_path / f"{module}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        (about / "entry_points.txt").write_text(f"[augkit]\n{point or name} = {module}\n")
        (about / "RECORD").write_text(record)

    yield put
    for module in set(sys.modules) - before:
        if str(getattr(sys.modules[module], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[module]


def load():
    """Look for plugins anew, as a new process would."""
    return registry.load(importlib.metadata.entry_points(group=registry.GROUP))


def others_work(found):
    """True if everything but the failures can be used, a stranger's plugin as well."""
    own = {p.name for p in found.plugins if p.distribution == "augkit" and p.kind == "augmenter"}
    images = np.full((1, 4, 4, 1), 10, np.uint8)
    inverted = found.find("invert", "augmenter").build().apply(images, None, None)
    found.find("linear", "classifier").build()
    return own >= OWN and (inverted == 245).all()


def test_a_strangers_package_is_found_with_its_name_version_and_options(install):
    install("augkit-invert", GOOD, version="2.5")
    found = load()
    plugin = found.find("invert", "augmenter")
    assert (plugin.distribution, plugin.version) == ("augkit-invert", "2.5")
    assert plugin.options == {"white": 255}
    assert plugin.build({"white": "250"}).white == 250
    assert not found.failures


@pytest.mark.seconds
@pytest.mark.parametrize("source, error", BROKEN.values(), ids=BROKEN)
def test_a_broken_package_is_one_named_failure(install, source, error):
    install("good-package", GOOD)
    install("broken-package", source, point="broken")
    found = load()
    (failure,) = found.failures
    assert (failure.name, failure.distribution) == ("broken", "broken-package")
    assert error in failure.error
    assert "\n" not in failure.error
    assert others_work(found)


@pytest.mark.seconds
@pytest.mark.parametrize("source, name, error", BROKEN_CLASSES.values(), ids=BROKEN_CLASSES)
def test_a_broken_class_is_one_named_failure(install, source, name, error):
    install("good-package", GOOD)
    install("broken-package", source, point="broken")
    found = load()
    (failure,) = found.failures
    assert (failure.name, failure.distribution) == (name, "broken-package")
    assert error in failure.error
    assert others_work(found)


def test_a_broken_class_leaves_the_good_ones_of_its_package(install):
    install("mixed", GOOD.replace("[Invert]", "[Invert, None, 'text']"))
    found = load()
    assert [f.error for f in found.failures] == ["is no augmenter: None", "is no augmenter: 'text'"]
    assert others_work(found)


def test_one_hook_that_fails_leaves_the_other(install):
    install("mixed", GOOD + "\n@hookimpl\ndef register_classifiers():\n    return 1 / 0\n")
    found = load()
    assert [f.name for f in found.failures] == ["mixed"]
    assert others_work(found)


def test_a_name_offered_by_two_packages_stays_with_the_first(install):
    install("b-second", GOOD)
    install("a-first", GOOD)
    found = load()
    assert found.find("invert", "augmenter").distribution == "a-first"
    (failure,) = found.failures
    assert (failure.name, failure.distribution) == ("invert", "b-second")
    assert failure.error == "the augmenter name 'invert' is taken by a-first"


def test_augkits_own_plugin_keeps_its_name(install):
    install("aaa", GOOD)
    install("a-flip", GOOD.replace('"invert"', '"flip"'))
    found = load()
    assert found.find("flip", "augmenter").distribution == "augkit"
    assert found.failures[0].error == "the augmenter name 'flip' is taken by augkit"
    assert others_work(found)


def test_two_packages_with_one_entry_point_name_both_load(install):
    install("one", GOOD, point="plugins")
    install("two", GOOD.replace('"invert"', '"negative"'), point="plugins")
    install("three", "import no_such_module", point="traditional")
    found = load()
    assert found.find("negative", "augmenter").distribution == "two"
    assert [f.distribution for f in found.failures] == ["three"]
    assert others_work(found)


def test_an_augmenter_and_a_classifier_may_share_a_name(install):
    install("shared", GOOD.replace('"invert"', '"linear"'))
    found = load()
    assert found.find("linear", "augmenter").distribution == "shared"
    assert found.find("linear", "classifier").distribution == "augkit"
    assert not found.failures


def test_a_half_removed_package_breaks_nothing(install, tmp_path):
    install("good-package", GOOD)
    install("removed", "")
    (tmp_path / "removed-1.0.dist-info" / "METADATA").unlink()
    (tmp_path / "removed-1.0.dist-info" / "RECORD").unlink()
    (tmp_path / "removed.py").unlink()
    found = load()
    (failure,) = found.failures
    assert (failure.name, failure.distribution) == ("removed", "unknown")
    assert "No module named 'removed'" in failure.error
    assert others_work(found)


def test_a_plugin_that_is_missing_is_answered_with_the_nearest_name():
    with pytest.raises(PluginNotFound, match=r"no augmenter 'flpi' \(did you mean 'flip'\?\)"):
        load().find("flpi", "augmenter")
    with pytest.raises(PluginNotFound, match=r"no classifier 'flip'; there are: .*linear"):
        load().find("flip", "classifier")


def test_a_plugin_that_failed_says_why_when_it_is_asked_for(install):
    install("broken-package", offering("name = 'idle'"))
    with pytest.raises(PluginNotFound, match="'idle' of broken-package cannot be used: defines"):
        load().find("idle", "augmenter")
    with pytest.raises(PluginNotFound, match="1 failed, see augkit plugins"):
        load().find("absent", "augmenter")


def test_an_option_that_a_plugin_refuses_is_an_error_with_its_name(install):
    check = "    def __post_init__(self):\n        assert self.white < 256, 'too white'\n"
    install("strict", GOOD.replace("    white", check + "    white"))
    plugin = load().find("invert", "augmenter")
    with pytest.raises(PluginFailed, match=r"'invert' of strict refuses .*: too white"):
        plugin.build({"white": 300})
    with pytest.raises(OptionError, match=r"no option 'whit' .did you mean 'white'"):
        plugin.build({"whit": 3})


def command(tmp_path, *arguments):
    """Run augkit in a new process, in which the packages of tmp_path are installed."""
    return subprocess.run(
        [sys.executable, "-c", "from augkit_cli.main import run; run()", *arguments],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_command_lists_what_works_and_what_failed(install, tmp_path):
    install("good-package", "print('hello from a plugin')\n" + GOOD)
    for name, (source, _) in BROKEN.items():
        install(f"broken-{name}", source, point=name)
    done = command(tmp_path, "plugins", "--json")
    assert done.returncode == 0, done.stderr
    assert "hello from a plugin" in done.stderr
    listed = json.loads(done.stdout)
    assert set(listed) == {"augmenters", "classifiers", "failures"}
    keys = {"name", "family", "distribution", "version", "options", "about"}
    assert all(set(p) == keys for kind in ("augmenters", "classifiers") for p in listed[kind])
    assert all(set(f) == {"name", "distribution", "error"} for f in listed["failures"])
    assert OWN | {"invert"} <= {p["name"] for p in listed["augmenters"]}
    assert {f["name"] for f in listed["failures"]} == set(BROKEN)


# -- what would end the process --------------------------------------------------------------------

FATAL = {
    "exit": ("import os; os._exit(0)", "ends the process with exit status 0"),
    "status": ("import os; os._exit(7)", "ends the process with exit status 7"),
    "crash": (
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "ends the process with signal 11",
    ),
    "hook": (
        "@hookimpl\ndef register_augmenters():\n    import os; os._exit(0)",
        "ends the process with exit status 0",
    ),
    "hook-crash": (
        "@hookimpl\ndef register_classifiers():\n    import ctypes; ctypes.string_at(0)",
        "ends the process with signal 11",
    ),
    "interrupt": ("raise KeyboardInterrupt", "ends the process with signal 2"),
    "memory": ("import ctypes; ctypes.string_at(0)", "ends the process with signal 11"),
}


@pytest.mark.seconds
@pytest.mark.parametrize("source, error", FATAL.values(), ids=FATAL)
def test_a_package_that_ends_the_process_is_one_named_failure(install, source, error):
    install("a-good-package", GOOD)
    install("fatal", source)
    install("z-broken", "import no_such_module")
    found = load()
    assert [(f.name, f.distribution) for f in found.failures] == [
        ("fatal", "fatal"),
        ("z-broken", "z-broken"),
    ]
    assert f"importing fatal {error}" in found.failures[0].error
    assert others_work(found)


@pytest.mark.seconds
def test_a_package_that_never_ends_at_import_is_one_named_failure(install):
    install("a-good-package", GOOD)
    install("endless", "while True: pass")
    points = importlib.metadata.entry_points(group=registry.GROUP)
    faults = rehearse([p for p in points if p.dist.name in ("a-good-package", "endless")], 3)
    assert {p.name: why for p, why in faults.items()} == {
        "endless": "importing endless has not ended after 3 s"
    }


@pytest.mark.seconds
def test_a_package_that_leaves_a_thread_behind_is_one_named_failure(install, monkeypatch):
    """Every command would wait for it at its end."""
    install("a-good-package", GOOD)
    wait = "import threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()\n"
    install("threads", wait)
    points = importlib.metadata.entry_points(group=registry.GROUP)
    faults = rehearse([p for p in points if p.dist.name in ("a-good-package", "threads")])
    assert {p.name: why for p, why in faults.items()} == {
        "threads": "importing threads leaves a thread behind that does not end"
    }


SELFISH = """
import logging, os, signal, sys, warnings
import numpy as np
os.chdir("/")
signal.signal(signal.SIGINT, signal.SIG_IGN)
warnings.simplefilter("error")
np.seterr(all="raise")
logging.disable()
sys.setrecursionlimit(900)
"""


def test_what_a_package_changes_for_all_at_import_is_put_back(install):
    def states():
        filters = [f for f in warnings.filters if f[0] == "error"]
        return (
            (Path.cwd(), signal.getsignal(signal.SIGINT), np.geterr(), filters),
            (logging.root.manager.disable, sys.getrecursionlimit()),
        )

    install("selfish", SELFISH + GOOD)
    before = states()
    assert load().find("invert", "augmenter").distribution == "selfish"
    assert states() == before


def imports(tmp_path):
    """Return how often the module that notes its imports was imported."""
    return len((tmp_path / "imports").read_text().splitlines())


@pytest.mark.seconds
def test_a_package_is_rehearsed_until_it_is_known_and_again_when_it_changes(install, tmp_path):
    note = f"with open({str(tmp_path / 'imports')!r}, 'a') as f: f.write('x\\n')\n"
    install("noted", note + GOOD)
    for _ in range(3):
        assert load().find("invert", "augmenter").distribution == "noted"
        assert imports(tmp_path) == 2, "once in a child, once here"
    (tmp_path / "noted-1.0.dist-info" / "RECORD").write_text("another\n")
    load()
    assert imports(tmp_path) == 3
    (tmp_path / "noted.py").write_text(PREFIX + note + GOOD + "\n# edited\n")
    load()
    assert imports(tmp_path) == 4


# -- what the user wants at all --------------------------------------------------------------------


@pytest.mark.parametrize("value, loaded", [("1", False), ("yes", False), ("0", True), ("", True)])
def test_packages_of_others_can_be_turned_off(install, tmp_path, monkeypatch, value, loaded):
    monkeypatch.setenv("AUGKIT_DISABLE_PLUGINS", value)
    install("noted", f"with open({str(tmp_path / 'imports')!r}, 'w'): pass\n" + GOOD)
    found = load()
    assert {p.name for p in found.plugins} > OWN
    assert ("invert" in {p.name for p in found.plugins}) == loaded
    assert (tmp_path / "imports").exists() == loaded
    if not loaded:
        assert [f.error for f in found.failures] == ["not loaded: AUGKIT_DISABLE_PLUGINS is set"]


@pytest.mark.parametrize(
    "value, loaded",
    [("Good_Package", {"invert"}), ("other, good.package", {"invert", "negative"}), ("", set())],
)
def test_only_the_packages_that_are_listed_are_loaded(install, monkeypatch, value, loaded):
    monkeypatch.setenv("AUGKIT_PLUGINS", value)
    install("good-package", GOOD)
    install("other", GOOD.replace('"invert"', '"negative"'))
    found = load()
    assert {p.name for p in found.plugins if p.distribution != "augkit"} == loaded
    assert {p.name for p in found.plugins} > OWN
    assert all("AUGKIT_PLUGINS is" in f.error for f in found.failures)
    assert len(found.failures) == 2 - len(loaded)


def test_the_table_names_failures_and_their_packages(install, tmp_path):
    install("broken-package", "import no_such_module")
    done = command(tmp_path, "plugins")
    assert done.returncode == 0, done.stderr
    assert "broken-package" in done.stdout
    assert "No module named 'no_such_module'" in done.stdout
