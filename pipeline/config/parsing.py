"""Builds dataclasses from TOML files and `a.b=1` settings; unknown keys fail with the closest match."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import json
import re
import tomllib
import typing
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, TypeVar

from pipeline.system.bounded_reads import MAX_SETTINGS_BYTES, read_bounded
from pipeline.system.errors import UsageError, as_json
from pipeline.system.redaction import HIDDEN

T = TypeVar("T")

CLOSE, LOOSE = 0.7, 0.5
"""Minimum similarity, 0 to 1, of a suggested key; the loose one suffices within the section of the key."""

UNIONS = (typing.Union, UnionType)


class Words(NamedTuple):
    """How values of a type are named in messages."""

    one: str
    several: str
    example: Any


WORDS = {
    int: Words("a whole number", "whole numbers", 64),
    float: Words("a number", "numbers", 0.5),
    bool: Words("true or false", "truth values", True),
    str: Words("text", "texts", "a"),
    dict: Words("a table, such as {key = 1}", "tables", {"key": 1}),
}
COUNTS = {1: "one", 2: "two", 3: "three", 4: "four"}


def load_toml(path: Path) -> dict[str, Any]:
    """Returns the tables of a TOML file. Raises UsageError if it cannot be read or is not TOML."""
    try:
        return tomllib.loads(read_bounded(path, limit=MAX_SETTINGS_BYTES).decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"cannot read configuration {path}: {reason}") from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # also for numbers with thousands of digits and deep nesting
        raise UsageError(f"configuration {path} is not valid TOML: {error}") from error


def parse_setting(text: str) -> tuple[list[str], Any]:
    """Parses 'a.b=1' to (['a', 'b'], 1). The value is TOML, or a bare string if it is not valid TOML.

    Raises UsageError if the text is not of this form.
    """
    key, separator, value = text.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not separator or not all(path):
        raise UsageError(f"setting '{text}' is not of the form section.key=value")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
        is_time = isinstance(parsed, datetime.time)  # no key takes those of TOML, but some 1:30:00 as text
        return path, value.strip() if is_time else parsed
    except (ValueError, RecursionError):
        return path, value.strip()


def override(table: dict[str, Any], settings: Iterable[tuple[list[str], Any]]) -> dict[str, Any]:
    """Returns a copy of a nested table with the (path, value) settings applied; later ones take precedence.

    Raises UsageError if a path leads through a value that is no section.
    """
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
    """Returns a setting with its section added, if its bare key is in only one section of dataclass `kind`.

    Other settings are returned unchanged; `build` reports those that are wrong.
    """
    path, value = setting
    if len(path) == 1 and path[0] not in typing.get_type_hints(kind):
        homes = [known for known in _keys(kind, "") if known.endswith(f".{path[0]}")]
        if len(homes) == 1:
            return homes[0].split("."), value
    return setting


def dump_toml(table: Mapping[str, Any]) -> str:
    """Returns nested tables as TOML that `load_toml` reads back; keys whose value is None are left out."""
    import tomli_w  # not needed to read a configuration

    return tomli_w.dumps(_without_none(table))


def _without_none(value: Any) -> Any:
    """Returns a copy of nested tables and lists without None, which TOML cannot express."""
    if isinstance(value, Mapping):
        return {str(key): _without_none(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(inner) for inner in value if inner is not None]
    return value


def build(
    kind: type[T],
    table: Mapping[str, Any],
    where: str = "",
    *,
    typed: Mapping[str, str] | None = None,
    secret: bool = False,
) -> T:
    """Returns an instance of dataclass `kind` from nested tables; missing keys keep their defaults.

    Raises UsageError for unknown keys, values of a wrong type, and values that `kind` itself refuses with a
    ValueError. Its messages show no value of a field whose metadata has `secret`, or of one within it.

    Args:
        kind: the dataclass.
        table: its values.
        where: prefix of the keys in messages.
        typed: what the user typed before the value of a key, such as "--conf ", by dotted path; messages name
            it instead of the key.
        secret: whether any value may be one, so that messages show none.
    """
    return _build(kind, table, where, _keys(kind, where), typed or {}, secret)


def _build(
    kind: type[T],
    table: Mapping[str, Any],
    where: str,
    known: list[str],
    typed: Mapping[str, str],
    secret: bool,
) -> T:
    """Builds one section; `known` are the dotted paths of all keys of the configuration."""
    hints = typing.get_type_hints(kind)
    secrets = {row.name for row in dataclasses.fields(kind) if secret or row.metadata.get("secret")}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{where}{key}"
        hidden = key in secrets
        shown = HIDDEN if hidden else as_json(value)
        given = typed.get(name, f"configuration key '{name}' = ") + shown
        if key not in hints:
            raise _unknown_key(key, where, list(hints), known)
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise UsageError(f"configuration key '{name}' is a section, got {shown}")
            values[key] = _build(hints[key], value, f"{name}.", known, typed, hidden)
            continue
        if row := _row_type(hints[key]):
            if not isinstance(value, (list, tuple)) or not all(isinstance(item, Mapping) for item in value):
                raise UsageError(f"{given}, expected a list of tables")
            values[key] = tuple(build(row, item, f"{name}.", secret=hidden) for item in value)
            continue
        try:
            values[key] = _convert(hints[key], value)
        except TypeError as error:
            expected = _in_words(hints[key], default=getattr(kind, key, None))
            raise UsageError(f"{given}, expected {expected}") from error
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise UsageError(_in_typed_words(str(error), where, typed)) from error


def _in_typed_words(message: str, where: str, typed: Mapping[str, str]) -> str:
    """Returns the message of a section about its keys with what the user typed instead of "key = "."""
    words = message
    for name, prefix in typed.items():
        section, _, key = name.rpartition(".")
        if section == where.rstrip("."):
            words = re.sub(rf"(?<![\w.]){re.escape(key)} = ", prefix, words)
    if words != message or message.startswith("--"):
        return words
    return f"configuration section '{where[:-1]}': {message}" if where else f"configuration: {message}"


def _row_type(hint: Any) -> type | None:
    """Returns the dataclass of the rows of a list of tables; None for other types."""
    kind = (typing.get_args(hint) or (None,))[0]
    is_row = typing.get_origin(hint) is tuple and isinstance(kind, type) and dataclasses.is_dataclass(kind)
    return kind if is_row else None


def _unknown_key(key: str, where: str, section: list[str], known: list[str]) -> UsageError:
    """Returns the error for a key that is not in the `section` at `where`, with the closest match.

    Suggested are the same key in an inner section, then in other sections, then keys of similar spelling.
    """
    name, section = f"{where}{key}", [f"{where}{other}" for other in section]
    same = _similar(key, known, minimum=1.0)
    inside = [path for path in same if path.startswith(where)]
    close = _similar(key, section, minimum=CLOSE) or _similar(key, known, minimum=CLOSE)
    if suggested := inside or same or close or _similar(key, section, minimum=LOOSE):
        hint = "; did you mean " + " or ".join(f"'{path}'" for path in suggested) + "?"
    else:
        hint = f" (known: {', '.join(sorted(section))})"
    return UsageError(f"unknown configuration key '{name}'{hint}")


def _similar(key: str, paths: list[str], *, minimum: float) -> list[str]:
    """Returns the dotted paths whose last part is most similar to the key, at least `minimum`."""
    leaves = [path.rpartition(".")[2] for path in paths]
    close = difflib.get_close_matches(key, leaves, n=1, cutoff=minimum)
    return [path for path, leaf in zip(paths, leaves, strict=True) if leaf in close]


def _keys(kind: type, where: str) -> list[str]:
    """Returns the dotted paths of all keys of a dataclass, including those of its sections."""
    paths = []
    for key, hint in typing.get_type_hints(kind).items():
        inner = dataclasses.is_dataclass(hint)
        paths += _keys(hint, f"{where}{key}.") if inner else [f"{where}{key}"]
    return paths


def _convert(hint: Any, value: Any) -> Any:
    """Converts a value to the annotated type. Raises TypeError if it is not of that type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in UNIONS:
        if value is None or (value == "none" and NoneType in arguments):
            return None
        for kind in _but_none(arguments):
            with suppress(TypeError):
                return _convert(kind, value)
    elif origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
    elif origin is tuple and isinstance(value, (list, tuple)):
        kinds = [arguments[0]] * len(value) if arguments[1:] == (...,) else arguments
        if len(kinds) == len(value):
            return tuple(map(_convert, kinds, value))
    elif hint is float and type(value) in (int, float):
        return float(value)
    elif (origin or hint) is dict and isinstance(value, Mapping):
        return dict(value)
    elif hint in (int, bool, str) and type(value) is hint:
        return value
    raise TypeError


def _but_none(arguments: tuple[Any, ...]) -> list[Any]:
    """Returns the types of an annotation other than None."""
    return [argument for argument in arguments if argument is not NoneType]


def _in_words(hint: Any, default: Any = None) -> str:
    """Describes values of the annotated type, lists with an example, which is the default if there is one."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in UNIONS:
        words = [_in_words(kind, default) for kind in _but_none(arguments)]
        return " or ".join(["none"] * (NoneType in arguments) + words)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is not tuple:
        return WORDS[origin or hint].one
    element = arguments[0]
    if typing.get_origin(element) in UNIONS:
        kinds = [WORDS[one] for one in _but_none(typing.get_args(element))]
        kind = Words(kinds[0].one, " or ".join(one.several for one in kinds), kinds[0].example)
    else:
        kind = WORDS[element]
    count = None if arguments[1:] == (...,) else len(arguments)
    example = default or [kind.example] * (count or 2)
    number = COUNTS.get(count, count) if count else "a list of"
    return f"{number} {kind.several}, such as {json.dumps(example)}"
