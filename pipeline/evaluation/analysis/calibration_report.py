"""pipeline.evaluation.analysis.calibration_report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.evaluation.analysis.score_calibration import Calibration
from pipeline.evaluation.detection.tables import section, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOT = "reliability.png"


def tables(found: list[Calibration]) -> str:
    """All numbers, one table below the other; a dash stands for what is undefined."""
    head = ["hit", "wanted", "at score", "false alarms", "precision", "recall", "F1", "chosen elsewhere"]
    operations = [[*head, "recall there"]]
    for one in found:
        for row in one.operations:
            point = row.point
            wanted = f"{row.false_alarms:g}"
            values = ("threshold", "false_alarms_per_frame", "precision", "recall", "f1")
            cells = [shown(getattr(point, name, None)) for name in values]
            there = [" ".join(shown(p.false_alarms_per_frame) for p in row.elsewhere) or "-"]
            there.append(" ".join(shown(p.recall) for p in row.elsewhere) or "-")
            operations.append([one.title, wanted, *cells, *there])
    errors = [["hit", "error", "slope", "offset", "error of the fit", "fitted elsewhere"]]
    for one in found:
        values = (one.error, one.slope, one.offset, one.error_fitted, one.error_elsewhere)
        errors.append([one.title, *map(shown, values)])
    scores = [["score", "detections", *(one.title for one in found)]]
    first, *others = ({b.low: b for b in one.bins} for one in found)
    for low, row in first.items():
        shares = [getattr(bins.get(low), "hits", None) for bins in (first, *others)]
        scores.append([shown(row.score), str(row.count), *map(shown, shares)])
    return "\n\n".join(
        [
            section("Thresholds, for so many false alarms a frame at most", operations),
            section("Expected calibration error", errors),
            section("Share of detections that hit, by score", scores),
        ]
    )


def plot(found: list[Calibration], path: Path) -> Path:
    """Share of hits over score, the fit, and numbers of detections, as PNG. Raises OutputError."""
    from matplotlib.figure import Figure  # without pyplot there is no window and no state

    from pipeline.evaluation.detection.plots import plain, save

    figure = Figure(figsize=(6.4, 5.6), dpi=110, layout="constrained")
    shares, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    shares.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--", label="score = chance of a hit")
    _draw_shares(shares, found)
    shares.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share of detections that hit")
    shares.set_title("Reliability of scores", fontsize=11)
    shares.legend(frameon=False, fontsize=9, loc="lower right")
    bins = found[0].bins
    counts.bar([b.score for b in bins], [b.count for b in bins], width=0.04, color="#999999")
    counts.set(yscale="log", xlabel="score", ylabel="detections")
    for axes in (shares, counts):
        plain(axes)
    return save(figure, path)


def _draw_shares(axes: Axes, found: list[Calibration]) -> None:
    import numpy as np

    from pipeline.evaluation.analysis.score_calibration import calibrated_probability
    from pipeline.evaluation.detection.plots import COLOURS

    for one, colour in zip(found, COLOURS, strict=False):
        points = [(b.score, b.hits) for b in one.bins]
        axes.plot(*zip(*points, strict=True), "o-", color=colour, markersize=4, linewidth=1)
        axes.plot([], [], "o-", color=colour, markersize=4, label=f"{one.title}: error {one.error:.3f}")
        scores = np.linspace(one.bins[0].score, one.bins[-1].score, 100)
        label = f"fit: slope {one.slope:.2f}, offset {one.offset:.2f}, error {one.error_fitted:.3f}"
        axes.plot(
            scores, calibrated_probability(scores, one.slope, one.offset), ":", color=colour, label=label
        )
