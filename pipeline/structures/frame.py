"""What travels along the pipeline: a frame, the detections in it, the tracks through it.

Coordinates everywhere are source pixels with the origin at the outer corner of the top-left pixel, x to
the right and y down; a box x1 y1 x2 y2 has exclusive right and bottom edges, so the pixel in row r and
column c is the box (c, r, c + 1, r + 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class SourceInfo:
    """What is known about a source before its first frame."""

    name: str
    """The path or address, without credentials."""
    width: int
    """Pixels, after any rotation that the container asks for."""
    height: int
    """Pixels, after any rotation that the container asks for."""
    rate: Fraction
    """Nominal frames per second."""
    frame_count: int | None
    """Number of frames as announced by the container; None where it does not say."""
    bit_depth: int
    """Significant bits per sample: 8 to 16."""
    channels: int
    """1 for grey sources, 3 for colour."""
    live: bool = False
    """True for sources that cannot wait for their reader."""


Event = Literal["lost", "dropped", "reconnect", "jump", "resize", "cut"]
"""What lies between two frames: frames that never came, or were damaged; frames left out since the queue was
full; a new connection to the source; a leap of its clock; pictures of another size; another scene."""


@dataclass(frozen=True)
class Gap:
    """What lies between a frame and the one before it, other than one frame interval."""

    event: Event
    missing: int
    """Frames that are believed to be missing; 0 where their number is not known."""
    repeat_previous: bool
    """Whether the frame before shall stand in for those missing; else windows over frames start anew."""
    elapsed_known: bool
    """Whether the time that passed is known, and the scene the same, so that what moved can be followed."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture as the source gave it."""

    image: np.ndarray
    """(H, W) grey or (H, W, 3) in R, G, B order; uint8, or uint16 for more than 8 bits."""
    index: int
    """Position in the source, from 0."""
    pts: Fraction
    """Presentation time in seconds."""
    source: str
    """Name of the source."""
    bit_depth: int = 8
    """Significant bits per sample: the full scale is 2**bit_depth - 1."""
    levels: tuple[float, float] | None = None
    """Grey levels that the networks take for 0 and 1; None for 0 and the full scale."""
    arrival: float | None = None
    """When its last bytes came in, in seconds of `time.monotonic`; None where the source is not live."""
    connection: int = 0
    """Number of the connection to the source by which it came: it grows where that was lost and made anew."""
    gap: Gap | None = None
    """What lies between it and the frame before; None where that is one frame interval."""
    time_in_frames: float | None = None
    """Frame intervals, by the times of the source; of its first frame the index. None: `index` tells."""
    real_frames_in_window: int | None = None
    """Real frames, itself included, in the window of the detector that ends with it; None if not known."""

    def __post_init__(self):
        if self.image.ndim not in (2, 3) or (self.image.ndim == 3 and self.image.shape[2] != 3):
            raise ValueError(f"{self.image.shape = }, expected (H, W) or (H, W, 3)")
        if self.image.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"{self.image.dtype = }, expected uint8 or uint16")
        if self.index < 0:
            raise ValueError(f"{self.index = }, expected 0 or more")
        if not 1 <= self.bit_depth <= 8 * self.image.dtype.itemsize:
            raise ValueError(f"{self.bit_depth = } does not fit {self.image.dtype}")

    @property
    def height(self) -> int:
        """Rows."""
        return self.image.shape[0]

    @property
    def width(self) -> int:
        """Columns."""
        return self.image.shape[1]

    def __repr__(self) -> str:
        shape = self.image.shape
        return f"Frame({self.source!r}, index={self.index}, pts={float(self.pts):.3f}, image={shape})"
