"""Slow tests and tests on a GPU run only where they are asked for, or can run."""

import atexit
import os
import shutil
import signal
import tempfile

import pytest

# Several tests run at once: threads of one would wait for those of the others.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that runs a command in the background has it ignore Ctrl-C, and all that it starts.
for number, usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

# What tests write is not noted among the files that this user's augkit knows.
_known = tempfile.mkdtemp(prefix="augkit-tests-")
os.environ["AUGKIT_EXAMINED"] = f"{_known}/examined"
atexit.register(shutil.rmtree, _known, ignore_errors=True)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run all tests")
    parser.addoption("--seconds", action="store_true", help="run those that take seconds as well")


def pytest_collection_modifyitems(config, items):
    without_gpu = pytest.mark.skip(reason="needs a CUDA device")
    runs = {"--slow": ("slow", "seconds"), "--seconds": ("seconds",)}
    asked = {name for option, names in runs.items() if config.getoption(option) for name in names}
    left_out = {"slow", "seconds"} - asked
    slow = [item for item in items if left_out & {mark.name for mark in item.iter_markers()}]
    for item in items:
        if item.get_closest_marker("gpu") and not has_gpu():
            item.add_marker(without_gpu)
    if slow:
        items[:] = [item for item in items if item not in slow]
        config.hook.pytest_deselected(items=slow)


def has_gpu():
    import torch

    return torch.cuda.is_available()
