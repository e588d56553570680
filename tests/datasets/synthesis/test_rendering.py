"""Synthetic scenes: pixels and ground truth of the rendered frames."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets import synthetic
from datasets.synthesis import rendering
from datasets.synthesis.rendering import min_transmission, render
from datasets.synthesis.scene import MIN_BOX_SIDE_PX, PRESETS, SUPPORT_SIGMAS, Scene, Target
from datasets.synthesis.scenery import PeriodicImage, camera_path, power_law_noise
from pipeline.system.errors import UsageError
from tests.support.scenes import SMALL, pictures, truths

ROOT = Path(synthetic.__file__).parent.parent
QUIET = {"haze": 0.0, "noise": 0.0, "column_noise": 0.0, "pixel_noise": 0.0}


def signal(scene: Scene) -> np.ndarray:
    """Returns the contribution of the targets: the scene with them minus the scene without."""
    return pictures(scene).astype(float) - pictures(replace(scene, targets=())).astype(float)


def centre(box) -> np.ndarray:
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])


# Pixels


def test_the_same_seed_gives_the_same_pixels_and_the_same_truth():
    first, second = (list(render(Scene.random(5, frames=4))) for _ in range(2))
    for (picture, records), (again, records_again) in zip(first, second, strict=True):
        np.testing.assert_array_equal(picture, again)
        assert [(r.id, r.box) for r in records] == [(r.id, r.box) for r in records_again]


def test_another_seed_gives_other_pixels():
    assert (pictures(Scene.random(1, frames=1)) != pictures(Scene.random(2, frames=1))).any()


def test_a_drawn_scene_does_not_depend_on_the_global_random_state():
    np.random.seed(0)
    first = Scene.random(9)
    np.random.seed(1)
    assert first == Scene.random(9)


def test_a_shorter_scene_is_the_beginning_of_a_longer_one():
    scene = replace(SMALL, jitter=0.3, cloud_cover=0.4, horizon=50.0)
    np.testing.assert_array_equal(pictures(replace(scene, frames=3)), pictures(scene)[:3])


@pytest.mark.parametrize("bits", [8, 10, 14, 16])
def test_the_full_scale_is_that_of_the_asked_depth(bits):
    scene = replace(SMALL, bits=bits, frames=2, dead_pixels=20, targets=())
    shown = pictures(scene)
    assert shown.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert (shown.min(), shown.max()) == (0, 2**bits - 1)  # the dead pixels
    assert np.median(shown) / (2**bits - 1) == pytest.approx(scene.sky / 255, rel=0.05)


def test_temporal_and_fixed_pattern_noise_have_the_asked_strength():
    scene = Scene(frames=60, haze=0, noise=2.0, column_noise=3.0, pixel_noise=1.5, bits=16)
    shown = pictures(scene) * (255 / 65535)
    assert shown.std(axis=0).mean() == pytest.approx(2.0, rel=0.03)
    still = shown.mean(axis=0)
    assert still.mean(axis=0).std() == pytest.approx(3.0, rel=0.15)
    assert (still - still.mean(axis=0)).std() == pytest.approx(1.5, rel=0.05)


def test_dead_pixels_never_change_and_flickering_ones_jump():
    plain = replace(SMALL, **QUIET, frames=40, targets=())
    shown = pictures(replace(plain, dead_pixels=5, flickering_pixels=7)).astype(int)
    stuck = (shown == shown[0]).all(axis=0) & np.isin(shown[0], (0, 255))
    assert stuck.sum() == 5
    assert (shown.std(axis=0) > 10).sum() == 7


def test_clouds_cover_the_asked_share_of_the_sky():
    base = replace(Scene(frames=1), **QUIET)
    shares = []
    for seed in range(8):
        shown = pictures(replace(base, seed=seed, cloud_cover=0.3, cloud_size=40.0, cloud_edge=0.05)).astype(
            int
        )
        shares.append((shown > base.sky + 20).mean())
    assert np.mean(shares) == pytest.approx(0.3, abs=0.06)


def test_clouds_drift_with_the_wind():
    scene = replace(Scene(frames=11), **QUIET, cloud_cover=0.4, wind=(1.0, 0.0), cloud_evolution=0.0, bits=16)
    shown = pictures(scene).astype(float)
    moved = np.abs(shown[10, :, 40:-40] - shown[0, :, 30:-50])
    stayed = np.abs(shown[10, :, 40:-40] - shown[0, :, 40:-40])
    assert moved.mean() < 0.15 * stayed.mean()


def test_the_camera_carries_scenery_and_targets_alike():
    scene = replace(Scene(frames=9), **QUIET, horizon=180.0, pan=2.0, targets=(Target(x=160, y=60),))
    shown = pictures(scene).astype(int)
    assert np.abs(shown[8, 150:, :-16] - shown[0, 150:, 16:]).max() <= 1
    boxes = [records[1].box for records in truths(scene)]
    np.testing.assert_allclose(centre(boxes[8]) - centre(boxes[0]), (-16, 0))


def test_jitter_walks_in_fractions_of_a_pixel_and_stays_near():
    path = camera_path(Scene(jitter=0.4), rng=np.random.default_rng(3))
    places = np.array(list(itertools.islice(path, 5000)))
    np.testing.assert_array_equal(places[0], (0, 0))
    assert np.diff(places, axis=0).std() == pytest.approx(0.4, rel=0.05)
    assert np.abs(places).max() <= 12


def test_a_window_between_pixels_is_the_band_limited_picture_moved():
    columns = np.arange(64)
    wave = np.tile(np.sin(2 * np.pi * columns / 16), (64, 1)).astype(np.float32)
    window = PeriodicImage(wave, width=40, height=30).window(60.25, -3.5)
    expected = np.sin(2 * np.pi * (np.arange(40) + 60.25) / 16)
    np.testing.assert_allclose(window, np.tile(expected, (30, 1)), atol=0.02)


def test_texture_is_periodic_noise_of_unit_strength_with_more_power_in_large_forms():
    field = power_law_noise(np.random.default_rng(0), shape=(128, 128), slope=1.5, scale=60)
    assert field.mean() == pytest.approx(0, abs=1e-5)
    assert field.std() == pytest.approx(1, abs=1e-4)
    across_the_seam = np.abs(field[:, 0] - field[:, -1]).mean()
    assert across_the_seam == pytest.approx(np.abs(np.diff(field, axis=1)).mean(), rel=0.4)
    assert np.abs(np.diff(field, axis=1)).mean() < 0.5 * field.std()


# Targets


@pytest.mark.parametrize("scr", [3, 10, 40])
def test_the_peak_of_a_target_is_the_asked_multiple_of_the_clutter_round_it(scr):
    target = Target(x=80.5, y=60.5, sigma=2.0, scr=scr)
    scene = Scene(width=160, height=120, frames=20, bits=16, targets=(target,), haze=1.0, noise=1.5)
    peaks = signal(scene)[:, 60, 80]
    half = np.ceil(target.extent[0] + scene.margin).astype(int)
    background = pictures(replace(scene, targets=())).astype(float)
    rows, columns = np.indices((120, 160))
    far = np.maximum(np.abs(rows - 60), np.abs(columns - 80))
    ring = (far > half) & (far <= half + rendering.RING_WIDTH_PX)
    assert np.median(peaks) / background[:, ring].std(axis=1).mean() == pytest.approx(scr, rel=0.1)


def test_a_cold_target_takes_away_what_a_hot_one_adds():
    hot = replace(SMALL, bits=16, targets=(Target(x=40.5, y=30.5),))
    cold = replace(hot, targets=(replace(hot.targets[0], cold=True),))
    np.testing.assert_allclose(signal(cold), -signal(hot), atol=1)
    assert signal(cold).min() < -100


@pytest.mark.parametrize("shape", [(0.7, 1.0, 0.0), (1.3, 1.0, 0.0), (1.5, 2.0, 0.5), (3.0, 1.2, -1.0)])
def test_the_centre_of_the_box_is_the_centroid_of_the_light(shape):
    sigma, elongation, angle = shape
    target = Target(
        x=60.3, y=50.8, vx=0.37, vy=-0.21, sigma=sigma, elongation=elongation, angle=angle, scr=60
    )
    scene = Scene(width=128, height=96, frames=8, bits=16, targets=(target,), jitter=0.2)
    rows, columns = np.indices((96, 128)) + 0.5
    for light, records in zip(signal(scene), truths(scene), strict=True):
        centroid = np.array([(light * columns).sum(), (light * rows).sum()]) / light.sum()
        np.testing.assert_allclose(centroid, centre(records[1].box), atol=0.03)


def test_the_box_spans_the_support_and_the_margin():
    target = Target(x=48, y=32, sigma=1.6, elongation=2.0)
    for margin in (0.0, 1.5):
        box = truths(replace(SMALL, frames=1, margin=margin, targets=(target,)))[0][1].box
        assert box[2] - box[0] == pytest.approx(2 * (SUPPORT_SIGMAS * 3.2 + margin))
        assert box[3] - box[1] == pytest.approx(2 * (SUPPORT_SIGMAS * 1.6 + margin))


def test_a_box_is_never_smaller_than_documented():
    box = truths(replace(SMALL, frames=1, margin=0.0, targets=(Target(x=40, y=30, sigma=0.4),)))[0][1].box
    assert (box[2] - box[0], box[3] - box[1]) == pytest.approx((MIN_BOX_SIDE_PX, MIN_BOX_SIDE_PX))


def test_the_mask_is_the_support_and_lies_in_the_box():
    target = Target(x=48.2, y=31.7, sigma=2.0, elongation=1.5, angle=0.4)
    record = truths(replace(SMALL, frames=1, targets=(target,)))[0][1]
    rows, columns = np.nonzero(record.mask)
    assert record.mask.shape == (64, 96)
    assert len(rows) == pytest.approx(np.pi * SUPPORT_SIGMAS**2 * 2.0 * 3.0, rel=0.05)
    x1, y1, x2, y2 = record.box
    assert x1 <= columns.min() + 0.5 <= columns.max() + 0.5 <= x2
    assert y1 <= rows.min() + 0.5 <= rows.max() + 0.5 <= y2


def test_a_path_is_smooth_and_follows_speed_and_manoeuvre():
    target = Target(x=10, y=20, vx=0.8, vy=0.6, weave_amplitude=5, weave_period=100, start=7)
    places = np.array([target.position(index) for index in range(7, 208)])
    np.testing.assert_allclose(places[0], (10, 20))
    np.testing.assert_allclose(places[200], (10 + 160, 20 + 120), atol=1e-9)  # two full swings
    along = np.array([10, 20]) + np.outer(np.arange(201), (0.8, 0.6))
    assert np.linalg.norm(places - along, axis=1).max() == pytest.approx(5)
    assert np.abs(np.diff(places, n=2, axis=0)).max() < 0.05


def test_a_target_that_leaves_has_a_clipped_box_and_then_none():
    records = truths(replace(SMALL, frames=20))
    seen = [2 in frame for frame in records]
    assert seen == [True] * 4 + [False] * 16  # x = 92 to 95 are inside
    assert all(frame[2].box[2] == 96 for frame in records[:4])
    assert all(1 in frame for frame in records)


def test_a_target_exists_from_its_start_to_its_stop():
    scene = replace(SMALL, targets=(Target(x=40, y=30, start=3, stop=7),))
    assert [len(frame) for frame in truths(scene)] == [0] * 3 + [1] * 4 + [0] * 5


def test_crossing_targets_keep_their_ids():
    pair = (Target(x=30, y=30, vx=1, behind_clouds=False), Target(x=50, y=30, vx=-1, behind_clouds=False))
    records = truths(replace(SMALL, frames=21, targets=pair))
    assert [centre(frame[1].box)[0] for frame in records] == pytest.approx(range(30, 51))
    assert [centre(frame[2].box)[0] for frame in records] == pytest.approx(range(50, 29, -1))


@pytest.mark.slow
def test_a_target_behind_a_cloud_loses_box_and_light_and_comes_back_under_its_id():
    scene = PRESETS["demo"]()
    hidden_target = replace(scene, bits=16, targets=scene.targets[3:4])
    seen = [1 in frame for frame in truths(hidden_target)]
    spells = [(value, len(list(spell))) for value, spell in itertools.groupby(seen)]
    assert [value for value, _ in spells] == [True, False, True]
    assert spells[1][1] > 10
    light = np.abs(signal(hidden_target)).sum(axis=(1, 2))
    assert light[~np.array(seen)].max() < 0.15 * np.median(light[seen])


@pytest.mark.parametrize(
    ("level", "cold", "shown"), [(254, False, 0), (254, True, 1), (1, True, 0), (1, False, 1)]
)
def test_a_target_swallowed_by_saturation_has_no_box(level, cold, shown):
    target = Target(x=40, y=30, cold=cold)
    scene = replace(SMALL, **QUIET, sky=float(level), targets=(target,))
    assert [len(frame) for frame in truths(scene)] == [shown] * SMALL.frames


def test_a_target_before_the_clouds_is_never_hidden():
    scene = replace(SMALL, cloud_cover=0.9, targets=(Target(x=40, y=30, behind_clouds=False),))
    assert all(1 in frame for frame in truths(scene))


@pytest.mark.parametrize(("scr", "share"), [(1, 0.7), (4, 0.5), (10, 0.2), (100, 0.1)])
def test_the_bound_below_which_clouds_hide_a_target_follows_its_strength(scr, share):
    assert min_transmission(Target(x=0, y=0, scr=scr)) == pytest.approx(share)


# Drawn scenes


def test_drawn_scenes_span_the_documented_targets():
    scenes = [Scene.random(seed) for seed in range(150)]
    targets = [target for scene in scenes for target in scene.targets]
    sigmas = np.array([target.sigma for target in targets])
    assert 0.7 <= sigmas.min() < 0.8
    assert 2.5 < sigmas.max() <= 3.0
    sides = np.array([2 * (half + 1.5) for target in targets for half in target.extent])
    assert sides.min() >= 7
    assert sides.max() <= 18
    assert np.median(sides) < 12
    assert any(target.cold for target in targets)
    assert {scene.horizon is None for scene in scenes} == {True, False}
    assert {scene.cloud_cover > 0 for scene in scenes} == {True, False}


def test_a_drawn_scene_takes_fixed_settings():
    scene = Scene.random(3, frames=7, noise=0.0, width=64, height=48)
    assert (scene.frames, scene.noise, scene.width, scene.height) == (7, 0.0, 64, 48)
    assert next(render(scene))[0].shape == (48, 64)


@pytest.mark.slow
def test_most_frames_of_drawn_scenes_hold_a_target():
    counts = [len(records) for seed in range(6) for _, records in render(Scene.random(seed, frames=40))]
    assert np.mean(np.array(counts) > 0) > 0.7


def test_a_long_scene_keeps_having_targets():
    scene = Scene.random(2, frames=3000)
    starts = {target.start // 300 for target in scene.targets}
    assert starts == set(range(10))


@pytest.mark.parametrize(
    "wrong",
    [
        {"bits": 7},
        {"frames": 0},
        {"cloud_cover": 1.0},
        {"noise": -1.0},
        {"glow": 0.0},
        {"noise": float("nan")},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Scene(**wrong)


def test_a_setting_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="cluods"):
        Scene.random(0, cluods=0.5)


# Speed and memory


def test_frames_come_one_by_one_in_bounded_memory():
    scene = Scene.random(1, frames=10_000, cloud_cover=0.3, horizon=180.0)
    frames = render(scene)
    next(frames)
    tracemalloc.start()
    for _ in itertools.islice(frames, 60):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * scene.width * scene.height * 4


def test_importing_loads_neither_torch_nor_opencv_nor_the_video_library():
    check = (
        "import sys, datasets.synthetic; print(sorted({'torch', 'cv2', 'av', 'scipy'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, env=environment)
    assert run.stdout.strip() == "[]"
