"""The detection loss equals the published one in value, assignment and gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from detectors.networks.tridos.head import decode_boxes
from detectors.training.detection_loss import (
    assign,
    complete_iou,
    detection_loss,
    focal_loss,
    pairwise_iou,
    wasserstein_loss,
)

BATCHES = ["loss_a", "loss_b"]


@pytest.fixture(scope="module")
def arrays(shared_root):
    with np.load(shared_root / "parity" / "tridos.loss.npz") as stored:
        return dict(stored)


def batch_of(arrays, name):
    """Raw output, objects and labels of a stored batch."""
    rows = zip(arrays[f"{name}.targets"], arrays[f"{name}.num_targets"], strict=True)
    targets = [torch.from_numpy(image[:count]) for image, count in rows]
    objects, labels = [t[:, :4].float() for t in targets], [t[:, 4].long() for t in targets]
    return torch.from_numpy(arrays[f"{name}.raw"].copy()), objects, labels


def assignments(arrays, name):
    raw, objects, labels = batch_of(arrays, name)
    return [assign(*image) for image in zip(raw, decode_boxes(raw), objects, labels, strict=True)]


def random_raw(seed: int, classes: int = 1) -> torch.Tensor:
    return torch.randn(2, 5 + classes, 6, 8, generator=torch.Generator().manual_seed(seed))


NO_OBJECTS = ([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2)


# Against the published network's loss


@pytest.mark.real_data
@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize(
    ("field", "stored"),
    [
        ("total", "total"),
        ("ciou_sum", "ciou_sum"),
        ("nwd_mean", "nwd_mean"),
        ("objectness_sum", "obj_sum"),
        ("class_sum", "cls_sum"),
        ("foreground", "num_fg"),
    ],
)
def test_the_total_and_its_terms_are_the_published_ones(name, field, stored, arrays):
    loss = detection_loss(*batch_of(arrays, name))
    assert float(getattr(loss, field)) == pytest.approx(float(arrays[f"{name}.{stored}"]), rel=1e-6)


@pytest.mark.real_data
@pytest.mark.parametrize("name", BATCHES)
def test_the_same_cells_are_assigned_to_the_same_objects(name, arrays):
    found = assignments(arrays, name)
    np.testing.assert_array_equal(
        torch.stack([a.foreground for a in found]).numpy(), arrays[f"{name}.fg_mask"] > 0
    )
    np.testing.assert_array_equal(
        torch.stack([a.objects for a in found]).numpy(), arrays[f"{name}.matched_gt"]
    )


@pytest.mark.real_data
@pytest.mark.parametrize("name", BATCHES)
def test_the_ious_of_assigned_cells_are_the_published_ones(name, arrays):
    found = torch.stack([a.ious for a in assignments(arrays, name)])
    assert np.abs(found.numpy() - arrays[f"{name}.matched_iou"]).max() < 1e-6


@pytest.mark.real_data
@pytest.mark.parametrize("name", BATCHES)
def test_the_box_term_of_each_cell_is_the_published_one(name, arrays):
    raw, objects, _ = batch_of(arrays, name)
    matches = assignments(arrays, name)
    predicted = torch.cat([b[m.foreground] for b, m in zip(decode_boxes(raw), matches, strict=True)])
    target = torch.cat([o[m.objects[m.foreground]] for o, m in zip(objects, matches, strict=True)])
    loss = 1 - complete_iou(predicted, target).clamp(-1, 1)
    assert np.abs(loss.numpy() - arrays[f"{name}.ciou_each"]).max() < 1e-6


@pytest.mark.real_data
@pytest.mark.parametrize("name", BATCHES)
def test_the_gradient_is_the_published_one(name, arrays):
    raw, objects, labels = batch_of(arrays, name)
    raw.requires_grad_()
    detection_loss(raw, objects, labels).total.backward()
    expected = arrays[f"{name}.grad"]
    assert np.abs(raw.grad.numpy() - expected).max() < 1e-6 * max(1.0, np.abs(expected).max())


@pytest.mark.real_data
def test_the_loss_does_not_change_its_input(arrays):
    raw, objects, labels = batch_of(arrays, "loss_a")
    detection_loss(raw, objects, labels)
    np.testing.assert_array_equal(raw.numpy(), arrays["loss_a.raw"])


# Batches with few objects or none


def test_without_objects_the_loss_is_the_focal_objectness():
    raw = random_raw(0)
    loss = detection_loss(raw, *NO_OBJECTS)
    assert loss.total == focal_loss(raw[:, 4], torch.zeros_like(raw[:, 4])).sum()
    assert loss.foreground == 0
    assert (float(loss.ciou_sum), float(loss.nwd_mean), float(loss.class_sum)) == (0, 0, 0)


def test_without_objects_only_objectness_has_a_gradient():
    raw = random_raw(0).requires_grad_()
    detection_loss(raw, *NO_OBJECTS).total.backward()
    assert raw.grad.isfinite().all()
    assert (raw.grad[:, 4] > 0).all()
    assert not raw.grad[:, [0, 1, 2, 3, 5]].any()


def test_the_class_score_of_a_small_box_can_be_trained_on_its_distance():
    raw = torch.zeros(1, 6, 4, 4)
    raw[0, 2:4] = math.log(3 / 8)  # boxes of 3 pixels at the corners of cells
    target, label = [torch.tensor([[10.0, 8.0, 3.0, 3.0]])], [torch.zeros(1, dtype=torch.int64)]
    sums = {q: detection_loss(raw, target, label, quality=q).class_sum for q in ("iou", "wasserstein")}
    similarity, overlap = math.exp(-2 / 12), 3 / 15
    for quality, worth in (("iou", overlap), ("wasserstein", similarity)):
        expected = focal_loss(torch.zeros(1), torch.tensor([worth])).sum()
        torch.testing.assert_close(sums[quality], expected, rtol=1e-4, atol=1e-5)


def test_an_object_far_outside_the_image_has_no_cells_and_a_finite_loss():
    objects = [torch.tensor([[-300.0, -300.0, 4.0, 4.0]]), torch.zeros(0, 4)]
    loss = detection_loss(random_raw(0), objects, [torch.zeros(n, dtype=torch.int64) for n in (1, 0)])
    assert loss.foreground == 0
    assert loss.total.isfinite()


def test_a_target_smaller_than_a_cell_gets_a_cell():
    objects = [torch.tensor([[33.0, 21.0, 1.0, 1.0]]), torch.zeros(0, 4)]
    loss = detection_loss(random_raw(0), objects, [torch.zeros(n, dtype=torch.int64) for n in (1, 0)])
    assert loss.foreground >= 1


@pytest.mark.parametrize("seed", range(8))
def test_a_cell_is_assigned_to_at_most_one_object(seed):
    chance = torch.Generator().manual_seed(seed)
    raw, count = random_raw(seed, classes=3)[0], 5
    objects = torch.rand(count, 4, generator=chance) * torch.tensor([64.0, 48, 20, 20]) + 1
    match = assign(raw, decode_boxes(raw[None])[0], objects, torch.randint(3, (count,), generator=chance))
    overlaps = pairwise_iou(objects, decode_boxes(raw[None])[0])
    torch.testing.assert_close(match.foreground, match.objects >= 0, rtol=0, atol=0)
    assert match.foreground.any()
    assert match.objects.max() < count
    taken = match.foreground.nonzero().flatten()
    torch.testing.assert_close(match.ious[taken], overlaps[match.objects[taken], taken], rtol=0, atol=0)


def test_the_loss_of_half_precision_output_is_computed_in_single():
    raw = random_raw(3).bfloat16()
    objects, labels = [torch.tensor([[20.0, 20, 8, 8]])] * 2, [torch.zeros(1, dtype=torch.int64)] * 2
    half = detection_loss(raw, objects, labels).total
    assert half.dtype == torch.float32
    assert half == detection_loss(raw.float(), objects, labels).total


# The focal loss


@pytest.mark.parametrize("target", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("logit", [-4.0, -0.5, 0.0, 3.0])
def test_the_focal_loss_is_its_formula_for_soft_targets_too(logit, target):
    p = 1 / (1 + math.exp(-logit))
    entropy = -target * math.log(p) - (1 - target) * math.log(1 - p)
    miss = 1 - (p * target + (1 - p) * (1 - target))
    expected = (0.25 * target + 0.75 * (1 - target)) * entropy * miss**2
    found = focal_loss(torch.tensor(logit), torch.tensor(target))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_without_focus_and_balance_the_focal_loss_is_half_the_cross_entropy():
    logits, targets = torch.linspace(-5, 5, 11), torch.linspace(0, 1, 11)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    assert torch.allclose(focal_loss(logits, targets, alpha=0.5, gamma=0.0), entropy / 2)


def test_the_focal_loss_stays_finite_for_extreme_logits():
    logits = torch.tensor([-200.0, 200.0, -200.0, 200.0])
    assert focal_loss(logits, torch.tensor([0.0, 1.0, 1.0, 0.0])).tolist() == [0, 0, 50, 150]


# IoU and distance


BOXES = torch.tensor([[10.0, 20, 4, 6], [3.0, 3, 1, 1], [100.0, 50, 30, 2]])  # centre x, y, width, height


def test_equal_boxes_have_a_complete_iou_of_one():
    assert torch.allclose(complete_iou(BOXES, BOXES), torch.ones(3))


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        ([12.0, 20, 4, 6], 1 / 3 - 4 / 72),  # half overlap: enclosing box 6×6
        ([10.0, 20, 2, 3], 1 / 4),  # same centre and aspect
        ([20.0, 20, 4, 6], -100 / 232),  # disjoint: enclosing box 14×6
    ],
    ids=["shifted", "half size", "apart"],
)
def test_complete_iou_subtracts_the_relative_centre_distance(predicted, expected):
    assert float(complete_iou(torch.tensor([predicted]), BOXES[:1])) == pytest.approx(expected, abs=1e-6)


def test_complete_iou_subtracts_the_difference_in_aspect_ratio():
    predicted = torch.tensor([[10.0, 20, 6, 4]])
    overlap = 16 / 32
    v = 4 / math.pi**2 * (math.atan(6 / 4) - math.atan(4 / 6)) ** 2
    expected = overlap - v / (1 - overlap + v) * v
    assert float(complete_iou(predicted, BOXES[:1])) == pytest.approx(expected, abs=1e-6)


def test_equal_boxes_have_almost_no_wasserstein_loss():
    """The published loss adds 1e-7 under its square root."""
    assert torch.allclose(wasserstein_loss(BOXES, BOXES), torch.full((3,), math.sqrt(1e-7) / 12), atol=1e-6)


@pytest.mark.parametrize(
    ("shift", "distance"),
    [([3.0, 4, 0, 0], 5.0), ([0.0, 0, 6, 8], 5.0), ([12.0, 0, 0, 0], 12.0), ([0.0, 3, 8, 0], 5.0)],
    ids=["centre", "size", "twelve pixels", "both"],
)
def test_the_wasserstein_similarity_decays_with_the_distance_of_the_distributions(shift, distance):
    found = wasserstein_loss(BOXES + torch.tensor(shift), BOXES)
    assert torch.allclose(found, torch.full((3,), 1 - math.exp(-distance / 12)), atol=1e-6)


def test_pairwise_iou_equals_the_ratio_of_counted_pixels():
    """For boxes on whole pixels, areas are numbers of pixels."""
    chance = np.random.default_rng(0)
    corners = np.sort(chance.integers(0, 12, (20, 2, 2)), axis=1) + np.array([[0, 0], [1, 1]])
    masks = np.zeros((20, 13, 13), dtype=bool)
    for mask, ((x, y), (right, bottom)) in zip(masks, corners, strict=True):
        mask[y:bottom, x:right] = True
    common = (masks[:, None] & masks).sum(axis=(2, 3))
    either = (masks[:, None] | masks).sum(axis=(2, 3))
    centres = np.concatenate([corners.mean(axis=1), corners[:, 1] - corners[:, 0]], axis=1)
    boxes = torch.from_numpy(centres)
    assert np.allclose(pairwise_iou(boxes, boxes).numpy(), common / either, atol=1e-12)


@pytest.mark.parametrize("logarithm", [50.0, 90.0, 1e4])
def test_extreme_sizes_leave_loss_and_gradient_finite(logarithm):
    raw = torch.zeros(1, 6, 4, 4)
    raw[:, 2:4] = logarithm
    raw.requires_grad_()
    objects = [torch.tensor([[16.0, 16.0, 8.0, 6.0]])]
    loss = detection_loss(raw, objects, [torch.zeros(1, dtype=torch.int64)])
    loss.total.backward()
    assert math.isfinite(loss.total.item())
    assert raw.grad.isfinite().all()


def test_nan_in_the_output_makes_the_loss_nan():
    raw = random_raw(0)
    raw[0, 4] = float("nan")
    objects = [torch.tensor([[20.0, 20.0, 10.0, 8.0]])] * 2
    loss = detection_loss(raw, objects, [torch.zeros(1, dtype=torch.int64)] * 2)
    assert loss.total.isnan()
