"""Text tables and reliability plot of score calibrations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.evaluation.analysis.score_calibration import Calibration, calibrated_probability
from pipeline.evaluation.detection.plots import COLOURS, save_figure, style_axes
from pipeline.evaluation.detection.tables import format_number, format_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOT = "reliability.png"


def calibration_tables(calibrations: Sequence[Calibration]) -> str:
    """Returns all numbers as text; a dash stands for what is undefined."""
    return "\n\n".join(
        [
            format_table("Thresholds for a maximum of false alarms a frame", _threshold_rows(calibrations)),
            format_table("Expected calibration error", _error_rows(calibrations)),
            format_table("Hit rate by score", _bin_rows(calibrations)),
        ]
    )


def _threshold_rows(calibrations: Sequence[Calibration]) -> list[list[str]]:
    metrics = ("threshold", "false_alarms_per_frame", "precision", "recall", "f1")
    head = ["hit", "at most", "at score", "false alarms", "precision", "recall", "F1"]
    rows = [[*head, "false alarms, cross-validated", "recall, cross-validated"]]
    for calibration in calibrations:
        for row in calibration.thresholds:
            cells = [format_number(getattr(row.point, name, None)) for name in metrics]
            for name in ("false_alarms_per_frame", "recall"):
                values = (format_number(getattr(point, name)) for point in row.cross_validated)
                cells.append(" ".join(values) or "-")
            rows.append([calibration.title, f"{row.max_false_alarms:g}", *cells])
    return rows


def _error_rows(calibrations: Sequence[Calibration]) -> list[list[str]]:
    rows = [["hit", "error", "slope", "offset", "error of the fit", "cross-validated error"]]
    for c in calibrations:
        values = (c.error, c.slope, c.offset, c.error_fitted, c.cross_validated_error)
        rows.append([c.title, *map(format_number, values)])
    return rows


def _bin_rows(calibrations: Sequence[Calibration]) -> list[list[str]]:
    rows = [["score", "detections", *(calibration.title for calibration in calibrations)]]
    first, *others = ({score_bin.low: score_bin for score_bin in c.bins} for c in calibrations)
    for low, score_bin in first.items():
        rates = [getattr(bins.get(low), "hit_rate", None) for bins in (first, *others)]
        rows.append([format_number(score_bin.score), str(score_bin.count), *map(format_number, rates)])
    return rows


def plot_reliability(calibrations: Sequence[Calibration], path: Path) -> Path:
    """Writes hit rate over score, the fits, and a histogram of scores as PNG; returns the path.

    Raises OutputError if the file cannot be written.
    """
    from matplotlib.figure import Figure  # without pyplot: no window and no global state

    figure = Figure(figsize=(6.4, 5.6), dpi=110, layout="constrained")
    rates, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    rates.plot(
        [0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--", label="score = probability of a hit"
    )
    _draw_hit_rates(rates, calibrations)
    rates.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="hit rate of detections")
    rates.set_title("Reliability of scores", fontsize=11)
    rates.legend(frameon=False, fontsize=9, loc="lower right")
    bins = calibrations[0].bins
    counts.bar([b.score for b in bins], [b.count for b in bins], width=0.04, color="#999999")
    counts.set(yscale="log", xlabel="score", ylabel="detections")
    for axes in (rates, counts):
        style_axes(axes)
    return save_figure(figure, path)


def _draw_hit_rates(axes: Axes, calibrations: Sequence[Calibration]) -> None:
    for c, colour in zip(calibrations, COLOURS, strict=False):
        points = [(b.score, b.hit_rate) for b in c.bins]
        axes.plot(*zip(*points, strict=True), "o-", color=colour, markersize=4, linewidth=1)
        axes.plot([], [], "o-", color=colour, markersize=4, label=f"{c.title}: error {c.error:.3f}")
        scores = np.linspace(c.bins[0].score, c.bins[-1].score, 100)
        fit = calibrated_probability(scores, c.slope, c.offset)
        label = f"fit: slope {c.slope:.2f}, offset {c.offset:.2f}, error {c.error_fitted:.3f}"
        axes.plot(scores, fit, ":", color=colour, label=label)
