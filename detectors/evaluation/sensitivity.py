"""Detection probability against signal-to-clutter ratio, in synthetic scenes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasets.sequences.clips import VideoSequence
    from detectors.inference.streaming import StreamingNetwork
    from pipeline.evaluation.detection.evaluator import Evaluator
    from pipeline.structures.detections import Detections

RATIOS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
"""Signal-to-clutter ratios, as `datasets.synthesis.rendering` defines them."""

FALSE_ALARMS = (0.001, 0.01, 0.1)
"""Rates of false alarms per frame."""

FIRST_SEED = 1_000_000
"""Seed of the first scene. Synthetic scenes for training, of another length, have seeds from 1 000 003 on."""

PLOT_NAME = "sensitivity.png"


@dataclass(frozen=True)
class OperatingPoint:
    """Detection probabilities at one rate of false alarms."""

    false_alarms: float
    """Maximum number of false alarms per frame, over the frames of all ratios."""
    threshold: float | None
    """Score threshold, the same for all ratios; None if no threshold keeps the rate."""
    probability: list[float | None]
    """Share of the targets that are detected, for each ratio; None without a threshold or without targets."""


@dataclass(frozen=True)
class Sensitivity:
    """Detection probabilities. A target is detected if the centre of a detection is within 5 pixels."""

    ratios: list[float]
    frames: int
    """Number of evaluated frames for each ratio."""
    targets: list[int]
    """Number of targets in these frames, for each ratio."""
    levels: list[OperatingPoint]


def render_scenes(ratio: float, *, count: int, frames: int, **size: int) -> Iterator[VideoSequence]:
    """Yields `count` scenes whose targets are warm, in front of clouds, and of one signal-to-clutter ratio.

    For every ratio the scenes are the same but for the brightness of the targets. `size` is `width` and
    `height` in pixels.
    """
    from datasets.sequences.clips import VideoSequence
    from datasets.synthesis.rendering import render
    from datasets.synthesis.scene import Scene

    for number in range(count):
        scene = Scene.random(FIRST_SEED + number, frames=frames, **size)
        targets = (replace(target, scr=ratio, cold=False, behind_clouds=False) for target in scene.targets)
        images, truths = zip(*render(replace(scene, targets=tuple(targets))), strict=True)
        boxes = tuple(np.array([t.box for t in row], np.float32).reshape(-1, 4) for row in truths)
        labels = tuple(np.zeros(len(rows), np.int64) for rows in boxes)
        yield VideoSequence(f"scene {number}", np.stack(images), boxes, labels)


def measure_sensitivity(
    model: StreamingNetwork,
    ratios: Sequence[float],
    false_alarms: Sequence[float],
    *,
    count: int,
    frames: int,
    enlarge: float = 1.0,
    **size: int,
) -> Sensitivity:
    """Measures detection probabilities in `count` scenes of `frames` frames for each ratio.

    Frames before the first complete window are left out. `size` is `width` and `height` of the scenes.
    Raises ValueError if the scenes are shorter than a window.
    """
    from pipeline.evaluation.detection.matches import Matches
    from pipeline.evaluation.detection.matching import CENTRE_5

    if frames < model.frames:
        raise ValueError(f"{frames = }, expected {model.frames} or more: the window of the network")
    evaluator = _fill_evaluator(model, ratios, count=count, frames=frames, enlarge=enlarge, size=size)
    hits = Matches.from_frames(evaluator.results()).judged_by(CENTRE_5)
    curves = [hits.curve(frames=inside) for _, inside in evaluator.videos()]
    levels = []
    for rate in false_alarms:
        threshold = hits.curve().threshold_at_false_alarms(rate)
        recalls = [None if threshold is None else curve.operating_point(threshold).recall for curve in curves]
        levels.append(OperatingPoint(rate, threshold, recalls))
    targets = [curve.targets for curve in curves]
    return Sensitivity(list(ratios), count * (frames - model.frames + 1), targets, levels)


def _fill_evaluator(
    model: StreamingNetwork,
    ratios: Sequence[float],
    *,
    count: int,
    frames: int,
    enlarge: float,
    size: Mapping[str, int],
) -> Evaluator:
    """Returns an evaluator with the detections of all frames; those of a ratio are one video."""
    from detectors.evaluation.detection import detect_frames
    from pipeline.evaluation.detection.evaluator import Evaluator
    from pipeline.structures.boxes import to_xywh
    from pipeline.system.progress import Progress

    positions = list(range(model.frames - 1, frames))
    images: list[dict] = []
    annotations: list[dict] = []
    results: list[Detections] = []
    with Progress(len(ratios) * count * len(positions)) as progress:
        for video, ratio in enumerate(ratios):
            for sequence in render_scenes(ratio, count=count, frames=frames, **size):
                for position, detections in detect_frames(model, sequence, positions, enlarge=enlarge):
                    image = len(images)
                    images.append({"id": image, "video_id": video})
                    annotations += [
                        {"image_id": image, "category_id": 1, "bbox": box}
                        for box in to_xywh(sequence.boxes[position].astype(float)).tolist()
                    ]
                    results.append(detections)
                    progress.advance()
    videos = [{"id": video, "name": f"{ratio:g}"} for video, ratio in enumerate(ratios)]
    categories = [{"id": 1, "name": "target"}]
    table = {"videos": videos, "images": images, "annotations": annotations, "categories": categories}
    evaluator = Evaluator(table, classes=False)
    for image, detections in enumerate(results):
        evaluator.add(image, detections)
    return evaluator


def sensitivity_table(measured: Sensitivity) -> str:
    """Returns a Markdown table with a row for each ratio and a column for each rate of false alarms."""
    from pipeline.evaluation.detection.tables import format_number

    heads = [
        f"Pd at {_rate_label(level)}, score {format_number(level.threshold)}" for level in measured.levels
    ]
    lines = [f"| signal-to-clutter ratio | targets | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
    for index, ratio in enumerate(measured.ratios):
        cells = (format_number(level.probability[index]) for level in measured.levels)
        lines.append(f"| {ratio:g} | {measured.targets[index]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rate_label(level: OperatingPoint) -> str:
    return f"{level.false_alarms:g} false alarms a frame"


def plot_sensitivity(measured: Sensitivity, path: Path, *, title: str) -> Path:
    """Plots detection probability against signal-to-clutter ratio as PNG; returns the path.

    Raises OutputError if the file cannot be written.
    """
    from matplotlib.figure import Figure  # not pyplot: it would hold global state

    from pipeline.evaluation.detection.plots import COLOURS, save_figure, style_axes

    figure = Figure(figsize=(6.4, 4.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for number, level in enumerate(measured.levels):
        if level.threshold is not None:
            recalls = np.array(level.probability, dtype=float)
            label = f"{_rate_label(level)} (score {level.threshold:.2f})"
            axes.plot(measured.ratios, recalls, "o-", color=COLOURS[number % 3], markersize=4, label=label)
    axes.set(xlabel="signal-to-clutter ratio", ylabel="share of targets found", ylim=(0, 1.02))
    axes.set_title(title, fontsize=11)
    style_axes(axes)
    axes.legend(frameon=False, fontsize=9)
    return save_figure(figure, path)
