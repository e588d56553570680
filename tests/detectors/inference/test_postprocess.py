"""Raw output is decoded to the boxes of the published decoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detectors.inference.postprocess import decode, detections_of, nms, nms_fixed_shape
from detectors.networks.layers.boxes import box_iou
from detectors.networks.tridos.head import decode_boxes, decode_scores
from pipeline.imaging.geometry import Geometry

CASES = {"det_a": "loss_a", "det_b": "loss_a", "det_c": "loss_b", "det_d": "loss_a"}


@pytest.fixture(scope="module")
def arrays(shared_root):
    with np.load(shared_root / "parity" / "tridos.loss.npz") as stored:
        return dict(stored)


def network_output(arrays, name) -> torch.Tensor:
    return torch.from_numpy(arrays[f"{CASES[name]}.raw"])


def placed(arrays, name) -> tuple[Geometry, float, float]:
    """Returns the geometry of a stored case, its score threshold and its IoU threshold."""
    _, height, width, image_height, image_width, letterbox, conf, iou = arrays[f"{name}.meta"].tolist()
    kind = Geometry.letterbox if letterbox else Geometry.stretch
    return kind((int(image_width), int(image_height)), (int(width), int(height))), conf, iou


def random_boxes(seed: int, count: int = 60) -> tuple[torch.Tensor, ...]:
    """Overlapping boxes on whole pixels, so that many scores and overlaps are equal."""
    chance = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 12, (count, 2), generator=chance).float()
    sizes = torch.randint(1, 7, (count, 2), generator=chance).float()
    scores = torch.randint(1, 6, (count,), generator=chance) / 5
    labels = torch.randint(0, 3, (count,), generator=chance)
    return torch.cat([corners, corners + sizes], dim=1), scores, labels


def overlap(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def naive_nms(boxes, scores, labels, iou) -> list[int]:
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):  # sorted keeps the order of equals
        rivals = [k for k in kept if labels[k] == labels[i]]
        if all(overlap(boxes[k], boxes[i]) <= iou for k in rivals):
            kept.append(i)
    return kept


def output_with(cells: dict[tuple[int, int], tuple[float, ...]], side: int = 8, classes: int = 2):
    """Returns raw output without objects except for the given (row, column) → all channels."""
    raw = torch.full((1, 5 + classes, side, side), -20.0)
    for (row, column), values in cells.items():
        raw[0, :, row, column] = torch.tensor(values)
    return raw


# Against the published decoder


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["det_a", "det_c"])
def test_decoded_cells_are_the_published_ones(name, arrays):
    raw, (geometry, _, _) = network_output(arrays, name), placed(arrays, name)
    objectness, classes = decode_scores(raw)
    boxes = decode_boxes(raw) / torch.tensor(geometry.network * 2)
    found = torch.cat([boxes, objectness[..., None], classes], dim=-1)
    assert np.allclose(found.numpy(), arrays[f"{name}.decoded"], rtol=1e-6, atol=1e-6)


@pytest.mark.real_data
@pytest.mark.parametrize("name", CASES)
def test_detections_are_the_published_ones(name, arrays):
    """Boxes within 1e-3 pixels of the original image, scores within 1e-6, labels and order equal."""
    geometry, conf, iou = placed(arrays, name)
    for image, (boxes, scores, labels) in enumerate(decode(network_output(arrays, name), conf=conf, iou=iou)):
        expected = arrays[f"{name}.det{image}"].reshape(-1, 7)
        corners = expected[:, [1, 0, 3, 2]]  # stored as top, left, bottom, right
        assert len(boxes) == len(expected)
        assert np.allclose(geometry.to_source(boxes.double().numpy()), corners, rtol=0, atol=1e-3)
        assert np.allclose(scores.numpy(), expected[:, 4] * expected[:, 5], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(labels.numpy(), expected[:, 6])


# Suppression


@pytest.mark.parametrize("iou", [0.0, 0.25, 0.5, 0.65])
@pytest.mark.parametrize("seed", range(6))
def test_suppression_equals_the_naive_loop(seed, iou):
    boxes, scores, labels = random_boxes(seed)
    expected = naive_nms(boxes.tolist(), scores.tolist(), labels.tolist(), iou)
    assert nms(boxes, scores, labels, iou=iou).tolist() == expected


@pytest.mark.parametrize(
    ("second", "kept"),
    [([0, 0, 2, 4], [0, 1]), ([0, 0, 2.1, 4], [0])],
    ids=["exactly at the threshold", "just above"],
)
def test_a_box_goes_only_above_the_threshold(second, kept):
    boxes = torch.tensor([[0, 0, 4, 4], second], dtype=torch.float32)
    assert nms(boxes, torch.tensor([0.9, 0.8]), torch.zeros(2), iou=0.5).tolist() == kept


def test_of_equal_scores_the_first_stays():
    boxes = torch.tensor([[0.0, 0, 4, 4]]).repeat(3, 1)
    assert nms(boxes, torch.full((3,), 0.5), torch.zeros(3), iou=0.5).tolist() == [0]


def test_classes_do_not_suppress_one_another():
    boxes = torch.tensor([[0.0, 0, 4, 4]]).repeat(4, 1)
    labels = torch.tensor([0, 1, 0, 1])
    assert nms(boxes, torch.tensor([0.5, 0.6, 0.7, 0.4]), labels, iou=0.5).tolist() == [2, 1]


def test_a_suppressed_box_suppresses_nothing():
    boxes = torch.tensor([[0.0, 0, 4, 4], [2.0, 0, 6, 4], [4.0, 0, 8, 4]])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3), iou=0.3).tolist() == [0, 2]


def test_nothing_gives_nothing():
    none = torch.zeros(0)
    assert nms(torch.zeros(0, 4), none, none, iou=0.5).tolist() == []


def test_overlap_of_empty_boxes_is_zero():
    point = torch.tensor([[3.0, 3, 3, 3]])
    assert box_iou(point, point).tolist() == [[0.0]]


# Decoding


def test_a_silent_network_detects_nothing():
    ((boxes, scores, labels),) = decode(output_with({}), conf=0.01, iou=0.5)
    assert (tuple(boxes.shape), tuple(scores.shape), tuple(labels.shape)) == ((0, 4), (0,), (0,))


def test_a_cell_decodes_to_its_box_score_and_label():
    raw = output_with({(2, 5): (0.5, 0.25, 0.0, np.log(2), 2.0, -1.0, 3.0)})
    ((boxes, scores, labels),) = decode(raw, conf=0.5, iou=0.5)
    sigmoid = torch.tensor([2.0, 3.0]).sigmoid()
    assert torch.allclose(boxes, torch.tensor([[40.0, 10, 48, 26]]))  # centre (44, 18), 8×16
    assert torch.allclose(scores, sigmoid.prod(dim=0, keepdim=True))
    assert labels.tolist() == [1]


def test_a_score_at_the_threshold_stays():
    raw = output_with({(0, 0): (0.0, 0.0, 0.0, 0.0, 0.0, 40.0, -20.0)})
    assert len(decode(raw, conf=0.5, iou=0.5)[0][0]) == 1
    assert len(decode(raw, conf=0.5001, iou=0.5)[0][0]) == 0


@pytest.mark.parametrize(
    "broken", [(0, 0, 1000, 0), (0, 0, 0, 100), (float("nan"), 0, 0, 0), (float("inf"), 0, 0, 0)], ids=str
)
def test_boxes_that_overflow_are_dropped(broken):
    raw = output_with({(1, 1): (*broken, 5, 5, -5), (6, 6): (0, 0, 0, 0, 1, 1, -5)})
    ((boxes, _, _),) = decode(raw, conf=0.1, iou=0.5)
    assert torch.allclose(boxes, torch.tensor([[44.0, 44, 52, 52]]))


def test_a_score_that_is_not_a_number_is_dropped():
    raw = output_with({(1, 1): (0, 0, 0, 0, float("nan"), 5, -5)})
    assert len(decode(raw, conf=0.0001, iou=0.5)[0][0]) == 0


def test_the_best_of_too_many_candidates_are_considered():
    chance = torch.Generator().manual_seed(0)
    raw = torch.randn(1, 6, 16, 16, generator=chance) - torch.tensor([0.0, 0, 2, 2, 0, 0]).view(1, 6, 1, 1)
    ((all_boxes, all_scores, _),) = decode(raw, conf=0.0, iou=1.0)
    ((boxes, scores, _),) = decode(raw, conf=0.0, iou=1.0, max_candidates=20)
    torch.testing.assert_close(boxes, all_boxes[:20], rtol=0, atol=0)
    torch.testing.assert_close(scores, all_scores[:20], rtol=0, atol=0)


def test_each_image_of_a_batch_is_decoded_by_itself():
    first = output_with({(2, 2): (0, 0, 0, 0, 3, 3, -3)})
    second = output_with({(2, 2): (0, 0, 0, 0, 2, 2, -3), (5, 5): (0, 0, 0, 0, 2, 2, -3)})
    found = decode(torch.cat([first, second]), conf=0.1, iou=0.5)
    assert [len(boxes) for boxes, _, _ in found] == [1, 2]


@pytest.mark.parametrize("logarithm", [20.0, 60.0, 1e4])
def test_boxes_of_implausible_size_are_dropped(logarithm):
    raw = torch.full((1, 6, 4, 4), 5.0)
    raw[:, :4] = 0.0
    raw[:, 2:4, 1, 1:3] = logarithm
    boxes = decode(raw, conf=0.1, iou=1.0)[0][0]
    assert len(boxes) == 14
    assert boxes.abs().max() < 100


# Fixed output shapes, for a GPU


def crowded(seed, *, images=3, side=8, classes=2):
    """Raw output of images full of boxes that overlap in chains."""
    raw = torch.randn(images, 5 + classes, side, side, generator=torch.Generator().manual_seed(seed))
    raw[:, 2:4] += 1.0  # several cells wide
    return raw


def equal(found, expected):
    return all(
        torch.equal(first, second)
        for ours, theirs in zip(found, expected, strict=True)
        for first, second in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("iou", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_converged_results_equal_those_of_decode(seed, iou):
    raw = crowded(seed)
    settled, expected = nms_fixed_shape(raw, conf=0.2, iou=iou), decode(raw, conf=0.2, iou=iou)
    assert settled.converged.all()
    nothing = torch.full_like(raw, torch.nan)  # no image is decoded again
    assert equal(detections_of(settled, nothing, conf=0.2, iou=iou), expected)
    candidates = decode(raw, conf=0.2, iou=1.0)
    assert 10 < sum(len(boxes) for boxes, *_ in expected) < sum(len(boxes) for boxes, *_ in candidates)


@pytest.mark.parametrize("limits", [{"rounds": 1}, {"max_boxes": 8}], ids=str)
def test_images_that_have_not_converged_are_decoded(limits):
    raw = torch.cat([crowded(0), torch.full((1, 7, 8, 8), -9.0)])
    settled = nms_fixed_shape(raw, conf=0.2, iou=0.1, **limits)
    assert settled.converged.tolist() == [False, False, False, True]
    assert equal(detections_of(settled, raw, conf=0.2, iou=0.1), decode(raw, conf=0.2, iou=0.1))


def test_values_that_are_not_finite_give_no_boxes():
    raw = crowded(0, images=1)
    raw[0, 4, 2:4] = torch.nan
    raw[0, 2, 5] = 99.0
    expected = decode(raw, conf=0.2, iou=0.5)
    assert equal(detections_of(nms_fixed_shape(raw, conf=0.2, iou=0.5), raw, conf=0.2, iou=0.5), expected)


def test_results_are_split_by_number_of_images():
    settled = nms_fixed_shape(crowded(0), conf=0.2, iou=0.5)
    first, second = settled.split([1, 2])
    torch.testing.assert_close(torch.cat([first.scores, second.scores]), settled.scores, rtol=0, atol=0)
    assert len(second.converged) == 2
