"""Configurations are parsed to typed values, or refused with the key and the remedy in one line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from pipeline.config.parsing import build, dump_toml, full_setting, load_toml, override, parse_setting
from pipeline.config.schema import RunConfig
from pipeline.system.errors import UsageError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    window: tuple[int, int] = (4, 4)
    names: tuple[str, ...] = ()
    extra: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Outer:
    steps: int = 10
    name: str = "a"
    fast: bool = False
    fit: Literal["stretch", "letterbox"] = "stretch"
    seed: int | None = None
    tries: int | str = 10
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self):
        if self.steps < 0:
            raise ValueError(f"{self.steps = }, expected 0 or more")


def message(call, *arguments) -> str:
    """Returns the message of a refusal: one line, exit code 2."""
    with pytest.raises(UsageError) as error:
        call(*arguments)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    return str(error.value)


# Tables


def test_what_is_left_out_keeps_its_default():
    assert build(Outer, {"inner": {"rate": 2}}) == Outer(inner=Inner(rate=2.0))


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"steps": 3}, Outer(steps=3)),
        ({"fast": True}, Outer(fast=True)),
        ({"fit": "letterbox"}, Outer(fit="letterbox")),
        ({"seed": 7}, Outer(seed=7)),
        ({"seed": "none"}, Outer(seed=None)),
        ({"seed": None}, Outer(seed=None)),
        ({"tries": 3}, Outer(tries=3)),
        ({"tries": "forever"}, Outer(tries="forever")),
        ({"inner": {"rate": 1}}, Outer(inner=Inner(rate=1.0))),
        ({"inner": {"window": [8, 2]}}, Outer(inner=Inner(window=(8, 2)))),
        ({"inner": {"names": ["x", "y", "z"]}}, Outer(inner=Inner(names=("x", "y", "z")))),
        ({"inner": {"extra": {"width": 0.5}}}, Outer(inner=Inner(extra={"width": 0.5}))),
    ],
    ids=[
        "int",
        "bool",
        "literal",
        "optional",
        "none",
        "null",
        "first kind",
        "second",
        "int as float",
        "pair",
        "names",
        "free table",
    ],
)
def test_values_become_what_the_field_asks_for(table, expected):
    assert build(Outer, table) == expected


def test_whole_numbers_for_a_float_become_floats():
    assert type(build(Inner, {"rate": 1}).rate) is float


@pytest.mark.parametrize(
    ("table", "key", "wrong"),
    [
        ({"steps": 1.5}, "steps", "1.5"),
        ({"steps": True}, "steps", "true"),
        ({"steps": "3"}, "steps", '"3"'),
        ({"name": 3}, "name", "3"),
        ({"fast": 1}, "fast", "1"),
        ({"seed": "x"}, "seed", '"x"'),
        ({"fit": "crop"}, "fit", "stretch, letterbox"),
        ({"inner": 3}, "inner", "section"),
        ({"inner": {"rate": "x"}}, "inner.rate", '"x"'),
        ({"inner": {"rate": True}}, "inner.rate", "true"),
        ({"inner": {"window": [1, 2, 3]}}, "inner.window", "[1, 2, 3]"),
        ({"inner": {"window": [1, "2"]}}, "inner.window", '"2"'),
        ({"inner": {"window": 4}}, "inner.window", "4"),
        ({"inner": {"names": "x"}}, "inner.names", '"x"'),
        ({"inner": {"extra": 3}}, "inner.extra", "3"),
        ({"steps": [1]}, "steps", "[1]"),
    ],
    ids=[
        *(
            "float for int",
            "bool for int",
            "text for int",
            "int for text",
            "int for bool",
            "text for optional",
        ),
        *("no choice", "value for section", "text for float", "bool for float", "triple for pair"),
        *("text in pair", "int for pair", "text for names", "int for table", "list for int"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(table, key, wrong):
    said = message(build, Outer, table)
    assert f"'{key}'" in said
    assert wrong in said


@dataclass(frozen=True)
class Kinds:
    whole: int = 1
    share: float = 0.5
    on: bool = True
    text: str = ""
    table: dict = field(default_factory=dict)
    limits: tuple[float, float] = (0.8, 1.25)
    size: tuple[int, int] | None = None
    corners: tuple[float, float, float, float] = (0, 0, 1, 1)
    strides: tuple[int, ...] = (1, 2)
    names: tuple[str, ...] = ()
    fit: Literal["stretch", "letterbox"] = "stretch"
    seed: int | None = None
    rule: Literal["cosine", "level"] | None = None
    tries: int | str = 10


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("whole", "a whole number"),
        ("share", "a number"),
        ("on", "true or false"),
        ("text", "text"),
        ("table", "a table, such as {key = 1}"),
        ("limits", "two numbers, such as [0.8, 1.25]"),
        ("size", "none or two whole numbers, such as [64, 64]"),
        ("corners", "four numbers, such as [0, 0, 1, 1]"),
        ("strides", "a list of whole numbers, such as [1, 2]"),
        ("names", 'a list of texts, such as ["a", "a"]'),
        ("fit", "one of stretch, letterbox"),
        ("seed", "none or a whole number"),
        ("rule", "none or one of cosine, level"),
        ("tries", "a whole number or text"),
    ],
)
def test_what_is_expected_is_told_in_plain_words(key, expected):
    """The value is a set, which has none of the types."""
    said = message(build, Kinds, {key: {1}})
    assert said == f"configuration key '{key}' = \"{{1}}\", expected {expected}"


def test_a_list_is_refused_whole_with_what_it_should_be():
    said = message(build, Kinds, {"limits": [0.8, "1.2"]})
    assert said == "configuration key 'limits' = [0.8, \"1.2\"], expected two numbers, such as [0.8, 1.25]"


@pytest.mark.parametrize(
    ("table", "key", "meant"),
    [({"step": 3}, "step", "steps"), ({"inner": {"rat": 3}}, "inner.rat", "inner.rate")],
    ids=["top", "section"],
)
def test_an_unknown_key_is_refused_with_the_close_match(table, key, meant):
    said = message(build, Outer, table)
    assert f"unknown configuration key '{key}'" in said
    assert f"did you mean '{meant}'?" in said


def test_a_key_like_no_other_is_refused_with_all_known_ones():
    said = message(build, Outer, {"zzz": 3})
    assert "did you mean" not in said
    assert "fast, fit, inner, name, seed, steps" in said


@dataclass(frozen=True)
class Twins:
    left: Inner = field(default_factory=Inner)
    right: Outer = field(default_factory=Outer)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"steps": 3}, "unknown configuration key 'steps'; did you mean 'right.steps'?"),
        ({"rate": 3}, "unknown configuration key 'rate'; did you mean 'left.rate' or 'right.inner.rate'?"),
        ({"right": {"rate": 3}}, "unknown configuration key 'right.rate'; did you mean 'right.inner.rate'?"),
        ({"left": {"steps": 3}}, "unknown configuration key 'left.steps'; did you mean 'right.steps'?"),
        ({"step": 3}, "unknown configuration key 'step'; did you mean 'right.steps'?"),
        ({"left": {"sede": 3}}, "unknown configuration key 'left.sede'; did you mean 'right.seed'?"),
        ({"rat": 3}, "unknown configuration key 'rat'; did you mean 'left.rate' or 'right.inner.rate'?"),
        ({"lef": {"rate": 3}}, "unknown configuration key 'lef'; did you mean 'left'?"),
        (
            {"left": {"zzz": 3}},
            "unknown configuration key 'left.zzz' (known: left.extra, left.names, left.rate, left.window)",
        ),
    ],
    ids=[
        *("one section", "two sections", "inner section", "other section", "misspelt", "misspelt elsewhere"),
        *("misspelt in two", "misspelt section", "like no other"),
    ],
)
def test_a_key_without_its_section_is_refused_with_the_section(table, told):
    assert message(build, Twins, table) == told


def test_what_the_dataclass_itself_refuses_is_a_usage_error():
    assert "self.steps = -1, expected 0 or more" in message(build, Outer, {"steps": -1})


# Settings on the command line


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("a=1", ["a"], 1),
        ("a.b=1.5", ["a", "b"], 1.5),
        ("a.b.c=true", ["a", "b", "c"], True),
        ("a=x", ["a"], "x"),
        ('a="x y"', ["a"], "x y"),
        ("a='1'", ["a"], "1"),
        ("a=[1, 2]", ["a"], [1, 2]),
        ('a=["x", "y"]', ["a"], ["x", "y"]),
        ("a={b = 1}", ["a"], {"b": 1}),
        ("a=", ["a"], ""),
        ("a=rtsp://host/x?y=1", ["a"], "rtsp://host/x?y=1"),
        (" a . b = 3 ", ["a", "b"], 3),
        ("a=1e-4", ["a"], 1e-4),
        ("a=../data/x", ["a"], "../data/x"),
        ("a=12.5s", ["a"], "12.5s"),
        ("a=1:30", ["a"], "1:30"),
        ("a=01:02:03.5", ["a"], "01:02:03.5"),  # TOML has times, which no key takes
    ],
    ids=str,
)
def test_a_setting_is_a_path_and_a_value(text, path, value):
    found = parse_setting(text)
    assert found == (path, value)
    assert type(found[1]) is type(value)


@pytest.mark.parametrize("text", ["a", "=1", "a.=1", ".a=1", "a..b=1", ""])
def test_what_is_no_setting_is_refused(text):
    assert f"'{text}'" in message(parse_setting, text)


def test_settings_are_put_in_their_place_and_later_ones_win():
    table = {"inner": {"rate": 1.0, "names": ["x"]}, "steps": 3}
    settings = map(parse_setting, ["inner.rate=2", "name=b", "inner.rate=3"])
    found = override(table, settings)
    assert found == {"inner": {"rate": 3, "names": ["x"]}, "steps": 3, "name": "b"}


def test_settings_leave_the_table_they_override_alone():
    table = {"inner": {"rate": 1.0}}
    override(table, [(["inner", "rate"], 2)])
    assert table == {"inner": {"rate": 1.0}}


def test_settings_make_sections_that_are_not_there():
    assert build(Outer, override({}, [parse_setting("inner.window=[1, 2]")])).inner.window == (1, 2)


def test_a_setting_below_a_value_is_refused():
    assert "'steps' is a value, not a section" in message(override, {"steps": 3}, [(["steps", "x"], 1)])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("steps=3", (["right", "steps"], 3)),
        ("right.steps=3", (["right", "steps"], 3)),
        ("left={rate = 1}", (["left"], {"rate": 1})),
        ("rate=3", (["rate"], 3)),
        ("nothing=3", (["nothing"], 3)),
        ("right.rate=3", (["right", "rate"], 3)),
    ],
    ids=["in one section", "whole", "a section", "in two sections", "in none", "in an inner section"],
)
def test_a_setting_without_section_is_of_the_only_one_that_has_it(text, found):
    assert full_setting(Twins, parse_setting(text)) == found


def test_a_key_at_the_top_is_preferred_to_one_in_a_section():
    @dataclass(frozen=True)
    class Both:
        rate: float = 1.0
        inner: Inner = field(default_factory=Inner)

    assert full_setting(Both, (["rate"], 2)) == (["rate"], 2)


# Writing


def test_tables_are_written_as_they_are_read(tmp_path):
    table = {
        "name": 'a "quoted" \\ ü\n',
        "rates": [1e-05, 6.25e-4, -0.5, 3],
        "on": True,
        "limit": float("inf"),
        "inner": {"extra": {"a b": [1, [2]], "c": {"d": "e"}}, "empty": {}, "none": []},
    }
    (tmp_path / "x.toml").write_text(dump_toml(table), encoding="utf-8")
    assert load_toml(tmp_path / "x.toml") == table


def test_what_is_none_is_not_written():
    assert dump_toml({"a": None, "b": {"c": None, "d": 1}}) == "[b]\nd = 1\n"


# Files


def test_a_file_becomes_its_tables(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('steps = 3\n[inner]\nnames = ["ü"]\n', encoding="utf-8")
    assert load_toml(path) == {"steps": 3, "inner": {"names": ["ü"]}}


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"steps = = 3", "not valid TOML"), (b"a = 1\na = 2", "not valid TOML"), (b"\xff\xfe\x00", "not UTF-8")],
    ids=["syntax", "key twice", "binary"],
)
def test_what_is_no_toml_is_refused_with_the_file_and_the_reason(content, reason, tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    said = message(load_toml, path)
    assert str(path) in said
    assert reason in said


@pytest.mark.parametrize(
    ("name", "reason"), [("none.toml", "No such file"), (".", "Is a directory")], ids=["missing", "folder"]
)
def test_an_unreadable_file_is_refused_with_the_reason(name, reason, tmp_path):
    assert reason in message(load_toml, tmp_path / name)


def test_a_list_of_names_or_numbers_is_described():
    said = message(build, RunConfig, {"detector": {"classes": 3}})
    assert said.endswith("classes' = 3, expected a list of whole numbers or texts, such as [64, 64]")
