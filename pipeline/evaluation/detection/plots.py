"""Curves of a report as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.evaluation.detection.curves import RECALLS, OperatingPoint
from pipeline.evaluation.detection.matching import CRITERIA
from pipeline.evaluation.detection.report import Report
from pipeline.evaluation.detection.tables import shown
from pipeline.system.errors import OutputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRECISION_RECALL, FROC = "precision_recall.png", "froc.png"
COLOURS = ("#1f5fa8", "#d1682b", "#3c8d5a")
"""One for each criterion; told apart in print and by colour-blind eyes, too."""


def plot(report: Report, folder: Path) -> list[Path]:
    """Write precision over recall, and recall over false alarms per frame (FROC), as PNG; returns the paths.

    The folder is made where it is missing. Raises OutputError when it or a file cannot be written.
    """
    from matplotlib.figure import Figure  # without pyplot there is no window and no state

    written = []
    for name, draw in ((PRECISION_RECALL, _precision_recall), (FROC, _froc)):
        figure = Figure(figsize=(6.4, 4.8), dpi=120, layout="constrained")
        axes = figure.add_subplot()
        draw(axes, report)
        _explain_marks(axes, report)
        plain(axes)
        axes.legend(frameon=False, fontsize=9)
        written.append(save(figure, folder / name))
    return written


def plain(axes: Axes) -> None:
    """A faint grid behind what is drawn, and no frame to the right and above."""
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG, the folder made where it is missing; returns the path. Raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    return path


def _precision_recall(axes: Axes, report: Report) -> None:
    for criterion, colour in zip(CRITERIA, COLOURS, strict=True):
        curve, scores = report.curves[criterion.name], report.criteria[criterion.name]
        label = f"{criterion.title}: area {curve.precision.mean():.3f}, best F1 {scores.best_f1:.3f}"
        axes.plot(RECALLS, curve.precision, color=colour, label=label)
        for point, shape in _points(report, criterion.name):
            _mark(axes, point.recall, point.precision, shape, colour)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="interpolated precision")
    axes.set_title("Precision over recall", fontsize=11)


def _froc(axes: Axes, report: Report) -> None:
    least = 0.5 / report.scores.frames  # stands for none: a logarithmic axis has no zero
    for criterion, colour in zip(CRITERIA, COLOURS, strict=True):
        rates, recalls = report.curves[criterion.name].froc
        at_level = report.criteria[criterion.name].recall_at_false_alarms["0.1"]
        label = f"{criterion.title}: recall {shown(at_level)} at 0.1"
        rates, recalls = np.append(least, rates.clip(min=least)), np.append(0, recalls)
        axes.step(rates, recalls, where="post", color=colour, label=label)
        for point, shape in _points(report, criterion.name):
            _mark(axes, max(point.false_alarms_per_frame, least), point.recall, shape, colour)
    axes.set(xscale="log", ylim=(0, 1.02), xlabel="false alarms per frame", ylabel="recall")
    axes.set_xlim(left=least)
    axes.set_title("Recall over false alarms (FROC)", fontsize=11)


def _points(report: Report, name: str) -> list[tuple[OperatingPoint, str]]:
    """The operating points that are marked, each with the shape of its mark."""
    scores = report.criteria[name]
    return [(report.curves[name].at(scores.best_threshold), "o"), (scores.at_threshold, "s")]


def _mark(axes: Axes, x: float | None, y: float | None, shape: str, colour: str) -> None:
    """Mark a point, if it is defined."""
    if x is not None and y is not None:
        axes.plot([x], [y], shape, color=colour, markerfacecolor="white")


def _explain_marks(axes: Axes, report: Report) -> None:
    for shape, label in (("o", "best F1"), ("s", f"score {report.threshold:g}")):
        axes.plot([], [], shape, color="grey", markerfacecolor="white", label=label)
