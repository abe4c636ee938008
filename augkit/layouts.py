"""How an export lies on the disk: folders a class, Hugging Face, WebDataset, one NPZ file.

A layout is told of a collection, then given its images in the order that it asked for, a block at
a time. Whatever a key or a class is called, a file name holds letters, digits, `-` and `_` only.
"""

from __future__ import annotations

import io
import json
import tarfile
import unicodedata
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from augkit.interfaces import Shape
from augkit.reports.sheets import picture

SHARD_BYTES = 2**28
"""The size that a tar file of WebDataset keeps within, unless one image is larger."""

_LONGEST = 60
"""Bytes of a part of a file name; three of them stay under the 255 of file systems."""
_RECORD = 10240
"""What tar pads the end of a file to."""
_DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True)
class Row:
    """One image of an export, without its pixels."""

    id: str
    """Unique within the export, and safe as a file name."""
    label: int
    about: dict[str, Any]
    """Where it comes from: JSON values by column."""


class Layout(ABC):
    """Writes images and their rows below a folder. Closed as a context, also after an error."""

    def __init__(self, folder: Path, classes: Sequence[str], shape: Shape, shard_bytes: int):
        self.folder = folder
        self.classes = distinct(classes)
        self.shape = shape
        self.shard_bytes = shard_bytes

    @abstractmethod
    def begin(self, name: str, labels: np.ndarray) -> np.ndarray:
        """Begin a collection; return int64 (N,), the positions in the order to be given."""

    @abstractmethod
    def add(self, images: np.ndarray, rows: Sequence[Row]) -> list[str]:
        """Write some images, uint8 (n, H, W, C); return for each what metadata.csv calls it."""

    def metadata(self) -> Path:
        """Return the CSV file for the rows of the collection that has begun."""
        return self.folder / "metadata.csv"

    def close(self) -> None:  # noqa: B027  (most layouts keep no file open)
        """Finish the last file."""


class ImageFolder(Layout):
    """PART/CLASS/ID.png, as torchvision and timm read it."""

    def begin(self, name: str, labels: np.ndarray) -> np.ndarray:
        """Make a folder for every class: readers number the classes by the folders there are."""
        self._name = name
        for label in self.classes:
            (self.folder / name / label).mkdir(parents=True)
        return np.arange(len(labels))

    def add(self, images: np.ndarray, rows: Sequence[Row]) -> list[str]:
        """Write a PNG file for each image."""
        names = [f"{self._name}/{self.classes[row.label]}/{row.id}.png" for row in rows]
        for name, image in zip(names, images, strict=True):
            (self.folder / name).write_bytes(png(image))
        return names


class HuggingFace(Layout):
    """PART/ID.png beside PART/metadata.csv, as `load_dataset("imagefolder")` reads it."""

    def begin(self, name: str, labels: np.ndarray) -> np.ndarray:
        """Make the folder of the part."""
        self._place = self.folder / name
        self._place.mkdir()
        return np.arange(len(labels))

    def add(self, images: np.ndarray, rows: Sequence[Row]) -> list[str]:
        """Write a PNG file for each image."""
        for row, image in zip(rows, images, strict=True):
            (self._place / f"{row.id}.png").write_bytes(png(image))
        return [f"{row.id}.png" for row in rows]

    def metadata(self) -> Path:
        """Return the file of the part: it is not read from anywhere else."""
        return self._place / "metadata.csv"


class WebDataset(Layout):
    """PART-000000.tar with ID.cls, ID.json and ID.png, in an order without a pattern.

    Equal exports give equal bytes: the order is drawn from a fixed seed, and no file has a time or
    an owner.
    """

    _tar: tarfile.TarFile | None = None

    def begin(self, name: str, labels: np.ndarray) -> np.ndarray:
        """Return a shuffled order: whoever reads shards in turn shuffles a little at a time."""
        self.close()
        self._name, self._shards = name, 0
        return np.random.Generator(np.random.Philox(0)).permutation(len(labels))

    def add(self, images: np.ndarray, rows: Sequence[Row]) -> list[str]:
        """Write three members for each image."""
        found = []
        for row, image in zip(rows, images, strict=True):
            about = json.dumps(row.about, ensure_ascii=False).encode()
            contents = {"cls": b"%d" % row.label, "json": about, "png": png(image)}
            members = [(_member(f"{row.id}.{k}", len(v)), v) for k, v in contents.items()]
            tar = self._shard_for(sum(_size(member) for member, _ in members))
            for member, content in members:
                tar.addfile(member, io.BytesIO(content))
            found.append(self._shard_name(self._shards - 1))
        return found

    def _shard_for(self, n_bytes: int) -> tarfile.TarFile:
        """Return the shard that takes so many bytes more: a new one if the last would be large."""
        tar = self._tar
        if tar is None or (tar.offset and tar.offset + n_bytes + _RECORD > self.shard_bytes):
            self.close()
            path = self.folder / self._shard_name(self._shards)
            self._tar = tar = tarfile.open(path, "x", format=tarfile.PAX_FORMAT)  # noqa: SIM115
            self._shards += 1
        return tar

    def _shard_name(self, number: int) -> str:
        return f"{self._name}-{number:06d}.tar"

    def close(self) -> None:
        """Finish the shard."""
        if self._tar is not None:
            self._tar.close()
        self._tar = None


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def _size(member: tarfile.TarInfo) -> int:
    """Return the bytes of a member in a tar file, its header included."""
    head = len(member.tobuf(tarfile.PAX_FORMAT))
    return head + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


class Npz(Layout):
    """data.npz with train_images, train_labels, val_images and so on, as MedMNIST names them.

    images uint8 (N, H, W), in colour (N, H, W, 3); labels int64 (N, 1); classes, text (K,). The
    arrays are written row by row into the archive.
    """

    FILE = "data.npz"

    def __init__(self, folder: Path, classes: Sequence[str], shape: Shape, shard_bytes: int):
        super().__init__(folder, classes, shape, shard_bytes)
        self._archive = zipfile.ZipFile(folder / self.FILE, "x")
        self._images: IO[bytes] | None = None
        self._write("classes", np.array(classes, str))

    def begin(self, name: str, labels: np.ndarray) -> np.ndarray:
        """Write the labels and the head of the images."""
        self._end()
        short = {"validation": "val"}.get(name, name)
        self._write(f"{short}_labels", labels[:, None])
        height, width, channels = self.shape
        shape = (len(labels), height, width, *([channels] if channels > 1 else []))
        self._images = self._open(f"{short}_images", np.dtype(np.uint8), shape)
        return np.arange(len(labels))

    def add(self, images: np.ndarray, rows: Sequence[Row]) -> list[str]:
        """Append some images to the array that has begun."""
        assert self._images is not None
        self._images.write(images.tobytes())
        return [self.FILE] * len(rows)

    def _write(self, name: str, array: np.ndarray) -> None:
        with self._open(name, array.dtype, array.shape) as member:
            member.write(array.tobytes())

    def _open(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> IO[bytes]:
        """Return a member to write an array into, in the order of C."""
        member = self._archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)
        about = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(member, about)
        return member

    def _end(self) -> None:
        if self._images is not None:
            self._images.close()
        self._images = None

    def close(self) -> None:
        """Finish the archive."""
        self._end()
        self._archive.close()


LAYOUTS: dict[str, type[Layout]] = {
    "imagefolder": ImageFolder,
    "huggingface": HuggingFace,
    "webdataset": WebDataset,
    "npz": Npz,
}


def png(image: np.ndarray) -> bytes:
    """Return uint8 (H, W, 1 or 3) as a PNG file, without loss."""
    file = io.BytesIO()
    picture(image).save(file, format="PNG")
    return file.getvalue()


def safe(text: str) -> str:
    """Return what a file may be called: letters, digits, - and single _; empty if none is left.

    At most 60 bytes of UTF-8. Nothing in it leads out of a folder or is special to a shell.
    """
    plain = unicodedata.normalize("NFC", text)
    kept = "".join(c if c == "-" or unicodedata.category(c)[0] in "LMN" else "_" for c in plain)
    joined = "_".join(filter(None, kept.split("_")))
    return joined.encode()[:_LONGEST].decode(errors="ignore").strip("-_")


def distinct(names: Iterable[str]) -> list[str]:
    """Return a file name for each name, no two alike even where case does not count."""
    found: list[str] = []
    taken = set(_DEVICES)
    for name in names:
        base, number = safe(name) or "unnamed", 1
        chosen = base
        while chosen.casefold() in taken:
            number += 1
            chosen = f"{base}-{number}"
        taken.add(chosen.casefold())
        found.append(chosen)
    return found
