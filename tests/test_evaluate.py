"""Scores are those of pycocotools, on all frames that were asked for."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.boxes import from_xywh, iou
from pipeline.errors import UsageError
from pipeline.evaluate import evaluate

FRAME = 1
TARGET = [10, 10, 8, 6]


def truth_of(boxes: dict[int, list[tuple[list, int]]], categories: int = 1) -> dict:
    """Frame id → (box x, y, width, height, category) as COCO ground truth."""
    rows = [(image, *target) for image, targets in boxes.items() for target in targets]
    return {
        "images": [{"id": image, "width": 64, "height": 48} for image in boxes],
        "annotations": [
            {"id": i, "image_id": image, "bbox": box, "category_id": category, "iscrowd": 0,
             "area": box[2] * box[3]}
            for i, (image, box, category) in enumerate(rows, start=1)
        ],
        "categories": [{"id": n, "name": f"kind {n}"} for n in range(1, categories + 1)],
    }  # fmt: skip


def found(box=TARGET, *, image=FRAME, score=0.9, category=1) -> dict:
    return {"image_id": image, "bbox": [float(n) for n in box], "score": score, "category_id": category}


def random_case(seed: int, categories: int) -> tuple[dict, list[dict]]:
    """Twenty frames, every fifth of them empty; four targets in five are found, many scores are equal."""
    chance = np.random.default_rng(seed)
    boxes, detections = {}, []
    for image in range(1, 21):
        corners = chance.integers(0, 40, (0 if image % 5 == 0 else chance.integers(1, 4), 2))
        boxes[image] = [([*map(int, c), 9, 7], int(chance.integers(1, categories + 1))) for c in corners]
        for box, category in boxes[image]:
            if chance.random() < 0.8:
                shifted = np.add(box, chance.normal(0, 1, 4))
                detections.append(
                    found(shifted, image=image, score=int(chance.integers(2, 11)) / 10, category=category)
                )
        for _ in range(chance.integers(0, 3)):
            place = [*chance.integers(0, 40, 2), 9, 7]
            category = int(chance.integers(1, categories + 1))
            detections.append(
                found(place, image=image, score=int(chance.integers(1, 8)) / 10, category=category)
            )
    return truth_of(boxes, categories), detections


def pycocotools_scores(truth: dict, detections: list[dict]) -> tuple[float, float]:
    """AP50 and AP, as pycocotools summarises them."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(json.dumps(truth))
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(json.loads(json.dumps(detections))), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats[1], run.stats[0]


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


@pytest.mark.parametrize("categories", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_pycocotools(seed, categories):
    truth, detections = random_case(seed, categories)
    scores = evaluate(truth, detections)
    assert (scores.ap50, scores.ap) == pytest.approx(pycocotools_scores(truth, detections), abs=1e-12)


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
