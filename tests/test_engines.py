import gc
import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from children import wait_until_gone

from augkit.engines import processes
from augkit.engines.engine import Ended, choose_engine
from augkit.engines.local import usable_cores
from augkit.engines.processes import LocalEngine
from augkit.errors import AugkitError, InputError, OptionError

pytestmark = pytest.mark.seconds


def wait_for_files(folder: Path, n_files: int) -> list[str]:
    """Return the contents of the files of a folder, when there are so many and all are written."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        texts = [path.read_text() for path in folder.glob("*.pid")]
        if len(texts) >= n_files and all(texts):
            return texts
        time.sleep(0.02)
    raise AssertionError(f"{folder} holds {list(folder.iterdir())}")


def note(path: Path) -> None:
    """Leave a file of one more line for each attempt."""
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")


def write_pid(path: Path) -> None:
    path.write_text(str(os.getpid()))


def sleep_in_first(path: Path) -> None:
    if path.stem == "0":
        time.sleep(2)
    note(path)


def raise_as_named(name: str) -> None:
    if name == "plain":
        raise InputError("row 7 is\n  no image")
    if name == "bug":
        raise ValueError("seven\nis not\teight")
    if name == "bare":
        raise KeyError
    if name == "exit":
        sys.exit(3)


def die_once(path: Path) -> None:
    note(path)
    if len(path.read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def die_as_named(name: str) -> None:
    if name == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "exit":
        os._exit(7)


def sleep_long_if_named(name: str) -> None:
    if name == "long":
        time.sleep(60)


def sleep_with_child(path: Path) -> None:
    child = subprocess.Popen(["sleep", "60"])
    path.write_text(f"{os.getpid()} {child.pid}")
    time.sleep(60)


def sleep_with_child_if_slow(path: Path) -> None:
    if path.parent.name == "slow":
        sleep_with_child(path)
    wait_for_files(path.parent.parent / "slow", 1)


def sleep_in_fork(path: Path) -> None:
    """Die, and leave a process that holds open all that the dead one had open."""
    if child := os.fork():
        path.write_text(f"{os.getpid()} {child}")
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def write_surroundings(path: Path) -> None:
    import torch

    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    threads = [os.environ[name] for name in names] + [str(torch.get_num_threads())]
    path.write_text(" ".join(threads))


def write_gpu(path: Path) -> None:
    time.sleep(0.3)
    path.write_text(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}")


def paths(folder: Path, n_paths: int) -> list[Path]:
    return [folder / f"{i}.pid" for i in range(n_paths)]


def by_index(ends) -> list[Ended]:
    return sorted(ends, key=lambda end: end.index)


def test_every_task_is_done_once(tmp_path):
    items = paths(tmp_path, 20)
    ends = by_index(LocalEngine(workers=2).run(note, items))
    assert ends == [Ended(i, None, 1) for i in range(20)]
    pids = {path.read_text() for path in items}
    assert all(len(text.splitlines()) == 1 for text in pids)
    assert len(pids) <= 2
    assert f"{os.getpid()}\n" not in pids


def test_a_slow_task_holds_up_no_other(tmp_path):
    ends = [end.index for end in LocalEngine(workers=2).run(sleep_in_first, paths(tmp_path, 8))]
    assert sorted(ends) == list(range(8))
    assert ends[-1] == 0


@pytest.mark.parametrize("workers", [1, None])
def test_no_tasks_have_no_ends(workers):
    assert list(LocalEngine(workers).run(note, [])) == []


def test_one_worker_is_a_process_of_its_own(tmp_path):
    (path,) = paths(tmp_path, 1)
    assert list(LocalEngine(workers=1).run(write_pid, [path])) == [Ended(0, None, 1)]
    assert int(path.read_text()) != os.getpid()
    assert wait_until_gone([int(path.read_text())])


def test_an_exception_is_a_failure_of_one_line_and_the_worker_goes_on():
    names = ["plain", "bug", "bare", "exit", "well"]
    ends = by_index(LocalEngine(workers=1).run(raise_as_named, names))
    assert [end.failure for end in ends] == [
        "row 7 is no image",
        "ValueError: seven is not eight",
        "KeyError",
        "SystemExit: 3",
        None,
    ]
    assert {end.attempts for end in ends} == {1}


def test_a_task_whose_process_died_is_begun_again(tmp_path):
    ends = by_index(LocalEngine(workers=2).run(die_once, paths(tmp_path, 4)))
    assert ends == [Ended(i, None, 2) for i in range(4)]


def test_a_task_whose_process_always_dies_is_a_failure_and_spoils_no_other():
    ends = by_index(LocalEngine(workers=2).run(die_as_named, ["kill", "well", "exit", "well"]))
    assert ends == [
        Ended(0, "the worker process died (signal 9), 3 times", 3),
        Ended(1, None, 1),
        Ended(2, "the worker process died (exit status 7), 3 times", 3),
        Ended(3, None, 1),
    ]


def test_without_retries_a_death_is_final():
    ends = list(LocalEngine(workers=1, retries=0).run(die_as_named, ["segfault"]))
    assert ends == [Ended(0, "the worker process died (signal 11)", 1)]


def test_a_death_is_seen_though_a_fork_of_the_process_lives_on(tmp_path):
    (path,) = paths(tmp_path, 1)
    start = time.monotonic()
    ends = list(LocalEngine(workers=1, retries=0).run(sleep_in_fork, [path]))
    assert ends == [Ended(0, "the worker process died (signal 9)", 1)]
    assert time.monotonic() - start < 30
    assert wait_until_gone([int(pid) for pid in path.read_text().split()])


def test_a_task_that_takes_too_long_is_killed_and_not_begun_again():
    engine = LocalEngine(workers=2, timeout=1.5)
    start = time.monotonic()
    ends = by_index(engine.run(sleep_long_if_named, ["long", "a", "b", "long", "c"]))
    assert time.monotonic() - start < 30
    slow = "took longer than 1.5 seconds"
    assert [end.failure for end in ends] == [slow, None, None, slow, None]
    assert {end.attempts for end in ends} == {1}


@pytest.mark.parametrize("how", ["close", "forget", "raise"])
def test_no_process_is_left_when_the_iterator_is_closed(tmp_path, how):
    fast, slow = tmp_path / "fast", tmp_path / "slow"
    fast.mkdir()
    slow.mkdir()
    ends = LocalEngine(workers=2).run(sleep_with_child_if_slow, [*paths(fast, 1), *paths(slow, 4)])
    assert next(ends) == Ended(0, None, 1)
    pids = [int(pid) for text in wait_for_files(slow, 2) for pid in text.split()]
    assert len(pids) == 4
    start = time.monotonic()
    if how == "close":
        ends.close()
    elif how == "raise":
        with pytest.raises(KeyboardInterrupt):
            ends.throw(KeyboardInterrupt)
    del ends
    gc.collect()
    assert time.monotonic() - start < 10
    assert wait_until_gone(pids)


@pytest.mark.parametrize(
    ("n_cores", "workers", "threads", "share"), [(5, 2, None, 2), (2, 9, None, 1), (9, 1, 2, 2)]
)
def test_a_child_has_its_share_of_the_cores(
    tmp_path, monkeypatch, n_cores, workers, threads, share
):
    monkeypatch.setattr(processes, "usable_cores", lambda: n_cores)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    (path,) = paths(tmp_path, 1)
    assert list(LocalEngine(workers, threads=threads).run(write_surroundings, [path])) == [
        Ended(0, None, 1)
    ]
    *variables, of_torch = path.read_text().split()
    assert variables == [str(share)] * 3
    assert int(of_torch) == min(share, usable_cores())
    assert os.environ["OMP_NUM_THREADS"] == "5"
    assert "MKL_NUM_THREADS" not in os.environ


@pytest.mark.parametrize("workers", [None, 4])
def test_each_child_sees_one_gpu(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(processes, "visible_gpus", lambda: ["3", "GPU-ab"])
    items = paths(tmp_path, 8)
    assert all(end.failure is None for end in LocalEngine(workers).run(write_gpu, items))
    seen = {tuple(path.read_text().split()) for path in items}
    assert len(seen) == (workers or 2)
    assert sorted(gpu for _, gpu in seen) == sorted(["3", "GPU-ab"] * (len(seen) // 2))


@pytest.mark.parametrize(
    ("named", "n_gpus", "found"),
    [
        ("", 0, []),
        ("-1", 0, []),
        ("2,GPU-ab, 5", 3, ["2", "GPU-ab", "5"]),
        ("0,9,1", 1, ["0"]),
        ("0", 0, []),
    ],
)
def test_the_gpus_are_those_that_are_named_and_there(monkeypatch, named, n_gpus, found):
    import torch

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    assert processes.visible_gpus() == found


def test_torch_is_not_loaded_to_find_that_there_is_no_gpu():
    code = (
        "import sys; from augkit.engines.processes import visible_gpus;"
        "print(visible_gpus(), 'torch' in sys.modules)"
    )
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    found = subprocess.check_output([sys.executable, "-c", code], text=True, env=environment)
    assert found.strip() == "[] False"


@pytest.mark.gpu
def test_a_child_computes_on_its_gpu():
    ends = by_index(LocalEngine().run(compute_on_gpu, list(range(4))))
    assert [end.failure for end in ends] == [None] * 4


def compute_on_gpu(item: int) -> None:
    import torch

    assert torch.cuda.device_count() == 1
    assert torch.ones(2, device="cuda").sum().item() == 2


SPEAKING = """
    import logging, os, sys
    from augkit.engines.processes import LocalEngine

    def speak(x):
        print("printed")
        os.system("echo echoed")
        logging.warning("logged")
        if x == 1:
            raise ValueError("a bug")

    if __name__ == "__main__":
        for end in LocalEngine(workers=1).run(speak, [0, 1]):
            print("end", end.index, flush=True)
"""


def test_what_a_child_says_goes_to_stderr(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(SPEAKING))
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == ["end 0", "end 1"]
    for word in ("printed", "echoed", "logged"):
        assert done.stderr.count(word) == 2
    assert "Traceback" in done.stderr
    assert "ValueError: a bug" in done.stderr


WORKING = """
    import os, subprocess, sys, time
    from pathlib import Path
    from augkit.engines.processes import LocalEngine

    def work(path):
        child = subprocess.Popen(["sleep", "60"])
        Path(path).write_text(f"{os.getpid()} {child.pid}")
        if Path(path).stem != "0":
            time.sleep(60)

    if __name__ == "__main__":
        ends = LocalEngine(workers=2).run(work, sys.argv[2:])
        next(ends)
        while sum(path.stat().st_size > 0 for path in Path(sys.argv[2]).parent.glob("*.pid")) < 2:
            time.sleep(0.02)
        if sys.argv[1] == "wait":
            list(ends)
"""


def start_program(folder: Path, how: str) -> subprocess.Popen:
    path = folder / "program.py"
    path.write_text(textwrap.dedent(WORKING))
    return subprocess.Popen(
        [sys.executable, str(path), how, *(str(p) for p in paths(folder, 3))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("whole_group", [True, False])
def test_an_interrupt_ends_a_program_at_once_without_noise(tmp_path, whole_group):
    process = start_program(tmp_path, "wait")
    pids = [int(pid) for text in wait_for_files(tmp_path, 3) for pid in text.split()]
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    out, errors = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert out == ""
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert wait_until_gone(pids)


def test_no_process_outlives_a_killed_program(tmp_path):
    process = start_program(tmp_path, "wait")
    pids = [int(pid) for text in wait_for_files(tmp_path, 3) for pid in text.split()]
    process.kill()
    process.communicate(timeout=20)
    assert wait_until_gone(pids)


def test_a_program_may_end_without_closing_the_iterator(tmp_path):
    process = start_program(tmp_path, "leave")
    pids = [int(pid) for text in wait_for_files(tmp_path, 2) for pid in text.split()]
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert errors == ""
    assert wait_until_gone(pids)


def test_a_script_without_a_guard_is_a_plain_error(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(
        "from augkit.engines.processes import LocalEngine\n"
        "list(LocalEngine(workers=1).run(print, [1]))\n"
    )
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert "worker processes die as they start (exit status 1); a script that uses" in last
    assert last.endswith("under: if __name__ == '__main__':")


def test_what_cannot_be_pickled_is_a_plain_error_before_anything_runs(tmp_path):
    with pytest.raises(AugkitError, match=r"^the function cannot be sent to another process \("):
        LocalEngine(workers=1).run(lambda item: None, [1])
    items = [tmp_path / "0.pid", (i for i in range(3))]
    with pytest.raises(AugkitError, match=r"^item 1 cannot be sent .*; use a function of a module"):
        LocalEngine(workers=1).run(note, items)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers is 0; it must be at least 1"),
        ({"timeout": 0}, "timeout is 0; it must be at least 0.1"),
        ({"timeout": float("nan")}, "timeout is nan; it must be at least 0.1"),
        ({"retries": -1}, "retries is -1; it must be at least 0"),
        ({"threads": 0}, "threads is 0; it must be at least 1"),
    ],
)
def test_bad_options_are_errors_before_anything_runs(options, message):
    with pytest.raises(OptionError, match=message):
        LocalEngine(**options).run(print, [])


OPTIONS = {"workers": None, "timeout": None, "gpus_per_task": 0, "address": None}


def test_engines_are_chosen_by_name():
    engine = choose_engine("local", **OPTIONS | {"workers": 3, "timeout": 60})
    assert engine == LocalEngine(workers=3, timeout=60)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dask", {}, "engine is 'dask'; it is one of: local, ray"),
        ("local", {"address": "a:1"}, "engine 'local' takes no address; engine 'ray' does"),
        ("local", {"gpus_per_task": 1}, "engine 'local' takes no gpus_per_task; engine 'ray' does"),
        ("ray", {"workers": 2}, "engine 'ray' takes no workers; it begins as many tasks as"),
    ],
)
def test_a_wrong_choice_is_a_plain_error(name, options, message):
    with pytest.raises(OptionError, match=message):
        choose_engine(name, **OPTIONS | options)


def test_ray_is_an_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OptionError) as error:
        choose_engine("ray", **OPTIONS)
    assert str(error.value) == "engine 'ray' needs the extra: pip install \"augkit[ray]\""
