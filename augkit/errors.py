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


class AugkitError(Exception):
    """Something a user can cause and mend. The message is one plain line."""


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


class TrainingFailed(PluginError):
    """Training diverged, or its checkpoint cannot be used."""
