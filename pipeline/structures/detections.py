"""Detections, segments and score maps of one frame, as read-only arrays checked on construction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np


@dataclass(frozen=True, eq=False, repr=False)
class BoxRows:
    """A struct of arrays with one row per box; the base of `Detections` and `Tracks`.

    Arrays are copied, converted to the documented dtypes and made read-only. Raises ValueError for arrays of
    other shapes and for boxes that are not finite or not ordered.
    """

    boxes: np.ndarray
    """(N, 4) float32: x1 y1 x2 y2 in source pixels, right and bottom exclusive."""
    scores: np.ndarray
    """(N,) float32."""
    labels: np.ndarray
    """(N,) int64: class index from 0."""

    def __post_init__(self) -> None:
        self._coerce("boxes", np.float32, (4,))
        self._coerce("scores", np.float32, ())
        self._coerce("labels", np.int64, ())
        if not np.isfinite(self.boxes).all():
            raise ValueError("boxes hold NaN or infinite values")
        if (self.boxes[:, 2:] < self.boxes[:, :2]).any():
            raise ValueError("boxes must satisfy x1 <= x2 and y1 <= y2")

    def _coerce(self, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
        """Makes a field a read-only array of `dtype`; raises ValueError if its shape is not (N, *shape)."""
        count = np.shape(self.boxes)[0] if np.ndim(self.boxes) else 0
        array: np.ndarray = np.array(getattr(self, name), dtype=dtype)
        if array.shape != (count, *shape):
            raise ValueError(f"{name} has shape {array.shape}, expected {(count, *shape)}")
        array.setflags(write=False)
        object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: Any) -> Self:
        """Returns the rows of a slice, an index array or a boolean mask; ValueError for a single index."""
        selected: dict[str, Any] = {}
        for field in fields(self):
            array = getattr(self, field.name)
            selected[field.name] = None if array is None else array[rows]
        return type(self)(**selected)

    def __repr__(self) -> str:
        scores = f", scores {self.scores.min():.2f} to {self.scores.max():.2f}" if len(self) else ""
        return f"{type(self).__name__}({len(self)} boxes{scores})"


@dataclass(frozen=True, eq=False, repr=False)
class Detections(BoxRows):
    """Boxes detected in one frame, by descending score unless stated otherwise.

    Scores lie in [0, 1]; raises ValueError for others, and for masks of another shape.
    """

    masks: np.ndarray | None = None
    """(N, H, W) bool at source resolution; None if the detector makes no masks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise ValueError("scores must lie in 0 to 1")
        if self.masks is not None:
            self._coerce("masks", np.bool_, np.shape(self.masks)[1:])
            if self.masks.ndim != 3:
                raise ValueError(f"{self.masks.shape = }, expected (N, H, W)")

    @classmethod
    def empty(cls) -> Detections:
        """Returns no detections."""
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros(0))


@dataclass(frozen=True, eq=False)
class Segments:
    """The segments of one frame: connected components of the pixels that a segmenter marked.

    Raises ValueError if the regions do not fit the components.
    """

    regions: np.ndarray
    """(H, W) int32 at source resolution: 0 for the background, k + 1 for the pixels of component k."""
    components: Detections
    """One row per component, by descending score: its bounding box and its score."""

    def __post_init__(self) -> None:
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
        """Yields the mask of each component: (H, W) bool."""
        return (self.regions == number for number in range(1, len(self) + 1))


@dataclass(frozen=True, eq=False)
class ScoreMap:
    """A network's scores on a regular grid of cells over one frame, before suppression."""

    values: np.ndarray
    """(h, w) float16 in [0, 1]."""
    cell: tuple[float, float]
    """Width and height of a cell in source pixels."""
    origin: tuple[float, float]
    """x and y of the upper left corner of the first cell, in source pixels."""
    meaning: str
    """A description of the values."""
