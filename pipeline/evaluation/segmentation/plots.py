"""Receiver operating characteristics as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.evaluation.segmentation.roc import Curve
from pipeline.evaluation.segmentation.scorer import MaskScorer
from pipeline.system.errors import OutputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROC = "roc.png"
TITLES = {"pixels": "Pixels found", "targets": "Targets found, as each definition says"}


def plot(scorer: MaskScorer, folder: Path) -> Path:
    """Write the curves of all definitions that have one, of pixels and of targets, as PNG; returns the path.

    The folder is made where it is missing. Raises OutputError when it or the file cannot be written.
    """
    from matplotlib.figure import Figure  # without pyplot there is no window and no state

    figure = Figure(figsize=(11, 4.8), dpi=120, layout="constrained")
    curves, pixels = scorer.curves(), max(scorer.pixels, 2)
    for axes, (kind, title) in zip(figure.subplots(1, 2, sharey=True), TITLES.items(), strict=True):
        least = 0.5 / pixels  # stands for none: a logarithmic axis has no zero
        for number, (name, curve) in enumerate((n, c[kind]) for n, c in curves.items() if kind in c):
            area = curve.area() if scorer.definitions[name].auc else None
            label = name if area is None else f"{name}: area {area:.4f}"
            line = {"linewidth": 1.2, "linestyle": "--"} if number else {"linewidth": 2.5}
            _draw(axes, curve, least, label=label, color=f"C{number}", **line)
        axes.set(xscale="log", xlim=(least, 1), ylim=(0, 1.02))
        axes.set(xlabel="false pixels over pixels outside targets", title=title)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9, loc="lower right")
    figure.axes[0].set_ylabel("share found")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / ROC, format="png")
    except OSError as error:
        raise OutputError(f"cannot write {folder / ROC}: {error.strerror}") from error
    return folder / ROC


def _draw(axes: Axes, curve: Curve, least: float, **style: str | float) -> None:
    # Steps, since what lies between two thresholds cannot be had. Of equal points one is enough: a curve of
    # all levels has 65 537.
    points = np.unique(np.stack([curve.false_rates, curve.hit_rates]), axis=1)
    axes.step(points[0].clip(min=least), points[1], where="post", **style)
