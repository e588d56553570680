"""Rotation of output files: when they are closed and new ones begun, and how much disk space they use."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.config.units import byte_count, duration, parse_named

FILES_PER_BUDGET = 10
"""Number of sets of rotated files in a disk budget if their size is not given."""


class Rotation(NamedTuple):
    """When files rotate; 0 disables a criterion."""

    seconds: float
    """Time after which files rotate."""
    size: int
    """Total bytes of the open files at which they rotate."""
    budget: int
    """Maximum bytes of all rotated files, kept by deleting the oldest."""


def rotation(*, rotate_every: str, rotate_size: str, disk_budget: str) -> Rotation | None:
    """Parses the keys of the configuration; None if all are empty. Raises ValueError for invalid values."""
    seconds = parse_named("rotate_every", rotate_every, duration)
    size = parse_named("rotate_size", rotate_size, byte_count)
    budget = parse_named("disk_budget", disk_budget, byte_count)
    if budget and 2 * size > budget:
        large = f"rotate_size = '{rotate_size}' is more than half of disk_budget = '{disk_budget}'"
        raise ValueError(f"{large}; choose a smaller --rotate-size")
    if not (seconds or size or budget):
        return None
    return Rotation(seconds, size or -(-budget // FILES_PER_BUDGET), budget)
