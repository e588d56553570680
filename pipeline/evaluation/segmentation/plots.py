"""Plot of ROC curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.evaluation.detection.plots import save_figure, style_axes
from pipeline.evaluation.segmentation.roc import RocCurve
from pipeline.evaluation.segmentation.scorer import MaskScorer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROC = "roc.png"
TITLES = {"pixels": "Hit rate of pixels", "targets": "Hit rate of targets, as each definition counts"}


def plot_roc(scorer: MaskScorer, folder: Path) -> Path:
    """Writes the ROC curves of pixels and of targets of all definitions with curves as PNG; returns the path.

    Creates the folder if it is missing. Raises OutputError if the folder or the file cannot be written.
    """
    from matplotlib.figure import Figure  # without pyplot: no window and no global state

    figure = Figure(figsize=(11, 4.8), dpi=120, layout="constrained")
    curves = scorer.curves()
    lowest = 0.5 / max(scorer.pixels, 2)  # drawn in place of 0, which a logarithmic axis does not have
    for axes, (kind, title) in zip(figure.subplots(1, 2, sharey=True), TITLES.items(), strict=True):
        for number, (name, curve) in enumerate((n, c[kind]) for n, c in curves.items() if kind in c):
            area = curve.area() if scorer.definitions[name].auc else None
            label = name if area is None else f"{name}: area {area:.4f}"
            _draw(axes, curve, lowest, label=label, number=number)
        axes.set(xscale="log", xlim=(lowest, 1), ylim=(0, 1.02))
        axes.set(xlabel="false pixels over pixels outside targets", title=title)
        style_axes(axes)
        axes.legend(frameon=False, fontsize=9, loc="lower right")
    figure.axes[0].set_ylabel("hit rate")
    return save_figure(figure, folder / ROC)


def _draw(axes: Axes, curve: RocCurve, lowest: float, *, label: str, number: int) -> None:
    """Draws a curve in the colour of its number, the first one solid and thick."""
    # Steps, since no threshold reaches points between two others. Equal points are drawn once: a curve over
    # all thresholds has 65 537.
    points = np.unique(np.stack([curve.false_rates, curve.hit_rates]), axis=1)
    width, style = (1.2, "--") if number else (2.5, "-")
    x, y = points[0].clip(min=lowest), points[1]
    axes.step(x, y, where="post", label=label, color=f"C{number}", linewidth=width, linestyle=style)
