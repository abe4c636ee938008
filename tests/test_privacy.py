"""Nothing leaves the machine: no command uses a network, but for weights that a user asked for.

An audit hook in every process of Python that a test starts, by `sitecustomize`, notes each use of a
socket that could lead off the machine, and refuses it.
"""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toys import toy_store

from augkit.testing import write_phantoms

ROOT = Path(__file__).parents[1]

HOOK = '''
import os, socket, sys

TALK = {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"}
NAMES = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"}

def watch(event, arguments):
    """Refuse whatever could reach another machine; pipes between own processes are sockets too."""
    if event not in TALK | NAMES:
        return
    if event in TALK and arguments[0].family == getattr(socket, "AF_UNIX", None):
        return
    with open(os.environ["AUGKIT_TEST_CALLS"], "a") as file:
        file.write(f"{event} {arguments[-1 if event in TALK else 0]!r} {sys.argv}\\n")
    raise OSError(f"this test allows no network: {event}")

sys.addaudithook(watch)
'''


@pytest.fixture
def sealed(tmp_path: Path):
    """Return a function that runs augkit in a folder, without a network; it returns the calls."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    calls, work = tmp_path / "calls.txt", tmp_path / "work"
    work.mkdir()

    def run(*lines: str, code: str = "", before: tuple[str, ...] = (), **environment: str) -> str:
        script = code or f"from commands import works\nfor line in {lines!r}: " + (
            "works(*line.split(), cwd='.')"
        )
        calls.write_text("")
        paths = [str(tmp_path / "hook"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        done = subprocess.run(
            [*before, sys.executable, "-c", script],
            cwd=work, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "COLUMNS": "100"}
            | {"AUGKIT_TEST_CALLS": str(calls), "TORCH_HOME": str(tmp_path / "torch")}
            | {"HF_HOME": str(tmp_path / "hub")}
            | environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return calls.read_text()

    run.work = work  # type: ignore[attr-defined]
    return run


@pytest.mark.parametrize(
    "reach",
    [
        "socket.create_connection(('127.0.0.1', 9))",
        "socket.getaddrinfo('localhost', 80)",
        "socket.gethostbyname('example.org')",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
        "urllib.request.urlopen('http://localhost:9')",
    ],
)
def test_the_hook_sees_what_uses_a_network(sealed, reach):
    assert "socket." in sealed(code=_swallowing(reach))


def _swallowing(reach: str) -> str:
    return (
        f"import contextlib, socket, urllib.request\nwith contextlib.suppress(OSError):\n  {reach}"
    )


def test_the_hook_sees_child_processes_too_and_lets_pipes_pass(sealed):
    reach = _swallowing("socket.getaddrinfo('localhost', 80)")
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {reach!r}])"
    assert sealed(code=child).startswith("socket.getaddrinfo")
    local = (
        "import socket, multiprocessing as m; a, b = socket.socketpair(); a.send(b'x'); m.Pipe()\n"
        "s = socket.socket(socket.AF_UNIX); s.bind('here'); s.listen(); "
        "socket.socket(socket.AF_UNIX).connect('here')"
    )
    assert sealed(code=local) == ""


QUICK = (
    "augment --plugin flip --plugin zoom+brightness --store toy.store",
    "evaluate --classifier linear --arms real,traditional --store toy.store",
    "report --store toy.store",
    "preview --store toy.store",
    "export out --store toy.store",
    "replay --run flip --store toy.store",
    "info --rows rows.csv --store toy.store",
    "pack b.h5 --store toy.store",
    "verify --store b.h5",
    "unpack b.h5 c.store",
    "plugins",
    "purge --key toy/benign/0.png --store c.store",
    "retract flip --store toy.store",
)


@pytest.mark.slow
def test_the_main_job_uses_no_network(sealed):
    toy_store(sealed.work / "toy.store").close()
    assert sealed(*QUICK[:2]) == ""


@pytest.mark.slow
def test_the_other_quick_commands_use_no_network(sealed):
    toy_store(sealed.work / "toy.store").close()
    assert sealed(*QUICK) == ""


SLOW = (
    "ingest breast --size 48x40 --store b.store",
    "augment --plugin scale --start-method spawn --workers 2 --store b.store",
    "augment --plugin dagan --n 4 -o preset=quick -o steps=2 --store b.store",
    "fit --plugin dagan -o preset=quick -o steps=3 --store b.store",
    "evaluate --classifier efficientnet-lite0 --split 70/15/15 --seeds 1 --store b.store",
    "evaluate --classifier resnet -o weights=none -o depth=18 -o epochs=1 -o input_size=32x32 "
    "--split 70/15/15 --seeds 1 --arms real --store b.store",
    "study study.yaml --workers 2 --store b.store",
    "plugin new tint",
    "plugin check augkit-tint",
)


@pytest.mark.slow
def test_no_other_command_uses_a_network_either_nor_its_child_processes(sealed):
    write_phantoms(sealed.work / "breast", 12, height=40, width=48)
    (sealed.work / "study.yaml").write_text("classifiers: [linear]\nfolds: 5\n")
    assert sealed(*SLOW) == ""


DEMO = """
import augkit as ak
from commands import works
ak.demo.__kwdefaults__["n_per_class"] = 12  # 100 take long
done = works("demo", cwd=".")
assert "36 images added" in done.out and "arm " in done.out, done
assert "demo/preview.png" in done.out, done
assert done.err.startswith("augkit: making 36 synthetic ultrasound images"), done
"""


@pytest.mark.slow
def test_the_demo_goes_the_whole_way_and_uses_no_network(sealed):
    assert sealed(code=DEMO) == ""
    assert (sealed.work / "demo/report").is_dir()
    assert (sealed.work / "demo/preview.png").is_file()


@pytest.mark.slow
def test_no_library_below_python_uses_a_network(sealed):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: what libraries of C do is NOT looked at")
    toy_store(sealed.work / "toy.store").close()
    (sealed.work / "trace").touch()
    watch = ("strace", "-f", "-qq", "-o", "trace", "-e", "trace=connect,bind,sendto,sendmsg")
    assert sealed(*QUICK[:3], "evaluate --classifier svm --store toy.store", before=watch) == ""
    seen = (sealed.work / "trace").read_text().splitlines()
    assert [line for line in seen if "AF_INET" in line] == []


@pytest.mark.slow
def test_weights_are_asked_for_only_by_who_wants_them_and_only_where_they_lie(sealed):
    write_phantoms(sealed.work / "breast", 12, height=40, width=48)
    line = (
        "evaluate --classifier resnet -o depth=18 -o epochs=1 -o input_size=32x32 "
        "--split 70/15/15 --seeds 1 --arms real --store b.store"
    )
    asked = sealed("ingest breast --size 48x40 --store b.store", line)
    assert asked and all("download.pytorch.org" in call for call in asked.splitlines())
    assert sealed(line + " --primary accuracy", AUGKIT_OFFLINE="1") == ""


NETWORKED = {
    "aiohttp", "asyncio", "ftplib", "http", "httpx", "imaplib", "poplib", "requests", "smtplib",
    "socket", "socketserver", "ssl", "telnetlib", "urllib.request", "urllib3", "webbrowser",
    "xmlrpc",
}  # fmt: skip

MAY = {
    "augkit/store/format.py": {"socket"},  # the name of this machine
    "augkit/engines/cluster.py": {"socket"},  # whether the cluster that a user named answers
    "plugins/classifiers/augkit_classifiers/weights.py": {"urllib.request"},
}


@pytest.mark.seconds
def test_only_three_modules_could_use_a_network_at_all():
    found = {}
    for place in ("augkit", "cli", "plugins"):
        for path in (ROOT / place).rglob("*.py"):
            names = _imported(ast.parse(path.read_text(encoding="utf-8"))) & NETWORKED
            if names:
                found[path.relative_to(ROOT).as_posix()] = names
    assert found == MAY


def _imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names | {name.partition(".")[0] for name in names}


def test_a_study_on_ray_reports_no_use_of_it():
    text = (ROOT / "augkit/engines/cluster.py").read_text()
    assert 'setdefault("RAY_USAGE_STATS_ENABLED", "0")' in text
