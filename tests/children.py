"""Child processes, for tests that no one is left behind."""

from __future__ import annotations

import os
import time
from pathlib import Path


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def wait_until_gone(pids: list[int]) -> bool:
    end = time.monotonic() + 10
    while time.monotonic() < end and not all(is_gone(pid) for pid in pids):
        time.sleep(0.02)
    return all(is_gone(pid) for pid in pids)
