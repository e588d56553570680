"""Synthetic clips of a camera that moves in a known way, with what misleads an estimate of its motion."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from datasets.synthesis.scenery import power_law_noise
from pipeline.imaging.affine import compose, invert

WIDTH, HEIGHT = 320, 256
MARGIN = 384
"""Pixels of scenery around the first frame."""


@dataclass(frozen=True)
class Look:
    """What the camera sees and how it sees it. Grey levels are those of 8 bits."""

    contrast: float = 15.0
    """Standard deviation of the scenery."""
    slope: float = 1.6
    """Slope of its amplitude spectrum: 1.3 is rough ground, 2.5 smooth sky."""
    noise: float = 1.0
    """Standard deviation of the noise of each frame."""
    pattern: float = 0.0
    """Standard deviation of the fixed pattern of the pixels, and of the columns."""
    text: bool = False
    """Whether text and a reticle are burnt into the picture."""
    targets: int = 0
    """Number of bright targets, which move on their own."""
    width: int = WIDTH
    height: int = HEIGHT


PLAIN = Look()


def similarity(x: float = 0.0, y: float = 0.0, *, degrees: float = 0.0, zoom: float = 1.0) -> np.ndarray:
    """Returns a shift (pixels), rotation and zoom about the origin as a (2, 3) matrix."""
    angle = math.radians(degrees)
    a, b = zoom * math.cos(angle), zoom * math.sin(angle)
    return np.array([[a, -b, x], [b, a, y]])


def shaking(rng: np.random.Generator, length: int, *, sigma: float) -> list[np.ndarray]:
    """Returns the poses of a camera that vibrates about one direction by `sigma` pixels."""
    return [similarity(*rng.normal(0, sigma, 2)) for _ in range(length)]


def hand_held(length: int, *, reach: float = 8.0) -> list[np.ndarray]:
    """Returns the poses of a camera that sways by up to `reach` pixels."""
    times = np.arange(length)
    x = 0.6 * np.sin(times / 7) + 0.4 * np.sin(times / 2.9 + 1)
    y = 0.6 * np.sin(times / 9 + 2) + 0.4 * np.sin(times / 3.7)
    return [similarity(*offset) for offset in reach * np.stack([x, y], axis=1)]


def motions(poses: Sequence[np.ndarray], look: Look = PLAIN) -> list[np.ndarray]:
    """Returns the motion from each frame to the next, as `Frame.motion` has it: one less than poses."""
    placed = [_placed(pose, look) for pose in poses]
    return [compose(now, invert(before)) for before, now in pairwise(placed)]


def pictures(poses: Sequence[np.ndarray], look: Look = PLAIN, *, seed: int = 0) -> Iterator[np.ndarray]:
    """Yields the (H, W) uint8 pictures of a camera; a pose maps scenery to picture, about its centre."""
    rng = np.random.default_rng(seed)
    size = look.width, look.height
    rows, columns = look.height + 2 * MARGIN, look.width + 2 * MARGIN
    scenery = power_law_noise(rng, shape=(rows, columns), slope=look.slope, scale=120.0) * look.contrast
    scenery = cv2.GaussianBlur(scenery + np.float32(110), (0, 0), 0.7)
    fixed = rng.normal(0, look.pattern, (look.height, look.width)) + rng.normal(0, look.pattern, look.width)
    places = rng.uniform(0.1, 0.9, (look.targets, 2)) * size
    speeds = rng.uniform(-2, 2, (look.targets, 2))
    to_scenery = similarity(-MARGIN, -MARGIN)
    half = similarity(0.5, 0.5)  # from the index of a pixel to its centre
    for index, pose in enumerate(poses):
        warp = compose(invert(half), compose(_placed(pose, look), compose(to_scenery, half)))
        image = cv2.warpAffine(scenery, warp, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        for place, speed in zip(places, speeds, strict=True):
            _draw_target(image, place + speed * index)
        image += (fixed + rng.normal(0, look.noise, image.shape)).astype(np.float32)
        image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        yield _with_text(image) if look.text else image


def _placed(pose: np.ndarray, look: Look) -> np.ndarray:
    """Returns a pose about the centre of the picture as a map of pixel coordinates."""
    centre = look.width / 2, look.height / 2
    return compose(similarity(*centre), compose(pose, invert(similarity(*centre))))


def _draw_target(image: np.ndarray, place: np.ndarray) -> None:
    """Adds a bright spot of 5 pixels at a place x y, in place."""
    column, row = (math.floor(n) for n in place)
    rows = np.arange(max(row - 6, 0), min(row + 7, image.shape[0]))
    columns = np.arange(max(column - 6, 0), min(column + 7, image.shape[1]))
    squares = (rows[:, None] + 0.5 - place[1]) ** 2 + (columns + 0.5 - place[0]) ** 2
    image[rows[:, None], columns] += (90 * np.exp(-squares / 4)).astype(np.float32)


def _with_text(image: np.ndarray) -> np.ndarray:
    """Burns two lines of text and a reticle into a picture."""
    height, width = image.shape
    for text, place in (("2026-05-04 12:31", (6, 14)), ("AZ 121.4 EL 3.2", (width - 130, height - 8))):
        cv2.putText(image, text, place, cv2.FONT_HERSHEY_PLAIN, 0.9, 255)
    middle = width // 2, height // 2
    cv2.drawMarker(image, middle, 255, cv2.MARKER_CROSS, 40)
    cv2.rectangle(image, (middle[0] - 30, middle[1] - 24), (middle[0] + 30, middle[1] + 24), 255)
    return image
