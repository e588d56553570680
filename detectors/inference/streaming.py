"""Streaming inference: a network over a running sequence of frames.

Frames arrive in groups, of one frame for live sources, so that the same code serves low latency and high
throughput. Inference has two phases that may overlap; see `pipeline.stages.overlap`.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor

from detectors.backends.devices import LARGE, core_count, join_count
from detectors.backends.runtimes import ExportedNetwork
from detectors.inference.normalisation import to_network_input
from detectors.inference.postprocess import FixedShapeDetections, decode, detections_of, nms_fixed_shape
from detectors.inference.score_maps import DETECTOR, cell_maps
from detectors.networks.plain import PlainNetwork
from detectors.networks.plain.fused import FusedPlain
from detectors.networks.tridos import Tridos
from detectors.networks.tridos.optimised.fused import FusedTridos
from detectors.networks.tridos.stream import Parts
from pipeline.config.schema import DetectorConfig
from pipeline.imaging.geometry import Geometry
from pipeline.imaging.intensity_scaling import network_images
from pipeline.stages.overlap import Schedule, run_two_phase
from pipeline.structures.boxes import clip
from pipeline.structures.detections import Detections, ScoreMap
from pipeline.structures.frame import Frame
from pipeline.structures.results import FrameDetections
from pipeline.system.progress import working_on

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Precision in the configuration → dtype of the computation; None for float32."""


class RawOutput(NamedTuple):
    """Raw network output for a batch of frames."""

    frames: tuple[Frame, ...]
    raw: Tensor
    """(B, 5 + classes, h, w) logits."""
    geometry: Geometry
    """Mapping between source and network pixels."""
    warmup: tuple[bool, ...]
    """For each frame, whether its window holds fewer real frames than its length."""
    seconds: float
    """Time spent on the whole batch."""
    ready: torch.cuda.Event | None = None
    """CUDA event recorded after the asynchronous copy to the host; None if the output is on the host."""
    detections: FixedShapeDetections | None = None
    """Decoded boxes, if a GPU has computed them."""

    def wait(self) -> RawOutput:
        """Returns the output after waiting until it is on the host."""
        if self.ready is None:
            return self
        started = time.perf_counter()
        self.ready.synchronize()
        return self._replace(ready=None, seconds=self.seconds + time.perf_counter() - started)


class PendingBatch(NamedTuple):
    """A batch whose features are computed but whose temporal windows are not yet joined."""

    frames: tuple[Frame, ...]
    parts: Parts
    """Argument of the stream's `join`."""
    warmup: tuple[bool, ...]
    """For each frame, whether its window holds fewer real frames than its length."""
    seconds: float
    """Time spent on the whole batch so far."""
    geometry: Geometry
    """Mapping between source and network pixels."""


StreamingNetwork = Tridos | FusedTridos | PlainNetwork | ExportedNetwork
"""Networks that have streams."""


def optimise_for_inference(
    model: StreamingNetwork, precision: str, *, compiled: bool = False
) -> StreamingNetwork:
    """Returns the fastest form of a network in evaluation mode, computing in the given precision.

    `compiled` applies torch.compile to a `Tridos`. A `PlainNetwork` is computed in float32. Others are
    optimised already and returned as is.
    """
    if type(model) is PlainNetwork:
        return FusedPlain(model)
    if not isinstance(model, Tridos):
        return model
    network = FusedTridos(model, dtype=PRECISIONS[precision] or torch.float32)
    if compiled:
        network.compile_parts()
    return network


class StreamingDetector:
    """A detector on a running sequence, with the state of one stream.

    `maps` adds score maps to the results.
    """

    def __init__(
        self, model: StreamingNetwork, config: DetectorConfig, device: torch.device, *, maps: bool = False
    ):
        self._config, self._maps = config, maps
        self.device = device
        """Device of the network."""
        self.model = optimise_for_inference(
            model.to(device).eval(), config.precision, compiled=config.compile
        )
        self.window = self.model.frames
        """Number of frames in the temporal window."""
        self.stream = self.model.stream()
        """State of the sequence."""
        self._geometry: Geometry | None = None

    def reset(self) -> None:
        """Starts a new sequence."""
        self.stream.reset()
        self._geometry = None

    def geometry(self, frame: Frame) -> Geometry:
        """Returns the mapping between frames of this size and the network input."""
        source, network = (frame.width, frame.height), self._config.network_size()
        if network is None:
            return Geometry.native(source, scale=self._config.enlarge or 1.0)
        return getattr(Geometry, self._config.fit)(source, network)

    def sibling(self) -> StreamingDetector:
        """Returns a detector for another sequence that shares the network."""
        return StreamingDetector(self.model, self._config, self.device, maps=self._maps)

    def __call__(self, frames: tuple[Frame, ...]) -> RawOutput:
        """Returns the raw output for the next frames of the sequence."""
        return self.join(self.extract(frames))

    def extract(self, frames: tuple[Frame, ...]) -> PendingBatch:
        """First phase: computes the features of the next frames and changes the state of the stream."""
        started = time.perf_counter()
        parts = self.stream.extract(self.preprocess(frames))
        return self.pending(frames, parts)._replace(seconds=time.perf_counter() - started)

    def pending(self, frames: tuple[Frame, ...], parts: Parts = ()) -> PendingBatch:
        """Returns the batch of the frames extracted last; `parts` is the argument of the stream's `join`."""
        return PendingBatch(frames, parts, self._warmup(frames), 0.0, self._current_geometry(frames[0]))

    def join(self, pending: PendingBatch) -> RawOutput:
        """Second phase: joins the windows; a thread may extract other frames meanwhile.

        On a GPU the output is copied to the host asynchronously; see `RawOutput.wait`.
        """
        started = time.perf_counter()
        output = self.raw_output(pending, self.stream.join(pending.parts))
        return output._replace(seconds=pending.seconds + time.perf_counter() - started)

    def raw_output(self, pending: PendingBatch, raw: Tensor) -> RawOutput:
        """Wraps raw output (B, 5 + classes, h, w); on a GPU, decodes it and starts the copy to the host."""
        detections = ready = None
        if raw.is_cuda:
            results = nms_fixed_shape(raw, conf=self._config.conf, iou=self._config.iou)
            raw, *copies = (values.to("cpu", non_blocking=True) for values in (raw, *results))
            detections = FixedShapeDetections(*copies)
            ready = torch.cuda.Event()
            ready.record()
        return RawOutput(
            pending.frames, raw, pending.geometry, pending.warmup, pending.seconds, ready, detections
        )

    @property
    def schedule(self) -> Schedule:
        """Schedule of the two phases.

        Delayed on a GPU, which computes a batch while the CPU decodes the one before. Threaded for narrow
        networks on a CPU, which gain nothing from a second thread within an operation.
        """
        if self.device.type == "cuda":
            return "delayed"
        return "threaded" if torch.get_num_threads() == 1 and core_count() > 1 else "sequential"

    @property
    def joins_at_once(self) -> int:
        """Number of joins that run at the same time, each in a thread of its own.

        Several for exported graphs, in which nearly all of the work is in the join; the phases of other
        networks share it evenly.
        """
        exported = isinstance(self.model, ExportedNetwork)
        return join_count() if exported and self.schedule == "threaded" else 1

    def preprocess(self, frames: tuple[Frame, ...]) -> Tensor:
        """Returns the network input (B, 3, H, W) float32 of the next frames.

        Only the first frame may follow a gap; the state of the stream is reset or repeats its last frame.
        """
        if (gap := frames[0].gap) is not None:
            if gap.repeat_previous:
                self.stream.repeat(gap.missing)
            else:
                self.stream.reset()
        geometry = self._current_geometry(frames[0])
        if geometry.network[0] * geometry.network[1] > LARGE:
            working_on(f"computing frame {frames[0].index}")
        images, full_scale = network_images(frames)
        images = [geometry.apply(image, full_scale=full_scale) for image in images]
        return to_network_input(images, full_scale=full_scale, device=self.device)

    def _current_geometry(self, frame: Frame) -> Geometry:
        """Returns the geometry of the sequence, which its first frame determines."""
        if self._geometry is None:
            self._geometry = self.geometry(frame)
        return self._geometry

    def _warmup(self, frames: tuple[Frame, ...]) -> tuple[bool, ...]:
        """Returns for each of the frames pushed last whether its window is not yet full."""
        first = self.stream.frames_seen - len(frames) + 1
        known = (frame.real_frames_in_window for frame in frames)
        counts = (first + number if count is None else count for number, count in enumerate(known))
        return tuple(count < self.window for count in counts)

    def detect(self, groups: Iterable[tuple[Frame, ...]]) -> Generator[FrameDetections]:
        """Yields the detections of each frame of the sequence."""
        # closed here and not by the garbage collector: a thread may be reading from `groups`
        with closing(raw_outputs(groups, self)) as outputs:
            yield from self.postprocess(outputs)

    def postprocess(self, outputs: Iterable[RawOutput]) -> Iterator[FrameDetections]:
        """Yields the detections of each frame at the configured score and IoU thresholds."""
        return frame_detections(outputs, conf=self._config.conf, iou=self._config.iou, maps=self._maps)


def raw_outputs(groups: Iterable[tuple[Frame, ...]], detector: StreamingDetector) -> Generator[RawOutput]:
    """Yields the raw outputs of the groups of a sequence.

    Close the generator before using `groups` elsewhere: a thread may be reading from it.
    """
    outputs = run_two_phase(
        groups, detector.extract, detector.join, detector.schedule, detector.joins_at_once
    )
    with closing(outputs):
        yield from (output.wait() for output in outputs)


def frame_detections(
    outputs: Iterable[RawOutput], *, conf: float, iou: float, maps: bool = False
) -> Iterator[FrameDetections]:
    """Yields the detections of each frame in source pixels, best score first, clipped to the image.

    `conf` is the minimum score, `iou` the maximum IoU of two boxes of a class; `maps` adds score maps.
    """
    for batch in outputs:
        working_on("")
        started = time.perf_counter()
        found = []
        if batch.detections is None:
            decoded = decode(batch.raw, conf=conf, iou=iou)
        else:
            decoded = detections_of(batch.detections, batch.raw, conf=conf, iou=iou)
        for frame, image in zip(batch.frames, decoded, strict=True):
            boxes, scores, labels = (values.cpu().numpy() for values in image)
            boxes = clip(batch.geometry.to_source(boxes), frame.width, frame.height)
            inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
            found.append(Detections(boxes[inside], scores[inside], labels[inside]))
        share = 1 / len(batch.frames)
        spent = {"detect": batch.seconds * share, "suppress": (time.perf_counter() - started) * share}
        grids: list[dict[str, ScoreMap]] = [{} for _ in found]
        if maps:
            grids = [{DETECTOR: grid} for grid in cell_maps(batch.raw, batch.geometry)]
        for frame, detections, warmup, grid in zip(batch.frames, found, batch.warmup, grids, strict=True):
            yield FrameDetections(frame, detections, warmup, spent, maps=grid)
