"""Notes which errors of users a run of tests meets; loaded into it by `-p messages`.

Each line of the file that AUGKIT_TEST_MESSAGES names is JSON: how an error was met and its message.
`command`: it ended a command line, with exit code 2, one line and no traceback. `raised`: it was
made anywhere else.
"""

from __future__ import annotations

import json
import os
from typing import Any

import commands

from augkit.errors import AugkitError

_command, _init = commands.command, AugkitError.__init__


def _note(how: str, message: str) -> None:
    line = json.dumps([how, message]) + "\n"
    handle = os.open(os.environ["AUGKIT_TEST_MESSAGES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line.encode())
    os.close(handle)


def _noted_command(*arguments: Any, cwd: Any) -> commands.Outcome:
    outcome = _command(*arguments, cwd=cwd)
    last = outcome.err.rstrip("\n").rpartition("\n")[2]
    if outcome.code == 2 and last.startswith("augkit: ") and "Traceback" not in outcome.err:
        _note("command", last.removeprefix("augkit: "))
    return outcome


def _noted_init(self: AugkitError, *arguments: Any) -> None:
    _init(self, *arguments)
    _note("raised", str(self))


commands.command = _noted_command
AugkitError.__init__ = _noted_init  # type: ignore[method-assign]
