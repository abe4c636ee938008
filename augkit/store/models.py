"""Fitted models: the files that a plugin saved, kept under a hash of what is in them."""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augkit.errors import DamagedStore, PluginFailed
from augkit.store import durable
from augkit.store.format import Entry, digest_of
from augkit.store.plain import is_hollow
from augkit.store.shards import flushed_sha256

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.(safetensors|json)")
"""Names that the files of a model may have: weights and words, nothing that could run."""

MODEL_NAME = re.compile(r"[0-9a-f]{64}")

PROVENANCE = "provenance.json"
"""The file of a model in which the core says what it was fitted on, for whoever it is given to."""

Files = dict[str, dict[str, Any]]
"""The files of a model by name, each with its `bytes` and `sha256`."""


@dataclass(frozen=True)
class Model:
    """One fitted model as its commit describes it."""

    name: str
    """SHA-256 of the names and hashes of its files: equal weights have equal names."""
    plugin: str
    recipe: dict[str, Any]
    partition: str
    trained_from: str
    """Digest of the training part that it was fitted on."""
    fitted_on: tuple[int, ...]
    """Real rows that it was fitted on: the lineage of everything that it makes."""
    complete: bool
    """False if the fit was stopped before its end."""
    note: str
    details: dict[str, Any]
    number: int
    """The commit that brought it."""
    files: Files


def flush_model(folder: Path) -> dict[str, Any]:
    """Flush what a plugin saved to the disk; return what the log keeps of it: name and files.

    Raises PluginFailed unless these are plain files of the names that a model may have.
    """
    files: Files = {}
    for path in sorted(folder.iterdir()):
        if not (FILE_NAME.fullmatch(path.name) and _is_plain(path)):
            raise PluginFailed(
                f"the plugin saved {path.name!r}, which cannot be kept: save(folder) may write "
                "plain files called NAME.safetensors or NAME.json, and nothing else"
            )
        sha256 = flushed_sha256(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256}
    if not files:
        raise PluginFailed(
            "the plugin saved nothing: save(folder) must write what load(folder) reads, as files "
            "called NAME.safetensors or NAME.json"
        )
    durable.flush_folder(folder)
    return {"name": _name_of(files), "files": files}


def read_model(entry: Entry) -> Model:
    """Return the model of a log entry. Raises DamagedStore if it does not describe one."""
    try:
        name, files = entry["model"]["name"], entry["model"]["files"]
        if not files or name != _name_of(files) or not all(map(FILE_NAME.fullmatch, files)):
            raise ValueError("its name is not that of its files")
        if not entry["fitted_on"]:
            raise ValueError("it was fitted on nothing")
        plugin = entry["recipe"]["plugin"]
        return Model(
            name=name,
            plugin=plugin if isinstance(plugin, str) else plugin["name"],
            recipe=entry["recipe"],
            partition=entry["partition"],
            trained_from=entry["trained_from"],
            fitted_on=tuple(map(int, entry["fitted_on"])),
            complete=entry["complete"],
            note=entry["note"],
            details=entry["details"],
            number=entry["number"],
            files=files,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedStore(f"commit {entry['number']} describes no model: {error!r}") from error


def damage(folder: Path, files: Files) -> Iterator[str]:
    """Yield in words how the files of a folder differ from those that were committed."""
    try:
        found = {path.name: path for path in folder.iterdir()}
    except OSError as error:
        yield f"its folder cannot be read: {error.strerror}"
        return
    for name in sorted(found.keys() - files.keys()):
        yield f"file {name!r} does not belong to it"
    for name, about in files.items():
        if name not in found:
            yield f"file {name!r} is missing"
        elif not _is_intact(found[name], about):
            yield f"the bytes of file {name!r} are not those that were committed"


def _name_of(files: Files) -> str:
    return digest_of({name: about["sha256"] for name, about in files.items()})


def _is_plain(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _is_intact(path: Path, about: dict[str, Any]) -> bool:
    try:
        status = path.lstat()
        if not _is_plain(path) or status.st_size != about.get("bytes") or is_hollow(status):
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == about["sha256"]
    except OSError:
        return False
