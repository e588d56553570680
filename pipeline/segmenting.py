"""Segmenters as stages: as the only detector, or one after the other beside it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from pipeline.components import as_detections, components
from pipeline.config import ComponentsConfig
from pipeline.device import threads
from pipeline.frame import Frame, ScoreMap, Segments
from pipeline.scaling import network_pictures
from pipeline.score_maps import DETECTOR, of_pixels
from pipeline.segmentation import ProbabilityMaps
from pipeline.stages import Found, batches

STAGE = "segment {}"
"""Name of the stage of a segmenter that runs beside the detector, among the timings."""


class FrameSegmenter:
    """A segmenter on frames: marks groups of pixels in each by itself."""

    def __init__(
        self,
        name: str,
        maps: ProbabilityMaps,
        config: ComponentsConfig,
        *,
        threads: int = 1,
        keep_maps: bool = False,
    ):
        """`threads` are those of the CPU that its network takes; `keep_maps` asks for the maps themselves."""
        self.name = name
        """Under which its groups are drawn and written."""
        self._maps, self._config, self._threads, self._keep = maps, config, threads, keep_maps

    def __call__(self, frames: Sequence[Frame]) -> list[tuple[Segments, ScoreMap | None]]:
        """What is marked in each of the frames of one source, and the map behind it, where asked for."""
        with threads(self._threads):
            pictures, full_scale = network_pictures(frames)
            found = self._maps.batch(pictures, bit_depth=full_scale.bit_length())
        maps = map(of_pixels, found) if self._keep else [None] * len(found)
        return list(zip((components(one, self._config) for one in found), maps, strict=True))


class SegmentingDetector:
    """A segmenter as the only detector. It has no window: no frame is warm-up, nothing is remembered."""

    window = 1

    def __init__(self, segmenter: FrameSegmenter, *, conf: float):
        self._segmenter, self._conf = segmenter, conf

    def reset(self) -> None:
        """Start a new sequence."""

    def detect(self, groups: Iterable[tuple[Frame, ...]]) -> Iterator[Found]:
        """The frames with a box and a mask for each group of the least score or more."""
        name = self._segmenter.name
        for frames in groups:
            started = time.perf_counter()
            marked = self._segmenter(frames)
            found = [as_detections(segments, conf=self._conf) for segments, _ in marked]
            spent = {"detect": (time.perf_counter() - started) / len(frames)}
            for frame, detections, (segments, grid) in zip(frames, found, marked, strict=True):
                maps = {DETECTOR: grid} if grid else {}
                yield Found(frame, detections, False, spent, {name: segments}, maps)


def segment(found: Iterable[Found], segmenter: FrameSegmenter, *, batch: int = 1) -> Iterator[Found]:
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
