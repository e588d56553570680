"""pipeline.structures.detections."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np


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
