"""Plots of a detection report, and the plot style that all plots of the evaluation share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.evaluation.detection.curves import COCO_RECALLS, OperatingPoint
from pipeline.evaluation.detection.matching import CRITERIA
from pipeline.evaluation.detection.report import DetectionReport
from pipeline.evaluation.detection.tables import format_number
from pipeline.system.errors import OutputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRECISION_RECALL, FROC = "precision_recall.png", "froc.png"
COLOURS = ("#1f5fa8", "#d1682b", "#3c8d5a")
"""One colour per criterion; distinguishable in greyscale and with colour vision deficiency."""


def plot_report(report: DetectionReport, folder: Path) -> list[Path]:
    """Writes the precision-recall and FROC curves as PNG and returns the paths.

    Creates the folder if it is missing. Raises OutputError if the folder or a file cannot be written.
    """
    from matplotlib.figure import Figure  # without pyplot: no window and no global state

    written = []
    for name, draw in ((PRECISION_RECALL, _draw_precision_recall), (FROC, _draw_froc)):
        figure = Figure(figsize=(6.4, 4.8), dpi=120, layout="constrained")
        axes = figure.add_subplot()
        draw(axes, report)
        _label_markers(axes, report)
        style_axes(axes)
        axes.legend(frameon=False, fontsize=9)
        written.append(save_figure(figure, folder / name))
    return written


def style_axes(axes: Axes) -> None:
    """Adds a light grid behind the data and removes the top and right spines."""
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a PNG and returns its path.

    Creates the folder if it is missing. Raises OutputError if the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    return path


def _draw_precision_recall(axes: Axes, report: DetectionReport) -> None:
    for criterion, colour in zip(CRITERIA, COLOURS, strict=True):
        curve, scores = report.curves[criterion.name], report.criteria[criterion.name]
        precision = curve.interpolated_precision
        label = f"{criterion.title}: area {precision.mean():.3f}, best F1 {scores.best_f1:.3f}"
        axes.plot(COCO_RECALLS, precision, color=colour, label=label)
        for point, marker in _marked_points(report, criterion.name):
            _mark(axes, point.recall, point.precision, marker, colour)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="interpolated precision")
    axes.set_title("Precision over recall", fontsize=11)


def _draw_froc(axes: Axes, report: DetectionReport) -> None:
    lowest = 0.5 / report.scores.frames  # drawn in place of 0, which a logarithmic axis does not have
    for criterion, colour in zip(CRITERIA, COLOURS, strict=True):
        rates, recalls = report.curves[criterion.name].froc
        at_level = report.criteria[criterion.name].recall_at_false_alarms["0.1"]
        label = f"{criterion.title}: recall {format_number(at_level)} at 0.1"
        rates, recalls = np.append(lowest, rates.clip(min=lowest)), np.append(0, recalls)
        axes.step(rates, recalls, where="post", color=colour, label=label)
        for point, marker in _marked_points(report, criterion.name):
            _mark(axes, max(point.false_alarms_per_frame, lowest), point.recall, marker, colour)
    axes.set(xscale="log", ylim=(0, 1.02), xlabel="false alarms per frame", ylabel="recall")
    axes.set_xlim(left=lowest)
    axes.set_title("Recall over false alarms (FROC)", fontsize=11)


def _marked_points(report: DetectionReport, name: str) -> list[tuple[OperatingPoint, str]]:
    """Returns the operating points to mark and their marker styles."""
    scores = report.criteria[name]
    return [(report.curves[name].operating_point(scores.best_threshold), "o"), (scores.at_threshold, "s")]


def _mark(axes: Axes, x: float | None, y: float | None, marker: str, colour: str) -> None:
    """Marks a point if both coordinates are defined."""
    if x is not None and y is not None:
        axes.plot([x], [y], marker, color=colour, markerfacecolor="white")


def _label_markers(axes: Axes, report: DetectionReport) -> None:
    for marker, label in (("o", "best F1"), ("s", f"score {report.threshold:g}")):
        axes.plot([], [], marker, color="grey", markerfacecolor="white", label=label)
