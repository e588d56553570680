"""Stage that keeps the detections of some classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from pipeline.structures.results import FrameDetections
from pipeline.system.errors import UsageError


def class_labels(asked: Sequence[int | str], known: Sequence[str]) -> tuple[int, ...]:
    """Returns the labels of classes, ascending.

    Args:
        asked: names of classes, or their numbers from 0, also as text.
        known: the names of the detector's classes, in the order of their labels.

    Raises UsageError for a class that the detector does not have.
    """
    labels: set[int] = set()
    for entry in asked:
        text = str(entry).strip()
        found = [label for label, name in enumerate(known) if name == text]
        if not found and text.isdecimal() and int(text) < len(known):
            found = [int(text)]
        if not found:
            choices = ", ".join(f"{label} {name}" for label, name in enumerate(known))
            raise UsageError(f"--classes {text}: the detector has no such class (known: {choices})")
        labels.update(found)
    return tuple(sorted(labels))


def keep_classes(results: Iterable[FrameDetections], labels: Sequence[int]) -> Iterator[FrameDetections]:
    """Yields the results with the detections of these labels alone; segments are unchanged."""
    for item in results:
        kept = np.isin(item.detections.labels, labels)
        yield item if kept.all() else replace(item, detections=item.detections[kept])
