"""Signs that annotated boxes are meant in another convention than left, top, width, height in pixels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipeline.structures.annotations import VideoRecord
from pipeline.structures.boxes import to_xywh

MIN_BOXES = 5
"""Number of boxes from which on they may be suspected."""
SUSPECT_SHARE = 0.2
"""Share of boxes that reach beyond the image from which on another convention is suspected."""


def suspect_boxes(records: Iterable[VideoRecord]) -> list[str]:
    """Returns one line for each sign that boxes are in another convention; none for fewer than MIN_BOXES.

    The signs: boxes of no size (points); all coordinates in 0 to 1 (parts of the image); and many boxes that
    reach beyond the image, though their four numbers are corners in it (x1 y1 x2 y2).
    """
    boxes, limits = [np.zeros((0, 4))], [np.zeros((0, 2))]
    for record in records:
        for rows in record.boxes:
            if len(rows):
                boxes.append(to_xywh(rows.astype(np.float64)))
                limits.append(np.full((len(rows), 2), (record.width, record.height), dtype=np.float64))
    found = np.concatenate(boxes).round(3)  # float32 has the corners, which the sizes are taken from again
    return _signs(found, np.concatenate(limits))


def _signs(boxes: np.ndarray, limits: np.ndarray) -> list[str]:
    """Takes (N, 4) left, top, width, height as annotated, and (N, 2) widths and heights of their images."""
    total = len(boxes)
    if total < MIN_BOXES:
        return []
    signs = []
    points = int((boxes[:, 2:] == 0).any(axis=1).sum())
    if points:
        signs.append(
            f"{points} of {total} boxes have no size, as points have: no detection can overlap with them; "
            "distances between centres are scored (centre_3px, centre_5px)"
        )
    if (boxes >= 0).all() and (boxes <= 1).all() and ((boxes[:, 2:] > 0) & (boxes[:, 2:] < 1)).any():
        signs.append(
            f"all {total} boxes lie within 0 and 1: they seem to be parts of the image, expected are pixels"
        )
    known = (limits > 0).all(axis=1)
    beyond = known & (boxes[:, :2] + boxes[:, 2:] > limits + 1).any(axis=1)
    corners = (boxes[:, 2:] >= boxes[:, :2]).all(axis=1) & (boxes[:, 2:] <= limits + 1).all(axis=1)
    if corners.all() and known.all() and beyond.mean() >= SUSPECT_SHARE:
        signs.append(
            f"{int(beyond.sum())} of {total} boxes reach beyond the image: they seem to be corners "
            "x1 y1 x2 y2, expected are left, top, width, height"
        )
    elif beyond.mean() >= SUSPECT_SHARE:
        signs.append(
            f"{int(beyond.sum())} of {total} boxes reach beyond the image; expected are left, top, width, "
            "height in pixels"
        )
    return signs
