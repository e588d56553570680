"""Operating thresholds for false-alarm rates, and calibration of scores."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from pipeline.calibration import main
from pipeline.evaluation.analysis.score_calibration import (
    bin_scores,
    calibrate,
    calibrated_probability,
    calibration_error,
    platt_fit,
)
from pipeline.evaluation.detection.curves import PrecisionRecallCurve
from pipeline.evaluation.detection.evaluator import Evaluator
from tests.support.coco_cases import TARGET, found, saved, truth_of

FRAMES = 40


def drawn(chance_of, *, count=20_000, seed=0):
    """Scores spread evenly, each a hit with the chance that `chance_of` gives it."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.02, 0.98, count)
    return scores, rng.random(count) < chance_of(scores)


def test_scores_that_are_the_chance_of_a_hit_have_no_error():
    assert calibration_error(*drawn(lambda s: s)) < 0.01


def test_the_error_is_the_mean_distance_from_the_share_of_hits():
    scores, hits = np.array([0.11, 0.13, 0.81, 0.83]), np.array([False, True, True, True])
    # bins of means 0.12 and 0.82 with shares 0.5 and 1
    assert calibration_error(scores, hits) == pytest.approx((0.38 + 0.18) / 2)
    assert [(b.low, b.count) for b in bin_scores(scores, hits)] == [(pytest.approx(0.1), 2), (0.8, 2)]


@pytest.mark.parametrize(("score", "low"), [(0.0, 0.0), (0.15, 0.15), (0.35, 0.35), (1.0, 0.95)])
def test_a_bin_begins_at_its_least_score_and_the_last_one_holds_1(score, low):
    assert bin_scores(np.array([score]), np.array([True]))[0].low == pytest.approx(low)


def test_the_fit_finds_the_chance_that_hits_were_drawn_with():
    scores, hits = drawn(lambda s: calibrated_probability(s, 2.5, 1.0))
    assert platt_fit(scores, hits) == pytest.approx((2.5, 1.0), abs=0.15)
    assert calibration_error(calibrated_probability(scores, *platt_fit(scores, hits)), hits) < 0.01
    assert calibration_error(scores, hits) > 0.1


def test_scores_that_tell_hits_apart_without_fault_are_fitted_by_finite_numbers():
    slope, offset = platt_fit(np.array([0.1, 0.2, 0.7, 0.8]), np.array([False, False, True, True]))
    assert 0 < slope < 100
    assert abs(offset) < 100


def test_a_threshold_keeps_to_the_rate_and_takes_equal_scores_together():
    scores, hits = np.array([0.9, 0.8, 0.7, 0.7, 0.6]), np.array([True, False, True, False, True])
    curve = PrecisionRecallCurve(scores, hits, targets=3, frames=10)
    assert curve.threshold_at_false_alarms(0.0) == 0.9
    assert curve.threshold_at_false_alarms(0.1) == 0.8
    assert curve.threshold_at_false_alarms(0.19) == 0.8
    assert curve.threshold_at_false_alarms(0.2) == 0.6
    assert curve.operating_point(curve.threshold_at_false_alarms(0.2)).false_alarms_per_frame == 0.2
    assert PrecisionRecallCurve(scores, ~hits, targets=3, frames=10).threshold_at_false_alarms(0.05) is None
    assert (
        PrecisionRecallCurve(scores[:0], hits[:0], targets=3, frames=10).threshold_at_false_alarms(0.05)
        is None
    )


def case() -> tuple[dict, list[dict]]:
    """Two videos, a target in each frame, always found; a false alarm in each tenth frame.

    Scores of the second video are lower by 0.2, those of false alarms by 0.1 than those of hits.
    """
    truth = truth_of({image: [(TARGET, 1)] for image in range(FRAMES)})
    truth["videos"] = [{"id": n, "name": str(n)} for n in (0, 1)]
    for image in truth["images"]:
        image |= {"video_id": image["id"] % 2, "frame_id": image["id"] // 2}
    rows = []
    for image in range(FRAMES):
        rows.append(found(image=image, score=0.8 - 0.2 * (image % 2)))
        if image // 2 % 10 == 0:
            rows.append(found([40, 30, 8, 6], image=image, score=0.7 - 0.2 * (image % 2)))
    return truth, rows


def test_a_threshold_is_tried_on_the_videos_it_was_not_chosen_on():
    truth, rows = case()
    evaluator = Evaluator(truth, classes=False)
    evaluator.add_results(rows)
    iou, centre = calibrate([evaluator], [0.0, 0.1], min_score=0.05)
    assert iou.thresholds == centre.thresholds
    none, tenth = iou.thresholds
    # without false alarms: 0.8 of the first video alone, since 0.7 is one
    assert (none.point.threshold, none.point.recall, none.point.false_alarms) == (0.8, 0.5, 0)
    assert [(p.threshold, p.recall, p.false_alarms_per_frame) for p in none.cross_validated] == [
        (0.8, 0, 0),
        (pytest.approx(0.6), 1, 0.1),
    ]
    assert (tenth.point.false_alarms_per_frame, tenth.point.recall) == (0.1, 1)
    assert sum(b.count for b in iou.bins) == len(rows)
    assert iou.cross_validated_error > iou.error_fitted


def test_further_datasets_count_like_more_videos_of_one():
    evaluators = []
    for _ in range(2):
        truth, rows = case()
        evaluators.append(Evaluator(truth, classes=False))
        evaluators[-1].add_results(rows)
    (alone, _), (both, _) = (calibrate(part, [0.1], min_score=0.05) for part in (evaluators[:1], evaluators))
    assert [b.count for b in both.bins] == [2 * b.count for b in alone.bins]
    assert both.thresholds[0].point.threshold == alone.thresholds[0].point.threshold
    assert both.cross_validated_error == pytest.approx(alone.cross_validated_error, abs=0.01)


@pytest.fixture
def files(tmp_path):
    return saved(tmp_path, *case())


def test_the_command_prints_writes_and_draws(files, tmp_path, capsys):
    out = tmp_path / "calibration.json"
    arguments = ["--false-alarms", "0.1", "--output", str(out), "--plots", str(tmp_path)]
    assert main([*files, *arguments]) == 0
    assert "Expected calibration error" in capsys.readouterr().out
    point = json.loads(out.read_text())["centre_5px"]["operations"][0]["point"]
    assert point["false_alarms_per_frame"] == 0.1
    assert np.ptp(cv2.imread(str(tmp_path / "reliability.png"))) > 100


def test_the_command_takes_further_datasets(files, tmp_path):
    out = tmp_path / "calibration.json"
    options = ["--also", str(tmp_path / "truth.json"), str(tmp_path / "found.json"), "2"]
    assert main([*files, *options, "--output", str(out)]) == 0
    bins = json.loads(out.read_text())["centre_5px"]["bins"]
    assert sum(row["count"] for row in bins) == 44 + 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--false-alarms", "-1"], "expected false alarms per frame"),
        (["--also", "a.json", "b.json", "0"], "--also a.json b.json 0: "),
        (["--least", "0.99"], "no detection has a score of 0.99 or more; give a lower one"),
    ],
)
def test_mistakes_are_reported_in_one_line(files, capsys, arguments, message):
    assert main([*files, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
