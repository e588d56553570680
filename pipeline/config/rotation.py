"""When the files of a run that goes on for long are closed and the next begun, and what they may take."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pipeline.config.units import byte_count, duration

MIN_SEGMENTS = 10
"""That a disk budget holds, where the size of a piece is not given."""


class Rotation(NamedTuple):
    """How files are parted into pieces; 0 where something does not count."""

    seconds: float
    """After which the next piece begins."""
    size: int
    """Bytes of the files of a piece at which the next one begins."""
    budget: int
    """Bytes of all pieces, for which the oldest are deleted."""


def rotation(*, rotate_every: str, rotate_size: str, disk_budget: str) -> Rotation | None:
    """What the texts say; None where all are empty. Raises ValueError for what they cannot mean."""
    seconds = _read("rotate_every", rotate_every, duration)
    size = _read("rotate_size", rotate_size, byte_count)
    budget = _read("disk_budget", disk_budget, byte_count)
    if budget and 2 * size > budget:
        large = f"rotate_size = '{rotate_size}' is more than half of disk_budget = '{disk_budget}'"
        raise ValueError(f"{large}; choose smaller pieces")
    if not (seconds or size or budget):
        return None
    return Rotation(seconds, size or -(-budget // MIN_SEGMENTS), budget)


def _read(name: str, text: str, read: Callable[[str], float]) -> float:
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"{name} = {error}") from error
