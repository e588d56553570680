"""Detection quality: one evaluator for finished results, for a run under way, and for training."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.detection.ground_truth import FrameTruth, read_truth
from pipeline.evaluation.detection.matches import Matches
from pipeline.evaluation.detection.matching import IOU, Pairs, pairs_of
from pipeline.evaluation.detection.predictions import (
    MAX_DETECTIONS,
    PredictedBoxes,
    best_of,
    from_detections,
    from_rows,
    pooled,
    rows_of,
)
from pipeline.evaluation.detection.pycocotools_ap import CocoNumbers, coco_numbers
from pipeline.evaluation.detection.report import Report, Scores
from pipeline.evaluation.detection.report_sections import headline, report_of
from pipeline.evaluation.detection.running_ap import RunningPrecision
from pipeline.structures.detections import Detections
from pipeline.system.errors import UsageError

__all__ = ["Evaluator", "Report", "Scores", "evaluate"]


def evaluate(
    ground_truth: dict,
    detections: Sequence[dict],
    *,
    image_ids: Iterable[Hashable] | None = None,
    classes: bool = True,
) -> Scores:
    """Score COCO results against a COCO dictionary.

    `image_ids` restricts both to these frames. With `classes` False all categories count as one. Raises
    UsageError for what is no COCO result, or is on an image or of a category that is not annotated.
    """
    evaluator = Evaluator(ground_truth, image_ids=image_ids, classes=classes)
    evaluator.add_results(detections)
    return evaluator.scores()


class _Frame(NamedTuple):
    """What is annotated and what was found in one frame."""

    truth: FrameTruth
    found: PredictedBoxes
    pairs: Pairs


class Evaluator:
    """Compares detections with ground truth, frame by frame or all at once.

    `ground_truth` is a COCO dictionary, which is left as it is; `image_ids` restricts it to these frames.
    With `classes` False all categories count as one. A frame is scored once its detections were added, even
    if there are none; frames without targets count. Raises UsageError for ground truth that cannot be used.
    """

    def __init__(
        self, ground_truth: dict, *, image_ids: Iterable[Hashable] | None = None, classes: bool = True
    ):
        truth = read_truth(ground_truth)
        self._truth = truth if classes else truth.pooled()
        self._classes = classes
        self._positions = {image_id: place for place, image_id in enumerate(truth.image_ids)}
        self._chosen = set(self._positions) if image_ids is None else set(image_ids)
        if not self._chosen <= set(self._positions) or not self._chosen:
            raise UsageError("frames to be scored are missing from the ground truth")
        self._frames: dict[int, _Frame] = {}
        self._running = RunningPrecision()
        self._left_out = 0  # detections that are not among the best of their frame
        self._repeated: list[int] = []  # numbers of results that equal an earlier one

    @property
    def frames(self) -> int:
        """Frames that were added."""
        return len(self._frames)

    def add(self, image_id: Hashable, detections: Detections) -> None:
        """Take in the detections of one frame; label n is the n-th category in the order of their ids.

        Labels do not matter where all categories count as one. Raises UsageError for a frame that is not to
        be scored or was added before, and for a label without category.
        """
        if image_id not in self._chosen:
            raise UsageError(f"image {image_id} is not among the frames to be scored")
        found, known = from_detections(detections), len(self._truth.categories)
        if not self._classes:
            found = pooled(found)
        elif not ((found.categories >= 0) & (found.categories < known)).all():
            labels = sorted(set(found.categories.tolist()))
            raise UsageError(f"image {image_id} has detections of labels {labels}, expected 0 to {known - 1}")
        self._take(self._positions[image_id], found)

    def add_results(self, results: Sequence[dict]) -> None:
        """Take in COCO results of all frames; a frame that they do not mention has no detections.

        Results on frames that are not to be scored are left out. Raises UsageError, naming the number of the
        result, for what is no COCO result, or is on an image or of a category that is not annotated.
        """
        categories = {category: place for place, category in enumerate(self._truth.categories)}
        expected = categories if self._classes else None
        rows: dict[Hashable, list] = {image_id: [] for image_id in self._truth.image_ids}
        seen = set()
        for number, row in enumerate(rows_of(results, self._positions, expected)):
            rows[row.image].append(row)
            if row in seen:
                self._repeated.append(number)
            seen.add(row)
        for place, image_id in enumerate(self._truth.image_ids):
            if image_id in self._chosen:
                self._take(place, from_rows(rows[image_id]))

    def _take(self, place: int, found: PredictedBoxes) -> None:
        """Keep the best detections of a frame."""
        if place in self._frames:
            raise UsageError(f"image {self._truth.image_ids[place]} was added before")
        best, truth = best_of(found), self._truth.frames[place]
        self._left_out += len(found.scores) - len(best.scores)
        self._frames[place] = _Frame(truth, best, pairs_of(best, truth))
        self._running.add(*self._frames[place])

    def ap50(self) -> float | None:
        """AP50 of the frames so far, None before the first target; costs little beyond the new frames.

        Equal to `Scores.ap50` but for the order of equal scores in different frames.
        """
        return self._running.average_precision()

    def scores(self) -> Scores:
        """The headline numbers. Raises UsageError where no frame was added."""
        return _scores([self._frames[place] for place in self._places()], len(self._truth.categories))

    def report(self, threshold: float) -> Report:
        """All numbers; `threshold` is the score from which on detections count where one is asked for.

        Raises UsageError where no frame was added.
        """
        frames = [self._frames[place] for place in self._places()]
        together = None
        if self._classes and len(self._truth.categories) > 1:
            as_one = [(frame.truth.pooled(), best_of(pooled(frame.found))) for frame in frames]
            together = _scores([_Frame(truth, found, pairs_of(found, truth)) for truth, found in as_one], 1)
        return report_of(
            *_measured(frames, len(self._truth.categories)),
            threshold=threshold,
            names=self._truth.names if self._classes else [],
            videos=self.videos(),
            class_agnostic=together,
            notes=self._notes(),
        )

    def image_ids(self) -> list[Hashable]:
        """Of the frames that were added, as in `results`."""
        return [self._truth.image_ids[place] for place in self._places()]

    def results(self) -> list[tuple[FrameTruth, PredictedBoxes]]:
        """What is annotated and what was found, its best part, in each frame that was added.

        In the order in which pycocotools takes the frames. Raises UsageError where no frame was added.
        """
        return [self._frames[place][:2] for place in self._places()]

    def _places(self) -> list[int]:
        """Positions of the frames that were added, in the order in which pycocotools takes them."""
        if not self._frames:
            raise UsageError("no frame of the ground truth was scored")
        return sorted(self._frames)

    def videos(self) -> list[tuple[str, np.ndarray]]:
        """Name and frames, (F,) bool as in `results`, of each video that has frames among those added."""
        places = self._places()
        row_of = np.full(len(self._truth.frames), -1)
        row_of[places] = np.arange(len(places))
        videos = []
        for name, positions in self._truth.videos:
            rows, frames = row_of[positions], np.zeros(len(places), dtype=bool)
            frames[rows[rows >= 0]] = True
            if frames.any():
                videos.append((name, frames))
        return videos

    def _notes(self) -> list[str]:
        notes = []
        if self._repeated:
            first = (
                f"repeated detections: {len(self._repeated)}, the first of them number {self._repeated[0]}"
            )
            notes.append(f"{first}; they are false alarms where the target is taken")
        if self._left_out:
            beyond = f"detections beyond the best {MAX_DETECTIONS} of their frame and category"
            notes.append(f"{beyond}: {self._left_out}; they do not count")
        return notes


def _measured(frames: Sequence[_Frame], categories: int) -> tuple[CocoNumbers, Matches]:
    truths, found, pairs = zip(*frames, strict=True)
    return coco_numbers(truths, found, categories), Matches(truths, found, pairs)


def _scores(frames: Sequence[_Frame], categories: int) -> Scores:
    coco, matches = _measured(frames, categories)
    return headline(coco, matches, matches.under(IOU))
