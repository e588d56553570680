"""detectors.evaluation.detection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from pipeline.config.schema import DetectorConfig
from pipeline.system import cli

if TYPE_CHECKING:
    from torch import nn

    from datasets.layouts.registry import Dataset
    from datasets.sequences.clips import VideoSequence
    from pipeline.evaluation.detection.evaluator import Evaluator
    from pipeline.evaluation.detection.report import Scores
    from pipeline.structures.annotations import VideoRecord
    from pipeline.structures.detections import Detections

CONF = 0.01
"""Least score that is measured: what lies below adds less than a thousandth to the average precision."""

ENLARGE = cli.checked(lambda text: DetectorConfig(enlarge=float(text)).enlarge)
"""The type of an option."""


def evaluate_scores(
    model: nn.Module,
    records: Iterable[VideoRecord],
    sequences: Iterable[VideoSequence],
    truth: dict,
    *,
    stride: int,
) -> Scores:
    """Class-agnostic scores on every `stride`-th frame of the sequences, whole frames.

    Frames that are not annotated are left out. The model is given back in the mode it came in.
    """
    return fill_evaluator(model, records, sequences, truth, stride=stride, classes=False).scores()


def fill_evaluator(
    model: nn.Module,
    records: Iterable[VideoRecord],
    sequences: Iterable[VideoSequence],
    truth: dict,
    *,
    stride: int,
    classes: bool,
) -> Evaluator:
    """What `evaluate_scores` takes its scores from.

    With `classes` a target is found under its own class alone: label n is the n-th category by its id.
    """
    from pipeline.evaluation.detection.evaluator import Evaluator

    evaluator = Evaluator(truth, classes=classes)
    for record, sequence in zip(records, sequences, strict=True):
        for position, found in detect_frames(model, sequence, annotated(record, stride)):
            evaluator.add(record.image_ids[position], found)
    return evaluator


def annotated(record: VideoRecord, stride: int) -> list[int]:
    """Every `stride`-th of the annotated frames."""
    return sorted(record.image_ids)[::stride]


def detect_frames(
    model: nn.Module, sequence: VideoSequence, positions: list[int], *, enlarge: float = 1.0
) -> Iterator[tuple[int, Detections]]:
    """Detections of score `CONF` or more in some frames, ascending, in pixels of the sequence.

    The network sees frames enlarged by `enlarge`. Where windows overlap the sequence is streamed, else each
    window is a clip: the same numbers either way.
    """
    import torch

    from detectors.inference.postprocess import decode
    from pipeline.imaging.geometry import Geometry
    from pipeline.structures.detections import Detections

    geometry = Geometry.native(sequence.frames.shape[:0:-1], scale=enlarge)
    dense = len(positions) * (model.frames - 1) > len(sequence)
    raw_outputs = _streamed if dense else _clip_by_clip
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for position, raw in raw_outputs(model, sequence, positions, geometry):
                boxes, scores, labels = decode(raw, conf=CONF, iou=DetectorConfig.iou)[0]
                boxes = geometry.to_source(boxes.cpu().numpy())
                yield position, Detections(boxes, scores.cpu().numpy(), labels.cpu().numpy())
    finally:
        model.train(training)


def _streamed(model, sequence, positions, geometry):
    stream, wanted = model.stream(), set(positions)
    for position in range(max(positions) + 1):
        raw = stream.push(_pixels(model, geometry, sequence.frames[position : position + 1]))
        if position in wanted:
            yield position, raw


def _clip_by_clip(model, sequence, positions, geometry):
    from datasets.sequences.clips import clip_at

    for position in positions:
        clip = clip_at(sequence, position, length=model.frames)
        yield position, model(_pixels(model, geometry, clip.frames).transpose(0, 1)[None])


def _pixels(model, geometry, frames):
    """(T, H, W) uint8 or uint16 → (T, 3, h, w) network input on the model's device."""
    import numpy as np

    from detectors.inference.normalisation import to_network_input

    scale = int(np.iinfo(frames.dtype).max)
    pictures = [geometry.apply(frame, full_scale=scale) for frame in frames]
    return to_network_input(pictures, full_scale=scale, device=next(model.parameters()).device)


def score_dataset(
    model: nn.Module,
    dataset: Dataset,
    *,
    stride: int,
    enlarge: float = 1.0,
    workers: int = 1,
    by_class: bool = False,
) -> tuple[Evaluator, list[dict]]:
    """Every `stride`-th frame of a dataset, scored, and the COCO results.

    All categories count as one unless `by_class`: then label n is the n-th category by its id.
    With several `workers`, sequences are shared among so many processes of one thread each: as fast as the
    cores together, where a narrow network gains nothing from a second thread.
    """
    from pipeline.evaluation.detection.evaluator import Evaluator
    from pipeline.sinks.coco import coco_results
    from pipeline.system.progress import Progress

    table = dataset.coco()
    ids = sorted(category["id"] for category in table["categories"])
    categories = dict(enumerate(ids)) if by_class else dict.fromkeys(range(model.num_classes), ids[0])
    evaluator, rows = Evaluator(table, classes=by_class), []
    tasks = [(model, r, dataset.root, annotated(r, stride), enlarge) for r in dataset.records]
    count = sum(len(positions) for *_, positions, _ in tasks)
    with Progress(count) as progress, closing(_of_sequences(tasks, workers)) as of_sequences:
        for record, found in of_sequences:
            for position, detections in found:
                image = record.image_ids[position]
                evaluator.add(image, detections)
                rows += coco_results(detections, image_id=image, category_id=categories)
                progress.advance()
    return evaluator, rows


def _of_sequences(tasks, workers):
    """Each record with its detections, in the order of the dataset."""
    if workers == 1:
        for task in tasks:
            yield task[1], _of_sequence(*task)
        return
    from detectors.evaluation.worker_pool import map_in_order

    with closing(map_in_order(_of_sequence_whole, tasks, workers=workers)) as found:
        yield from zip((task[1] for task in tasks), found, strict=True)


def _of_sequence(model, record, root, positions, enlarge) -> Iterator[tuple[int, Detections]]:
    from datasets.sequences.clips import read_sequence

    return (
        detect_frames(model, read_sequence(record, root), positions, enlarge=enlarge)
        if positions
        else iter(())
    )


def _of_sequence_whole(task) -> list[tuple[int, Detections]]:
    """In a process that is one of several."""
    import torch

    torch.set_num_threads(1)
    return list(_of_sequence(*task))
