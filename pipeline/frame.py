"""What travels along the pipeline: a frame, the detections in it, the tracks through it.

Coordinates everywhere are source pixels with the origin at the outer corner of the top-left pixel, x to
the right and y down; a box x1 y1 x2 y2 has exclusive right and bottom edges, so the pixel in row r and
column c is the box (c, r, c + 1, r + 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum
from fractions import Fraction
from types import MappingProxyType
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
    bridged: bool
    """Whether the frame before shall stand in for those missing; else windows over frames start anew."""
    known: bool
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
    at: float | None = None
    """Frame intervals, by the times of the source; of its first frame the index. None: `index` tells."""
    behind: int | None = None
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


class _Rows:
    """Struct of arrays of equal length: coercion, validation, selection of rows."""

    def _coerce(self, name: str, dtype: type, shape: tuple[int, ...]) -> None:
        """Make a field a read-only array of `dtype`; raise ValueError unless its shape is (N, *shape)."""
        count = np.shape(self.boxes)[0] if np.ndim(self.boxes) else 0
        array = np.array(getattr(self, name), dtype=dtype)
        if array.shape != (count, *shape):
            raise ValueError(f"{name} has shape {array.shape}, expected {(count, *shape)}")
        array.setflags(write=False)
        object.__setattr__(self, name, array)

    def _check_boxes(self) -> None:
        if not np.isfinite(self.boxes).all():
            raise ValueError("boxes hold NaN or infinite values")
        if (self.boxes[:, 2:] < self.boxes[:, :2]).any():
            raise ValueError("boxes must satisfy x1 <= x2 and y1 <= y2")

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows):
        """Rows by slice, index array or boolean mask; always the same type, never a single row."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return type(self)(**{name: None if array is None else array[rows] for name, array in values.items()})


@dataclass(frozen=True, eq=False)
class Detections(_Rows):
    """Boxes found in one frame, best first unless said otherwise."""

    boxes: np.ndarray
    """(N, 4) float32: x1 y1 x2 y2 in source pixels, right and bottom exclusive."""
    scores: np.ndarray
    """(N,) float32 in [0, 1]."""
    labels: np.ndarray
    """(N,) int64: class index from 0."""
    masks: np.ndarray | None = None
    """(N, H, W) bool at source resolution, where a segmenter made them."""

    def __post_init__(self):
        self._coerce("boxes", np.float32, (4,))
        self._coerce("scores", np.float32, ())
        self._coerce("labels", np.int64, ())
        self._check_boxes()
        if not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise ValueError("scores must lie in 0 to 1")
        if self.masks is not None:
            self._coerce("masks", np.bool_, np.shape(self.masks)[1:])
            if self.masks.ndim != 3:
                raise ValueError(f"{self.masks.shape = }, expected (N, H, W)")

    @classmethod
    def empty(cls) -> Detections:
        """No detections."""
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros(0))


class TrackState(IntEnum):
    """Where a track is in its life."""

    TENTATIVE = 0
    """Seen, but not often enough to be believed."""
    CONFIRMED = 1
    """Believed, and seen in this frame."""
    COASTING = 2
    """Believed, but not seen in this frame: its box is a prediction."""


@dataclass(frozen=True, eq=False)
class Tracks(_Rows):
    """The tracks alive in one frame: a second output beside Detections, never a filter on them."""

    boxes: np.ndarray
    """(N, 4) float32: filtered x1 y1 x2 y2 in source pixels, right and bottom exclusive."""
    scores: np.ndarray
    """(N,) float32: score of the last detection that was joined to the track."""
    labels: np.ndarray
    """(N,) int64: class index from 0."""
    ids: np.ndarray
    """(N,) int64: from 1, never used twice within a sequence."""
    state: np.ndarray
    """(N,) int64 values of `TrackState`."""
    velocity: np.ndarray
    """(N, 2) float32: x and y, source pixels per frame interval."""
    age: np.ndarray
    """(N,) int64: frame intervals since the first detection of the track."""

    def __post_init__(self):
        self._coerce("boxes", np.float32, (4,))
        self._coerce("scores", np.float32, ())
        for name in ("labels", "ids", "state", "age"):
            self._coerce(name, np.int64, ())
        self._coerce("velocity", np.float32, (2,))
        self._check_boxes()
        if not np.isin(self.state, list(TrackState)).all():
            raise ValueError(f"unknown track states: {self.state.tolist()}")
        if not np.isfinite(self.velocity).all():
            raise ValueError("velocities hold NaN or infinite values")
        if len(np.unique(self.ids)) != len(self.ids):
            raise ValueError(f"track ids must differ: {self.ids.tolist()}")

    @classmethod
    def empty(cls) -> Tracks:
        """No tracks."""
        none = np.zeros(0)
        return cls(np.zeros((0, 4)), none, none, none, none, np.zeros((0, 2)), none)


@dataclass(frozen=True, eq=False)
class Segments:
    """The groups of pixels that a segmenter marked in one frame."""

    regions: np.ndarray
    """(H, W) int32 at source resolution: 0 where nothing is marked, k + 1 for the pixels of group k."""
    components: Detections
    """One row for each group, best first: the box that just holds its pixels, and its score."""

    def __post_init__(self):
        regions = np.array(self.regions, dtype=np.int32)
        if regions.ndim != 2:
            raise ValueError(f"{regions.shape = }, expected (H, W)")
        count = len(self.components)
        sizes = np.bincount(regions.ravel(), minlength=count + 1)  # ValueError for negative numbers
        if len(sizes) != count + 1 or not sizes[1:].all():
            raise ValueError(f"regions do not hold exactly the numbers 1 to {count}, one for each component")
        regions.setflags(write=False)
        object.__setattr__(self, "regions", regions)

    def __len__(self) -> int:
        return len(self.components)

    def masks(self) -> Iterator[np.ndarray]:
        """(H, W) bool of one group after the other."""
        return (self.regions == number for number in range(1, len(self) + 1))


@dataclass(frozen=True, eq=False)
class ScoreMap:
    """What a network believes of the cells of a grid that lies over one frame."""

    values: np.ndarray
    """(h, w) float16 in [0, 1]."""
    cell: tuple[float, float]
    """Width and height of a cell in source pixels."""
    origin: tuple[float, float]
    """x and y, in source pixels, of the upper left corner of the first cell."""
    meaning: str
    """What the values are, in words."""


@dataclass(frozen=True, eq=False)
class Result:
    """All that is known about one frame when it reaches the sinks."""

    frame: Frame
    detections: Detections
    tracks: Tracks
    warmup: bool
    """True while fewer real frames stood behind this one than the detector's window holds."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds spent on this frame by each stage; a batch's time is shared equally among its frames."""
    segments: Mapping[str, Segments] = field(default_factory=dict)
    """What was marked in this frame, by the name of the segmenter, in the order in which they ran."""
    maps: Mapping[str, ScoreMap] = field(default_factory=dict)
    """Where they are asked for, the maps behind it, by the names of `pipeline.score_maps`."""

    def __post_init__(self):
        size = self.frame.image.shape[:2]
        for name, segments in self.segments.items():
            if segments.regions.shape != size:
                shape = segments.regions.shape
                raise ValueError(f"segments of '{name}' have shape {shape}, expected {size}")
        object.__setattr__(self, "segments", MappingProxyType(dict(self.segments)))
