"""Sequences from single images with masks: the camera drifts and shakes, and targets move independently.

An image is separated into its background, inpainted below the targets, and the light that each target adds.
Each frame is the sum of both, shifted by fractions of a pixel, so that boxes are exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np

from datasets.layouts.mask_folders import mask_to_boxes
from datasets.sequences.clips import VideoSequence

FRAMES = 16
"""Frames of each sequence."""
SKIRT = 3
"""Pixels around the mask that are moved with the target: masks end at half of its intensity."""
SPEEDS = (0.1, 3.0)
"""Minimum and maximum speed of a target in pixels per frame, drawn log-uniformly."""
DRIFT = 2.0
"""Maximum speed of the camera along each axis in pixels per frame."""
SHAKE = 0.6
"""Maximum deviation of the camera from its path along each axis in pixels."""
STATIC = 0.15
"""Share of the sequences in which nothing moves, so that single images are learned, too."""
NOISE = (0.2, 2.0)
"""Minimum and maximum standard deviation of the noise, new in each frame, in grey levels of 255."""


class TargetLight(NamedTuple):
    """The grey levels that a target adds to the background."""

    light: np.ndarray
    """(h, w) float32 grey levels, with a border of zeros of one pixel."""
    corner: tuple[int, int]
    """Column and row of its top-left pixel in the image."""


class MovingFrames:
    """Frames (T, H, W) of an animated image and of its dtype, rendered when they are indexed.

    An index is a number, a slice or a list of numbers. A frame depends only on the seed and its number.

    Args:
        background: (H, W) uint8 or uint16.
        patches: the light of each target.
        camera: (T, 2) shift of the background in pixels (x, y).
        paths: (targets, T, 2) shift of each target in pixels (x, y).
        noise: standard deviation of the noise in grey levels.
        seed: seed of the noise.
    """

    def __init__(
        self,
        background: np.ndarray,
        patches: list[TargetLight],
        camera: np.ndarray,
        paths: np.ndarray,
        *,
        noise: float,
        seed: int,
    ):
        self.shape: tuple[int, ...] = (len(camera), *background.shape)
        self.dtype = background.dtype
        self._background, self._patches, self._camera, self._paths = background, patches, camera, paths
        self._noise, self._seed = noise, seed

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self._frame(time) for time in range(len(self)))

    def __getitem__(self, key: Any) -> np.ndarray:
        positions = np.arange(len(self))[key]
        if np.ndim(positions) == 0:
            return self._frame(int(positions))
        rendered = {t: self._frame(t) for t in set(positions.tolist())}  # windows repeat frames
        return np.stack([rendered[t] for t in positions.tolist()])

    def _frame(self, time: int) -> np.ndarray:
        background = self._background.astype(np.float32)
        picture = shift_image(background, self._camera[time], border=cv2.BORDER_REFLECT_101)
        for patch, path in zip(self._patches, self._paths, strict=True):
            _add(picture, patch, path[time])
        rng = np.random.default_rng([self._seed, time])
        picture += rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(self._noise)
        return np.rint(picture).clip(0, np.iinfo(self.dtype).max).astype(self.dtype)


def shift_image(picture: np.ndarray, step: np.ndarray, *, border: int) -> np.ndarray:
    """Returns an (H, W) float32 image moved by (x, y) pixels with bilinear interpolation."""
    matrix = np.array([[1, 0, step[0]], [0, 1, step[1]]], dtype=np.float32)
    return cv2.warpAffine(picture, matrix, picture.shape[::-1], flags=cv2.INTER_LINEAR, borderMode=border)


def _add(picture: np.ndarray, patch: TargetLight, step: np.ndarray) -> None:
    """Adds the light of a target, moved by (x, y) pixels, to the (H, W) image in place; clipped."""
    whole = np.floor(step).astype(int)
    light = shift_image(patch.light, step - whole, border=cv2.BORDER_CONSTANT)
    left, top = whole + patch.corner
    rows = slice(max(top, 0), max(top + light.shape[0], 0))
    columns = slice(max(left, 0), max(left + light.shape[1], 0))
    place = picture[rows, columns]
    down, right = max(-top, 0), max(-left, 0)
    place += light[down : down + place.shape[0], right : right + place.shape[1]]


def separate_targets(
    picture: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, list[TargetLight], np.ndarray]:
    """Separates the background and the targets of an (H, W) uint8 or uint16 image with an (H, W) bool mask.

    Returns the background (H, W) of the same dtype, the light of the targets, and (N, 5) float64 rows of the
    box of a group of the mask and the index of its light. Background and light sum to the image. Groups that
    touch when dilated by `SKIRT` have one light and move together.
    """
    size = 2 * SKIRT + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    grown = cv2.dilate(mask.astype(np.uint8), disc)
    background = np.rint(inpaint(picture.astype(np.float32), grown.astype(bool))).astype(picture.dtype)
    extra = picture.astype(np.float32) - background
    count, groups, places, _ = cv2.connectedComponentsWithStats(grown, connectivity=8)
    patches = []
    for number in range(1, count):
        left, top, width, height = (int(n) for n in places[number, :4])
        part = np.s_[top : top + height, left : left + width]
        patches.append(
            TargetLight(np.pad(np.where(groups[part] == number, extra[part], 0), 1), (left - 1, top - 1))
        )
    boxes = mask_to_boxes(mask)
    rows = []
    for left, top, right, bottom in boxes.astype(int).tolist():
        own = mask[top:bottom, left:right] * groups[top:bottom, left:right]
        rows.append([left, top, right, bottom, own.max() - 1])
    return background, patches, np.array(rows, dtype=float).reshape(-1, 5)


def inpaint(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fills an (H, W) bool hole of an (H, W) float32 image smoothly from its surroundings."""
    known = (~hole).astype(np.float32)
    result, left = picture * known, hole.copy()
    for sigma in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0):
        if not left.any():
            break
        weight = cv2.GaussianBlur(known, (0, 0), sigma)
        smooth = cv2.GaussianBlur(picture * known, (0, 0), sigma) / np.maximum(weight, 1e-6)
        here = left & (weight > 0.05)
        result[here] = smooth[here]
        left &= ~here
    result[left] = picture[~hole].mean() if (~hole).any() else 0.0
    return result


def animate_still(
    name: str, picture: np.ndarray, mask: np.ndarray, *, seed: int, frames: int = FRAMES
) -> VideoSequence:
    """Returns a sequence of `frames` frames from an (H, W) uint8 or uint16 image and its (H, W) bool mask.

    Boxes are those of the groups of the mask and move with them; targets whose centre is outside the image
    have none. In the last frame everything is in its place. The same seed gives the same sequence.
    """
    rng = np.random.default_rng(seed)
    background, patches, parts = separate_targets(picture, mask)
    since = np.arange(frames)[:, None] - (frames - 1)
    camera = since * rng.uniform(-DRIFT, DRIFT, 2) * (rng.random() < 0.7)
    camera = camera + rng.uniform(-SHAKE, SHAKE, (frames, 2)) * rng.random() * (since < 0)
    paths = np.array([camera + _path(since, rng) for _ in patches]).reshape(-1, frames, 2)
    if rng.random() < STATIC:
        camera, paths = np.zeros_like(camera), np.zeros_like(paths)
    full = np.iinfo(picture.dtype).max
    noise = rng.uniform(*NOISE) * full / 255
    moving = MovingFrames(background, patches, camera, paths, noise=noise, seed=seed)
    boxes = tuple(_boxes_at(parts, paths, time, mask.shape) for time in range(frames))
    return VideoSequence(name, moving, boxes, tuple(np.zeros(len(b), dtype=np.int64) for b in boxes))


def _path(since: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns (T, 2) offsets of a target: constant speed and a slow turn; 0 in the last frame."""
    speed = np.exp(rng.uniform(*np.log(SPEEDS)))
    heading = rng.uniform(0, 2 * np.pi) + since[:, 0] * rng.uniform(-0.06, 0.06)
    steps = speed * np.stack([np.cos(heading), np.sin(heading)], axis=1)
    travelled = np.cumsum(steps, axis=0)
    return travelled - travelled[-1]


def _boxes_at(parts: np.ndarray, paths: np.ndarray, time: int, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the boxes (N, 4) float32 of a frame; rows of `parts` are a box and the index of its path."""
    steps = paths[parts[:, 4].astype(int), time]
    boxes = parts[:, :4] + np.tile(steps, (1, 2))
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres >= 0) & (centres < shape[::-1])).all(axis=1)
    return boxes[inside].astype(np.float32)
