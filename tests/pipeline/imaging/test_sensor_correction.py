"""Fixed-pattern offset and bad pixels are corrected, targets are kept."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.imaging.sensor_correction import (
    MIN_FRAMES,
    OffsetCorrection,
    PixelReplacement,
    SpikeReplacement,
)
from pipeline.sources.opening import open_source
from pipeline.system.errors import UsageError
from tests.pipeline.sources.test_images import write_images


def sky(count: int, *, seed: int = 0) -> np.ndarray:
    """Returns (count, 48, 64) uint16: a gentle slope with noise."""
    slope = np.linspace(8000, 9000, 64)[None] + np.linspace(0, 300, 48)[:, None]
    return (slope + np.random.default_rng(seed).normal(0, 5, (count, 48, 64))).round().astype(np.uint16)


def frames_of(location, **options) -> np.ndarray:
    with open_source(location, **options) as source:
        return np.stack([frame.image for frame in source])


def test_the_fixed_pattern_of_a_reference_is_subtracted(tmp_path):
    pattern = np.random.default_rng(1).integers(-300, 300, (48, 64))
    even = sky(3)
    uneven = (even + pattern).astype(np.uint16)
    folder = write_images(tmp_path / "images", {f"{n}.png": image for n, image in enumerate(uneven)})
    cv2.imwrite(str(tmp_path / "shutter.png"), (20_000 + pattern).astype(np.uint16))
    found = frames_of(folder, offset=str(tmp_path / "shutter.png"))
    assert found.dtype == np.uint16
    assert np.ptp(found.astype(int) - even) == 0  # up to one level that all pixels share
    assert abs(int(found[0, 0, 0]) - int(even[0, 0, 0])) <= 20


def test_offset_correction_clips_to_the_full_scale():
    reference = np.array([[0, 50, 50, 50, 100]], np.uint8)
    corrected = OffsetCorrection(reference, 8)(np.array([[250, 250, 10, 0, 10]], np.uint8))
    assert corrected.tolist() == [[255, 250, 10, 0, 0]]
    assert corrected.dtype == np.uint8


def test_pixels_of_a_mask_are_replaced_by_their_good_neighbours(tmp_path):
    even = sky(2)
    mask = np.zeros((48, 64), np.uint8)
    mask[0, 0] = mask[10:13, 20:22] = mask[47, 5:9] = 255
    spoilt = np.where(mask > 0, np.uint16(65535), even)
    folder = write_images(tmp_path / "images", {f"{n}.png": image for n, image in enumerate(spoilt)})
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    found = frames_of(folder, bad_pixels=str(tmp_path / "mask.png"))
    np.testing.assert_array_equal(found[:, mask == 0], even[:, mask == 0])
    assert np.abs(found.astype(int) - even).max() < 80


def test_replaced_pixels_are_the_mean_of_the_nearest_good_ones():
    bad = np.zeros((5, 5), bool)
    bad[2, 2] = True
    image = np.arange(25, dtype=np.uint8).reshape(5, 5) * 10
    image[2, 2] = 255
    assert PixelReplacement(bad, "mask")(image)[2, 2] == round((70 + 110 + 130 + 170) / 4)
    assert image[2, 2] == 255, "the input is not modified"


def test_stuck_pixels_are_replaced_and_moving_and_static_targets_are_kept():
    frames = sky(80).astype(np.float64)
    rows, columns = np.mgrid[:48, :64]
    for number, frame in enumerate(frames):
        for x, y in ((10 + 0.5 * number, 12), (30.0, 30.0), (40.5, 20.5)):
            frame += 2000 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 0.7**2))
    frames = frames.round().astype(np.uint16)
    spoilt = frames.copy()
    stuck = [(5, 5), (40, 60), (25, 3)]
    for row, column in stuck:
        spoilt[:, row, column] = 0 if row == 25 else 16383
    spoilt[::3, 44, 44] = 16383  # blinks: a spike in fewer than nine of ten frames
    mend = SpikeReplacement()
    found = np.stack([mend(frame) for frame in spoilt])
    np.testing.assert_array_equal(found[: MIN_FRAMES - 1], spoilt[: MIN_FRAMES - 1])
    changed = np.argwhere((found != spoilt).any(axis=0))
    assert sorted(map(tuple, changed.tolist())) == sorted(stuck)
    later = found[MIN_FRAMES:].astype(int) - frames[MIN_FRAMES:]
    assert max(np.abs(later[:, row, column]).max() for row, column in stuck) < 60


def test_eight_bit_frames_are_corrected_too():
    frames = np.random.default_rng(0).integers(100, 104, (30, 48, 64)).astype(np.uint8)
    frames[:, 7, 9] = 255
    mend = SpikeReplacement()
    assert 99 < [mend(frame) for frame in frames][-1][7, 9] < 104


def test_automatic_replacement_is_selected_by_name(tmp_path):
    frames = sky(MIN_FRAMES + 2)
    frames[:, 7, 9] = 0
    images = {f"{number}.png": frame for number, frame in enumerate(frames)}
    found = frames_of(write_images(tmp_path / "images", images), bad_pixels="auto")
    assert found[0, 7, 9] == 0
    assert found[-1, 7, 9] > 7900


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"offset": "small.png"}, UsageError, "--offset .* is 8x8, the frames of .* are 64x48"),
        ({"bad_pixels": "small.png"}, UsageError, "--bad-pixels .* is 8x8"),
        ({"offset": "eight.png"}, UsageError, "--offset .* has 8 bits, the frames of .* 16"),
        ({"bad_pixels": "white.png"}, UsageError, "marks 100.0 % of the pixels as bad; 5 % are allowed"),
        (
            {"bad_pixels": "nowhere.png"},
            UsageError,
            "--bad-pixels: .*nowhere.png cannot be read: No such file",
        ),
    ],
    ids=lambda value: str(value),
)
def test_corrections_that_do_not_fit_are_refused(tmp_path, options, error, message):
    folder = write_images(tmp_path / "images", {"0.png": sky(1)[0]})
    images = {"small.png": np.zeros((8, 8), np.uint16), "eight.png": np.zeros((48, 64), np.uint8)}
    write_images(tmp_path, {**images, "white.png": np.full((48, 64), 255, np.uint8)})
    with pytest.raises(error, match=message):
        open_source(folder, **{key: str(tmp_path / name) for key, name in options.items()})


def test_an_empty_mask_changes_nothing(tmp_path):
    folder = write_images(tmp_path / "images", {"0.png": sky(1)[0]})
    write_images(tmp_path, {"black.png": np.zeros((48, 64), np.uint8)})
    np.testing.assert_array_equal(frames_of(folder, bad_pixels=str(tmp_path / "black.png")), sky(1))


def test_coloured_sources_are_not_corrected(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    with pytest.raises(UsageError, match="has colours; --bad-pixels and --offset are for grey sources"):
        open_source(write_images(tmp_path / "images", {"0.png": colour}), bad_pixels="auto")
