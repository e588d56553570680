"""Everything a run can be told, with its default. Reading this module is reading the reference.

A configuration is a TOML file with these sections; command-line flags override it, and the resolved values
are written into the run's `run.json`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

LEAST_RATE, HIGHEST_RATE = 0.001, 100_000
"""Frames per second that a source may be given."""


@dataclass(frozen=True)
class SourceConfig:
    """What is read."""

    start: int = 0
    """Index of the first frame to process."""
    max_frames: int = 0
    """Number of frames to process; 0 for all. More than there are means all."""
    rate: float = 30.0
    """Frames per second of a folder of images, 0.001 to 100000; videos know their own."""

    def __post_init__(self):
        if self.start < 0:
            raise ValueError(f"start = {self.start}, expected a frame index from 0")
        if self.max_frames < 0:
            raise ValueError(f"max_frames = {self.max_frames}, expected 0 (all) or more")
        if not LEAST_RATE <= self.rate <= HIGHEST_RATE:
            raise ValueError(f"rate = {self.rate}, expected {LEAST_RATE} to {HIGHEST_RATE} frames per second")


@dataclass(frozen=True)
class DetectorConfig:
    """What finds the targets."""

    name: str = "tridos-nano"
    """A name of `--list`."""
    weights: str = ""
    """A name of `--list` or a file; empty for the detector's default."""
    conf: float = 0.05
    """Least score of a detection, 0 to 1. Everything from here up is written and offered to the tracker; what
    is drawn is decided by annotate.min_score. For COCO evaluation to the last tenth of a point use 0.001."""
    iou: float = 0.5
    """Of two boxes of one class that overlap more than this, only the better is kept. Chosen on drone-ir val:
    AP50 0.746 with 0.5, 0.722 with 0.3; the best F1 is the same, and 0.3 leaves fewer double boxes."""
    size: str = "native"
    """Network input: native keeps every pixel (padded to multiples of 32); WxH, multiples of 32, resizes."""
    fit: Literal["letterbox", "stretch"] = "letterbox"
    """How the picture fills a size of WxH: keeping its aspect on grey, or stretched."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of the network; bf16 and fp16 are faster where the hardware has them."""
    batch: int = 0
    """Frames computed together; 0 chooses 1 on a CPU (lowest latency), 8 on a GPU."""
    threads: int = 0
    """CPU threads of the network; 0 chooses 1 for narrow networks such as tridos-nano and all cores for wide
    ones. Too many: they wait for one another, and decoding, drawing and encoding wait for a core."""

    def __post_init__(self):
        for name in ("conf", "iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)}, expected 0 to 1")
        for name in ("batch", "threads"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}, expected 0 or more")
        self.network_size()

    def network_size(self) -> tuple[int, int] | None:
        """(width, height) of the network input; None for native."""
        if self.size == "native":
            return None
        width, _, height = self.size.partition("x")
        if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
            raise ValueError(f"size = '{self.size}', expected native or WxH such as 512x512")
        if int(width) % 32 or int(height) % 32:
            raise ValueError(f"size = '{self.size}', expected multiples of 32")
        return int(width), int(height)


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
    video: bool = True
    """annotated.mp4"""
    coco: bool = True
    """detections.json"""
    mot: bool = True
    """tracks.txt"""
    jsonl: bool = True
    """results.jsonl"""
    quality: float = 20.0
    """Constant rate factor of the annotated H.264 video: 0 lossless, 51 worst."""

    def __post_init__(self):
        if not 0 <= self.quality <= 51:
            raise ValueError(f"quality = {self.quality}, expected 0 to 51")


@dataclass(frozen=True)
class RunConfig:
    """One run of the pipeline."""

    source: SourceConfig = field(default_factory=SourceConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    annotate: dict = field(default_factory=dict)
    """What is drawn: the fields of `pipeline.annotate.AnnotatorOptions`."""
