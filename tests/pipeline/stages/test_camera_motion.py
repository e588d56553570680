"""The motion of the camera is measured to a fraction of a pixel, and a standing camera has none at all."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from pipeline.imaging.affine import IDENTITY, apply
from pipeline.stages import camera_motion
from pipeline.stages.camera_motion import HISTORY, CameraMotion, marking
from pipeline.stages.gaps import GapMarker
from pipeline.structures.frame import Frame, Gap, SourceInfo
from tests.support.moving_camera import Look, hand_held, motions, pictures, shaking, similarity

LENGTH = 24
GROUND = Look()
DISTURBED = Look(text=True, targets=5, pattern=1.5)
CLOUDS = Look(slope=2.2, contrast=12)
GRID = np.array([(x, y) for x in range(0, 321, 80) for y in range(0, 257, 64)], np.float64)

MOVES = {
    "pan": [similarity(3 * t) for t in range(LENGTH)],
    "vibration": shaking(np.random.default_rng(1), LENGTH, sigma=2),
    "hand-held": hand_held(LENGTH),
    "zoom": [similarity(zoom=1.01**t) for t in range(LENGTH)],
    "rotation": [similarity(degrees=0.5 * t) for t in range(LENGTH)],
}


def frames_of(poses, look=GROUND, **more):
    for index, image in enumerate(pictures(poses, look)):
        yield Frame(image, index, Fraction(index, 30), "made", **more)


def errors(found, truth):
    """Returns the mean distance over the frame between each motion and the true one."""
    places = [
        (apply(IDENTITY if motion is None else motion, GRID), apply(true, GRID))
        for motion, true in zip(found, truth, strict=True)
    ]
    return [np.linalg.norm(one - other, axis=1).mean() for one, other in places]


@pytest.mark.parametrize("look", [GROUND, DISTURBED], ids=["clear", "text, targets and pattern"])
@pytest.mark.parametrize("name", MOVES)
def test_the_motion_is_found_to_a_fifth_of_a_pixel(name, look):
    follow = CameraMotion()
    found = [follow(frame).motion for frame in frames_of(MOVES[name], look)]
    assert found[0] is None
    assert np.median(errors(found[1:], motions(MOVES[name], look))) < 0.2


@pytest.mark.parametrize("seed", range(3))
def test_a_standing_camera_has_no_motion_at_all(seed):
    look = replace(DISTURBED, noise=3)
    follow = CameraMotion()
    images = pictures([similarity()] * 40, look, seed=seed)
    assert [follow(Frame(one, t, Fraction(t), "made")).motion for t, one in enumerate(images)] == [None] * 40


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_a_standing_camera_under_drifting_clouds_has_no_motion_at_all(seed):
    drift = [similarity(0.9 * np.sin(t / 12)) for t in range(40)]
    sky = pictures(drift, CLOUDS, seed=seed)
    ground = pictures([similarity()] * 40, Look(contrast=12), seed=seed + 10)
    follow, found = CameraMotion(), []
    for index, (above, below) in enumerate(zip(sky, ground, strict=True)):
        image = np.vstack([above[:166], below[166:]])
        found.append(follow(Frame(image, index, Fraction(index, 30), "made")).motion)
    assert not [index for index, motion in enumerate(found) if motion is not None]


@pytest.mark.parametrize("look", [GROUND, DISTURBED, CLOUDS], ids=["ground", "disturbed", "clouds"])
def test_a_slow_drift_of_the_camera_is_followed(look):
    poses = [similarity(0.2 * max(0, t - 10), -0.1 * max(0, t - 10)) for t in range(60)]
    follow = CameraMotion()
    found = [follow(frame).motion for frame in frames_of(poses, look)]
    assert not any(motion is not None for motion in found[:10])
    assert all(motion is not None for motion in found[20:])
    late = np.sum([motion[:, 2] for motion in found[20:]], axis=0)
    assert np.linalg.norm(late - (8, -4)) < 0.8


@pytest.mark.parametrize("name", MOVES)
def test_a_search_near_the_expected_place_gives_the_motion_of_a_wide_one(monkeypatch, name):
    both = []
    for near in (camera_motion.NEAR, -1.0):
        monkeypatch.setattr(camera_motion, "NEAR", near)
        follow = CameraMotion()
        both.append([follow(frame).motion for frame in frames_of(MOVES[name])][1:])
    distances = [
        np.linalg.norm(apply(one, GRID) - apply(other, GRID), axis=1).mean()
        for one, other in zip(*both, strict=True)
    ]
    assert np.median(distances) < 0.02
    assert max(distances) < 0.2


def test_noise_without_scene_has_no_motion():
    rng, follow = np.random.default_rng(0), CameraMotion()
    images = [rng.normal(100, 3, (256, 320)).astype(np.uint8) for _ in range(12)]
    assert [follow(Frame(one, t, Fraction(t), "made")).motion for t, one in enumerate(images)] == [None] * 12


def test_a_camera_that_stops_stands_again():
    poses = [similarity(min(3 * t, 30)) for t in range(12 + HISTORY + 8)]
    follow = CameraMotion()
    found = [follow(frame).motion for frame in frames_of(poses)]
    assert all(motion is not None for motion in found[1:11])
    assert found[-1] is None


def test_the_motion_of_deep_frames_is_that_of_shallow_ones():
    poses = MOVES["pan"][:6]
    shallow, deep = CameraMotion(), CameraMotion()
    for frame in frames_of(poses):
        image = frame.image.astype(np.uint16) * 4 + 2000
        twin = replace(frame, image=image, bit_depth=14, levels=(2000.0, 2000.0 + 4 * 255))
        one, other = shallow(frame).motion, deep(twin).motion
        assert (one is None) == (other is None)
        assert one is None or np.allclose(one, other, atol=0.05)


@pytest.mark.parametrize("event", ["reconnect", "resize", "cut"])
def test_discontinuities_start_anew(event):
    follow, gap = CameraMotion(), Gap(event, 0, repeat_previous=False, elapsed_known=event == "reconnect")
    frames = list(frames_of(MOVES["pan"][:6]))
    found = [follow(replace(one, gap=gap if one.index == 3 else None)).motion for one in frames]
    assert [motion is None for motion in found] == [True, False, False, True, False, False]


def test_the_motion_over_lost_frames_is_that_between_their_neighbours():
    follow, gap = CameraMotion(), Gap("lost", 1, repeat_previous=True, elapsed_known=True)
    frames = [one for one in frames_of(MOVES["pan"][:6]) if one.index != 3]
    found = [follow(replace(one, gap=gap if one.index == 4 else None)).motion for one in frames]
    assert found[3] is not None
    assert abs(found[3][0, 2] - 6) < 0.2


def test_the_motion_after_the_shutter_is_that_since_the_last_scene():
    follow = CameraMotion()
    frames = list(frames_of(MOVES["pan"][:6]))
    closed = {3: np.full((256, 320), 90, np.uint8)}
    shown = [
        replace(one, image=closed[one.index], seen=frames[2].image) if one.index in closed else one
        for one in frames
    ]
    found = [follow(frame).motion for frame in shown]
    assert found[3] is None
    assert found[4] is not None
    assert abs(found[4][0, 2] - 6) < 0.2


def test_the_motion_is_between_selected_frames():
    follow = CameraMotion()
    found = [follow(frame).motion for frame in list(frames_of(MOVES["pan"][:10]))[::3]]
    assert [round(motion[0, 2]) for motion in found[1:]] == [9, 9, 9]


def test_frames_too_small_have_no_motion():
    follow = CameraMotion()
    images = [np.random.default_rng(t).integers(0, 255, (16, 48), np.uint8) for t in range(3)]
    assert [follow(Frame(one, t, Fraction(t), "made")).motion for t, one in enumerate(images)] == [None] * 3


def test_a_run_gives_equal_motions_each_time():
    first, second = CameraMotion(), CameraMotion()
    for frame in frames_of(MOVES["rotation"][:8]):
        one, other = first(frame).motion, second(frame).motion
        assert (one is None) == (other is None)
        assert one is None or np.array_equal(one, other)


def test_the_motion_can_be_switched_off():
    info = SourceInfo("made", 320, 256, Fraction(30), None, 8, 1)
    on, off = (marking(GapMarker(info, window=1, policy="flush"), mode) for mode in ("auto", "off"))
    for frame in frames_of(MOVES["pan"][:3]):
        marked = on(frame), off(frame)
        assert marked[0].time_in_frames == marked[1].time_in_frames == frame.index
        assert marked[1].motion is None
    assert marked[0].motion is not None
