"""Fusion of a detector's results with the segmenters that run beside it.

Boxes and segments are compared on the pixel grid: a box matches a segment if a segment's pixel lies within
the box, enlarged by a margin, where every pixel that the box touches counts as inside.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from pipeline.config.schema import SegmentationConfig
from pipeline.structures.detections import Detections, Segments
from pipeline.structures.rectangle import Rectangle
from pipeline.structures.results import FrameDetections


def fuse(
    results: Iterable[FrameDetections], config: SegmentationConfig, *, names: Sequence[str], conf: float
) -> Iterator[FrameDetections]:
    """Yields the results with their detections changed by the rule `config.fuse`.

    `names` are the segmenters that count. Detections that the rule "union" adds score at least `conf`.
    """
    for item in results:
        started = time.perf_counter()
        detections, segments = item.detections, [item.segments[name] for name in names]
        if config.fuse == "confirm":
            detections = confirm_detections(detections, segments, margin=config.margin)
        elif config.fuse == "union":
            detections = add_segments(detections, segments, margin=config.margin, conf=conf)
        timings = {**item.timings, "fuse": time.perf_counter() - started}
        yield replace(item, detections=detections, timings=timings)


def confirm_detections(detections: Detections, segments: Sequence[Segments], *, margin: int) -> Detections:
    """Returns the detections that match a segment of at least one segmenter, unchanged and in order."""
    kept = [any(_matching(box, one, margin).size for one in segments) for box in detections.boxes]
    return detections[np.array(kept, dtype=bool)]


def add_segments(
    detections: Detections, segments: Sequence[Segments], *, margin: int, conf: float
) -> Detections:
    """Returns the detections, and the segments that match none of them as detections of class 0.

    The result is sorted by descending score. Of segments of several segmenters that match the box of one
    another, the one with the highest score is added, at equal scores that of the earlier segmenter. If the
    detections have masks, so have the added ones.
    """
    unmatched = [np.ones(len(one), dtype=bool) for one in segments]
    for box in detections.boxes:
        _mark_matched(unmatched, box, segments, margin)
    ranked = sorted(
        (-float(score), number, row)
        for number, one in enumerate(segments)
        for row, score in enumerate(one.components.scores)
        if score >= conf
    )
    added = []
    for _, number, row in ranked:
        if unmatched[number][row]:
            added.append((segments[number], row))
            _mark_matched(unmatched, segments[number].components.boxes[row], segments, margin)
    return _merge(detections, added)


def _mark_matched(
    unmatched: list[np.ndarray], box: np.ndarray, segments: Sequence[Segments], margin: int
) -> None:
    """Clears, in place, the flags of the segments that match a box."""
    for flags, one in zip(unmatched, segments, strict=True):
        flags[_matching(box, one, margin)] = False


def _matching(box: np.ndarray, segments: Segments, margin: int) -> np.ndarray:
    """Returns the rows of the segments with a pixel in the box (4,) enlarged by the margin: (n,) int."""
    numbers = np.unique(segments.regions[Rectangle.around(box.tolist()).grown(margin).slices()])
    return numbers[numbers > 0] - 1


def _merge(detections: Detections, added: Sequence[tuple[Segments, int]]) -> Detections:
    """Merges detections and added segments by descending score; at equal scores, detections come first."""
    if not added:
        return detections
    rows = [segments.components[[row]] for segments, row in added]
    parts = {
        name: np.concatenate([getattr(detections, name), *(getattr(row, name) for row in rows)])
        for name in ("boxes", "scores", "labels")
    }
    if detections.masks is not None:
        masks = [(segments.regions == row + 1)[None] for segments, row in added]
        parts["masks"] = np.concatenate([detections.masks, *masks])
    return Detections(**parts)[np.argsort(-parts["scores"], kind="stable")]
