"""Everything a run can be told, with its default. Reading this module is reading the reference.

A configuration is a TOML file with these sections; command-line flags override it, and the resolved values
are written into the run's `run.json`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from pipeline.config.rotation import Rotation, rotation
from pipeline.imaging.intensity_scaling import parse_scaling

MIN_RATE, HIGHEST_RATE = 0.001, 100_000
"""Frames per second that a source may be given."""
MIN_SCALE, MAX_SCALE = 0.25, 8.0
"""Network pixels per source pixel that may be asked for."""


@dataclass(frozen=True)
class SourceConfig:
    """What is read, and what is declared about it where it does not say."""

    start: int = 0
    """Index of the first frame to process."""
    max_frames: int = 0
    """Number of frames to process; 0 for all. More than there are means all."""
    rate: float = 30.0
    """Frames per second of pictures, raw frames and zarr arrays, 0.001 to 100000; videos know their own."""
    format: Literal["auto", "raw", "mpegts", "y4m"] = "auto"
    """auto finds out by itself. raw is frames of bare samples, rows from the top, one after the other, in a
    file, standard input or a stream; it needs `size` and `dtype`."""
    size: str = ""
    """WxH in pixels of raw frames; of a camera, the size to ask it for."""
    dtype: Literal["", "uint8", "uint16le", "uint16be"] = ""
    """Grey samples of raw frames; of a camera, the samples to ask it for."""
    hwaccel: Literal["none", "cuda"] = "none"
    """Whether a GPU decodes video files; one that cannot, or a build of PyAV without it, is an error. Its
    pictures are in colour, and may differ in the last bit from those decoded by the CPU."""
    header: int = 0
    """Bytes before the first raw frame of a file or of standard input."""
    bits: int = 0
    """Significant bits of a sample, 8 to 16, where fewer count than are stored: 14 for a 14-bit camera in
    16-bit pictures. 0: all that are stored."""
    array: str = ""
    """Path of the array within a zarr store that holds several."""
    scaling: str = "full-range"
    """Which grey levels the networks take for 0 and 1: full-range (0 and the greatest of the bit depth),
    fixed LO HI, percentile [LO HI] of each frame, running [LO HI] (the same, smoothed over time; for live
    sources). Use what the weights were trained with. What is drawn is not touched by it."""
    bad_pixels: str = ""
    """Replaced by what surrounds them: the light pixels of a mask picture, or auto, which finds single pixels
    that stand far out in frame after frame. Empty for none."""
    offset: str = ""
    """Picture of an even surface, whose unevenness is taken off every frame. Empty for none."""
    timeout: float = 10.0
    """Seconds that a stream may stay silent, while it is opened and later, before it counts as lost."""
    transport: Literal["tcp", "udp"] = "tcp"
    """What carries the pictures of an RTSP source; tcp loses none on the way."""

    def __post_init__(self):
        if self.start < 0:
            raise ValueError(f"start = {self.start}, expected a frame index from 0")
        if self.max_frames < 0:
            raise ValueError(f"max_frames = {self.max_frames}, expected 0 (all) or more")
        if not MIN_RATE <= self.rate <= HIGHEST_RATE:
            raise ValueError(f"rate = {self.rate}, expected {MIN_RATE} to {HIGHEST_RATE} frames per second")
        if self.bits and not 8 <= self.bits <= 16:
            raise ValueError(f"bits = {self.bits}, expected 8 to 16, or 0 for all that are stored")
        if self.header < 0:
            raise ValueError(f"header = {self.header}, expected 0 bytes or more")
        if not 0 < self.timeout <= 86400:
            raise ValueError(f"timeout = {self.timeout}, expected seconds, more than 0 and at most 86400")
        if self.size and parse_size(self.size) is None:
            raise ValueError(f"size = '{self.size}' of the source, expected WxH such as 320x256")
        if self.format == "raw" and not (self.size and self.dtype):
            raise ValueError(
                "format = raw needs the size and dtype of its frames, such as 320x256 and uint16le"
            )
        parse_scaling(self.scaling)

    def frame_size(self) -> tuple[int, int] | None:
        """(width, height) of raw frames; None where none is declared."""
        return parse_size(self.size) if self.size else None


@dataclass(frozen=True)
class LiveConfig:
    """What happens where frames come faster than they are processed, or do not come at all."""

    on_full: Literal["auto", "wait", "drop-oldest", "drop-newest"] = "auto"
    """What becomes of a frame for which there is no room in the queue before the network: wait holds up the
    source, drop-oldest keeps up with it, drop-newest keeps what is there already. auto: wait for what can
    wait, such as files, and drop-oldest for live sources. What is dropped is counted."""
    queue: int = 0
    """Frames that may wait in that queue; 0: 8 where the source waits, 2 where frames are dropped. More:
    fewer drops where the load varies, and older results."""
    reconnect: int | str = 10
    """How often in a row a live source that was lost is opened again before it is given up: a number, none or
    forever. With none the end of a live stream is the end of the run; else it is a loss like others."""
    backoff: float = 0.5
    """Seconds before the first attempt, doubled for each one after it."""
    backoff_cap: float = 30.0
    """Seconds between attempts at most. Each wait is shortened by a random part, up to half of it, so that
    many readers do not come back to a server in the same moment."""
    on_gap: Literal["repeat", "flush"] = "repeat"
    """What a detector that looks at several frames does where some are missing. repeat: the frame before them
    stands in, where they are fewer than a window holds. flush: its window starts anew. Longer gaps, new
    connections, changes of size and scene cuts start it anew in any case."""
    scene_cuts: bool = True
    """Look for cuts in the picture: where all of it is another from one frame to the next, tracks end."""

    def __post_init__(self):
        if self.queue < 0:
            raise ValueError(f"queue = {self.queue}, expected 0 or more frames")
        if self.reconnect not in ("none", "forever") and not str(self.reconnect).isdecimal():
            raise ValueError(f"reconnect = '{self.reconnect}', expected none, forever or a number")
        if not 0 < self.backoff <= self.backoff_cap <= 86400:
            values = f"backoff = {self.backoff}, backoff_cap = {self.backoff_cap}"
            raise ValueError(f"{values}, expected seconds, more than 0 and backoff not above backoff_cap")

    @property
    def attempts(self) -> float:
        """How often in a row a lost source is opened again; infinite for ever."""
        words = {"none": 0.0, "forever": math.inf}
        return words[self.reconnect] if self.reconnect in words else float(self.reconnect)


def parse_size(text: str, *, multiple: int = 1) -> tuple[int, int] | None:
    """'512x384' → (width, height) of a network input; None for 'native'. Raises ValueError for others."""
    if text == "native":
        return None
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ValueError(f"size = '{text}', expected native or WxH such as 512x512")
    if int(width) % multiple or int(height) % multiple:
        raise ValueError(f"size = '{text}', expected multiples of {multiple}")
    return int(width), int(height)


@dataclass(frozen=True)
class ComponentsConfig:
    """How the map of a segmenter becomes boxes: one for each group of marked pixels."""

    threshold: float = 0.5
    """A pixel is marked where its probability is above this, 0 to 1; marked pixels that touch, also at their
    corners, make one group. Lower: faint targets are found, and all outlines grow."""
    score: Literal["peak", "mean"] = "peak"
    """Score of a group: the highest, or the mean, of its pixels' probabilities. Both are above the threshold,
    so with 0.5 every group of a detector is reported, drawn and may start a track, whatever detector.conf,
    annotate.min_score and the tracker's thresholds of less say; they count once the threshold is lower."""
    min_area: int = 1
    """Pixels; smaller groups are left out."""
    max_count: int = 100
    """Groups per frame; where there are more, the best are kept. It bounds what weights that do not fit the
    scene can make of a frame."""

    def __post_init__(self):
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold = {self.threshold}, expected 0 or more and less than 1")
        for name in ("min_area", "max_count"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}, expected 1 or more")


@dataclass(frozen=True)
class DetectorConfig:
    """What finds the targets."""

    name: str = "tridos-nano"
    """A name of `--list`, or mmdet:CONFIG.py for a network of mmdet. A segmenter finds targets in each frame
    by itself: what it marks become boxes."""
    weights: str = ""
    """A name of `--list` or a file; empty for the detector's default."""
    conf: float = 0.05
    """Least score of a detection, 0 to 1. Everything from here up is written and offered to the tracker; what
    is drawn is decided by annotate.min_score. For COCO evaluation to the last tenth of a point use 0.001."""
    iou: float = 0.5
    """Of two boxes of one class that overlap more than this, only the better is kept. Chosen on drone-ir val:
    AP50 0.746 with 0.5, 0.722 with 0.3; the best F1 is the same, and 0.3 leaves fewer double boxes. Not used
    by segmenters: their boxes come from separate groups of pixels."""
    size: str = "native"
    """Network input: native keeps every pixel (padded to what the network needs); WxH, multiples of 32,
    resizes."""
    enlarge: float = 0.0
    """Network pixels per source pixel of a native size, 0.25 to 8; 0: as the weights were trained."""
    fit: Literal["letterbox", "stretch"] = "letterbox"
    """How the picture fills a size of WxH: keeping its aspect on grey, or stretched."""
    flip_averaging: bool = False
    """Of segmenters alone: the mean over four mirrored views of the picture, in four times the time."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of the network; bf16 and fp16 are faster where the hardware has them."""
    compile: bool = False
    """Have torch.compile translate a Tridos network for a GPU, with CUDA graphs. It takes minutes for each
    size of input and batch, and needs Triton."""
    backend: Literal["auto", "torch", "onnxruntime", "openvino"] = "auto"
    """Who computes a network of the Tridos family: torch, or another runtime, on the CPU, by graphs that are
    exported for it when the first frame has told the size. auto takes the fastest that is installed."""
    cache: str = ""
    """Folder in which such graphs are kept; empty for ~/.cache/mote/exported."""
    batch: int = 0
    """Frames computed together; 0 chooses 1 on a CPU and for a live source (lowest latency), else 8, or one
    of each source where there are more."""
    threads: int = 0
    """CPU threads of each network; 0 chooses 1 for narrow networks such as tridos-nano and all cores for wide
    ones and segmenters. Too many: they wait for one another, and decoding, drawing and encoding wait for a
    core."""
    components: ComponentsConfig = field(default_factory=ComponentsConfig)
    """How the map becomes boxes, where the detector is a segmenter."""

    def __post_init__(self):
        for name in ("conf", "iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)}, expected 0 to 1")
        for name in ("batch", "threads"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}, expected 0 or more")
        _check_enlargement(self)

    def network_size(self) -> tuple[int, int] | None:
        """(width, height) of the network input; None for native."""
        return parse_size(self.size, multiple=32)


@dataclass(frozen=True)
class SegmenterConfig:
    """A segmenter that runs beside the detector, with the device, precision, batch and threads set there."""

    name: str = ""
    """A segmenter of `--list`; must be given."""
    weights: str = ""
    """A name of `--list` or a file; empty for the segmenter's default."""
    size: str = "native"
    """Network input: native keeps every pixel, WxH resizes; which sizes there are, the network decides."""
    enlarge: float = 0.0
    """Network pixels per source pixel of a native size, 0.25 to 8; 0: as the weights were trained."""
    fit: Literal["letterbox", "stretch"] = "letterbox"
    """How the picture fills a size of WxH: keeping its aspect on grey, or stretched."""
    flip_averaging: bool = False
    """Take the mean over four mirrored views of the picture, in four times the time."""
    components: ComponentsConfig = field(default_factory=ComponentsConfig)
    """How the map becomes groups of pixels."""

    def __post_init__(self):
        if not self.name:
            raise ValueError("a segmenter has no name; give one of --list")
        _check_enlargement(self)

    def network_size(self) -> tuple[int, int] | None:
        """(width, height) of the network input; None for native."""
        return parse_size(self.size)


@dataclass(frozen=True)
class SegmentationConfig:
    """What marks the pixels of targets, frame by frame, beside the detector, and what becomes of it."""

    segmenters: tuple[SegmenterConfig, ...] = ()
    """They run in this order. What they mark is drawn and written, under their names."""
    fuse: Literal["none", "confirm", "union"] = "none"
    """none: detections stay as they are. confirm: a detection is dropped unless a segmenter, any of them,
    marks a pixel in its box or within `margin` of it; fewer false alarms, and targets that no segmenter sees
    are lost. union: a group with no pixel in or within `margin` of a detection's box becomes a detection of
    class 0 with the score of the group, if that is detector.conf or more; where several segmenters mark the
    same target the best score counts. More targets, and the false alarms of all."""
    margin: int = 2
    """Source pixels by which boxes are grown before they are compared with marked pixels: boxes of targets of
    a few pixels are a pixel or two off. Too big: clutter beside a target confirms or hides it."""

    def __post_init__(self):
        if self.margin < 0:
            raise ValueError(f"margin = {self.margin}, expected 0 or more")
        if self.fuse != "none" and not self.segmenters:
            raise ValueError(f"fuse = '{self.fuse}' needs a segmenter; give --segmenter NAME")


def _check_enlargement(config: DetectorConfig | SegmenterConfig) -> None:
    """Raise ValueError for an enlargement that is out of range or beside a size of WxH."""
    scale, size = config.enlarge, config.network_size()
    if scale and not MIN_SCALE <= scale <= MAX_SCALE:
        allowed = f"{MIN_SCALE:g} to {MAX_SCALE:g}, or 0 for that of the weights"
        raise ValueError(f"enlarge = {scale}, expected {allowed}")
    if scale and size:
        raise ValueError(f"enlarge = {scale} needs size = native, not '{config.size}'")


@dataclass(frozen=True)
class TrackerConfig:
    """What follows them."""

    name: str = "centre"
    """A name of `--list`."""
    options: dict = field(default_factory=dict)
    """The tracker's own knobs; for `centre` those of `trackers.centre.CentreOptions`."""


@dataclass(frozen=True)
class OutputConfig:
    """What is written."""

    folder: str = ""
    """Where the outputs go; empty for runs/NAME-OF-THE-SOURCE."""
    overwrite: bool = False
    """Replace the outputs of an earlier run in the same folder."""
    resume: bool = False
    """Go on where the run in the folder stopped, if one was begun there and is not complete."""
    video: bool = True
    """annotated.mp4"""
    coco: bool = True
    """detections.json"""
    mot: bool = True
    """tracks.txt"""
    jsonl: bool = True
    """results.jsonl"""
    zarr: bool = False
    """results.zarr: frames, score maps and detections as arrays."""
    quality: float = 20.0
    """Constant rate factor of the annotated H.264 video: 0 lossless, 51 worst."""
    rotate_every: str = ""
    """90s, 30min, 1h or 1d: after so long on the clock of the machine all files begin anew, as the next
    piece: NAME-000002-20261121T190000Z.EXT. Empty: not by time."""
    rotate_size: str = ""
    """800kB, 500MB or 2GB: when the files of a piece together have reached so much. Empty: not by size."""
    disk_budget: str = ""
    """20GB: all pieces of one source together; closed pieces are deleted for it, the oldest first, never the
    open one. Without a size, pieces are a tenth of it at most. detections.json, which is joined from those of
    the pieces at the end, comes on top. Empty: nothing is deleted."""

    @property
    def rotation(self) -> Rotation | None:
        """How the files are to be parted; None where they are not."""
        keys = ("rotate_every", "rotate_size", "disk_budget")
        return rotation(**{key: getattr(self, key) for key in keys})

    def __post_init__(self):
        if self.rotation and self.resume:
            remedy = "leave --rotate-every, --rotate-size and --disk-budget out"
            raise ValueError(f"--resume goes on with whole files, not with pieces; {remedy}")
        if not 0 <= self.quality <= 51:
            raise ValueError(f"quality = {self.quality}, expected 0 to 51")
        if self.overwrite and self.resume:
            raise ValueError("overwrite and resume exclude each other; leave one out")


@dataclass(frozen=True)
class ServiceConfig:
    """How a run that goes on for long is watched from outside."""

    health_port: int = 0
    """TCP port on which /healthz and /metrics are answered, over HTTP and without a login; 0: none."""
    health_host: str = "127.0.0.1"
    """Address of the interface to listen on. 0.0.0.0 lets everybody ask who reaches this machine."""
    stalled_after: float = 30.0
    """Seconds without a result after which /healthz answers 503."""

    def __post_init__(self):
        if not 0 <= self.health_port <= 65535:
            raise ValueError(f"health_port = {self.health_port}, expected 1 to 65535, or 0 for none")
        if not self.health_host:
            raise ValueError("health_host is empty, expected an address such as 127.0.0.1 or 0.0.0.0")
        if not 0 < self.stalled_after < math.inf:
            raise ValueError(f"stalled_after = {self.stalled_after}, expected seconds, more than 0")


@dataclass(frozen=True)
class RunConfig:
    """One run of the pipeline."""

    source: SourceConfig = field(default_factory=SourceConfig)
    live: LiveConfig = field(default_factory=LiveConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    service: ServiceConfig = field(default_factory=ServiceConfig)
    annotate: dict = field(default_factory=dict)
    """What is drawn: the fields of `pipeline.drawing.annotator.AnnotatorOptions`."""
