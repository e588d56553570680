"""Boxes in another convention than left, top, width, height in pixels are found."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.truth.box_conventions import suspect_boxes
from pipeline.structures.annotations import VideoRecord
from pipeline.structures.boxes import from_xywh

RIGHT = np.array(
    [[63.3, 135.2, 13.4, 9.5], [234, 122, 12, 10], [95.6, 98.7, 12, 12], [300, 240, 20, 16], [150, 90, 9, 9]]
)


def signs(rows: np.ndarray, size: tuple[int, int] = (320, 256)) -> list[str]:
    boxes = from_xywh(rows).astype(np.float32)
    labels = np.zeros(len(boxes), dtype=np.int64)
    return suspect_boxes([VideoRecord("clip", "", *size, {0: 1}, (boxes,), (labels,))])


@pytest.mark.parametrize(
    "rows", [RIGHT, RIGHT[:0], np.array([[0.0, 0, 1, 1]] * 5)], ids=["boxes", "none", "pixel"]
)
def test_boxes_in_pixels_are_not_suspect(rows):
    assert signs(rows) == []


def test_a_single_box_that_reaches_beyond_the_image_is_not_suspect():
    assert signs(np.concatenate([RIGHT, RIGHT, [[310, 10, 20, 5]]])) == []


@pytest.mark.parametrize(
    ("rows", "sign"),
    [
        (np.column_stack([RIGHT[:, :2], RIGHT[:, :2] + RIGHT[:, 2:]]), "corners x1 y1 x2 y2"),
        (RIGHT / [320, 256, 320, 256], "all 5 boxes lie within 0 and 1"),
        (RIGHT * [1, 1, 0, 0], "5 of 5 boxes have no size"),
        (RIGHT * 4, "5 of 5 boxes reach beyond the image; expected"),
    ],
    ids=["corners", "parts", "points", "another size"],
)
def test_boxes_in_another_convention_are_suspect(rows, sign):
    (found,) = signs(rows)
    assert sign in found


def test_few_boxes_are_not_suspect():
    assert signs(RIGHT[:4] * 4) == []


def test_boxes_in_images_of_unknown_size_are_not_suspect():
    assert signs(RIGHT * 4, (0, 0)) == []
