"""The interface of all readers, and the request that they are constructed with."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from pipeline.config.schema import SourceConfig
from pipeline.config.units import frame_or_time
from pipeline.sources.packets.coded import CodedFile
from pipeline.sources.packets.ring import PacketRing
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.system.errors import SourceError, UsageError


class SourceUnavailable(SourceError):
    """A peer that does not answer or sends nothing, or a camera that is not there; it may come later."""


@dataclass(frozen=True)
class Selection:
    """Which frames of a source are read: every `stride`-th one from `start` on, before `end`."""

    start: int = 0
    """Index of the first frame."""
    end: int | None = None
    """Index before which all frames lie; None for the end of the source."""
    stride: int = 1
    """Difference of the indices of successive frames."""
    max_frames: int | None = None
    """Maximum number of frames; None for all."""

    def __contains__(self, index: int) -> bool:
        return self.start <= index and (index - self.start) % self.stride == 0 and not self.is_past(index)

    def is_past(self, index: int) -> bool:
        """Returns whether no frame of this index or of a later one is read."""
        return self.end is not None and index >= self.end

    def indices(self, total: int) -> range:
        """Returns the indices of the frames that are read of a source that has `total`."""
        last = total if self.end is None else min(self.end, total)
        return range(self.start, last, self.stride)[: self.max_frames]


@dataclass(frozen=True)
class ReadRequest:
    """Which frames to read from a source, and how to interpret them."""

    name: str
    """The location without credentials, for messages and records."""
    config: SourceConfig = field(default_factory=SourceConfig)
    """The frames to read, and the properties that the source itself does not declare."""
    allow_resize: bool = False
    """True if the frame size of a video may change; otherwise a change ends the frames."""
    packets: PacketRing | None = None
    """Gets the coded packets of a stream that can be copied; None if nobody wants them."""

    @property
    def rate(self) -> Fraction:
        """Frames per second of sources without presentation times."""
        return Fraction(self.config.rate).limit_denominator(100_000)

    def selection(self, rate: Fraction | None = None, *, live: bool = False) -> Selection:
        """Returns the frames to read.

        A time stands for the first frame that is shown at it or later, at `rate` frames per second; None for
        that of sources without presentation times. Raises UsageError for times of `live` sources, and if no
        frame is left.
        """
        config, rate = self.config, rate or self.rate
        frames = {}
        for name in ("start", "end"):
            asked = getattr(config, name)
            place = frame_or_time(asked)
            if isinstance(place, Fraction) and live:
                reason = f"{self.name} is live, and its frames have no time from a beginning"
                raise UsageError(f"--{name} {asked}: {reason}; give a number of frames, or --max-frames")
            frames[name] = place if isinstance(place, int) else math.ceil(place * rate)
        start, end = frames["start"], frames["end"] if frame_or_time(config.end) else None
        if end is not None and start >= end:
            both = f"--start {config.start} is frame {start} and --end {config.end} frame {end}"
            raise UsageError(f"{self.name}: no frame is left: {both}")
        return Selection(start, end, config.stride, config.max_frames or None)

    def frame_count(self, total: int, selection: Selection) -> int:
        """Returns the number of frames to read from a source that has `total`.

        Raises SourceError if the source has none from `start` on.
        """
        if selection.start >= total:
            raise self.start_beyond_end(total, selection)
        return len(selection.indices(total))

    def bit_depth(self, stored_bits: int) -> int:
        """Returns the significant bits of samples that are stored in `stored_bits`.

        Raises SourceError if the configuration declares more.
        """
        declared = self.config.bits
        if declared > stored_bits:
            raise SourceError(
                f"{self.name} holds {stored_bits}-bit samples, to which --source-bits {declared} does not fit"
            )
        return declared or stored_bits

    def info(
        self,
        selection: Selection,
        *,
        width: int,
        height: int,
        total: int | None,
        stored_bits: int,
        channels: int = 1,
    ) -> SourceInfo:
        """Returns the description of a source without presentation times.

        `total` is its number of frames, None if unknown, of which `selection` is read. Raises SourceError as
        `frame_count` and `bit_depth` do.
        """
        return SourceInfo(
            name=self.name,
            width=width,
            height=height,
            rate=self.rate,
            frame_count=None if total is None else self.frame_count(total, selection),
            bit_depth=self.bit_depth(stored_bits),
            channels=channels,
        )

    def start_beyond_end(self, total: int, selection: Selection) -> SourceError:
        """Returns the error for a `start` beyond the last of `total` frames."""
        asked = f" ({self.config.start})" if isinstance(frame_or_time(self.config.start), Fraction) else ""
        none = f"none from index {selection.start}{asked} on"
        return SourceError(f"{self.name} has {total} frames, {none}; start earlier")


class Reader(ABC):
    """Reads the frames of one source."""

    info: SourceInfo
    """Known before the first frame; `frame_count` is the number of frames that will be read."""
    selection: Selection = Selection()
    """The frames that will be read."""
    pictures: Sequence[str] = ()
    """Path of the image file of each frame, from frame 0; empty if the frames are no image files."""
    coded: CodedFile | PacketRing | None = None
    """Where the coded packets of the frames are, if copies of them are videos that browsers play."""
    corrupt = 0
    """Number of damaged frames skipped so far; their indices are left out."""
    skipped = 0
    """Number of frames so far that were received and are not among those to read."""
    derived_times = 0
    """Number of frames so far without a presentation time, which was derived from the rate."""

    @abstractmethod
    def frames(self) -> Generator[Frame]:
        """Yields the frames; to be called once. Raises SourceLost if the source ends early."""

    def stop(self) -> None:  # noqa: B027 - most readers never wait for long
        """Asks a read in another thread to end soon. Thread-safe."""

    def close(self) -> None:  # noqa: B027 - some readers hold nothing open
        """Closes all files. Must not run during a read; further calls do nothing."""
