"""Gaps between frames are detected and classified; windows and tracks respond to them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

import detectors
from detectors.inference.streaming import StreamingDetector
from pipeline.config.schema import DetectorConfig
from pipeline.imaging.geometry import fit_to_size
from pipeline.stages.batching import split_at_gaps
from pipeline.stages.gaps import DropCounter, GapMarker, RateLimit
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame, Gap, SourceInfo
from pipeline.structures.tracks import TrackState
from tests.support.media import grey_frames, write_video
from tests.support.outputs import check_consistent, lines, report
from trackers.centre import CentreOptions, CentreTracker

RATE = 30
INFO = SourceInfo("camera", 96, 64, Fraction(RATE), None, 8, 1, live=True)
IMAGE = np.full((64, 96), 90, np.uint8)


def frame(index, time=None, *, image=IMAGE, **more) -> Frame:
    """Returns a frame; `time` is in frame intervals and defaults to the index."""
    pts = Fraction(index if time is None else time) / RATE
    return Frame(image, index, pts, "camera", **more)


def marker(policy="repeat", *, window=5, dropped=None) -> GapMarker:
    return GapMarker(INFO, window=window, policy=policy, dropped=dropped)


def after(frames, *, before=10, **settings) -> Frame:
    """Returns the last of the frames as marked after `before` regular ones."""
    mark = marker(**settings)
    marked = [mark(item) for item in [*map(frame, range(before)), *frames]]
    assert [item.gap for item in marked[:before]] == [None] * before
    return marked[-1]


def test_regular_frames_have_no_gaps_and_fill_the_window():
    mark = marker()
    marked = [mark(frame(index)) for index in range(3, 11)]
    assert [item.gap for item in marked] == [None] * 8
    assert [item.time_in_frames for item in marked] == list(range(3, 11))
    assert [item.real_frames_in_window for item in marked] == [1, 2, 3, 4, 5, 5, 5, 5]
    assert not mark.events


@pytest.mark.parametrize("later", [frame(12), frame(10, 12)], ids=["by index", "by time"])
@pytest.mark.parametrize(("policy", "behind"), [("repeat", 3), ("flush", 1)])
def test_lost_frames_are_bridged_or_reset_the_window(later, policy, behind):
    marked = after([later], policy=policy)
    assert marked.gap == Gap("lost", 2, repeat_previous=policy == "repeat", elapsed_known=True)
    assert (marked.time_in_frames, marked.real_frames_in_window) == (12, behind)


@pytest.mark.parametrize("stride", [3, 40])
def test_frames_between_those_of_a_stride_are_not_missing(stride):
    mark = GapMarker(INFO, window=5, policy="repeat", stride=stride)
    marked = [mark(frame(index)) for index in range(2, 2 + 9 * stride, stride)]
    assert [item.gap for item in marked] == [None] * 9
    assert [item.time_in_frames for item in marked] == list(range(2, 2 + 9 * stride, stride))
    assert marked[-1].real_frames_in_window == 5
    later = mark(frame(2 + 11 * stride))
    assert later.gap == Gap("lost", 2, repeat_previous=True, elapsed_known=True)
    assert later.time_in_frames == 2 + 11 * stride


@pytest.mark.parametrize("stride", [1, 4, 10])
def test_tracks_are_confirmed_at_any_stride(stride):
    mark, tracker = GapMarker(INFO, window=1, policy="repeat", stride=stride), CentreTracker()
    for number in range(6):
        left = 20 + number * stride * 0.4
        found = Detections([[left, 30, left + 12, 40]], [0.9], [0])
        tracks = tracker.update(found, mark(frame(number * stride)))
    assert tracks.ids.tolist() == [1]
    assert tracks.state.tolist() == [TrackState.CONFIRMED]
    assert tracks.age.tolist() == [5 * stride]
    assert tracks.velocity[0] == pytest.approx([0.4, 0], abs=0.1)


def test_a_gap_of_a_whole_window_is_never_bridged():
    assert after([frame(13)]).gap.repeat_previous
    marked = after([frame(14)])
    assert marked.gap == Gap("lost", 4, repeat_previous=False, elapsed_known=True)
    assert (marked.time_in_frames, marked.real_frames_in_window) == (14, 1)


def test_dropped_frames_are_distinguished_from_lost_ones():
    dropped = DropCounter()
    for index in (0, 1, 10, 11):
        dropped(frame(index))
    mark = marker(dropped=dropped)
    assert [mark(frame(index)).gap for index in range(2, 10)] == [None] * 8
    assert mark(frame(12)).gap == Gap("dropped", 2, repeat_previous=True, elapsed_known=True)
    assert mark(frame(14)).gap.event == "lost"
    assert mark.events == {"dropped": 1, "lost": 1}
    assert dropped.count == 4


@pytest.mark.parametrize("time", [-300, 4, 3000], ids=["far back", "back", "ahead"])
def test_a_jump_of_the_clock_resets_the_window_and_the_time_is_unknown(time):
    marked = after([frame(10, time)])
    assert marked.gap == Gap("jump", 0, repeat_previous=False, elapsed_known=False)
    assert (marked.time_in_frames, marked.real_frames_in_window) == (10, 1)


def test_arrival_times_measure_a_jump_of_the_clock():
    mark = marker()
    for index in range(10):
        mark(frame(index, arrival=50 + index / RATE))
    leap = mark(frame(10, 3000, arrival=50 + 13 / RATE))
    assert leap.gap == Gap("jump", 3, repeat_previous=False, elapsed_known=True)
    assert leap.time_in_frames == 13
    after_it = mark(frame(11, 3001, arrival=50 + 14 / RATE))
    assert (after_it.gap, after_it.time_in_frames, after_it.real_frames_in_window) == (None, 14, 2)


def test_a_pause_confirmed_by_arrival_times_is_no_jump():
    mark = marker()
    for index in range(10):
        mark(frame(index, arrival=50 + index / RATE))
    assert mark(frame(10, 100, arrival=50 + 100 / RATE)).gap == Gap(
        "lost", 90, repeat_previous=False, elapsed_known=True
    )


def test_a_reconnection_is_detected_even_if_its_first_frames_were_dropped():
    mark = marker()
    for index in range(10):
        mark(frame(index))
    marked = mark(frame(12, 70, connection=1))
    assert marked.gap == Gap("reconnect", 60, repeat_previous=False, elapsed_known=True)
    assert (marked.time_in_frames, marked.real_frames_in_window) == (70, 1)
    assert mark(frame(13, 71, connection=1)).gap is None


@pytest.mark.parametrize("size", [(32, 48), (128, 128), (30, 90)], ids=str)
def test_a_frame_of_another_size_is_resized_without_black_margins(size):
    bright = np.full(size, 200, np.uint8)
    marked = after([frame(10, image=bright)])
    assert marked.gap == Gap("resize", 0, repeat_previous=False, elapsed_known=False)
    assert marked.image.shape == IMAGE.shape
    assert (marked.image == 200).all()


def test_fit_to_size_keeps_the_aspect_and_the_centre():
    image = np.zeros((32, 32), np.uint8)
    image[12:20, 12:20] = 255
    fit = fit_to_size(image, (96, 64))
    rows, columns = np.nonzero(fit > 127)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (24, 40, 40, 56)


def test_jitter_is_no_gap():
    chance = np.random.default_rng(0)
    mark = marker()
    times = np.arange(200) + chance.uniform(-0.14, 0.14, 200)
    marked = [mark(frame(index, Fraction(time))) for index, time in enumerate(times)]
    assert [item.gap for item in marked] == [None] * 200
    assert marked[-1].time_in_frames == 199


def test_a_wrong_nominal_rate_causes_no_gaps():
    mark = marker()
    marked = [mark(frame(index, 3 * index)) for index in range(50)]
    assert {item.gap for item in marked} == {None}
    assert marked[-1].time_in_frames == 49
    assert mark(frame(50, 3 * 51)).gap.missing == 1


def test_groups_are_split_before_gaps():
    gap = Gap("lost", 1, repeat_previous=True, elapsed_known=True)
    a, b, c, d, e = (frame(index, gap=gap if index in (0, 2, 4) else None) for index in range(5))
    assert list(split_at_gaps([(a, b, c), (d, e)])) == [(a, b), (c,), (d,), (e,)]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return detectors.build("tridos-nano").eval()


def test_repeating_equals_pushing_the_latest_frame_again(network):
    images = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    repeated, pushed = network.stream(), network.stream()
    for stream in (repeated, pushed):
        stream.repeat(3)  # no frame to repeat yet
        stream.push(images[:6])
    repeated.repeat(2)
    for _ in range(2):
        pushed.push(images[5:6])
    torch.testing.assert_close(repeated.push(images[6:]), pushed.push(images[6:]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("repeat", [True, False])
def test_a_detector_bridges_a_gap_or_resets_its_window(network, repeat):
    config = DetectorConfig(conf=0.0)
    images = grey_frames(8, 64, 64)
    frames = [frame(index, image=image) for index, image in enumerate(images)]
    gap = Gap("lost", 1, repeat_previous=repeat, elapsed_known=True)
    with_gap = [*frames[:6], replace(frames[7], gap=gap, real_frames_in_window=4 if repeat else 1)]
    expected = [*frames[:6], replace(frames[5], index=6), frames[7]] if repeat else [frames[7]]

    def last(items):
        detector = StreamingDetector(network, config, torch.device("cpu"))
        return list(detector.detect((item,) for item in items))[-1]

    found, wanted = last(with_gap), last(expected)
    assert found.warmup
    assert len(found.detections) == len(wanted.detections) > 0
    np.testing.assert_allclose(found.detections.scores, wanted.detections.scores, atol=1e-4)


def seen(x) -> Detections:
    return Detections([[x, 30, x + 6, 36]], [0.9], [0])


def follow(tracker, count, **more):
    """Returns the tracks after `count` frames of a target that moves by one pixel per frame."""
    for index in range(count):
        tracks = tracker.update(seen(10 + index), frame(index, time_in_frames=float(index), **more))
    return tracks


@pytest.mark.parametrize(("away", "alive"), [(0.5, True), (30, True), (31.5, False)])
def test_a_track_coasts_by_elapsed_time(away, alive):
    tracker = CentreTracker(CentreOptions(coast=30))
    assert follow(tracker, 10).state.tolist() == [TrackState.CONFIRMED]
    # only one frame has no detection, but more time elapses
    tracks = tracker.update(Detections.empty(), frame(10, time_in_frames=9 + away))
    assert tracks.ids.tolist() == [1] * alive
    if alive:
        np.testing.assert_allclose(tracks.boxes[0, 0], 19 + away, atol=0.2 + away / 20)


def test_tracks_end_if_the_elapsed_time_is_unknown_and_ids_continue():
    tracker = CentreTracker()
    follow(tracker, 10)
    gap = Gap("jump", 0, repeat_previous=False, elapsed_known=False)
    tracks = tracker.update(seen(20), frame(10, time_in_frames=10.0, gap=gap))
    assert tracks.ids.tolist() == [2]
    assert tracks.state.tolist() == [TrackState.TENTATIVE]


def test_results_record_the_gaps_of_a_recording(tmp_path, process):
    times = [*range(8), *range(10, 14), *range(114, 118)]
    path = write_video(tmp_path / "a.mkv", grey_frames(16, 64, 64), rate=25, times=times)
    folder = process(path)
    assert check_consistent(folder) == 16
    written = lines(folder)
    assert {line["frame"]: line["gap"] for line in written if "gap" in line} == {
        8: {"event": "lost", "missing": 2, "window": "repeated"},
        12: {"event": "jump", "missing": None, "window": "restarted"},
    }
    assert [line["behind"] for line in written] == [1, 2, 3, 4, 5, 5, 5, 5, 3, 3, 3, 4, 1, 2, 3, 4]
    assert [line["warmup"] for line in written] == [line["behind"] < 5 for line in written]
    assert report(folder)["gaps"] == {"lost": 1, "jump": 1}


def test_times_that_go_back_are_a_jump_without_lost_frames(tmp_path, process):
    part = write_video(tmp_path / "part.ts", grey_frames(8, 64, 64)).read_bytes()
    (tmp_path / "twice.ts").write_bytes(part + part)
    folder = process(tmp_path / "twice.ts")
    assert check_consistent(folder) == 16
    assert report(folder)["gaps"] == {"jump": 1}
    (at,) = (line["frame"] for line in lines(folder) if "gap" in line)
    assert at == 8


def arriving(count, *, rate=RATE, jitter=0.0):
    """Frames that arrive at a rate, every other one late by `jitter` seconds."""
    return [frame(index, arrival=100 + index / rate + jitter * (index % 2)) for index in range(count)]


@pytest.mark.parametrize("jitter", [0.0, 0.008])
@pytest.mark.parametrize(("most", "expected"), [(10, 100), (30, 300), (20, 200), (60, 300), (0, 300)])
def test_no_more_frames_a_second_are_processed_than_asked_for(most, expected, jitter):
    limit = RateLimit(most)
    kept = [item for item in arriving(300, jitter=jitter) if limit(item)]
    assert len(kept) == pytest.approx(expected, abs=1)
    assert limit.skipped.count == 300 - len(kept)


def test_frames_of_recordings_are_not_limited():
    limit = RateLimit(1)
    assert all(limit(frame(index)) for index in range(10))


def test_after_a_pause_frames_are_not_processed_in_a_burst():
    limit = RateLimit(10)
    late = [frame(index, arrival=200 + index / RATE) for index in range(31)]
    kept = [item for item in [frame(0, arrival=100), *late] if limit(item)]
    assert len(kept) == pytest.approx(1 + 11, abs=1)


def test_skipped_frames_are_no_gap():
    limit = RateLimit(10)
    mark = GapMarker(INFO, window=5, policy="repeat", skipped=limit.skipped)
    marked = [mark(item) for item in arriving(60) if limit(item)]
    assert [item.gap for item in marked] == [None] * 20
    assert [item.time_in_frames for item in marked] == list(range(0, 60, 3))


def test_frames_that_are_lost_beside_skipped_ones_are_a_gap():
    limit = RateLimit(10)
    mark = GapMarker(INFO, window=5, policy="repeat", skipped=limit.skipped)
    received = [item for item in arriving(60) if item.index not in (40, 41)]
    gaps = [marked.gap for marked in (mark(item) for item in received if limit(item)) if marked.gap]
    assert [gap.missing for gap in gaps] == [2]
