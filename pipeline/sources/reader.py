"""The interface of all readers, and the request that they are constructed with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from pipeline.config.schema import SourceConfig
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.system.errors import SourceError


class SourceUnavailable(SourceError):
    """A peer that does not answer or sends nothing, or a camera that is not there; it may come later."""


@dataclass(frozen=True)
class ReadRequest:
    """Which frames to read from a source, and how to interpret them."""

    name: str
    """The location without credentials, for messages and records."""
    config: SourceConfig = field(default_factory=SourceConfig)
    """The frames to read, and the properties that the source itself does not declare."""
    allow_resize: bool = False
    """True if the frame size of a video may change; otherwise a change ends the frames."""

    @property
    def start(self) -> int:
        """Index of the first frame to read."""
        return self.config.start

    @property
    def max_frames(self) -> int | None:
        """Maximum number of frames to read; None for all."""
        return self.config.max_frames or None

    @property
    def rate(self) -> Fraction:
        """Frames per second of sources without presentation times."""
        return Fraction(self.config.rate).limit_denominator(100_000)

    def frame_count(self, total: int) -> int:
        """Returns the number of frames to read from a source that has `total`.

        Raises SourceError if the source has none from `start` on.
        """
        if self.start >= total:
            raise self.start_beyond_end(total)
        left = total - self.start
        return left if self.max_frames is None else min(left, self.max_frames)

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
        self, *, width: int, height: int, total: int | None, stored_bits: int, channels: int = 1
    ) -> SourceInfo:
        """Returns the description of a source without presentation times.

        `total` is its number of frames, None if unknown. Raises SourceError as `frame_count` and `bit_depth`
        do.
        """
        return SourceInfo(
            name=self.name,
            width=width,
            height=height,
            rate=self.rate,
            frame_count=None if total is None else self.frame_count(total),
            bit_depth=self.bit_depth(stored_bits),
            channels=channels,
        )

    def start_beyond_end(self, total: int) -> SourceError:
        """Returns the error for a `start` beyond the last of `total` frames."""
        return SourceError(f"{self.name} has {total} frames, none from index {self.start} on; start earlier")


class Reader(ABC):
    """Reads the frames of one source."""

    info: SourceInfo
    """Known before the first frame; `frame_count` is the number of frames that will be read."""
    pictures: Sequence[str] = ()
    """Path of the image file of each frame, from frame 0; empty if the frames are no image files."""
    corrupt = 0
    """Number of damaged frames skipped so far; their indices are left out."""
    derived_times = 0
    """Number of frames so far without a presentation time, which was derived from the rate."""

    @abstractmethod
    def frames(self) -> Generator[Frame]:
        """Yields the frames; to be called once. Raises SourceLost if the source ends early."""

    def stop(self) -> None:  # noqa: B027 - most readers never wait for long
        """Asks a read in another thread to end soon. Thread-safe."""

    def close(self) -> None:  # noqa: B027 - some readers hold nothing open
        """Closes all files. Must not run during a read; further calls do nothing."""
