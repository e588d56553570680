"""pipeline.stages.segmentation."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from detectors.inference.segmentation import FrameSegmenter
from pipeline.stages.batching import batches
from pipeline.structures.results import STAGE, FrameDetections


def segment(
    found: Iterable[FrameDetections], segmenter: FrameSegmenter, *, batch: int = 1
) -> Iterator[FrameDetections]:
    """Add what a segmenter marks in each frame; detections pass as they are. `batch` frames at once."""
    name, stage = segmenter.name, STAGE.format(segmenter.name)
    for group in batches(found, batch):
        started = time.perf_counter()
        marked = segmenter([item.frame for item in group])
        seconds = (time.perf_counter() - started) / len(group)
        for item, (segments, grid) in zip(group, marked, strict=True):
            timings, known = {**item.timings, stage: seconds}, {**item.segments, name: segments}
            maps = {**item.maps, name: grid} if grid else item.maps
            yield item._replace(timings=timings, segments=known, maps=maps)
