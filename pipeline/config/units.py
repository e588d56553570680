"""Durations, sizes, places in a source and in its frames: 90s, 1h, 500MB, 1:30, 0,0,640,256."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple, TypeVar

N = TypeVar("N")

SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def duration(text: str) -> float:
    """Parses a duration such as 90s, 30min, 1.5h to seconds; 0 if empty. Raises ValueError for others."""
    return _amount(text, SECONDS, "a duration such as 90s, 30min, 1h or 1d")


def byte_count(text: str) -> int:
    """Parses a size such as 500MB or 20GB to bytes; 0 if empty. Raises ValueError for other texts."""
    return math.ceil(_amount(text, BYTES, "a size such as 800kB, 500MB or 20GB"))


def _amount(text: str, units: Mapping[str, int], expected: str) -> float:
    if not text:
        return 0
    known = {unit.casefold(): value for unit, value in units.items()}
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?) ?([a-z]+)", text.casefold(), re.ASCII)
    amount = float(found[1]) * known.get(found[2], 0) if found else 0
    if not amount:
        raise ValueError(f"'{text}', expected {expected}, more than 0")
    return amount


def frame_or_time(value: int | str) -> int | Fraction:
    """Returns the index of a frame as int, or a time as Fraction in seconds.

    A time is a number with a unit, such as 12.5s or 2min, or of the form M:SS or H:MM:SS, with or without
    decimals. Raises ValueError for other texts.
    """
    if isinstance(value, int):
        return value
    text = value.strip()
    if re.fullmatch(r"\d{1,15}", text, re.ASCII):
        return int(text)
    number = r"\d{1,12}(?:\.\d{1,9})?"
    if found := re.fullmatch(rf"({number}) ?(s|min|h|d)", text.casefold(), re.ASCII):
        return Fraction(found[1]) * SECONDS[found[2]]
    if found := re.fullmatch(r"(?:(\d{1,6}):(?=\d\d:))?(\d{1,6}):(\d\d(?:\.\d{1,9})?)", text, re.ASCII):
        hours, minutes, seconds = int(found[1] or 0), int(found[2]), Fraction(found[3])
        if seconds < 60 and (minutes < 60 or found[1] is None):
            return 3600 * hours + 60 * minutes + seconds
    raise ValueError(f"'{value}', expected a frame number such as 100, or a time such as 12.5s or 1:30")


class RegionText(NamedTuple):
    """A region of a frame as it is written in a configuration."""

    corners: tuple[tuple[float, float], ...]
    """Corners x, y in their order around the region."""
    shares: bool
    """Whether they are shares of width and height of the frame, and not pixels."""
    polygon: bool
    """Whether the region is a polygon, and not a rectangle."""


def region(text: str) -> RegionText:
    """Parses a rectangle X,Y,W,H, or a polygon of three or more corners X,Y separated by blanks.

    Numbers are shares of the frame if none is more than 1 and one has a decimal point, else pixels. Raises
    ValueError for other texts.
    """
    expected = ValueError(f"'{text}', expected X,Y,W,H, or three or more corners such as 0,0 640,0 320,512")
    number = r"\d{1,6}(?:\.\d{1,9})?"
    groups = text.split()
    size = 4 if len(groups) == 1 else 2
    if not all(re.fullmatch(rf"{number}(?:,{number}){{{size - 1}}}", group, re.ASCII) for group in groups):
        raise expected
    rows = [tuple(map(float, group.split(","))) for group in groups]
    shares = "." in text and max(map(max, rows)) <= 1
    if len(rows) == 1:
        x, y, width, height = rows[0]
        if not width or not height:
            raise expected
        return RegionText(((x, y), (x + width, y), (x + width, y + height), (x, y + height)), shares, False)
    if len(rows) < 3:
        raise expected
    return RegionText(tuple((row[0], row[1]) for row in rows), shares, True)


def parse_named(name: str, text: str, parse: Callable[[str], N]) -> N:
    """Parses the value of the key `name`; the ValueError of `parse` is raised with the name in front."""
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{name} = {error}") from error
