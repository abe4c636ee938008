import numpy as np
import pytest
from PIL import Image

from augkit.errors import InputError
from augkit.reports.captions import Captioned, Line, draw_lines, write_png


def grey(height, width, level=128):
    return np.full((height, width, 1), level, np.uint8)


def ink(sheet):
    """Return bool (H, W): where something is drawn on the paper."""
    return (np.array(sheet) < 250).any(2)


def test_nothing_touches_an_edge():
    long = "a very long caption that says far more than there is place for below a small picture"
    lines = [
        Line(long * 3, [Captioned((grey(20, 30),), long)]),
        Line("b", [Captioned((grey(20, 30),))]),
    ]
    drawn = ink(draw_lines(lines, long * 2))
    for edge in (drawn[:12], drawn[-12:], drawn[:, :12], drawn[:, -12:]):
        assert not edge.any()


def test_captions_do_not_run_into_each_other():
    cells = [Captioned((grey(96, 128, 255),), "W" * 60) for _ in range(3)]
    drawn = ink(draw_lines([Line("", cells)]))
    columns = drawn.any(0)
    for number in (1, 2):
        gap = 16 + number * (128 + 8)
        assert not columns[gap - 8 : gap].any()
    assert columns[16 : 16 + 128].any()


@pytest.mark.parametrize(
    "size, shown", [((24, 32), (96, 128)), ((96, 128), (96, 128)), ((768, 1024), (192, 256))]
)
def test_small_images_grow_and_large_ones_shrink(size, shown):
    sheet = draw_lines([Line("", [Captioned((grey(*size, 0),))])])
    assert sheet.size == (shown[1] + 32, shown[0] + 32)
    assert (np.array(sheet)[16:-16, 16:-16] == 0).all()


def test_images_that_belong_together_have_hardly_a_gap():
    sheet = np.array(draw_lines([Line("", [Captioned((grey(96, 128, 0), grey(96, 128, 9)))])]))
    assert (sheet[16:-16, 16 : 16 + 128] == 0).all()
    assert (sheet[16:-16, 16 + 130 : 16 + 258] == 9).all()


def test_colours_and_gaps_are_drawn():
    red = np.zeros((96, 128, 3), np.uint8)
    red[..., 0] = 200
    sheet = np.array(draw_lines([Line("", [None, Captioned((red,))])]))
    assert (sheet[16:-16, 16 : 16 + 128] == 255).all()
    assert (sheet[16:-16, 16 + 136 : -16] == (200, 0, 0)).all()


def test_any_letters_are_drawn():
    draw_lines([Line("gut\nartig", [Captioned((grey(9, 9),), "злокачественный\x00")])])


def test_a_picture_is_a_png_file_that_can_be_written(tmp_path):
    sheet = Image.new("RGB", (4, 4))
    assert write_png(sheet, tmp_path / "a.png").exists()
    with pytest.raises(InputError, match="a picture is a PNG file"):
        write_png(sheet, tmp_path / "a.jpg")
    with pytest.raises(InputError, match="cannot write"):
        write_png(sheet, tmp_path / "no" / "a.png")
