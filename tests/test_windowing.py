"""Windows of deep images, as a class and through the decoder."""

import numpy as np
import pytest
from commands import command, works
from PIL import Image

import augkit as ak
from augkit.errors import InputError, OptionError
from augkit.ingestion.decode import Target, decode
from augkit.ingestion.windowing import Window, depth_of, middle, spread


def saved(path, levels, **options):
    Image.fromarray(levels).save(path, **options)
    return path


def through(path, window, side=8):
    return decode(path, target=Target(side, side, window=Window.parse(window))).image[..., 0]


def test_a_window_is_read_from_its_words_and_printed_as_them():
    assert Window.parse(None) == Window.parse("full") == Window()
    for text in ("bits", "percentile", "0,4095", "-1024,3071", "0.5,1.25"):
        assert str(Window.parse(text)) == text
    assert Window.parse(" 10 , 20 ") == Window("fixed", 10.0, 20.0)


@pytest.mark.parametrize(
    "text", ["", "x", "1", "2,1", "1,1", "1,2,3", "nan,1", "0,inf", "0,1e9", "\u0661,\u0662"]
)
def test_a_window_that_is_none_is_named_with_those_that_are(text):
    with pytest.raises(OptionError, match=r"write LOW,HIGH.*or one of: full, bits, percentile"):
        Window.parse(text)


@pytest.mark.parametrize(("low", "high"), [(0, 255), (0, 4095), (-100, 300), (5, 6), (0, 65535)])
def test_levels_are_spread_evenly_and_rounded_half_up(low, high):
    levels = np.arange(low - 3, min(high, low + 3000) + 3)
    found = spread(levels, low, high)
    for level, grey in zip(levels.tolist(), found.tolist(), strict=True):
        inside = min(max(level, low), high)
        # floor(x + 1/2) in whole numbers
        assert grey == (2 * 255 * (inside - low) + (high - low)) // (2 * (high - low))


def test_the_full_range_is_what_dividing_by_257_gives():
    levels = np.arange(65536)
    assert np.array_equal(spread(levels, 0, 65535), (levels + 128) // 257)


def test_bits_are_the_fewest_that_devices_count_in():
    highest = (0, 255, 256, 1023, 1024, 4095, 4096, 16383, 16384, 65535)
    found = [depth_of(np.array([h])) for h in highest]
    assert found == [255, 255, 1023, 1023, 4095, 4095, 16383, 16383, 65535, 65535]


def test_percentiles_are_levels_that_occur_with_half_a_percent_beyond_each():
    levels = np.random.default_rng(0).permutation(np.arange(1000))
    assert middle(levels) == (4.0, 994.0)
    assert middle(np.full(50, 7)) == (7.0, 7.0)
    mostly = np.array([5] * 9999 + [9])
    assert middle(mostly) == (5.0, 9.0)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_twelve_bits_come_out_right_where_a_window_is_named(tmp_path, suffix):
    levels = (np.arange(64, dtype=np.uint16) * 65).reshape(8, 8)
    path = saved(tmp_path / f"x{suffix}", levels)
    with pytest.raises(InputError, match=r"uses only levels up to 4095 .*--window 0,4095"):
        through(path, None)
    expected = spread(levels, 0, 4095)
    assert np.array_equal(through(path, "0,4095"), expected)
    assert np.array_equal(through(path, "bits"), expected)
    assert np.array_equal(through(path, "1000,2000"), spread(levels, 1000, 2000))
    assert np.array_equal(through(path, "percentile"), spread(levels, *middle(levels)))


def test_a_window_keeps_which_image_is_darker_and_percentiles_do_not(tmp_path):
    base = np.arange(64, dtype=np.uint16).reshape(8, 8)
    dark = saved(tmp_path / "d.png", base * 20 + 2000)
    light = saved(tmp_path / "l.png", base * 20 + 2600)
    for window in ("bits", "0,4095"):
        assert (through(dark, window) < through(light, window)).all()
    assert np.array_equal(through(dark, "percentile"), through(light, "percentile"))


def test_a_tiff_that_counts_down_from_white_is_inverted_after_its_window(tmp_path):
    levels = (np.arange(64, dtype=np.uint16) * 65).reshape(8, 8)
    path = saved(tmp_path / "x.tif", levels, tiffinfo={262: 0})
    assert np.array_equal(through(path, "0,4095"), 255 - spread(levels, 0, 4095))


def test_floating_point_levels_need_a_fixed_window_and_numbers(tmp_path):
    levels = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    path = saved(tmp_path / "x.tif", levels)
    for window in (None, "bits", "percentile"):
        with pytest.raises(InputError, match="floating-point grey levels, of unknown scale"):
            through(path, window)
    assert np.array_equal(through(path, "0,1"), spread(levels, 0, 1))
    levels[3, 3] = np.nan
    with pytest.raises(InputError, match=r"x\.tif: has grey levels that are no numbers"):
        through(saved(path, levels), "0,1")


def test_levels_beyond_sixteen_bits_need_a_fixed_window(tmp_path):
    levels = (np.arange(64, dtype=np.int32) * 2000).reshape(8, 8)
    path = saved(tmp_path / "x.tif", levels)
    with pytest.raises(InputError, match="the limits are 0 and 65535"):
        through(path, "bits")
    assert np.array_equal(through(path, "0,126000"), spread(levels, 0, 126000))


def test_eight_bits_go_through_no_window(tmp_path):
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert np.array_equal(through(saved(tmp_path / "x.png", levels), "0,10"), levels)


def test_the_command_takes_a_window_and_the_log_keeps_it(tmp_path):
    rng = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(3):
            levels = rng.integers(0, 4096, (40, 48)).astype(np.uint16)
            saved(tmp_path / "set" / label / f"{i}.png", levels)
    found = command("ingest", "set", "--store", "t.store", cwd=tmp_path)
    assert found.code == 2 and "--window 0,4095" in found.err
    works(
        "ingest", "set", "--store", "t.store", "--size", "48x40", "--window", "0,4095", cwd=tmp_path
    )
    snapshot = ak.open(tmp_path / "t.store").snapshot()
    assert snapshot.entries[0]["options"]["window"] == "0,4095"
    with Image.open(tmp_path / "set/a/0.png") as image:
        expected = spread(np.asarray(image), 0, 4095)
    assert np.array_equal(snapshot.inspect()[0:1][0, ..., 0], expected)
    found = command("ingest", "set", "--store", "t.store", "--window", "9,1", cwd=tmp_path)
    assert found.code == 2 and "window is '9,1'; write LOW,HIGH" in found.err
