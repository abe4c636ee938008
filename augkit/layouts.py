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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import IO, Any

import numpy as np

from augkit.engines.local import ordered_map
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
    def add(
        self, images: np.ndarray, rows: Sequence[Row], masks: np.ndarray | None = None
    ) -> list[tuple[str, ...]]:
        """Write some images, uint8 (n, H, W, C), and their masks, uint8 (n, H, W), if any.

        Returns for each what metadata.csv calls it, and then its mask.
        """

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

    def add(
        self, images: np.ndarray, rows: Sequence[Row], masks: np.ndarray | None = None
    ) -> list[tuple[str, ...]]:
        """Write a PNG file for each image, and masks/PART/CLASS/ID.png for each mask."""
        names = [f"{self._name}/{self.classes[row.label]}/{row.id}.png" for row in rows]
        write(self.folder, names, images)
        if masks is None:
            return [(name,) for name in names]
        return list(zip(names, write(self.folder / "masks", names, masks), strict=True))


class HuggingFace(Layout):
    """PART/ID.png beside PART/metadata.csv, as `load_dataset("imagefolder")` reads it."""

    def begin(self, name: str, labels: np.ndarray) -> np.ndarray:
        """Make the folder of the part."""
        self._place = self.folder / name
        self._place.mkdir()
        return np.arange(len(labels))

    def add(
        self, images: np.ndarray, rows: Sequence[Row], masks: np.ndarray | None = None
    ) -> list[tuple[str, ...]]:
        """Write a PNG file for each image, and masks/ID.png beside it for each mask."""
        names = [f"{row.id}.png" for row in rows]
        write(self._place, names, images)
        if masks is None:
            return [(name,) for name in names]
        return list(zip(names, write(self._place / "masks", names, masks), strict=True))

    def metadata(self) -> Path:
        """Return the file of the part: it is not read from anywhere else."""
        return self._place / "metadata.csv"


class WebDataset(Layout):
    """PART-000000.tar with ID.cls, ID.json, ID.png (and ID.mask.png), in an order without pattern.

    Equal exports give equal bytes: the order is drawn from a fixed seed, and no file has a time or
    an owner.
    """

    _tar: tarfile.TarFile | None = None

    def begin(self, name: str, labels: np.ndarray) -> np.ndarray:
        """Return a shuffled order: whoever reads shards in turn shuffles a little at a time."""
        self.close()
        self._name, self._shards = name, 0
        return np.random.Generator(np.random.Philox(0)).permutation(len(labels))

    def add(
        self, images: np.ndarray, rows: Sequence[Row], masks: np.ndarray | None = None
    ) -> list[tuple[str, ...]]:
        """Write three members for each image, four where there are masks."""
        found: list[tuple[str, ...]] = []
        covers = pngs(masks) if masks is not None else repeat(None, len(rows))
        for row, image, mask in zip(rows, pngs(images), covers, strict=True):
            about = json.dumps(row.about, ensure_ascii=False).encode()
            contents = {"cls": b"%d" % row.label, "json": about, "png": image}
            if mask is not None:
                contents["mask.png"] = mask
            members = [(_member(f"{row.id}.{k}", len(v)), v) for k, v in contents.items()]
            tar = self._shard_for(sum(_size(member) for member, _ in members))
            for member, content in members:
                tar.addfile(member, io.BytesIO(content))
            shard = self._shard_name(self._shards - 1)
            found.append((shard,) if mask is None else (shard, shard))
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
    arrays are written row by row into the archive. In masks.npz: train_masks and so on, uint8
    (N, H, W).
    """

    FILE, MASKS = "data.npz", "masks.npz"

    def __init__(self, folder: Path, classes: Sequence[str], shape: Shape, shard_bytes: int):
        super().__init__(folder, classes, shape, shard_bytes)
        self._archive = zipfile.ZipFile(folder / self.FILE, "x")
        self._covers: zipfile.ZipFile | None = None
        self._images: IO[bytes] | None = None
        self._masks: IO[bytes] | None = None
        self._write("classes", np.array(classes, str))

    def begin(self, name: str, labels: np.ndarray) -> np.ndarray:
        """Write the labels and the head of the images."""
        self._end()
        short = self._short = {"validation": "val"}.get(name, name)
        self._write(f"{short}_labels", labels[:, None])
        height, width, channels = self.shape
        shape = (len(labels), height, width, *([channels] if channels > 1 else []))
        self._n = len(labels)
        self._images = _member_of(self._archive, f"{short}_images", np.dtype(np.uint8), shape)
        return np.arange(len(labels))

    def add(
        self, images: np.ndarray, rows: Sequence[Row], masks: np.ndarray | None = None
    ) -> list[tuple[str, ...]]:
        """Append some images to the array that has begun, and their masks to that of masks."""
        assert self._images is not None
        self._images.write(images.tobytes())
        if masks is None:
            return [(self.FILE,)] * len(rows)
        if self._masks is None:
            self._covers = self._covers or zipfile.ZipFile(self.folder / self.MASKS, "x")
            shape, name = (self._n, *masks.shape[1:]), f"{self._short}_masks"
            self._masks = _member_of(self._covers, name, masks.dtype, shape)
        self._masks.write(masks.tobytes())
        return [(self.FILE, self.MASKS)] * len(rows)

    def _write(self, name: str, array: np.ndarray) -> None:
        with _member_of(self._archive, name, array.dtype, array.shape) as member:
            member.write(array.tobytes())

    def _end(self) -> None:
        for member in (self._images, self._masks):
            if member is not None:
                member.close()
        self._images = self._masks = None

    def close(self) -> None:
        """Finish the archives."""
        self._end()
        self._archive.close()
        if self._covers is not None:
            self._covers.close()


def _member_of(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple[int, ...]
) -> IO[bytes]:
    """Return a member to write an array into, in the order of C."""
    member = archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)
    about = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(member, about)
    return member


LAYOUTS: dict[str, type[Layout]] = {
    "imagefolder": ImageFolder,
    "huggingface": HuggingFace,
    "webdataset": WebDataset,
    "npz": Npz,
}


def png(image: np.ndarray) -> bytes:
    """Return uint8 (H, W, 1 or 3) or a mask (H, W) as a PNG file, without loss."""
    file = io.BytesIO()
    picture(image if image.ndim == 3 else image[..., None]).save(file, format="PNG")
    return file.getvalue()


def pngs(images: np.ndarray) -> Iterator[bytes]:
    """Yield images as PNG files, in order; all cores are at work."""
    return ordered_map(png, images)


def write(folder: Path, names: Sequence[str], images: np.ndarray) -> list[str]:
    """Write images as PNG files under these names; return their names from the folder's own on."""
    for name, content in zip(names, pngs(images), strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return [f"{folder.name}/{name}" for name in names]


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
