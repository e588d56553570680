"""Reference of the configuration of a run: all sections and keys with their defaults.

A configuration is a TOML file with these sections; command-line flags override it, and the resolved values
are written into `run.json`. Constructors raise ValueError for values out of range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from pipeline.config.alarms_section import AlarmsConfig
from pipeline.config.events_section import EventsConfig, RuleConfig, require_known
from pipeline.config.ranges import require_range
from pipeline.config.rotation import Rotation, rotation
from pipeline.config.source_section import MAX_RATE, MAX_SECONDS, MIN_RATE, SourceConfig, parse_size
from pipeline.config.units import byte_count, parse_named, region

__all__ = [
    "MAX_RATE",
    "MAX_SCALE",
    "MAX_SECONDS",
    "MIN_RATE",
    "MIN_SCALE",
    "AlarmsConfig",
    "ComponentsConfig",
    "DetectorConfig",
    "EventsConfig",
    "LiveConfig",
    "OutputConfig",
    "RuleConfig",
    "RunConfig",
    "SegmentationConfig",
    "SegmenterConfig",
    "ServiceConfig",
    "SourceConfig",
    "TrackerConfig",
    "parse_size",
]

MIN_TILE = 32
"""Smallest side of a tile in pixels: networks take multiples of it."""
MIN_SCALE, MAX_SCALE = 0.25, 8.0
"""Range of the enlargement, in network pixels per source pixel."""


@dataclass(frozen=True)
class LiveConfig:
    """Behaviour if frames arrive faster than they are processed, or do not arrive at all."""

    on_full: Literal["auto", "wait", "drop-oldest", "drop-newest"] = "auto"
    """Policy if the queue before the detector is full: wait blocks the source, drop-oldest discards the frame
    that has waited longest, drop-newest the new one. auto: wait for sources that can, such as files, and
    drop-oldest for live sources. Dropped frames are counted."""
    queue: int = 0
    """Size of that queue in frames; 0: 8 if the source waits, 2 if frames are dropped. Larger: fewer drops
    under varying load, but higher latency."""
    reconnect: int | str = 10
    """Maximum number of successive attempts to reopen a lost live source: a number, none or forever. With
    none the end of a live stream ends the run; otherwise it counts as a loss."""
    max_rate: float = 0.0
    """Maximum number of frames per second of a live source that are processed; the others are skipped, which
    is counted, and no loss. 0: all."""
    backoff: float = 0.5
    """Seconds before the first attempt, doubled for each further one."""
    backoff_cap: float = 30.0
    """Maximum number of seconds between attempts. Each wait is shortened by a random part, up to half of it,
    so that many readers do not reconnect to a server at the same moment."""
    on_gap: Literal["repeat", "flush"] = "repeat"
    """What a multi-frame detector does about missing frames. repeat: it repeats the frame before them if they
    are fewer than its window holds. flush: it resets its window. Longer gaps, new connections, changes of
    size and scene cuts reset it in any case."""
    scene_cuts: bool = True
    """Detect scene cuts, where the whole image changes from one frame to the next; tracks end there."""

    def __post_init__(self) -> None:
        require_range(self, "queue", low=0, expected="0 or more frames")
        require_range(self, "max_rate", low=0, high=MAX_RATE, expected="frames per second, or 0 for all")
        if self.reconnect not in ("none", "forever") and not str(self.reconnect).isdecimal():
            raise ValueError(f"reconnect = '{self.reconnect}', expected none, forever or a number")
        if not 0 < self.backoff <= self.backoff_cap <= MAX_SECONDS:
            values = f"backoff = {self.backoff}, backoff_cap = {self.backoff_cap}"
            raise ValueError(f"{values}, expected seconds, more than 0 and backoff not above backoff_cap")

    @property
    def attempts(self) -> float:
        """Maximum number of successive attempts to reopen a lost source; infinite for "forever"."""
        words: dict[int | str, float] = {"none": 0.0, "forever": math.inf}
        return words[self.reconnect] if self.reconnect in words else float(self.reconnect)


@dataclass(frozen=True)
class ComponentsConfig:
    """How the probability map of a segmenter becomes segments: connected components of marked pixels."""

    threshold: float = 0.5
    """A pixel is marked if its probability is above this, 0 to less than 1; marked pixels that touch, also at
    their corners, form one component. Lower: fainter targets are found, and all outlines grow."""
    score: Literal["peak", "mean"] = "peak"
    """Score of a component: the maximum or the mean probability of its pixels. Both are above the threshold,
    so lower thresholds of scores (detector.conf, annotate.min_score, those of the tracker) have no effect."""
    min_area: int = 1
    """Minimum number of pixels of a component."""
    max_count: int = 100
    """Maximum number of components per frame; those with the highest scores are kept. It bounds the output of
    weights that do not fit the scene."""

    def __post_init__(self) -> None:
        require_range(self, "threshold", low=0, below=1)
        require_range(self, "min_area", "max_count", low=1)


@dataclass(frozen=True)
class DetectorConfig:
    """The detector."""

    name: str = "tridos-nano"
    """A name of `--list`, or mmdet:CONFIG.py for a network of mmdet. A segmenter as detector turns its
    segments into boxes."""
    weights: str = ""
    """A name of `--list` or a file; empty for the detector's default."""
    conf: float = 0.05
    """Minimum score of a detection, 0 to 1, to be written and passed to the tracker; annotate.min_score
    decides what is drawn. Use 0.001 for COCO evaluation to the last tenth of a point."""
    classes: tuple[int | str, ...] = ()
    """Names or numbers (from 0) of the classes whose detections are kept, such as ["drone", 2]; others are
    neither written nor tracked. Empty: all classes of the detector."""
    iou: float = 0.5
    """IoU threshold of non-maximum suppression, per class. Chosen on drone-ir val: AP50 0.746 with 0.5, 0.722
    with 0.3; the best F1 is the same, and 0.3 leaves fewer double boxes. Not used by segmenters, whose
    components are disjoint."""
    size: str = "native"
    """Network input: native keeps every pixel (padded to what the network needs); WxH, multiples of 32,
    resizes."""
    enlarge: float = 0.0
    """Network pixels per source pixel of a native size, 0.25 to 8; 0: as the weights were trained."""
    fit: Literal["letterbox", "stretch"] = "letterbox"
    """How an image fills a size of WxH: with its aspect ratio kept, on a grey border, or stretched."""
    flip_averaging: bool = False
    """Only for segmenters: average the map over four mirrored views of the image, at four times the cost."""
    tile: str = "auto"
    """Size of the tiles that the frame is divided into, WxH in pixels: each is computed on its own, so that
    memory and time grow with the area alone, and a target on a seam is found once. none: the whole frame.
    auto: none, unless the memory of the machine does not suffice."""
    tile_overlap: int = 64
    """Pixels that neighbouring tiles share at least; twice the largest target or more."""
    roi: tuple[str, ...] = ()
    """Regions outside of which nothing is computed or found: X,Y,W,H, or a polygon of three or more corners
    such as "0,0 640,0 320,512". Pixels, or shares of the frame if no number is above 1 and one has a decimal
    point. Empty: the whole frame. Coordinates of outputs stay those of the frame."""
    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N; auto uses a CUDA device if there is one."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Floating-point format of the network; bf16 and fp16 are faster if the hardware supports them."""
    compile: bool = False
    """Compile a Tridos network for a GPU with torch.compile and CUDA graphs. It takes minutes for each size
    of input and batch, and needs Triton."""
    backend: Literal["auto", "torch", "onnxruntime", "openvino"] = "auto"
    """Runtime of a network of the Tridos family on the CPU: torch, or another one with graphs that are
    exported once the size of the first frame is known. auto uses the fastest that is installed."""
    cache: str = ""
    """Folder for exported graphs; empty for ~/.cache/mote/exported."""
    cache_limit: str = "4GB"
    """Maximum size of this folder; the graphs that were not used for the longest time are removed. Empty: no
    limit."""
    batch: int = 0
    """Frames per batch; 0: 1 on a CPU and for a live source (lowest latency), else 8, or one of each source
    if there are more than 8."""
    threads: int = 0
    """CPU threads of each network; 0: 1 for narrow networks such as tridos-nano, all cores for wide ones and
    segmenters. Too many: the threads wait for one another, and decoding, drawing and encoding for a core."""
    components: ComponentsConfig = field(default_factory=ComponentsConfig)
    """How the probability map becomes boxes if the detector is a segmenter."""

    def __post_init__(self) -> None:
        require_range(self, "conf", "iou", low=0, high=1)
        require_range(self, "batch", "threads", low=0)
        _require_enlargement(self)
        parse_named("cache_limit", self.cache_limit, byte_count)
        self._require_tiles()
        for text in self.roi:
            parse_named("roi", text, region)

    def _require_tiles(self) -> None:
        """Raises ValueError for tiles that are too small, also for their overlap."""
        require_range(self, "tile_overlap", low=0, expected="0 pixels or more")
        tile = self.tile_size()
        if tile is None:
            return
        if min(tile) < MIN_TILE:
            raise ValueError(f"tile = '{self.tile}', expected sides of {MIN_TILE} pixels or more")
        if min(tile) < 2 * self.tile_overlap:
            sides = f"sides of {2 * self.tile_overlap} pixels or more, twice the overlap"
            raise ValueError(f"tile = '{self.tile}', expected {sides} (--tile-overlap)")

    def tile_size(self) -> tuple[int, int] | None:
        """Returns (width, height) of the tiles; None if the frame is not divided."""
        if self.tile in ("auto", "none"):
            return None
        try:
            return parse_size(self.tile)
        except ValueError as error:
            expected = "auto, none or WxH such as 640x512"
            raise ValueError(f"tile = '{self.tile}', expected {expected}") from error

    def network_size(self) -> tuple[int, int] | None:
        """Returns (width, height) of the network input; None for native."""
        return parse_size(self.size, multiple=32)


@dataclass(frozen=True)
class SegmenterConfig:
    """A segmenter that runs beside the detector, with the device, precision, batch and threads of that."""

    name: str = ""
    """A segmenter of `--list`; required."""
    weights: str = ""
    """A name of `--list` or a file; empty for the segmenter's default."""
    size: str = "native"
    """Network input: native keeps every pixel, WxH resizes; the network decides which sizes are valid."""
    enlarge: float = 0.0
    """Network pixels per source pixel of a native size, 0.25 to 8; 0: as the weights were trained."""
    fit: Literal["letterbox", "stretch"] = "letterbox"
    """How an image fills a size of WxH: with its aspect ratio kept, on a grey border, or stretched."""
    flip_averaging: bool = False
    """Average the map over four mirrored views of the image, at four times the cost."""
    components: ComponentsConfig = field(default_factory=ComponentsConfig)
    """How the probability map becomes segments."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a segmenter has no name; give one of --list")
        _require_enlargement(self)

    def network_size(self) -> tuple[int, int] | None:
        """Returns (width, height) of the network input; None for native."""
        return parse_size(self.size)


@dataclass(frozen=True)
class SegmentationConfig:
    """Single-frame segmenters beside the detector, and the fusion of their segments with its detections."""

    segmenters: tuple[SegmenterConfig, ...] = ()
    """The segmenters in the order in which they run; their segments are drawn and written by their names."""
    fuse: Literal["none", "confirm", "union"] = "none"
    """none: detections are unchanged. confirm: a detection is dropped if no segmenter marks a pixel in its
    box or within `margin` of it; fewer false alarms, but targets that no segmenter sees are lost. union: a
    segment with no pixel in or within `margin` of the box of a detection becomes a detection of class 0 with
    its score, if that is detector.conf or more; if several segmenters mark the same target, the highest score
    counts. More targets, but the false alarms of all networks."""
    margin: int = 2
    """Source pixels by which boxes are enlarged before they are compared with segments, since boxes of small
    targets are a pixel or two off. Too large: clutter beside a target confirms or hides it."""

    def __post_init__(self) -> None:
        require_range(self, "margin", low=0)
        if self.fuse != "none" and not self.segmenters:
            raise ValueError(f"fuse = '{self.fuse}' needs a segmenter; give --segmenter NAME")


def _require_enlargement(config: DetectorConfig | SegmenterConfig) -> None:
    """Raises ValueError if the enlargement is out of range or combined with a size of WxH."""
    size = config.network_size()
    if config.enlarge:
        scales = f"{MIN_SCALE:g} to {MAX_SCALE:g}, or 0 for that of the weights"
        require_range(config, "enlarge", low=MIN_SCALE, high=MAX_SCALE, expected=scales)
    if config.enlarge and size:
        raise ValueError(f"enlarge = {config.enlarge} needs size = native, not '{config.size}'")


@dataclass(frozen=True)
class TrackerConfig:
    """The tracker."""

    name: str = "centre"
    """A name of `--list`."""
    options: dict = field(default_factory=dict)
    """Options of the tracker; for `centre` the fields of `trackers.centre_options.CentreOptions`."""
    camera_motion: Literal["auto", "off"] = "auto"
    """auto: estimate the motion of the camera between frames, so that tracks move with the picture; a camera
    that stands is recognised, and nothing changes. off: take every camera for one that stands."""


@dataclass(frozen=True)
class OutputConfig:
    """The outputs of a run."""

    folder: str = ""
    """Folder of the outputs; empty for runs/NAME-OF-THE-SOURCE."""
    overwrite: bool = False
    """Replace the outputs of an earlier run in the same folder."""
    resume: bool = False
    """Continue an interrupted run in the folder, if there is one."""
    video: bool = True
    """annotated.mp4"""
    coco: bool = True
    """detections.json"""
    mot: bool = True
    """tracks.txt"""
    coasting: bool = False
    """Write the predicted boxes of tracks without a detection to tracks.txt, too. They are in results.jsonl
    and in the video in any case."""
    smooth: bool = False
    """At the end, replace the boxes in tracks.txt by smoothed ones, which use what came after each frame,
    too. Tracks then begin with their first detection, and short gaps are interpolated. Only for
    recordings. results.jsonl and the video, written while the run goes on, keep the boxes of that time."""
    jsonl: bool = True
    """results.jsonl"""
    zarr: bool = False
    """results.zarr: frames, score maps and detections as arrays."""
    sinks: tuple[str, ...] = ()
    """Further outputs of the form package.module:Class. Each class is called with the output folder and the
    `SourceInfo`; it makes a sink as `pipeline.sinks.base` describes them. They are not rotated."""
    quality: float = 20.0
    """Constant rate factor of the annotated H.264 video: 0 lossless, 51 worst."""
    rotate_every: str = ""
    """Interval, such as 90s, 30min, 1h or 1d, after which all files are closed and new ones are begun, named
    NAME-000002-20261121T190000Z.EXT. Empty: no rotation by time."""
    rotate_size: str = ""
    """Total size of the open files, such as 800kB, 500MB or 2GB, at which they rotate. Empty: not by size."""
    disk_budget: str = ""
    """Maximum size of all rotated files of one source, such as 20GB: the oldest closed ones are deleted,
    never the open ones. Without rotate_size files rotate at a tenth of it. detections.json, which is merged
    from the rotated files at the end, is not counted. Empty: nothing is deleted."""

    @property
    def rotation(self) -> Rotation | None:
        """The rotation of the files; None if they do not rotate."""
        keys = ("rotate_every", "rotate_size", "disk_budget")
        return rotation(**{key: getattr(self, key) for key in keys})

    def __post_init__(self) -> None:
        if self.rotation and self.resume:
            remedy = "leave --rotate-every, --rotate-size and --disk-budget out"
            raise ValueError(f"--resume cannot continue files that rotate; {remedy}")
        require_range(self, "quality", low=0, high=51)
        if self.smooth and self.rotation:
            remedy = "leave --smooth out, and use mote track RUN --smooth when the run has ended"
            raise ValueError(f"--smooth needs whole tracks, of which files that rotate hold parts; {remedy}")
        if self.smooth and self.coasting:
            raise ValueError("--smooth and --save-coasting exclude each other; leave one out")
        if self.overwrite and self.resume:
            raise ValueError("--overwrite and --resume exclude each other; leave one out")


@dataclass(frozen=True)
class ServiceConfig:
    """Monitoring of a long run over HTTP."""

    health_port: int = 0
    """TCP port of /healthz and /metrics, which need no login; 0: none."""
    health_host: str = "127.0.0.1"
    """Address of the interface to listen on; 0.0.0.0 for all interfaces."""
    stalled_after: float = 30.0
    """Seconds without a result after which /healthz answers with status 503."""

    def __post_init__(self) -> None:
        require_range(self, "health_port", low=0, high=65535, expected="1 to 65535, or 0 for none")
        if not self.health_host:
            raise ValueError("health_host is empty, expected an address such as 127.0.0.1 or 0.0.0.0")
        require_range(self, "stalled_after", above=0, expected="seconds, more than 0")


@dataclass(frozen=True)
class RunConfig:
    """The configuration of one run."""

    source: SourceConfig = field(default_factory=SourceConfig)
    live: LiveConfig = field(default_factory=LiveConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    events: EventsConfig = field(default_factory=EventsConfig)
    alarms: AlarmsConfig = field(default_factory=AlarmsConfig, metadata={"secret": True})
    output: OutputConfig = field(default_factory=OutputConfig)
    service: ServiceConfig = field(default_factory=ServiceConfig)
    annotate: dict = field(default_factory=dict)
    """What is drawn: fields of `pipeline.drawing.annotator.AnnotatorOptions`."""

    def __post_init__(self) -> None:
        self._require_rules_of_receivers()

    def _require_rules_of_receivers(self) -> None:
        """Raises ValueError for receivers of alarms that no event can reach, or that name unknown rules."""
        rules = [rule.name for rule in self.events.active_rules]
        if self.alarms.names and not rules and self.events.enabled == "auto":
            remedy = "add [[events.rules]], or --events for each target that is followed for half a second"
            raise ValueError(f"there are receivers of alarms, but no rule of events; {remedy}")
        if rules:
            require_known("rule of an alarm receiver", self.alarms.wanted_rules, rules)
