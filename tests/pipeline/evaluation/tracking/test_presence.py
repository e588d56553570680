"""Coverage, false tracks and the time to the first track equal values counted by hand."""

from __future__ import annotations

import pytest

from pipeline.evaluation.tracking.scoring import OVERALL, score_tracks, score_videos
from pipeline.evaluation.tracking.tables import gate_table
from tests.support.track_cases import record, still, tracks

TEN = range(10)


def test_a_track_with_a_fifth_of_its_rows_on_a_target_is_not_false_and_with_less_it_is():
    paths = {1: {**still(TEN, at=200), **still([0, 1])}, 2: {**still(TEN, at=150), **still([0])}}
    scores = score_tracks(record({1: still(TEN)}, frames=10, fps=30), tracks(paths), gate="centre")
    assert scores.false_tracks == 1
    # 10 frames are a third of a second
    assert (scores.false_tracks_per_minute, scores.false_tracks_per_hour) == pytest.approx((180, 10800))


def test_coverage_counts_boxes_with_any_track_near_and_a_target_below_a_fifth_is_missed():
    truth = record({1: still(TEN), 2: still(TEN, at=200)}, frames=10, fps=25)
    paths = {5: still([4, 5, 6]), 6: still([7, 8]), 7: still([9], at=200)}
    scores = score_tracks(truth, tracks(paths), gate="centre")
    assert (scores.coverage, scores.missed_targets) == (6 / 20, 1)
    # seconds to the first row: 4 and 9 frames at 25 a second
    assert scores.first_confirmation == pytest.approx((4 + 9) / 2 / 25)


def test_two_targets_inside_the_gate_of_one_track_are_both_covered():
    truth = record({1: still(TEN), 2: still(TEN, at=53)}, frames=10)
    scores = score_tracks(truth, tracks({5: still(TEN, at=51)}), gate="centre")
    assert (scores.coverage, scores.misses, scores.false_tracks) == (1, 10, 0)


def test_without_a_rate_times_are_frames_and_false_tracks_have_no_rate():
    scores = score_tracks(record({1: still(TEN)}, frames=10), tracks({5: still([3, 4, 5])}), gate="centre")
    assert (scores.first_confirmation, scores.false_tracks_per_minute) == (3, None)


def test_frames_left_out_on_purpose_are_time_too():
    scores = score_tracks(
        record({1: still(TEN)}, frames=10), tracks({5: still(TEN, at=200)}), gate="centre",
        frames=range(0, 10, 2), rate=10,
    )  # fmt: skip
    assert scores.false_tracks_per_minute == pytest.approx(60)  # five frames, each a fifth of a second


def test_the_rate_of_several_videos_is_over_their_time_together():
    still_target = record({1: still(TEN)}, frames=10, fps=10)
    videos = [
        (still_target, tracks({5: still(TEN, at=200)})),
        (record({}, frames=30, name="b", fps=10), tracks({})),
    ]
    scores = score_videos(videos, gate="centre")[OVERALL]
    assert (scores.false_tracks, scores.false_tracks_per_minute) == (1, pytest.approx(60 / 4))
    assert (scores.coverage, scores.first_confirmation, scores.missed_targets) == (0, None, 1)


def test_the_tables_define_their_columns():
    scores = score_tracks(record({1: still(TEN)}, frames=10, fps=10), tracks({5: still(TEN)}), gate="centre")
    shown = gate_table({"centre": scores})
    for word in ("HOTA: ", "IDF1: ", "tube AP: ", "coverage: ", "missed: ", "false track: "):
        assert word in shown
    row = next(line.split() for line in shown.splitlines()[::-1] if line.startswith("  centre 5 "))
    assert row == ["centre", "5", "1.000", "0/1", "0.00", "0", "0.00", "0.00"]
