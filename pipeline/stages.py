"""The stages between source and sinks: generators that know nothing of their neighbours.

What travels is a small batch of frames, one frame when live, so the same code serves low latency and full
throughput.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from pipeline import suppress as suppression
from pipeline.boxes import clip
from pipeline.config import DetectorConfig
from pipeline.frame import Detections, Frame, Result, Segments
from pipeline.geometry import Geometry
from pipeline.normalise import to_network_input
from trackers import Tracker

T = TypeVar("T")

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Features(NamedTuple):
    """Raw network output for a batch of frames."""

    frames: tuple[Frame, ...]
    raw: Tensor
    """(B, 5 + classes, h, w) logits."""
    geometry: Geometry
    warmup: tuple[bool, ...]
    seconds: float
    """Spent on the whole batch."""


class Found(NamedTuple):
    """One frame with its detections."""

    frame: Frame
    detections: Detections
    warmup: bool
    timings: Mapping[str, float]
    segments: Mapping[str, Segments] = MappingProxyType({})
    """What segmenters marked, by their names."""


class Detector(Protocol):
    """What finds the targets, whatever network is behind it."""

    def reset(self) -> None:
        """Start a new sequence."""

    def detect(self, groups: Iterable[tuple[Frame, ...]]) -> Iterator[Found]:
        """The frames of a sequence, in order and in groups, with what is in each."""


class StreamingDetector:
    """A network on a running sequence: pictures in, raw outputs out, its ring of features in between."""

    def __init__(self, model: torch.nn.Module, config: DetectorConfig, device: torch.device):
        self.model = model.to(device).eval()
        self._config, self._device = config, device
        self._stream = self.model.stream()
        self._geometry: Geometry | None = None

    def reset(self) -> None:
        """Start a new sequence."""
        self._stream.reset()
        self._geometry = None

    def geometry(self, frame: Frame) -> Geometry:
        """How frames of this size lie in the network input."""
        source, network = (frame.width, frame.height), self._config.network_size()
        if network is None:
            return Geometry.native(source, scale=self._config.enlarge or 1.0)
        return getattr(Geometry, self._config.fit)(source, network)

    def __call__(self, frames: tuple[Frame, ...]) -> Features:
        """The next frames of the sequence, in order."""
        started = time.perf_counter()
        if self._geometry is None:
            self._geometry = self.geometry(frames[0])
        full_scale = 2 ** frames[0].bit_depth - 1
        pictures = [self._geometry.apply(frame.image, full_scale=full_scale) for frame in frames]
        pixels = to_network_input(pictures, full_scale=full_scale, device=self._device)
        dtype = PRECISIONS[self._config.precision]
        seen = self._stream.frames_seen
        with torch.autocast(self._device.type, dtype, enabled=dtype is not None):
            raw = self._stream.push(pixels)
        if self._device.type == "cuda":  # or the time below would be that of giving the order
            torch.cuda.synchronize(self._device)
        warmup = tuple(seen + number + 1 < self.model.frames for number in range(len(frames)))
        return Features(frames, raw, self._geometry, warmup, time.perf_counter() - started)

    def detect(self, groups: Iterable[tuple[Frame, ...]]) -> Iterator[Found]:
        """The frames with their boxes, of the score and overlap that the configuration asks for."""
        return suppress(extract(groups, self), conf=self._config.conf, iou=self._config.iou)


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


def extract(groups: Iterable[tuple[Frame, ...]], detector: StreamingDetector) -> Iterator[Features]:
    """Run the network over the sequence."""
    for group in groups:
        yield detector(group)


def suppress(features: Iterable[Features], *, conf: float, iou: float) -> Iterator[Found]:
    """Turn raw outputs into detections in source pixels, best first, cut to the picture."""
    for batch in features:
        started = time.perf_counter()
        found = []
        for frame, rows in zip(batch.frames, suppression.decode(batch.raw, conf=conf, iou=iou), strict=True):
            boxes, scores, labels = (values.cpu().numpy() for values in rows)
            boxes = clip(batch.geometry.to_source(boxes), frame.width, frame.height)
            inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
            found.append(Detections(boxes[inside], scores[inside], labels[inside]))
        share = 1 / len(batch.frames)
        spent = {"detect": batch.seconds * share, "suppress": (time.perf_counter() - started) * share}
        for frame, detections, warmup in zip(batch.frames, found, batch.warmup, strict=True):
            yield Found(frame, detections, warmup, spent)


def track(found: Iterable[Found], tracker: Tracker) -> Iterator[Result]:
    """Join the detections of successive frames to tracks."""
    for frame, detections, warmup, timings, segments in found:
        started = time.perf_counter()
        tracks = tracker.update(detections, frame)
        timings = {**timings, "track": time.perf_counter() - started}
        yield Result(frame, detections, tracks, warmup, timings, segments)
