"""Detection quality by pycocotools: average precision over all annotated and empty frames."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from pipeline.errors import UsageError


@dataclass(frozen=True)
class Scores:
    """COCO summary, in [0, 1]. Boxes of all sizes, at most 100 detections a frame."""

    ap50: float
    """Average precision at IoU 0.5: mean of 101 interpolated precisions, mean over categories."""
    ap: float
    """Mean of the average precisions at IoU 0.5, 0.55 … 0.95."""
    recall50: float
    """Highest recall reached at IoU 0.5, at any score."""
    best_f1: float
    """Highest harmonic mean of precision and recall at IoU 0.5 over all score thresholds."""
    best_threshold: float
    """The score at which `best_f1` is reached."""
    frames: int
    """Frames that were scored; those without targets count."""

    def as_dict(self) -> dict[str, float]:
        """Plain numbers, for JSON."""
        return asdict(self)

    def table(self) -> str:
        """One line for each number, for people."""
        rows = self.as_dict().items()
        return "\n".join(f"{k:<15}{v:.4f}" if isinstance(v, float) else f"{k:<15}{v}" for k, v in rows)


def evaluate(
    ground_truth: dict,
    detections: Sequence[dict],
    *,
    image_ids: Iterable[int] | None = None,
    classes: bool = True,
) -> Scores:
    """Score COCO results against a COCO dictionary.

    `image_ids` restricts both to these frames. With `classes` False all categories count as one. Raises
    UsageError for what is no COCO result, or is on an image or of a category that is not annotated.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    known = {image["id"] for image in ground_truth["images"]}
    chosen = known if image_ids is None else set(image_ids)
    categories = {category["id"] for category in ground_truth["categories"]}
    if not categories:
        raise UsageError("the annotations have no categories")
    results = _results(detections, known, categories if classes else None)
    if not classes:  # pycocotools leaves out results of categories that it does not know, even when it pools
        results = [{**result, "category_id": min(categories)} for result in results]
    if not chosen <= known or not chosen:
        raise UsageError("frames to be scored are missing from the ground truth")
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth = COCO()
        truth.dataset = _restricted(ground_truth, chosen)
        truth.createIndex()
        found = [result for result in results if result["image_id"] in chosen]
        run = COCOeval(truth, truth.loadRes(found) if found else _without_results(truth), "bbox")
        run.params.useCats = int(classes)
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, category)
    valid = precision[0, 0] > -1  # categories that occur
    f1, threshold = _best_f1(run)
    return Scores(
        ap50=float(precision[0][:, valid].mean()) if valid.any() else 0.0,
        ap=float(precision[:, :, valid].mean()) if valid.any() else 0.0,
        recall50=float(run.eval["recall"][0, valid, 0, -1].mean()) if valid.any() else 0.0,
        best_f1=f1,
        best_threshold=threshold,
        frames=len(chosen),
    )


def _results(detections: Sequence[dict], images: set[int], categories: set[int] | None) -> list[dict]:
    """The four fields of each COCO result as plain numbers; UsageError for what is none."""
    results = []
    for number, detection in enumerate(detections):
        try:
            image, category = detection["image_id"], detection["category_id"]
            box, score = [float(side) for side in detection["bbox"]], float(detection["score"])
            unknown = image not in images
            stray = categories is not None and category not in categories
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"detection {number} is not a COCO result: {error!r}") from error
        if unknown:
            raise UsageError(f"detection {number} is on image {image}, which is not in the annotations")
        if stray:
            raise UsageError(f"detection {number} is of category {category}, which is not in the annotations")
        if len(box) != 4 or not np.isfinite([*box, score]).all() or min(box[2:]) < 0:
            raise UsageError(f"detection {number} has no valid box and score: {box}, {score}")
        results.append({"image_id": image, "category_id": category, "bbox": box, "score": score})
    return results


def _restricted(ground_truth: dict, chosen: set[int]) -> dict:
    """The ground truth of the chosen images, with what pycocotools needs of each annotation.

    Annotations are numbered from 1 anew: pycocotools takes a match with number 0 for none, and loses all but
    one of those that share a number.
    """
    annotations = [a for a in ground_truth["annotations"] if a["image_id"] in chosen]
    return {
        "images": [image for image in ground_truth["images"] if image["id"] in chosen],
        "annotations": [
            {"iscrowd": 0, "area": a["bbox"][2] * a["bbox"][3], **a, "id": number}
            for number, a in enumerate(annotations, start=1)
        ],
        "categories": ground_truth["categories"],
    }


def _without_results(truth):
    """pycocotools refuses an empty list of results; an empty set of annotations means the same."""
    from pycocotools.coco import COCO

    empty = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty


def _best_f1(run) -> tuple[float, float]:
    """Over all score thresholds, at IoU 0.5, all sizes: best F1, pooled over categories, and its score."""
    per_area = len(run.params.imgIds)
    rows = [row for row in _all_sizes(run, per_area) if row is not None]
    positives = sum(int((~np.array(row["gtIgnore"], dtype=bool)).sum()) for row in rows)
    # what matches a crowd annotation is neither a hit nor a false alarm
    counted = [~row["dtIgnore"][0].astype(bool) for row in rows]
    scores = np.concatenate([np.array(r["dtScores"])[c] for r, c in zip(rows, counted, strict=True)] or [[]])
    matched = np.concatenate([r["dtMatches"][0][c] > 0 for r, c in zip(rows, counted, strict=True)] or [[]])
    if not positives or not len(scores):
        return 0.0, 1.0
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(matched[order].astype(bool))
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + positives)
    # a threshold takes all detections of equal score together
    last_of_score = np.append(np.diff(scores[order]) != 0, True)
    best = int(np.argmax(np.where(last_of_score, f1, -1)))
    return float(f1[best]), float(scores[order][best])


def _all_sizes(run, images: int) -> list[dict | None]:
    """pycocotools keeps its per-image rows as categories × area ranges × images; the first range is 'all'."""
    ranges = len(run.params.areaRng)
    categories = len(run.evalImgs) // (ranges * images)
    starts = [category * ranges * images for category in range(categories)]
    return [row for start in starts for row in run.evalImgs[start : start + images]]
