from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from augkit.reports.lettering import _font_for, _letters, _usual, in_usual_letters, lettered


def test_names_in_the_letters_of_europe_stay_as_they_are():
    for name in ("bösartig", "злокачественный", "καλοήθης", "100 %"):
        text, font = lettered(name)
        assert text == name and Path(font.path) == _usual()
        assert in_usual_letters(name) == name


def test_a_letter_that_no_font_has_is_drawn_as_its_code():
    signs = map(chr, range(0x13000, 0x13400))  # hieroglyphs
    sign = next(c for c in signs if _font_for(c) == _usual() and c not in _letters(_usual()))
    code = f"\\U{ord(sign):08x} 2"
    assert lettered(f"{sign} 2")[0] == in_usual_letters(f"{sign} 2") == code


def test_what_is_no_letter_becomes_a_question_mark():
    assert (
        lettered("gut\nartig\x1b[0m")[0] == in_usual_letters("gut\nartig\x1b[0m") == "gut?artig?[0m"
    )


def test_two_names_that_the_usual_font_lacks_look_different():
    pictures = []
    for name in ("正常", "恶性"):
        sheet = Image.new("L", (200, 20))
        text, font = lettered(name)
        ImageDraw.Draw(sheet).text((0, 0), text, 255, font)
        pictures.append(np.array(sheet))
    assert pictures[0].any() and not np.array_equal(*pictures)


def test_a_font_of_this_machine_is_taken_where_it_has_the_letters():
    from matplotlib.font_manager import fontManager

    paths = sorted({Path(font.fname) for font in fontManager.ttflist})
    usual = _letters(_usual())
    others = (
        letter for path in paths if {*"?.: 0…"} <= _letters(path) for letter in _letters(path)
    )
    letter = next((c for c in others if c not in usual and c.isprintable()), None)
    if letter is None:
        pytest.skip("no font here has a letter that DejaVu Sans has not")
    text, font = lettered(f"{letter}: real")
    assert text == f"{letter}: real" and Path(font.path) != _usual()
    assert in_usual_letters(letter) == letter.encode("ascii", "backslashreplace").decode()


def test_a_file_that_is_no_font_has_no_letters(tmp_path):
    (tmp_path / "font.ttf").write_text("none")
    assert not _letters(tmp_path / "font.ttf")
