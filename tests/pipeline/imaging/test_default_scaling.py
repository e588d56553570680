"""The default scaling: 8 bits stay as they are, more bits are scaled by what the frames use."""

from __future__ import annotations

import logging
import re
from fractions import Fraction

import cv2
import numpy as np
import pytest

from datasets.sequences.clips import VideoSequence
from datasets.sequences.views import scale_intensity
from pipeline.config.schema import SourceConfig
from pipeline.imaging.intensity_scaling import network_images, parse_scaling, pixel_noise, resolve_scaling
from pipeline.sources.opening import open_source
from pipeline.sources.preparation import SensorPreprocessing
from pipeline.structures.frame import Frame, SourceInfo
from tests.support.media import grey_frames


def smooth_frames(count: int, height: int = 64, width: int = 96) -> list[np.ndarray]:
    """Frames (H, W) uint8 of smooth clouds from black to white."""
    clouds = [cv2.GaussianBlur(image, (0, 0), 6) for image in grey_frames(count, height, width)]
    return [cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX) for image in clouds]


SCENE = smooth_frames(20)


def write(folder, images):
    folder.mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


def frames_of(location, **options):
    with open_source(location, **options) as source:
        return list(source)


def seen(frames) -> np.ndarray:
    """What the networks see of frames, 0 to 1."""
    images, full_scale = network_images(frames)
    return np.stack(images) / full_scale


def test_frames_of_eight_bits_pass_unchanged(tmp_path):
    frames = frames_of(write(tmp_path / "a", SCENE))
    assert all(frame.levels is None for frame in frames)
    images, full_scale = network_images(frames)
    assert full_scale == 255
    np.testing.assert_array_equal(images, SCENE)


FORMS = {
    "full range": lambda image, n: image * 257,
    "radiometric": lambda image, n: 7000 + 2 * image,
    "14 bits in 16": lambda image, n: 64 * image,
    "12 bits in 16": lambda image, n: 16 * image,
    "warming": lambda image, n: 7000 + 2 * image + 4 * n,
    "one level each": lambda image, n: 30000 + image,
}


@pytest.mark.parametrize("name", FORMS)
def test_the_networks_see_much_the_same_of_a_scene_in_any_range(tmp_path, name):
    images = [FORMS[name](image.astype(np.uint16), n) for n, image in enumerate(SCENE)]
    found = seen(frames_of(write(tmp_path / "a", images)))
    assert np.abs(found - np.stack(SCENE) / 255).max() < 0.1


def test_the_scale_is_steady_while_the_scene_moves():
    scene, scaling = smooth_frames(1, 128, 192)[0], parse_scaling("auto", 16)
    levels = [scaling(7000 + 2 * np.roll(scene, n, 1).astype(np.uint16)) for n in range(20)]
    assert np.ptp(levels, axis=0).max() <= 2


def test_levels_are_the_same_wherever_a_run_begins(tmp_path):
    folder = write(
        tmp_path / "a", [7000 + 2 * image.astype(np.uint16) + 9 * n for n, image in enumerate(SCENE)]
    )
    whole, part = frames_of(folder), frames_of(folder, start=7)
    assert [frame.levels for frame in whole[7:]] == [frame.levels for frame in part]


def empty_sky(sigma: float, target: float = 0.0, *, height: int = 256, width: int = 320) -> np.ndarray:
    """Frame of 16 bits with nothing but normal noise and a target of 3×3 pixels at (40, 100)."""
    sky = 7300 + sigma * np.random.default_rng(0).standard_normal((height, width))
    sky[100:103, 40:43] += target
    return sky.round().astype(np.uint16)


@pytest.mark.parametrize("contrast", [10, 30, 1000])
def test_a_target_before_an_empty_sky_is_brighter_than_the_noise(contrast):
    image = empty_sky(15, 15 * contrast)
    frame = Frame(image, 0, Fraction(0), "sky", levels=parse_scaling("auto", 16)(image))
    (scaled,), full_scale = network_images([frame])
    sky, target = np.delete(scaled / full_scale, slice(95, 108), 0), scaled[100:103, 40:43] / full_scale
    assert sky.std() < 1 / 30
    assert target.min() > sky.max() + 3 * sky.std()


@pytest.mark.parametrize("shape", [(256, 320), (2000, 3001), (1, 9), (5, 1)])
def test_noise_is_measured_whatever_the_size(shape):
    height, width = shape
    noise = pixel_noise(empty_sky(15, height=height, width=width))
    assert noise == pytest.approx(15, rel=0.05 if height > 100 else 1) or width == 1


def test_edges_and_targets_are_no_noise():
    scene = np.full((256, 320), 7000, np.uint16)
    scene[:, 100:] = 9000
    scene[50:60, 50:60] = 60000
    assert pixel_noise(scene) == 0
    assert parse_scaling("percentile 0 100", 16)(scene) == (7000, 60000)


@pytest.mark.parametrize(
    ("bits", "name"), [(8, "full-range"), (9, "percentile"), (14, "percentile"), (16, "percentile")]
)
def test_auto_depends_on_the_bit_depth_alone(bits, name):
    assert resolve_scaling("auto", bits) == name
    assert resolve_scaling("fixed 1 2", bits) == "fixed 1 2"


@pytest.mark.parametrize("depth", [8, 16])
def test_training_scales_as_a_run_does(tmp_path, depth):
    images = [image if depth == 8 else 7000 + 2 * image.astype(np.uint16) for image in SCENE]
    empty = tuple(np.zeros((0, 4), np.float32) for _ in images)
    sequence = VideoSequence("made", np.stack(images), empty, tuple(box[:, 0] for box in empty))
    trained = scale_intensity(sequence, "auto").frames
    run, _ = network_images(frames_of(write(tmp_path / "a", images)))
    np.testing.assert_array_equal(np.stack(list(trained)), run)


@pytest.mark.parametrize(
    ("low", "step", "bits", "options", "remark"),
    [
        (
            100,
            0.06,
            8,
            {},
            "grey levels 100 to 115 of 0 to 255; targets may be too faint.*--scaling percentile",
        ),
        (
            7000,
            2,
            16,
            {},
            "grey levels 7000 to 75.. of 0 to 65535; .*--scaling percentile, the default",
        ),
        (7000, 2, 16, {"scaling": "full-range"}, "7000 to 75.. of 0 to 65535; .* try --scaling percentile"),
        (
            7000,
            2,
            16,
            {"scaling": "fixed 0 20000"},
            "7000 to 75.. of 0 to 20000; .* try --scaling percentile",
        ),
        (7000, 2, 16, {"scaling": "fixed 6900 7600"}, None),
        (7000, 2, 16, {"scaling": "percentile"}, None),
        (1000, 40, 16, {}, None),
        (0, 1, 8, {}, None),
    ],
)
def test_a_source_that_uses_a_sliver_of_its_scale_gets_one_remark(
    tmp_path, caplog, low, step, bits, options, remark
):
    images = [(low + step * image.astype(float)).astype(f"uint{bits}") for image in SCENE]
    with caplog.at_level(logging.WARNING):
        frames_of(write(tmp_path / "a", images), **options)
    messages = [record.getMessage() for record in caplog.records]
    if remark is None:
        assert messages == []
    else:
        assert len(messages) == 1
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            frames_of(tmp_path / "a", **options)
        assert caplog.records == []
        assert re.search(remark, messages[0])


def test_a_dark_start_alone_is_no_narrow_range(caplog):
    info = SourceInfo("made to begin dark", 96, 64, Fraction(30), None, 8, 1)
    prepare = SensorPreprocessing(SourceConfig(), info)
    for n, image in enumerate([np.zeros((64, 96), np.uint8)] * 3 + SCENE):
        prepare(Frame(image, n, Fraction(n, 30), info.name))
    prepare.finish()
    assert caplog.records == []
