"""Plot of the learning curves: loss terms, learning rate and validation scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.system.files import replace_on_success

SCORES = {
    "ap50": "AP50",
    "best_f1": "best F1",
    "iou": "IoU",
    "niou": "nIoU",
    "f1": "F1",
    "pd": "Pd",
}
"""Key of a plotted validation score → its label."""

WINDOWS = 50
"""Number of smoothing windows in a loss curve."""


def plot_learning_curves(rows: Sequence[Mapping[str, Any]], path: Path, *, terms: Sequence[str]) -> None:
    """Plots the rows of a log, see `detectors.training.logs.run_log`, as PNG; `terms` are those of the loss.

    Raises OSError if the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 9), layout="constrained")
    FigureCanvasAgg(figure)
    losses, rates, scores = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 2))
    _plot_losses(losses, rows, terms)
    rates.plot(*_points(rows, "rate"), "C7")
    rates.set_ylabel("learning rate")
    measured = [{"step": row["step"], **row["val"]} for row in rows if "val" in row]
    for name, label in SCORES.items():
        points = _points(measured, name)
        if points.size:
            scores.plot(*points, "o-", markersize=3, label=label)
    scores.set(ylabel="validation", ylim=(0, 1), xlabel="step")
    for axes in (losses, rates, scores):
        axes.grid(alpha=0.3)
    for axes in (losses, scores):
        if axes.lines:
            axes.legend()
    with replace_on_success(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """Returns steps and values, (2, n) float64, of the rows that have the value."""
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return np.array(points, dtype=float).reshape(-1, 2).T


def _plot_losses(axes, rows: Sequence[Mapping[str, Any]], terms: Sequence[str]) -> None:
    """Plots each term of the loss twice: the values faintly, and their moving average."""
    for number, name in enumerate(terms):
        steps, values = _points(rows, name)
        axes.plot(steps, values, f"C{number}", alpha=0.15, linewidth=0.8)
        axes.plot(steps, moving_average(values, max(1, len(steps) // WINDOWS)), f"C{number}", label=name)
        if (values > 0).any():
            axes.set_yscale("log")
    axes.set_ylabel("loss")


def moving_average(values: np.ndarray, radius: int) -> np.ndarray:
    """Returns the means (n,) of each of `values` (n,) and up to `radius` neighbours on either side."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = (index - radius).clip(0), (index + radius + 1).clip(max=len(values))
    return (sums[high] - sums[low]) / (high - low)
