"""Options: from text as from Python, checked once, and every error says what would be right."""

import json
from dataclasses import dataclass, field
from typing import Literal

import pytest

from augkit import options
from augkit.errors import OptionError, PluginFailed
from augkit.options import option


@dataclass
class Plugin:
    name = "plugin"

    n: int = 3
    gain: float = option(1.0, "factor", low=0.5, high=2)
    exact: bool = False
    title: str = "none"
    mode: Literal["fast", "good"] = "fast"
    bins: Literal[8, 16] = 8
    limit: float | None = None
    size_range: tuple[int, int] = option((1, 9), low=0, high=10)
    weights: tuple[float, ...] = (1.0,)
    learned_: float = field(init=False, default=0.0)


@dataclass
class Plain:
    name = "plain"


GOOD = [
    ("n", "5", 5),
    ("n", " 5 ", 5),
    ("n", 5.0, 5),
    ("gain", "0.5", 0.5),
    ("gain", "2e0", 2.0),
    ("gain", 1, 1.0),
    ("exact", "true", True),
    ("exact", "NO", False),
    ("exact", True, True),
    ("exact", 1, True),
    ("title", "a=b, c", "a=b, c"),
    ("title", "", ""),
    ("mode", "good", "good"),
    ("bins", "16", 16),
    ("bins", 16, 16),
    ("limit", "none", None),
    ("limit", None, None),
    ("limit", "0.1", 0.1),
    ("size_range", "2,7", (2, 7)),
    ("size_range", [2, 7], (2, 7)),
    ("size_range", "4,4", (4, 4)),
    ("weights", "1,2,3.5", (1.0, 2.0, 3.5)),
    ("weights", "2", (2.0,)),
    ("weights", 2, (2.0,)),
]

BAD = [
    ("n", "five", "is 'five'; it must be a whole number"),
    ("n", "5.5", "must be a whole number"),
    ("n", 5.5, "must be a whole number"),
    ("n", True, "must be a whole number"),
    ("n", "9" * 400, "must be a whole number"),
    ("n", None, "must be a whole number"),
    ("gain", "nan", "must be a number"),
    ("gain", "1e999", "must be a number"),
    ("gain", "", "is ''; it must be a number"),
    ("gain", "0.4", "is 0.4; it must be at least 0.5"),
    ("gain", 2.1, "is 2.1; it must be at most 2"),
    ("exact", "maybe", "must be true or false"),
    ("exact", 2, "must be true or false"),
    ("title", 3, "must be text"),
    ("mode", "slow", "is 'slow'; it must be one of: fast, good"),
    ("bins", "9", "must be one of: 8, 16"),
    ("limit", "x", "must be a number"),
    ("size_range", "2", "takes 2 values separated by a comma"),
    ("size_range", "1,2,3", "takes 2 values separated by a comma"),
    ("size_range", "7,2", "is 7,2; the smaller end comes first"),
    ("size_range", "2,11", "is 11; it must be at most 10"),
    ("size_range", "a,b", "is 'a'; it must be a whole number"),
]


@pytest.mark.parametrize("key, value, expected", GOOD)
def test_text_and_python_values_become_the_declared_type(key, value, expected):
    made = getattr(options.build(Plugin, {key: value}), key)
    assert made == expected
    assert type(made) is type(expected)


@pytest.mark.parametrize("key, value, message", BAD)
def test_a_bad_value_is_answered_with_what_would_be_right(key, value, message):
    with pytest.raises(OptionError) as caught:
        options.build(Plugin, {key: value})
    assert str(caught.value).startswith(f"option {key!r} of plugin is ")
    assert message in str(caught.value)


def test_without_values_every_option_has_its_default():
    assert options.build(Plugin) == Plugin()
    assert options.values(Plugin()) == options.defaults(Plugin)


def test_an_unknown_option_is_answered_with_the_good_ones():
    with pytest.raises(OptionError) as caught:
        options.build(Plugin, {"gian": 1})
    assert str(caught.value) == (
        "plugin has no option 'gian' (did you mean 'gain'?); it takes: n, gain, exact, title, "
        "mode, bins, limit, size_range, weights"
    )
    with pytest.raises(OptionError, match="plain has no option 'gain': it takes none"):
        options.build(Plain, {"gain": 1})


def test_what_is_learned_is_no_option():
    assert "learned_" not in options.names(Plugin)
    with pytest.raises(OptionError, match="no option 'learned_'"):
        options.build(Plugin, {"learned_": 1})


def test_values_can_be_written_as_json_and_read_back():
    made = options.build(Plugin, {"size_range": "2,7", "limit": "0.1", "bins": "16"})
    values = json.loads(json.dumps(options.values(made)))
    assert values["size_range"] == [2, 7]
    assert options.build(Plugin, values) == made


def test_a_plugin_may_check_its_options_together():
    @dataclass
    class Checked(Plugin):
        def check(self):
            if self.exact and self.n > 3:
                raise OptionError("exact works with n of 3 or fewer")

    assert options.build(Checked, {"exact": "true"}).exact
    with pytest.raises(OptionError, match="3 or fewer"):
        options.build(Checked, {"exact": "true", "n": 4})


def test_a_sound_declaration_has_no_problems():
    assert options.problems(Plugin) == []
    assert options.problems(Plain) == []


def test_a_subclass_without_its_own_decorator_is_found():
    class Forgotten(Plugin):
        extra: int = 1

    assert options.problems(Forgotten) == ["is not a dataclass"]


@pytest.mark.parametrize(
    "kind, default, problem",
    [
        (dict, None, "has a type that cannot be typed"),
        (list[int], None, "has a type that cannot be typed"),
        (int | str, 1, "has a type that cannot be typed"),
        (tuple[tuple[int, int], int], ((1, 2), 3), "has a type that cannot be typed"),
        (int, "3x", "the default of option 'it' is '3x'; it must be a whole number"),
        (float, None, "the default of option 'it' is None; it must be a number"),
        (float, float("inf"), "the default of option 'it' is inf; it must be a number"),
        (float, 1j, "the default of option 'it' is 1j, which JSON cannot hold"),
        (float, option(3.0, high=2), "the default of option 'it' is 3.0; it must be at most 2"),
        (Literal["a"], "b", "must be one of: a"),
    ],
)
def test_a_faulty_declaration_is_named(kind, default, problem):
    faulty = type("Faulty", (), {"__annotations__": {"it": kind}, "it": default})
    (found,) = options.problems(dataclass(faulty))
    assert problem in found


def test_a_constructor_that_makes_something_else_of_an_option_is_a_named_error():
    @dataclass
    class Maker:
        name = "maker"
        size: int = 3

        def __post_init__(self):
            self.size = {self.size}

    with pytest.raises(PluginFailed, match="'maker' made set of its option 'size'"):
        options.values(Maker())
