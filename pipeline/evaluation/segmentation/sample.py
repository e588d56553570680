"""One image to score: probability map, mask, and the arrays that the metrics derive from them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.imaging.connected_components import Connectivity, Regions, find_regions

GreyPolicy = Literal["half", "background", "wrong"]
"""Mask pixels between 0 and 1: `half`, target above 0.5; `background`; `wrong`, an error either way:
a false positive if predicted, a false negative if not. Binary masks give the same under all three."""


@dataclass(frozen=True)
class ThresholdRule:
    """A pixel is predicted as target if its probability is above the threshold."""

    threshold: float = 0.5
    relative: bool = False
    """Whether a map is divided by its own maximum first; a map of zeros stays as it is."""


ABOVE_HALF = ThresholdRule()
"""Probability above 0.5, which is a logit above 0."""


class Sample:
    """A probability map and a mask of equal size. Derived arrays are cached and shared by all definitions.

    Args:
        probability: (H, W) floating point in [0, 1].
        mask: (H, W) bool, or floating point in [0, 1].

    Raises:
        ValueError: other shapes, dtypes or values.
    """

    def __init__(self, probability: np.ndarray, mask: np.ndarray):
        self.probability = _validate("probability", probability)
        """(H, W) float32."""
        self.mask = mask if mask.dtype == bool else _validate("mask", mask)
        """(H, W) bool or float32."""
        if self.probability.shape != self.mask.shape:
            raise ValueError(f"probability is of shape {self.probability.shape}, mask of {self.mask.shape}")
        self._cache: dict[Hashable, Any] = {}

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.probability.size

    def probabilities(self, *, relative: bool) -> np.ndarray:
        """Returns the map (H, W) float32, divided by its own maximum if `relative`."""
        if not relative:
            return self.probability
        return self._cached("relative", lambda: _divide_by_maximum(self.probability))

    def predicted(self, cut: ThresholdRule) -> np.ndarray:
        """Returns the pixels above the threshold: (H, W) bool."""
        return self._cached(
            cut, lambda: self.probabilities(relative=cut.relative) > np.float32(cut.threshold)
        )

    def targets(self, grey: GreyPolicy) -> np.ndarray:
        """Returns the pixels that are true positives if predicted: (H, W) bool."""
        return self._cached(("targets", grey), lambda: self._above(0.5) if grey == "half" else self._above(1))

    def required(self, grey: GreyPolicy) -> np.ndarray:
        """Returns the pixels that are false negatives if not predicted: (H, W) bool.

        Differs from `targets` for the policy `wrong` only.
        """
        return self.annotated() if grey == "wrong" else self.targets(grey)

    def annotated(self) -> np.ndarray:
        """Returns the mask pixels above 0: (H, W) bool."""
        return self._cached("annotated", lambda: self._above(0))

    def predicted_regions(self, cut: ThresholdRule, connectivity: Connectivity) -> Regions:
        """Returns the connected components of the predicted pixels."""
        return self._cached((cut, connectivity), lambda: find_regions(self.predicted(cut), connectivity))

    def target_regions(self, grey: GreyPolicy, connectivity: Connectivity) -> Regions:
        """Returns the connected components of the target pixels."""
        return self._cached((grey, connectivity), lambda: find_regions(self.targets(grey), connectivity))

    def _above(self, level: float) -> np.ndarray:
        """Returns the mask pixels above a level, for level 1 those that equal it."""
        if self.mask.dtype == bool:
            return self.mask
        return self.mask >= 1 if level == 1 else self.mask > level

    def _cached(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]


def _divide_by_maximum(values: np.ndarray) -> np.ndarray:
    highest = values.max(initial=0)
    return values / highest if highest else values


def _validate(name: str, values: np.ndarray) -> np.ndarray:
    """Returns the values as float32. Raises ValueError unless they are (H, W) floating point in [0, 1]."""
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"{name} is {values.dtype} of shape {values.shape}, expected floating (H, W)")
    if values.size and not (values.min() >= 0 and values.max() <= 1):  # in this form NaN fails, too
        raise ValueError(f"{name} has values from {values.min():g} to {values.max():g}, expected 0 to 1")
    return values.astype(np.float32, copy=False)
