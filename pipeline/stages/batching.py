"""pipeline.stages.batching."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pipeline.stages.overlap import T
from pipeline.structures.frame import Frame


def batches(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Groups of `size` frames, the last one shorter. A source's error comes after the frames before it."""
    waiting: list[T] = []
    try:
        for item in items:
            waiting.append(item)
            if len(waiting) == size:
                group, waiting = tuple(waiting), []
                yield group
    except Exception:
        if waiting:
            yield tuple(waiting)
        raise
    if waiting:
        yield tuple(waiting)


def split_at_gaps(groups: Iterable[Sequence[Frame]]) -> Iterator[tuple[Frame, ...]]:
    """The same frames in groups in which none but the first follows a gap."""
    for group in groups:
        start = 0
        for place in range(1, len(group)):
            if group[place].gap is not None:
                yield tuple(group[start:place])
                start = place
        yield tuple(group[start:])
