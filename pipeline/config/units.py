"""Durations and sizes with units: 90s, 1h, 500MB."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

N = TypeVar("N", int, float)

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


def parse_named(name: str, text: str, parse: Callable[[str], N]) -> N:
    """Parses the value of the key `name`; the ValueError of `parse` is raised with the name in front."""
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{name} = {error}") from error
