"""One image to be scored: the map of a network, the mask, and what all definitions derive from them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.imaging.connected_components import Connectivity, Regions, find_regions

Grey = Literal["half", "background", "wrong"]
"""What mask pixels between 0 and 1 are: targets if above 0.5; background; or wrong in either case, false if
found and missed if not. Masks of 0 and 1 alone give the same under all three."""


@dataclass(frozen=True)
class Cut:
    """A pixel counts as found when it is above the threshold; equal is not enough."""

    threshold: float = 0.5
    relative: bool = False
    """Whether maps are divided by their own maximum before; a map of zeros stays one."""


HALF = Cut()
"""Above 0.5: what a sigmoid makes of logits above 0."""


class Sample:
    """A probability map (H, W), floating point in [0, 1], and a mask (H, W), bool or floating in [0, 1].

    What is derived is kept, so that several definitions cost little more than one. Raises ValueError for
    other shapes and values.
    """

    def __init__(self, probability: np.ndarray, mask: np.ndarray):
        self.scores = _checked("probability", probability)
        """(H, W) float32."""
        self.mask = mask if mask.dtype == bool else _checked("mask", mask)
        """(H, W) bool or float32."""
        if self.scores.shape != self.mask.shape:
            raise ValueError(f"probability is of shape {self.scores.shape}, mask of {self.mask.shape}")
        self._made: dict[Hashable, Any] = {}

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.scores.size

    def values(self, *, relative: bool) -> np.ndarray:
        """(H, W) float32: the map, divided by its own maximum if `relative`."""
        return self._once(("values", relative), lambda: _relative(self.scores) if relative else self.scores)

    def found(self, cut: Cut) -> np.ndarray:
        """(H, W) bool: pixels above the threshold."""
        return self._once(cut, lambda: self.values(relative=cut.relative) > np.float32(cut.threshold))

    def targets(self, grey: Grey) -> np.ndarray:
        """(H, W) bool: pixels that are right when found."""
        return self._once(("targets", grey), lambda: self._above(0.5) if grey == "half" else self._above(1))

    def wanted(self, grey: Grey) -> np.ndarray:
        """(H, W) bool: pixels that are missed when not found; differs from `targets` where grey is wrong."""
        return self.annotated() if grey == "wrong" else self.targets(grey)

    def annotated(self) -> np.ndarray:
        """(H, W) bool: pixels of the mask that are not 0."""
        return self._once("annotated", lambda: self._above(0))

    def found_regions(self, cut: Cut, connectivity: Connectivity) -> Regions:
        """The connected groups of what was found."""
        return self._once((cut, connectivity), lambda: find_regions(self.found(cut), connectivity))

    def target_regions(self, grey: Grey, connectivity: Connectivity) -> Regions:
        """The connected groups of the target's pixels."""
        return self._once((grey, connectivity), lambda: find_regions(self.targets(grey), connectivity))

    def _above(self, level: float) -> np.ndarray:
        """Mask pixels above the level; for level 1 those that reach it."""
        if self.mask.dtype == bool:
            return self.mask
        return self.mask >= 1 if level == 1 else self.mask > level

    def _once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def _relative(scores: np.ndarray) -> np.ndarray:
    highest = scores.max(initial=0)
    return scores / highest if highest else scores


def _checked(name: str, values: np.ndarray) -> np.ndarray:
    """The values as float32. Raises ValueError when they are no picture of numbers from 0 to 1."""
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"{name} is {values.dtype} of shape {values.shape}, expected floating (H, W)")
    if values.size and not (values.min() >= 0 and values.max() <= 1):  # in this form NaN fails, too
        raise ValueError(f"{name} has values from {values.min():g} to {values.max():g}, expected 0 to 1")
    return values.astype(np.float32, copy=False)
