"""Sizes of annotated and predicted boxes compared with the visible size of the targets in the images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.evaluation.analysis.error_attribution import EvaluatedFrame, assign_targets
from pipeline.evaluation.detection.evaluator import Evaluator
from pipeline.sources.sequences import grey_images, record_location
from pipeline.structures.annotations import VideoRecord, video_records
from pipeline.system.errors import UsageError

BACKGROUND_MARGIN = 8
"""Pixels around an annotated box whose grey levels describe the background."""
MIN_CONTRAST = 0.25
"""Minimum contrast of a target's pixels relative to the highest contrast in its box."""
MIN_DEVIATIONS = 3
"""Minimum contrast of a target's pixels in standard deviations of the background."""
MIN_TARGETS = 3
"""Minimum number of targets for the medians of a video."""

_JSON_KEYS = {
    "annotated": "label",
    "predicted": "found",
    "annotated_spread": "label_spread",
    "predicted_spread": "found_spread",
    "annotated_correlation": "label_correlation",
    "predicted_correlation": "found_correlation",
}
"""Keys in the JSON that differ from the names of the fields, so that files of earlier versions compare."""


@dataclass(frozen=True)
class VideoBoxSizes:
    """Medians over the targets of one video that are visible and detected: (width, height) in pixels."""

    name: str
    frames: int
    """Number of targets."""
    visible: tuple[float, float]
    """Size of the pixels that contrast with the background."""
    annotated: tuple[float, float]
    """Size of the annotated box."""
    predicted: tuple[float, float]
    """Size of the predicted box."""


@dataclass(frozen=True)
class BoxSizeComparison:
    """Margins, box size minus visible size, and correlations over the videos."""

    videos: list[VideoBoxSizes]
    annotated_spread: tuple[float, float]
    """Standard deviation over the videos of the horizontal and vertical margin of annotated boxes, pixels."""
    predicted_spread: tuple[float, float]
    """Likewise of predicted boxes."""
    annotated_correlation: float | None
    """Correlation over the videos of log annotated and log visible width; None if one of them is constant."""
    predicted_correlation: float | None
    """Correlation of log predicted and log visible width."""

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self, dict_factory=lambda items: {_JSON_KEYS.get(k, k): value for k, value in items})


def measure_box_sizes(coco: dict, root: Path, evaluator: Evaluator, threshold: float) -> BoxSizeComparison:
    """Compares sizes in the frames added to an evaluator.

    Args:
        coco: COCO-video dictionary.
        root: folder of the videos or images that it names.
        evaluator: evaluator with the detections.
        threshold: minimum score of a detection.

    Raises:
        UsageError: images and annotations differ in number or size, or are neither 8- nor 16-bit grey.
        SourceError: a file cannot be read.
    """
    results, selected = evaluator.results(), set(evaluator.image_ids())
    indices = {name: np.flatnonzero(inside) for name, inside in evaluator.videos()}

    def videos() -> Iterator[tuple[str, Iterator[tuple[EvaluatedFrame, np.ndarray]]]]:
        for record in video_records(coco):
            # the results of a video are in the order of image ids
            numbers = sorted(record.image_ids, key=record.image_ids.__getitem__)
            numbers = [number for number in numbers if record.image_ids[number] in selected]
            if numbers:
                own = (results[index] for index in indices[record.name])
                yield record.name, _with_images(record, root, dict(zip(numbers, own, strict=True)))

    return compare_box_sizes(videos(), threshold)


def _with_images(
    record: VideoRecord, root: Path, frames: dict[int, EvaluatedFrame]
) -> Iterator[tuple[EvaluatedFrame, np.ndarray]]:
    """Yields evaluated frames, given by frame index, with their (H, W) images; reads the video to its end."""
    name, count = record.file_name or record.name, 0
    for index, image in enumerate(grey_images(record_location(record, root), name=name)):
        if image.shape != (record.height, record.width):
            size = f"{image.shape[1]}x{image.shape[0]}, annotated as {record.width}x{record.height}"
            raise UsageError(f"{name}: frame {index} is {size}")
        if index in frames:
            yield frames[index], image
        count += 1
    if count != len(record):
        raise UsageError(f"{name}: {count} frames were decoded, {len(record)} are annotated")


def compare_box_sizes(
    videos: Iterable[tuple[str, Iterable[tuple[EvaluatedFrame, np.ndarray]]]], threshold: float
) -> BoxSizeComparison:
    """Compares sizes in videos.

    Args:
        videos: name, and evaluated frames with their (H, W) grey images, of each video. threshold: minimum
        score of a detection. The best detection whose centre is at most 5 pixels from that of
            a target counts.
    """
    rows = []
    for name, frames in videos:
        sizes = [row for frame, image in frames for row in _target_sizes(frame, image, threshold)]
        if len(sizes) >= MIN_TARGETS:
            medians = np.median(sizes, axis=0).tolist()
            rows.append(VideoBoxSizes(name, len(sizes), *((width, height) for width, height in medians)))
    visible, annotated, predicted = (
        np.array([getattr(row, kind) for row in rows], dtype=float).reshape(-1, 2)
        for kind in ("visible", "annotated", "predicted")
    )
    return BoxSizeComparison(
        videos=rows,
        annotated_spread=_spread(annotated - visible),
        predicted_spread=_spread(predicted - visible),
        annotated_correlation=_correlation(annotated[:, 0], visible[:, 0]),
        predicted_correlation=_correlation(predicted[:, 0], visible[:, 0]),
    )


def visible_size(image: np.ndarray, box: np.ndarray) -> tuple[int, int] | None:
    """Returns width and height in pixels of the target in an annotated box of a grey image (H, W).

    `box` is (4,) left, top, width, height in pixels. The contrast of a pixel is its absolute difference from
    the background, the median of the pixels around the box. The target consists of the 8-connected pixels
    around the one of highest contrast in the box whose contrast is at least `MIN_CONTRAST` of the highest and
    at least `MIN_DEVIATIONS` standard deviations of the background. None if no pixel qualifies.
    """
    height, width = image.shape
    left, top = np.floor(box[:2]).astype(int).clip(0, [width - 1, height - 1])
    right, bottom = np.ceil(box[:2] + box[2:]).astype(int).clip([left + 1, top + 1], [width, height])
    rows = slice(max(top - BACKGROUND_MARGIN, 0), bottom + BACKGROUND_MARGIN)
    columns = slice(max(left - BACKGROUND_MARGIN, 0), right + BACKGROUND_MARGIN)
    part = image[rows, columns].astype(np.float32)
    inside = np.zeros(part.shape, dtype=bool)
    inside[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = True
    if inside.all():
        return None
    contrast = np.abs(part - np.median(part[~inside]))
    least = MIN_DEVIATIONS * part[~inside].std()
    peak = int(np.argmax(np.where(inside, contrast, -1)))
    if contrast.flat[peak] <= least:
        return None
    mask = contrast >= max(MIN_CONTRAST * contrast.flat[peak], least)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    target = stats[labels.flat[peak]]
    return int(target[cv2.CC_STAT_WIDTH]), int(target[cv2.CC_STAT_HEIGHT])


def _target_sizes(frame: EvaluatedFrame, image: np.ndarray, threshold: float) -> list[np.ndarray]:
    """Returns (3, 2) visible, annotated and predicted width and height of each target that has all three."""
    truth, predicted = frame
    target = np.where(predicted.scores >= threshold, assign_targets(truth, predicted), -1)
    rows = []
    for detection in np.flatnonzero(target >= 0):
        label = truth.boxes[target[detection]]
        visible = None if truth.crowds[target[detection]] else visible_size(image, label)
        if visible is not None:
            rows.append(np.array([visible, label[2:], predicted.boxes[detection, 2:]]))
    return rows


def _spread(values: np.ndarray) -> tuple[float, float]:
    """Returns the standard deviations of the columns of (V, 2) values; zeros without videos."""
    horizontal, vertical = values.std(axis=0).tolist() if len(values) else (0.0, 0.0)
    return horizontal, vertical


def _correlation(sizes: np.ndarray, visible: np.ndarray) -> float | None:
    """Returns the correlation of the logs of (V,) sizes; None if one of them is constant."""
    if len(sizes) < 2 or np.ptp(sizes) == 0 or np.ptp(visible) == 0:
        return None
    return float(np.corrcoef(np.log(sizes), np.log(visible))[0, 1])
