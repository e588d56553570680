"""The stages between source and sinks: generators that know nothing of their neighbours.

What travels is a small batch of frames, one frame when live, so the same code serves low latency and full
throughput.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from detectors.tridos import Tridos, fused
from pipeline import suppress as suppression
from pipeline.boxes import clip
from pipeline.config import DetectorConfig
from pipeline.device import core_count
from pipeline.frame import Detections, Frame, Result, ScoreMap, Segments
from pipeline.geometry import Geometry
from pipeline.normalise import to_network_input
from pipeline.prefetch import prefetch
from pipeline.scaling import network_pictures
from pipeline.score_maps import DETECTOR, of_cells
from trackers import Tracker

T, U, V = TypeVar("T"), TypeVar("U"), TypeVar("V")

Halves = Literal["one", "threads", "late"]
"""One after the other; each in a thread of its own; one after the other, given when the next are there."""

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
    ready: torch.cuda.Event | None = None
    """Passed when an output that comes from a GPU is there; None for one that is there already."""
    settled: suppression.Settled | None = None
    """The suppression of the boxes, where a GPU has done it."""

    def arrived(self) -> Features:
        """The same, with the output there."""
        if self.ready is None:
            return self
        started = time.perf_counter()
        self.ready.synchronize()
        return self._replace(ready=None, seconds=self.seconds + time.perf_counter() - started)


class Begun(NamedTuple):
    """A batch of frames that the network is half through with."""

    frames: tuple[Frame, ...]
    parts: tuple
    """What its stream's `finish` asks for."""
    warmup: tuple[bool, ...]
    seconds: float
    """Spent on the whole batch so far."""
    geometry: Geometry


class Found(NamedTuple):
    """One frame with its detections."""

    frame: Frame
    detections: Detections
    warmup: bool
    timings: Mapping[str, float]
    segments: Mapping[str, Segments] = MappingProxyType({})
    """What segmenters marked, by their names."""
    maps: Mapping[str, ScoreMap] = MappingProxyType({})
    """Where they are asked for, the maps behind it, by the names of `pipeline.score_maps`."""


class Detector(Protocol):
    """What finds the targets, whatever network is behind it."""

    window: int
    """Frames that it looks at together."""

    def reset(self) -> None:
        """Start a new sequence."""

    def detect(self, groups: Iterable[tuple[Frame, ...]]) -> Iterator[Found]:
        """The frames of a sequence, in order and in groups, with what is in each."""


def fastest(model: torch.nn.Module, precision: str, *, compiled: bool = False) -> torch.nn.Module:
    """A network in evaluation mode in the form and the number format that a run computes it in."""
    if type(model) is not Tridos:  # arranged already, or computed by another runtime
        return model
    network = fused(model, dtype=PRECISIONS[precision] or torch.float32)
    if compiled:
        network.compile_parts()
    return network


class StreamingDetector:
    """A network on a running sequence: pictures in, raw outputs out, its ring of features in between."""

    def __init__(
        self, model: torch.nn.Module, config: DetectorConfig, device: torch.device, *, maps: bool = False
    ):
        """`maps` asks for the score maps of all frames."""
        self._config, self._maps = config, maps
        self.device = device
        """Where the network computes."""
        self.model = fastest(model.to(device).eval(), config.precision, compiled=config.compile)
        self.stream = self.model.stream()
        """The state of the sequence."""
        self._geometry: Geometry | None = None

    def reset(self) -> None:
        """Start a new sequence."""
        self.stream.reset()
        self._geometry = None

    def geometry(self, frame: Frame) -> Geometry:
        """How frames of this size lie in the network input."""
        source, network = (frame.width, frame.height), self._config.network_size()
        if network is None:
            return Geometry.native(source, scale=self._config.enlarge or 1.0)
        return getattr(Geometry, self._config.fit)(source, network)

    def sibling(self) -> StreamingDetector:
        """A detector with the same network for another sequence."""
        return StreamingDetector(self.model, self._config, self.device, maps=self._maps)

    def __call__(self, frames: tuple[Frame, ...]) -> Features:
        """The next frames of the sequence, in order."""
        return self.finish(self.begin(frames))

    def begin(self, frames: tuple[Frame, ...]) -> Begun:
        """The first half of the work on the next frames, in order."""
        started = time.perf_counter()
        parts = self.stream.begin(self.pixels(frames))
        return self.begun(frames, parts)._replace(seconds=time.perf_counter() - started)

    def begun(self, frames: tuple[Frame, ...], parts: tuple = ()) -> Begun:
        """The frames that were pushed last, with what their stream's `finish` asks for."""
        return Begun(frames, parts, self._warmup(frames), 0.0, self._geometry)

    def finish(self, begun: Begun) -> Features:
        """The second half; other frames may begin meanwhile, in another thread.

        From a GPU the output is still on its way: it is there after `Features.arrived`.
        """
        started = time.perf_counter()
        features = self.features(begun, self.stream.finish(begun.parts))
        return features._replace(seconds=begun.seconds + time.perf_counter() - started)

    def features(self, begun: Begun, raw: Tensor) -> Features:
        """The raw output for frames that were begun; what comes from a GPU is put on its way."""
        settled = ready = None
        if raw.is_cuda:
            settled = suppression.settle(raw, conf=self._config.conf, iou=self._config.iou)
            raw, *settled = (values.to("cpu", non_blocking=True) for values in (raw, *settled))
            ready = torch.cuda.Event()
            ready.record()
        settled = suppression.Settled(*settled) if settled else None
        return Features(begun.frames, raw, begun.geometry, begun.warmup, begun.seconds, ready, settled)

    @property
    def window(self) -> int:
        """Frames that the network looks at together."""
        return self.model.frames

    @property
    def halves(self) -> Halves:
        """How the halves of the work are best arranged.

        A GPU works through what it was told while the CPU looks at the output before. A narrow network, which
        gains nothing from a second thread in each operation, has one for each half.
        """
        if self.device.type == "cuda":
            return "late"
        return "threads" if torch.get_num_threads() == 1 and core_count() > 1 else "one"

    def pixels(self, frames: tuple[Frame, ...]) -> Tensor:
        """The next frames of the sequence as network input, (B, 3, H, W) float32; what follows is `push`.

        None but the first may follow a gap, which is made known to the state of the sequence.
        """
        if (gap := frames[0].gap) is not None:
            if gap.bridged:
                self.stream.repeat(gap.missing)
            else:
                self.stream.reset()
        if self._geometry is None:
            self._geometry = self.geometry(frames[0])
        pictures, full_scale = network_pictures(frames)
        pictures = [self._geometry.apply(picture, full_scale=full_scale) for picture in pictures]
        return to_network_input(pictures, full_scale=full_scale, device=self.device)

    def _warmup(self, frames: tuple[Frame, ...]) -> tuple[bool, ...]:
        """For each of the frames pushed last, whether fewer than a whole window stood behind it."""
        first = self.stream.frames_seen - len(frames) + 1
        behind = (
            first + number if frame.behind is None else frame.behind for number, frame in enumerate(frames)
        )
        return tuple(count < self.window for count in behind)

    def detect(self, groups: Iterable[tuple[Frame, ...]]) -> Iterator[Found]:
        """The frames with their boxes."""
        # closed here and not by the garbage collector: a thread of its own may be taking from `groups`
        with closing(extract(groups, self)) as features:
            yield from self.found(features)

    def found(self, features: Iterable[Features]) -> Iterator[Found]:
        """The boxes of the score and overlap that the configuration asks for."""
        return suppress(features, conf=self._config.conf, iou=self._config.iou, maps=self._maps)


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


def extract(groups: Iterable[tuple[Frame, ...]], detector: StreamingDetector) -> Generator[Features]:
    """Run the network over the sequence. While this is not closed, `groups` may be in use by a thread."""
    with closing(in_halves(groups, detector.begin, detector.finish, detector.halves)) as features:
        yield from (batch.arrived() for batch in features)


def in_halves(
    items: Iterable[T], begin: Callable[[T], U], finish: Callable[[U], V], halves: Halves
) -> Generator[V]:
    """finish(begin(item)) of each, arranged as `StreamingDetector.halves` says."""
    if halves == "threads":
        with closing(prefetch(map(begin, items), size=1, name="features", patience=None)) as begun:
            yield from map(finish, begun)
        return
    results = (finish(begin(item)) for item in items)
    yield from one_late(results) if halves == "late" else results


def one_late(items: Iterable[T]) -> Iterator[T]:
    """The same items, each given when the one after it is there; an error comes after the items before it."""
    waiting: list[T] = []
    try:
        for item in items:
            waiting.append(item)
            if len(waiting) == 2:
                yield waiting.pop(0)
    except Exception:
        yield from waiting
        raise
    yield from waiting


def suppress(features: Iterable[Features], *, conf: float, iou: float, maps: bool = False) -> Iterator[Found]:
    """Turn raw outputs into detections in source pixels, best first, cut to the picture.

    `maps` asks for the score maps, too.
    """
    for batch in features:
        started = time.perf_counter()
        found = []
        if batch.settled is None:
            decoded = suppression.decode(batch.raw, conf=conf, iou=iou)
        else:
            decoded = suppression.fetched(batch.settled, batch.raw, conf=conf, iou=iou)
        for frame, rows in zip(batch.frames, decoded, strict=True):
            boxes, scores, labels = (values.cpu().numpy() for values in rows)
            boxes = clip(batch.geometry.to_source(boxes), frame.width, frame.height)
            inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
            found.append(Detections(boxes[inside], scores[inside], labels[inside]))
        share = 1 / len(batch.frames)
        spent = {"detect": batch.seconds * share, "suppress": (time.perf_counter() - started) * share}
        grids = [{DETECTOR: m} for m in of_cells(batch.raw, batch.geometry)] if maps else [{}] * len(found)
        rows = zip(batch.frames, found, batch.warmup, grids, strict=True)
        for frame, detections, warmup, grid in rows:
            yield Found(frame, detections, warmup, spent, maps=grid)


def track(found: Iterable[Found], tracker: Tracker) -> Iterator[Result]:
    """Join the detections of successive frames to tracks."""
    for frame, detections, warmup, timings, segments, maps in found:
        started = time.perf_counter()
        tracks = tracker.update(detections, frame)
        timings = {**timings, "track": time.perf_counter() - started}
        yield Result(frame, detections, tracks, warmup, timings, segments, maps)
