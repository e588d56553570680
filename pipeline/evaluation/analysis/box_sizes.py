"""Whose sizes follow the picture: those of labels and of found boxes against how far a target stands out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass

import cv2
import numpy as np

from pipeline.evaluation.analysis.error_attribution import Frame, near

AROUND = 8
"""Pixels round a label that show what the background is like."""
SHARE = 0.25
"""A pixel belongs to a target from this share of its contrast on; and from three deviations of the
background on, whichever is more."""
MIN_FRAMES = 3
"""Frames of a video without which it has no medians."""


@dataclass(frozen=True)
class VideoExtents:
    """Medians over the frames of one video whose target stands out and is found, pixels."""

    name: str
    frames: int
    visible: tuple[float, float]
    """Width and height of what stands out from the background."""
    label: tuple[float, float]
    found: tuple[float, float]


@dataclass(frozen=True)
class BoxSizes:
    """All videos; what is left free is the size of a box less that of what stands out."""

    videos: list[VideoExtents]
    label_spread: tuple[float, float]
    """Standard deviation over the videos of what labels leave free, across and down, pixels."""
    found_spread: tuple[float, float]
    label_correlation: float | None
    """Of the logarithms of label and visible width over the videos; None where one of them is constant."""
    found_correlation: float | None

    def as_dict(self) -> dict:
        """Plain numbers, for JSON."""
        return asdict(self)


def visible_size(picture: np.ndarray, box: np.ndarray) -> tuple[int, int] | None:
    """Width and height of what stands out in a labelled box of a grey picture (H, W).

    `box` is left, top, width, height in pixels. Counted are the pixels that differ from the background, the
    median round the box, by `SHARE` of the greatest difference in the box, and that touch the pixel with that
    difference. None where nothing stands out by more than three deviations.
    """
    height, width = picture.shape
    left, top = np.floor(box[:2]).astype(int).clip(0, [width - 1, height - 1])
    right, bottom = np.ceil(box[:2] + box[2:]).astype(int).clip([left + 1, top + 1], [width, height])
    rows = slice(max(top - AROUND, 0), bottom + AROUND)
    columns = slice(max(left - AROUND, 0), right + AROUND)
    part = picture[rows, columns].astype(np.float32)
    inside = np.zeros(part.shape, dtype=bool)
    inside[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = True
    if inside.all():
        return None
    contrast = np.abs(part - np.median(part[~inside]))
    least = 3 * part[~inside].std()
    peak = int(np.argmax(np.where(inside, contrast, -1)))
    if contrast.flat[peak] <= least:
        return None
    mask = contrast >= max(SHARE * contrast.flat[peak], least)
    _, labels, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    fact = facts[labels.flat[peak]]
    return int(fact[cv2.CC_STAT_WIDTH]), int(fact[cv2.CC_STAT_HEIGHT])


def extents_of(
    videos: Iterable[tuple[str, Mapping[int, Frame], Callable[[int], np.ndarray]]], threshold: float
) -> BoxSizes:
    """Sizes in videos, each of a name, its frames by number and what gives the picture of a number.

    A found box is the best of score `threshold` or more whose centre is within 5 pixels of the label's.
    """
    rows = []
    for name, frames, picture_of in videos:
        sizes = [
            row for number, frame in frames.items() for row in _sizes(frame, picture_of(number), threshold)
        ]
        if len(sizes) >= MIN_FRAMES:
            visible, label, found = np.median(sizes, axis=0).tolist()
            rows.append(VideoExtents(name, len(sizes), tuple(visible), tuple(label), tuple(found)))
    visible, label, found = (
        np.array([getattr(row, kind) for row in rows], dtype=float).reshape(-1, 2)
        for kind in ("visible", "label", "found")
    )
    return BoxSizes(
        videos=rows,
        label_spread=_spread(label - visible),
        found_spread=_spread(found - visible),
        label_correlation=_correlation(label[:, 0], visible[:, 0]),
        found_correlation=_correlation(found[:, 0], visible[:, 0]),
    )


def _sizes(frame: Frame, picture: np.ndarray, threshold: float) -> list[np.ndarray]:
    """(3, 2) visible, annotated and found width and height of each target that has all three."""
    truth, found = frame
    target = np.where(found.scores >= threshold, near(truth, found), -1)
    rows = []
    for detection in np.flatnonzero(target >= 0):
        label = truth.boxes[target[detection]]
        visible = None if truth.crowds[target[detection]] else visible_size(picture, label)
        if visible is not None:
            rows.append(np.array([visible, label[2:], found.boxes[detection, 2:]]))
    return rows


def _spread(values: np.ndarray) -> tuple[float, float]:
    """Standard deviations of (V, 2); zeros without videos."""
    across, down = values.std(axis=0).tolist() if len(values) else (0.0, 0.0)
    return across, down


def _correlation(sizes: np.ndarray, visible: np.ndarray) -> float | None:
    if len(sizes) < 2 or np.ptp(sizes) == 0 or np.ptp(visible) == 0:
        return None
    return float(np.corrcoef(np.log(sizes), np.log(visible))[0, 1])
