"""What segmenters that run beside a detector do to its detections.

Boxes and groups of pixels are compared on the pixel grid: they meet where a marked pixel lies in the box
grown by a margin, every pixel that the box touches counted as its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pipeline.config.schema import SegmentationConfig
from pipeline.structures.detections import Detections, Segments
from pipeline.structures.rectangle import Rectangle
from pipeline.structures.results import FrameDetections


def fuse(
    found: Iterable[FrameDetections], config: SegmentationConfig, *, names: Sequence[str], conf: float
) -> Iterator[FrameDetections]:
    """Change the detections of each frame as `config.fuse` says, by the segments under `names`.

    Detections that `union` adds have a score of `conf` or more.
    """
    for item in found:
        started = time.perf_counter()
        detections, segments = item.detections, [item.segments[name] for name in names]
        if config.fuse == "confirm":
            detections = confirmed(detections, segments, margin=config.margin)
        elif config.fuse == "union":
            detections = united(detections, segments, margin=config.margin, conf=conf)
        timings = {**item.timings, "fuse": time.perf_counter() - started}
        yield item._replace(detections=detections, timings=timings)


def confirmed(detections: Detections, segments: Sequence[Segments], *, margin: int) -> Detections:
    """The detections that meet a group of at least one segmenter, unchanged and in their order."""
    kept = [any(_meeting(box, found, margin).size for found in segments) for box in detections.boxes]
    return detections[np.array(kept, dtype=bool)]


def united(detections: Detections, segments: Sequence[Segments], *, margin: int, conf: float) -> Detections:
    """The detections, and as more of class 0 the groups that meet none of them; best first.

    Of groups of several segmenters that meet the box of one another, the one of the best score is taken; at
    equal scores that of the earlier segmenter. Where detections have masks, those that are added have, too.
    """
    free = [np.ones(len(found), dtype=bool) for found in segments]
    for box in detections.boxes:
        _strike(free, box, segments, margin)
    ranked = sorted(
        (-float(score), place, row)
        for place, found in enumerate(segments)
        for row, score in enumerate(found.components.scores)
        if score >= conf
    )
    added = []
    for _, place, row in ranked:
        if free[place][row]:
            added.append((place, row))
            _strike(free, segments[place].components.boxes[row], segments, margin)
    return _joined(detections, [(segments[place], row) for place, row in added])


def _strike(free: list[np.ndarray], box: np.ndarray, segments: Sequence[Segments], margin: int) -> None:
    """Mark the groups that meet a box as no longer free, in place."""
    for groups, found in zip(free, segments, strict=True):
        groups[_meeting(box, found, margin)] = False


def _meeting(box: np.ndarray, found: Segments, margin: int) -> np.ndarray:
    """The rows of the groups with a pixel in the box grown by the margin."""
    numbers = np.unique(found.regions[Rectangle.around(box.tolist()).grown(margin).slices()])
    return numbers[numbers > 0] - 1


def _joined(detections: Detections, added: Sequence[tuple[Segments, int]]) -> Detections:
    """Detections and added groups, best first; at equal scores the detections come before."""
    if not added:
        return detections
    rows = [found.components[[row]] for found, row in added]
    parts = {
        name: np.concatenate([getattr(detections, name), *(getattr(row, name) for row in rows)])
        for name in ("boxes", "scores", "labels")
    }
    if detections.masks is not None:
        masks = [(found.regions == row + 1)[None] for found, row in added]
        parts["masks"] = np.concatenate([detections.masks, *masks])
    return Detections(**parts)[np.argsort(-parts["scores"], kind="stable")]
