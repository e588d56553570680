"""detectors.evaluation.sensitivity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from datasets.sequences.clips import Sequence as Frames
    from pipeline.evaluation.detection.evaluator import Evaluator

RATIOS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
"""Signal-to-clutter ratios, as `datasets.synthetic` defines them."""

FALSE_ALARMS = (0.001, 0.01, 0.1)
"""False alarms per frame."""

FIRST_SEED = 1_000_000
"""Seeds from here on: no training draws scenes from them."""

PLOT = "sensitivity.png"


@dataclass(frozen=True)
class Level:
    """At one rate of false alarms."""

    false_alarms: float
    """Most per frame, of all frames."""
    threshold: float | None
    """None where even the best detections have more."""
    probability: list[float | None]
    """Share of the targets that are found, for each ratio; None without a threshold or targets."""


@dataclass(frozen=True)
class Sensitivity:
    """A detection finds a target when their centres lie within 5 pixels."""

    ratios: list[float]
    frames: int
    """Of each ratio."""
    targets: list[int]
    """Recorded ones, of each ratio."""
    levels: list[Level]


def scenes(ratio: float, *, count: int, frames: int, **size: int) -> Iterator[Frames]:
    """`count` scenes with all targets of one signal-to-clutter ratio, bright and before the clouds.

    Another ratio gives the same scenes but for the brightness of their targets.
    """
    from datasets.sequences.clips import Sequence as Frames
    from datasets.synthesis.rendering import render
    from datasets.synthesis.scene import Scene

    for number in range(count):
        scene = Scene.random(FIRST_SEED + number, frames=frames, **size)
        targets = (replace(target, scr=ratio, cold=False, behind_clouds=False) for target in scene.targets)
        pictures, truths = zip(*render(replace(scene, targets=tuple(targets))), strict=True)
        boxes = tuple(np.array([t.box for t in row], np.float32).reshape(-1, 4) for row in truths)
        labels = tuple(np.zeros(len(rows), np.int64) for rows in boxes)
        yield Frames(f"scene {number}", np.stack(pictures), boxes, labels)


def sensitivity(
    model: nn.Module,
    ratios: Sequence[float],
    false_alarms: Sequence[float],
    *,
    count: int,
    frames: int,
    enlarge: float = 1.0,
    **size: int,
) -> Sensitivity:
    """Measured in `count` scenes of `frames` frames for each ratio, once real frames fill the window.

    `size` is width and height of the scenes. Raises ValueError where no frame fills a window.
    """
    from pipeline.evaluation.detection.matches import Matches
    from pipeline.evaluation.detection.matching import CENTRE_5

    if frames < model.frames:
        raise ValueError(f"{frames = }, expected {model.frames} or more: the window of the network")
    evaluator = _evaluated(model, ratios, count=count, frames=frames, enlarge=enlarge, size=size)
    hits = Matches.of(evaluator.results()).under(CENTRE_5)
    curves = [hits.curve(frames=inside) for _, inside in evaluator.videos()]
    levels = []
    for rate in false_alarms:
        threshold = hits.curve().threshold_at(rate)
        found = [None if threshold is None else curve.at(threshold).recall for curve in curves]
        levels.append(Level(rate, threshold, found))
    targets = [curve.targets for curve in curves]
    return Sensitivity(list(ratios), count * (frames - model.frames + 1), targets, levels)


def _evaluated(model, ratios, *, count, frames, enlarge, size) -> Evaluator:
    """All frames in one evaluator, those of a ratio as one of its videos."""
    from detectors.evaluation.detection import detect_frames
    from pipeline.evaluation.detection.evaluator import Evaluator
    from pipeline.structures.boxes import to_xywh
    from pipeline.system.progress import Progress

    positions = list(range(model.frames - 1, frames))
    images, annotations, found = [], [], []
    with Progress(len(ratios) * count * len(positions)) as progress:
        for video, ratio in enumerate(ratios):
            for sequence in scenes(ratio, count=count, frames=frames, **size):
                for position, detections in detect_frames(model, sequence, positions, enlarge=enlarge):
                    image = len(images)
                    images.append({"id": image, "video_id": video})
                    annotations += [
                        {"image_id": image, "category_id": 1, "bbox": box}
                        for box in to_xywh(sequence.boxes[position].astype(float)).tolist()
                    ]
                    found.append(detections)
                    progress.advance()
    videos = [{"id": video, "name": f"{ratio:g}"} for video, ratio in enumerate(ratios)]
    categories = [{"id": 1, "name": "target"}]
    table = {"videos": videos, "images": images, "annotations": annotations, "categories": categories}
    evaluator = Evaluator(table, classes=False)
    for image, detections in enumerate(found):
        evaluator.add(image, detections)
    return evaluator


def table(measured: Sensitivity) -> str:
    """A Markdown table: a row for each ratio, a column for each rate of false alarms."""
    from pipeline.evaluation.detection.tables import shown

    heads = [f"Pd at {_rate(level)}, score {shown(level.threshold)}" for level in measured.levels]
    lines = [f"| signal-to-clutter ratio | targets | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
    for place, ratio in enumerate(measured.ratios):
        cells = (shown(level.probability[place]) for level in measured.levels)
        lines.append(f"| {ratio:g} | {measured.targets[place]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rate(level: Level) -> str:
    return f"{level.false_alarms:g} false alarms a frame"


def plot(measured: Sensitivity, path: Path, *, title: str) -> Path:
    """Detection probability against signal-to-clutter ratio as PNG. Raises OutputError."""
    from matplotlib.figure import Figure  # without pyplot there is no window and no state

    from pipeline.evaluation.detection.plots import COLOURS, plain, save

    figure = Figure(figsize=(6.4, 4.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for number, level in enumerate(measured.levels):
        if level.threshold is not None:
            shown = np.array(level.probability, dtype=float)
            label = f"{_rate(level)} (score {level.threshold:.2f})"
            axes.plot(measured.ratios, shown, "o-", color=COLOURS[number % 3], markersize=4, label=label)
    axes.set(xlabel="signal-to-clutter ratio", ylabel="share of targets found", ylim=(0, 1.02))
    axes.set_title(title, fontsize=11)
    plain(axes)
    axes.legend(frameon=False, fontsize=9)
    return save(figure, path)
