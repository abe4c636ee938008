"""DICOM files of one frame: their pixels as the header means them, and nothing else of the header.

Only the elements in `_ELEMENTS` are read from a file, and none that says who or when. Patients are
told apart for `--group-by patient` alone, by `patient_id`, which is made a pseudonym at once.
Formulas: DICOM PS3.3, C.7.6.3 (pixels), C.11.1 (rescale) and C.11.2 (windows).
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from augkit.errors import InputError
from augkit.ingestion.readers import printable
from augkit.ingestion.windowing import Window, depth_of, middle, spread

_MARK = slice(128, 132)
_HEAD = 2**16
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"}
"""Kinds of values whose length takes four bytes, after two that are spare."""
_SHARE_USED = 1 / 16
"""Of the full range: an image whose levels span less of it would be black, and needs a window."""

_ELEMENTS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth"),
    *("RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData"),
    *("GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData"),
    *("BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData"),
)
_DECODERS = {
    "1.2.840.10008.1.2": "",  # without compression
    "1.2.840.10008.1.2.1": "",
    "1.2.840.10008.1.2.2": "",
    "1.2.840.10008.1.2.5": "pydicom",  # run lengths
    "1.2.840.10008.1.2.4.50": "pillow",  # JPEG of 8 bits
    "1.2.840.10008.1.2.4.51": "pillow",
    "1.2.840.10008.1.2.4.90": "pillow",  # JPEG 2000
    "1.2.840.10008.1.2.4.91": "pillow",
}
"""Transfer syntaxes that are read, each with pydicom's name of what decodes it."""
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")


def is_dicom(head: bytes) -> bool:
    """Return True if a file that begins so, 132 bytes or more, is of DICOM's format."""
    return head[_MARK] == b"DICM"


def require() -> None:
    """Raise InputError unless DICOM files can be read here."""
    _pydicom()


def size(path: Path, name: str) -> tuple[int, int]:
    """Return height and width, from the header. Raises InputError for what cannot be read."""
    header = _read(path, name, _ELEMENTS, pixels=False)
    _check(header, name)
    return int(header.Rows), int(header.Columns)


def patient_id(path: Path) -> str:
    """Return the PatientID of a file, empty if it has none. Raises InputError."""
    header = _read(path, path.name, ("PatientID",), pixels=False)
    return str(header.get("PatientID") or "").strip()


def says_text_is_burned_in(path: Path) -> bool:
    """Return True if the header says that the pixels show text, perhaps of a patient."""
    header = _read(path, path.name, ("BurnedInAnnotation",), pixels=False)
    return str(header.get("BurnedInAnnotation") or "").strip().upper() == "YES"


def picture(data: bytes, name: str, window: Window, max_pixels: int) -> Image.Image:
    """Return the image of a DICOM file in mode L or RGB. Raises InputError."""
    header = _read(io.BytesIO(data), name, _ELEMENTS, pixels=True)
    _check(header, name)
    if int(header.Rows) * int(header.Columns) > max_pixels:
        raise InputError(f"{name}: has {header.Rows}x{header.Columns} pixels; make it smaller")
    stored = _decoded(header, name)
    if header.PhotometricInterpretation in _GREY:
        return Image.fromarray(_grey(header, stored, name, window))
    return Image.fromarray(_rgb(header, stored))


def _pydicom() -> Any:
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise InputError(
            "these are DICOM files, which pydicom reads: pip install 'augkit[dicom]'"
        ) from error
    # A value that breaks a rule of DICOM is no reason to stop, and none to print it.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.filterwarnings("ignore", module=r"pydicom\b|augkit\.ingestion\.dicom$")
    return pydicom


def _read(file: Path | io.BytesIO, name: str, elements: tuple[str, ...], *, pixels: bool) -> Any:
    """Return these elements of a file. Raises InputError if it is none that is read."""
    pydicom = _pydicom()
    wanted = [*elements, "PixelData"] if pixels else [*elements]
    try:
        syntaxes = _transfer_syntaxes(file)
        for syntax in syntaxes:
            if syntax not in _DECODERS:
                called = printable(getattr(pydicom.uid.UID(syntax), "name", syntax))
                raise InputError(
                    f"{name}: is compressed as {called}, which is not read here; write it anew "
                    "without compression, as gdcmconv --raw does"
                )
        if not syntaxes:
            raise EOFError
        return pydicom.dcmread(file, stop_before_pixels=not pixels, specific_tags=wanted)
    except InputError:
        raise
    except Exception as error:  # pydicom raises almost anything over damaged bytes
        raise InputError(
            f"{name}: is no DICOM file that can be read ({type(error).__name__}); export it again"
        ) from error


def _transfer_syntaxes(file: Path | io.BytesIO) -> list[str]:
    """Return how the data of a file are written, as its first bytes say: PS3.10, 7.1.

    pydicom would unpack a file that is compressed as a whole before it can be asked.
    """
    if isinstance(file, io.BytesIO):
        head = file.getvalue()[:_HEAD]
    else:
        with file.open("rb") as opened:
            head = opened.read(_HEAD)
    found, place = [], _MARK.stop
    while head[place : place + 2] == b"\x02\x00":
        long = head[place + 4 : place + 6] in _LONG
        start = place + (12 if long else 8)
        end = start + int.from_bytes(head[place + (8 if long else 6) : start], "little")
        if end > len(head):
            return []
        if head[place + 2 : place + 4] == b"\x10\x00":
            found.append(head[start:end].decode("ascii").rstrip("\0 "))
        place = end
    return found


def _check(header: Any, name: str) -> None:
    """Raise InputError for what is no image of one frame."""
    frames = header.get("NumberOfFrames") or 1
    if frames != 1:
        raise InputError(
            f"{name}: holds {frames} frames, which are relatives of each other; export the one "
            "frame that is to be classified"
        )
    rows, columns = header.get("Rows"), header.get("Columns")
    if not (isinstance(rows, int) and isinstance(columns, int) and rows > 0 and columns > 0):
        raise InputError(
            f"{name}: holds no image: it has no rows and columns of pixels; leave it out"
        )
    kind = header.get("PhotometricInterpretation")
    if kind not in (*_GREY, *_COLOUR):
        raise InputError(
            f"{name}: has the photometric interpretation {kind!r}, which is not read; read are: "
            f"{', '.join((*_GREY, *_COLOUR))}"
        )


def _decoded(header: Any, name: str) -> np.ndarray:
    """Return the pixels as they are stored, (H, W), or in colour (H, W, 3) as red, green, blue."""
    pydicom = _pydicom()
    if "PixelData" not in header:
        raise InputError(f"{name}: holds no image: it has no pixels; leave it out")
    plugin = _DECODERS[str(header.file_meta.TransferSyntaxUID)]
    try:
        stored = pydicom.pixels.pixel_array(header, decoding_plugin=plugin)
    except Exception as error:
        raise InputError(
            f"{name}: its pixels cannot be decoded ({type(error).__name__}): it is truncated, or "
            "its header is wrong; export it again"
        ) from error
    colour = header.PhotometricInterpretation in _COLOUR[:-1]
    shape = (int(header.Rows), int(header.Columns), *([3] if colour else []))
    if stored.shape != shape or stored.dtype.kind not in "iu":
        raise InputError(f"{name}: its pixels are not {shape} whole numbers; export it again")
    return stored


def _grey(header: Any, stored: np.ndarray, name: str, window: Window) -> np.ndarray:
    """Return uint8 (H, W): rescaled, windowed, black where the header says there is nothing."""
    levels = _rescaled(header, stored)
    nothing = _padding(header, stored)
    if window.rule == "fixed":
        shown = spread(levels, window.low, window.high)
    elif window.rule == "percentile":
        shown = spread(levels, *middle(levels[~nothing] if not nothing.all() else levels))
    elif window.rule == "bits":
        shown = spread(levels, *_range(header, *_fewest_bits(stored)))
    else:
        shown = _as_the_header_says(header, levels, nothing, name)
    if header.PhotometricInterpretation == "MONOCHROME1":
        shown = 255 - shown
    shown[nothing] = 0
    return shown


def _rescaled(header: Any, stored: np.ndarray) -> np.ndarray:
    """Return float64 (H, W): levels through the header's table, or its slope and intercept."""
    tables = header.get("ModalityLUTSequence")
    if tables:
        return _through_table(header, tables[0], stored)
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    if slope is None or intercept is None:
        return stored.astype(np.float64)
    return stored * float(slope) + float(intercept)


def _through_table(header: Any, table: Any, levels: np.ndarray) -> np.ndarray:
    """Return float64 (H, W): what a table says of levels; those beyond its ends get its ends."""
    n, first, _ = (int(value) for value in table.LUTDescriptor)
    n = n or 2**16
    data = table.LUTData
    if isinstance(data, bytes):
        big = str(header.file_meta.TransferSyntaxUID) == "1.2.840.10008.1.2.2"
        kind = np.dtype(np.uint8) if len(data) < 2 * n else np.dtype(">u2" if big else "<u2")
        data = np.frombuffer(data, kind)
    outputs = np.asarray(data, np.float64).reshape(-1)[:n]
    index = np.clip(np.rint(levels).astype(np.int64) - first, 0, len(outputs) - 1)
    return outputs[index]


def _padding(header: Any, stored: np.ndarray) -> np.ndarray:
    """Return bool (H, W): pixels that stand for nothing, such as outside of the sector."""
    value = header.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    limit = header.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return (stored >= low) & (stored <= high)


def _as_the_header_says(
    header: Any, levels: np.ndarray, nothing: np.ndarray, name: str
) -> np.ndarray:
    """Return levels through the first table or window of the header, else over their full range."""
    tables = header.get("VOILUTSequence")
    if tables:
        through = _through_table(header, tables[0], levels)
        return spread(through, 0.0, 2.0 ** int(tables[0].LUTDescriptor[2]) - 1)
    centre, width = _first(header.get("WindowCenter")), _first(header.get("WindowWidth"))
    if centre is not None and width is not None and width >= 1:
        return _windowed(levels, centre, width, str(header.get("VOILUTFunction") or "LINEAR"))
    low, high = _range(header, *_stored_range(header))
    seen = levels[~nothing]
    used = float(np.ptp(seen)) if seen.size else 0.0
    if 0 < used < _SHARE_USED * (high - low):
        raise InputError(
            f"{name}: has no window, and uses only levels {seen.min():g} to {seen.max():g} of "
            f"{low:g} to {high:g}: it would be of one grey; give --window LOW,HIGH, or bits"
        )
    return spread(levels, low, high)


def _first(value: Any) -> float | None:
    """Return the first of one or several numbers; None: there is none."""
    if value is None or value == "":
        return None
    several = not isinstance(value, (int, float, str)) and hasattr(value, "__len__")
    return float(value[0] if several else value)


def _windowed(levels: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Return uint8, same shape: PS3.3 C.11.2.1.2 and C.11.2.1.3, over 0 to 255."""
    if function == "SIGMOID":
        steep = np.clip(-4.0 * (levels - centre) / width, -700.0, 700.0)
        return np.floor(255.0 / (1.0 + np.exp(steep)) + 0.5).astype(np.uint8)
    if function == "LINEAR_EXACT":
        return spread(levels, centre - width / 2, centre + width / 2)
    low = centre - 0.5 - (width - 1) / 2
    if width == 1:
        return np.where(levels > low, 255, 0).astype(np.uint8)
    return spread(levels, low, low + width - 1)


def _stored_range(header: Any) -> tuple[float, float]:
    """Return the least and the largest level that the stored bits can hold."""
    bits = int(header.BitsStored)
    if header.PixelRepresentation:
        return -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    return 0.0, 2.0**bits - 1


def _fewest_bits(stored: np.ndarray) -> tuple[float, float]:
    """Return the range of the fewest bits, of those that devices count in, that hold all levels."""
    if stored.min(initial=0) >= 0:
        return 0.0, depth_of(stored)
    reach = np.maximum(stored, -1 - stored.astype(np.int64))
    half = (depth_of(2 * reach + 1) + 1) / 2
    return -half, half - 1


def _range(header: Any, low: float, high: float) -> tuple[float, float]:
    """Return a range of stored levels after the header's rescaling."""
    tables = header.get("ModalityLUTSequence")
    if tables:
        return 0.0, 2.0 ** int(tables[0].LUTDescriptor[2]) - 1
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    if slope is None or intercept is None:
        return low, high
    ends = sorted((low * float(slope) + float(intercept), high * float(slope) + float(intercept)))
    return ends[0], ends[1]


def _rgb(header: Any, stored: np.ndarray) -> np.ndarray:
    """Return uint8 (H, W, 3); of colours with more than 8 bits the upper 8."""
    bits = int(header.BitsStored)
    if header.PhotometricInterpretation == "PALETTE COLOR":
        stored = _pydicom().pixels.apply_color_lut(stored, header)
        bits = 8 * stored.dtype.itemsize
    return np.ascontiguousarray(stored >> max(0, bits - 8)).astype(np.uint8)
