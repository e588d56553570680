"""Detects targets in annotated sequences and scores the detections."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pipeline.config.schema import DetectorConfig
from pipeline.system import cli
from pipeline.system.errors import UsageError

if TYPE_CHECKING:
    import argparse

    import numpy as np
    import torch
    from torch import Tensor

    from datasets.layouts.registry import Dataset
    from datasets.sequences.clips import VideoSequence
    from detectors.inference.streaming import StreamingNetwork
    from detectors.networks.plain import PlainNetwork
    from detectors.networks.tridos import Tridos
    from pipeline.evaluation.detection.evaluator import Evaluator
    from pipeline.evaluation.detection.report import DetectionScores
    from pipeline.imaging.geometry import Geometry
    from pipeline.structures.annotations import VideoRecord
    from pipeline.structures.detections import Detections

    SequenceTask: TypeAlias = tuple[StreamingNetwork, VideoRecord, Path, list[int], float]
    """The arguments of `_detect_sequence`."""

MIN_SCORE = 0.01
"""Minimum score of evaluated detections; lower ones change average precision by less than 0.001."""

ENLARGE = cli.as_argument_type(lambda text: DetectorConfig(enlarge=float(text)).enlarge)
"""Type of the option `--enlarge`."""


def load_network(options: argparse.Namespace) -> tuple[Tridos | PlainNetwork, float, torch.device]:
    """Loads the network that the options `weights`, `detector`, `device` and `enlarge` name.

    Returns it on its device, the enlargement of its frames, and the device. Raises UsageError if the network
    is a segmenter, WeightsError if the weights cannot be read or do not fit.
    """
    # torch takes seconds to load: not for --help
    import torch

    from detectors.backends.devices import pick_device, thread_count
    from detectors.networks.segmenters.base import Segmenter
    from detectors.weights import restore, zoo

    device = pick_device(options.device)
    name = zoo.network_of(options.weights, options.detector)
    model, path, _ = restore.restore_network(name, options.weights)
    if isinstance(model, Segmenter):
        name = type(model).__name__
        raise UsageError(f"this command is for networks that predict boxes, {name} predicts masks")
    torch.set_num_threads(thread_count(model))
    return model.to(device), options.enlarge or restore.trained_enlargement(path), device


def evaluate_scores(
    model: StreamingNetwork,
    records: Iterable[VideoRecord],
    sequences: Iterable[VideoSequence],
    truth: dict,
    *,
    stride: int,
) -> DetectionScores:
    """Returns class-agnostic scores on every `stride`-th annotated frame of the sequences, as whole frames.

    `truth` is the COCO-video dictionary of the records. The training mode of the model is restored.
    """
    return fill_evaluator(model, records, sequences, truth, stride=stride, classes=False).scores()


def fill_evaluator(
    model: StreamingNetwork,
    records: Iterable[VideoRecord],
    sequences: Iterable[VideoSequence],
    truth: dict,
    *,
    stride: int,
    classes: bool,
) -> Evaluator:
    """Returns an evaluator with the detections of every `stride`-th annotated frame, see `evaluate_scores`.

    With `classes` a detection matches targets of its class only: label n is the n-th category by id.
    """
    from pipeline.evaluation.detection.evaluator import Evaluator

    evaluator = Evaluator(truth, classes=classes)
    for record, sequence in zip(records, sequences, strict=True):
        for position, detections in detect_frames(model, sequence, annotated_positions(record, stride)):
            evaluator.add(record.image_ids[position], detections)
    return evaluator


def annotated_positions(record: VideoRecord, stride: int) -> list[int]:
    """Returns the positions of every `stride`-th annotated frame, ascending."""
    return sorted(record.image_ids)[::stride]


def detect_frames(
    model: StreamingNetwork, sequence: VideoSequence, positions: list[int], *, enlarge: float = 1.0
) -> Iterator[tuple[int, Detections]]:
    """Yields each of `positions`, ascending, with its detections of score `MIN_SCORE` or more.

    Boxes are in pixels of the sequence; the network input is enlarged by `enlarge`. If the windows overlap,
    the sequence is streamed, otherwise each window is computed as a clip; the results are equal. The
    training mode of the model is restored.
    """
    import torch

    from detectors.inference.postprocess import decode
    from pipeline.imaging.geometry import Geometry
    from pipeline.structures.detections import Detections

    height, width = sequence.frames.shape[1:]
    geometry = Geometry.native((width, height), scale=enlarge)
    dense = len(positions) * (model.frames - 1) > len(sequence)
    raw_outputs = _stream_outputs if dense else _clip_outputs
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for position, raw in raw_outputs(model, sequence, positions, geometry):
                boxes, scores, labels = decode(raw, conf=MIN_SCORE, iou=DetectorConfig.iou)[0]
                in_source = geometry.to_source(boxes.cpu().numpy())
                yield position, Detections(in_source, scores.cpu().numpy(), labels.cpu().numpy())
    finally:
        model.train(training)


def _stream_outputs(
    model: StreamingNetwork, sequence: VideoSequence, positions: list[int], geometry: Geometry
) -> Iterator[tuple[int, Tensor]]:
    """Yields positions and raw outputs (1, 5 + classes, h, w), computed frame by frame."""
    stream, wanted = model.stream(), set(positions)
    for position in range(max(positions) + 1):
        raw = stream.push(_network_input(model, geometry, sequence.frames[position : position + 1]))
        if position in wanted:
            yield position, raw


def _clip_outputs(
    model: StreamingNetwork, sequence: VideoSequence, positions: list[int], geometry: Geometry
) -> Iterator[tuple[int, Tensor]]:
    """Yields positions and raw outputs (1, 5 + classes, h, w), computed clip by clip."""
    from datasets.sequences.clips import clip_at

    for position in positions:
        clip = clip_at(sequence, position, length=model.frames)
        yield position, model(_network_input(model, geometry, clip.frames).transpose(0, 1)[None])


def _network_input(model: StreamingNetwork, geometry: Geometry, frames: np.ndarray) -> Tensor:
    """(T, H, W) uint8 or uint16 → (T, 3, h, w) network input on the model's device."""
    import numpy as np

    from detectors.inference.normalisation import to_network_input

    scale = int(np.iinfo(frames.dtype).max)
    images = [geometry.apply(frame, full_scale=scale) for frame in frames]
    return to_network_input(images, full_scale=scale, device=next(model.parameters()).device)


def score_dataset(
    model: StreamingNetwork,
    dataset: Dataset,
    *,
    stride: int,
    enlarge: float = 1.0,
    workers: int = 1,
    by_class: bool = False,
    margin: float = 0.0,
) -> tuple[Evaluator, list[dict]]:
    """Detects targets in every `stride`-th annotated frame of a dataset.

    Returns an evaluator with the detections, and the detections as COCO results, their boxes grown by
    `margin` pixels on each side. All categories count as
    one, except with `by_class`: then label n is the n-th category by id. With several `workers` the sequences
    are distributed over as many processes of one thread each, because a narrow network gains nothing from a
    second thread. Raises SourceError if a sequence cannot be read.
    """
    from pipeline.evaluation.detection.evaluator import Evaluator
    from pipeline.sinks.coco import coco_results
    from pipeline.structures.boxes import grow
    from pipeline.system.progress import Progress

    table = dataset.to_coco()
    ids = sorted(category["id"] for category in table["categories"])
    categories = dict(enumerate(ids)) if by_class else dict.fromkeys(range(model.num_classes), ids[0])
    evaluator = Evaluator(table, classes=by_class)
    rows: list[dict] = []
    tasks = [(model, r, dataset.root, annotated_positions(r, stride), enlarge) for r in dataset.records]
    count = sum(len(positions) for *_, positions, _ in tasks)
    with Progress(count) as progress, closing(_detect_sequences(tasks, workers)) as sequences:
        for record, frames in sequences:
            for position, detections in frames:
                image = record.image_ids[position]
                if margin:
                    detections = replace(detections, boxes=grow(detections.boxes, margin))
                evaluator.add(image, detections)
                rows += coco_results(detections, image_id=image, category_id=categories)
                progress.advance()
    return evaluator, rows


def _detect_sequences(
    tasks: list[SequenceTask], workers: int
) -> Generator[tuple[VideoRecord, Iterable[tuple[int, Detections]]]]:
    """Yields each record with its detections, in the order of the dataset."""
    if workers == 1:
        for task in tasks:
            yield task[1], _detect_sequence(*task)
        return
    from detectors.evaluation.worker_pool import map_in_order

    with closing(map_in_order(_detect_sequence_in_worker, tasks, workers=workers)) as results:
        yield from zip((task[1] for task in tasks), results, strict=True)


def _detect_sequence(
    model: StreamingNetwork, record: VideoRecord, root: Path, positions: list[int], enlarge: float
) -> Iterator[tuple[int, Detections]]:
    """Yields some positions of a sequence with their detections; reads it only if there are any."""
    from datasets.sequences.clips import read_sequence

    return (
        detect_frames(model, read_sequence(record, root), positions, enlarge=enlarge)
        if positions
        else iter(())
    )


def _detect_sequence_in_worker(task: SequenceTask) -> list[tuple[int, Detections]]:
    """`_detect_sequence` in a worker process."""
    import torch

    torch.set_num_threads(1)
    return list(_detect_sequence(*task))
