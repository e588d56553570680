"""The evaluator on files and frame by frame: matching, running AP50 and all sections of the report."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from pipeline.evaluation.detection.evaluator import Evaluator, evaluate
from pipeline.structures.boxes import from_xywh
from pipeline.structures.detections import Detections
from pipeline.system.errors import UsageError
from tests.support.coco_cases import (
    TARGET,
    by_pycocotools,
    crowded_case,
    found,
    mean_precision,
    random_case,
    truth_of,
)

SIDES = (4, 8, 16, 32)


def report_of(truth, detections, *, threshold=0.5, **choices):
    evaluator = Evaluator(truth, **choices)
    evaluator.add_results(detections)
    return evaluator.report(threshold)


def detections_of(rows: list[dict]) -> Detections:
    """COCO results of one frame as the pipeline has them; category 1 is label 0."""
    return Detections(
        from_xywh(np.array([row["bbox"] for row in rows]).reshape(-1, 4)),
        [row["score"] for row in rows],
        [row["category_id"] - 1 for row in rows],
    )


def fed_frame_by_frame(truth, detections, **choices) -> Evaluator:
    evaluator = Evaluator(truth, **choices)
    for image in truth["images"]:
        rows = [row for row in detections if row["image_id"] == image["id"]]
        evaluator.add(image["id"], detections_of(rows))
    return evaluator


def positive(truth, detections):
    """A case without boxes of negative size, which `Detections` refuse."""
    return truth, [row for row in detections if min(row["bbox"][2:]) >= 0]


# Against pycocotools: the evaluator matches by itself, pycocotools gives the headline numbers


@pytest.mark.parametrize("categories", [1, 3])
@pytest.mark.parametrize("seed", range(8))
def test_our_matching_gives_the_average_precision_of_pycocotools(seed, categories):
    truth, detections = crowded_case(seed, categories)
    ours = report_of(truth, detections).criteria["iou_0.5"].ap
    assert ours == pytest.approx(mean_precision(by_pycocotools(truth, detections)), abs=1e-12)


@pytest.mark.parametrize("categories", [1, 3])
@pytest.mark.parametrize("seed", range(8))
def test_sizes_are_those_of_pycocotools_area_ranges(seed, categories):
    truth, detections = crowded_case(seed, categories)
    edges = [-1, *(side**2 for side in SIDES), 1e10]
    # pycocotools has both ends of a range in it; here an area is in one range only
    ranges = [[np.nextafter(low, np.inf), high] for low, high in pairwise(edges)]
    labels = [str(n) for n in range(5)]
    run = by_pycocotools(truth, detections, areaRng=ranges, areaRngLbl=labels, iouThrs=np.array([0.5]))
    expected = [mean_precision(run, size=n) for n in range(5)]
    assert [row.ap50 for row in report_of(truth, detections).per_size] == [
        None if value is None else pytest.approx(value, abs=1e-12) for value in expected
    ]


@pytest.mark.parametrize("seed", range(5))
def test_videos_are_scored_like_files_of_their_own(seed):
    truth, detections = crowded_case(seed, 3)
    rows = report_of(truth, detections).per_video
    assert [row.name for row in rows] == ["video 0", "video 1", "video 2"]
    for number, row in enumerate(rows):
        ids = [image["id"] for image in truth["images"] if image["video_id"] == number]
        expected = mean_precision(by_pycocotools(truth, detections, imgIds=ids))
        assert row.frames == len(ids)
        assert row.ap50 == (expected if expected is None else pytest.approx(expected, abs=1e-12))


@pytest.mark.parametrize("seed", range(3))
def test_classes_are_scored_one_by_one_and_as_one(seed):
    truth, detections = crowded_case(seed, 3)
    report = report_of(truth, detections)
    run = by_pycocotools(truth, detections)
    precision = run.eval["precision"][:, :, :, 0, -1]
    for number, row in enumerate(report.per_class):
        assert row.ap50 == pytest.approx(precision[0, :, number].mean(), abs=1e-12)
        assert row.ap == pytest.approx(precision[:, :, number].mean(), abs=1e-12)
    assert report.class_agnostic == evaluate(truth, detections, classes=False)
    assert report_of(truth, detections, classes=False).per_class == []


@pytest.mark.parametrize("classes", [True, False])
def test_only_the_best_hundred_of_a_frame_count_as_in_pycocotools(classes):
    chance = np.random.default_rng(0)
    truth = truth_of({1: [(TARGET, 1), ([30, 30, 8, 6], 2)]}, categories=2)
    places = [[*chance.uniform(0, 40, 2), 8, 6] for _ in range(250)] + [TARGET]
    detections = [
        found(place, category=1 + n % 2, score=0.9 - n / 1000) for n, place in enumerate(places)
    ]  # the hit comes behind 125 others of its class
    report = report_of(truth, detections, classes=classes)
    assert report.scores.detections == (200 if classes else 100)
    beyond = "detections beyond the best 100 of their frame and category"
    assert report.notes == [f"{beyond}: {251 - report.scores.detections}; they do not count"]
    expected = mean_precision(by_pycocotools(truth, detections, useCats=int(classes)))
    if classes:
        assert report.criteria["iou_0.5"].ap == pytest.approx(expected, abs=1e-12)
    assert report.scores.ap50 == pytest.approx(report.criteria["iou_0.5"].ap, abs=1e-12)


@pytest.mark.parametrize(
    ("order", "hits"), [([0, 1], 1), ([1, 0], 2)], ids=["right one last", "left one last"]
)
def test_of_targets_equally_close_the_last_is_hit_as_in_pycocotools(order, hits):
    left, right = ([10, 10, 10, 4], 1), ([14, 10, 10, 4], 1)
    truth = truth_of({1: [(left, right)[n] for n in order]})
    # the first lies between both targets, the second reaches only the one on the right
    detections = [found([12, 10, 10, 4], score=0.9), found([15, 10, 10, 4], score=0.8)]
    scores = report_of(truth, detections).criteria["iou_0.5"]
    assert scores.at_threshold.hits == hits
    assert scores.ap == pytest.approx(mean_precision(by_pycocotools(truth, detections)), abs=1e-12)


# Frame by frame


@pytest.mark.parametrize("case", [random_case, crowded_case])
@pytest.mark.parametrize("classes", [True, False])
def test_frames_as_they_come_score_like_a_whole_file(case, classes):
    truth, detections = positive(*case(0, 3))
    detections = [{**row, "bbox": np.round(row["bbox"], 1).tolist()} for row in detections]
    one_by_one = fed_frame_by_frame(truth, detections, classes=classes).report(0.5)
    assert one_by_one.as_dict() == report_of(truth, detections, classes=classes).as_dict()


@pytest.mark.parametrize("categories", [1, 3])
def test_the_running_ap50_is_that_of_the_frames_so_far(categories):
    truth, detections = positive(*random_case(1, categories))
    evaluator, seen = Evaluator(truth), []
    for image in (image["id"] for image in truth["images"]):
        evaluator.add(image, detections_of([row for row in detections if row["image_id"] == image]))
        seen.append(image)
        if image % 3 == 0:  # not asked for after every frame
            expected = evaluate(truth, detections, image_ids=seen).ap50
            assert evaluator.ap50() == pytest.approx(expected, abs=1e-12)
    assert evaluator.frames == 20


def test_there_is_no_running_ap50_before_the_first_target():
    evaluator = Evaluator(truth_of({1: [], 2: [(TARGET, 1)]}))
    assert evaluator.ap50() is None
    evaluator.add(1, detections_of([found()]))
    assert evaluator.ap50() is None
    evaluator.add(2, Detections.empty())
    assert evaluator.ap50() == 0


def test_frames_that_were_not_added_do_not_count():
    evaluator = Evaluator(truth_of({1: [(TARGET, 1)], 2: [(TARGET, 1)]}))
    evaluator.add(2, detections_of([found()]))
    assert (evaluator.scores().frames, evaluator.scores().recall50) == (1, 1)


@pytest.mark.parametrize(
    ("image", "label", "named"),
    [
        (1, 1, "image 1 was added before"),
        (3, 1, "image 3 is not among the frames"),
        (9, 1, "image 9 is not among the frames"),
        (2, 2, r"image 2 has detections of labels \[1\], expected 0 to 0"),
    ],
    ids=["twice", "not chosen", "unknown", "label"],
)
def test_a_frame_that_does_not_fit_is_refused_by_name(image, label, named):
    evaluator = Evaluator(truth_of({1: [], 2: [], 3: []}), image_ids=[1, 2])
    evaluator.add(1, Detections.empty())
    with pytest.raises(UsageError, match=named):
        evaluator.add(image, detections_of([found(category=label)]))


def test_nothing_is_scored_before_the_first_frame():
    with pytest.raises(UsageError, match="no frame of the ground truth was scored"):
        Evaluator(truth_of({1: []})).scores()


def test_any_label_will_do_where_classes_count_as_one():
    evaluator = Evaluator(truth_of({1: [(TARGET, 1)]}), classes=False)
    evaluator.add(1, detections_of([found(category=6)]))
    assert evaluator.scores().recall50 == 1


# Centres and false alarms, on paper

SCENE = truth_of({1: [([17, 17, 6, 6], 1)], 2: [], 3: [([17, 17, 6, 6], 1)]})
"""A target around (20, 20) in frames 1 and 3, none in frame 2."""

FOUND = [
    found([19, 17, 6, 6], image=1, score=0.9),  # 2 px to the right
    found([17, 21, 6, 6], image=1, score=0.8),  # 4 px below, the target is taken
    found([20, 20, 8, 8], image=3, score=0.7),  # its centre is (24, 24): 5.66 px away
    found([20, 17, 8, 6], image=3, score=0.6),  # (24, 20): 4 px away
    found([40, 40, 6, 6], image=2, score=0.5),
]


@pytest.mark.parametrize(
    ("criterion", "average", "hits"),
    [
        ("centre_3px", 51 / 101, 1),  # recall 1/2 at precision 1, and no more
        ("centre_5px", (51 + 50 * 2 / 4) / 101, 2),  # the second hit is the fourth detection
    ],
)
def test_average_precision_by_centres(criterion, average, hits):
    scores = report_of(SCENE, FOUND, threshold=0.1).criteria[criterion]
    assert scores.ap == pytest.approx(average, abs=1e-12)
    assert (scores.at_threshold.hits, scores.at_threshold.false_alarms) == (hits, 5 - hits)


@pytest.mark.parametrize(("shift", "hits"), [(3.0, [1, 1]), (3.001, [0, 1]), (5.0, [0, 1]), (5.001, [0, 0])])
def test_a_centre_hits_up_to_and_with_its_distance(shift, hits):
    report = report_of(truth_of({1: [([10, 10, 4, 4], 1)]}), [found([10 + shift, 10, 4, 4])])
    assert [report.criteria[name].at_threshold.hits for name in ("centre_3px", "centre_5px")] == hits


def test_false_alarms_and_recall_by_centres():
    scores = report_of(SCENE, FOUND, threshold=0.65).criteria["centre_5px"]
    # after each detection: recall 1/2, 1/2, 1/2, 1, 1; false alarms 0, 1, 2, 2, 3 in three frames
    assert scores.false_alarms_at_recall == pytest.approx(
        {"0.5": 0, "0.7": 2 / 3, "0.8": 2 / 3, "0.9": 2 / 3}
    )
    assert scores.recall_at_false_alarms == {"0.01": 0.5, "0.05": 0.5, "0.1": 0.5}
    point = scores.at_threshold
    assert (point.precision, point.recall, point.f1) == pytest.approx((1 / 3, 1 / 2, 2 / 5))
    assert point.false_alarms_per_frame == pytest.approx(2 / 3)


def test_a_recall_that_is_not_reached_is_none():
    scores = report_of(SCENE, FOUND).criteria["centre_3px"]
    assert scores.false_alarms_at_recall == {"0.5": 0, "0.7": None, "0.8": None, "0.9": None}


def test_empty_frames_make_false_alarms_rarer():
    scene = {**SCENE, "images": [*SCENE["images"], *({"id": n} for n in range(4, 11))]}
    report = report_of(scene, FOUND, threshold=0)
    assert (report.scores.frames, report.scores.empty_frames) == (10, 8)
    assert report.criteria["centre_5px"].at_threshold.false_alarms_per_frame == pytest.approx(3 / 10)


def test_a_centre_in_a_crowd_or_close_to_it_counts_neither_way():
    truth = truth_of({1: [([0, 0, 40, 40], 1)]})
    truth["annotations"][0]["iscrowd"] = 1
    inside, beside, far = (
        [30, 30, 4, 4],
        [40, 10, 4, 4],
        [44, 10, 4, 4],
    )  # centres 2 and 6 px beyond the edge
    report = report_of(truth, [found(inside), found(beside), found(far)])
    assert report.criteria["centre_5px"].at_threshold.false_alarms == 1


def test_the_closest_free_target_is_hit():
    truth = truth_of({1: [([10, 10, 4, 4], 1), ([14, 10, 4, 4], 1)]})
    # both reach both targets: the better one takes the left one, the other what is left
    report = report_of(truth, [found([11, 10, 4, 4], score=0.9), found([11.5, 10, 4, 4], score=0.8)])
    assert report.criteria["centre_3px"].at_threshold.hits == 2


# The report


def test_detections_that_repeat_are_named_and_counted():
    truth = truth_of({1: [(TARGET, 1)], 2: []})
    report = report_of(truth, [found(), found(score=0.8), found(), found()])
    assert report.scores.detections == 4
    assert report.criteria["iou_0.5"].at_threshold.false_alarms == 3
    assert report.notes == [
        "repeated detections: 2, the first of them number 2; they are false alarms where the target is taken"
    ]


def test_plain_results_have_no_notes():
    assert report_of(SCENE, FOUND).notes == []


@pytest.mark.parametrize("detections", [[], [found()]], ids=["no detections", "no targets"])
def test_a_report_of_nothing_is_a_report(detections):
    truth = truth_of({1: []} if detections else {1: [(TARGET, 1)]})
    report = report_of(truth, detections)
    numbers = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert (numbers["ap50"], numbers["best_f1"], numbers["best_threshold"]) == (0, 0, 1)
    assert numbers["as_published"]["all_frames"]["f1_as_published"] == 0
    assert numbers["criteria"]["centre_3px"]["ap"] == (None if detections else 0)


def test_the_json_has_the_headline_at_its_top_and_every_section():
    numbers = report_of(*crowded_case(0, 3)).as_dict()
    assert list(numbers)[:6] == ["ap50", "ap", "recall50", "best_f1", "best_threshold", "frames"]
    sections = {"criteria", "per_class", "class_agnostic", "per_size", "per_video", "as_published", "notes"}
    assert sections <= set(numbers)
    assert set(numbers["criteria"]) == {"iou_0.5", "centre_3px", "centre_5px"}


def test_a_video_without_scored_frames_is_left_out():
    truth, detections = crowded_case(0, 1)
    chosen = [image["id"] for image in truth["images"] if image["video_id"] != 1]
    rows = report_of(truth, detections, image_ids=chosen).per_video
    assert [row.name for row in rows] == ["video 0", "video 2"]


def test_a_video_without_targets_tells_its_false_alarms():
    truth = truth_of({1: [(TARGET, 1)], 2: [], 3: []})
    truth["videos"] = [{"id": 1, "name": "with"}, {"id": 2, "name": "without"}]
    for image in truth["images"]:
        image["video_id"] = 1 if image["id"] == 1 else 2
    row = report_of(truth, [found(), found(image=3), found(image=3, score=0.4)]).per_video[1]
    assert (row.ap50, row.recall, row.false_alarms_per_frame) == (None, None, 0.5)
    assert (row.frames, row.empty_frames, row.targets, row.detections) == (2, 2, 0, 2)


def test_published_numbers_leave_out_false_alarms_on_empty_frames_where_they_say_so():
    truth = truth_of({1: [(TARGET, 1)], 2: []})
    published = report_of(truth, [found(), found(image=2, score=0.95)]).as_published
    assert published["annotated_frames_only"].precision_as_published == 1
    assert published["all_frames"].precision_as_published == 0.5
    assert published["all_frames"].recall_as_published == 1
