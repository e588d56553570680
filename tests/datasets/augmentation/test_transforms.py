"""Transforms move pixels, boxes and mask of a clip together, alike in all frames."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from datasets.augmentation.transforms import (
    add_noise,
    blur,
    crop,
    flip,
    gain_and_offset,
    pad,
    random_crop,
    rescale,
    translate,
)
from datasets.sequences.clips import Clip, clip_at
from tests.support.sequences import HEIGHT, LENGTH, WIDTH, assert_boxes_cover_pixels, random_clip, sequence_of


def empty(frames: np.ndarray) -> Clip:
    """Returns a clip without targets."""
    return Clip(frames, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))


def as_type(clip: Clip, dtype) -> Clip:
    """Returns the same clip on the full scale of another dtype."""
    scale = np.iinfo(dtype).max // 255
    return replace(clip, frames=clip.frames.astype(dtype) * dtype(scale))


def with_mask(clip: Clip) -> Clip:
    """Returns the clip with the bright pixels of the key frame as its mask."""
    return replace(clip, mask=clip.frames[-1] > 128)


def extent(bright: np.ndarray) -> list[float]:
    """Returns x1 y1 x2 y2 of the True pixels."""
    rows, columns = np.nonzero(bright)
    return [float(n) for n in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


# Openings


@pytest.mark.parametrize("seed", range(40))
def test_boxes_stay_on_their_pixels_through_openings_and_mirrors(seed):
    rng = np.random.default_rng(seed)
    clip = random_crop(random_clip(seed), (32, 24), rng)
    clip = flip(clip, horizontal=bool(seed & 1), vertical=bool(seed & 2))
    assert clip.frames.shape == (LENGTH, 24, 32)
    assert_boxes_cover_pixels(clip)


def test_an_opening_is_not_always_at_the_same_place():
    clip = random_clip(0)
    places = {random_crop(clip, (32, 24), np.random.default_rng(seed)).frames.tobytes() for seed in range(20)}
    assert len(places) > 10


def test_most_openings_hold_a_target():
    """Nine in ten crops are placed on a target: more than 0.85 of 300."""
    clip = clip_at(sequence_of([[(2, 3, 5, 6)]]), 0, length=1)
    held = [len(random_crop(clip, (8, 8), np.random.default_rng(seed)).boxes) for seed in range(300)]
    assert 0.85 < np.mean(held) < 1


def test_openings_of_an_empty_frame_are_anywhere():
    clip = clip_at(sequence_of([[]]), 0, length=1)
    found = random_crop(clip, (8, 8), np.random.default_rng(0))
    assert (found.frames.shape, found.boxes.shape) == ((1, 8, 8), (0, 4))


def test_an_opening_as_large_as_the_image_changes_nothing():
    clip = random_clip(0)
    found = random_crop(clip, (WIDTH, HEIGHT), np.random.default_rng(0))
    np.testing.assert_array_equal(found.frames, clip.frames)
    np.testing.assert_array_equal(found.boxes, clip.boxes)


@pytest.mark.parametrize(
    ("left", "top", "expected", "labels"),
    [
        (0, 0, [[4, 5, 8, 9]], [0]),
        (4, 5, [[0, 0, 4, 4]], [0]),
        (5, 5, [[0, 0, 3, 4]], [0]),
        (6, 5, [[0, 0, 2, 4]], [0]),
        (7, 5, [], []),
        (20, 20, [[10, 8, 14, 11]], [1]),
        (4, 19, [], []),
        (16, 20, [], []),
        (20, 18, [[10, 10, 14, 12]], [1]),
    ],
    ids=[
        "first",
        "at the edge",
        "cut",
        "centre on the edge",
        "centre outside",
        "second",
        "between",
        "centre on the far edge",
        "cut below",
    ],
)
def test_targets_whose_centre_is_outside_an_opening_are_dropped(left, top, expected, labels):
    clip = clip_at(sequence_of([[(4, 5, 8, 9), (30, 28, 34, 31)]]), 0, length=1)
    found = crop(clip, left=left, top=top, width=16, height=12)
    assert found.boxes.tolist() == expected
    assert found.labels.tolist() == labels


# Mirrors


@pytest.mark.parametrize(
    ("horizontal", "vertical", "expected"),
    [
        (True, False, [WIDTH - 8, 5, WIDTH - 4, 9]),
        (False, True, [4, HEIGHT - 9, 8, HEIGHT - 5]),
        (True, True, [WIDTH - 8, HEIGHT - 9, WIDTH - 4, HEIGHT - 5]),
        (False, False, [4, 5, 8, 9]),
    ],
    ids=["across", "upside down", "both", "neither"],
)
def test_mirrors_move_boxes_with_pixels(horizontal, vertical, expected):
    clip = clip_at(sequence_of([[(4, 5, 8, 9)]]), 0, length=1)
    found = flip(clip, horizontal=horizontal, vertical=vertical)
    assert found.boxes.tolist() == [expected]
    assert_boxes_cover_pixels(found)


def test_mirroring_twice_changes_nothing():
    clip, mirror = random_clip(0), partial(flip, horizontal=True, vertical=True)
    again = mirror(mirror(clip))
    np.testing.assert_array_equal(again.frames, clip.frames)
    np.testing.assert_array_equal(again.boxes, clip.boxes)


# Brightness


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("gain", "offset"), [(1.4, 0.0), (0.7, 0.1), (1.0, -0.1)], ids=str)
def test_brightness_changes_alike_in_all_frames_and_keeps_the_order(dtype, gain, offset):
    clip = as_type(random_clip(3), dtype)
    found = gain_and_offset(clip, gain=gain, offset=offset)
    assert found.frames.dtype == dtype
    levels, first = np.unique(clip.frames, return_index=True)
    table = dict(zip(levels.tolist(), found.frames.ravel()[first].tolist(), strict=True))
    np.testing.assert_array_equal(found.frames, np.vectorize(table.get)(clip.frames))
    assert (np.diff([int(level) for level in table.values()]) >= 0).all()


def test_contrast_turns_round_the_mean_of_the_key_frame():
    frames = np.array([[[90, 110]], [[80, 120]]], np.uint8)
    found = gain_and_offset(empty(frames), gain=2, offset=0)
    assert found.frames.tolist() == [[[80, 120]], [[60, 140]]]


@pytest.mark.parametrize(("dtype", "moved"), [(np.uint8, 26), (np.uint16, 6554)], ids=["8 bit", "16 bit"])
def test_an_offset_is_a_share_of_the_full_scale(dtype, moved):
    found = gain_and_offset(empty(np.full((1, 2, 2), 100, dtype)), gain=1, offset=0.1)
    assert (found.frames == 100 + moved).all()


def test_brightness_stops_at_the_ends_of_the_scale():
    found = gain_and_offset(empty(np.array([[[0, 255]]], np.uint8)), gain=3, offset=0)
    assert found.frames.tolist() == [[[0, 255]]]


# Size


@pytest.mark.parametrize("factor", [0.5, 2.0, 3.0])
def test_boxes_and_mask_follow_the_size(factor):
    clip = with_mask(clip_at(sequence_of([[(8, 12, 16, 20)]] * LENGTH), LENGTH - 1, length=LENGTH))
    found = rescale(clip, factor)
    assert found.frames.shape == (LENGTH, round(HEIGHT * factor), round(WIDTH * factor))
    assert found.boxes.tolist() == [[8 * factor, 12 * factor, 16 * factor, 20 * factor]]
    assert extent(found.mask) == found.boxes[0].tolist()
    assert extent(found.frames[-1] > 128) == pytest.approx(found.boxes[0].tolist(), abs=1)


def test_boxes_are_scaled_by_what_a_side_really_came_to():
    """48 × 1.03 is 49.44 pixels, of which 49 remain."""
    clip = clip_at(sequence_of([[(12, 10, 24, 20)]]), 0, length=1)
    found = rescale(clip, 1.03)
    assert found.frames.shape == (1, 41, 49)
    assert found.boxes[0].tolist() == pytest.approx([12 * 49 / 48, 10 * 41 / 40, 24 * 49 / 48, 20 * 41 / 40])


def test_the_same_size_is_the_same_clip():
    clip = random_clip(1)
    assert rescale(clip, 1.001) is clip


def test_padding_repeats_the_far_edges_and_leaves_boxes_where_they_are():
    clip = with_mask(random_clip(1))
    found = pad(clip, (WIDTH + 7, HEIGHT - 5))
    assert found.frames.shape == (LENGTH, HEIGHT, WIDTH + 7)
    np.testing.assert_array_equal(found.frames[:, :, :WIDTH], clip.frames)
    assert (found.frames[:, :, WIDTH:] == clip.frames[:, :, -1:]).all()
    assert not found.mask[:, WIDTH:].any()
    np.testing.assert_array_equal(found.boxes, clip.boxes)


# Movement


@pytest.mark.parametrize("step", [(5, 0), (-3, 4), (0, -6), (6, 6)], ids=str)
def test_a_moved_image_takes_boxes_and_mask_along(step):
    clip = with_mask(clip_at(sequence_of([[(20, 16, 24, 21)]] * LENGTH), LENGTH - 1, length=LENGTH))
    found = translate(clip, np.tile(step, (LENGTH, 1)))
    assert found.boxes.tolist() == [[20 + step[0], 16 + step[1], 24 + step[0], 21 + step[1]]]
    assert extent(found.mask) == found.boxes[0].tolist()
    assert_boxes_cover_pixels(found)


def test_a_moving_camera_moves_each_frame_by_its_own_step():
    clip = clip_at(sequence_of([[(20, 16, 24, 21)]] * 3), 2, length=3)
    found = translate(clip, np.array([(-4, 2), (-2, 1), (0, 0)]))
    assert [extent(frame > 128) for frame in found.frames] == [
        [16, 18, 20, 23],
        [18, 17, 22, 22],
        [20, 16, 24, 21],
    ]
    assert found.boxes.tolist() == [[20, 16, 24, 21]]


def test_uncovered_pixels_repeat_the_edge():
    frames = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    found = translate(empty(frames), np.array([(2, -1)]))
    assert found.frames[0].tolist() == [[4, 4, 4, 5], [8, 8, 8, 9], [8, 8, 8, 9]]


def test_a_target_moved_out_of_the_image_is_dropped():
    clip = clip_at(sequence_of([[(2, 10, 6, 14), (30, 10, 34, 14)]]), 0, length=1)
    found = translate(clip, np.array([(-5, 0)]))
    assert found.boxes.tolist() == [[25, 10, 29, 14]]
    assert found.labels.tolist() == [1]


# Sharpness


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_noise_has_the_deviation_asked_for_and_differs_between_frames(dtype):
    scale = np.iinfo(dtype).max
    clip = empty(np.full((3, 64, 64), scale // 2, dtype))
    found = add_noise(clip, deviation=0.02, rng=np.random.default_rng(0)).frames
    assert found.dtype == dtype
    assert found.astype(float).std() == pytest.approx(0.02 * scale, rel=0.03)
    assert abs(np.corrcoef(found[0].ravel(), found[1].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_blur_spreads_a_point_and_keeps_its_sum(dtype):
    frames = np.zeros((2, 15, 15), dtype)
    frames[:, 7, 7] = np.iinfo(dtype).max
    found = blur(empty(frames), sigma=1.0).frames
    assert found.dtype == dtype
    assert found[0, 7, 7] == pytest.approx(np.iinfo(dtype).max / (2 * np.pi), rel=0.05)
    assert found[0].sum() == pytest.approx(np.iinfo(dtype).max, rel=0.05)
    np.testing.assert_array_equal(found[0], found[1])


# Masks


@pytest.mark.parametrize("seed", range(10))
def test_a_mask_goes_through_openings_and_mirrors_with_its_pixels(seed):
    clip = with_mask(random_clip(seed))
    found = random_crop(clip, (32, 24), np.random.default_rng(seed))
    found = flip(found, horizontal=bool(seed & 1), vertical=bool(seed & 2))
    np.testing.assert_array_equal(found.mask, found.frames[-1] > 128)
