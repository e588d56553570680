"""Corruptions change the pixels as their names say, and boxes stay on their targets."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.augmentation.corruptions import CORRUPTIONS, MAX_JITTER
from datasets.sequences.clips import Clip
from tests.support.sequences import HEIGHT, LENGTH, WIDTH, assert_boxes_cover_pixels, bright_box, random_clip

BY_NAME = {corruption.name: corruption for corruption in CORRUPTIONS}


def corrupted(name: str, clip: Clip, seed: int = 0) -> Clip:
    return BY_NAME[name].apply(clip, np.random.default_rng(seed))


@pytest.fixture
def clip() -> Clip:
    return random_clip(3)


def sixteen_bits(clip: Clip) -> Clip:
    return corrupted("sixteen_bits", clip)


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("bits", [8, 16])
def test_a_clip_is_left_as_it_was_and_its_type_kept(clip, name, bits):
    clip = clip if bits == 8 else sixteen_bits(clip)
    frames, boxes = clip.frames.copy(), clip.boxes.copy()
    changed = corrupted(name, clip)
    np.testing.assert_array_equal(clip.frames, frames)
    np.testing.assert_array_equal(clip.boxes, boxes)
    assert changed.frames.dtype == (np.uint16 if bits == 16 or name == "sixteen_bits" else np.uint8)
    assert len(changed.frames) == LENGTH


@pytest.mark.parametrize("name", BY_NAME)
def test_the_same_draw_gives_the_same_clip(clip, name):
    first, second, other = (corrupted(name, clip, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.frames, second.frames)
    drawn = name in ("noise_2", "noise_5", "jitter")
    assert np.array_equal(first.frames, other.frames) != drawn


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"clean", "frame_rate"}))
def test_it_changes_what_the_network_sees(clip, name):
    changed = corrupted(name, clip)
    same = changed.frames.shape == clip.frames.shape and np.array_equal(changed.frames, clip.frames)
    assert not same


@pytest.mark.parametrize(("name", "deviation"), [("noise_2", 0.02), ("noise_5", 0.05)])
def test_noise_has_its_deviation_and_is_new_in_every_frame(name, deviation):
    grey = Clip(np.full((5, 80, 80), 128, np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, int))
    grain = corrupted(name, grey).frames.astype(float) - 128
    assert grain.std() == pytest.approx(deviation * 255, rel=0.03)
    assert abs(np.corrcoef(grain[0].ravel(), grain[1].ravel())[0, 1]) < 0.05


def test_contrast_is_halved_round_the_mean_of_the_key_frame(clip):
    changed = corrupted("contrast", clip).frames[-1].astype(float)
    assert changed.mean() == pytest.approx(clip.frames[-1].mean(), abs=0.6)
    assert changed.std() == pytest.approx(clip.frames[-1].std() / 2, rel=0.02)


def test_four_bits_are_sixteen_levels_from_black_to_white():
    ramp = np.tile(np.arange(256, dtype=np.uint8), (5, 4, 1))
    levels = corrupted("four_bits", Clip(ramp, np.zeros((0, 4), np.float32), np.zeros(0, int))).frames
    assert np.unique(levels).tolist() == list(range(0, 256, 17))
    assert abs(levels.astype(int) - ramp).max() <= 15


def test_four_bits_of_sixteen_are_those_of_eight(clip):
    np.testing.assert_array_equal(
        corrupted("four_bits", sixteen_bits(clip)).frames, sixteen_bits(corrupted("four_bits", clip)).frames
    )


def test_sixteen_bits_hold_the_same_image(clip):
    np.testing.assert_array_equal(sixteen_bits(clip).frames / 65535, clip.frames / 255)


@pytest.mark.parametrize("seed", range(5))
def test_jitter_moves_each_frame_by_itself_and_the_boxes_with_the_last(seed):
    frames = np.zeros((LENGTH, HEIGHT, WIDTH), np.uint8)
    frames[:, 18:22, 20:25] = 255
    boxes = np.array([[20, 18, 25, 22]], np.float32)
    shaken = corrupted("jitter", Clip(frames, boxes, np.zeros(1, int)), seed)
    whole = np.array([0, 0, WIDTH, HEIGHT])
    places = [bright_box(frame, whole)[:2] for frame in shaken.frames]
    assert shaken.boxes[0, :2].tolist() == places[-1]
    assert abs(np.subtract(places, [20, 18])).max() <= MAX_JITTER
    assert len({tuple(place) for place in places}) > 2


def test_at_half_resolution_boxes_shrink_with_the_image(clip):
    half = corrupted("half", clip)
    assert half.frames.shape == (LENGTH, HEIGHT // 2, WIDTH // 2)
    np.testing.assert_array_equal(half.boxes, clip.boxes / 2)
    np.testing.assert_array_equal(half.frames[0, 0, 0], clip.frames[0, :2, :2].mean().round())


def test_enlarged_again_a_halved_image_has_its_size_and_boxes_back(clip):
    enlarged = corrupted("half_enlarged", clip)
    assert enlarged.frames.shape == clip.frames.shape
    np.testing.assert_array_equal(enlarged.boxes, clip.boxes)


def test_half_the_frame_rate_is_a_window_of_every_other_frame():
    assert {d.name: d.stride for d in CORRUPTIONS if d.stride != 1} == {"frame_rate": 2}


def test_uncorrupted_boxes_cover_their_targets(clip):
    assert_boxes_cover_pixels(corrupted("clean", clip))
