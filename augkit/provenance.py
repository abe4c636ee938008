"""Which code made something: distribution, version, and the hash of the files that it installed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from typing import Any

Code = list[dict[str, str]]


def code_of(plugins: Sequence[Mapping[str, Any]]) -> Code:
    """Return `distribution`, `version` and `record` of each package that plugins come from.

    plugins: as a recipe names them. record: SHA-256 of the package's RECORD, which lists the hash
    of every file that was installed; empty where there is none. Of an editable installation the
    RECORD does not name the sources.
    """
    packages = {(p["distribution"], p["version"]): None for p in plugins}
    return [
        {"distribution": name, "version": version, "record": _record_of(name)}
        for name, version in packages
    ]


@lru_cache(maxsize=64)
def _record_of(name: str) -> str:
    try:
        return record_hash(installed(name))
    except (PackageNotFoundError, ValueError):
        return ""


def installed(name: str) -> Distribution:
    """Return a distribution by its name, rather one that was installed than a folder of sources.

    What a build leaves beside sources names the package as well, and has no RECORD. Raises
    PackageNotFoundError.
    """
    found = list(distributions(name=name))
    return next((d for d in found if d.read_text("RECORD")), None) or distribution(name)


def record_hash(dist: Distribution) -> str:
    """Return the SHA-256 of the RECORD of an installed distribution; empty where it has none."""
    text = dist.read_text("RECORD")
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def changed_code(then: Code, now: Code) -> str:
    """Return in words which packages are others than those that made something; empty: none."""
    here = {each["distribution"]: each for each in now}
    found = []
    for each in then:
        name, other = each["distribution"], here.get(each["distribution"])
        if other is None:
            found.append(f"{name} is not the package that offers the plugin now")
        elif other["version"] != each["version"]:
            found.append(f"{name} {each['version']} -> {other['version']}")
        elif each["record"] and other["record"] != each["record"]:
            found.append(f"{name} {each['version']} has other files")
    return ", ".join(found)
