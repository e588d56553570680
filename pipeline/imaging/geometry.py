"""Invertible mapping between source pixels and network pixels, for images and boxes.

Training, evaluation and live runs use the same `Geometry`. Both pixel planes have their origin at the outer
corner of the top-left pixel, so a box maps by scale and offset alone, with sub-pixel accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

SIZE_MULTIPLE = 32
"""Width and height of network inputs are multiples of this."""
BORDER_GREY = 128 / 255
"""Grey level of letterbox borders as a fraction of full scale, the one that published networks were trained
with."""


@dataclass(frozen=True)
class Geometry:
    """Placement of a source image in the network input. All sizes are (width, height) in pixels."""

    source: tuple[int, int]
    """Size of the source image."""
    network: tuple[int, int]
    """Size of the network input."""
    content: tuple[int, int]
    """Size to which the source image is resized."""
    offset: tuple[int, int] = (0, 0)
    """Left and top margin of the content in the network input."""
    border: Literal["grey", "edge"] = "grey"
    """Padding around the content: grey 128 of 255, or the replicated edge of the content."""

    @classmethod
    def stretch(cls, source: tuple[int, int], network: tuple[int, int]) -> Geometry:
        """Resizes to the whole network input; the aspect ratio changes."""
        return cls(source, network, network)

    @classmethod
    def letterbox(cls, source: tuple[int, int], network: tuple[int, int]) -> Geometry:
        """Resizes with the aspect ratio kept, centred on grey; the content size is truncated to integers."""
        scale = min(network[0] / source[0], network[1] / source[1])
        width, height = (max(1, int(side * scale)) for side in source)
        return cls(source, network, (width, height), ((network[0] - width) // 2, (network[1] - height) // 2))

    @classmethod
    def native(
        cls, source: tuple[int, int], *, scale: float = 1.0, multiple: int = SIZE_MULTIPLE
    ) -> Geometry:
        """Resizes by `scale` alone, and pads right and bottom to multiples of `multiple` by the edge."""
        width, height = (max(1, round(side * scale)) for side in source)
        network = -(-width // multiple) * multiple, -(-height // multiple) * multiple
        return cls(source, network, (width, height), border="edge")

    @property
    def scale(self) -> np.ndarray:
        """Network pixels per source pixel along x and y: (2,) float64."""
        return np.array(self.content) / np.array(self.source)

    def to_network(self, boxes: np.ndarray) -> np.ndarray:
        """Maps boxes (N, 4) x1 y1 x2 y2 from source pixels to network pixels."""
        return boxes * np.tile(self.scale, 2) + np.tile(self.offset, 2)

    def to_source(self, boxes: np.ndarray) -> np.ndarray:
        """Maps boxes (N, 4) x1 y1 x2 y2 from network pixels to source pixels."""
        return (boxes - np.tile(self.offset, 2)) / np.tile(self.scale, 2)

    def apply(self, image: np.ndarray, *, full_scale: int = 255) -> np.ndarray:
        """Resizes and pads a source image (h, w) or (h, w, 3) to (H, W) or (H, W, 3).

        Grey levels keep their scale, of which `full_scale` is the maximum. uint8 stays uint8. uint16 stays
        uint16 if the size does not change, and otherwise becomes float32 without rounding.

        Raises ValueError if the image does not have the size `source`.
        """
        if image.shape[1::-1] != self.source:
            raise ValueError(f"image is {image.shape[1]}x{image.shape[0]}, expected {self.source}")
        if self.content != self.source:
            image = resize_image(image, self.content)
        if self.content == self.network:
            return image
        left, top = self.offset
        right, bottom = (w - c - o for w, c, o in zip(self.network, self.content, self.offset, strict=True))
        margins = [(top, bottom), (left, right), (0, 0)][: image.ndim]
        if self.border == "edge":
            return np.pad(image, margins, mode="edge")
        return np.pad(image, margins, constant_values=round(BORDER_GREY * full_scale))


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an image (h, w) or (h, w, 3) to `size` (width, height): bicubic, antialiased when shrinking.

    uint8 gives uint8, equal to Pillow's result, with which the published networks were trained. uint16 gives
    float32, not rounded, clipped to the range of the input.
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


def fit_to_size(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an image (h, w) or (h, w, 3) to `size` (width, height).

    The aspect ratio is kept, the content is centred, and its edges are replicated into the margins.
    """
    (width, height), (rows, columns) = size, image.shape[:2]
    scale = min(width / columns, height / rows)
    content = max(1, round(columns * scale)), max(1, round(rows * scale))
    resized = cv2.resize(image, content, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = (width - content[0]) // 2, (height - content[1]) // 2
    right, bottom = width - content[0] - left, height - content[1] - top
    return cv2.copyMakeBorder(resized, top, bottom, left, right, cv2.BORDER_REPLICATE)
