"""Stills in motion show the still in their last frame, and boxes lie on the targets in all others."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.sequences.moving_stills import animate_still, inpaint, separate_targets

HEIGHT, WIDTH = 60, 80


def still(*targets, level=50, light=150, dtype=np.uint8):
    """A flat picture and mask with bright rectangles (left, top, right, bottom)."""
    picture, mask = np.full((HEIGHT, WIDTH), level, dtype), np.zeros((HEIGHT, WIDTH), bool)
    for left, top, right, bottom in targets:
        picture[top:bottom, left:right] = light
        mask[top:bottom, left:right] = True
    return picture, mask


def test_background_and_targets_add_up_to_the_picture():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (HEIGHT, WIDTH)).astype(np.uint8)
    _, mask = still((10, 12, 13, 14), (40, 30, 48, 36), (0, 50, 4, 60))
    background, patches, parts = separate_targets(picture, mask)
    whole = np.pad(background.astype(np.float32), 1)
    for light, (left, top) in patches:
        whole[top + 1 : top + 1 + light.shape[0], left + 1 : left + 1 + light.shape[1]] += light
    np.testing.assert_array_equal(whole[1:-1, 1:-1], picture)
    assert len(patches) == 3
    assert sorted(parts[:, 4]) == [0, 1, 2]


def test_targets_that_touch_when_grown_move_as_one():
    picture, mask = still((10, 10, 13, 13), (15, 10, 18, 13))
    _, patches, parts = separate_targets(picture, mask)
    assert len(patches) == 1
    assert parts[:, 4].tolist() == [0, 0]


def test_a_hole_is_filled_from_its_surroundings():
    slope = np.tile(np.arange(WIDTH, dtype=np.float32), (HEIGHT, 1))
    hole = np.zeros((HEIGHT, WIDTH), bool)
    hole[20:30, 40:50] = True
    spoiled = np.where(hole, 255, slope).astype(np.float32)
    assert np.abs(inpaint(spoiled, hole) - slope).max() < 6
    np.testing.assert_array_equal(inpaint(spoiled, hole)[~hole], slope[~hole])


def test_the_last_frame_shows_the_still():
    picture, mask = still((30, 30, 34, 33))
    moving = animate_still("a", picture, mask, seed=5)
    assert np.abs(moving.frames[-1].astype(int) - picture).mean() < 2.0
    np.testing.assert_array_equal(moving.boxes[-1], [[30, 30, 34, 33]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("seed", range(4))
def test_boxes_follow_the_light(seed, dtype):
    scale = 1 if dtype == np.uint8 else 256
    picture, mask = still((40, 30, 44, 33), level=50 * scale, light=150 * scale, dtype=dtype)
    moving = animate_still("a", picture, mask, seed=seed)
    assert moving.frames.dtype == dtype
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    for frame, boxes in zip(moving.frames, moving.boxes, strict=True):
        if not len(boxes):
            continue
        ((left, top, right, bottom),) = boxes
        if left < 4 or top < 4 or right > WIDTH - 4 or bottom > HEIGHT - 4:
            continue
        light = (frame.astype(float) - 50 * scale).clip(20 * scale) - 20 * scale
        centre = [(light * axis).sum() / light.sum() for axis in (columns, rows)]
        np.testing.assert_allclose(centre, [(left + right) / 2, (top + bottom) / 2], atol=0.5)


def test_frames_depend_on_the_seed_alone():
    picture, mask = still((40, 30, 44, 33), (10, 10, 12, 12))
    first, again, other = (animate_still("a", picture, mask, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.frames[3], again.frames[[5, 3]][1])
    np.testing.assert_array_equal(first.frames[2:5], np.stack([again.frames[n] for n in (2, 3, 4)]))
    assert not np.array_equal(first.frames[3], other.frames[3])


def test_a_still_without_targets_moves_too():
    picture, mask = still()
    moving = animate_still("a", picture, mask, seed=1, frames=7)
    assert len(moving) == 7
    assert all(boxes.shape == (0, 4) for boxes in moving.boxes)
    assert moving.frames[:].shape == (7, HEIGHT, WIDTH)


def test_a_target_that_leaves_the_picture_has_no_box_there():
    picture, mask = still((0, 0, 3, 3), (77, 57, 80, 60))
    for seed in range(20):
        for boxes in animate_still("a", picture, mask, seed=seed).boxes:
            centres = (boxes[:, :2] + boxes[:, 2:]) / 2
            assert ((centres >= 0) & (centres < [WIDTH, HEIGHT])).all()
