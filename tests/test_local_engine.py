import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from children import wait_until_gone

from augkit.engines.local import ordered_map, usable_cores
from augkit.errors import AugkitError, OptionError

BACKENDS = ["threads", "fork", "spawn", "forkserver"]
PROCESSES = ["fork", "forkserver"]


def square_slowest_first(x: int) -> int:
    time.sleep(0.03 if x % 4 == 0 else 0)
    return x * x


def fail_at_five(x: int) -> int:
    if x == 5:
        raise ValueError("five")
    return x


def die_at_three(x: int) -> int:
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def sleep_after_first(x: int) -> int:
    if x > 0:
        time.sleep(60)
    return x


def own_process(x: int) -> int:
    return os.getpid()


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_come_in_the_order_of_the_items(backend):
    found = list(ordered_map(square_slowest_first, range(20), workers=2, backend=backend))
    assert found == [x * x for x in range(20)]


@pytest.mark.parametrize("workers", [1, None])
def test_no_items_give_no_results(workers):
    assert list(ordered_map(square_slowest_first, [], workers=workers)) == []


def test_one_worker_is_the_callers_own_thread():
    found = ordered_map(lambda _: threading.get_ident(), range(3), workers=1, backend="spawn")
    assert set(found) == {threading.get_ident()}


def test_threads_are_others_and_run_at_once():
    meeting = threading.Barrier(3)
    found = set(
        ordered_map(lambda _: (meeting.wait(10), threading.get_ident())[1], "abc", workers=3)
    )
    assert len(found) == 3
    assert threading.get_ident() not in found


@pytest.mark.parametrize("backend", PROCESSES)
def test_processes_are_others(backend):
    found = set(ordered_map(own_process, range(8), workers=2, backend=backend))
    assert os.getpid() not in found
    assert 1 <= len(found) <= 2


@pytest.mark.parametrize(("window", "bound"), [(None, 4), (1, 1), (7, 7)])
def test_no_more_items_are_begun_than_the_window_holds(window, bound):
    taken = []
    items = (taken.append(i) or i for i in range(50))
    for count, _ in enumerate(ordered_map(lambda x: x, items, workers=2, window=window)):
        assert len(taken) <= count + bound
    assert len(taken) == 50


def test_one_worker_takes_no_item_early():
    taken = []
    results = ordered_map(lambda x: x, (taken.append(i) or i for i in range(5)), workers=1)
    next(results)
    assert taken == [0]


@pytest.mark.parametrize("backend", ["threads", *PROCESSES])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_is_raised_in_its_place(backend, workers):
    results = ordered_map(fail_at_five, range(100), workers=workers, backend=backend)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(results)
    assert list(results) == []


def test_nothing_is_begun_after_an_exception():
    begun = []

    def note(x: int) -> int:
        begun.append(x)
        return fail_at_five(x)

    with pytest.raises(ValueError, match="five"):
        list(ordered_map(note, range(100), workers=2))
    assert max(begun) < 5 + 4


def test_an_exception_of_the_items_is_raised():
    def items():
        yield 1
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        list(ordered_map(lambda x: x, items(), workers=2))


def test_no_thread_is_left_when_the_iterator_is_closed():
    before = threading.active_count()
    results = ordered_map(square_slowest_first, range(100), workers=3)
    next(results)
    assert threading.active_count() > before
    results.close()
    assert threading.active_count() == before


@pytest.mark.seconds
@pytest.mark.parametrize("backend", PROCESSES)
@pytest.mark.parametrize("how", ["close", "forget"])
def test_no_process_is_left_when_the_iterator_is_closed(backend, how):
    before = set(multiprocessing.active_children())
    results = ordered_map(sleep_after_first, range(9), workers=2, backend=backend)
    assert next(results) == 0
    children = [p.pid for p in set(multiprocessing.active_children()) - before]
    assert children
    start = time.monotonic()
    if how == "close":
        results.close()
    del results
    gc.collect()
    assert time.monotonic() - start < 20
    assert wait_until_gone(children)


@pytest.mark.parametrize("backend", PROCESSES)
def test_a_killed_worker_is_a_plain_error(backend):
    with pytest.raises(AugkitError, match=r"a worker process died .*run again with fewer workers"):
        list(ordered_map(die_at_three, range(20), workers=2, backend=backend))


PROGRAM = """
    import os, sys, time
    from augkit.engines.local import ordered_map

    def work(x):
        if x > 1:
            time.sleep(30)
        return os.getpid()

    if __name__ == "__main__":
        for pid in ordered_map(work, range(9), workers=2, backend=sys.argv[1]):
            print(pid, flush=True)
"""


def start_program(tmp_path: Path, backend: str) -> tuple[subprocess.Popen, list[int]]:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM))
    process = subprocess.Popen(
        [sys.executable, str(path), backend],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    return process, [int(process.stdout.readline()) for _ in range(2)]


@pytest.mark.parametrize("whole_group", [True, False])
@pytest.mark.parametrize("backend", PROCESSES)
def test_an_interrupt_ends_a_program_at_once_without_noise(tmp_path, backend, whole_group):
    process, children = start_program(tmp_path, backend)
    time.sleep(0.2)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert wait_until_gone(children)


@pytest.mark.parametrize("backend", PROCESSES)
def test_no_process_outlives_a_killed_program(tmp_path, backend):
    process, children = start_program(tmp_path, backend)
    process.kill()
    process.communicate(timeout=20)
    assert wait_until_gone(children)


FORKING = """
import os, signal
from augkit.engines.local import ordered_map
pressed = []
def press():
    if not pressed:
        pressed.append(os.kill(os.getpid(), signal.SIGINT))
os.register_at_fork(after_in_parent=press)
try:
    print(list(ordered_map(abs, range(9), workers=2, backend="fork")))
except KeyboardInterrupt:
    print("stopped", len(pressed))
"""


def test_an_interrupt_that_comes_while_workers_fork_is_not_swallowed():
    done = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("stopped 1\n", "")


def test_bad_arguments_are_errors_before_anything_runs():
    with pytest.raises(OptionError, match="workers is 0; it must be at least 1"):
        ordered_map(len, [], workers=0)
    with pytest.raises(OptionError, match="window is -1"):
        ordered_map(len, [], workers=2, window=-1)
    with pytest.raises(OptionError, match="backend is 'ray'; it is one of: threads, fork, spawn"):
        ordered_map(len, [], backend="ray")


def test_usable_cores_are_those_of_this_process():
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    if hasattr(os, "sched_setaffinity"):
        code = (
            "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
            "from augkit.engines.local import usable_cores; print(usable_cores())"
        )
        assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "1"
