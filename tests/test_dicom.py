"""DICOM files of one frame: pixels by the header's rules, and nothing else of the header."""

import io
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from commands import command, works
from PIL import Image
from toys import tree

import augkit as ak
from augkit.errors import InputError
from augkit.ingestion import dicom
from augkit.ingestion.decode import Target, decode, image_size
from augkit.ingestion.layouts import read
from augkit.ingestion.windowing import Window, middle, spread

pydicom = pytest.importorskip("pydicom")

PEOPLE = {
    "PatientName": "Quill^Ottoline",
    "PatientBirthDate": "19370304",
    "InstitutionName": "Clinic of Nowhere",
    "ReferringPhysicianName": "Vane^Hesper",
    "AccessionNumber": "ACC-77121",
    "StudyDate": "20190807",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.4711",
    "ImageComments": "seen with her sister",
}
"""Made up; a test looks for each of them in the bytes of a store."""


def scan(levels: np.ndarray, photometric: str = "MONOCHROME2", **elements) -> bytes:
    """Return a DICOM file of these stored levels, (H, W) or (H, W, 3)."""
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    meta.TransferSyntaxUID = elements.pop("syntax", pydicom.uid.ExplicitVRLittleEndian)
    file = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    bits = 8 * levels.dtype.itemsize
    file.Rows, file.Columns = levels.shape[:2]
    file.SamplesPerPixel = 3 if levels.ndim == 3 else 1
    if levels.ndim == 3:
        file.PlanarConfiguration = 0
    file.PhotometricInterpretation = photometric
    file.BitsAllocated, file.BitsStored = bits, elements.pop("BitsStored", bits)
    file.HighBit = file.BitsStored - 1
    file.PixelRepresentation = int(levels.dtype.kind == "i")
    file.PixelData = elements.pop("PixelData", levels.tobytes())
    if meta.TransferSyntaxUID.is_compressed:
        file["PixelData"].VR = "OB"
    for name, value in ({"PatientID": "P-1"} | elements).items():
        setattr(file, name, value)
    written = io.BytesIO()
    file.save_as(written, enforce_file_format=True)
    return written.getvalue()


def shown(data: bytes, window: str | None = None) -> np.ndarray:
    """Return the image as it enters a store of its own size: (H, W) or (H, W, 3)."""
    image = dicom.picture(data, "x.dcm", Window.parse(window), 10**6)
    return np.asarray(image)


RAMP = (np.arange(256, dtype=np.uint16) * 16).reshape(16, 16)
"""12 bits."""


def table(first: int, outputs: list[int], bits: int):
    from pydicom.dataset import Dataset

    found = Dataset()
    found.LUTDescriptor = [len(outputs), first, bits]
    found.add_new(0x00283006, "OW", np.array(outputs, "<u2").tobytes())
    return found


# Grey levels


def test_without_a_window_the_stored_bits_are_the_range(tmp_path):
    assert np.array_equal(shown(scan(RAMP, BitsStored=12)), spread(RAMP, 0, 4095))
    signed = RAMP.astype(np.int16) - 2048
    assert np.array_equal(shown(scan(signed, BitsStored=12)), spread(signed, -2048, 2047))
    eight = (RAMP // 16).astype(np.uint8)
    assert np.array_equal(shown(scan(eight)), eight)


def test_the_range_is_that_after_rescaling_whatever_its_sign():
    found = shown(scan(RAMP, BitsStored=12, RescaleSlope="2", RescaleIntercept="-1024"))
    assert np.array_equal(found, spread(2.0 * RAMP - 1024, -1024, 2 * 4095 - 1024))
    found = shown(scan(RAMP, BitsStored=12, RescaleSlope="-1", RescaleIntercept="0"))
    assert np.array_equal(found, spread(-1.0 * RAMP, -4095, 0))


def test_the_first_window_of_the_header_is_in_units_after_rescaling():
    window = {"WindowCenter": ["1040", "9"], "WindowWidth": ["401", "9"]}
    found = shown(scan(RAMP, BitsStored=12, RescaleSlope="1", RescaleIntercept="-1000", **window))
    units = RAMP.astype(float) - 1000
    # PS3.3 C.11.2.1.2.1, over 0 to 255
    expected = ((units - (1040 - 0.5)) / (401 - 1) + 0.5) * 255
    expected[units <= 1040 - 0.5 - 200] = 0
    expected[units > 1040 - 0.5 + 200] = 255
    assert np.array_equal(found, np.floor(expected + 0.5))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_are_those_of_pydicom_to_a_grey_level(function):
    file = scan(
        RAMP, BitsStored=12, WindowCenter="2000", WindowWidth="1500", VOILUTFunction=function
    )
    header = pydicom.dcmread(io.BytesIO(file))
    theirs = pydicom.pixels.apply_windowing(header.pixel_array, header) / 4095 * 255
    assert np.abs(shown(file).astype(float) - theirs).max() <= 1


def test_a_window_of_width_one_is_a_threshold():
    found = shown(scan(RAMP, BitsStored=12, WindowCenter="1600", WindowWidth="1"))
    assert np.array_equal(found, np.where(RAMP > 1599.5, 255, 0))


def test_a_table_of_the_header_goes_before_its_window():
    outputs = [255 - i for i in range(256)]
    levels = (RAMP // 16).astype(np.uint8)
    lut = {"VOILUTSequence": [table(0, outputs, 8)], "WindowCenter": "10", "WindowWidth": "2"}
    assert np.array_equal(shown(scan(levels, **lut)), 255 - levels)


def test_a_table_may_stand_for_rescaling():
    outputs = [min(4095, 20 * i) for i in range(256)]
    levels = (RAMP // 16).astype(np.uint8)
    found = shown(scan(levels, ModalityLUTSequence=[table(0, outputs, 12)]))
    assert np.array_equal(found, spread(np.array(outputs)[levels], 0, 4095))


def test_monochrome1_counts_down_from_white():
    plain = shown(scan(RAMP, BitsStored=12))
    assert np.array_equal(shown(scan(RAMP, "MONOCHROME1", BitsStored=12)), 255 - plain)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_whichever_way_the_levels_count(photometric):
    levels = RAMP.copy()
    levels[:2] = 4000
    file = scan(levels, photometric, BitsStored=12, PixelPaddingValue=4000)
    assert (shown(file)[:2] == 0).all()
    file = scan(RAMP, photometric, BitsStored=12, PixelPaddingValue=0, PixelPaddingRangeLimit=160)
    assert (shown(file)[RAMP <= 160] == 0).all()


def test_a_window_of_the_user_goes_before_that_of_the_header():
    file = scan(RAMP, BitsStored=12, WindowCenter="9", WindowWidth="3", RescaleSlope="2",
                RescaleIntercept="-10")  # fmt: skip
    units = 2.0 * RAMP - 10
    assert np.array_equal(shown(file, "100,900"), spread(units, 100, 900))
    assert np.array_equal(shown(file, "percentile"), spread(units, *middle(units)))
    assert np.array_equal(shown(file, "bits"), spread(units, -10, 2 * 4095 - 10))


def test_bits_follow_the_levels_where_the_header_says_too_many():
    file = scan(RAMP // 16)
    with pytest.raises(
        InputError, match="has no window, and uses only levels 0 to 255 of 0 to 65535"
    ):
        shown(file)
    assert np.array_equal(shown(file, "bits"), RAMP // 16)
    signed = (RAMP // 16).astype(np.int16) - 128
    assert np.array_equal(shown(scan(signed), "bits"), spread(signed, -128, 127))


# Colours


def test_red_green_and_blue_stay():
    levels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    assert np.array_equal(shown(scan(levels, "RGB")), levels)
    planes = np.ascontiguousarray(np.moveaxis(levels, 2, 0)).tobytes()
    assert np.array_equal(
        shown(scan(levels, "RGB", PixelData=planes, PlanarConfiguration=1)), levels
    )


def test_luma_and_chroma_become_red_green_and_blue():
    rgb = np.random.default_rng(0).integers(40, 200, (16, 16, 3), np.uint8)
    ycc = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    assert np.abs(shown(scan(ycc, "YBR_FULL")).astype(int) - rgb).max() <= 3


@pytest.mark.parametrize("bits", [8, 16])
def test_palettes_become_red_green_and_blue(bits):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 2**bits, (3, 256)).astype("<u2")
    palette = {}
    for name, values in zip(("Red", "Green", "Blue"), colours, strict=True):
        palette[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        data = values.astype(np.uint8) if bits == 8 else values
        palette[f"{name}PaletteColorLookupTableData"] = data.tobytes()
    found = shown(scan(levels, "PALETTE COLOR", **palette))
    assert np.array_equal(found, (colours >> (bits - 8)).T[levels])


# Compression


def test_jpeg_is_decoded(tmp_path):
    from pydicom.encaps import encapsulate

    smooth = np.tile(np.linspace(0, 255, 64), (64, 1)).astype(np.uint8)
    packed = io.BytesIO()
    Image.fromarray(smooth).save(packed, "JPEG", quality=95)
    data = encapsulate([packed.getvalue()])
    file = scan(smooth, PixelData=data, syntax=pydicom.uid.JPEGBaseline8Bit)
    assert np.abs(shown(file).astype(int) - smooth).max() <= 4


def test_run_lengths_are_decoded():
    from pydicom.encaps import encapsulate
    from pydicom.pixels.encoders import RLELosslessEncoder

    levels = RAMP.astype(np.uint16)
    packed = RLELosslessEncoder.encode(
        levels, rows=16, columns=16, samples_per_pixel=1, bits_allocated=16, bits_stored=12,
        pixel_representation=0, number_of_frames=1, photometric_interpretation="MONOCHROME2",
    )  # fmt: skip
    file = scan(levels, BitsStored=12, PixelData=encapsulate([packed]),
                syntax=pydicom.uid.RLELossless)  # fmt: skip
    assert np.array_equal(shown(file), spread(levels, 0, 4095))


def test_other_compressions_are_refused_by_name_in_one_line():
    from pydicom.encaps import encapsulate

    for syntax in (pydicom.uid.JPEGLSLossless, pydicom.uid.MPEG2MPML):
        file = scan(RAMP, PixelData=encapsulate([b"\0" * 64]), syntax=syntax)
        with pytest.raises(InputError, match=r"is compressed as (JPEG-LS|MPEG2).*gdcmconv --raw"):
            shown(file)


def test_a_file_that_is_compressed_as_a_whole_is_refused_before_it_is_unpacked():
    whole = scan(RAMP)
    head, body = whole[:132], whole[132:]
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = bomb.compress(bytes(2**26)) + bomb.flush()
    syntax = pydicom.uid.DeflatedExplicitVRLittleEndian.encode()
    syntax += b"\0" * (len(syntax) % 2)
    element = b"\x02\x00\x10\x00UI" + len(syntax).to_bytes(2, "little") + syntax
    length = b"\x02\x00\x00\x00UL\x04\x00" + len(element).to_bytes(4, "little")
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(InputError, match="is compressed as Deflated Explicit VR Little Endian"):
        shown(head + length + element + packed)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**25 and body


# What cannot be


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"NumberOfFrames": "12"}, "holds 12 frames, which are relatives of each other"),
        ({"photometric": "HSV"}, "the photometric interpretation 'HSV', which is not read"),
        ({"PixelData": b"\0" * 40}, "its pixels cannot be decoded"),
        ({"Rows": 0}, "holds no image"),
    ],
)
def test_what_is_no_single_frame_is_refused_with_the_reason(elements, words):
    photometric = elements.pop("photometric", "MONOCHROME2")
    with pytest.raises(InputError, match=words):
        shown(scan(RAMP, photometric, BitsStored=12, **elements))


def test_a_document_without_pixels_is_refused():
    file = pydicom.dcmread(io.BytesIO(scan(RAMP)))
    del file.PixelData
    written = io.BytesIO()
    file.save_as(written)
    with pytest.raises(InputError, match="it has no pixels"):
        shown(written.getvalue())


def test_more_pixels_than_the_limit_are_refused_before_they_are_decoded():
    file = scan(RAMP, Rows=60_000, Columns=60_000)
    with pytest.raises(InputError, match="60000x60000 pixels; make it smaller"):
        dicom.picture(file, "x", Window(), 50_000_000)


def test_damaged_bytes_never_crash():
    whole = scan(RAMP, BitsStored=12, WindowCenter="2000", WindowWidth="900", **PEOPLE)
    rng = np.random.default_rng(0)
    outcomes = set()
    for cut in range(0, len(whole), 37):
        outcomes.add(_outcome(whole[:cut]))
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(132, len(whole) - RAMP.nbytes, 3):
            damaged[place] = rng.integers(0, 256)
        outcomes.add(_outcome(bytes(damaged)))
    assert outcomes == {"read", "refused"}


def _outcome(data: bytes) -> str:
    try:
        decode(data, target=Target(16, 16))
    except InputError:
        return "refused"
    return "read"


# Through the command, and into the store


def scans(root: Path, n: int = 6, *, suffix: str = ".dcm", **elements) -> Path:
    """Write scans of two classes; patients come in pairs."""
    for i in range(n):
        levels = np.random.default_rng(i).integers(0, 4096, (40, 48)).astype(np.uint16)
        label = "ab"[(i // 2) % 2]
        (root / label).mkdir(parents=True, exist_ok=True)
        file = scan(
            levels, BitsStored=12, **(PEOPLE | {"PatientID": f"HOSP-{i // 2:05d}"} | elements)
        )
        (root / label / f"scan{i}{suffix}").write_bytes(file)
    return root


def bytes_of(path: Path) -> bytes:
    return b"".join(tree(path).values()) if path.is_dir() else path.read_bytes()


@pytest.mark.parametrize("suffix", [".dcm", ".DICOM", "", ".17"])
def test_files_are_found_by_their_ending_or_by_their_mark(tmp_path, suffix):
    root = scans(tmp_path / "set", suffix=suffix)
    (root / "a" / "notes").write_text("no image")
    listing = read(root)
    assert len(listing.sources) == 6 and listing.ignored == 1
    assert image_size(listing.sources[0].path) == (40, 48)
    rows = [f"{s.path.relative_to(root)},{s.label}" for s in listing.sources]
    (root / "x.csv").write_text("\n".join(["image,class", *rows]))
    assert len(read(root / "x.csv").sources) == 6


@pytest.mark.parametrize("store", ["t.store", "t.h5"])
@pytest.mark.parametrize("flags", [(), ("--group-by", "patient")])
def test_nothing_of_a_header_enters_the_store(tmp_path, store, flags):
    scans(tmp_path / "set", 8)
    works("ingest", "set", "--store", store, "--size", "48x40", *flags, cwd=tmp_path)
    works("augment", "--plugin", "flip", "--store", store, cwd=tmp_path)
    found = bytes_of(tmp_path / store)
    searched = [
        *PEOPLE.values(),
        *["Quill", "Ottoline", "Hesper"],
        "HOSP-0000",
        "HOSP-00001",
        "1.2.3.4",
    ]
    for identifier in searched:
        for encoding in ("utf-8", "utf-16-le"):
            assert identifier.encode(encoding) not in found
    assert b"set/a/scan0.dcm" in found, "what is searched holds the keys in the clear"


def test_patients_stay_together_only_where_that_is_asked_for(tmp_path):
    scans(tmp_path / "set", n=8)
    line = ("ingest", "set", "--size", "48x40", "--no-find-relatives")
    works(*line, "--store", "apart.store", cwd=tmp_path)
    assert len(set(ak.open(tmp_path / "apart.store").snapshot().real.groups.tolist())) == 8
    works(*line, "--store", "t.store", "--group-by", "patient", cwd=tmp_path)
    real = ak.open(tmp_path / "t.store").snapshot().real
    order = np.argsort(real.keys)
    numbers = [int(key[-5]) for key in real.keys[order].tolist()]
    groups = real.groups[order].tolist()
    for i, one in zip(numbers, groups, strict=True):
        for j, other in zip(numbers, groups, strict=True):
            assert (i // 2 == j // 2) == (one == other)


def test_a_patient_who_comes_back_later_is_known_again(tmp_path):
    scans(tmp_path / "first", n=8)
    later = np.random.default_rng(99).integers(0, 4096, (40, 48)).astype(np.uint16)
    (tmp_path / "again" / "a").mkdir(parents=True)
    (tmp_path / "again" / "a" / "new.dcm").write_bytes(
        scan(later, BitsStored=12, PatientID="HOSP-00000")
    )
    line = ("--store", "t.store", "--dataset", "clinic", "--no-find-relatives")
    works("ingest", "first", *line, "--size", "48x40", "--group-by", "patient", cwd=tmp_path)
    works("ingest", "again", *line, cwd=tmp_path)
    real = ak.open(tmp_path / "t.store").snapshot().real
    groups = dict(zip(real.keys.tolist(), real.groups.tolist(), strict=True))
    assert (
        groups["clinic/a/new.dcm"] == groups["clinic/a/scan0.dcm"] == groups["clinic/a/scan1.dcm"]
    )


def test_files_without_a_patient_stand_alone_and_are_counted(tmp_path):
    scans(tmp_path / "set", PatientID="")
    found = works("ingest", "set", "--store", "t.store", "--group-by", "patient", cwd=tmp_path)
    assert "6 files without PatientID stand alone" in found.err


def test_grouping_by_patient_needs_dicom_files(tmp_path):
    for label in "ab":
        (tmp_path / "set" / label).mkdir(parents=True)
        Image.new("L", (48, 40)).save(tmp_path / "set" / label / "1.png")
    found = command("ingest", "set", "--group-by", "patient", cwd=tmp_path)
    assert (
        found.code == 2 and "--group-by patient is for DICOM files, and there are none" in found.err
    )


def test_text_in_the_pixels_is_warned_of(tmp_path):
    scans(tmp_path / "set", BurnedInAnnotation="YES")
    found = works("ingest", "set", "--store", "t.store", cwd=tmp_path)
    assert "6 DICOM files say that text is burned into the pixels" in found.err


def test_without_pydicom_one_line_says_what_to_install(tmp_path, monkeypatch):
    scans(tmp_path / "set")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    found = command("ingest", "set", "--store", "t.store", "--skip-bad", cwd=tmp_path)
    assert found.code == 2
    assert found.err.splitlines()[-1].endswith("pip install 'augkit[dicom]'")
    assert len(found.err.splitlines()) == 1 and not (tmp_path / "t.store").exists()


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_nothing_that_pydicom_says_reaches_the_terminal(tmp_path):
    scans(tmp_path / "set", StudyDate="Quill was here")
    found = works("ingest", "set", "--store", "t.store", "--size", "48x40", cwd=tmp_path)
    assert "Quill" not in found.err and "Quill" not in found.out
