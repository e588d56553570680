"""Segmenters as stages: as the only detector, or one after the other beside it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence

from detectors.backends.devices import threads
from detectors.inference.components import extract_components, to_detections
from detectors.inference.probability_maps import ProbabilityMaps
from detectors.inference.score_maps import DETECTOR, of_pixels
from pipeline.config.schema import ComponentsConfig
from pipeline.imaging.intensity_scaling import network_images
from pipeline.structures.detections import ScoreMap, Segments
from pipeline.structures.frame import Frame
from pipeline.structures.results import FrameDetections


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
            pictures, full_scale = network_images(frames)
            found = self._maps.batch(pictures, bit_depth=full_scale.bit_length())
        maps = map(of_pixels, found) if self._keep else [None] * len(found)
        return list(zip((extract_components(one, self._config) for one in found), maps, strict=True))


class SegmentingDetector:
    """A segmenter as the only detector. It has no window: no frame is warm-up, nothing is remembered."""

    window = 1

    def __init__(self, segmenter: FrameSegmenter, *, conf: float):
        self._segmenter, self._conf = segmenter, conf

    def reset(self) -> None:
        """Start a new sequence."""

    def detect(self, groups: Iterable[tuple[Frame, ...]]) -> Generator[FrameDetections]:
        """The frames with a box and a mask for each group of the least score or more."""
        name = self._segmenter.name
        for frames in groups:
            started = time.perf_counter()
            marked = self._segmenter(frames)
            found = [to_detections(segments, conf=self._conf) for segments, _ in marked]
            spent = {"detect": (time.perf_counter() - started) / len(frames)}
            for frame, detections, (segments, grid) in zip(frames, found, marked, strict=True):
                maps = {DETECTOR: grid} if grid else {}
                yield FrameDetections(frame, detections, False, spent, {name: segments}, maps)
