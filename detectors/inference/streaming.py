"""The stages between source and sinks: generators that know nothing of their neighbours.

What travels is a small batch of frames, one frame when live, so the same code serves low latency and full
throughput.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor

from detectors.backends.devices import core_count
from detectors.inference import postprocess as suppression
from detectors.inference.normalisation import to_network_input
from detectors.inference.score_maps import DETECTOR, of_cells
from detectors.networks.tridos import Tridos
from detectors.networks.tridos.optimised.fused import FusedTridos
from pipeline.config.schema import DetectorConfig
from pipeline.imaging.geometry import Geometry
from pipeline.imaging.intensity_scaling import network_images
from pipeline.stages.overlap import Schedule, run_two_phase
from pipeline.structures.boxes import clip
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.results import FrameDetections

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class RawOutput(NamedTuple):
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
    settled: suppression.FixedShapeDetections | None = None
    """The suppression of the boxes, where a GPU has done it."""

    def arrived(self) -> RawOutput:
        """The same, with the output there."""
        if self.ready is None:
            return self
        started = time.perf_counter()
        self.ready.synchronize()
        return self._replace(ready=None, seconds=self.seconds + time.perf_counter() - started)


class PendingBatch(NamedTuple):
    """A batch of frames that the network is half through with."""

    frames: tuple[Frame, ...]
    parts: tuple
    """What its stream's `finish` asks for."""
    warmup: tuple[bool, ...]
    seconds: float
    """Spent on the whole batch so far."""
    geometry: Geometry


def optimise_for_inference(
    model: torch.nn.Module, precision: str, *, compiled: bool = False
) -> torch.nn.Module:
    """A network in evaluation mode in the form and the number format that a run computes it in."""
    if type(model) is not Tridos:  # arranged already, or computed by another runtime
        return model
    network = FusedTridos(model, dtype=PRECISIONS[precision] or torch.float32)
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
        self.model = optimise_for_inference(
            model.to(device).eval(), config.precision, compiled=config.compile
        )
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

    def __call__(self, frames: tuple[Frame, ...]) -> RawOutput:
        """The next frames of the sequence, in order."""
        return self.finish(self.begin(frames))

    def begin(self, frames: tuple[Frame, ...]) -> PendingBatch:
        """The first half of the work on the next frames, in order."""
        started = time.perf_counter()
        parts = self.stream.begin(self.pixels(frames))
        return self.begun(frames, parts)._replace(seconds=time.perf_counter() - started)

    def begun(self, frames: tuple[Frame, ...], parts: tuple = ()) -> PendingBatch:
        """The frames that were pushed last, with what their stream's `finish` asks for."""
        return PendingBatch(frames, parts, self._warmup(frames), 0.0, self._geometry)

    def finish(self, begun: PendingBatch) -> RawOutput:
        """The second half; other frames may begin meanwhile, in another thread.

        From a GPU the output is still on its way: it is there after `RawOutput.arrived`.
        """
        started = time.perf_counter()
        features = self.features(begun, self.stream.finish(begun.parts))
        return features._replace(seconds=begun.seconds + time.perf_counter() - started)

    def features(self, begun: PendingBatch, raw: Tensor) -> RawOutput:
        """The raw output for frames that were begun; what comes from a GPU is put on its way."""
        settled = ready = None
        if raw.is_cuda:
            settled = suppression.nms_fixed_shape(raw, conf=self._config.conf, iou=self._config.iou)
            raw, *settled = (values.to("cpu", non_blocking=True) for values in (raw, *settled))
            ready = torch.cuda.Event()
            ready.record()
        settled = suppression.FixedShapeDetections(*settled) if settled else None
        return RawOutput(begun.frames, raw, begun.geometry, begun.warmup, begun.seconds, ready, settled)

    @property
    def window(self) -> int:
        """Frames that the network looks at together."""
        return self.model.frames

    @property
    def halves(self) -> Schedule:
        """How the halves of the work are best arranged.

        A GPU works through what it was told while the CPU looks at the output before. A narrow network, which
        gains nothing from a second thread in each operation, has one for each half.
        """
        if self.device.type == "cuda":
            return "delayed"
        return "threaded" if torch.get_num_threads() == 1 and core_count() > 1 else "sequential"

    def pixels(self, frames: tuple[Frame, ...]) -> Tensor:
        """The next frames of the sequence as network input, (B, 3, H, W) float32; what follows is `push`.

        None but the first may follow a gap, which is made known to the state of the sequence.
        """
        if (gap := frames[0].gap) is not None:
            if gap.repeat_previous:
                self.stream.repeat(gap.missing)
            else:
                self.stream.reset()
        if self._geometry is None:
            self._geometry = self.geometry(frames[0])
        pictures, full_scale = network_images(frames)
        pictures = [self._geometry.apply(picture, full_scale=full_scale) for picture in pictures]
        return to_network_input(pictures, full_scale=full_scale, device=self.device)

    def _warmup(self, frames: tuple[Frame, ...]) -> tuple[bool, ...]:
        """For each of the frames pushed last, whether fewer than a whole window stood behind it."""
        first = self.stream.frames_seen - len(frames) + 1
        behind = (
            first + number if frame.real_frames_in_window is None else frame.real_frames_in_window for number, frame in enumerate(frames)
        )
        return tuple(count < self.window for count in behind)

    def detect(self, groups: Iterable[tuple[Frame, ...]]) -> Generator[FrameDetections]:
        """The frames with their boxes."""
        # closed here and not by the garbage collector: a thread of its own may be taking from `groups`
        with closing(extract(groups, self)) as features:
            yield from self.found(features)

    def found(self, features: Iterable[RawOutput]) -> Iterator[FrameDetections]:
        """The boxes of the score and overlap that the configuration asks for."""
        return suppress(features, conf=self._config.conf, iou=self._config.iou, maps=self._maps)


def extract(groups: Iterable[tuple[Frame, ...]], detector: StreamingDetector) -> Generator[RawOutput]:
    """Run the network over the sequence. While this is not closed, `groups` may be in use by a thread."""
    with closing(run_two_phase(groups, detector.begin, detector.finish, detector.halves)) as features:
        yield from (batch.arrived() for batch in features)


def suppress(
    features: Iterable[RawOutput], *, conf: float, iou: float, maps: bool = False
) -> Iterator[FrameDetections]:
    """Turn raw outputs into detections in source pixels, best first, cut to the picture.

    `maps` asks for the score maps, too.
    """
    for batch in features:
        started = time.perf_counter()
        found = []
        if batch.settled is None:
            decoded = suppression.decode(batch.raw, conf=conf, iou=iou)
        else:
            decoded = suppression.detections_of(batch.settled, batch.raw, conf=conf, iou=iou)
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
            yield FrameDetections(frame, detections, warmup, spent, maps=grid)
