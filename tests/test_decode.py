import dataclasses
import functools
import hashlib
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile
from toys import DATA

from augkit.engines.local import ordered_map
from augkit.errors import InputError, OptionError
from augkit.ingestion.decode import (
    Decoded,
    Target,
    attempt,
    choose_size,
    decode,
    image_size,
    median_aspect,
    parse_size,
)
from augkit.ingestion.layouts import read
from augkit.ingestion.readers import Refusal, Source

SMALL = Target(16, 24)
BUSI = DATA / "busi" / "Dataset_BUSI_with_GT"


def noise(height: int, width: int, *more: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, *more), np.uint8)


def saved(path: Path, image: Image.Image | np.ndarray, **options) -> Path:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(path, **options)
    return path


def same_size(path: Path, channels: int = 1) -> Decoded:
    height, width = image_size(path)
    return decode(path, target=Target(height, width, channels))


def luma(rgb: np.ndarray) -> np.ndarray:
    """ITU-R 601-2 in exact arithmetic."""
    return rgb.astype(float) @ [0.299, 0.587, 0.114]


def chunk(kind: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def test_a_grey_image_of_the_right_size_is_unchanged(tmp_path):
    pixels = noise(16, 24)
    path = saved(tmp_path / "x.png", pixels)
    found = decode(path, target=SMALL)
    assert found.image.shape == (16, 24, 1)
    assert found.image.dtype == np.uint8
    np.testing.assert_array_equal(found.image[..., 0], pixels)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).digest()
    assert (found.mask, found.colour, found.size) == (None, False, (16, 24))


def test_bytes_decode_like_their_file(tmp_path):
    path = saved(tmp_path / "x.png", noise(30, 40))
    a, b = decode(path, target=SMALL), decode(path.read_bytes(), target=SMALL)
    np.testing.assert_array_equal(a.image, b.image)
    assert a.sha256 == b.sha256


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "pgm"])
def test_every_format_on_the_list_is_read(tmp_path, suffix):
    pixels = np.repeat(np.arange(0, 240, 10, np.uint8)[None], 16, 0)
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"x.{suffix}", pixels, **options)
    found = decode(path, target=SMALL)
    assert np.abs(found.image[..., 0].astype(int) - pixels).max() <= (3 if suffix == "jpg" else 0)
    assert image_size(path) == found.size == (16, 24)


@pytest.mark.parametrize("kind", ["gif", "ppm-as-png", "text", "eps"])
def test_the_content_decides_and_other_formats_are_refused(tmp_path, kind):
    path = tmp_path / "x.png"
    if kind == "text":
        path.write_text("this is text\n" * 100)
    elif kind == "ppm-as-png":
        saved(path, noise(16, 24), format="PPM")
        assert decode(path, target=SMALL).image.shape == (16, 24, 1)
        return
    else:
        saved(path, noise(16, 24), format=kind)
    for function in (functools.partial(decode, target=SMALL), image_size):
        with pytest.raises(InputError, match=r"x\.png: is no image of a known format"):
            function(path)


def test_colours_become_luma_or_stay(tmp_path):
    rgb = noise(16, 24, 3)
    path = saved(tmp_path / "x.png", rgb)
    grey, colours = same_size(path), same_size(path, channels=3)
    assert np.abs(grey.image[..., 0] - luma(rgb)).max() <= 0.51
    np.testing.assert_array_equal(colours.image, rgb)
    assert grey.colour
    assert colours.colour


def test_grey_becomes_three_equal_channels(tmp_path):
    pixels = noise(16, 24)
    found = same_size(saved(tmp_path / "x.png", pixels), channels=3)
    np.testing.assert_array_equal(found.image, np.repeat(pixels[..., None], 3, 2))
    assert not found.colour


@pytest.mark.parametrize(("levels", "colour"), [(0, False), (2, False), (3, True)])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_pixel_that_differs_by_more_than_two_levels_is_colour(
    tmp_path, levels, colour, channel
):
    rgb = np.full((16, 24, 3), 100, np.uint8)
    rgb[3, 4, channel] += levels
    assert same_size(saved(tmp_path / "x.png", rgb)).colour is colour


def test_grey_saved_as_a_colour_jpeg_is_grey(tmp_path):
    rgb = np.repeat(noise(64, 64, 1), 3, 2)
    assert not same_size(saved(tmp_path / "x.jpg", rgb, quality=60)).colour


def test_a_palette_is_looked_up(tmp_path):
    image = Image.fromarray(noise(16, 24, 3)).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    found = same_size(saved(tmp_path / "x.png", image), channels=3)
    np.testing.assert_array_equal(found.image, expected)
    assert found.colour


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_on_black(tmp_path, mode):
    pixels = noise(16, 24, len(mode))
    expected = pixels[..., :-1] * (pixels[..., -1:] / 255)
    found = same_size(saved(tmp_path / "x.png", Image.fromarray(pixels, mode)), channels=3)
    assert np.abs(found.image - expected).max() <= 1.01


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_transparent_colour_is_black(tmp_path, mode):
    image = Image.new(mode, (24, 16), 1 if mode in "1P" else "white")
    image.paste(0 if mode in "1P" else "black", (0, 0, 12, 16))
    if mode == "P":
        image.putpalette([0, 0, 0, 250, 250, 250])
    options = {"transparency": {"1": 255, "L": 255, "P": 1, "RGB": (255, 255, 255)}[mode]}
    path = saved(tmp_path / "x.png", image, **options)
    assert same_size(path).image.max() == 0
    assert same_size(saved(path, image)).image.max() >= 250


def test_one_bit_is_black_and_white(tmp_path):
    bits = noise(16, 24) > 127
    found = same_size(saved(tmp_path / "x.png", Image.fromarray(bits)))
    np.testing.assert_array_equal(found.image[..., 0], bits * 255)


def test_cmyk_is_read_as_colour(tmp_path):
    image = Image.new("CMYK", (24, 16), (255, 0, 0, 0))
    found = same_size(saved(tmp_path / "x.tif", image), channels=3)
    assert found.colour
    assert found.image[0, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_divided_by_257(tmp_path, suffix):
    values = np.linspace(0, 65535, 16 * 24).round().astype(np.uint16).reshape(16, 24)
    found = same_size(saved(tmp_path / f"x.{suffix}", values))
    np.testing.assert_array_equal(found.image[..., 0], np.rint(values / 257))
    assert not found.colour


def test_sixteen_bits_are_scaled_alike_in_every_image(tmp_path):
    dark = same_size(saved(tmp_path / "d.png", np.full((8, 8), 257 * 40, np.uint16)))
    light = same_size(saved(tmp_path / "l.png", np.full((8, 8), 257 * 200, np.uint16)))
    assert (dark.image.max(), light.image.min()) == (40, 200)


def test_twelve_bit_values_are_refused_instead_of_turning_black(tmp_path):
    path = saved(tmp_path / "x.png", np.full((8, 8), 4095, np.uint16))
    with pytest.raises(InputError, match="uses only levels up to 4095 of 65535"):
        same_size(path)
    assert same_size(saved(path, np.zeros((8, 8), np.uint16))).image.max() == 0


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((8, 8), -5, np.int32), "has grey levels -5 to -5; the limits are 0 and 65535"),
        (np.full((8, 8), 70000, np.int32), "has grey levels 70000 to 70000"),
        (np.full((8, 8), 0.5, np.float32), "has floating-point grey levels, of unknown scale"),
    ],
)
def test_grey_levels_of_unknown_scale_are_refused(tmp_path, values, reason):
    with pytest.raises(InputError, match=reason):
        same_size(saved(tmp_path / "x.tif", values))


def test_an_unknown_colour_mode_is_refused(tmp_path):
    path = saved(tmp_path / "x.tif", Image.new("LAB", (8, 8)))
    with pytest.raises(InputError, match="has colour mode LAB"):
        same_size(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8] = 250
    upright[8:, :8] = 120
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"x.{suffix}", np.ascontiguousarray(stored), exif=exif, **options)
    found = same_size(path)
    assert found.size == image_size(path) == (16, 24)
    assert np.abs(found.image[..., 0].astype(int) - upright).max() <= (8 if suffix == "jpg" else 0)


def test_the_size_is_read_without_decoding(tmp_path):
    path = tmp_path / "x.png"
    saved(path, noise(100, 50))
    path.write_bytes(path.read_bytes()[:200])
    assert image_size(path) == (100, 50)
    with pytest.raises(InputError, match="is truncated"):
        decode(path, target=SMALL)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "pgm"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.8])
def test_a_truncated_file_is_an_error_in_every_format(tmp_path, suffix, part):
    path = saved(tmp_path / f"x.{suffix}", noise(80, 80))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError, match=rf"x\.{suffix}: is truncated|cut off|cannot be decoded"):
        decode(path, target=SMALL)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_file_is_called_so(tmp_path, suffix):
    path = saved(tmp_path / f"x.{suffix}", noise(80, 80))
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(InputError, match=rf"x\.{suffix}: is truncated; copy the file again"):
        decode(path, target=SMALL)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(
    "data",
    [
        b"P5\n#" + b"x" * 10_000_000 + b"\n8 8\n255\n" + bytes(64),
        b"P2" + b" " * 10_000_000 + b"8 8\n255\n" + b"1 " * 64,
        b"P2 8 8 255\n" + b"1 " * 30 + b"#x\n" * 3_000_000 + b"1 " * 34,
    ],
    ids=["one", "blanks", "many"],
)
def test_a_picture_of_comments_is_refused_at_once(tmp_path, data):
    (tmp_path / "x.pgm").write_bytes(data)
    with pytest.raises(InputError, match=r"x\.pgm: holds more comments than a picture needs"):
        decode(tmp_path / "x.pgm", target=SMALL)


@pytest.mark.parametrize("header", [b"P5 #a\n300 300 #b\n255\n", b"P4 #a\n900 900\n"])
def test_a_large_picture_may_have_comments_and_no_blanks(header):
    pixels = b"#" * 114_000
    assert decode(header + pixels, target=SMALL).image.shape == (16, 24, 1)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "pgm"])
def test_damaged_bytes_give_an_image_or_a_plain_error(tmp_path, suffix):
    data = saved(tmp_path / f"x.{suffix}", noise(20, 20)).read_bytes()
    rng = np.random.default_rng(1)
    errors = 0
    for _ in range(60):
        damaged = np.frombuffer(data, np.uint8).copy()
        damaged[rng.integers(0, len(data), 4)] = rng.integers(0, 256, 4)
        try:
            assert decode(damaged.tobytes(), target=SMALL).image.shape == (16, 24, 1)
        except InputError as error:
            errors += 1
            assert str(error).startswith("image: ")
            assert "\n" not in str(error)
    assert errors or suffix in ("jpg", "pgm", "bmp")


@pytest.mark.parametrize(
    ("width", "height", "megapixels"),
    [(10_000, 6_000, 60), (10_000, 10_000, 100), (100_000, 3_000, 300), (2**31 - 1, 2**31 - 1, "")],
)
@pytest.mark.parametrize("filter", ["error", "ignore"])
def test_a_header_of_too_many_pixels_is_an_error(tmp_path, width, height, megapixels, filter):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(width, height))
    limit = Image.MAX_IMAGE_PIXELS
    for function in (functools.partial(decode, target=SMALL), image_size):
        with (
            warnings.catch_warnings(),
            pytest.raises(InputError, match=f"has {megapixels}.* megapixels, the limit is 50"),
        ):
            warnings.simplefilter(filter, Image.DecompressionBombWarning)
            function(path)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("suffix", ["tif", "webp", "png"])
def test_several_pictures_in_a_file_are_refused(tmp_path, suffix):
    first, second = (Image.fromarray(noise(16, 24, 3, seed=i)) for i in (1, 2))
    path = saved(tmp_path / f"x.{suffix}", first, save_all=True, append_images=[second])
    for function in (functools.partial(decode, target=SMALL), image_size):
        with pytest.raises(InputError, match="holds several pictures"):
            function(path)
    one = saved(tmp_path / f"one.{suffix}", first, save_all=True)
    assert decode(one, target=SMALL).size == (16, 24)


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path):
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    cases = {
        "missing.png": "cannot be read: No such file",
        "pipe.png": "is no regular file",
        "": "is no regular file",
    }
    for name, reason in cases.items():
        for function in (functools.partial(decode, target=SMALL), image_size):
            with pytest.raises(InputError, match=reason):
                function(tmp_path / name)
    with pytest.raises(InputError, match=r"empty\.png: is empty"):
        decode(tmp_path / "empty.png", target=SMALL)


def test_a_file_of_too_many_bytes_is_not_read(tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(600 * 1024**2)
    with pytest.raises(InputError, match="has 600 MiB, the limit is 512"):
        decode(path, target=SMALL)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_the_smallest_images_are_scaled(tmp_path, size, fit):
    path = saved(tmp_path / "x.png", np.full(size, 77, np.uint8))
    found = decode(path, target=Target(16, 24, fit=fit), masks=[path_of_white(tmp_path, size)])
    assert found.size == size
    assert set(np.unique(found.image)) <= {0, 77}
    assert 77 in found.image
    assert found.mask is not None
    np.testing.assert_array_equal(found.mask == 255, found.image[..., 0] == 77)


def path_of_white(folder: Path, size: tuple[int, int]) -> Path:
    return saved(folder / "white.png", np.full(size, 255, np.uint8))


def test_stretch_is_one_lanczos_resize_to_width_and_height(tmp_path):
    pixels = noise(50, 70)
    found = decode(saved(tmp_path / "x.png", pixels), target=SMALL)
    expected = Image.fromarray(pixels).resize((24, 16), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(found.image[..., 0], np.asarray(expected))


@pytest.mark.parametrize(
    ("size", "inner"),
    [((32, 32), np.s_[:, 4:20]), ((8, 24), np.s_[4:12, :]), ((4, 3), np.s_[:, 6:18])],
)
def test_pad_keeps_the_aspect_and_centres_on_black(tmp_path, size, inner):
    path = path_of_white(tmp_path, size)
    found = decode(path, target=Target(16, 24, fit="pad"), masks=[path])
    expected = np.zeros((16, 24), np.uint8)
    expected[inner] = 255
    np.testing.assert_array_equal(found.image[..., 0], expected)
    np.testing.assert_array_equal(found.mask, expected)


def test_masks_are_merged(tmp_path):
    masks = np.zeros((3, 16, 24), np.uint8)
    masks[0, :4], masks[1, :, :4], masks[2, 8, 8] = 255, 255, 255
    paths = [saved(tmp_path / f"m{i}.png", mask) for i, mask in enumerate(masks)]
    image = saved(tmp_path / "x.png", noise(16, 24))
    found = decode(image, target=SMALL, masks=paths)
    assert found.mask is not None
    assert found.mask.dtype == np.uint8
    np.testing.assert_array_equal(found.mask, masks.max(0))
    blank = saved(tmp_path / "blank.png", masks[0] * 0)
    assert decode(image, target=SMALL, masks=[blank]).mask.max() == 0


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_masks_of_every_mode_are_black_and_white(tmp_path, mode):
    inside = noise(16, 24) > 127
    image = Image.fromarray((inside * 255).astype(np.uint8))
    if mode == "I;16":
        image = Image.fromarray((inside * 65535).astype(np.uint16))
    mask = saved(tmp_path / "m.png", image if mode == "I;16" else image.convert(mode))
    found = decode(saved(tmp_path / "x.png", noise(16, 24)), target=SMALL, masks=[mask])
    np.testing.assert_array_equal(found.mask, inside * 255)


def test_a_mask_pixel_is_inside_from_128_and_from_half_of_the_area(tmp_path):
    image = saved(tmp_path / "x.png", noise(32, 48))
    mask = np.zeros((32, 48), np.uint8)
    mask[0, :2], mask[2, 2], mask[4:6, 4:6], mask[6:8, 6:8] = 255, 255, 128, 127
    found = decode(image, target=SMALL, masks=[saved(tmp_path / "m.png", mask)])
    assert np.argwhere(found.mask).tolist() == [[0, 0], [2, 2]]


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.zeros((8, 9), np.uint8), "is a mask of 9x8 pixels for an image of 24x16"),
        (np.ones((16, 24), np.uint8), "is a mask whose brightest level is 1; inside must be 255"),
    ],
)
def test_a_mask_that_does_not_fit_is_an_error(tmp_path, mask, reason):
    image = saved(tmp_path / "x.png", noise(16, 24))
    path = saved(tmp_path / "x_mask.png", mask)
    with pytest.raises(InputError, match=rf"x_mask\.png: {reason}"):
        decode(image, target=SMALL, masks=[path])


def test_a_damaged_mask_is_an_error_that_names_it(tmp_path):
    image = saved(tmp_path / "x.png", noise(16, 24))
    (tmp_path / "m.png").write_text("no mask")
    with pytest.raises(InputError, match=r"m\.png: is no image"):
        decode(image, target=SMALL, masks=[tmp_path / "m.png"])


def test_an_attempt_gives_the_image_or_the_reason(tmp_path):
    path = saved(tmp_path / "a: 1.png", noise(16, 24))
    source = Source("set/a: 1.png", path, "x", "set", None, ())
    found = attempt(source, target=SMALL)
    assert isinstance(found, Decoded)
    path.write_text("text")
    found = attempt(source, target=SMALL)
    assert isinstance(found, Refusal)
    assert found.path == "a: 1.png"
    assert found.reason.startswith("is no image of a known format")


def test_an_attempt_names_the_mask_that_is_at_fault(tmp_path):
    path = saved(tmp_path / "1.png", noise(16, 24))
    mask = saved(tmp_path / "1_mask.png", noise(3, 3))
    found = attempt(Source("set/1.png", path, "x", "set", None, (mask,)), target=SMALL)
    assert isinstance(found, Refusal)
    assert found.path == "1.png"
    assert found.reason.startswith(f"{mask}: is a mask of 3x3")


def test_a_message_stays_one_line_whatever_the_name(tmp_path):
    path = tmp_path / "a\nb.png"
    path.write_text("text")
    with pytest.raises(InputError, match=r"a\\nb\.png: is no image"):
        decode(path, target=SMALL)


@pytest.mark.parametrize("backend", ["threads", "fork", "spawn"])
def test_pixels_are_the_same_whoever_decodes(tmp_path, backend):
    paths = [
        saved(tmp_path / f"{i}.jpg", noise(90, 70, 3, seed=i), quality=80 + i) for i in range(6)
    ]
    task = functools.partial(decode, target=Target(32, 40, 3))
    alone = [task(path) for path in paths]
    found = list(ordered_map(task, paths, workers=2, backend=backend))
    for a, b in zip(alone, found, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        assert (a.sha256, a.colour, a.size) == (b.sha256, b.colour, b.size)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((7, 24), "height is 7; it must be 8 to 4096 pixels"),
        ((16, 4097), "width is 4097"),
        ((16, 24, 2), "channels is 2; it must be 1"),
        ((16, 24, 1, "crop"), "fit is 'crop'; it must be 'stretch' or 'pad'"),
    ],
)
def test_a_target_that_cannot_be_is_an_error(values, message):
    with pytest.raises(OptionError, match=message):
        Target(*values)
    assert dataclasses.asdict(Target(16, 24))["fit"] == "stretch"


@pytest.mark.parametrize("text", ["192x160", " 192 X 160 ", "192\u00d7160"])
def test_a_size_is_width_times_height(text):
    assert parse_size(text) == (160, 192)


@pytest.mark.parametrize("text", ["", "192", "192x", "-192x160", "19.2x160", "192x160x3", "x\n"])
def test_nonsense_is_no_size(text):
    with pytest.raises(OptionError, match="write width x height, such as 192x160"):
        parse_size(text)


@pytest.mark.parametrize("text", ["7x160", "192x5000", "0x0", "999999999x8"])
def test_a_size_out_of_bounds_is_an_error(text):
    with pytest.raises(OptionError, match="it must be 8 to 4096 pixels"):
        parse_size(text)


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (1.2, (160, 192)),
        (1.09, (160, 192)),
        (1.31, (160, 192)),
        (1.0, (160, 160)),
        (2.0, (128, 256)),
        (0.5, (256, 128)),
        (1 / 1.2, (192, 160)),
        (10.0, (64, 640)),
    ],
)
def test_the_size_follows_the_median_aspect(aspect, size):
    others = [(10, 200), (200, 10)]
    height, width, reason = choose_size([(1000, round(1000 * aspect)), *others])
    assert (height, width) == size
    assert reason.startswith(f"{width}x{height}: the median width / height is {aspect:.2f}")
    assert ("within 10 % of the usual 1.2" in reason) is (1.08 <= aspect <= 1.32)


def test_the_median_aspect_is_that_of_upright_images(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = [
        saved(tmp_path / "a.jpg", noise(20, 10), exif=exif),
        saved(tmp_path / "b.png", noise(10, 20)),
        saved(tmp_path / "c.png", noise(10, 90)),
    ]
    assert median_aspect(paths) == 2.0


def test_no_images_have_no_size():
    for function in (choose_size, median_aspect):
        with pytest.raises(InputError, match="there is no image to take the size from"):
            function([])


@pytest.mark.slow
@pytest.mark.skipif(not BUSI.is_dir(), reason=f"no BUSI in {DATA}: set AUGKIT_DATA")
def test_busi_is_read_as_it_is_known():
    listing = read(BUSI)
    counts = [sum(s.label == name for s in listing.sources) for name in listing.classes]
    assert dict(zip(listing.classes, counts, strict=True)) == {
        "benign": 437,
        "malignant": 210,
        "normal": 133,
    }
    assert sum(len(source.masks) for source in listing.sources) == 798
    assert (listing.refused, listing.ignored) == ((), 0)
    assert choose_size(image_size(s.path) for s in listing.sources)[:2] == (160, 192)
    found = list(ordered_map(functools.partial(attempt, target=Target(160, 192)), listing.sources))
    decoded = [item for item in found if isinstance(item, Decoded)]
    assert len(decoded) == 780
    assert sum(item.colour for item in decoded) == 16
    assert sum(item.mask is not None and item.mask.any() for item in decoded) == 647


def test_a_tiff_of_16_bits_that_counts_down_from_white_comes_in_upright(tmp_path):
    pixels = np.tile(np.linspace(0, 65535, 32).astype(np.uint16), (16, 1))
    path = tmp_path / "white.tif"
    photometric = ExifTags.Base.PhotometricInterpretation
    Image.fromarray(pixels).save(path, tiffinfo={photometric: 0})
    with Image.open(path) as stored:
        assert stored.tag_v2[photometric] == 0
    shown = decode(path, target=Target(16, 32)).image[0, :, 0]
    assert shown[0] > 250, "0 is white in such a file"
    assert shown[-1] < 5
