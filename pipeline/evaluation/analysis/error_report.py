"""pipeline.evaluation.analysis.error_report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.evaluation.analysis.box_sizes import BoxSizes, extents_of
from pipeline.evaluation.analysis.error_attribution import ErrorAttribution, ErrorCounts
from pipeline.evaluation.detection.evaluator import Evaluator
from pipeline.evaluation.detection.tables import section, shown
from pipeline.structures.annotations import video_records

PLOT = "limits.png"


def tables(limits: ErrorAttribution) -> str:
    """All numbers, one table below the other; a dash stands for what is undefined."""
    removals = [["without", "AP50", "gain", "with all above, too"]]
    for row in limits.removals:
        removals.append([row.title, *map(shown, (row.alone, row.alone - limits.ap50, row.together))])
    factor = limits.ap50_resized
    removals.append(["sizes: one factor for each video", *map(shown, (factor, factor - limits.ap50)), "-"])
    mapped = limits.ap50_mapped
    removals.append(
        ["sizes: one map, fitted on other videos", *map(shown, (mapped, mapped - limits.ap50)), "-"]
    )
    spread = [["found width over the label's", "10 %", "50 %", "90 %"]]
    spread.append(["all", *map(shown, limits.width_ratios)])
    spread.append(["over the median of the video", *map(shown, limits.width_ratios_in_video)])
    parts = [
        f"AP50 {limits.ap50:.3f}, with centres within 5 pixels {limits.centre_ap:.3f}",
        section("AP50 without one kind of error", removals),
        section(f"Errors at score {limits.threshold:g}", _count_rows(limits.counts)),
    ]
    if limits.width_ratios and limits.width_ratios_in_video:
        parts.append(section("Sizes, where centres are within 5 pixels", spread))
    if limits.videos:
        parts.append(section(f"By video, at score {limits.threshold:g}", _video_rows(limits)))
    return "\n\n".join(parts)


def extents(table: dict, root: Path, evaluator: Evaluator, threshold: float) -> BoxSizes:
    """Sizes in the frames that an evaluator was given, of a COCO-video dictionary and its files below `root`.

    Raises UsageError, SourceError for files that cannot be read.
    """
    from datasets.sequences.clips import read_sequence

    results = evaluator.results()
    places = {name: np.flatnonzero(inside) for name, inside in evaluator.videos()}

    def videos() -> Iterator[tuple]:
        for record in video_records(table):
            # an evaluator has the frames of a video in the order of their ids
            numbers = sorted(record.image_ids, key=record.image_ids.get)
            numbers = [number for number in numbers if record.image_ids[number] in chosen]
            if numbers:
                sequence = read_sequence(record, root)
                own = (results[place] for place in places[record.name])
                yield record.name, dict(zip(numbers, own, strict=True)), sequence.frames.__getitem__

    chosen = set(evaluator.image_ids())
    return extents_of(videos(), threshold)


def extent_tables(found: BoxSizes) -> str:
    """Sizes by video, and how far they follow what stands out."""
    rows = [["video", "frames", "stands out", "label", "found"]]
    for video in found.videos:
        sizes = (f"{width:.1f} x {height:.1f}" for width, height in (video.visible, video.label, video.found))
        rows.append([video.name, str(video.frames), *sizes])
    follow = [["over the videos", "labels", "found boxes"]]
    for title, place in (("deviation of the width left free, pixels", 0), ("of the height", 1)):
        follow.append([title, shown(found.label_spread[place], 1), shown(found.found_spread[place], 1)])
    follow.append(["correlation of width with what stands out"])
    follow[-1] += [shown(found.label_correlation, 2), shown(found.found_correlation, 2)]
    return "\n\n".join([section("Sizes in pixels, medians", rows), section("Whose sizes follow", follow)])


def _count_rows(counts: ErrorCounts) -> list[list[str]]:
    return [
        ["targets", str(counts.targets)],
        ["hit", str(counts.hits)],
        ["not hit, but a centre is near", str(counts.badly_boxed)],
        ["nothing near", str(counts.missed)],
        ["second boxes on targets that are hit", str(counts.duplicates)],
        ["false alarms far from any label", str(counts.far)],
        ["false alarms in frames without labels", str(counts.on_empty)],
    ]


def _video_rows(limits: ErrorAttribution) -> list[list[str]]:
    head = ["video", "targets", "AP50", "one factor", "centre AP", "width", "height"]
    rows = [[*head, "badly boxed", "missed", "false alarms"]]
    for video in limits.videos:
        counts = video.counts
        values = (video.ap50, video.ap50_resized, video.centre_ap, video.width_ratio, video.height_ratio)
        wrong = (counts.badly_boxed, counts.missed, counts.far + counts.on_empty)
        rows.append([video.name, str(counts.targets), *map(shown, values), *map(str, wrong)])
    return rows


def plot(limits: ErrorAttribution, path: Path) -> Path:
    """What each kind of error costs, and size against AP50 of each video, as PNG. Raises OutputError."""
    from matplotlib.figure import Figure  # without pyplot there is no window and no state

    from pipeline.evaluation.detection.plots import COLOURS, plain, save

    figure = Figure(figsize=(10, 4), dpi=110, layout="constrained")
    bars, dots = figure.subplots(1, 2)
    rows = [
        ("one size factor for each video", limits.ap50_resized),
        ("one size map, fitted on other videos", limits.ap50_mapped),
    ]
    rows += [(row.title, row.alone) for row in limits.removals]
    names, values = zip(*reversed(rows), strict=True)
    bars.barh(names, [value - limits.ap50 for value in values], left=limits.ap50, color=COLOURS[0])
    bars.axvline(limits.ap50, color="black", linewidth=0.8)
    for place, value in enumerate(values):
        bars.text(value, place, f" {value:.3f}", va="center", fontsize=9)
    right = max(*values, limits.ap50) + 0.03
    bars.set(
        xlim=(min(limits.ap50 - 0.02, 0.97), right), xlabel="AP50", title="AP50 without one kind of error"
    )
    videos = [v for v in limits.videos if v.width_ratio is not None and v.ap50 is not None]
    for video in videos:
        area = (video.width_ratio * video.height_ratio) ** 0.5
        dots.plot([area, area], [video.ap50, video.ap50_resized], color="#bbbbbb", linewidth=1)
        dots.plot(area, video.ap50, "o", color=COLOURS[0], markersize=4)
        dots.plot(area, video.ap50_resized, "^", color=COLOURS[1], markersize=4)
    dots.plot([], [], "o", color=COLOURS[0], label="as found")
    dots.plot([], [], "^", color=COLOURS[1], label="with one factor for the video")
    dots.axvline(1, color="black", linewidth=0.8)
    dots.set(xlabel="found over annotated side, median of a video", ylabel="AP50", ylim=(0, 1.03))
    dots.set_title("Size and AP50 by video")
    figure.legend(frameon=False, fontsize=9, loc="outside lower right", ncols=2)
    for axes in (bars, dots):
        plain(axes)
    return save(figure, path)
