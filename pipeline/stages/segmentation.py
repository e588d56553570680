"""Stage that runs a segmenter beside the detector."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

from pipeline.stages.batching import batches
from pipeline.structures.protocols import SegmentStage
from pipeline.structures.results import STAGE, FrameDetections


def segment(
    results: Iterable[FrameDetections], segmenter: SegmentStage, *, batch: int = 1
) -> Iterator[FrameDetections]:
    """Yields the results of each frame with the segments of `segmenter` added, `batch` frames at a time.

    Detections are unchanged.
    """
    name, stage = segmenter.name, STAGE.format(segmenter.name)
    for group in batches(results, batch):
        started = time.perf_counter()
        segmented = segmenter([item.frame for item in group])
        seconds = (time.perf_counter() - started) / len(group)
        for item, (segments, score_map) in zip(group, segmented, strict=True):
            yield replace(
                item,
                timings={**item.timings, stage: seconds},
                segments={**item.segments, name: segments},
                maps={**item.maps, name: score_map} if score_map else item.maps,
            )
