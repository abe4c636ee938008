"""What keeps a purge and all other commands apart.

Whoever writes into a store holds it still and looks whether it is still the one that was read: a
purge, which holds everybody off, either comes before, and then nothing is written, or after, and
then it finds what was written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from augkit.errors import DamagedStore, StoreError
from augkit.store.folder import Folder
from augkit.store.format import Entry, decode_entry
from augkit.store.packed import PackedFile

Guard = Callable[[], contextlib.AbstractContextManager[None]]
"""Held while something is written that belongs to no commit; raises if that must not be."""

PURGING = "purging"
"""The kind of the last log entry while a purge is under way."""


@dataclass(frozen=True)
class Standing:
    """A store as a command read it: the form, and the newest entry that it saw."""

    form: Folder | PackedFile
    number: int
    """0: it saw none."""
    digest: str | None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold off a purge. Raises StoreError if there was one since the store was read."""
        with self.form.sharing():
            count = self.form.count()
            if count:
                require_finished(self.form, read_entry(self.form, count))
            seen = self.number <= count and (
                not self.number or read_entry(self.form, self.number)["digest"] == self.digest
            )
            if not seen:
                raise purged(self.form)
            yield


def read_entry(form: Folder | PackedFile, number: int) -> Entry:
    """Return an entry of the log. Raises DamagedStore if it is not as it was written."""
    return decode_entry(form.entry(number), f"{form.path}: entry {number} of the log")


def require_finished(form: Folder | PackedFile, newest: Entry) -> None:
    """Raise StoreError while a purge is under way, or was killed."""
    if newest["kind"] == PURGING:
        raise StoreError(
            f"{form.path} is being purged, or its purge was stopped: augkit purge --store "
            f"{form.path} waits for it, or finishes it"
        )


def purged(form: Folder | PackedFile) -> StoreError:
    """Return the error of a command whose store has another past than it had."""
    if not form.path.exists():
        return DamagedStore(f"{form.path} is gone: it was moved or deleted meanwhile")
    return StoreError(
        f"{form.path} was purged, or replaced by another store, since this command read it: run "
        "it again (in Python: open the store again)"
    )
