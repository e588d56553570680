"""Text tables and plot of an error attribution and of a comparison of box sizes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.evaluation.analysis.box_sizes import BoxSizeComparison
from pipeline.evaluation.analysis.error_attribution import ErrorAttribution, ErrorCounts
from pipeline.evaluation.detection.plots import COLOURS, save_figure, style_axes
from pipeline.evaluation.detection.tables import format_number, format_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOT = "error_attribution.png"


def error_tables(errors: ErrorAttribution) -> str:
    """Returns all numbers as text; a dash stands for what is undefined."""
    parts = [
        f"AP50 {errors.ap50:.3f}, with centres within 5 pixels {errors.centre_ap:.3f}",
        format_table("AP50 without one kind of error", _oracle_rows(errors)),
        format_table(f"Errors at score {errors.threshold:g}", _count_rows(errors.counts)),
    ]
    if errors.width_ratios and errors.width_ratios_in_video:
        ratios = [["predicted over annotated width", "10 %", "50 %", "90 %"]]
        ratios.append(["all", *map(format_number, errors.width_ratios)])
        ratios.append(
            ["relative to the median of the video", *map(format_number, errors.width_ratios_in_video)]
        )
        parts.append(format_table("Sizes, where centres are within 5 pixels", ratios))
    if errors.videos:
        parts.append(format_table(f"By video, at score {errors.threshold:g}", _video_rows(errors)))
    return "\n\n".join(parts)


def size_tables(sizes: BoxSizeComparison) -> str:
    """Returns the sizes by video, and how closely they follow the visible sizes, as text."""
    rows = [["video", "frames", "visible", "annotated", "predicted"]]
    for video in sizes.videos:
        pairs = (
            f"{width:.1f} x {height:.1f}"
            for width, height in (video.visible, video.annotated, video.predicted)
        )
        rows.append([video.name, str(video.frames), *pairs])
    spread = [["over the videos", "annotated", "predicted"]]
    for title, axis in (
        ("deviation of the horizontal margin, pixels", 0),
        ("deviation of the vertical margin", 1),
    ):
        values = (sizes.annotated_spread[axis], sizes.predicted_spread[axis])
        spread.append([title, *(format_number(value, 1) for value in values)])
    correlations = (sizes.annotated_correlation, sizes.predicted_correlation)
    spread.append(
        ["correlation with the visible width", *(format_number(value, 2) for value in correlations)]
    )
    tables = [
        format_table("Median sizes in pixels", rows),
        format_table("Boxes against visible sizes", spread),
    ]
    return "\n\n".join(tables)


def _oracle_rows(errors: ErrorAttribution) -> list[list[str]]:
    rows = [["without", "AP50", "gain", "with all above, too"]]
    for row in errors.oracles:
        rows.append([row.title, *map(format_number, (row.alone, row.alone - errors.ap50, row.together))])
    for title, ap50 in (
        ("sizes: one factor for each video", errors.ap50_resized),
        ("sizes: one map, fitted on other videos", errors.ap50_mapped),
    ):
        rows.append([title, *map(format_number, (ap50, ap50 - errors.ap50)), "-"])
    return rows


def _count_rows(counts: ErrorCounts) -> list[list[str]]:
    return [
        ["targets", str(counts.targets)],
        ["hit", str(counts.hits)],
        ["not hit, but a detection is near", str(counts.badly_boxed)],
        ["missed", str(counts.missed)],
        ["duplicates of hits", str(counts.duplicates)],
        ["false alarms far from all targets", str(counts.far)],
        ["false alarms in frames without targets", str(counts.in_empty_frames)],
    ]


def _video_rows(errors: ErrorAttribution) -> list[list[str]]:
    head = ["video", "targets", "AP50", "one factor", "centre AP", "width", "height"]
    rows = [[*head, "badly boxed", "missed", "false alarms"]]
    for video in errors.videos:
        counts = video.counts
        values = (video.ap50, video.ap50_resized, video.centre_ap, video.width_ratio, video.height_ratio)
        wrong = (counts.badly_boxed, counts.missed, counts.far + counts.in_empty_frames)
        rows.append([video.name, str(counts.targets), *map(format_number, values), *map(str, wrong)])
    return rows


def plot_errors(errors: ErrorAttribution, path: Path) -> Path:
    """Writes AP50 without each kind of error, and AP50 over box size by video, as PNG; returns the path.

    Raises OutputError if the file cannot be written.
    """
    from matplotlib.figure import Figure  # without pyplot: no window and no global state

    figure = Figure(figsize=(10, 4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_oracles(left, errors)
    _draw_videos(right, errors)
    figure.legend(frameon=False, fontsize=9, loc="outside lower right", ncols=2)
    for axes in (left, right):
        style_axes(axes)
    return save_figure(figure, path)


def _draw_oracles(axes: Axes, errors: ErrorAttribution) -> None:
    """Draws bars from AP50 to AP50 without each kind of error."""
    rows = [
        ("one size factor for each video", errors.ap50_resized),
        ("one size map, fitted on other videos", errors.ap50_mapped),
    ]
    rows += [(row.title, row.alone) for row in errors.oracles]
    names, values = zip(*reversed(rows), strict=True)
    axes.barh(names, [value - errors.ap50 for value in values], left=errors.ap50, color=COLOURS[0])
    axes.axvline(errors.ap50, color="black", linewidth=0.8)
    for position, value in enumerate(values):
        axes.text(value, position, f" {value:.3f}", va="center", fontsize=9)
    axes.set_xlim(min(errors.ap50 - 0.02, 0.97), max(*values, errors.ap50) + 0.03)
    axes.set(xlabel="AP50", title="AP50 without one kind of error")


def _draw_videos(axes: Axes, errors: ErrorAttribution) -> None:
    """Draws AP50 over relative box size for each video, before and after the size is corrected."""
    for video in errors.videos:
        before, after, width, height = video.ap50, video.ap50_resized, video.width_ratio, video.height_ratio
        if before is None or after is None or width is None or height is None:
            continue
        side = (width * height) ** 0.5
        axes.plot([side, side], [before, after], color="#bbbbbb", linewidth=1)
        axes.plot(side, before, "o", color=COLOURS[0], markersize=4)
        axes.plot(side, after, "^", color=COLOURS[1], markersize=4)
    axes.plot([], [], "o", color=COLOURS[0], label="as detected")
    axes.plot([], [], "^", color=COLOURS[1], label="with one factor for the video")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(xlabel="predicted / annotated side, video median", ylabel="AP50", ylim=(0, 1.03))
    axes.set_title("Size and AP50 by video")
