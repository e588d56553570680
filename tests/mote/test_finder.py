"""Frames that are passed one by one: `mote.Finder`."""

from __future__ import annotations

import numpy as np
import pytest

import mote
from pipeline.sources import open_source
from pipeline.system.errors import UsageError
from tests.mote.test_runs import OneBox
from tests.support.two_spots import EVENTS, NAME, RAW, recording


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


def test_a_closed_finder_has_no_networks_and_begins_anew():
    with mote.Finder(tracker="none") as finder:
        finder(np.zeros((32, 32), np.uint8))
        assert finder._networks is not None
    assert finder._networks is None
    assert finder(np.zeros((48, 64), np.uint8)).frame.index == 0


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


@pytest.mark.parametrize("image", [[[1, 2], [3, 4]], None, "image.png"])
def test_what_is_no_array_is_refused_with_its_type(image):
    with pytest.raises(TypeError, match=f"of type {type(image).__name__}, expected a numpy array"):
        mote.Finder(detector=OneBox())(image)


def test_an_image_without_pixels_is_refused_and_does_not_begin_the_sequence():
    finder = mote.Finder(detector=OneBox())
    with pytest.raises(ValueError, match="without pixels"):
        finder(np.zeros((0, 50), np.uint8))
    assert finder(np.zeros((40, 50), np.uint8)).frame.index == 0


def test_a_frame_of_another_size_is_refused_until_the_finder_is_reset():
    finder = mote.Finder(detector=OneBox())
    finder(np.zeros((40, 50), np.uint8))
    with pytest.raises(ValueError, match="a frame of 30x20 in a sequence of 50x40"):
        finder(np.zeros((20, 30), np.uint8))
    finder.reset()
    assert finder(np.zeros((20, 30), np.uint8)).frame.width == 30


def test_the_form_of_a_frame_that_failed_does_not_hold():
    class FailsOnce(OneBox):
        failed = False

        def detect(self, groups):
            if not self.failed:
                self.failed = True
                raise RuntimeError("no network yet")
            yield from super().detect(groups)

    finder = mote.Finder(detector=FailsOnce())
    with pytest.raises(RuntimeError, match="no network yet"):
        finder(np.zeros((40, 50), np.uint8))
    assert finder(np.zeros((20, 30), np.uint16)).frame.index == 0


def test_a_buffer_of_either_byte_order_can_be_used_again():
    finder, buffer = mote.Finder(detector=OneBox()), np.full((40, 50), 300, ">u2")
    result = finder(buffer)
    buffer[:] = 0
    assert result.frame.image.dtype == np.uint16
    assert (result.frame.image == 300).all()


def test_samples_of_more_than_the_declared_bits_are_refused():
    with pytest.raises(ValueError, match="holds 4096, more than bits = 12 can"):
        mote.Finder(detector=OneBox(), bits=12)(np.full((40, 50), 4096, np.uint16))


@pytest.mark.parametrize("bits", [0, 17, -1])
def test_bits_out_of_range_are_refused_at_once(bits):
    with pytest.raises(ValueError, match=f"bits = {bits}, expected 1 to 16"):
        mote.Finder(bits=bits)


def test_rates_and_times_are_numbers_of_any_type():
    finder = mote.Finder(detector=OneBox(), rate=np.float32(25))
    assert finder(np.zeros((40, 50), np.uint8), time=np.float32(1.5)).frame.pts == 1.5
    for time in (float("nan"), float("inf"), "1"):
        with pytest.raises(ValueError, match="expected a finite number"):
            finder(np.zeros((40, 50), np.uint8), time=time)


@pytest.mark.parametrize("setting", ["output", "max_frames", "timeout", "health_port", "save_video"])
def test_settings_that_frames_of_any_origin_do_not_have_are_refused(setting):
    with pytest.raises(UsageError, match=f"'{setting}' has no effect here"):
        mote.Finder(**{setting: 1})
    mote.Finder(scaling="full-range", on_gap="flush")


RULES = f"""
{EVENTS}
[[events.rules]]
name = "any"
[[events.rules]]
name = "right-side"
zones = ["right"]
"""


def told(events):
    """Messages without the id of the run and the name of the source."""
    return [{**event.to_dict(), "source": "", "id": event.id.partition("-")[2]} for event in events]


def test_events_are_those_of_the_whole_recording(tmp_path):
    (tmp_path / "rules.toml").write_text(RULES)
    settings = {"config": tmp_path / "rules.toml", "set": ["tracker.options.coast=5"], "detector": NAME}
    whole, single = [], []
    results = list(mote.watch(recording(tmp_path), on_event=whole.append, **RAW, **settings))
    with mote.Finder(rate=10, on_event=single.append, **settings) as finder:
        found = [finder(result.frame.image) for result in results]
    assert {(event.rule, event.phase) for event in whole} == {
        (rule, phase) for rule in ("any", "right-side") for phase in ("start", "update", "end")
    }
    assert told(single) == told(whole)
    assert [told(result.events) for result in found] == [told(result.events) for result in results]


def test_without_rules_there_are_no_events():
    finder = mote.Finder(detector=OneBox(), rate=10)
    assert all(finder(np.zeros((40, 50), np.uint8)).events == () for _ in range(20))


def test_events_of_a_sequence_end_with_it_and_those_of_the_next_have_other_ids():
    got = []
    finder = mote.Finder(detector=OneBox(), rate=10, events=True, on_event=got.append)
    for _ in range(2):
        for _ in range(12):
            finder(np.zeros((40, 50), np.uint8))
        finder.reset()
    assert [event.phase for event in got] == ["start", "end", "start", "end"]
    assert got[0].id == got[1].id != got[2].id == got[3].id


def test_a_rule_that_does_not_fit_the_images_is_refused_with_the_first_one(tmp_path):
    (tmp_path / "rules.toml").write_text(RULES)
    finder = mote.Finder(detector=OneBox(), config=tmp_path / "rules.toml")
    with pytest.raises(UsageError, match=r"events.zones.right has the point \[60, 0\]"):
        finder(np.zeros((40, 50), np.uint8))
