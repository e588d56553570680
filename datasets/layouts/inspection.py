"""What is found in one split of a dataset: its figures, and what is wrong with it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.layouts.file_names import picture_size
from datasets.layouts.findings import UNREADABLE
from datasets.layouts.registry import Dataset
from pipeline.imaging.image_files import read_image
from pipeline.sources.opening import open_source
from pipeline.structures.annotations import VideoRecord
from pipeline.structures.boxes import to_xywh
from pipeline.system.errors import SourceError

COUNTS = "frame counts that differ from the annotations"
SIZES = "pictures of another size than annotated"
MASK_SIZES = "masks that do not fit the picture"
OUTSIDE = "boxes outside the picture"
NO_SIZE = "boxes of no size"
DUPLICATES = "duplicate boxes"
EQUAL = "pictures of equal content"
SLACK = 1e-3
"""Pixels that a box may lie outside, for rounding."""
PERCENTILES = (1, 25, 50, 75, 99)


@dataclass(frozen=True)
class Report:
    """What `inspect` found."""

    figures: dict[str, str]
    """What is counted → the figure, for people."""
    findings: dict[str, list[str]]
    """Kind of finding → the offenders, in order; empty when all is well."""


class _Inspection:
    """Findings, and figures that only reading the frames can give."""

    def __init__(self, dataset: Dataset):
        self.root = dataset.root
        self.findings: dict[str, list[str]] = defaultdict(list)
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.repeated = 0
        self.contents: dict[bytes, str] = {}
        for kind, where in dataset.faults:
            self.add(kind, where)

    def add(self, kind: str, where: str) -> None:
        self.findings[kind].append(where)


def inspect(dataset: Dataset, *, quick: bool, advance: Callable[[], None] = lambda: None) -> Report:
    """Verify a split that was loaded with `strict=False`.

    Every frame is decoded, once; `quick` reads no more than the heads of files. `advance` is called for each
    frame.
    """
    inspection = _Inspection(dataset)
    for record in dataset.records:
        _boxes(inspection, record)
        if record.file_name:
            _video(inspection, record, quick=quick, advance=advance)
        else:
            _pictures(inspection, record, quick=quick, advance=advance)
    figures = _figures(dataset.records) | {"picture sizes": _told(inspection.sizes)}
    if not quick and any(len(record) > 1 for record in dataset.records):
        figures["frames equal to the one before"] = str(inspection.repeated)
    return Report(figures, dict(inspection.findings))


def _boxes(inspection: _Inspection, record: VideoRecord) -> None:
    limit = np.array([record.width, record.height, record.width, record.height]) + SLACK
    for frame, (boxes, labels) in enumerate(zip(record.boxes, record.labels, strict=True)):
        if not len(boxes):
            continue
        place = f"{record.name} frame {frame}"
        outside = (boxes < -SLACK).any(axis=1) | ((boxes > limit).any(axis=1) if record.width else False)
        empty = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
        for kind, wrong in ((OUTSIDE, outside), (NO_SIZE, empty)):
            for box in boxes[wrong]:
                inspection.add(kind, f"{place}: {_told_box(box)}")
        if len(boxes) > 1:
            rows, counts = np.unique(np.column_stack([boxes, labels]), axis=0, return_counts=True)
            for row, count in zip(rows[counts > 1], counts[counts > 1], strict=True):
                inspection.add(DUPLICATES, f"{place}: {_told_box(row[:4])} {count} times")


def _video(inspection: _Inspection, record: VideoRecord, *, quick: bool, advance: Callable[[], None]) -> None:
    """Count the frames of a video, or quickly those that it announces."""
    count, last = 0, None
    try:
        with open_source(inspection.root / record.file_name) as source:
            _size(inspection, record, record.file_name, (source.info.width, source.info.height))
            if quick:
                count = source.info.frame_count
                for _ in range(len(record)):
                    advance()
            else:
                for frame in source:
                    count += 1
                    inspection.repeated += last is not None and np.array_equal(last, frame.image)
                    last = frame.image
                    advance()
                if source.corrupt:
                    inspection.add(UNREADABLE, f"{record.file_name}: {source.corrupt} damaged frames")
    except SourceError as error:
        inspection.add(UNREADABLE, str(error))
        return
    if count is not None and count != len(record):
        inspection.add(COUNTS, f"{record.file_name}: {count} frames, {len(record)} annotated")


def _pictures(
    inspection: _Inspection, record: VideoRecord, *, quick: bool, advance: Callable[[], None]
) -> None:
    last = None
    for frame, path in enumerate(record.files or [""] * len(record)):
        advance()
        try:
            if not path:
                raise SourceError(f"{record.name} frame {frame}: the annotations name no file")
            if quick:
                size = picture_size(inspection.root / path)
            else:
                image = read_image(inspection.root / path)
                inspection.repeated += last is not None and np.array_equal(last, image)
                last, size = image, image.shape[1::-1]
                if len(record) == 1:
                    _content(inspection, path, image)
            _size(inspection, record, path, size, mask=record.masks[frame] if record.masks else None)
        except SourceError as error:
            inspection.add(UNREADABLE, str(error))


def _content(inspection: _Inspection, path: str, image: np.ndarray) -> None:
    """Find single pictures that are there twice; in sequences a scene may stand still."""
    digest = hashlib.blake2b(repr(image.shape).encode() + image.tobytes(), digest_size=16).digest()
    first = inspection.contents.setdefault(digest, path)
    if first != path:
        inspection.add(EQUAL, f"{path} and {first}")


def _size(
    inspection: _Inspection, record: VideoRecord, path: str, size: tuple[int, int], mask: str | None = None
) -> None:
    """Compare the size of a picture or video with the record's, which is that of its mask if it has one."""
    inspection.sizes[size] += 1
    if size != (record.width, record.height) and record.width:
        kind, other = (MASK_SIZES, mask) if mask else (SIZES, "annotated")
        told = f"{path} is {size[0]}x{size[1]}, {other} {record.width}x{record.height}"
        inspection.add(kind, told)


def _figures(records: Iterable[VideoRecord]) -> dict[str, str]:
    """What is counted in the annotations alone."""
    records = list(records)
    annotated = [(record, frame) for record in records for frame in record.image_ids]
    frames = sum(map(len, records))
    empty = sum(not len(record.boxes[frame]) for record, frame in annotated)
    boxes = np.concatenate([rows for record in records for rows in record.boxes] or [np.zeros((0, 4))])
    least, most = (f([len(record) for record in records] or [0]) for f in (min, max))
    figures = {
        "sequences": f"{len(records)} of {least}" + (f" to {most}" if most > least else "") + " frames",
        "frames": f"{frames}" + (f", {len(annotated)} annotated" if len(annotated) < frames else ""),
        "boxes": str(len(boxes)),
        "frames without target": f"{empty} ({empty / max(len(annotated), 1):.1%})",
    }
    if len(boxes):
        sides = to_xywh(boxes)[:, 2:]
        for name, values in (("width", sides[:, 0]), ("height", sides[:, 1])):
            told = " / ".join(f"{value:.4g}" for value in np.percentile(values, PERCENTILES))
            figures[f"box {name}, px"] = f"{told}  (percentiles {', '.join(map(str, PERCENTILES))})"
    return figures


def _told(sizes: Counter[tuple[int, int]]) -> str:
    """The most frequent sizes first."""
    told = [f"{width}x{height} ({count})" for (width, height), count in sizes.most_common(4)]
    more = [f"{len(sizes) - 4} others"] if len(sizes) > 4 else []
    return ", ".join(told + more) or "none read"


def _told_box(box: np.ndarray) -> str:
    return "[" + ", ".join(f"{side:g}" for side in box.tolist()) + "]"


def shared_files(datasets: Iterable[Dataset]) -> list[str]:
    """Videos and pictures that lie in two splits of which one is to judge the other; trainval holds both
    train and val by its name.
    """
    found, seen = [], {}
    for dataset in datasets:
        paths = (path for r in dataset.records for path in (r.files or (r.file_name,)) if path)
        for path in paths:
            for split in seen.get(path, ()):
                if {split, dataset.split} not in ({"trainval", "train"}, {"trainval", "val"}):
                    found.append(f"{Path(path).as_posix()} in {split} and {dataset.split}")
            seen.setdefault(path, []).append(dataset.split)
    return found
