"""Each oracle corrects its own kind of error and no other."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from pipeline.error_analysis import main
from pipeline.evaluation.analysis.error_attribution import attribute_errors
from pipeline.evaluation.analysis.size_regression import SizeRegression
from pipeline.evaluation.detection.evaluator import Evaluator
from tests.support.coco_cases import TARGET, crowded_case, found, random_case, saved, truth_of

TARGETS = {1: [(TARGET, 1)], 2: [([40, 20, 10, 10], 1)], 3: []}
"""Two frames with a target, one without."""
RIGHT = [found(TARGET, image=1, score=0.9), found([40, 20, 10, 10], image=2, score=0.8)]
FAULTS = {
    "sizes": [RIGHT[0], found([35, 15, 20, 20], image=2, score=0.8)],
    "centres": [RIGHT[0], found([44, 22, 10, 10], image=2, score=0.8)],
    "duplicates": [*RIGHT, found([34, 20, 10, 10], image=2, score=0.7), found(TARGET, score=0.85)],
    "empty_frames": [*RIGHT, found(TARGET, image=3, score=0.95)],
    "far": [*RIGHT, found([10, 30, 8, 6], image=1, score=0.95)],
    "missed": RIGHT[:1],
}
"""Detections with one kind of error each."""


def attributed(detections, truth=None, threshold=0.4):
    evaluator = Evaluator(truth or truth_of(TARGETS), classes=False)
    evaluator.add_results(detections)
    return attribute_errors(evaluator, threshold)


def alone(detections) -> dict[str, float]:
    return {row.name: row.alone for row in attributed(detections).oracles}


def test_right_detections_have_no_errors():
    result = attributed(RIGHT)
    assert result.ap50 == result.centre_ap == 1
    assert set(alone(RIGHT).values()) == {1.0}
    assert (result.counts.hits, result.counts.targets) == (2, 2)


@pytest.mark.parametrize("kind", FAULTS)
def test_an_error_is_taken_away_by_its_own_oracle_alone(kind):
    before = attributed(FAULTS[kind]).ap50
    assert before < 1
    for name, after in alone(FAULTS[kind]).items():
        assert after == pytest.approx(1.0 if name == kind else before), name


@pytest.mark.parametrize("kind", FAULTS)
def test_together_with_those_before_it_an_oracle_leaves_nothing(kind):
    rows = attributed(FAULTS[kind]).oracles
    reached = [row.name for row in rows].index(kind)
    assert [row.together for row in rows[reached:]] == [1.0] * (len(rows) - reached)


@pytest.mark.parametrize(
    ("kind", "counted"),
    [
        ("sizes", {"hits": 1, "badly_boxed": 1}),
        ("centres", {"hits": 1, "badly_boxed": 1}),
        ("duplicates", {"hits": 2, "duplicates": 2}),
        ("empty_frames", {"hits": 2, "in_empty_frames": 1}),
        ("far", {"hits": 2, "far": 1}),
        ("missed", {"hits": 1, "missed": 1}),
    ],
)
def test_every_error_is_counted_once(kind, counted):
    counts = vars(attributed(FAULTS[kind]).counts)
    assert {name: count for name, count in counts.items() if count} == {"targets": 2, **counted}


def test_what_lies_below_the_threshold_does_not_count():
    counts = attributed(RIGHT, threshold=0.85).counts
    assert (counts.hits, counts.missed) == (1, 1)


def two_videos() -> tuple[dict, list[dict]]:
    """Four frames of each of two videos; the boxes of the second are found half as wide and high."""
    boxes = {image: [([10 + image, 10, 12, 12], 1)] for image in range(1, 9)}
    truth = truth_of(boxes)
    truth["videos"] = [{"id": 1, "name": "tight"}, {"id": 2, "name": "loose"}]
    truth["images"] = [
        {"id": i, "video_id": 1 + (i > 4), "frame_id": (i - 1) % 4, "width": 64, "height": 64} for i in boxes
    ]
    tight = [found([10 + i, 10, 12, 12], image=i) for i in range(1, 5)]
    loose = [found([13 + i, 13, 6, 6], image=i, score=0.8) for i in range(5, 9)]
    return truth, tight + loose


def test_one_factor_for_a_video_mends_a_size_that_is_wrong_throughout_it():
    truth, detections = two_videos()
    result = attributed(detections, truth)
    assert result.ap50 < 0.6
    assert result.ap50_resized == result.centre_ap == 1
    tight, loose = result.videos
    assert (tight.width_ratio, tight.height_ratio) == (1, 1)
    assert (loose.width_ratio, loose.height_ratio) == (0.5, 0.5)
    assert (loose.ap50, loose.ap50_resized) == (0, 1)
    assert loose.counts.badly_boxed == 4
    assert result.width_ratios == pytest.approx([0.5, 0.75, 1])
    assert result.width_ratios_in_video == [1, 1, 1]


def test_a_size_that_is_wrong_alike_in_all_videos_is_mended_by_what_other_videos_tell():
    truth, detections = two_videos()
    doubled = [{**row, "bbox": [*row["bbox"][:2], 6, 6]} for row in detections[:4]] + detections[4:]
    for row, image in zip(doubled[:4], range(1, 5), strict=True):
        row["bbox"][:2] = [13 + image, 13]
    result = attributed(doubled, truth)
    assert (result.ap50, result.ap50_mapped) == (0, 1)


def test_what_the_labels_of_one_video_alone_could_tell_is_not_mended():
    truth, detections = two_videos()
    result = attributed(detections, truth)
    assert result.ap50_mapped < 0.6 < result.ap50_resized


def test_a_map_of_sizes_finds_the_law_between_them():
    rng = np.random.default_rng(0)
    found = rng.uniform(4, 40, (200, 2))
    labels = np.column_stack([0.8 * found[:, 1] ** 0.9, 3 * found[:, 0] ** 0.5])
    labels[:20] *= 5  # a tenth of the labels is wrong
    known, size_map = found[20:], SizeRegression.fit(found, labels)
    np.testing.assert_allclose(known * size_map.factors(known), labels[20:], rtol=0.03)
    beyond = np.array([[0.0, 0.0], [1e4, 1e4]])
    edge = np.clip(beyond, found.min(axis=0), found.max(axis=0))
    np.testing.assert_allclose(size_map.factors(beyond), size_map.factors(edge))


def test_sizes_that_do_not_differ_give_a_factor():
    size_map = SizeRegression.fit(np.full((5, 2), 8.0), np.full((5, 2), 12.0))
    np.testing.assert_allclose(size_map.factors(np.array([[8.0, 8.0], [3.0, 30.0]])), 1.5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("case", [random_case, crowded_case])
def test_the_numbers_are_the_evaluators_and_dropping_errors_never_costs(case, seed):
    truth, detections = case(seed, 1)
    evaluator = Evaluator(truth, classes=False)
    evaluator.add_results(detections)
    result = attribute_errors(evaluator, 0.3)
    assert result.ap50 == pytest.approx(evaluator.scores().ap50)
    dropped = {row.name: row.alone for row in result.oracles}
    assert min(dropped[name] for name in ("duplicates", "empty_frames", "far")) >= result.ap50
    counts = result.counts
    assert counts.hits + counts.badly_boxed + counts.missed == counts.targets > 0


def test_nothing_found_is_no_fault_of_the_program():
    result = attributed([])
    assert (result.ap50, result.counts.missed, result.width_ratios) == (0, 2, [])


@pytest.fixture
def files(tmp_path):
    return saved(tmp_path, *two_videos())


@pytest.mark.slow
def test_the_command_prints_writes_and_draws(files, tmp_path, capsys):
    out = tmp_path / "errors.json"
    assert main([*files, "--output", str(out), "--plots", str(tmp_path / "plots")]) == 0
    printed = capsys.readouterr().out
    numbers = json.loads(out.read_text())
    assert numbers["ap50_resized"] == 1
    assert "sizes: one factor for each video" in printed
    assert "loose" in printed
    assert np.ptp(cv2.imread(str(tmp_path / "plots" / "error_attribution.png"))) > 100


def test_only_the_frames_of_the_stride_are_scored(files, tmp_path):
    out = tmp_path / "errors.json"
    assert main([*files, "--stride", "3", "--output", str(out)]) == 0
    assert [video["frames"] for video in json.loads(out.read_text())["videos"]] == [2, 2]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--stride", "0"], 2, "expected a whole number of 1 or more"),
        (["--conf", "3"], 2, "expected a score from 0 to 1"),
        (["--output", "missing/errors.json"], 5, "there is no folder missing"),
    ],
)
def test_mistakes_are_reported_in_one_line(files, capsys, arguments, code, message):
    assert main([*files, *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
