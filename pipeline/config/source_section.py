"""Section of the configuration that describes the source, and which of its frames are processed."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from pipeline.config.ranges import require_range
from pipeline.config.units import frame_or_time, parse_named
from pipeline.imaging.intensity_scaling import parse_scaling

MIN_RATE, MAX_RATE = 0.001, 100_000
"""Range of the frame rate of a source, in frames per second."""
MAX_SECONDS = 86400
"""Longest timeout and longest wait between two attempts: one day."""


def parse_size(text: str, *, multiple: int = 1) -> tuple[int, int] | None:
    """Parses '512x384' to (width, height) in pixels; None for 'native'. Raises ValueError for other texts."""
    if text == "native":
        return None
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ValueError(f"size = '{text}', expected native or WxH such as 512x512")
    if int(width) % multiple or int(height) % multiple:
        raise ValueError(f"size = '{text}', expected multiples of {multiple}")
    return int(width), int(height)


@dataclass(frozen=True)
class SourceConfig:
    """The source, and properties of it that its files or streams do not state."""

    start: int | str = 0
    """First frame to process: its index, or a time such as 12.5s or 1:30 that it is shown at or after. Times
    are converted to indices by the frame rate, so in video of variable rate by the mean one; live sources
    have none."""
    end: int | str = 0
    """First frame not to process any more: its index, or a time as for `start`; 0: up to the end."""
    stride: int = 1
    """Process every N-th frame from `start` on. Indices and times stay those of the source."""
    max_frames: int = 0
    """Maximum number of frames to process; 0 for all."""
    rate: float = 30.0
    """Frames per second of images, raw frames and zarr arrays, 0.001 to 100000; videos state their own."""
    format: Literal["auto", "raw", "mpegts", "y4m"] = "auto"
    """auto detects the format. raw: uncompressed samples, rows from top to bottom, frame after frame, in a
    file, standard input or a stream; it needs `size` and `dtype`."""
    size: str = ""
    """Size of raw frames as WxH in pixels; the size requested from a camera."""
    dtype: Literal["", "uint8", "uint16le", "uint16be"] = ""
    """Grey samples of raw frames; the samples requested from a camera."""
    stream: int = 0
    """Number of the video stream to read, from 1, of a video that has several, such as visible and thermal
    light; 0: the first, with a remark if there are others."""
    hwaccel: Literal["none", "cuda"] = "none"
    """cuda: a GPU decodes video files; it is an error if the GPU or the build of PyAV cannot. The images are
    in colour and may differ in the last bit from those that the CPU decodes."""
    header: int = 0
    """Bytes before the first raw frame of a file or of standard input."""
    bits: int = 0
    """Significant bits of a sample, 8 to 16, if fewer than are stored: 14 for images of a 14-bit camera in
    16-bit files. 0: all that are stored."""
    array: str = ""
    """Path of the array within a zarr store with several arrays."""
    scaling: str = "auto"
    """Grey levels that the networks map to 0 and 1: full-range (0 and the maximum of the bit depth), fixed LO
    HI, percentile [LO HI] of each frame, running [LO HI] (percentiles smoothed over time). auto: full-range
    for 8 bits, percentile for more, which rarely fill their scale. Use the scaling of the training. The
    annotated video is not affected."""
    bad_pixels: str = ""
    """Pixels to replace by their surroundings: those that are light in a mask image, or auto, which detects
    single pixels that deviate strongly in frame after frame. Empty for none."""
    offset: str = ""
    """Flat-field image, whose fixed-pattern offset is subtracted from every frame. Empty for none."""
    timeout: float = 10.0
    """Seconds without data, while a stream is opened and later, after which it counts as lost."""
    transport: Literal["tcp", "udp"] = "tcp"
    """Transport of an RTSP source; tcp loses no packets."""
    annotated_as: str = ""
    """Name of the video of the ground truth that shows the source, whatever the source is called. Empty: the
    one that has its name."""

    def __post_init__(self) -> None:
        self._require_frames()
        require_range(self, "stream", low=0, expected="the number of a video stream, from 1, or 0")
        require_range(self, "stride", low=1, expected="1 (every frame) or more")
        require_range(self, "max_frames", low=0, expected="0 (all) or more")
        rates = f"{MIN_RATE} to {MAX_RATE} frames per second"
        require_range(self, "rate", low=MIN_RATE, high=MAX_RATE, expected=rates)
        if self.bits:
            require_range(self, "bits", low=8, high=16, expected="8 to 16, or 0 for all that are stored")
        require_range(self, "header", low=0, expected="0 bytes or more")
        seconds = f"seconds, more than 0 and at most {MAX_SECONDS}"
        require_range(self, "timeout", above=0, high=MAX_SECONDS, expected=seconds)
        if self.size and parse_size(self.size) is None:
            raise ValueError(f"size = '{self.size}' of the source, expected WxH such as 320x256")
        if self.format == "raw" and not (self.size and self.dtype):
            raise ValueError(
                "format = raw needs the size and the samples of its frames: give --source-size and "
                "--source-dtype, such as 320x256 and uint16le"
            )
        parse_scaling(self.scaling)

    def _require_frames(self) -> None:
        """Raises ValueError for values of `start` and `end` that are no frames or hold none between them."""
        for name in ("start", "end"):
            value = getattr(self, name)
            if isinstance(value, str):
                parse_named(name, value, frame_or_time)
            else:
                require_range(self, name, low=0, expected="a frame index from 0")
        start, end = frame_or_time(self.start), frame_or_time(self.end)
        comparable = type(start) is type(end) or not start  # others need the rate of the source
        if (end or isinstance(end, Fraction)) and comparable and start >= end:
            raise ValueError(f"end = {self.end}, expected more than start = {self.start}")

    def frame_size(self) -> tuple[int, int] | None:
        """Returns (width, height) of raw frames; None if no size is given."""
        return parse_size(self.size) if self.size else None
