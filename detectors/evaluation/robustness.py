"""Scores a network on corrupted frames: loss of average precision under each corruption."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from pipeline.system.errors import UsageError

if TYPE_CHECKING:
    from datasets.augmentation.corruptions import Corruption
    from datasets.layouts.registry import Dataset
    from datasets.sequences.clips import Clip
    from detectors.inference.streaming import StreamingNetwork
    from pipeline.structures.annotations import VideoRecord
    from pipeline.structures.detections import Detections

    RecordTask: TypeAlias = tuple[StreamingNetwork, VideoRecord, Path, list[int], float, Sequence[Corruption]]
    """The arguments of `detect_corrupted`."""

SEED = 0
"""Random numbers depend on this and the image id only, so that levels of noise differ in strength alone."""

SCORE_FIELDS = ("ap50", "best_f1", "centre_ap")
"""Fields of `CorruptionScores` in the table; each has a loss."""


class CorruptedFrame(NamedTuple):
    """The result for one frame under one corruption; boxes are in pixels of the clean frame."""

    corruption: int
    """Index of the corruption."""
    image_id: int
    boxes: np.ndarray
    """(M, 4) float32 x1 y1 x2 y2, the targets after the corruption, which may move them."""
    detections: Detections


@dataclass(frozen=True)
class CorruptionScores:
    """Scores under one corruption; losses are the scores of the clean frames minus these."""

    name: str
    title: str
    ap50: float
    best_f1: float
    centre_ap: float
    """Average precision, for centres within 5 pixels."""
    ap50_loss: float
    best_f1_loss: float
    centre_ap_loss: float


def evaluate_robustness(
    model: StreamingNetwork,
    dataset: Dataset,
    corruptions: Sequence[Corruption],
    *,
    stride: int,
    enlarge: float = 1.0,
    workers: int = 1,
) -> list[CorruptionScores]:
    """Returns class-agnostic scores on every `stride`-th annotated frame under each corruption.

    The first corruption is the reference of the losses: clean frames. For `workers` see
    `detectors.evaluation.detection.score_dataset`. Raises UsageError if no frame is annotated.
    """
    from detectors.evaluation.detection import annotated_positions
    from pipeline.system.progress import Progress

    positions = {record: annotated_positions(record, stride) for record in dataset.records}
    tasks: list[RecordTask] = [
        (model, record, dataset.root, positions[record], enlarge, corruptions)
        for record in dataset.records
        if positions[record]
    ]
    if not tasks:
        raise UsageError("no frame of the dataset is annotated")
    results: list[list[CorruptedFrame]] = [[] for _ in corruptions]
    with Progress(sum(len(task[3]) for task in tasks) * len(corruptions)) as progress:
        with closing(_detect_records(tasks, workers)) as frames:
            for frame in frames:
                results[frame.corruption].append(frame)
                progress.advance()
    return _scores(corruptions, results)


def _detect_records(tasks: list[RecordTask], workers: int) -> Generator[CorruptedFrame]:
    """Yields the frames of all records in their order."""
    if workers == 1:
        for task in tasks:
            yield from detect_corrupted(*task)
        return
    from detectors.evaluation.worker_pool import map_in_order

    with closing(map_in_order(_detect_corrupted_in_worker, tasks, workers=workers)) as parts:
        for part in parts:
            yield from part


def _detect_corrupted_in_worker(task: RecordTask) -> list[CorruptedFrame]:
    """`detect_corrupted` in a worker process."""
    import torch

    torch.set_num_threads(1)
    return list(detect_corrupted(*task))


def detect_corrupted(
    model: StreamingNetwork,
    record: VideoRecord,
    root: Path,
    positions: list[int],
    enlarge: float,
    corruptions: Sequence[Corruption],
) -> Iterator[CorruptedFrame]:
    """Yields the frames at `positions` of a sequence under each corruption, with their detections.

    Each window of frames is corrupted on its own. Raises SourceError if the sequence cannot be read.
    """
    from datasets.sequences.clips import clip_at, read_sequence

    sequence = read_sequence(record, root)
    size = np.array(sequence.frames.shape[:0:-1] * 2, dtype=np.float32)
    for position in positions:
        for number, corruption in enumerate(corruptions):
            clip = clip_at(sequence, position, length=model.frames, stride=corruption.stride)
            image_id = record.image_ids[position]
            corrupted = corruption.apply(clip, np.random.default_rng([SEED, image_id]))
            scale = size / np.array(corrupted.frames.shape[:0:-1] * 2, dtype=np.float32)
            detections = detect_clip(model, corrupted, enlarge=enlarge)
            yield CorruptedFrame(number, image_id, corrupted.boxes * scale, _scale_boxes(detections, scale))


def detect_clip(model: StreamingNetwork, clip: Clip, *, enlarge: float) -> Detections:
    """Returns the detections in the last frame of a clip, in pixels of the clip."""
    from datasets.sequences.clips import VideoSequence
    from detectors.evaluation.detection import detect_frames

    # the window that ends at the clip's last frame is the clip itself
    last, no_boxes = len(clip.frames) - 1, np.zeros((0, 4), np.float32)
    boxes = (*(no_boxes for _ in range(last)), clip.boxes)
    labels = tuple(np.zeros(len(rows), np.int64) for rows in boxes)
    sequence = VideoSequence("clip", clip.frames, boxes, labels)
    return next(detect_frames(model, sequence, [last], enlarge=enlarge))[1]


def _scale_boxes(detections: Detections, scale: np.ndarray) -> Detections:
    """Returns the detections with boxes multiplied by `scale` (4,)."""
    from pipeline.structures.detections import Detections

    return Detections(detections.boxes * scale, detections.scores, detections.labels)


def _scores(corruptions: Sequence[Corruption], results: list[list[CorruptedFrame]]) -> list[CorruptionScores]:
    scores = [_headline_scores(frames) for frames in results]
    return [
        CorruptionScores(
            corruption.name,
            corruption.title,
            *values,
            *(clean - value for clean, value in zip(scores[0], values, strict=True)),
        )
        for corruption, values in zip(corruptions, scores, strict=True)
    ]


def _headline_scores(frames: list[CorruptedFrame]) -> tuple[float, float, float]:
    """Returns AP50, best F1 and centre AP of the frames under one corruption."""
    from pipeline.config.schema import DetectorConfig
    from pipeline.evaluation.detection.evaluator import Evaluator
    from pipeline.evaluation.detection.matching import CENTRE_5
    from pipeline.structures.boxes import to_xywh

    boxes = [(frame.image_id, box) for frame in frames for box in to_xywh(frame.boxes.astype(float)).tolist()]
    truth = {
        "images": [{"id": frame.image_id} for frame in frames],
        "annotations": [{"image_id": image, "category_id": 1, "bbox": box} for image, box in boxes],
        "categories": [{"id": 1, "name": "target"}],
    }
    evaluator = Evaluator(truth, classes=False)
    for frame in frames:
        evaluator.add(frame.image_id, frame.detections)
    report = evaluator.report(DetectorConfig.conf)
    return report.scores.ap50, report.scores.best_f1, report.criteria[CENTRE_5.name].ap or 0.0


def robustness_table(rows: Sequence[CorruptionScores]) -> str:
    """Returns a Markdown table with a row per corruption; in brackets the change against the first row."""
    lines = ["| frames | AP50 | best F1 | AP, centres within 5 px |", "|---|---|---|---|"]
    for row in rows:
        pairs = ((getattr(row, name), getattr(row, f"{name}_loss")) for name in SCORE_FIELDS)
        cells = (
            f"{value:.3f} ({0 - loss:+.3f})" if row is not rows[0] else f"{value:.3f}"
            for value, loss in pairs
        )
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return "\n".join(lines)
