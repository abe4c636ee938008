"""Pseudonyms: keys and groups that name nobody, and patients told apart without their names.

A pseudonym is the HMAC-SHA256 of a name under a secret that lies beside the store and never in it.
Whoever has the store and not the secret can neither read a name nor try one out; whoever has both
can try names out, but still not read them. The same name gives the same pseudonym, so that what is
ingested later finds what is there. docs/ingest.md says what this does not protect against.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from augkit.errors import InputError, OptionError
from augkit.ingestion import dicom
from augkit.ingestion.readers import PICTURES, Listing, Source, natural, printable
from augkit.store import Snapshot
from augkit.store.plain import is_special
from augkit.tables import counted

DIGITS = 32
"""Hexadecimal digits of a pseudonym: 128 bits."""
_SHORTEST = 32
"""Characters of a secret."""


@dataclass(frozen=True)
class Naming:
    """How the images of an ingest are called, and what groups them."""

    hashed: bool
    """Keys and groups are pseudonyms."""
    by_patient: bool
    """The PatientID of DICOM files is their group, as a pseudonym."""
    file: Path
    """The file of the secret; made when it is first needed."""

    @classmethod
    def of(
        cls,
        snapshot: Snapshot | None,
        store: Path,
        *,
        keys: str | None,
        group_by: str | None,
        secret: str | Path | None,
    ) -> Naming:
        """Return what was asked for; what was not is as in the store. Raises OptionError."""
        for name, value, known in (
            ("keys", keys, ("path", "hash")),
            ("group by", group_by, ("patient",)),
        ):
            if value is not None and value not in known:
                raise OptionError(f"{name} is {value!r}; it must be {' or '.join(known)}")
        before = _options(snapshot)
        hashed = keys == "hash" or (keys is None and _had(before, "keys", "hash"))
        by_patient = group_by == "patient" or _had(before, "group_by", "patient")
        beside = store.resolve()
        file = Path(secret) if secret else beside.with_name(f"{beside.name}.secret")
        naming = cls(hashed, by_patient, file)
        naming._check(before, secret is not None)
        return naming

    def _check(self, before: list[dict[str, Any]], named: bool) -> None:
        """Raise OptionError where another secret than before would make other pseudonyms."""
        known = {str(options["secret_mark"]) for options in before if "secret_mark" in options}
        if named and not self.needs_secret:
            raise OptionError("--secret is for --keys hash or --group-by patient")
        if not (self.needs_secret and known):
            return
        if not self.file.exists():
            raise OptionError(
                f"the store has pseudonyms, and their secret is not at {printable(self.file)}: "
                "name it with --secret FILE"
            )
        if self.mark not in known:
            raise OptionError(
                f"{printable(self.file)} is not the secret that made the pseudonyms of this store: "
                "name the right one with --secret FILE"
            )

    @property
    def needs_secret(self) -> bool:
        """Return True if there are pseudonyms."""
        return self.hashed or self.by_patient

    @cached_property
    def _secret(self) -> bytes:
        if not self.file.exists():
            _make(self.file)
        try:
            if is_special(self.file):
                raise OSError("no regular file")
            text = self.file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{printable(self.file)} cannot be read as a secret; name a text file"
            ) from error
        if len(text) < _SHORTEST:
            raise InputError(
                f"{printable(self.file)} is no secret: it needs {_SHORTEST} characters"
            )
        return text.encode()

    @property
    def mark(self) -> str:
        """Return what tells a secret from others, and says nothing of it."""
        return self.pseudonym("secret", "")[:16]

    def pseudonym(self, kind: str, name: str) -> str:
        """Return the pseudonym of a name; kind: key, group or patient."""
        message = f"{kind}:{name}".encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()[:DIGITS]

    def noted(self) -> dict[str, str]:
        """Return what the log keeps: never the secret."""
        found = {"keys": "hash"} if self.hashed else {}
        found |= {"group_by": "patient"} if self.by_patient else {}
        return found | ({"secret_mark": self.mark} if self.needs_secret else {})

    def apply(self, listing: Listing, *, asked: bool) -> tuple[Listing, list[str]]:
        """Return a listing with pseudonyms, and what the user should know.

        asked: patients were asked for in this very call. Raises OptionError if there are none.
        """
        said = []
        if self.by_patient:
            listing, told = self._grouped(listing, asked)
            said += told
        if self.hashed:
            said.append(
                f"keys and groups are pseudonyms, made with {printable(self.file)}: keep that file "
                "for later ingests, and never pass it on with the store"
            )
            sources = [self._renamed(source) for source in listing.sources]
            if listing.pixels is None or not listing.pixels.in_order:
                sources.sort(key=lambda source: natural(source.key))  # else the order tells names
            listing = replace(listing, sources=tuple(sources))
        return listing, said

    def _renamed(self, source: Source) -> Source:
        own = self.pseudonym("key", source.key)
        group = source.group
        if group is not None and not group.startswith(_PATIENT):
            group = self.pseudonym("group", f"{source.dataset}/{group}")
        shown = source.shown or source.key.removeprefix(f"{source.dataset}/")
        return replace(source, key=f"{source.dataset}/{own}", group=group, shown=shown)

    def _grouped(self, listing: Listing, asked: bool) -> tuple[Listing, list[str]]:
        """Return the listing with PatientIDs as groups, where no other group is named."""
        files = [s for s in listing.sources if is_dicom_source(s)]
        if asked and not files:
            raise OptionError("--group-by patient is for DICOM files, and there are none")
        sources, unknown = [], 0
        for source in listing.sources:
            if source.group is None and is_dicom_source(source):
                patient = _quietly(dicom.patient_id, source.path) or ""
                unknown += not patient
                group = _PATIENT + self.pseudonym("patient", patient) if patient else None
                source = replace(source, group=group)
            sources.append(source)
        told = [f"{counted(unknown, 'file')} without PatientID stand alone"] if unknown else []
        return replace(listing, sources=tuple(sources)), told


_PATIENT = "patient-"


def is_dicom_source(source: Source) -> bool:
    """Return True for a source that is a DICOM file."""
    if source.row >= 0 or source.span is not None or source.path.suffix.lower() in PICTURES:
        return False
    try:
        with source.path.open("rb") as file:
            return dicom.is_dicom(file.read(132))
    except OSError:
        return False


def _quietly(read: Callable[[Path], Any], path: Path) -> Any:
    """Return what is read from a file; None if it is damaged, which decoding it will say."""
    try:
        return read(path)
    except InputError:
        return None


def burned_in(listing: Listing) -> tuple[str, ...]:
    """Return a warning where DICOM files say that text is burned into their pixels."""
    files = [source.path for source in listing.sources if is_dicom_source(source)]
    if not files:
        return ()
    dicom.require()
    n = sum(bool(_quietly(dicom.says_text_is_burned_in, path)) for path in files)
    if not n:
        return ()
    return (
        f"{counted(n, 'DICOM file')} say that text is burned into the pixels: whatever it names "
        "comes into the store with them",
    )


def _options(snapshot: Snapshot | None) -> list[dict[str, Any]]:
    entries = snapshot.entries if snapshot is not None else ()
    found = [entry.get("options") for entry in entries if entry["kind"] == "ingest"]
    return [options for options in found if isinstance(options, dict)]


def _had(before: list[dict[str, Any]], name: str, value: str) -> bool:
    return any(options.get(name) == value for options in before)


def _make(path: Path) -> None:
    """Write a new secret, for its owner's eyes only; one that another command writes is as good."""
    part = path.with_name(f".{path.name}~{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            pass
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {printable(path)}: {error.strerror}") from error
