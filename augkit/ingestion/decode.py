"""Turning image files into arrays of one size, the same bytes wherever and however it is run."""

from __future__ import annotations

import hashlib
import io
import math
import re
import stat
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageOps, UnidentifiedImageError

from augkit.errors import InputError, OptionError
from augkit.ingestion import dicom
from augkit.ingestion.readers import Refusal, Source, printable
from augkit.ingestion.windowing import Window, spread

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
"""Pillow's names of the formats that are read; PPM includes PGM and PBM. DICOM is read besides."""

MAX_PIXELS = 50_000_000
MAX_FILE_BYTES = 512 * 1024**2
COLOUR_TOLERANCE = 2
"""How many levels the channels of a grey image may differ: what JPEG does to grey."""

FULL = Window()

_LONGEST_HEADER = 64 * 1024
_MOST_COMMENTS = 1000
_DEFAULT_SIZE = (160, 192)
_SIZE_LIMITS = (8, 4096)
_SIXTEEN_BIT = {"I;16", "I;16B", "I;16L", "I;16N", "I"}
_COLOUR_MODES = {"P", "PA", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"}
_TRANSPARENT_MODES = {"PA", "LA", "La", "RGBA", "RGBa"}


@dataclass(frozen=True)
class Target:
    """The shape that every image of a store gets. Raises OptionError for one that cannot be."""

    height: int
    width: int
    channels: int = 1
    """1: grey, ITU-R 601 luma. 3: red, green, blue."""
    fit: Literal["stretch", "pad"] = "stretch"
    """Stretch: each axis by its own factor. Pad: both by the same, centred on black."""
    window: Window = FULL
    """Of images with more than 8 bits: the levels that become black and white."""

    def __post_init__(self) -> None:
        _check_size(self.height, self.width)
        if self.channels not in (1, 3):
            raise OptionError(f"channels is {self.channels}; it must be 1 (grey) or 3 (RGB)")
        if self.fit not in ("stretch", "pad"):
            raise OptionError(f"fit is {self.fit!r}; it must be 'stretch' or 'pad'")


@dataclass(frozen=True, eq=False, slots=True)
class Decoded:
    """One image as it enters a store."""

    image: np.ndarray
    """uint8 (H, W, C)."""
    mask: np.ndarray | None
    """uint8 (H, W) of 0 and 255; None if there was no mask file."""
    sha256: bytes
    """32 bytes: the digest of the image file as it was read."""
    colour: bool
    """True if the file holds a pixel whose channels differ by more than COLOUR_TOLERANCE."""
    size: tuple[int, int]
    """Height and width of the file's image, upright, before it was resized."""


def decode(
    source: bytes | str | Path,
    *,
    target: Target,
    masks: Sequence[bytes | str | Path] = (),
) -> Decoded:
    """Return an image file, upright and in the shape of the target, with its merged masks.

    Transparency is composited on black. 16-bit grey goes through the target's window, by default
    divided by 257 and rounded; colours of 16 bits keep their upper 8; DICOM has rules of its own,
    see docs/ingest.md. Images are resized with Lanczos. Masks are black and white, of the
    image's size; a target pixel is inside if at least half of its area is inside of one of them.
    Raises InputError with the path and the reason for a file that cannot be read so.
    """
    data = _read(source)
    name = _name(source)
    with _explained(name):
        image = _upright(data, name, target.window)
        colour = image.mode == "RGB" and _is_coloured(image)
        pixels = _in_shape(image, target)
    return Decoded(
        image=pixels,
        mask=_merged_mask(masks, image.size, target),
        sha256=hashlib.sha256(data).digest(),
        colour=colour,
        size=(image.height, image.width),
    )


def fit_array(
    pixels: np.ndarray, *, target: Target, sha256: bytes, mask: np.ndarray | None = None
) -> Decoded:
    """Return an image that is an array, uint8 (H, W, 1 or 3), in the shape of the target.

    As it is where it has that shape already. uint16 (H, W, 1) goes through the target's window.
    mask: uint8 (H, W) of 0 and 255.
    """
    if pixels.dtype == np.uint16:
        deep = Image.fromarray(np.ascontiguousarray(pixels[..., 0]))
        pixels = np.asarray(_from_sixteen_bit(deep, "image", target.window))[..., None]
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    colour = image.mode == "RGB" and _is_coloured(image)
    same = pixels.shape == (target.height, target.width, target.channels)
    fitted = pixels if same else _in_shape(image, target)
    if mask is not None and mask.shape != (target.height, target.width):
        mask = _inside(Image.fromarray(mask), target)
    return Decoded(fitted, mask, sha256, colour, pixels.shape[:2])


def _in_shape(image: Image.Image, target: Target) -> np.ndarray:
    """Return an image of mode L or RGB as uint8 (H, W, C) of the target."""
    converted = _in_mode(image, "L" if target.channels == 1 else "RGB")
    pixels = np.asarray(_fitted(converted, target, Image.Resampling.LANCZOS))
    return pixels.reshape(target.height, target.width, target.channels)


def attempt(source: Source, *, target: Target) -> Decoded | Refusal:
    """Return a source decoded, or why it cannot be: for work that goes on to the next file."""
    try:
        content = source.path if source.span is None else _read_span(source.path, *source.span)
        masks: list[bytes | str | Path] = [*source.masks]
        if source.mask_span is not None:
            masks.append(_read_span(source.path, *source.mask_span))
        decoded = decode(content, target=target, masks=masks)
        height, width = decoded.size
        if min(height, width) < _SIZE_LIMITS[0]:
            least = f"{_SIZE_LIMITS[0]} on each side"
            raise InputError(f"has {width}x{height} pixels; an image needs at least {least}")
        return decoded
    except InputError as error:
        return refusal(source, error)


def refusal(source: Source, error: InputError) -> Refusal:
    """Return an error over a source as a line of a report: its path there, and the reason."""
    place = printable(source.shown or source.key.removeprefix(f"{source.dataset}/"))
    own = f"{printable(source.path)}: " if source.span is None else "image: "
    return Refusal(place, str(error).removeprefix(own))


def source_size(source: Source) -> tuple[int, int]:
    """Return height and width of a source's image, upright. Raises InputError as `image_size`."""
    if source.span is None:
        return image_size(source.path)
    with (
        _explained("image"),
        _open(io.BytesIO(_read_span(source.path, *source.span)), "image") as i,
    ):
        return _upright_size(i)


def source_digest(source: Source) -> str:
    """Return the SHA-256 of the bytes that a source's image lies in. Raises InputError."""
    if source.span is not None:
        return hashlib.sha256(_read_span(source.path, *source.span)).hexdigest()
    with _explained(_name(source.path)), source.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def image_size(path: str | Path) -> tuple[int, int]:
    """Return height and width of an image file, upright, from its header only.

    Raises InputError with the path and the reason if it is no image that `decode` could read.
    """
    name = _name(path)
    with _explained(name):
        _check_file(Path(path), name)
        with open(path, "rb") as file:
            if dicom.is_dicom(file.read(132)):
                return dicom.size(Path(path), name)
            file.seek(0)
            with _open(file, name) as image:
                return _upright_size(image)


def median_aspect(paths: Iterable[str | Path]) -> float:
    """Return the median of width / height over image files, of which only headers are read.

    Raises InputError for no files, or one that is no image.
    """
    return _median_aspect([image_size(path) for path in paths])


def choose_size(sizes: Iterable[tuple[int, int]]) -> tuple[int, int, str]:
    """Return height, width and the reason for it, in words, from (height, width) of the images.

    192 x 160 (width x height) if the median aspect is within 10 % of 1.2. Else the multiples of 32
    up to 1024 that are best by |ln(aspect / median aspect)| + |ln(area / (192 * 160))| / 2: the
    change of shape plus the change of scale; the smaller of two that are equally good. Raises
    InputError for no sizes.
    """
    aspect = _median_aspect(sizes)
    shape = f"the median width / height is {aspect:.2f}"
    height, width = _DEFAULT_SIZE
    if abs(aspect / (width / height) - 1) <= 0.1:
        return height, width, f"192x160: {shape}, within 10 % of the usual 1.2"
    sides = range(32, 1025, 32)
    _, _, height, width = min((_cost(h, w, aspect), h * w, h, w) for h in sides for w in sides)
    reason = f"{shape}; the multiples of 32 nearest to that and to the area of 192x160"
    return height, width, f"{width}x{height}: {reason}"


def parse_size(text: str) -> tuple[int, int]:
    """Return (height, width) of a text such as `192x160`, which is width x height.

    Raises OptionError for other text or sides outside of 8..4096 pixels.
    """
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*[xX\u00d7]\s*([0-9]{1,9})\s*", text)
    if match is None:
        raise OptionError(
            f"size {printable(text)!r} is not understood; write width x height, such as 192x160"
        )
    width, height = int(match[1]), int(match[2])
    _check_size(height, width)
    return height, width


def _check_size(height: int, width: int) -> None:
    low, high = _SIZE_LIMITS
    for name, side in (("width", width), ("height", height)):
        if not low <= side <= high:
            raise OptionError(f"{name} is {side}; it must be {low} to {high} pixels")


def _median_aspect(sizes: Iterable[tuple[int, int]]) -> float:
    aspects = [width / height for height, width in sizes]
    if not aspects:
        raise InputError("there is no image to take the size from; give it with --size 192x160")
    return statistics.median(aspects)


def _cost(height: int, width: int, aspect: float) -> float:
    area = math.prod(_DEFAULT_SIZE)
    # Rounded, so that sizes as good as each other compare as equal.
    return round(
        abs(math.log(width / height / aspect)) + abs(math.log(height * width / area)) / 2, 9
    )


def _name(source: bytes | str | Path) -> str:
    return "image" if isinstance(source, bytes) else printable(source)


def _read(source: bytes | str | Path) -> bytes:
    """Return the bytes of a file. Raises InputError if it is no regular file, or too large."""
    if isinstance(source, bytes):
        return source
    name = _name(source)
    with _explained(name):
        _check_file(Path(source), name)
        return Path(source).read_bytes()


def _read_span(path: Path, offset: int, length: int) -> bytes:
    """Return bytes from within a file. Raises InputError if it cannot be read, or they are many."""
    with _explained("image"):
        if length > MAX_FILE_BYTES:
            raise InputError(f"image: has {length // 1024**2} MiB; make it smaller")
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)


def _check_file(path: Path, name: str) -> None:
    """Raise InputError for what must not be opened: a pipe would wait for ever."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{name}: is no regular file; leave it out")
    if status.st_size > MAX_FILE_BYTES:
        size, limit = (n // 1024**2 for n in (status.st_size, MAX_FILE_BYTES))
        raise InputError(f"{name}: has {size} MiB, the limit is {limit}; make it smaller")


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises over a file into InputError with the path and the reason."""
    try:
        yield
    except InputError:
        raise
    # Pillow's parsers raise almost anything over damaged or hostile bytes, warnings too if the
    # caller turned those into errors. Whatever it is, the file cannot be used.
    except Exception as error:
        raise InputError(f"{name}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = str(error).lower()
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return _too_large(int(text.partition("(")[2].split()[0]))
    if isinstance(error, UnidentifiedImageError):
        known = ", ".join((*FORMATS, "DICOM"))
        return f"is no image of a known format ({known}), or cut off at its beginning"
    if isinstance(error, EOFError) or re.search("truncated|reached eof|unexpected end", text):
        return "is truncated; copy the file again"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    what = printable(str(error).partition("\n")[0]) or type(error).__name__
    return f"cannot be decoded ({what}); copy or export the file again"


def _too_large(pixels: int) -> str:
    limit = MAX_PIXELS // 10**6
    return f"has {math.ceil(pixels / 10**6)} megapixels, the limit is {limit}; make it smaller"


def _check_comments(file: IO[bytes], name: str) -> None:
    """Raise InputError for a PNM file that is mostly comments, which Pillow reads byte by byte."""
    start = file.read(3)
    if not re.match(rb"P[1-6]\s", start):
        return
    kind = start[1:2]
    plain = kind in b"123"  # which may have comments among the pixels, too
    head = start + file.read(-1 if plain else _LONGEST_HEADER)
    header = re.sub(rb"#[^\r\n]*", b"", head[:_LONGEST_HEADER])
    n_words = 3 if kind in b"14" else 4  # those of two levels do not say how many
    endless = len(head) > _LONGEST_HEADER and len(header.split(None, 3)) < n_words
    if endless or (plain and head.count(b"#") > _MOST_COMMENTS):
        raise InputError(f"{name}: holds more comments than a picture needs; save it again without")


def _open(file: IO[bytes], name: str) -> Image.Image:
    """Return an image of which only the header is read. Raises InputError for one not allowed."""
    _check_comments(file, name)
    file.seek(0)
    image = Image.open(file, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise InputError(f"{name}: {_too_large(image.width * image.height)}")
    if getattr(image, "is_animated", False):
        raise InputError(f"{name}: holds several pictures (frames or pages); save them one by one")
    return image


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Return height and width as EXIF turns them, without decoding the image."""
    if image.format == "TIFF":
        # Pillow gives the turned size of a TIFF in some versions, the stored one in others.
        tags = image.tag_v2  # type: ignore[attr-defined]
        width, height = tags[ExifTags.Base.ImageWidth], tags[ExifTags.Base.ImageLength]
    else:
        width, height = image.size
    # PngImageFile.getexif would decode the whole file to look behind the pixels.
    orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def _upright(data: bytes, name: str, window: Window = FULL) -> Image.Image:
    """Return the picture in a file, turned as EXIF says, in mode L or RGB."""
    if not data:
        raise InputError(f"{name}: is empty; copy the file again")
    if dicom.is_dicom(data):
        return dicom.picture(data, name, window, MAX_PIXELS)
    with _open(io.BytesIO(data), name) as image:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return _plain(image, name, window)


def _plain(image: Image.Image, name: str, window: Window) -> Image.Image:
    """Return an image of any mode in L or RGB, transparency composited on black."""
    if image.mode in _SIXTEEN_BIT:
        return _from_sixteen_bit(image, name, window)
    if image.mode == "F" and window.rule == "fixed":
        return Image.fromarray(_through_window(np.asarray(image), image, name, window))
    if image.mode not in {"1", "L", *_COLOUR_MODES}:
        kind = "floating-point grey levels" if image.mode == "F" else f"colour mode {image.mode}"
        raise InputError(f"{name}: has {kind}, of unknown scale; save it as 8-bit grey or RGB")
    if image.mode in _TRANSPARENT_MODES or "transparency" in image.info:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    return _in_mode(image, "RGB" if image.mode in _COLOUR_MODES else "L")


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Return an image in a mode; itself if it has that already, where Pillow makes a copy."""
    return image if image.mode == mode else image.convert(mode)


def _from_sixteen_bit(image: Image.Image, name: str, window: Window) -> Image.Image:
    """Return 16-bit grey levels as 8-bit ones, through a window.

    By default they are divided by 257 and rounded, in every image alike: a window fitted to each
    would hide which one is darker. Raises InputError for values outside of 0..65535 unless the
    window is fixed, and by default for those of a 12-bit device, which would come out black.
    """
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if window.rule != "fixed" and (low < 0 or high > 65535):
        raise InputError(f"{name}: has grey levels {low} to {high}; the limits are 0 and 65535")
    if window.rule == "full" and 0 < high < 4096:
        raise InputError(
            f"{name}: uses only levels up to {high} of 65535 and would be black; "
            "scale it to 8 or 16 full bits, or say what is white, such as --window 0,4095"
        )
    return Image.fromarray(_through_window(values, image, name, window))


def _through_window(
    levels: np.ndarray, image: Image.Image, name: str, window: Window
) -> np.ndarray:
    """Return levels through a window, uint8 (H, W), and inverted where the file says so."""
    try:
        grey = spread(levels, *window.limits(levels))
    except InputError as error:
        raise InputError(f"{name}: {error}; save it as 8-bit grey") from error
    return 255 - grey if _white_is_zero(image) else grey


def _white_is_zero(image: Image.Image) -> bool:
    """Return True for a TIFF that counts down from white; Pillow mends that for 8 bits only."""
    tags = getattr(image, "tag_v2", {})
    return bool(tags.get(ExifTags.Base.PhotometricInterpretation, 1) == 0)


def _is_coloured(image: Image.Image) -> bool:
    red, green, blue = image.split()
    differences = [ImageChops.difference(red, green), ImageChops.difference(red, blue)]
    if not any(difference.getbbox() for difference in differences):
        return False  # most: all three are one and the same
    differences.append(ImageChops.difference(green, blue))
    return any(any(d.histogram()[COLOUR_TOLERANCE + 1 :]) for d in differences)


def _fitted(image: Image.Image, target: Target, filter: Image.Resampling) -> Image.Image:
    """Return the image resized to the target's height and width."""
    size = (target.width, target.height)
    if target.fit == "stretch":
        return image.resize(size, filter)
    factor = min(target.width / image.width, target.height / image.height)
    inner = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    padded = Image.new(image.mode, size)
    corner = ((target.width - inner[0]) // 2, (target.height - inner[1]) // 2)
    padded.paste(image.resize(inner, filter), corner)
    return padded


def _merged_mask(
    sources: Sequence[bytes | str | Path], size: tuple[int, int], target: Target
) -> np.ndarray | None:
    """Return the union of mask files, uint8 (H, W) of 0 and 255. size: (width, height)."""
    merged: Image.Image | None = None
    for source in sources:
        mask = _mask(source, size)
        merged = mask if merged is None else ImageChops.lighter(merged, mask)
    if merged is None:
        return None
    return _inside(merged, target)


def _inside(mask: Image.Image, target: Target) -> np.ndarray:
    """Return a mask in the size of the target, uint8 (H, W) of 0 and 255."""
    # A box filter takes the mean over the area of each target pixel.
    share = np.asarray(_fitted(mask, target, Image.Resampling.BOX))
    return np.where(share >= 128, 255, 0).astype(np.uint8)


def _mask(source: bytes | str | Path, size: tuple[int, int]) -> Image.Image:
    """Return one mask file in mode L, of 0 and 255; inside is where its luma is 128 or more."""
    data = _read(source)
    name = "mask" if isinstance(source, bytes) else _name(source)
    with _explained(name):
        mask = _upright(data, name).convert("L")
        highest = int(np.asarray(mask).max())
    if mask.size != size:
        raise InputError(
            f"{name}: is a mask of {mask.width}x{mask.height} pixels for an image of "
            f"{size[0]}x{size[1]}; they must be equal"
        )
    if 0 < highest < 128:
        raise InputError(
            f"{name}: is a mask whose brightest level is {highest}; inside must be 255"
        )
    return mask.point([0] * 128 + [255] * 128)
