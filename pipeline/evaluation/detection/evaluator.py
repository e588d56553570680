"""Detection metrics of finished results, of a run in progress, and of a network during training."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.detection.ground_truth import FrameTruth, parse_ground_truth
from pipeline.evaluation.detection.matches import Matches
from pipeline.evaluation.detection.matching import IOU, CandidatePairs, candidate_pairs
from pipeline.evaluation.detection.predictions import (
    MAX_DETECTIONS,
    CocoResult,
    PredictedBoxes,
    parse_results,
)
from pipeline.evaluation.detection.pycocotools_ap import CocoMetrics, coco_metrics
from pipeline.evaluation.detection.report import DetectionReport, DetectionScores
from pipeline.evaluation.detection.report_sections import build_report, headline_scores
from pipeline.evaluation.detection.running_ap import RunningAveragePrecision
from pipeline.structures.coco_tables import uniform_references
from pipeline.structures.detections import Detections
from pipeline.system.errors import UsageError
from pipeline.system.packages import require_package

__all__ = ["DetectionReport", "DetectionScores", "Evaluator", "evaluate"]


def evaluate(
    ground_truth: dict,
    detections: Sequence[dict],
    *,
    image_ids: Iterable[Hashable] | None = None,
    classes: bool = True,
) -> DetectionScores:
    """Computes the headline metrics of COCO results.

    Args:
        ground_truth: COCO dictionary.
        detections: COCO results.
        image_ids: frames to score; None for all.
        classes: False to ignore categories.

    Raises:
        UsageError: the ground truth cannot be used, a result is not a COCO result, or its image or category
        is
            not annotated.
    """
    evaluator = Evaluator(ground_truth, image_ids=image_ids, classes=classes)
    evaluator.add_results(detections)
    return evaluator.scores()


class _ScoredFrame(NamedTuple):
    """Annotations and detections of one frame, and the candidate pairs among them."""

    truth: FrameTruth
    predicted: PredictedBoxes
    pairs: CandidatePairs


def _score_frame(truth: FrameTruth, predicted: PredictedBoxes) -> _ScoredFrame:
    return _ScoredFrame(truth, predicted, candidate_pairs(predicted, truth))


class Evaluator:
    """Compares detections with ground truth, frame by frame or all at once.

    A frame is scored once its detections were added, even if it has none; frames without targets count.

    Args:
        ground_truth: COCO dictionary, which is not modified.
        image_ids: frames that may be scored; None for all.
        classes: False to ignore categories.

    Raises:
        UsageError: the ground truth cannot be used, or `image_ids` is empty or has unknown ids.
    """

    def __init__(
        self, ground_truth: dict, *, image_ids: Iterable[Hashable] | None = None, classes: bool = True
    ):
        require_package("pycocotools", "scoring")  # used in `report`, after all frames
        truth = parse_ground_truth(ground_truth)
        self._truth = truth if classes else truth.class_agnostic()
        self._classes = classes
        self._positions = {image_id: position for position, image_id in enumerate(truth.image_ids)}
        selected = set(self._positions) if image_ids is None else set(image_ids)
        if not selected <= set(self._positions) or not selected:
            raise UsageError("frames to be scored are missing from the ground truth")
        self._selected = selected - truth.repeated
        self._left_out = len(selected & truth.repeated)
        self._frames: dict[int, _ScoredFrame] = {}
        self._running = RunningAveragePrecision()
        self._truncated = 0  # detections beyond MAX_DETECTIONS of their frame and category
        self._repeated: list[int] = []  # numbers of results that equal an earlier one
        self._without_results = 0  # frames of `add_results` that no result is on

    @property
    def frames(self) -> int:
        """Number of frames added."""
        return len(self._frames)

    @property
    def without_results(self) -> int:
        """Number of frames without any result among those of `add_results`."""
        return self._without_results

    def add(self, image_id: Hashable, detections: Detections) -> None:
        """Adds the detections of one frame.

        Label n is the n-th category in ascending order of category ids; labels are ignored if classes are.
        Raises UsageError for a frame that is not to be scored or was added before, and for a label without
        category.
        """
        if image_id not in self._selected:
            raise UsageError(f"image {image_id} is not among the frames to be scored")
        predicted, known = PredictedBoxes.from_detections(detections), len(self._truth.categories)
        if not self._classes:
            predicted = predicted.class_agnostic()
        elif not ((predicted.categories >= 0) & (predicted.categories < known)).all():
            labels = sorted(set(predicted.categories.tolist()))
            raise UsageError(f"image {image_id} has detections of labels {labels}, expected 0 to {known - 1}")
        self._add_frame(self._positions[image_id], predicted)

    def add_results(self, results: Sequence[dict]) -> None:
        """Adds the COCO results of all frames; a frame without results has no detections.

        Results on frames that are not to be scored are ignored. Raises UsageError, which names the number of
        the result, if one is not a COCO result or its image or category is not annotated.
        """
        positions = {category: position for position, category in enumerate(self._truth.categories)}
        rows: dict[Hashable, list[CocoResult]] = {image_id: [] for image_id in self._truth.image_ids}
        seen = set()
        results = uniform_references(results, "image_id", self._positions)
        if self._classes:
            results = uniform_references(results, "category_id", positions)
        parsed = parse_results(results, self._positions, positions if self._classes else None)
        for number, row in enumerate(parsed):
            rows[row.image_id].append(row)
            if row in seen:
                self._repeated.append(number)
            seen.add(row)
        for position, image_id in enumerate(self._truth.image_ids):
            if image_id in self._selected:
                self._without_results += not rows[image_id]
                self._add_frame(position, PredictedBoxes.from_results(rows[image_id]))

    def _add_frame(self, position: int, predicted: PredictedBoxes) -> None:
        if position in self._frames:
            raise UsageError(f"image {self._truth.image_ids[position]} was added before")
        best = predicted.best()
        self._truncated += len(predicted.scores) - len(best.scores)
        frame = self._frames[position] = _score_frame(self._truth.frames[position], best)
        self._running.add(*frame)

    def ap50(self) -> float | None:
        """Returns the AP50 of the frames added so far; None before the first target.

        The cost grows with the frames added since the last call. Equal to `DetectionScores.ap50` except for
        the order of equal scores in different frames.
        """
        return self._running.average_precision()

    def scores(self) -> DetectionScores:
        """Returns the headline metrics. Raises UsageError if no frame was added."""
        return _scores([self._frames[position] for position in self._added()], len(self._truth.categories))

    def report(self, threshold: float) -> DetectionReport:
        """Returns all metrics; `threshold` is the score of the operating point.

        Raises UsageError if no frame was added.
        """
        frames = [self._frames[position] for position in self._added()]
        class_agnostic = None
        if self._classes and len(self._truth.categories) > 1:
            merged = [
                _score_frame(frame.truth.class_agnostic(), frame.predicted.class_agnostic().best())
                for frame in frames
            ]
            class_agnostic = _scores(merged, 1)
        return build_report(
            *_compute(frames, len(self._truth.categories)),
            threshold=threshold,
            names=self._truth.names if self._classes else [],
            videos=self.videos(),
            class_agnostic=class_agnostic,
            notes=self._notes(),
        )

    def image_ids(self) -> list[Hashable]:
        """Returns the image ids of the frames added, in the order of `results`.

        Raises UsageError if no frame was added.
        """
        return [self._truth.image_ids[position] for position in self._added()]

    def results(self) -> list[tuple[FrameTruth, PredictedBoxes]]:
        """Returns annotations and detections of each frame added, in ascending order of image ids.

        Detections are sorted by descending score and truncated to `MAX_DETECTIONS` of a category. Raises
        UsageError if no frame was added.
        """
        frames = (self._frames[position] for position in self._added())
        return [(frame.truth, frame.predicted) for frame in frames]

    def _added(self) -> list[int]:
        """Returns the positions of the frames added, ascending. Raises UsageError if there are none."""
        if not self._frames:
            raise UsageError("no frame of the ground truth was scored")
        return sorted(self._frames)

    def videos(self) -> list[tuple[str, np.ndarray]]:
        """Returns name and frames, (F,) bool over `results`, of each video with frames added.

        Raises UsageError if no frame was added.
        """
        added = self._added()
        row_of = np.full(len(self._truth.frames), -1)
        row_of[added] = np.arange(len(added))
        videos = []
        for name, positions in self._truth.videos:
            rows, frames = row_of[positions], np.zeros(len(added), dtype=bool)
            frames[rows[rows >= 0]] = True
            if frames.any():
                videos.append((name, frames))
        return videos

    def _notes(self) -> list[str]:
        notes = []
        if self._left_out:
            notes.append(
                f"images that repeat a frame of an earlier image: {self._left_out}; they are left out"
            )
        if self._repeated:
            first = (
                f"repeated detections: {len(self._repeated)}, the first of them number {self._repeated[0]}"
            )
            notes.append(f"{first}; they are false alarms where the target is taken")
        if self._truncated:
            beyond = f"detections beyond the best {MAX_DETECTIONS} of their frame and category"
            notes.append(f"{beyond}: {self._truncated}; they do not count")
        return notes


def _compute(frames: Sequence[_ScoredFrame], categories: int) -> tuple[CocoMetrics, Matches]:
    truths, predictions, pairs = zip(*frames, strict=True)
    return coco_metrics(truths, predictions, categories), Matches(truths, predictions, pairs)


def _scores(frames: Sequence[_ScoredFrame], categories: int) -> DetectionScores:
    coco, matches = _compute(frames, categories)
    return headline_scores(coco, matches, matches.judged_by(IOU))
