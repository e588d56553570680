"""Dataclasses filled from TOML files and `a.b=1` settings; an unknown key fails, the close match named."""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar

from pipeline.errors import UsageError, unknown_name

T = TypeVar("T")


def load_toml(path: Path) -> dict[str, Any]:
    """The file's tables. Raises UsageError when it cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"cannot read configuration {path}: {reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"configuration {path} is not valid TOML: {error}") from error


def parse_setting(text: str) -> tuple[list[str], Any]:
    """'a.b=1' → (['a', 'b'], 1). The value is TOML; what is not valid TOML is taken as a bare string."""
    key, separator, value = text.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not separator or not all(path):
        raise UsageError(f"setting '{text}' is not of the form section.key=value")
    try:
        return path, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return path, value.strip()


def override(table: dict[str, Any], settings: Iterable[tuple[list[str], Any]]) -> dict[str, Any]:
    """A copy of nested `table` with each (path, value) of `settings` put in its place, later ones winning."""
    result = json.loads(json.dumps(table, default=str))
    for path, value in settings:
        place = result
        for part in path[:-1]:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise UsageError(f"setting '{'.'.join(path)}': '{part}' is a value, not a section")
        place[path[-1]] = value
    return result


def full_setting(kind: type, setting: tuple[list[str], Any]) -> tuple[list[str], Any]:
    """The setting with its section put before a bare key that only one section of dataclass `kind` has.

    Any other is given back as it is: `build` tells what is wrong with it.
    """
    path, value = setting
    if len(path) == 1 and path[0] not in typing.get_type_hints(kind):
        homes = [known for known in _keys(kind, "") if known.endswith(f".{path[0]}")]
        if len(homes) == 1:
            return homes[0].split("."), value
    return setting


def dump_toml(table: Mapping[str, Any]) -> str:
    """Nested tables as TOML that `load_toml` reads back: a section for each table; None is left out."""
    values = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    sections = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    blocks = [_assignments(values), *(f"[{key}]\n{_assignments(inner)}" for key, inner in sections.items())]
    return "\n".join(block for block in blocks if block)


def _assignments(table: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {_toml(value)}\n" for key, value in table.items() if value is not None)


def _toml(value: Any) -> str:
    """A value as TOML; tables are written inline, their keys in quotes."""
    if isinstance(value, Mapping):
        rows = (f"{json.dumps(str(key))} = {_toml(inner)}" for key, inner in value.items())
        return "{" + ", ".join(rows) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # json's text, numbers and truth values are TOML's; its infinity is not
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def build(kind: type[T], table: Mapping[str, Any], where: str = "") -> T:
    """An instance of dataclass `kind` from nested tables; what the table leaves out keeps its default.

    Raises UsageError for unknown keys, values of the wrong type, and values that `kind` itself refuses.
    """
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in table.items():
        name = f"{where}{key}"
        if key not in hints:
            homes = [path for path in _keys(kind, where) if path.endswith(f".{key}")]
            if homes:  # the key of a section, given without it
                choices = " or ".join(f"'{path}'" for path in homes)
                raise UsageError(f"unknown configuration key '{name}'; did you mean {choices}?")
            raise unknown_name("configuration key", name, [f"{where}{known}" for known in hints])
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise UsageError(f"configuration key '{name}' is a section, got {value!r}")
            values[key] = build(hints[key], value, f"{name}.")
        else:
            values[key] = _convert(hints[key], value, name)
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"configuration{f' section {where[:-1]!r}' if where else ''}: {error}") from error


def _keys(kind: type, where: str) -> list[str]:
    """The dotted paths of all keys below a dataclass, sections opened."""
    paths = []
    for key, hint in typing.get_type_hints(kind).items():
        inner = dataclasses.is_dataclass(hint)
        paths += _keys(hint, f"{where}{key}.") if inner else [f"{where}{key}"]
    return paths


def _convert(hint: Any, value: Any, name: str) -> Any:
    """`value` as the annotated type, or UsageError naming what was expected."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, UnionType):
        if value is None:
            return None
        inner = next(a for a in arguments if a is not NoneType)
        return None if value == "none" and NoneType in arguments else _convert(inner, value, name)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        choices = ", ".join(map(str, arguments))
        raise UsageError(f"configuration key '{name}' = {value!r}, expected one of {choices}")
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = [arguments[0]] * len(value) if arguments[1:] == (...,) else arguments
        if len(kinds) == len(value):
            return tuple(_convert(k, v, name) for k, v in zip(kinds, value, strict=True))
    elif hint is float and type(value) in (int, float):
        return float(value)
    elif (origin or hint) is dict and isinstance(value, Mapping):
        return dict(value)
    elif hint in (int, bool, str) and type(value) is hint:
        return value
    expected = getattr(hint, "__name__", str(hint)) if origin is None else str(hint)
    raise UsageError(f"configuration key '{name}' = {value!r}, expected {expected}")
