"""Every error that a user of augkit can cause.

    AugkitError
    ├── InputError          a file, folder, manifest or image given to augkit is unusable
    ├── OptionError         an option does not exist, or its value is out of range
    ├── StoreError
    │   ├── StoreNotFound   no store at that path, or several to choose from
    │   ├── FormatError     the store was written by another format version, or is no store
    │   ├── DamagedStore    bytes on disk are not the bytes that were committed
    │   └── NameTaken       a run name or an image key is in use with another content
    ├── LineageError        a row was asked for where its lineage does not allow it
    └── PluginError
        ├── PluginNotFound  no plugin of that name
        ├── PluginFailed    a plugin raised, or returned something that breaks the contract
        └── TrainingFailed  training diverged, or its checkpoint cannot be used

A message says what was wrong, shows the value, and names the command or setting that
mends it. `augkit` prints it as one line and exits with 2; any other exception is a bug of ours
and keeps its traceback.
"""

from __future__ import annotations

import re
from typing import ClassVar


class AugkitError(Exception):
    """Something a user can cause and mend. The message is one plain line."""

    remedy: ClassVar[str] = ""
    """What helps against all errors of a class, where a message names nothing better."""

    def told(self) -> str:
        """Return the message, with the remedy of its class if it names no command or flag."""
        message = str(self)
        own = not self.remedy or re.search(r"\baugkit [a-z]|--[a-z]|-o [a-z]|again", message)
        return message if own else f"{message}; {self.remedy}"


_LONGEST = 2000
"""Characters of what somebody else's exception says that are shown."""


def cause(error: BaseException) -> str:
    """Return an exception on one line, also one that cannot say what it is."""
    kind = type(error).__name__
    try:
        text = " ".join(str(error).split())
    except (Exception, SystemExit):
        text = ""
    return (f"{kind}: {text}" if text else kind)[:_LONGEST]


class InputError(AugkitError):
    """A file, folder, manifest or image given to augkit is unusable."""


class OptionError(AugkitError):
    """An option does not exist, or its value is out of range."""


class StoreError(AugkitError):
    """A store cannot be used as asked."""


class StoreNotFound(StoreError):
    """No store at that path, or several to choose from."""


class FormatError(StoreError):
    """The store was written by another format version, or is no store at all."""


class DamagedStore(StoreError):
    """Bytes on disk are not the bytes that were committed."""

    remedy = "augkit verify lists what is affected; a copy of the store has the rest"


class NameTaken(StoreError):
    """A run name or an image key is in use with another content."""


class LineageError(AugkitError):
    """A row was asked for where its lineage does not allow it."""


class PluginError(AugkitError):
    """A plugin cannot be used."""


class PluginNotFound(PluginError):
    """No plugin of that name is installed."""


class PluginFailed(PluginError):
    """A plugin raised, or returned something that breaks the contract."""

    remedy = "take another plugin, or tell its author: augkit plugin check PACKAGE shows more"


class TrainingFailed(PluginError):
    """Training diverged, or its checkpoint cannot be used."""
