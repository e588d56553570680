"""detectors.evaluation.robustness."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.system.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from datasets.augmentation.corruptions import Disturbance
    from datasets.layouts.registry import Dataset
    from datasets.sequences.clips import Clip
    from pipeline.structures.annotations import VideoRecord
    from pipeline.structures.detections import Detections

SEED = 0
"""What is drawn at random depends on it and the image id alone: levels of noise differ in nothing else."""

NUMBERS = ("ap50", "best_f1", "centre_ap")


class Seen(NamedTuple):
    """One frame under one disturbance."""

    disturbance: int
    image_id: int
    boxes: np.ndarray
    """(M, 4) float32 x1 y1 x2 y2: where the targets came to lie."""
    found: Detections


@dataclass(frozen=True)
class Row:
    """Numbers under one disturbance; losses are those against the first row."""

    name: str
    title: str
    ap50: float
    best_f1: float
    centre_ap: float
    """Average precision with centres within 5 pixels."""
    ap50_loss: float
    best_f1_loss: float
    centre_ap_loss: float


def robustness(
    model: nn.Module,
    dataset: Dataset,
    disturbances: Sequence[Disturbance],
    *,
    stride: int,
    enlarge: float = 1.0,
    workers: int = 1,
) -> list[Row]:
    """Class-agnostic scores of every `stride`-th annotated frame under each disturbance.

    Raises UsageError where no frame is annotated.
    """
    from detectors.evaluation.detection import annotated
    from pipeline.system.progress import Progress

    tasks = [(model, r, dataset.root, annotated(r, stride), enlarge, disturbances) for r in dataset.records]
    tasks = [task for task in tasks if task[3]]
    if not tasks:
        raise UsageError("no frame of the dataset is annotated")
    seen: list[list[Seen]] = [[] for _ in disturbances]
    with Progress(sum(len(task[3]) for task in tasks) * len(disturbances)) as progress:
        with closing(_of_tasks(tasks, workers)) as found:
            for one in found:
                seen[one.disturbance].append(one)
                progress.advance()
    return _rows(disturbances, seen)


def _of_tasks(tasks: list[tuple], workers: int) -> Iterator[Seen]:
    if workers == 1:
        for task in tasks:
            yield from disturbed_record(*task)
        return
    from detectors.evaluation.worker_pool import map_in_order

    with closing(map_in_order(_whole_record, tasks, workers=workers)) as parts:
        for part in parts:
            yield from part


def _whole_record(task: tuple) -> list[Seen]:
    """In a process that is one of several."""
    import torch

    torch.set_num_threads(1)
    return list(disturbed_record(*task))


def disturbed_record(
    model: nn.Module,
    record: VideoRecord,
    root: Path,
    positions: list[int],
    enlarge: float,
    disturbances: Sequence[Disturbance],
) -> Iterator[Seen]:
    """Some frames of a sequence under each disturbance."""
    from datasets.sequences.clips import clip_at, read_sequence

    sequence = read_sequence(record, root)
    size = np.array(sequence.frames.shape[:0:-1] * 2, dtype=np.float32)
    for position in positions:
        for number, disturbance in enumerate(disturbances):
            clip = clip_at(sequence, position, length=model.frames, stride=disturbance.stride)
            image_id = record.image_ids[position]
            changed = disturbance.change(clip, np.random.default_rng([SEED, image_id]))
            scale = size / np.array(changed.frames.shape[:0:-1] * 2, dtype=np.float32)
            found = detected(model, changed, enlarge=enlarge)
            yield Seen(number, image_id, changed.boxes * scale, _scaled(found, scale))


def detected(model: nn.Module, clip: Clip, *, enlarge: float) -> Detections:
    """What a network finds in the last frame of a clip, in the clip's pixels."""
    from datasets.sequences.clips import Sequence as Frames
    from detectors.evaluation.detection import detect_frames

    # the window that ends at the clip's last frame is the clip
    last, nothing = len(clip.frames) - 1, np.zeros((0, 4), np.float32)
    boxes = (*(nothing for _ in range(last)), clip.boxes)
    labels = tuple(np.zeros(len(rows), np.int64) for rows in boxes)
    return next(detect_frames(model, Frames("clip", clip.frames, boxes, labels), [last], enlarge=enlarge))[1]


def _scaled(found: Detections, scale: np.ndarray) -> Detections:
    from pipeline.structures.detections import Detections

    return Detections(found.boxes * scale, found.scores, found.labels)


def _rows(disturbances: Sequence[Disturbance], seen: list[list[Seen]]) -> list[Row]:
    numbers = [_numbers(frames) for frames in seen]
    return [
        Row(
            d.name,
            d.title,
            *values,
            *(clean - value for clean, value in zip(numbers[0], values, strict=True)),
        )
        for d, values in zip(disturbances, numbers, strict=True)
    ]


def _numbers(seen: list[Seen]) -> tuple[float, float, float]:
    """AP50, best F1 and centre AP of the frames under one disturbance."""
    from pipeline.config.schema import DetectorConfig
    from pipeline.evaluation.detection.evaluator import Evaluator
    from pipeline.evaluation.detection.matching import CENTRE_5
    from pipeline.structures.boxes import to_xywh

    boxes = [(frame.image_id, box) for frame in seen for box in to_xywh(frame.boxes.astype(float)).tolist()]
    truth = {
        "images": [{"id": frame.image_id} for frame in seen],
        "annotations": [{"image_id": image, "category_id": 1, "bbox": box} for image, box in boxes],
        "categories": [{"id": 1, "name": "target"}],
    }
    evaluator = Evaluator(truth, classes=False)
    for frame in seen:
        evaluator.add(frame.image_id, frame.found)
    report = evaluator.report(DetectorConfig.conf)
    return report.scores.ap50, report.scores.best_f1, report.criteria[CENTRE_5.name].ap or 0.0


def table(rows: Sequence[Row]) -> str:
    """All rows as a Markdown table; in brackets what is lost against the first."""
    lines = ["| frames | AP50 | best F1 | AP, centres within 5 px |", "|---|---|---|---|"]
    for row in rows:
        pairs = ((getattr(row, name), getattr(row, f"{name}_loss")) for name in NUMBERS)
        cells = (
            f"{value:.3f} ({0 - loss:+.3f})" if row is not rows[0] else f"{value:.3f}"
            for value, loss in pairs
        )
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def network(options: argparse.Namespace) -> tuple:
    """The network that the options `weights`, `detector`, `device` and `enlarge` name, ready to find boxes.

    Returns it with the scale of its frames and its device. Raises MoteError; UsageError for a segmenter.
    """
    # torch takes seconds to load: not for --help
    import torch

    from detectors.backends.devices import pick_device, thread_count
    from detectors.networks.segmenters.base import Segmenter
    from detectors.weights import restore, zoo

    device = pick_device(options.device)
    ours = zoo.ZOO_TABLE.get(options.weights)
    model, path, _ = restore.network(ours.detector if ours else options.detector, options.weights)
    if isinstance(model, Segmenter):
        raise UsageError(f"this is for networks that find boxes, {type(model).__name__} marks pixels")
    torch.set_num_threads(thread_count(model))
    return model.to(device), options.enlarge or restore.enlargement(path), device
