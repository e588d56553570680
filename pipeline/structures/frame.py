"""Frames, the gaps between them, and what is known about their source.

Coordinates everywhere are source pixels with the origin at the outer corner of the top-left pixel, x to the
right and y down; a box x1 y1 x2 y2 has exclusive right and bottom edges, so the pixel in row r and column c
is the box (c, r, c + 1, r + 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class SourceInfo:
    """Properties of a source, known before its first frame."""

    name: str
    """The path or address, without credentials."""
    width: int
    """Pixels, after any rotation that the container asks for."""
    height: int
    """Pixels, after any rotation that the container asks for."""
    rate: Fraction
    """Nominal frames per second."""
    frame_count: int | None
    """Number of frames announced by the container; None if it announces none."""
    bit_depth: int
    """Significant bits per sample: 8 to 16."""
    channels: int
    """1 for grey sources, 3 for colour."""
    live: bool = False
    """True for sources that do not wait for their reader, such as cameras and streams."""


Event = Literal["lost", "dropped", "reconnect", "jump", "resize", "cut", "shutter"]
"""Kinds of gaps: frames that were not received or were damaged ("lost"); frames dropped because the queue was
full; a new connection to the source; a jump of its clock; images of another size; a scene cut; the shutter by
which an uncooled camera calibrates itself, open again."""


@dataclass(frozen=True)
class Gap:
    """A discontinuity between a frame and the previous one."""

    event: Event
    missing: int
    """Estimated number of missing frames; 0 if it is unknown."""
    repeat_previous: bool
    """True if the previous frame is repeated for the missing ones; False if temporal windows are reset."""
    elapsed_known: bool
    """True if the elapsed time is known and the scene unchanged, so that tracks can continue."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a source, unscaled. Raises ValueError for images of other shapes and types."""

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
    """Grey levels that the networks map to 0 and 1; None for 0 and the full scale."""
    arrival: float | None = None
    """Arrival of its last bytes in seconds of `time.monotonic`; None if the source is not live."""
    connection: int = 0
    """Number of the connection to the source, incremented with every reconnection."""
    gap: Gap | None = None
    """The discontinuity before this frame; None if exactly `stride` frame intervals lie before it."""
    time_in_frames: float | None = None
    """Time in frame intervals, from presentation times; `index` for the first frame. None: use `index`."""
    stride: int = 1
    """Difference of the indices of successive frames; those between are left out on purpose."""
    real_frames_in_window: int | None = None
    """Number of real frames, this one included, in the temporal window that ends here; None if unknown."""

    motion: np.ndarray | None = None
    """(2, 3) float64: maps pixel coordinates x, y of the previous frame to those of this one, as far as the
    camera moved. None if it stands still, or its motion is unknown."""

    seen: np.ndarray | None = None
    """The image that networks read instead of `image` while the shutter of the camera is closed, the last one
    before it: such a frame shows no scene, and nothing is detected in it. None if the shutter is open."""

    def __post_init__(self) -> None:
        if self.image.ndim not in (2, 3) or (self.image.ndim == 3 and self.image.shape[2] != 3):
            raise ValueError(f"an image of shape {self.image.shape}, expected (H, W) or (H, W, 3)")
        if self.image.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"an image of dtype {self.image.dtype}, expected uint8 or uint16")
        if self.index < 0:
            raise ValueError(f"{self.index = }, expected 0 or more")
        if self.motion is not None and self.motion.shape != (2, 3):
            raise ValueError(f"a motion of shape {self.motion.shape}, expected (2, 3)")
        if not 1 <= self.bit_depth <= 8 * self.image.dtype.itemsize:
            raise ValueError(f"{self.bit_depth = } does not fit {self.image.dtype}")

    @property
    def shutter_closed(self) -> bool:
        """True if the frame shows the closed shutter of the camera."""
        return self.seen is not None

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.image.shape[0]

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.image.shape[1]

    def __repr__(self) -> str:
        shape = self.image.shape
        return f"Frame({self.source!r}, index={self.index}, pts={float(self.pts):.3f}, image={shape})"
