"""Imports point one way, starting is fast, and nothing in the product runs what data says."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from augkit.testing import write_phantoms

ROOT = Path(__file__).parents[1]
CORE = ROOT / "augkit"
CLI = ROOT / "cli" / "augkit_cli"
PLUGINS = sorted(p for p in ROOT.glob("plugins/*/augkit_*") if p.is_dir())
EXAMPLES = sorted(ROOT.glob("docs/examples/*/augkit_*.py"))
HEAVY = {"torch", "torchvision", "cv2"}


def sources(*places):
    found = [f for p in places for f in ([p] if p.is_file() else sorted(p.rglob("*.py")))]
    assert found, f"no Python files in {places}"
    return found


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(node):
    """Yield the names of the modules that are imported anywhere below a node."""
    for item in ast.walk(node):
        if isinstance(item, ast.Import):
            yield from (alias.name for alias in item.names)
        elif isinstance(item, ast.ImportFrom):
            assert item.level == 0, "imports are absolute"
            yield item.module


def top_level(path):
    """Return the packages that a file imports, wherever in the file."""
    return {name.split(".")[0] for name in imported(tree(path))}


def at_import(path):
    """Return the packages that a file imports when it is imported: not within functions."""
    found, waiting = set(), [tree(path)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {name.split(".")[0] for name in imported(node)}
        waiting += ast.iter_child_nodes(node)
    return found


def ours(packages):
    return {name for name in packages if name.split("_")[0] == "augkit"}


@pytest.mark.parametrize("path", sources(CORE), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_imports_neither_plugins_nor_the_command_line(path):
    assert ours(top_level(path)) <= {"augkit"}
    assert not top_level(path) & {"click", "rich"}


@pytest.mark.parametrize("package", PLUGINS, ids=lambda p: p.name)
def test_a_plugin_imports_only_the_core_and_itself(package):
    for path in sources(package):
        assert ours(top_level(path)) <= {"augkit", package.name}, path
        assert not top_level(path) & {"click", "rich"}, path


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_an_example_imports_the_public_names_alone(path):
    names = {name for name in imported(tree(path)) if name.startswith("augkit")}
    assert names <= {"augkit", "augkit.testing"}


def test_the_command_line_imports_the_core_and_no_plugin():
    for path in sources(CLI):
        assert ours(top_level(path)) <= {"augkit", "augkit_cli"}, path


def modules_at_import(package):
    """Return the files of a package that are run when it is imported, found by following names."""
    found, waiting = set(), [package / "__init__.py"]
    while waiting:
        path = waiting.pop()
        found.add(path)
        for line in ast.walk(tree(path)):
            names = []
            if isinstance(line, ast.ImportFrom) and not within_function(line, path):
                names = [line.module, *(f"{line.module}.{a.name}" for a in line.names)]
            for name in names:
                parts = name.split(".")
                inner = package.joinpath(*parts[1:]).with_suffix(".py")
                if parts[0] == package.name and inner.is_file() and inner not in found:
                    waiting.append(inner)
    return sorted(found)


def within_function(wanted, path):
    """Return True if a line stands in a function, or is for type checkers only."""
    late = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    for node in ast.walk(tree(path)):
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if isinstance(node, late) or typing:
            lines = {item.lineno for item in ast.walk(node) if isinstance(item, ast.ImportFrom)}
            if wanted.lineno in lines:
                return True
    return False


LATE = HEAVY | {"sklearn", "matplotlib", "pandas", "ray", "timm", "skimage", "pywt"}


@pytest.mark.parametrize("place", [CORE, CLI], ids=lambda p: p.name)
def test_no_module_imports_heavy_libraries_when_it_is_imported(place):
    for path in sources(place):
        assert not at_import(path) & LATE, path


@pytest.mark.parametrize("package", PLUGINS, ids=lambda p: p.name)
def test_no_package_of_plugins_imports_heavy_libraries_when_it_is_imported(package):
    modules = modules_at_import(package)
    for path in modules:
        assert not at_import(path) & LATE, path


def test_what_a_package_runs_at_import_is_seen_by_these_tests(tmp_path):
    package = tmp_path / "p"
    package.mkdir()
    (package / "__init__.py").write_text("from p.a import x\nfrom p import b\n")
    (package / "a.py").write_text("def f():\n    from p.late import y\n")
    (package / "b.py").write_text("if TYPE_CHECKING:\n    from p.late import y\n")
    (package / "late.py").write_text("import torch\n")
    assert [path.stem for path in modules_at_import(package)] == ["__init__", "a", "b"]


def test_what_the_plugins_need_at_import_is_seen_by_these_tests(tmp_path):
    path = tmp_path / "sample.py"
    path.write_text(
        "import a.b\nclass C:\n    from d import e\n    def f(self):\n        import g\n"
        "if TYPE_CHECKING:\n    import h\nelse:\n    import i\n"
    )
    assert at_import(path) == {"a", "d", "i"}
    assert top_level(path) == {"a", "d", "g", "h", "i"}


def loaded_by(code):
    """Return the modules that are loaded after this code ran in a new process."""
    end = "\n    import sys; print('LOADED', *{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", f"try:\n    {code}\nfinally:{end}"],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"COLUMNS": "100"},
    )
    assert "LOADED" in done.stdout, done.stderr
    return set(done.stdout.split("LOADED")[1].split()), done


def command(*arguments):
    return f"import sys; sys.argv[1:] = {list(arguments)}; import augkit_cli.main as m; m.run()"


def test_importing_augkit_loads_nothing_else():
    loaded, _ = loaded_by("import augkit")
    assert "augkit" in loaded
    assert not loaded & (HEAVY | {"numpy", "h5py", "pluggy", "sklearn", "matplotlib", "PIL"})


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_loads_no_library_that_takes_long(flag):
    loaded, done = loaded_by(command(flag))
    assert done.returncode == 0, done.stderr
    late = {"sklearn", "scipy", "matplotlib", "h5py", "pandas", "PIL", "jinja2"}
    assert not loaded & (HEAVY | late)


def test_listing_plugins_loads_neither_torch_nor_opencv():
    loaded, done = loaded_by(command("plugins"))
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("flip", "linear", "dagan"))
    assert not loaded & HEAVY


@pytest.mark.seconds
def test_images_become_rows_without_a_library_that_only_a_search_needs(tmp_path):
    write_phantoms(tmp_path / "images", 6, height=32, width=40)
    images, store = str(tmp_path / "images"), str(tmp_path / "a.store")
    code = (
        f"import augkit as ak; ak.ingest({images!r}, {store!r}, find_relatives=False); "
        f"ak.augment({store!r}, 'flip+zoom', n=8)"
    )
    loaded, done = loaded_by(code)
    assert done.returncode == 0, done.stderr
    assert not loaded & ({"torch", "torchvision", "sklearn", "scipy", "matplotlib", "pandas"})


@pytest.mark.slow
def test_help_answers_in_a_fraction_of_a_second():
    best = min(seconds_of(command("--help")) for _ in range(7)) - min(
        seconds_of("pass") for _ in range(7)
    )
    assert best < 0.3


def seconds_of(code):
    """Return the processor seconds of a new process: others' load on this machine falls out."""
    before = os.times()
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    after = os.times()
    return (after.children_user + after.children_system) - (
        before.children_user + before.children_system
    )


CALLS = {
    *("eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.unsafe_load_all"),
    *("yaml.Loader", "yaml.FullLoader", "yaml.UnsafeLoader"),
    *("torch.save", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter"),
    *("pandas.read_pickle", "numpy.save", "tempfile.mktemp", "runpy.run_path"),
}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "code"}
UNPACKING = {"extractall", "extract", "unpack_archive"}
"""Methods that write where an archive says."""
OWN_TASKS = {"engine.py", "processes.py", "cluster.py", "augmenter_checks.py"}
"""Modules that send functions to processes of their own, over pipes of their own."""


def names_in(node):
    """Return what each name stands for that is imported anywhere below a node."""
    found = {}
    for item in ast.walk(node):
        if isinstance(item, ast.Import):
            found |= {a.asname: a.name for a in item.names if a.asname}
        elif isinstance(item, ast.ImportFrom) and item.module:
            found |= {a.asname or a.name: f"{item.module}.{a.name}" for a in item.names}
    return {"np": "numpy", "pd": "pandas"} | found


def dangers(node):
    """Yield what in a syntax tree could run code that comes from data or from a user's words."""
    known = names_in(node)
    for item in ast.walk(node):
        if isinstance(item, (ast.Import, ast.ImportFrom)):
            yield from (n for n in imported(item) if n.split(".")[0] in MODULES)
        if isinstance(item, (ast.Attribute, ast.Name)):
            first, *rest = ast.unparse(item).split(".")
            named = ".".join([known.get(first, first), *rest])
            if named in CALLS:
                yield named
            if named.split(".")[-1] in UNPACKING and isinstance(item, ast.Attribute):
                yield named
        if isinstance(item, ast.Call):
            first, *rest = ast.unparse(item.func).split(".")
            called = ".".join([known.get(first, first), *rest])
            flags = {k.arg: ast.unparse(k.value) for k in item.keywords}
            if called == "torch.load" and flags.get("weights_only") != "True":
                yield "torch.load without weights_only=True"
            if flags.get("shell", "False") != "False":
                yield "shell=True"
            if flags.get("allow_pickle", "False") != "False":
                yield "allow_pickle=True"


@pytest.mark.seconds
@pytest.mark.parametrize("place", [CORE, CLI, *PLUGINS, *EXAMPLES], ids=lambda p: p.name)
def test_nothing_runs_what_is_in_data(place):
    for path in sources(place):
        assert list(dangers(tree(path))) == [], path


def test_only_engines_send_functions_to_processes_and_only_to_their_own():
    users = {p.name for p in sources(CORE, CLI, *PLUGINS) if "Pickler" in p.read_text()}
    assert users <= OWN_TASKS


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "eval(text)",
        "exec(text)",
        "yaml.load(file)",
        "torch.save(model, path)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "subprocess.run(line, shell=True)",
        "numpy.load(path, allow_pickle=True)",
        "from os import system\nsystem(text)",
        "from yaml import load as read\nread(text)",
        "import yaml as y\ny.load(text)",
        "yaml.Loader(text)",
        "from torch import load\nload(path)",
        "run = eval\n",
        "map(eval, texts)",
        "tar.extractall(place)",
        "torch.jit.load(path)",
    ],
)
def test_what_is_dangerous_is_seen_by_these_tests(code):
    assert len(list(dangers(ast.parse(code)))) == 1


def test_every_package_is_named_in_pyproject_and_installs_only_names_of_augkit():
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = set(settings["packages"])
    assert {p.split(".")[0].split("_")[0] for p in packages} == {"augkit"}
    places = {name: ROOT / folder for name, folder in settings["package-dir"].items()}
    there = {
        ".".join((name, *path.parent.relative_to(folder).parts))
        for name, folder in places.items()
        for path in folder.rglob("__init__.py")
    }
    assert there == packages
    assert set(places) == {"augkit", "augkit_cli", *(p.name for p in PLUGINS)}


def test_the_names_that_type_checkers_see_are_those_that_are_imported() -> None:
    import augkit

    tree = ast.parse((ROOT / "augkit/__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    where, renamed = augkit._WHERE, augkit._RENAMED
    assert seen == {name: (where[name], renamed.get(name, name)) for name in where}


def test_no_module_takes_the_place_of_a_public_name() -> None:
    """Importing a module sets it as an attribute of its package: `augkit.report` may be neither."""
    import augkit

    inside = {path.stem for path in CORE.iterdir()} - {"__init__"}
    assert not inside & set(augkit.__all__)
