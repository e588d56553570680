"""Points are spread over the picture, weighted by contrast, and followed to a fraction of a pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.imaging.sparse_flow import (
    MAX_WEIGHT,
    SHARP,
    SMOOTH,
    WINDOW,
    Contrast,
    SmallPictures,
    corners,
    follow,
    smoothing,
)
from tests.support.moving_camera import Look, pictures, similarity

NOTHING_BLOCKED = np.zeros((128, 160), bool)


def small_pictures(poses):
    look = Look()
    reduce = SmallPictures(look.width, look.height).reduce
    return [cv2.GaussianBlur(reduce(one, (0, 255)), (0, 0), SMOOTH) for one in pictures(poses, look)]


def test_large_frames_become_small_pictures():
    assert SmallPictures(320, 256).size == (160, 128)
    assert SmallPictures(1280, 1024).size == (183, 146)
    assert SmallPictures(96, 64).size == (96, 64)
    assert not SmallPictures(64, 16).usable


@pytest.mark.parametrize("bits", [8, 14, 16])
def test_equal_scenes_of_any_depth_give_equal_pictures(bits):
    (image,) = pictures([similarity()])
    scale = 1 if bits == 8 else 2 ** (bits - 8)
    deep = image if bits == 8 else image.astype(np.uint16) * scale
    small = SmallPictures(320, 256)
    assert np.allclose(small.reduce(deep, (0, 255 * scale)), small.reduce(image, (0, 255)), atol=0.51)


def test_colour_is_reduced_to_grey():
    (image,) = pictures([similarity()])
    small = SmallPictures(320, 256)
    assert np.array_equal(
        small.reduce(np.stack([image] * 3, axis=2), (0, 255)), small.reduce(image, (0, 255))
    )


def test_a_motion_is_converted_to_pixel_coordinates_of_the_frame():
    turn = SmallPictures(320, 256).in_frame(similarity(1, 2, zoom=1.5))
    index = np.array([10.0, 20.0])
    place = 2 * (index + 0.5)  # the centre of the small pixel, in the frame
    assert np.allclose(turn[:, :2] @ place + turn[:, 2], 2 * (1.5 * index + (1, 2) + 0.5))


def test_each_cell_has_one_point_and_blocked_places_have_none():
    (picture,) = small_pictures([similarity()])
    blocked = NOTHING_BLOCKED.copy()
    blocked[:, :60] = True
    everywhere, weights = corners(Contrast.of(picture)(picture), NOTHING_BLOCKED)
    right, _ = corners(Contrast.of(picture)(picture), blocked)
    assert len(everywhere) == 63
    assert weights.max() <= MAX_WEIGHT * np.median(weights)
    assert (everywhere >= WINDOW // 2).all()
    assert 0 < len(right) < len(everywhere)
    assert (right[:, 0] >= 60).all()


def test_an_empty_picture_has_no_points():
    points, weights = corners(np.full((128, 160), 90, np.uint8), NOTHING_BLOCKED)
    assert len(points) == len(weights) == 0
    assert follow(np.zeros((128, 160), np.uint8), np.zeros((128, 160), np.uint8), points, points)[0].size == 0


def test_points_are_followed_to_a_tenth_of_a_pixel():
    before, now = small_pictures([similarity(), similarity(7.3, -4.6)])
    contrast = Contrast.of(before)
    points, _ = corners(contrast(before), NOTHING_BLOCKED)
    found, followed = follow(contrast(before), contrast(now), points, points)
    assert followed.mean() > 0.9
    errors = np.linalg.norm(found - points - (3.65, -2.3), axis=1)[followed]
    assert np.median(errors) < 0.1


def test_points_that_are_near_are_found_where_a_wide_search_finds_them():
    before, now = small_pictures([similarity(), similarity(1.4, -0.8)])
    contrast = Contrast.of(before)
    points, _ = corners(contrast(before), NOTHING_BLOCKED)
    wide, followed = follow(contrast(before), contrast(now), points, points)
    close, also = follow(contrast(before), contrast(now), points, points, near=True)
    assert (followed == also).mean() > 0.95
    assert np.linalg.norm(wide - close, axis=1)[followed & also].max() < 0.1


def test_pictures_of_8_bits_are_the_rounded_levels():
    (picture,) = small_pictures([similarity()])
    contrast = Contrast.of(picture)
    plain = np.clip(128 + contrast.gain * (picture - contrast.middle - 2.5), 0, 255)
    assert np.abs(contrast(picture, 2.5) - plain).max() < 0.501


def test_scenes_without_fine_detail_are_smoothed_more():
    rng = np.random.default_rng(0)
    sky = rng.normal(0, 1, (128, 160)).astype(np.float32)
    houses = sky.copy()
    houses[64:] += 40 * (rng.random((64, 160)) > 0.5)
    assert smoothing(sky) == SMOOTH
    assert smoothing(houses) == SHARP
