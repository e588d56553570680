"""Precision, recall and false alarms of a curve equal values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.detection.curves import PrecisionRecallCurve


def curve_of(rows, *, targets=4, frames=10) -> PrecisionRecallCurve:
    """A curve of (score, hit) pairs."""
    scores, hits = zip(*rows, strict=True) if rows else ((), ())
    return PrecisionRecallCurve(
        np.array(scores, dtype=float), np.array(hits, dtype=bool), targets=targets, frames=frames
    )


FOUR_OF_SIX = [(0.9, True), (0.8, False), (0.7, True), (0.6, True), (0.5, False), (0.4, True)]
"""Precision after each: 1, 1/2, 2/3, 3/4, 3/5, 4/6; recall: 1/4, 1/4, 2/4, 3/4, 3/4, 4/4."""


def test_precision_is_the_best_at_a_recall_or_beyond_it():
    precision = curve_of(FOUR_OF_SIX).interpolated_precision
    # recall 0 to 0.25: 1; to 0.75: 3/4, which is better than the 2/3 before it; to 1: 4/6
    assert precision.tolist() == [1.0] * 26 + [0.75] * 50 + [4 / 6] * 25


def test_average_precision_is_the_mean_over_101_recalls():
    expected = (26 * 1 + 50 * 0.75 + 25 * 4 / 6) / 101
    assert curve_of(FOUR_OF_SIX).average_precision == pytest.approx(expected, abs=1e-12)


def test_recalls_that_are_not_reached_have_no_precision():
    curve = curve_of(FOUR_OF_SIX[:1])
    assert curve.average_precision == pytest.approx(26 / 101)
    assert curve.max_recall == 0.25


@pytest.mark.parametrize(
    ("threshold", "precision", "recall", "f1", "false_alarms"),
    [
        (0.95, None, 0, 0, 0),
        (0.9, 1, 1 / 4, 2 / 5, 0),
        (0.65, 2 / 3, 2 / 4, 4 / 7, 0.1),
        (0.0, 4 / 6, 1, 8 / 10, 0.2),
    ],
)
def test_a_threshold_takes_its_score_and_all_above(threshold, precision, recall, f1, false_alarms):
    point = curve_of(FOUR_OF_SIX).operating_point(threshold)
    assert (point.precision, point.recall) == (precision, recall)
    assert point.f1 == pytest.approx(f1)
    assert point.false_alarms_per_frame == pytest.approx(false_alarms)
    assert point.hits + point.misses == 4


def test_the_best_f1_comes_with_its_threshold():
    # F1 after each: 2/5, 2/6, 4/7, 6/8, 6/9, 8/10
    assert curve_of(FOUR_OF_SIX).best_f1() == (0.8, 0.4)


@pytest.mark.parametrize(
    ("recall", "false_alarms"),
    [(0.25, 0.0), (0.26, 0.1), (0.5, 0.1), (0.75, 0.1), (0.8, 0.2), (1.0, 0.2)],
)
def test_false_alarms_per_frame_are_the_fewest_at_a_recall(recall, false_alarms):
    assert curve_of(FOUR_OF_SIX).false_alarms_at_recall(recall) == pytest.approx(false_alarms)


def test_a_recall_that_is_never_reached_has_no_false_alarms():
    curve = curve_of(FOUR_OF_SIX, targets=5)
    assert curve.false_alarms_at_recall(0.8) == pytest.approx(0.2)
    assert curve.false_alarms_at_recall(0.81) is None


@pytest.mark.parametrize(
    ("false_alarms", "recall"), [(0.0, 0.25), (0.09, 0.25), (0.1, 0.75), (0.2, 1), (9, 1)]
)
def test_recall_is_the_highest_with_at_most_so_many_false_alarms(false_alarms, recall):
    assert curve_of(FOUR_OF_SIX).recall_at_false_alarms(false_alarms) == recall


def test_no_recall_without_the_false_alarm_that_comes_first():
    curve = curve_of([(0.9, False), (0.8, True)], targets=1)
    assert curve.recall_at_false_alarms(0.05) == 0
    assert curve.recall_at_false_alarms(0.1) == 1


def test_equal_scores_pass_together():
    curve = curve_of([(0.5, True), (0.5, False), (0.5, True), (0.2, False)], targets=2)
    assert [array.tolist() for array in curve.froc] == [[0.1, 0.2], [1.0, 1.0]]
    assert curve.best_f1() == (pytest.approx(4 / 5), 0.5)
    assert curve.operating_point(0.5).false_alarms == 1


def test_without_detections_nothing_is_found():
    curve = curve_of([])
    assert (curve.average_precision, curve.max_recall, curve.best_f1()) == (0, 0, (0, 1))
    assert (curve.recall_at_false_alarms(1), curve.false_alarms_at_recall(0.5)) == (0, None)
    assert (
        curve.operating_point(0.5).precision,
        curve.operating_point(0.5).recall,
        curve.operating_point(0.5).f1,
    ) == (None, 0, 0)


def test_without_targets_there_is_no_recall_but_there_are_false_alarms():
    curve = curve_of([(0.9, False)], targets=0)
    point = curve.operating_point(0.5)
    assert (curve.average_precision, curve.max_recall, curve.recall_at_false_alarms(1)) == (None, None, None)
    assert (curve.best_f1(), curve.false_alarms_at_recall(0.5)) == ((0, 1), None)
    assert (point.precision, point.recall, point.f1, point.false_alarms_per_frame) == (0, None, 0, 0.1)


def test_with_neither_targets_nor_detections_there_is_no_f1():
    assert curve_of([], targets=0).operating_point(0.5).f1 is None


def test_a_detector_that_never_hits_has_no_best_threshold():
    assert curve_of([(0.9, False), (0.8, False)]).best_f1() == (0, 1)
