"""The words of the format: version, names of files and columns, log entries as bytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import time
import uuid
from functools import cache
from pathlib import Path
from typing import Any

from augkit.errors import DamagedStore, FormatError, StoreError
from augkit.store.entries import fault_of, is_modest

FORMAT_VERSION = 1
"""Raised whenever an older augkit could misread what a newer one wrote."""

Entry = dict[str, Any]
"""One committed change, as kept in the log."""


def canonical(value: Any) -> bytes:
    """Return JSON with sorted keys and no spaces: equal values give equal bytes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8")


def digest_of(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(value)).hexdigest()


def signed(value: Entry) -> Entry:
    """Return a JSON object with the digest of all else in it."""
    return {**value, "digest": digest_of(value)}


def unsigned(value: Entry) -> Entry | None:
    """Return a JSON object without its digest; None if that is not its own."""
    rest = {k: v for k, v in value.items() if k != "digest"}
    return rest if value.get("digest") == digest_of(rest) else None


def encode_entry(entry: Entry) -> bytes:
    """Return a log entry as bytes that carry their own SHA-256."""
    return canonical(signed(entry)) + b"\n"


def decode_entry(content: bytes, where: str) -> Entry:
    """Return the log entry with its digest. Raises DamagedStore unless every byte is as written.

    Also where what it says cannot be: whoever writes a store can make a digest fit.
    """
    if not is_modest(content):
        raise DamagedStore(f"{where} is damaged: {len(content)} bytes are more than it can have")
    try:
        entry = unsigned(json.loads(content))
        intact = entry is not None and content == encode_entry(entry)
    except (ValueError, AttributeError, TypeError, RecursionError):
        entry, intact = None, False
    if entry is None or not intact:
        raise DamagedStore(f"{where} is damaged: its bytes are not those that were committed")
    if entry.get("format") != FORMAT_VERSION:
        raise FormatError(newer(where, entry.get("format")))
    fault = fault_of(entry)
    if fault:
        raise DamagedStore(f"{where} cannot be used: {fault}; get the store again")
    return signed(entry)


def require_readable(content: bytes) -> None:
    """Raise StoreError for a log entry that this store could not be read with, once committed."""
    fault = f"it has {len(content)} bytes"
    if is_modest(content):
        fault = fault_of(json.loads(content))
    if fault:
        raise StoreError(
            f"nothing was committed, for the log could not be read again: {fault}; take shorter "
            "names, fewer images at once, or another plugin"
        )


def newer(where: str, version: object) -> str:
    """Return the message for a store of another format version."""
    return (
        f"{where} has format version {version}; this augkit reads version {FORMAT_VERSION}: "
        "use the augkit that wrote it"
    )


def staged_name(suffix: str = ".h5") -> str:
    """Return a name that is unique and tells which process it belongs to."""
    return f"{_host()}.{os.getpid()}.{uuid.uuid4().hex}{suffix}"


@cache
def _host() -> str:
    """Return what tells apart machines, and containers, whose processes have the same numbers."""
    known = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(),
        lambda: str(Path("/proc/self/ns/pid").readlink()),
    ):
        with contextlib.suppress(OSError):
            known.append(read())
    return digest_of(known)[:12]


def is_staged(name: str) -> bool:
    """Return True for the names that `staged_name` gives."""
    return bool(re.fullmatch(r"(.*~)?[0-9a-f]{12}\.\d+\.[0-9a-f]{32}\.\w+", name, re.DOTALL))


def is_abandoned(path: Path) -> bool:
    """Return True if this was staged by a process that is gone (elsewhere: a day ago)."""
    if not is_staged(path.name):
        return False
    host, pid, *_ = [*path.name.rsplit("~", 1)[-1].split("."), "", ""]
    if host != _host() or not pid.isdigit():
        try:
            return path.stat().st_mtime < time.time() - 86400
        except FileNotFoundError:
            return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False
