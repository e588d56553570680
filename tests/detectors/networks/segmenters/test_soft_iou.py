"""The soft IoU loss of single images and of whole batches."""

from __future__ import annotations

import pytest
import torch

from detectors.networks.segmenters.base import Segmenter
from detectors.networks.segmenters.soft_iou import soft_iou_loss

CROSS = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]).view(1, 1, 3, 3)


@pytest.mark.parametrize("per_image", [True, False], ids=["per image", "whole batch"])
def test_a_perfect_map_costs_nothing(per_image):
    assert soft_iou_loss(CROSS, CROSS, per_image=per_image) == 0


def test_the_loss_of_an_empty_map_of_an_empty_image_is_zero():
    nothing = torch.zeros(2, 1, 4, 4)
    assert soft_iou_loss(nothing, nothing, per_image=True) == 0


def test_images_count_alike_one_by_one_and_by_their_targets_in_a_batch():
    target = torch.zeros(2, 1, 4, 4)
    target[0, 0, 0, 0], target[1, 0, :, :] = 1, 1
    missed_small = target * torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    assert soft_iou_loss(missed_small, target, per_image=True).item() == pytest.approx((1 / 2 + 0) / 2)
    assert soft_iou_loss(missed_small, target, per_image=False).item() == pytest.approx(1 - 17 / 18)


def test_half_precision_sums_are_exact():
    target = torch.ones(1, 1, 64, 64, dtype=torch.bfloat16)
    loss = soft_iou_loss(target * 0.5, target, per_image=True)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1 - 2049 / 4097)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="target"):
        soft_iou_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4), per_image=True)


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (4, 4)], ids=["colour", "no batch"])
def test_images_that_are_not_grey_batches_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(B, 1, H, W\)"):
        Segmenter().normalise(torch.zeros(shape))
