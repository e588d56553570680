"""pipeline.stages.overlap."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import Literal, TypeVar

from pipeline.system.prefetch import prefetch

T, U, V = TypeVar("T"), TypeVar("U"), TypeVar("V")

Schedule = Literal["sequential", "threaded", "delayed"]
"""One after the other; each in a thread of its own; one after the other, given when the next are there."""


def run_two_phase(
    items: Iterable[T], begin: Callable[[T], U], finish: Callable[[U], V], schedule: Schedule
) -> Generator[V]:
    """finish(begin(item)) of each, arranged as `StreamingDetector.halves` says."""
    if schedule == "threaded":
        with closing(prefetch(map(begin, items), size=1, name="features", patience=None)) as begun:
            yield from map(finish, begun)
        return
    results = (finish(begin(item)) for item in items)
    yield from delay_by_one(results) if schedule == "delayed" else results


def delay_by_one(items: Iterable[T]) -> Iterator[T]:
    """The same items, each given when the one after it is there; an error comes after the items before it."""
    waiting: list[T] = []
    try:
        for item in items:
            waiting.append(item)
            if len(waiting) == 2:
                yield waiting.pop(0)
    except Exception:
        yield from waiting
        raise
    yield from waiting
