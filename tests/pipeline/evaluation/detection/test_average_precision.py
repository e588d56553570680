"""AP and AR equal those of pycocotools and of the published protocol; invalid input is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.evaluation.detection.evaluator import Evaluator, evaluate
from pipeline.structures.boxes import from_xywh, iou
from pipeline.system.errors import UsageError
from tests.support.coco_cases import TARGET, by_pycocotools, crowded_case, found, random_case, truth_of


def hits_above(truth: dict, detections: list[dict], threshold: float) -> tuple[int, int]:
    """Detections from a score up, and how many of them are hits: greedy, best score first, IoU 0.5."""
    chosen = sorted((d for d in detections if d["score"] >= threshold), key=lambda d: -d["score"])
    free = {a["id"]: a for a in truth["annotations"]}
    hits = 0
    for detection in chosen:
        rivals = [
            a
            for a in free.values()
            if (a["image_id"], a["category_id"]) == (detection["image_id"], detection["category_id"])
        ]
        if rivals:
            overlaps = iou(from_xywh([detection["bbox"]]), from_xywh([a["bbox"] for a in rivals]))[0]
            if overlaps.max() >= 0.5:
                del free[rivals[int(overlaps.argmax())]["id"]]
                hits += 1
    return len(chosen), hits


def brute_force_f1(truth: dict, detections: list[dict]) -> float:
    positives = len(truth["annotations"])
    counts = [hits_above(truth, detections, d["score"]) for d in detections]
    return max(2 * hits / (count + positives) for count, hits in counts)


# Against pycocotools and the published protocol


@pytest.mark.parametrize("case", [random_case, crowded_case])
@pytest.mark.parametrize("categories", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_average_precision_and_recall_are_those_of_pycocotools(seed, categories, case):
    truth, detections = case(seed, categories)
    scores = evaluate(truth, detections)
    ours = (scores.ap, scores.ap50, scores.ap75, scores.ar1, scores.ar10, scores.ar100)
    assert ours == pytest.approx(by_pycocotools(truth, detections).stats[[0, 1, 2, 6, 7, 8]], abs=1e-12)


@pytest.mark.parametrize("categories", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_f1_is_the_best_over_all_thresholds(seed, categories):
    truth, detections = random_case(seed, categories)
    scores = evaluate(truth, detections)
    assert scores.best_f1 == pytest.approx(brute_force_f1(truth, detections), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_threshold_is_a_score_that_gives_the_best_f1(seed):
    truth, detections = random_case(seed, 1)
    scores = evaluate(truth, detections)
    count, hits = hits_above(truth, detections, scores.best_threshold)
    assert 2 * hits / (count + len(truth["annotations"])) == pytest.approx(scores.best_f1, abs=1e-12)


@pytest.mark.real_data
@pytest.mark.parametrize("mode", ["expected_annotated_frames_only", "expected_all_frames"])
def test_scores_are_those_of_the_published_protocol(mode, shared_root):
    table = json.loads((shared_root / "parity" / "tridos.eval.json").read_text())
    truth = table["ground_truth"]
    annotated = {a["image_id"] for a in truth["annotations"]}
    frames = annotated if mode == "expected_annotated_frames_only" else None
    scores = evaluate(truth, table["detections"], image_ids=frames)
    expected = table[mode]
    assert scores.ap50 == pytest.approx(expected["ap50"], abs=1e-4)
    assert scores.ap == pytest.approx(expected["ap5095"], abs=1e-4)
    assert scores.recall50 == pytest.approx(expected["recall"], abs=1e-4)
    assert scores.frames == (len(annotated) if frames else len(truth["images"]))


@pytest.mark.real_data
@pytest.mark.parametrize("mode", ["annotated_frames_only", "all_frames"])
def test_numbers_as_published_are_those_of_the_published_protocol(mode, shared_root):
    table = json.loads((shared_root / "parity" / "tridos.eval.json").read_text())
    evaluator = Evaluator(table["ground_truth"])
    evaluator.add_results(table["detections"])
    scores, expected = evaluator.report(0.5).as_published[mode], table[f"expected_{mode}"]
    assert scores.ap50 == pytest.approx(expected["ap50"], abs=1e-4)
    assert scores.precision_as_published == pytest.approx(expected["precision"], abs=1e-4)
    assert scores.recall_as_published == pytest.approx(expected["recall"], abs=1e-4)
    assert scores.f1_as_published == pytest.approx(expected["f1"], abs=1e-4)


# Plain cases


def test_a_perfect_detector_scores_one():
    truth = truth_of({1: [(TARGET, 1)], 2: [], 3: [(TARGET, 1), ([40, 30, 5, 5], 1)]})
    detections = [found(a["bbox"], image=a["image_id"], score=0.7) for a in truth["annotations"]]
    scores = evaluate(truth, detections)
    assert (scores.ap50, scores.ap, scores.recall50, scores.best_f1) == pytest.approx((1, 1, 1, 1))
    assert (scores.best_threshold, scores.frames) == (0.7, 3)


def test_no_detections_score_zero():
    scores = evaluate(truth_of({1: [(TARGET, 1)], 2: []}), [])
    assert (scores.ap50, scores.ap, scores.recall50, scores.best_f1, scores.frames) == (0, 0, 0, 0, 2)


def test_frames_without_any_target_score_zero():
    scores = evaluate(truth_of({1: [], 2: []}), [found()])
    assert (scores.ap50, scores.best_f1, scores.frames) == (0, 0, 2)


def test_a_false_alarm_on_an_empty_frame_lowers_the_score():
    truth = truth_of({1: [(TARGET, 1)], 2: []})
    clean, alarmed = [found()], [found(), found(image=2, score=0.95)]
    assert evaluate(truth, clean).ap50 == pytest.approx(1)
    assert evaluate(truth, alarmed).ap50 == pytest.approx(0.5)
    assert evaluate(truth, alarmed, image_ids=[1]).ap50 == pytest.approx(1)


def test_equal_scores_pass_the_threshold_together():
    truth = truth_of({1: [(TARGET, 1)]})
    both = [found(score=0.5), found([40, 30, 5, 5], score=0.5)]
    assert evaluate(truth, both).best_f1 == pytest.approx(2 / 3)


@pytest.mark.parametrize(("classes", "expected"), [(True, 0.0), (False, 1.0)], ids=["apart", "pooled"])
def test_categories_are_pooled_on_demand(classes, expected):
    truth = truth_of({1: [(TARGET, 2)]}, categories=2)
    scores = evaluate(truth, [found(category=1)], classes=classes)
    assert (scores.ap50, scores.best_f1) == pytest.approx((expected, expected))


def test_categories_that_do_not_occur_do_not_count():
    assert evaluate(truth_of({1: [(TARGET, 1)]}, categories=4), [found()]).ap50 == pytest.approx(1)


def test_neither_ground_truth_nor_detections_are_changed():
    truth, detections = random_case(0, 3)
    before = json.dumps([truth, detections])
    evaluate(truth, detections, image_ids=range(1, 11))
    assert json.dumps([truth, detections]) == before


def test_annotations_need_no_area_and_no_crowd_flag():
    truth = truth_of({1: [(TARGET, 1)]})
    for annotation in truth["annotations"]:
        del annotation["area"], annotation["iscrowd"]
    assert evaluate(truth, [found()]).ap50 == pytest.approx(1)


# Results that are wrong


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (found(image=99), "image 99, which is not in the annotations"),
        (found([1, 2, float("nan"), 4]), "no valid box"),
        (found([1, 2, float("inf"), 4]), "no valid box"),
        (found(score=float("nan")), "no valid box"),
        (found([1, 2, -3, 4]), "no valid box"),
        (found([1, 2, 3]), "no valid box"),
        ({"image_id": 1, "bbox": TARGET, "category_id": 1}, "'score'"),
        ({"image_id": 1, "score": 0.5, "category_id": 1}, "'bbox'"),
        ({"bbox": TARGET, "score": 0.5, "category_id": 1}, "'image_id'"),
        ({"image_id": 1, "bbox": TARGET, "score": 0.5}, "'category_id'"),
        ({"image_id": 1, "bbox": 3, "score": 0.5, "category_id": 1}, "not a COCO result"),
        (found(score="high"), "not a COCO result"),
        ([1, 2, 3], "not a COCO result"),
        (found(image=[1]), "not a COCO result"),
        ({**found(), "score": 10**400}, "not a COCO result"),
    ],
    ids=[
        *("unknown frame", "NaN box", "infinite box", "NaN score", "negative width", "three numbers"),
        *("no score", "no box", "no frame", "no category", "number for box", "word for score", "list"),
        *("list for frame", "number beyond floats"),
    ],
)
def test_a_wrong_result_is_refused_with_its_number(wrong, named):
    with pytest.raises(UsageError, match="detection 1 ") as error:
        evaluate(truth_of({1: [(TARGET, 1)]}), [found(), wrong])
    assert named in str(error.value)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("classes", [True, False])
def test_ground_truth_without_categories_is_refused(classes):
    with pytest.raises(UsageError, match="no categories"):
        evaluate(truth_of({1: []}, categories=0), [found()], classes=classes)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"images": [{"id": 1}, {"id": 2}, {"id": 1}]}, "several images of id 1"),
        ({"annotations": [{"image_id": 9, "category_id": 1, "bbox": TARGET}]}, "annotation 0 is on image 9"),
        ({"annotations": [{"image_id": 1, "category_id": 9, "bbox": TARGET}]}, "0 is of category 9"),
        ({"annotations": [{"image_id": 1, "category_id": 1}]}, "annotation 0 has no valid box: None"),
        (
            {"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, -3, 4]}]},
            "annotation 0 has no valid box",
        ),
        (
            {"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, float("nan"), 3, 4]}]},
            "annotation 0 has no valid box",
        ),
    ],
    ids=["repeated frame", "unknown frame", "unknown category", "no box", "negative size", "NaN"],
)
def test_wrong_ground_truth_is_refused_by_name(change, named):
    with pytest.raises(UsageError, match=named):
        evaluate({**truth_of({1: []}), **change}, [])


@pytest.mark.parametrize("frames", [[1, 7], []], ids=["unknown", "none"])
def test_frames_to_score_must_be_annotated(frames):
    with pytest.raises(UsageError, match="frames to be scored"):
        evaluate(truth_of({1: [(TARGET, 1)]}), [found()], image_ids=frames)


@pytest.mark.parametrize("numbers", [(0, 1), (5, 5), (None, None)], ids=["from zero", "equal", "absent"])
def test_the_numbers_of_annotations_do_not_matter(numbers):
    truth = truth_of({1: [(TARGET, 1)], 2: [(TARGET, 1)]})
    for annotation, number in zip(truth["annotations"], numbers, strict=True):
        del annotation["id"]
        if number is not None:
            annotation["id"] = number
    scores = evaluate(truth, [found(image=1), found(image=2)])
    assert (scores.ap50, scores.best_f1) == (1.0, 1.0)


def test_a_hit_on_a_crowd_is_neither_right_nor_wrong():
    truth = truth_of({1: [(TARGET, 1), ([40, 30, 8, 6], 1)]})
    truth["annotations"][0]["iscrowd"] = 1
    scores = evaluate(truth, [found()])
    assert (scores.ap50, scores.best_f1) == (0.0, 0.0)


def test_a_category_that_is_not_annotated_is_refused_unless_all_count_as_one():
    truth = truth_of({1: [(TARGET, 1)]})
    with pytest.raises(UsageError, match="category 77"):
        evaluate(truth, [found(category=77)])
    assert evaluate(truth, [found(category=77)], classes=False).best_f1 == 1.0


def test_results_may_hold_more_than_the_four_fields_and_numpy_numbers():
    truth = truth_of({1: [(TARGET, 1)]})
    extra = {**found(), "caption": "a bird", "bbox": np.array(TARGET, dtype=np.float32)}
    assert evaluate(truth, [extra]).best_f1 == 1.0
