"""Segmenters in the pipeline: as the detector, or beside it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence

from detectors.backends.devices import torch_threads
from detectors.inference.components import extract_components, to_detections
from detectors.inference.probability_maps import ProbabilityMaps
from detectors.inference.score_maps import DETECTOR, pixel_map
from pipeline.config.schema import ComponentsConfig
from pipeline.imaging.intensity_scaling import network_images
from pipeline.structures.detections import ScoreMap, Segments
from pipeline.structures.frame import Frame
from pipeline.structures.results import FrameDetections


class FrameSegmenter:
    """Segments frames independently of each other.

    `threads` is the number of CPU threads of the network; `keep_maps` returns probability maps, too.
    """

    def __init__(
        self,
        name: str,
        maps: ProbabilityMaps,
        config: ComponentsConfig,
        *,
        threads: int = 1,
        keep_maps: bool = False,
    ):
        self.name = name
        """Key of its segments and score maps in the results."""
        self._maps, self._config, self._threads, self._keep = maps, config, threads, keep_maps

    def __call__(self, frames: Sequence[Frame]) -> list[tuple[Segments, ScoreMap | None]]:
        """Returns the segments of each frame of one source, and its score map if maps are kept."""
        with torch_threads(self._threads):
            images, full_scale = network_images(frames)
            found = self._maps.batch(images, bit_depth=full_scale.bit_length())
        segments = [extract_components(probability, self._config) for probability in found]
        maps = [pixel_map(probability) if self._keep else None for probability in found]
        return list(zip(segments, maps, strict=True))


class SegmentingDetector:
    """A segmenter as the detector; frames are independent, so there is no state and no warm-up."""

    window = 1

    def __init__(self, segmenter: FrameSegmenter, *, conf: float):
        self._segmenter, self._conf = segmenter, conf

    def reset(self) -> None:
        """Starts a new sequence; there is no state to reset."""

    def detect(self, groups: Iterable[tuple[Frame, ...]]) -> Generator[FrameDetections]:
        """Yields each frame with a box and a mask for every component of the minimum score or more."""
        name = self._segmenter.name
        for frames in groups:
            started = time.perf_counter()
            results = self._segmenter(frames)
            found = [to_detections(segments, conf=self._conf) for segments, _ in results]
            spent = {"detect": (time.perf_counter() - started) / len(frames)}
            for frame, detections, (segments, grid) in zip(frames, found, results, strict=True):
                maps = {DETECTOR: grid} if grid else {}
                yield FrameDetections(frame, detections, False, spent, {name: segments}, maps)
