"""Batching of frames for the detector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from pipeline.structures.frame import Frame

T = TypeVar("T")


def batches(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Yields batches of `size` items, the last one possibly smaller.

    If `items` raises an exception, the items before it are yielded first.
    """
    pending: list[T] = []
    try:
        for item in items:
            pending.append(item)
            if len(pending) == size:
                batch, pending = tuple(pending), []
                yield batch
    except Exception:
        if pending:
            yield tuple(pending)
        raise
    if pending:
        yield tuple(pending)


def split_at_gaps(groups: Iterable[Sequence[Frame]]) -> Iterator[tuple[Frame, ...]]:
    """Splits groups of frames so that a gap can only precede the first frame of a group."""
    for group in groups:
        start = 0
        for position in range(1, len(group)):
            if group[position].gap is not None:
                yield tuple(group[start:position])
                start = position
        yield tuple(group[start:])
