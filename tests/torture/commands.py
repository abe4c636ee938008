"""Every command killed at every call, as the tests do at some calls."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .worlds import Tally

COMMANDS = (
    "ingest", "ingest-more", "augment", "retract", "pack", "unpack", "evaluate", "fit", "purge",
)  # fmt: skip


def campaign(command: str, form: str, root: Path) -> Tally:
    """Kill a command at every call, in every mode; return how many kills, and what was wrong."""
    import test_crash as crash
    import test_purging as purging

    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    store, found = {"folder": "a.store", "file": "a.h5"}[form], Tally()
    try:
        if command == "purge":
            found.n = purging.kill_and_check(root, store, 0, 0)
        else:
            calls = crash.kill(root, [(command, store)], 0)[command, store]
            home = root / f"{command}-{store}"
            found.n = crash.check_killed(home, (command, store), calls, 0)
    except (Exception, pytest.fail.Exception) as error:
        found.errors += 1
        found.notes.append(f"{form}: {command}: {error} {getattr(error, '__notes__', '')}")
    return found
