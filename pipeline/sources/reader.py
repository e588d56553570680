"""What is asked of a reader, what every reader offers, and the sizes that none of them accepts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from pipeline.config.schema import SourceConfig
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.system.errors import SourceError


@dataclass(frozen=True)
class Request:
    """What is asked of a source."""

    name: str
    """The location without credentials, for messages and records."""
    config: SourceConfig = field(default_factory=SourceConfig)
    """What is to be read of it, and what is declared about it."""
    any_size: bool = False
    """Whether pictures whose size changes within a video are given as they are; else they end the frames."""

    @property
    def start(self) -> int:
        """Index of the first frame to give."""
        return self.config.start

    @property
    def max_frames(self) -> int | None:
        """Number of frames to give at most."""
        return self.config.max_frames or None

    @property
    def rate(self) -> Fraction:
        """Frames per second of sources that do not know their own."""
        return Fraction(self.config.rate).limit_denominator(100_000)

    def count(self, announced: int | None) -> int | None:
        """Number of frames that will be given out of the `announced`; SourceError if `start` leaves none."""
        if announced is None:
            return None
        if self.start >= announced:
            raise self.nothing_left(announced)
        left = announced - self.start
        return left if self.max_frames is None else min(left, self.max_frames)

    def depth(self, stored: int) -> int:
        """Significant bits of samples stored in `stored` bits; SourceError if more are declared."""
        declared = self.config.bits
        if declared > stored:
            raise SourceError(f"{self.name} holds {stored}-bit samples, source.bits = {declared} do not fit")
        return declared or stored

    def info(
        self, *, width: int, height: int, announced: int | None, stored: int, channels: int = 1
    ) -> SourceInfo:
        """What is known of `announced` frames, in samples of `stored` bits, that have no rate of their own.

        Raises SourceError as `count` and `depth` do.
        """
        return SourceInfo(
            name=self.name,
            width=width,
            height=height,
            rate=self.rate,
            frame_count=self.count(announced),
            bit_depth=self.depth(stored),
            channels=channels,
        )

    def nothing_left(self, count: int) -> SourceError:
        """The error for a `start` beyond the last of `count` frames."""
        return SourceError(f"{self.name} has {count} frames, none from index {self.start} on; start earlier")


class Reader(ABC):
    """The frames of one source, whatever it is."""

    info: SourceInfo
    """Known before the first frame; `frame_count` is the number of frames this reader will give."""
    corrupt = 0
    """Coded pictures so far that were damaged and skipped; their indices are left out."""
    derived_times = 0
    """Frames so far without a presentation time, which was derived from the rate."""

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """The frames, once; raises SourceLost where they end before their end."""

    def stop(self) -> None:  # noqa: B027 - most readers never wait for long
        """Called from any thread: a wait for data that another thread is in shall end soon."""

    def close(self) -> None:  # noqa: B027 - and some hold nothing open
        """Close what is held open, while no frame is being read; later calls do nothing."""
