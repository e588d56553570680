"""From source pixels to network pixels and exactly back.

One object serves training, evaluation and live use. Both pixel planes have their origin at the outer corner
of the top-left pixel, so a box maps by scale and offset alone, at sub-pixel accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

MULTIPLE = 32
"""Network inputs are multiples of this in both directions."""
GREY = 128 / 255
"""Letterbox border as a share of full scale; networks published for letterboxed input learned with it."""


@dataclass(frozen=True)
class Geometry:
    """How a source picture lies in the network's input. All sizes are (width, height)."""

    source: tuple[int, int]
    """Size of the source picture."""
    network: tuple[int, int]
    """Size of the network input."""
    content: tuple[int, int]
    """Size to which the source picture is resized."""
    offset: tuple[int, int] = (0, 0)
    """Left and top of the content inside the network input."""
    border: Literal["grey", "edge"] = "grey"
    """What surrounds the content: 128 of 255, or the content's edge repeated."""

    @classmethod
    def stretch(cls, source: tuple[int, int], network: tuple[int, int]) -> Geometry:
        """Fill the network input, changing the aspect."""
        return cls(source, network, network)

    @classmethod
    def letterbox(cls, source: tuple[int, int], network: tuple[int, int]) -> Geometry:
        """Keep the aspect, centre on grey; the content's size is truncated to whole pixels."""
        scale = min(network[0] / source[0], network[1] / source[1])
        content = tuple(max(1, int(side * scale)) for side in source)
        offset = tuple((whole - part) // 2 for whole, part in zip(network, content, strict=True))
        return cls(source, network, content, offset)

    @classmethod
    def native(cls, source: tuple[int, int], *, scale: float = 1.0, multiple: int = MULTIPLE) -> Geometry:
        """Keep every pixel as it is, or `scale` for each; repeat right and bottom edge up to a multiple."""
        content = tuple(max(1, round(side * scale)) for side in source)
        network = tuple(-(-side // multiple) * multiple for side in content)
        return cls(source, network, content, border="edge")

    @property
    def scale(self) -> np.ndarray:
        """(2,) float64 network pixels per source pixel along x and y."""
        return np.array(self.content) / np.array(self.source)

    def to_network(self, boxes: np.ndarray) -> np.ndarray:
        """(N, 4) x1 y1 x2 y2 in source pixels → the same boxes in network pixels."""
        return boxes * np.tile(self.scale, 2) + np.tile(self.offset, 2)

    def to_source(self, boxes: np.ndarray) -> np.ndarray:
        """(N, 4) x1 y1 x2 y2 in network pixels → the same boxes in source pixels."""
        return (boxes - np.tile(self.offset, 2)) / np.tile(self.scale, 2)

    def apply(self, image: np.ndarray, *, full_scale: int = 255) -> np.ndarray:
        """(h, w) or (h, w, 3) source picture → (H, W) or (H, W, 3) network picture on the same scale.

        uint8 stays uint8; uint16 stays as it is where nothing is resized, else becomes float32 without
        rounding. Raises ValueError for a picture of another size.
        """
        if image.shape[1::-1] != self.source:
            raise ValueError(f"picture is {image.shape[1]}x{image.shape[0]}, expected {self.source}")
        if self.content != self.source:
            image = resize(image, self.content)
        if self.content == self.network:
            return image
        left, top = self.offset
        right, bottom = (w - c - o for w, c, o in zip(self.network, self.content, self.offset, strict=True))
        margins = [(top, bottom), (left, right), (0, 0)][: image.ndim]
        if self.border == "edge":
            return np.pad(image, margins, mode="edge")
        return np.pad(image, margins, constant_values=round(GREY * full_scale))


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic with antialiasing when shrinking, to (width, height).

    uint8 gives uint8, equal to what Pillow gives (the published networks were trained on that); uint16 gives
    float32, not rounded, clipped to the input's range.
    """
    from PIL import Image

    if image.dtype == np.uint8:
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    planes = image[..., None] if image.ndim == 2 else image
    resized = [
        np.asarray(Image.fromarray(plane.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
        for plane in np.moveaxis(planes, -1, 0)
    ]
    result = np.stack(resized, axis=-1).clip(image.min(), image.max())
    return result[..., 0] if image.ndim == 2 else result


def fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture (h, w) or (h, w, 3) as one of `size` (width, height), its aspect kept, its edges spread."""
    (width, height), (rows, columns) = size, image.shape[:2]
    scale = min(width / columns, height / rows)
    inner = max(1, round(columns * scale)), max(1, round(rows * scale))
    scaled = cv2.resize(image, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    right, bottom = width - inner[0] - left, height - inner[1] - top
    return cv2.copyMakeBorder(scaled, top, bottom, left, right, cv2.BORDER_REPLICATE)
