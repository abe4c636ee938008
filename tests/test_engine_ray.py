import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from children import is_gone

from augkit.engines.cluster import RayEngine
from augkit.engines.engine import Ended, choose_engine
from augkit.errors import AugkitError, InputError, OptionError

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'augkit[ray]'")

pytestmark = [
    pytest.mark.slow,
    # Ray's own warnings are Ray's own business.
    pytest.mark.filterwarnings("default"),
]


def note(path: Path) -> None:
    """Leave a file of one more line for each attempt."""
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")


def note_and_sleep(path: Path) -> None:
    note(path)
    time.sleep(1)


def raise_as_named(name: str) -> None:
    if name == "plain":
        raise InputError("row 7 is\n  no image")
    if name == "bug":
        raise ValueError("seven\nis not\teight")
    if name == "exit":
        sys.exit(3)


def die_once(path: Path) -> None:
    note(path)
    if len(path.read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def die(name: str) -> None:
    if name != "well":
        os._exit(7)


def sleep_long_if_named(path: Path) -> None:
    note(path)
    if path.stem.startswith("long"):
        time.sleep(60)


def paths(folder: Path, n_paths: int) -> list[Path]:
    return [folder / f"{i}" for i in range(n_paths)]


def by_index(ends) -> list[Ended]:
    return sorted(ends, key=lambda end: end.index)


def n_attempts(path: Path) -> int:
    return len(path.read_text().splitlines())


def wait_until(question, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not question():
        time.sleep(0.05)
    assert question()


@pytest.fixture  # not of the module: tests without it must find no Ray, in whatever order they run
def here():
    """Be connected to a Ray on this machine, as a caller might be."""
    ray.init(
        "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    yield
    ray.shutdown()


def test_every_task_is_done_once_and_the_callers_ray_is_left_running(here, tmp_path):
    items = paths(tmp_path, 20)
    ends = by_index(RayEngine().run(note, items))
    assert ends == [Ended(i, None, 1) for i in range(20)]
    assert [n_attempts(path) for path in items] == [1] * 20
    assert ray.is_initialized()


def test_no_tasks_have_no_ends(here):
    assert list(RayEngine().run(note, [])) == []


def test_an_exception_is_a_failure_and_is_not_tried_again(here):
    ends = by_index(RayEngine().run(raise_as_named, ["plain", "bug", "exit", "well"]))
    assert [end.failure for end in ends] == [
        "row 7 is no image",
        "ValueError: seven is not eight",
        "SystemExit: 3",
        None,
    ]
    assert {end.attempts for end in ends} == {1}


def test_a_task_whose_process_was_killed_is_begun_again(here, tmp_path):
    items = paths(tmp_path, 4)
    assert by_index(RayEngine().run(die_once, items)) == [Ended(i, None, 2) for i in range(4)]
    assert [n_attempts(path) for path in items] == [2] * 4


def test_a_task_whose_process_always_dies_is_a_failure_and_spoils_no_other(here):
    ends = by_index(RayEngine(retries=1).run(die, ["well", "die", "well"]))
    assert ends[0] == Ended(0, None, 1)
    assert ends[1] == Ended(1, "the worker process died (WorkerCrashedError), 2 times", 2)
    assert ends[2] == Ended(2, None, 1)


def test_a_task_that_takes_too_long_is_killed_and_not_begun_again(here, tmp_path):
    items = [tmp_path / name for name in ("long", "a", "b", "long2", "c", "d")]
    start = time.monotonic()
    ends = by_index(RayEngine(timeout=2).run(sleep_long_if_named, items))
    assert time.monotonic() - start < 40
    slow = "took longer than 2 seconds"
    assert [end.failure for end in ends] == [slow, None, None, slow, None, None]
    assert {end.attempts for end in ends} == {1}
    killed = [int((tmp_path / name).read_text()) for name in ("long", "long2")]
    wait_until(lambda: all(is_gone(pid) for pid in killed))


def test_no_time_is_counted_before_a_task_runs(here, tmp_path):
    ends = RayEngine(cpus_per_task=2, timeout=4).run(note_and_sleep, paths(tmp_path, 6))
    assert [end.failure for end in ends] == [None] * 6


def test_no_task_is_left_when_the_iterator_is_closed(here, tmp_path):
    items = [tmp_path / "fast", *(tmp_path / f"long{i}" for i in range(6))]
    ends = RayEngine().run(sleep_long_if_named, items)
    assert next(ends) == Ended(0, None, 1)
    wait_until(lambda: sum(path.stat().st_size > 0 for path in tmp_path.glob("long*")) == 2)
    ends.close()
    pids = [int(path.read_text()) for path in tmp_path.glob("long*")]
    wait_until(lambda: all(is_gone(pid) for pid in pids))
    time.sleep(1)
    assert len(list(tmp_path.glob("long*"))) == 2


def test_a_task_that_never_fits_this_machine_is_a_plain_error(here):
    with pytest.raises(OptionError, match="no machine of this Ray has the 99 CPUs and 0 GPUs"):
        list(RayEngine(cpus_per_task=99).run(note, [1]))
    with pytest.raises(OptionError, match="no machine of this Ray has the 1 CPUs and 64 GPUs"):
        list(RayEngine(gpus_per_task=64).run(note, [1]))


def test_what_cannot_be_pickled_is_a_plain_error_before_anything_runs():
    with pytest.raises(AugkitError, match=r"^the function cannot be sent to another process \("):
        RayEngine().run(threading.Lock().acquire, [1])
    with pytest.raises(AugkitError, match=r"^item 1 cannot be sent .*; use a function of a module"):
        RayEngine().run(note, [1, threading.Lock()])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cpus_per_task": 0}, "cpus_per_task is 0; it must be at least 0.01"),
        ({"gpus_per_task": -1}, "gpus_per_task is -1; it must be at least 0"),
        ({"retries": -1}, "retries is -1; it must be at least 0"),
        ({"timeout": 0}, "timeout is 0; it must be at least 0.1"),
    ],
)
def test_bad_options_are_errors_before_anything_runs(options, message):
    with pytest.raises(OptionError, match=message):
        RayEngine(**options).run(note, [])


def test_ray_is_chosen_by_name():
    engine = choose_engine("ray", workers=None, timeout=60, gpus_per_task=0.5, address="a:1")
    assert engine == RayEngine("a:1", gpus_per_task=0.5, timeout=60)


PROGRAM = """
    import os, time
    from augkit.engines.cluster import RayEngine

    def work(x):
        print("printed")
        os.system("echo echoed")
        if x == 2:
            os._exit(1)
        if x == 3:
            raise ValueError("a bug")

    if __name__ == "__main__":
        for end in RayEngine(retries=1).run(work, range(4)):
            print(end.index, end.attempts, end.failure, flush=True)
        import ray
        print(ray.is_initialized())
"""


def test_a_program_has_a_ray_of_its_own_and_a_clean_stdout(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM))
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    *ends, left = done.stdout.splitlines()
    assert sorted(ends) == [
        "0 1 None",
        "1 1 None",
        "2 2 the worker process died (WorkerCrashedError), 2 times",
        "3 1 ValueError: a bug",
    ]
    assert left == "False"
    assert "printed" in done.stderr
    assert "echoed" in done.stderr
    assert "ValueError: a bug" in done.stderr


INTERRUPTED = """
    import os, sys, time
    from pathlib import Path
    from augkit.engines.cluster import RayEngine

    def work(path):
        Path(path).write_text(str(os.getpid()))
        time.sleep(60)

    if __name__ == "__main__":
        list(RayEngine(cpus_per_task=0.5).run(work, sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_an_interrupted_or_killed_program(tmp_path, number):
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(INTERRUPTED))
    items = [tmp_path / "0.pid", tmp_path / "1.pid"]
    process = subprocess.Popen(
        [sys.executable, str(path), *map(str, items)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: all(item.exists() and item.read_text() for item in items), 60)
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert out == ""
    wait_until(lambda: all(is_gone(int(item.read_text())) for item in items))


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    yield cluster
    with contextlib.suppress(Exception):
        cluster.shutdown()


def sleep_long_elsewhere(item: tuple[Path, str]) -> None:
    """Note the machine, and take long on any but the one that is named."""
    path, head = item
    here = ray.get_runtime_context().get_node_id()
    with path.open("a") as file:
        file.write(f"{here}\n")
    time.sleep(0.5 if here == head else 60)


def test_all_tasks_finish_though_a_machine_is_lost(cluster, tmp_path):
    ray.shutdown()
    second = cluster.add_node(num_cpus=2)
    items = paths(tmp_path, 16)
    ends = []
    for end in RayEngine(cluster.address).run(
        sleep_long_elsewhere, [(path, cluster.head_node.node_id) for path in items]
    ):
        ends.append(end)
        texts = [path.read_text() for path in items if path.exists()]
        if sum(second.node_id in text for text in texts) == 2 and second in cluster.worker_nodes:
            cluster.remove_node(second, allow_graceful=False)
    assert [end.index for end in by_index(ends)] == list(range(16))
    assert [end.failure for end in ends] == [None] * 16
    assert [end.attempts for end in by_index(ends)] == [n_attempts(path) for path in items]
    assert sum(end.attempts for end in ends) == 18
    assert not ray.is_initialized()


def test_a_cluster_that_does_not_answer_is_a_plain_error():
    with pytest.raises(OptionError, match=r"^no Ray cluster answers at '127.0.0.1:9' \("):
        list(RayEngine("127.0.0.1:9").run(note, [1]))
    assert not ray.is_initialized()
