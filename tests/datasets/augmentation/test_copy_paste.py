"""Copy-paste: a target pasted onto another clip keeps its contrast, its motion and its box."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datasets.augmentation.copy_paste import MARGIN, extract_target, paste_target
from datasets.sequences.clips import Clip

LENGTH, SIDE = 5, 64


def donor(*, step: int = 1, level: int = 60) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns frames and boxes of a 4 × 3 target, 80 levels bright, that moves right by `step` per frame."""
    frames = np.full((LENGTH, SIDE, SIDE), level, np.uint8)
    boxes = [np.array([20 + step * t, 30, 24 + step * t, 33], np.float32) for t in range(LENGTH)]
    for frame, (left, top, right, bottom) in zip(frames, boxes, strict=True):
        frame[int(top) : int(bottom), int(left) : int(right)] += 80
    return frames, boxes


def ground(level: int = 30, boxes=(), dtype=np.uint8) -> Clip:
    rows = np.array(boxes, np.float32).reshape(-1, 4)
    return Clip(np.full((LENGTH, SIDE, SIDE), level, dtype), rows, np.zeros(len(rows), np.int64))


def bright(frame: np.ndarray, level: int) -> list[int]:
    rows, columns = np.nonzero(frame > level + 20)
    return [int(n) for n in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


@pytest.mark.parametrize("seed", range(10))
def test_a_pasted_target_is_where_its_box_says(seed):
    found = paste_target(ground(), extract_target(*donor(), 2), gain=1, rng=np.random.default_rng(seed))
    assert found.labels.tolist() == [2]
    assert bright(found.frames[-1], 30) == found.boxes[0].tolist()
    assert found.frames[-1].max() == 30 + 80


@pytest.mark.parametrize("step", [-2, 0, 3])
def test_a_pasted_target_keeps_its_motion(step):
    found = paste_target(ground(), extract_target(*donor(step=step), 0), gain=1, rng=np.random.default_rng(0))
    lefts = [bright(frame, 30)[0] for frame in found.frames]
    assert np.diff(lefts).tolist() == [step] * (LENGTH - 1)


def test_the_background_of_the_donor_stays_behind():
    patch = extract_target(*donor(level=150), 0)
    found = paste_target(ground(30), patch, gain=1, rng=np.random.default_rng(0))
    assert found.frames.min() == 30
    assert np.median(found.frames) == 30


def test_gain_scales_the_contrast():
    found = paste_target(ground(), extract_target(*donor(), 0), gain=0.5, rng=np.random.default_rng(0))
    assert found.frames[-1].max() == 30 + 40


def test_sixteen_bits_stay_sixteen():
    frames, boxes = donor()
    wide = frames.astype(np.uint16) * 100
    found = paste_target(
        ground(3000, dtype=np.uint16), extract_target(wide, boxes, 0), gain=1, rng=np.random.default_rng(0)
    )
    assert found.frames.dtype == np.uint16
    assert found.frames[-1].max() == 3000 + 8000


def test_bright_ground_saturates_and_does_not_wrap():
    found = paste_target(ground(240), extract_target(*donor(), 0), gain=1, rng=np.random.default_rng(0))
    assert (found.frames.min(), found.frames.max()) == (240, 255)


def test_the_clip_that_is_pasted_onto_is_left_as_it_was():
    clip = ground()
    paste_target(clip, extract_target(*donor(), 0), gain=1, rng=np.random.default_rng(0))
    assert (clip.frames == 30).all()
    assert not len(clip.boxes)


@pytest.mark.parametrize("seed", range(20))
def test_labelled_targets_are_not_covered(seed):
    taken = [24, 24, 40, 40]
    found = paste_target(
        ground(boxes=[taken]), extract_target(*donor(), 0), gain=1, rng=np.random.default_rng(seed)
    )
    assert (found.frames[-1, 24:40, 24:40] == 30).all()


def test_where_no_place_is_free_nothing_is_pasted():
    clip = ground(boxes=[[0, 0, SIDE, SIDE]])
    assert paste_target(clip, extract_target(*donor(), 0), gain=1, rng=np.random.default_rng(0)) is clip


@pytest.mark.parametrize("left", [MARGIN - 1, SIDE - MARGIN - 3], ids=["left", "right"])
def test_a_target_at_the_edge_is_not_lifted(left):
    frames, boxes = donor(step=0)
    boxes[2] = np.array([left, 30, left + 4, 33], np.float32)
    assert extract_target(frames, boxes, 0) is None


def test_a_target_that_moves_further_than_the_image_is_wide_is_not_pasted():
    clip = ground()
    small = replace(clip, frames=clip.frames[:, :20, :20])
    assert (
        paste_target(small, extract_target(*donor(step=4), 0), gain=1, rng=np.random.default_rng(0)) is small
    )


def test_a_mask_takes_the_pixels_of_the_target():
    frames, boxes = donor()
    patch = extract_target(frames, boxes, 0, frames[-1] > 100)
    clip = replace(ground(), mask=np.zeros((SIDE, SIDE), bool))
    found = paste_target(clip, patch, gain=1, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(found.mask, found.frames[-1] > 50)
    assert not clip.mask.any()


def test_a_clip_with_a_mask_takes_no_target_without_one():
    clip = replace(ground(), mask=np.zeros((SIDE, SIDE), bool))
    assert paste_target(clip, extract_target(*donor(), 0), gain=1, rng=np.random.default_rng(0)) is clip


def test_a_target_of_eight_bits_keeps_its_share_of_the_scale_in_sixteen():
    frames, boxes = donor()
    found = paste_target(
        ground(3000, dtype=np.uint16), extract_target(frames, boxes, 0), gain=1, rng=np.random.default_rng(0)
    )
    assert found.frames[-1].max() == pytest.approx(3000 + 80 * 257, abs=1)
