"""Command lines of augkit, run in this process: a fraction of the time of a new one."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augkit_cli.main import run


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return what it printed, which must be JSON and nothing else."""
        return json.loads(self.out)


def command(*arguments: str | Path | int, cwd: Path) -> Outcome:
    """Run `augkit ARGUMENTS` in a folder, up to and with its exit."""
    out, err, before, code = io.StringIO(), io.StringIO(), sys.argv, 0
    sys.argv = ["augkit", *map(str, arguments)]
    try:
        with (
            contextlib.chdir(cwd),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            run()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = before
    return Outcome(code, out.getvalue(), err.getvalue())


def works(*arguments: str | Path | int, cwd: Path) -> Outcome:
    """Run a command that must end well; its messages are shown if it does not."""
    outcome = command(*arguments, cwd=cwd)
    assert outcome.code == 0, outcome.err
    return outcome
