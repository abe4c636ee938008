"""NPZ files as MedMNIST publishes them: train_images, train_labels, val_images, ... as arrays.

An archive is believed only as far as its headers agree with each other: before an array is read,
its shape, its type and the bytes that the archive claims for it are held against each other and
against limits. Nothing is unpickled. Images are read in order, a row at a time.
"""

from __future__ import annotations

import hashlib
import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import repeat
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from augkit.errors import InputError
from augkit.ingestion import exported
from augkit.ingestion.readers import (
    Listing,
    Source,
    absolute,
    dataset_name,
    listing,
    part_named,
    printable,
)
from augkit.tables import is_utf8

if TYPE_CHECKING:
    from augkit.ingestion.decode import Decoded, Target

DATA, MASKS = "data.npz", "masks.npz"
"""What an export writes; the masks lie in a file of their own."""
MOST_ROWS = 2_000_000
MOST_BYTES = 2**36
"""Of one array of images, unpacked."""
MOST_CLASSES = 1000
_LARGEST_SMALL = 2**26
"""Bytes of an array of labels or names."""
_LONGEST_HEADER = 10_000
_IMAGES = re.compile(r"(?:(.+)_)?images")


@dataclass(frozen=True)
class _Array:
    """An array of an archive: where it lies, and what its header says."""

    name: str
    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    """Bytes of its header."""
    path: Path


def npz_file(path: Path) -> Path | None:
    """Return the NPZ file that is meant: the file itself, or the only one of a folder."""
    if path.is_file():
        return path if path.suffix.lower() == ".npz" else None
    found = [p for p in path.glob("*.npz") if p.is_file() and p.name != MASKS]
    return found[0] if len(found) == 1 else None


def read_npz(path: str | Path, *, dataset: str | None = None) -> Listing:
    """Return the images of an NPZ file: for each part its images, uint8 (N, H, W) or (N, H, W, 3).

    uint16 (N, H, W) as well, which goes through a window. Labels are whole numbers or texts, (N,)
    or (N, 1); an array `classes` names the numbers, else they name themselves. PART_masks, uint8 or
    bool (N, H, W), if there are any. The parts are kept as the given split. Raises InputError for
    anything else.
    """
    given = Path(path)
    file = npz_file(given)
    if file is None:
        raise InputError(f"{printable(given)} is no .npz file, and no folder with one of them")
    default = file.resolve().parent.name if file.name == DATA else file.stem
    name = dataset_name(dataset, default)
    with _explained(file), zipfile.ZipFile(file) as archive:
        arrays = _arrays(archive, file)
        images, masks = _images_of(arrays, file), _masks_of(arrays, arrays, file)
        names = _class_names(archive, arrays, file)
        labels = {k: _labels(archive, arrays, k, names, file) for k in images}
    beside = file.with_name(MASKS)
    if file.name == DATA and beside.is_file():
        with _explained(beside), zipfile.ZipFile(beside) as archive:
            masks = _masks_of(_arrays(archive, beside), arrays, beside)
    pixels = NpzPixels(absolute(file), images, masks)
    sources, n_made = _sources(pixels, labels, name, exported.rows(file.parent))
    if not sources:
        raise InputError(
            f"{printable(file)} holds no real image; add one that is more than one grey"
        )
    shapes = {a.shape[1:] for a in pixels.images.values()}
    height, width, *channels = min(shapes)
    shape = (height, width, channels[0] if channels else 1)
    return replace(
        listing(sources, (), 0, unread=()),
        sources=tuple(sources),  # as they lie in the file: it is read from front to back
        read_as=f"NPZ file with {', '.join(a.name for a in pixels.images.values())}",
        notes=exported.left_out(n_made),
        shape=shape if len(shapes) == 1 else None,
        pixels=pixels,
    )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn whatever a damaged archive raises into InputError."""
    where = printable(path)
    try:
        yield
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(f"{where} is no NPZ file, or damaged; copy it again") from error
    except (NotImplementedError, RuntimeError) as error:  # encrypted, or compressed otherwise
        raise InputError(
            f"{where} cannot be unpacked: {error}; save it with numpy.savez"
        ) from error
    except OSError as error:
        raise InputError(
            f"{where} cannot be read: {error.strerror or error}; save it again"
        ) from error


# -- headers ---------------------------------------------------------------------------------------


def _arrays(archive: zipfile.ZipFile, path: Path) -> dict[str, _Array]:
    """Return the arrays that have a meaning here by name, their headers checked."""
    found: dict[str, _Array] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if not re.fullmatch(r"classes|(?:.+_)?(?:images|labels|masks)", name):
            continue
        if name in found:
            raise InputError(
                f"{printable(path)} holds the array {printable(name)} twice; save it again"
            )
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(
                f"{printable(path)}: {printable(name)} is compressed in a way that is not read; "
                "save it with numpy.savez_compressed"
            )
        found[name] = _header(archive, info, name, path)
    return found


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, path: Path) -> _Array:
    """Return what the header of an array says. Raises InputError unless it fits its bytes."""
    where = f"{printable(path)}: {printable(name)}"
    with archive.open(info) as member:
        magic = member.read(8)
        wide = {b"\x01\x00": 2, b"\x02\x00": 4}.get(magic[6:])
        length = int.from_bytes(size := member.read(wide or 0), "little")
        if magic[:6] != b"\x93NUMPY" or wide is None or length > _LONGEST_HEADER:
            raise InputError(f"{where} is no array that can be read; save it with numpy.savez")
        text = BytesIO(size + member.read(length))
    read = np.lib.format.read_array_header_1_0 if wide == 2 else np.lib.format.read_array_header_2_0
    try:
        shape, by_columns, dtype = read(text)
        count = math.prod(shape)
    except Exception as error:  # a text of anybody's making
        raise InputError(f"{where} has a header that cannot be read; save it again") from error
    if dtype.hasobject:
        raise InputError(f"{where} holds Python objects, which are never loaded; save plain arrays")
    if not all(isinstance(n, int) and 0 <= n < 2**40 for n in shape) or len(shape) > 8:
        raise InputError(f"{where} has the shape {shape}, which cannot be; save it again")
    if by_columns and len(shape) > 1:
        raise InputError(f"{where} lies column by column; save numpy.ascontiguousarray of it")
    offset = 8 + wide + length
    if offset + count * dtype.itemsize != info.file_size:
        raise InputError(
            f"{where} claims {count * dtype.itemsize} bytes and has {info.file_size - offset}: it "
            "is truncated, or made to do harm"
        )
    return _Array(name, info, tuple(map(int, shape)), dtype, offset, path)


def _images_of(arrays: dict[str, _Array], path: Path) -> dict[str, _Array]:
    """Return the arrays of images by what stands before `_images`. Raises InputError."""
    found = {match[1] or "": a for name, a in arrays.items() if (match := _IMAGES.fullmatch(name))}
    for array in found.values():
        where, shape = f"{printable(path)}: {printable(array.name)}", array.shape
        flat = len(shape) == 3 or (len(shape) == 4 and shape[3] == 1)
        if not flat and not (len(shape) == 4 and shape[3] == 3):
            raise InputError(
                f"{where} has the shape {shape}; images are (N, H, W) or (N, H, W, 3)"
                f"{', volumes are not read' if len(shape) > 3 else ''}"
            )
        if array.dtype != np.uint8 and not (array.dtype == np.uint16 and flat):
            raise InputError(
                f"{where} holds {array.dtype}; images are uint8, or grey in uint16: scale them"
            )
        if shape[0] > MOST_ROWS or math.prod(shape) * array.dtype.itemsize > MOST_BYTES:
            raise InputError(
                f"{where} claims {shape[0]} images, {math.prod(shape) // 2**20} MiB; the limits "
                f"are {MOST_ROWS} and {MOST_BYTES // 2**20}: split it into several files"
            )
        if not all(8 <= side <= 4096 for side in shape[1:3]):
            raise InputError(f"{where} has images of {shape[2]}x{shape[1]}; sides are 8 to 4096")
    if not found:
        raise InputError(
            f"{printable(path)} has no array of images; expected train_images with train_labels, "
            "and perhaps val_images, test_images and their labels"
        )
    return found


def _masks_of(
    arrays: dict[str, _Array], beside: dict[str, _Array], path: Path
) -> dict[str, _Array]:
    """Return the arrays of masks by what stands before `_masks`. beside: those of the images."""
    found = {}
    for name, array in arrays.items():
        if name != "masks" and not name.endswith("_masks"):
            continue
        prefix = name.removesuffix("masks").removesuffix("_")
        images = beside.get(f"{prefix}_images" if prefix else "images")
        if images is None or array.shape != images.shape[:3] or array.dtype not in (np.uint8, bool):
            raise InputError(
                f"{printable(path)}: {printable(name)} must be uint8 or bool of the height and "
                f"width of as many images; it is {array.dtype} {array.shape}"
            )
        found[prefix] = array
    return found


def _small(archive: zipfile.ZipFile, array: _Array, path: Path) -> np.ndarray:
    """Return a whole array that is not large."""
    if array.info.file_size > _LARGEST_SMALL:
        raise InputError(
            f"{printable(path)}: {printable(array.name)} is too large; split it into several files"
        )
    with archive.open(array.info) as member:
        data = member.read()[array.offset :]
    return np.frombuffer(data, array.dtype).reshape(array.shape)


def _class_names(
    archive: zipfile.ZipFile, arrays: dict[str, _Array], path: Path
) -> list[str] | None:
    """Return the names of the classes, None if there are none. Raises InputError for bad ones."""
    if "classes" not in arrays:
        return None
    array = arrays["classes"]
    if array.dtype.kind != "U" or len(array.shape) != 1 or array.shape[0] > MOST_CLASSES:
        raise InputError(
            f"{printable(path)}: classes must be at most {MOST_CLASSES} texts, (K,); it is "
            f"{array.dtype} {array.shape}"
        )
    try:
        names = [name.strip() for name in _small(archive, array, path).tolist()]
    except (ValueError, SystemError) as error:  # no characters at all
        raise InputError(f"{printable(path)}: classes holds what is no text; save texts") from error
    if len(set(names)) != len(names) or not all(n and is_utf8(n) for n in names):
        raise InputError(f"{printable(path)}: classes must be different texts, none of them empty")
    return names


def _labels(
    archive: zipfile.ZipFile,
    arrays: dict[str, _Array],
    prefix: str,
    names: list[str] | None,
    path: Path,
) -> list[str]:
    """Return the class of each image of a part. Raises InputError unless each has one."""
    name = f"{prefix}_labels" if prefix else "labels"
    images = arrays[f"{prefix}_images" if prefix else "images"]
    where = f"{printable(path)}: {printable(name)}"
    if name not in arrays:
        raise InputError(
            f"{printable(path)} has {printable(images.name)} and no {printable(name)}; add that"
        )
    array, n = arrays[name], images.shape[0]
    if array.shape not in ((n,), (n, 1)):
        several = "; several labels an image are not read" if len(array.shape) == 2 else ""
        raise InputError(
            f"{where} has the shape {array.shape}; for {n} images it is ({n}, 1){several}"
        )
    if array.dtype.kind not in "iubU":
        raise InputError(f"{where} holds {array.dtype}; labels are whole numbers or texts")
    try:
        values, index = np.unique(_small(archive, array, path).reshape(-1), return_inverse=True)
        said = [_class(value, names, where) for value in values.tolist()]
    except (ValueError, SystemError) as error:  # no characters at all
        raise InputError(f"{where} holds what is no text; save texts") from error
    if len(said) > MOST_CLASSES:
        raise InputError(
            f"{where} has {len(said)} different labels; a class needs several images, and there "
            f"may be {MOST_CLASSES}"
        )
    return [said[i] for i in index.tolist()]


def _class(value: int | str, names: list[str] | None, where: str) -> str:
    """Return the class that a label means."""
    if isinstance(value, str):
        if not value.strip() or not is_utf8(value):
            raise InputError(f"{where} holds a label that is empty, or no text; name each class")
        return value.strip()
    if value < 0 or (names is not None and value >= len(names)):
        many = "" if names is None else f"; there are {len(names)} classes"
        raise InputError(f"{where} holds the label {value}; labels count from 0{many}")
    if names is None:
        return str(int(value))
    return names[value]


# -- rows ------------------------------------------------------------------------------------------


def _sources(
    pixels: NpzPixels,
    labels: dict[str, list[str]],
    dataset: str,
    about: Iterator[dict[str, str]] | None,
) -> tuple[list[Source], int]:
    """Return a source for each real image, and how many rows are of runs.

    about: what is known of each row, in the order of the file.
    """
    known = _known(about, sum(len(each) for each in labels.values()), pixels.path.parent)
    sources, n_made = [], 0
    for prefix, classes in labels.items():
        for row, (label, said) in enumerate(zip(classes, known, strict=False)):
            if exported.was_made(said):
                n_made += 1
                continue
            own = dataset_name(said.get("dataset") or dataset, dataset)
            key = exported.key_of(said, own) or f"{own}/{prefix or 'images'}/{row:06d}"
            part = part_named(prefix) or part_named(said.get("part", ""))
            group = said.get("group") or None
            found = Source(key, pixels.path, label, own, group, (), part, row=row, member=prefix)
            sources.append(replace(found, covered=exported.has_mask(said)))
    next(known, None)  # which counts the rows that are left
    return sources, n_made


def _known(
    about: Iterator[dict[str, str]] | None, total: int, folder: Path
) -> Iterator[dict[str, str]]:
    """Yield what is known of each image. Raises InputError unless all are told of."""
    if about is None:
        yield from repeat({}, total)
        return
    n = 0
    for n, said in enumerate(about, 1):
        if n <= total:
            yield said
    if n != total:
        raise InputError(f"{printable(folder)}: metadata.csv has {n} rows for {total} images")


@dataclass(frozen=True)
class NpzPixels:
    """The images and masks of an NPZ file, read row by row."""

    in_order = True
    path: Path
    images: dict[str, _Array]
    masks: dict[str, _Array]

    @property
    def masked(self) -> bool:
        """Return True if there are masks."""
        return bool(self.masks)

    def decoded(self, sources: Sequence[Source], target: Target) -> Iterator[Decoded]:
        """Yield each image in the target's shape."""
        from augkit.ingestion.decode import fit_array

        for image, mask in zip(
            self._rows(sources, self.images), self._covers(sources), strict=True
        ):
            digest = hashlib.sha256(np.ascontiguousarray(image).data).digest()
            yield fit_array(image, target=target, sha256=digest, mask=mask)

    def digests(self, sources: Sequence[Source]) -> Iterator[str]:
        """Yield the SHA-256 of the bytes of each image."""
        for image in self._rows(sources, self.images):
            yield hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()

    def _covers(self, sources: Sequence[Source]) -> Iterator[np.ndarray | None]:
        """Yield the mask of each image, uint8 (H, W) of 0 and 255; None where nothing is inside."""
        with_masks = [s for s in sources if s.member in self.masks]
        found = self._rows(with_masks, self.masks)
        for source in sources:
            mask = next(found)[..., 0] if source.member in self.masks else None
            yield None if mask is None else _as_mask(mask, source.covered, self.path)

    def _rows(self, sources: Sequence[Source], arrays: dict[str, _Array]) -> Iterator[np.ndarray]:
        """Yield (H, W, C) for each source; those of one array in one go where rows ascend."""
        stream: IO[bytes] | None = None
        at, member = 0, ""
        if not sources:
            return
        path = arrays[sources[0].member].path
        with _explained(path), zipfile.ZipFile(path) as archive:
            try:
                for source in sources:
                    if stream is None or source.member != member or source.row < at:
                        _close(stream)
                        stream = _begun(archive, arrays[source.member])
                        at, member = 0, source.member
                    array = arrays[source.member]
                    _skip(stream, (source.row - at) * _row_bytes(array))
                    yield _row(stream, array)
                    at = source.row + 1
            finally:
                _close(stream)


def _begun(archive: zipfile.ZipFile, array: _Array) -> IO[bytes]:
    stream = archive.open(array.info)
    _skip(stream, array.offset)
    return stream


def _close(stream: IO[bytes] | None) -> None:
    if stream is not None:
        stream.close()


def _row_bytes(array: _Array) -> int:
    return math.prod(array.shape[1:]) * array.dtype.itemsize


def _skip(stream: IO[bytes], n_bytes: int) -> None:
    while n_bytes > 0:
        got = len(stream.read(min(n_bytes, 2**20)))
        if not got:
            raise EOFError
        n_bytes -= got


def _row(stream: IO[bytes], array: _Array) -> np.ndarray:
    """Return the next row of an array, (H, W, C)."""
    data = stream.read(_row_bytes(array))
    if len(data) != _row_bytes(array):
        raise EOFError
    height, width = array.shape[1:3]
    return np.frombuffer(data, array.dtype).reshape(height, width, -1)


def _as_mask(mask: np.ndarray, covered: bool | None, path: Path) -> np.ndarray | None:
    """Return a mask of 0 and 255; None if there is none. covered: as in `Source`."""
    values = np.unique(mask)
    if not set(values.tolist()) <= {0, 1} and not set(values.tolist()) <= {0, 255}:
        raise InputError(
            f"{printable(path)} has a mask of other levels than 0 and 1, or 0 and 255; save these"
        )
    there = bool(mask.any()) if covered is None else covered
    return np.where(mask > 0, 255, 0).astype(np.uint8) if there else None
