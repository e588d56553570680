"""MOT-challenge folders: `SEQUENCE/gt/gt.txt`, `SEQUENCE/img1` with images, and `SEQUENCE/seqinfo.ini`.

`datasets.layouts.mot_rows` describes the rows of gt.txt. Their frames count from 1, and so do pixels: a box
at the left edge of the image has left 1. In memory both count from 0, and right and bottom are exclusive:
x1 = left − 1, x2 = left − 1 + width. Decimals are kept. Rows that do not count (0) are left out. Classes
count from 1, or from 0 if there is a class 0; their names are the lines of gt/labels.txt if that file exists.
A sequence whose frames are in a video names it in seqinfo.ini as `video`, relative to the sequence's folder
and below the root; other programs ignore that key.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.layouts.file_names import image_size, link_relative, relative_posix, sequence_file_names
from datasets.layouts.findings import Annotations, FindingLog
from datasets.layouts.mot_rows import MAX_CLASSES, NO_CLASS, GroundTruth, GroundTruthRow, read_rows
from pipeline.imaging.image_files import IMAGE_SUFFIXES, natural_order
from pipeline.structures.annotations import VideoRecord, require_frame_count
from pipeline.structures.boxes import from_xywh, to_xywh
from pipeline.structures.frame_paths import frame_number, paths_of_all_frames, require_inside_root
from pipeline.system.errors import SourceError, UsageError, reason_of
from pipeline.system.files import read_text

AFTER_LAST_FRAME = "boxes after the last frame"
DEFAULT_FPS = 30


def read_mot(root: Path, place: str, classes: tuple[str, ...], findings: FindingLog) -> Annotations:
    """Reads the sequence at `place` below the root, or all sequences in that folder; image ids count from 1.

    Raises UsageError if ground truth is missing or is not in MOT format, SourceError if images are missing.
    """
    read = [(folder, read_rows(folder / "gt" / "gt.txt")) for folder in _sequence_folders(root / place)]
    names: tuple[str, ...] = ()
    for folder, _ in read:
        names = _class_names(folder, names)
    categories = {row.category for _, truth in read for row in truth.rows} - {NO_CLASS}
    first = 0 if 0 in categories else 1
    highest = max(categories, default=first)
    if highest > MAX_CLASSES:
        raise UsageError(f"{root / place}: class {highest} is used; up to {MAX_CLASSES} classes are read")
    count = highest - first + 1
    if not names:
        names = classes if count <= len(classes) else tuple(f"class {n}" for n in range(first, highest + 1))
    if count > len(names):
        raise UsageError(f"{root / place}: class {highest} is used, gt/labels.txt names {len(names)}")
    records, image_count = [], 0
    for folder, truth in read:
        record = _record(folder, root, truth.rows, findings, first_class=first, first_id=image_count + 1)
        records.append(record)
        image_count += len(record)
    return Annotations(records, names, notes=_notes([truth for _, truth in read], names))


def _notes(read: list[GroundTruth], names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns what a user should know of how the files were read, one line each."""
    unknown = [row.category == NO_CLASS for truth in read for row in truth.rows]
    counts = {
        "boxes that are marked as not to be counted are left out": sum(truth.not_counted for truth in read),
        "boxes of class 0, regions to ignore, are left out": sum(truth.ignored for truth in read),
        f"boxes have no class: they are read as {names[0]}": 0 if all(unknown) else sum(unknown),
        "sequences count frames from 0": sum(truth.from_zero for truth in read),
    }
    return tuple(f"{count} {text}" for text, count in counts.items() if count)


def _sequence_folders(folder: Path) -> list[Path]:
    if (folder / "gt").is_dir() or (folder / "seqinfo.ini").is_file():
        return [folder]
    inner = (path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ()
    found = [path for path in inner if any((path / name).exists() for name in ("gt", "img1", "seqinfo.ini"))]
    if not found:
        raise UsageError(f"{folder} holds no MOT sequences; {folder / 'SEQUENCE/gt/gt.txt'} is expected")
    return sorted(found, key=natural_order)


def _class_names(folder: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the lines of a sequence's labels.txt, or the `names` known so far if it has none.

    Raises UsageError if both are known and differ.
    """
    path = folder / "gt" / "labels.txt"
    if not path.is_file():
        return names
    found = tuple(line.strip() for line in read_text(path, kind="class names").splitlines() if line.strip())
    if names and found != names:
        raise UsageError(f"{path} names {', '.join(found)}; the sequences before have {', '.join(names)}")
    return found


def _record(
    folder: Path,
    root: Path,
    rows: list[GroundTruthRow],
    findings: FindingLog,
    *,
    first_class: int,
    first_id: int,
) -> VideoRecord:
    info = _seqinfo(folder / "seqinfo.ini")
    images = {} if "video" in info else _images(_below(folder, info.get("imdir", "img1"), root), root)
    annotated = max((row.frame for row in rows), default=-1) + 1
    length = int(_number(info, "seqlength", folder)) or max([annotated, *(number + 1 for number in images)])
    require_frame_count(length, str(folder))
    frames: list[list[GroundTruthRow]] = [[] for _ in range(length)]
    for row in rows:
        if row.frame < length:
            frames[row.frame].append(row)
        else:
            findings.add(AFTER_LAST_FRAME, f"{folder.name} frame {row.frame}, after {length} frames")
    width, height = (int(_number(info, key, folder)) for key in ("imwidth", "imheight"))
    if not (width and height):
        width, height = _first_size(folder, root, images, findings)
    boxes = (np.array([row.box for row in part], dtype=float).reshape(-1, 4) for part in frames)
    return VideoRecord(
        name=info.get("name") or folder.resolve().name,
        file_name=relative_posix(_below(folder, info["video"], root), root) if "video" in info else "",
        width=width,
        height=height,
        image_ids={frame: first_id + frame for frame in range(length)},
        boxes=tuple(from_xywh(part).astype(np.float32) for part in boxes),
        labels=tuple(
            np.array([max(row.category - first_class, 0) for row in part], dtype=np.int64) for part in frames
        ),
        files=paths_of_all_frames(images, length) if "video" not in info else (),
        instances=tuple(np.array([row.instance for row in part], dtype=np.int64) for part in frames),
        fps=_number(info, "framerate", folder),
    )


def _below(folder: Path, path: str, root: Path) -> Path:
    """Returns a path that seqinfo.ini in `folder` names. Raises UsageError if it is not below the root."""
    try:
        require_inside_root(relative_posix(folder / path, root))
    except UsageError as error:
        raise UsageError(f"{folder / 'seqinfo.ini'}: {error}") from error
    return folder / path


def _seqinfo(path: Path) -> dict[str, str]:
    """Returns the entries of seqinfo.ini with lower-case keys; none if the file is missing."""
    if not path.is_file():
        return {}
    reader = configparser.ConfigParser(interpolation=None)
    try:
        reader.read_string(read_text(path, kind="sequence properties"))
        return dict(reader["Sequence"])
    except (configparser.Error, KeyError) as error:
        raise UsageError(f"{path} is no seqinfo.ini: {reason_of(error)}") from error


def _number(info: dict[str, str], key: str, folder: Path) -> float:
    """Returns a number of seqinfo.ini, 0 if it is not given. Raises UsageError for invalid ones."""
    try:
        value = float(info.get(key, 0))
    except ValueError:
        value = -1
    if not 0 <= value < 1e9:
        raise UsageError(f"{folder / 'seqinfo.ini'}: {key} is '{info[key]}', expected a number from 0")
    return value


def _images(folder: Path, root: Path) -> dict[int, str]:
    """Maps frames, from 0, to the paths of their images.

    Frames are the numbers in the file names, which count from 1, or from 0 if there is a 0; if those are not
    unique, the natural order of the names.
    """
    if not os.path.isdir(folder):  # also False for a name that is too long for a folder
        raise SourceError(f"{folder} is missing; the images of the sequence are expected there")
    names = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    paths = [relative_posix(path, root) for path in sorted(names, key=natural_order)]
    if not paths:
        raise SourceError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    numbers = [number for path in paths if (number := frame_number(path)) is not None]
    if len(set(numbers)) < len(paths):
        return dict(enumerate(paths))
    first = min(min(numbers), 1)
    return {number - first: path for number, path in zip(numbers, paths, strict=True)}


def _first_size(folder: Path, root: Path, images: dict[int, str], findings: FindingLog) -> tuple[int, int]:
    """Returns the width and height of the first image; 0, 0 if it is unreadable and reading is not strict."""
    if not images:
        raise UsageError(f"{folder / 'seqinfo.ini'} gives no imWidth and imHeight")
    try:
        return image_size(root / images[min(images)])
    except SourceError:
        if findings.strict:
            raise
        return 0, 0


def write_mot(
    records: Sequence[VideoRecord], classes: tuple[str, ...], root: Path, folder: Path
) -> list[str]:
    """Writes one folder per record below `folder`, with links to images and videos below the root.

    Boxes without identity get unique numbers. Returns what the format cannot hold, one line each. Raises
    OutputError if a link and OSError if a file cannot be made, and UsageError if two sequences would have
    the same name.
    """
    unknown, not_annotated, no_rate = 0, 0, 0
    for record, name in zip(records, sequence_file_names(record.name for record in records), strict=True):
        sequence = folder / name
        (sequence / "gt").mkdir(parents=True)
        (sequence / "gt" / "labels.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
        lines, without = _gt_lines(record)
        (sequence / "gt" / "gt.txt").write_text("".join(lines), encoding="utf-8")
        (sequence / "seqinfo.ini").write_text(_seqinfo_text(record), encoding="utf-8")
        _link_images(record, root, sequence / "img1")
        if record.file_name:
            link_relative(root / record.file_name, sequence / _video_name(record))
        unknown += without
        not_annotated += len(record) - len(record.image_ids)
        no_rate += not record.fps
    losses = [
        (unknown, "boxes have no identity: each got a unique number"),
        (not_annotated, "frames without annotation count as without targets"),
        (no_rate, f"sequences have no frame rate: {DEFAULT_FPS} is written"),
    ]
    return [f"{count} {loss}" for count, loss in losses if count]


def _gt_lines(record: VideoRecord) -> tuple[list[str], int]:
    """Returns the rows of gt.txt, and the number of boxes without identity."""
    known = {int(number) for row in record.instances for number in row if number >= 0}
    shift = int(0 in known)  # identities in MOT files are positive
    fresh, unknown, lines = max(known, default=0) + shift, 0, []
    for frame, boxes in enumerate(record.boxes):
        ids = record.instances[frame].tolist() if record.instances else [-1] * len(boxes)
        rows = to_xywh(boxes.astype(float)).tolist()
        for (left, top, width, height), label, instance in zip(rows, record.labels[frame], ids, strict=True):
            if instance < 0:
                unknown += 1
                fresh += 1
            number = fresh if instance < 0 else instance + shift
            box = ",".join(map(_decimal, (left + 1, top + 1, width, height)))
            lines.append(f"{frame + 1},{number},{box},1,{label + 1},1\n")
    return lines, unknown


def _decimal(value: float) -> str:
    """Formats a number with up to six decimals, whole numbers without any."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _video_name(record: VideoRecord) -> str:
    """Returns the name of a sequence's video in its folder."""
    return f"video{Path(record.file_name).suffix}"


def _seqinfo_text(record: VideoRecord) -> str:
    entries = {
        "name": record.name,
        "imDir": "img1",
        "frameRate": _decimal(record.fps or DEFAULT_FPS),
        "seqLength": len(record),
        "imWidth": record.width,
        "imHeight": record.height,
        "imExt": Path(record.files[0]).suffix if record.files else "",
        "video": _video_name(record) if record.file_name else "",
    }
    return "[Sequence]\n" + "".join(f"{key}={value}\n" for key, value in entries.items() if value != "")


def _link_images(record: VideoRecord, root: Path, folder: Path) -> None:
    """Creates links numbered from 1; frames whose image is unknown get none."""
    if record.files:
        folder.mkdir()
    for number, path in enumerate(record.files, start=1):
        if path:
            link_relative(root / path, folder / f"{number:06d}{Path(path).suffix}")
