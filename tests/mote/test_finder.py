"""Frames that are passed one by one: `mote.Finder`."""

from __future__ import annotations

import numpy as np
import pytest

import mote
from pipeline.sources import open_source
from pipeline.system.errors import UsageError
from tests.mote.test_runs import OneBox


def same(first, second) -> bool:
    """Whether two results have equal detections, tracks, times and gaps."""
    pairs = ((first.detections, second.detections), (first.tracks, second.tracks))
    arrays = all(
        np.array_equal(getattr(a, name), getattr(b, name)) for a, b in pairs for name in ("boxes", "scores")
    )
    frames = [(r.frame.index, r.frame.pts, r.frame.gap, r.frame.time_in_frames) for r in (first, second)]
    return arrays and np.array_equal(first.tracks.ids, second.tracks.ids) and frames[0] == frames[1]


@pytest.mark.slow
def test_frames_one_by_one_give_the_results_of_the_whole_video(clip, nano_weights):
    settings = {"weights": nano_weights, "backend": "torch"}
    finder = mote.Finder(rate=30, **settings)
    with open_source(clip) as source:
        single = [finder(frame.image, time=float(frame.pts)) for frame in source]
    whole = list(mote.watch(clip, **settings))
    assert any(len(result.detections) for result in whole)
    assert len(single) == len(whole) == 16
    for first, second in zip(single, whole, strict=True):
        np.testing.assert_allclose(float(first.frame.pts), float(second.frame.pts), atol=1e-6)
        assert np.array_equal(first.detections.boxes, second.detections.boxes)
        assert np.array_equal(first.tracks.ids, second.tracks.ids)


@pytest.mark.slow
def test_a_reset_finder_gives_the_results_of_a_new_one(clip, nano_weights):
    finder = mote.Finder(weights=nano_weights, backend="torch")
    with open_source(clip) as source:
        images = [frame.image for frame in source][:8]
    first = [finder(image) for image in images]
    finder.reset()
    again = [finder(image) for image in images]
    assert all(map(same, first, again))
    finder.reset()
    other = finder(np.zeros((48, 96), np.uint16))  # another size and depth
    assert other.frame.index == 0


def test_images_of_sixteen_bits_are_scaled_as_in_a_run():
    finder = mote.Finder(detector=OneBox())
    image = np.full((40, 50), 7000, np.uint16)
    image[:20] = 7100
    assert finder(image).frame.levels == pytest.approx((7000, 7100), abs=1)


def test_times_show_missing_frames():
    finder = mote.Finder(detector=OneBox(), rate=10)
    for number in range(10):
        assert finder(np.zeros((40, 50), np.uint8), time=number / 10).frame.gap is None
    result = finder(np.zeros((40, 50), np.uint8), time=1.3)
    assert (result.frame.gap.event, result.frame.gap.missing) == ("lost", 3)


def test_frames_of_another_form_are_refused_and_do_not_count():
    finder = mote.Finder(detector=OneBox())
    grey = np.zeros((40, 50), np.uint8)
    finder(grey)
    with pytest.raises(ValueError, match="a frame of 3 channels of 8 bits in a sequence of 1 channels"):
        finder(np.zeros((40, 50, 3), np.uint8))
    with pytest.raises(ValueError, match="expected uint8 or uint16"):
        finder(grey.astype(np.float32))
    assert finder(grey).frame.index == 1


def test_unknown_settings_are_refused_at_once():
    with pytest.raises(UsageError, match="unknown setting 'confidence'"):
        mote.Finder(confidence=0.3)
    with pytest.raises(ValueError, match="expected more than 0"):
        mote.Finder(rate=0)
