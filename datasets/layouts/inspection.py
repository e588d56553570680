"""Inspection of one split of a dataset: its statistics, and what is wrong with it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.layouts.file_names import image_size
from datasets.layouts.findings import UNREADABLE
from datasets.layouts.registry import Dataset
from pipeline.imaging.image_files import read_image
from pipeline.sources.opening import open_source
from pipeline.sources.source import Source
from pipeline.structures.annotations import VideoRecord
from pipeline.structures.boxes import to_xywh
from pipeline.system.errors import SourceError

FRAME_COUNTS = "frame counts that differ from the annotations"
SIZES = "images of another size than annotated"
MASK_SIZES = "masks that do not fit the image"
OUTSIDE = "boxes outside the image"
NO_SIZE = "boxes of no size"
DUPLICATES = "duplicate boxes"
EQUAL = "images of equal content"
OUTSIDE_TOLERANCE = 1e-3
"""Pixels that a box may reach beyond the image, because of rounding."""
PERCENTILES = (1, 25, 50, 75, 99)
MAX_SIZES = 4
"""Sizes of images that are listed."""


@dataclass(frozen=True)
class InspectionReport:
    """Result of `inspect_dataset`."""

    statistics: dict[str, str]
    """Name of a quantity → its value as text."""
    findings: dict[str, list[str]]
    """Kind of finding → the places, in order; empty if nothing is wrong."""


class _Inspection:
    """Findings, and statistics that only reading the frames can give."""

    def __init__(self, dataset: Dataset):
        self.root = dataset.root
        self.findings: dict[str, list[str]] = defaultdict(list)
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.repeated = 0
        self.digests: dict[bytes, str] = {}
        for kind, where in dataset.findings:
            self.add(kind, where)

    def add(self, kind: str, where: str) -> None:
        self.findings[kind].append(where)


def inspect_dataset(
    dataset: Dataset, *, quick: bool, advance: Callable[[], None] = lambda: None
) -> InspectionReport:
    """Inspects a split that was loaded with `strict=False`.

    Every frame is decoded once; with `quick`, only the headers of files are read. `advance` is called for
    each frame.
    """
    inspection = _Inspection(dataset)
    for record in dataset.records:
        _check_boxes(inspection, record)
        if record.file_name:
            _check_video(inspection, record, quick=quick, advance=advance)
        else:
            _check_images(inspection, record, quick=quick, advance=advance)
    statistics = _annotation_statistics(dataset) | {"image sizes": _format_sizes(inspection.sizes)}
    if not quick and any(len(record) > 1 for record in dataset.records):
        statistics["frames equal to the one before"] = str(inspection.repeated)
    return InspectionReport(statistics, dict(inspection.findings))


def _check_boxes(inspection: _Inspection, record: VideoRecord) -> None:
    limit = np.array([record.width, record.height, record.width, record.height]) + OUTSIDE_TOLERANCE
    for frame, (boxes, labels) in enumerate(zip(record.boxes, record.labels, strict=True)):
        if not len(boxes):
            continue
        place = f"{record.name} frame {frame}"
        outside = (boxes < -OUTSIDE_TOLERANCE).any(axis=1)
        if record.width:
            outside |= (boxes > limit).any(axis=1)
        empty = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
        for kind, wrong in ((OUTSIDE, outside), (NO_SIZE, empty)):
            for box in boxes[wrong]:
                inspection.add(kind, f"{place}: {_format_box(box)}")
        if len(boxes) > 1:
            rows, counts = np.unique(np.column_stack([boxes, labels]), axis=0, return_counts=True)
            for row, count in zip(rows[counts > 1], counts[counts > 1], strict=True):
                inspection.add(DUPLICATES, f"{place}: {_format_box(row[:4])} {count} times")


def _check_video(
    inspection: _Inspection, record: VideoRecord, *, quick: bool, advance: Callable[[], None]
) -> None:
    """Compares the number of frames of a video, with `quick` the number that its header claims."""
    count: int | None = 0
    try:
        with open_source(inspection.root / record.file_name) as source:
            _check_size(inspection, record, record.file_name, (source.info.width, source.info.height))
            if quick:
                count = source.info.frame_count
                for _ in range(len(record)):
                    advance()
            else:
                count = _decode_video(inspection, source, advance=advance)
                if source.corrupt:
                    inspection.add(UNREADABLE, f"{record.file_name}: {source.corrupt} damaged frames")
    except SourceError as error:
        inspection.add(UNREADABLE, str(error))
        return
    if count is not None and count != len(record):
        inspection.add(FRAME_COUNTS, f"{record.file_name}: {count} frames, {len(record)} annotated")


def _decode_video(inspection: _Inspection, source: Source, *, advance: Callable[[], None]) -> int:
    """Decodes a video, counts frames equal to the one before, and returns the number of frames."""
    count, last = 0, None
    for frame in source:
        count += 1
        inspection.repeated += last is not None and np.array_equal(last, frame.image)
        last = frame.image
        advance()
    return count


def _check_images(
    inspection: _Inspection, record: VideoRecord, *, quick: bool, advance: Callable[[], None]
) -> None:
    last = None
    for frame, path in enumerate(record.files or [""] * len(record)):
        advance()
        try:
            if not path:
                raise SourceError(f"{record.name} frame {frame}: the annotations name no file")
            if quick:
                size = image_size(inspection.root / path)
            else:
                image = read_image(inspection.root / path)
                inspection.repeated += last is not None and np.array_equal(last, image)
                last, size = image, image.shape[1::-1]
                if len(record) == 1:
                    _check_content(inspection, path, image)
            mask = record.masks[frame] if record.masks else None
            _check_size(inspection, record, path, size, mask=mask)
        except SourceError as error:
            inspection.add(UNREADABLE, str(error))


def _check_content(inspection: _Inspection, path: str, image: np.ndarray) -> None:
    """Finds duplicates of single images; not used for sequences, since a scene may be still."""
    digest = hashlib.blake2b(repr(image.shape).encode() + image.tobytes(), digest_size=16).digest()
    first = inspection.digests.setdefault(digest, path)
    if first != path:
        inspection.add(EQUAL, f"{path} and {first}")


def _check_size(
    inspection: _Inspection, record: VideoRecord, path: str, size: tuple[int, int], mask: str | None = None
) -> None:
    """Compares the size of an image or video with the record's, which is that of the mask if there is one."""
    inspection.sizes[size] += 1
    if size != (record.width, record.height) and record.width:
        kind, other = (MASK_SIZES, mask) if mask else (SIZES, "annotated")
        where = f"{path} is {size[0]}x{size[1]}, {other} {record.width}x{record.height}"
        inspection.add(kind, where)


def _annotation_statistics(dataset: Dataset) -> dict[str, str]:
    """Returns what can be counted in the annotations alone, as text."""
    records, frames = dataset.records, dataset.frame_count
    annotated = [(record, frame) for record in records for frame in record.image_ids]
    empty = sum(not len(record.boxes[frame]) for record, frame in annotated)
    boxes = np.concatenate([rows for record in records for rows in record.boxes] or [np.zeros((0, 4))])
    shortest, longest = (f([len(record) for record in records] or [0]) for f in (min, max))
    lengths = f"{shortest} to {longest}" if longest > shortest else f"{shortest}"
    statistics = {
        "sequences": f"{len(records)} of {lengths} frames",
        "frames": f"{frames}" + (f", {len(annotated)} annotated" if len(annotated) < frames else ""),
        "boxes": str(len(boxes)),
        "frames without target": f"{empty} ({empty / max(len(annotated), 1):.1%})",
    }
    if len(boxes):
        sides = to_xywh(boxes)[:, 2:]
        for name, values in (("width", sides[:, 0]), ("height", sides[:, 1])):
            text = " / ".join(f"{value:.4g}" for value in np.percentile(values, PERCENTILES))
            statistics[f"box {name}, px"] = f"{text}  (percentiles {', '.join(map(str, PERCENTILES))})"
    return statistics


def _format_sizes(sizes: Counter[tuple[int, int]]) -> str:
    """Lists the most frequent sizes first."""
    parts = [f"{width}x{height} ({count})" for (width, height), count in sizes.most_common(MAX_SIZES)]
    if len(sizes) > MAX_SIZES:
        parts.append(f"{len(sizes) - MAX_SIZES} others")
    return ", ".join(parts) or "none read"


def _format_box(box: np.ndarray) -> str:
    return "[" + ", ".join(f"{side:g}" for side in box.tolist()) + "]"


def shared_files(datasets: Iterable[Dataset]) -> list[str]:
    """Returns the videos and images that lie in two splits of which one is meant to test the other.

    The split trainval contains train and val by definition, so files shared with those are not listed.
    """
    found: list[str] = []
    splits_of: dict[str, list[str]] = {}
    for dataset in datasets:
        paths = (path for r in dataset.records for path in (r.files or (r.file_name,)) if path)
        for path in paths:
            splits = splits_of.setdefault(path, [])
            for split in splits:
                if {split, dataset.split} not in ({"trainval", "train"}, {"trainval", "val"}):
                    found.append(f"{Path(path).as_posix()} in {split} and {dataset.split}")
            splits.append(dataset.split)
    return found
