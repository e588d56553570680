"""Learning curves as a picture: loss terms, learning rate, and scores on the validation set."""

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
"""Scores that are drawn, where there are such, and what they are called."""
WINDOWS = 50
"""A curve is smoothed over about this part of its length."""


def draw(rows: Sequence[Mapping[str, Any]], path: Path, *, terms: Sequence[str]) -> None:
    """Draw the rows of a log, see `detectors.training.logs.run_log`, as PNG: the named terms of the loss,
    and all else.

    Raises OSError when it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 9), layout="constrained")
    FigureCanvasAgg(figure)
    losses, rates, scores = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 2))
    _losses(losses, rows, terms)
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
    """(2, n) steps and values of the rows that have the value."""
    found = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return np.array(found, dtype=float).reshape(-1, 2).T


def _losses(axes, rows: Sequence[Mapping[str, Any]], terms: Sequence[str]) -> None:
    """Each term of the loss: as it came, faint, and smoothed."""
    for number, name in enumerate(terms):
        at, values = _points(rows, name)
        axes.plot(at, values, f"C{number}", alpha=0.15, linewidth=0.8)
        axes.plot(at, smoothed(values, max(1, len(at) // WINDOWS)), f"C{number}", label=name)
        if (values > 0).any():
            axes.set_yscale("log")
    axes.set_ylabel("loss")


def smoothed(values: np.ndarray, reach: int) -> np.ndarray:
    """(n,) → (n,) means of up to `reach` values on either side, fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    low, high = (place - reach).clip(0), (place + reach + 1).clip(max=len(values))
    return (sums[high] - sums[low]) / (high - low)
