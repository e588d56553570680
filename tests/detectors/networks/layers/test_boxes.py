"""One IoU serves postprocessing and training, bit for bit as each computed it before."""

from __future__ import annotations

import pytest
import torch

from detectors.networks.layers.boxes import box_areas, box_iou
from detectors.training.detection_loss import pairwise_iou


def random_boxes(count, seed):
    """(N, 4) centre x, centre y, width, height, many of them overlapping."""
    chance = torch.Generator().manual_seed(seed)
    return torch.rand(count, 4, generator=chance) * torch.tensor([40.0, 40.0, 12.0, 12.0])


def to_corners(boxes):
    return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], dim=1)


def test_iou_of_boxes_with_known_overlap():
    first = torch.tensor([[0.0, 0, 4, 4], [10, 10, 12, 12]])
    second = torch.tensor([[2.0, 0, 6, 4], [0, 0, 4, 4], [11, 11, 12, 12]])
    expected = torch.tensor([[8 / 24, 1, 0], [0, 0, 1 / 4]])
    torch.testing.assert_close(box_iou(first, second), expected)


def test_batches_are_independent():
    first, second = (
        torch.stack([to_corners(random_boxes(5, seed)) for seed in pair]) for pair in ((0, 1), (2, 3))
    )
    each = [box_iou(a, b) for a, b in zip(first, second, strict=True)]
    torch.testing.assert_close(box_iou(first, second), torch.stack(each), rtol=0, atol=0)


def test_boxes_of_negative_sides_are_empty():
    boxes = torch.tensor([[4.0, 4, 0, 8], [0, 0, 2, 3]])
    assert box_areas(boxes).tolist() == [0, 6]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(3))
def test_training_divides_by_the_areas_of_the_given_sides(seed, dtype):
    """Sides recovered from corners are rounded: IoUs would differ in the last bits."""
    first, second = random_boxes(50, seed).to(dtype), random_boxes(70, seed + 10).to(dtype)
    a, b = to_corners(first), to_corners(second)
    overlap = torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])
    intersection = overlap.clamp(min=0).prod(dim=-1)
    union = first[:, None, 2:].prod(dim=-1) + second[:, 2:].prod(dim=-1) - intersection
    assert (intersection > 0).any()
    torch.testing.assert_close(pairwise_iou(first, second), intersection / union, rtol=0, atol=0)
