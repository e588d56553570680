"""MOT-challenge folders: `SEQUENCE/gt/gt.txt`, pictures in `SEQUENCE/img1`, facts in `SEQUENCE/seqinfo.ini`.

A row of gt.txt is `frame,id,left,top,width,height,counts,class,visibility`. Frames count from 1, and so do
pixels: a box at the picture's left edge has left 1. Here both count from 0, and right and bottom are
exclusive: x1 = left − 1, x2 = left − 1 + width. Decimals are kept. Rows that do not count (0) are left out.
Classes count from 1; their names are the lines of gt/labels.txt where there is one. A sequence whose frames
are in a video names it in seqinfo.ini as `video`, relative to the sequence's folder and below the root; other
programs pass over that key.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.layouts.file_names import flat_names, link, listed_path, picture_size
from datasets.layouts.findings import Annotations, Faults
from pipeline.imaging.image_files import IMAGE_SUFFIXES, natural_order
from pipeline.structures.annotations import VideoRecord, require_length
from pipeline.structures.boxes import from_xywh, to_xywh
from pipeline.structures.frame_paths import every_frame, frame_number, inside
from pipeline.system.errors import SourceError, UsageError
from pipeline.system.files import read_text

BEYOND = "boxes after the last frame"
MAX_EXACT_INTEGER = 2**53
"""Largest number of a row: up to there whole ones are exact."""
MAX_CLASSES = 10_000
"""Each used or not is given a name, and a single wrong number can claim any count."""
USUAL_RATE = 30


class _Row(NamedTuple):
    """A row of gt.txt that counts."""

    frame: int
    """From 0."""
    instance: int
    box: tuple[float, float, float, float]
    """Left, top, width, height in pixels from 0."""
    label: int
    """From 0."""


def read_sequences(root: Path, place: str, classes: tuple[str, ...], faults: Faults) -> Annotations:
    """The sequence at `place` below the root, or all sequences in that folder; image ids count from 1.

    Raises UsageError for ground truth that is missing or no MOT rows, SourceError for missing pictures.
    """
    records, ids, skipped, names = [], 0, 0, ()
    read = [(folder, *_read_rows(folder / "gt" / "gt.txt")) for folder in _sequence_folders(root / place)]
    for folder, rows, left_out in read:
        record = _record(folder, root, rows, faults, first_id=ids + 1)
        records.append(record)
        ids += len(record)
        skipped += left_out
        names = _class_names(folder, names)
    highest = max((row.label for _, rows, _ in read for row in rows), default=0) + 1
    if highest > MAX_CLASSES:
        raise UsageError(f"{root / place}: class {highest} is used; up to {MAX_CLASSES} classes are read")
    if not names:
        names = classes if highest <= len(classes) else tuple(f"class {n}" for n in range(1, highest + 1))
    if highest > len(names):
        raise UsageError(f"{root / place}: class {highest} is used, gt/labels.txt names {len(names)}")
    remark = f"{skipped} boxes that are marked as not to be counted are left out"
    return Annotations(records, names, remarks=(remark,) if skipped else ())


def _sequence_folders(folder: Path) -> list[Path]:
    if (folder / "gt").is_dir() or (folder / "seqinfo.ini").is_file():
        return [folder]
    inner = (path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ()
    found = [path for path in inner if any((path / name).exists() for name in ("gt", "img1", "seqinfo.ini"))]
    if not found:
        raise UsageError(f"{folder} holds no MOT sequences; {folder / 'SEQUENCE/gt/gt.txt'} is expected")
    return sorted(found, key=natural_order)


def _read_rows(path: Path) -> tuple[list[_Row], int]:
    """The rows that count, and how many do not."""
    rows, left_out = [], 0
    for number, line in enumerate(read_text(path, kind="MOT ground truth").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = [float(part) for part in line.split(",") if part.strip()]
            frame, instance, left, top, width, height = values[:6]
            usable = np.abs(values).max() <= MAX_EXACT_INTEGER and frame >= 1 and frame.is_integer()
        except ValueError:
            usable = False
        if not usable:
            expected = "frame (from 1),id,left,top,width,height,counts,class,visibility"
            raise UsageError(f"{path}, line {number}: '{line.strip()}' is not {expected}")
        if len(values) > 6 and values[6] == 0:
            left_out += 1
            continue
        # rows of ten or more have a place in space instead of the class
        kind = int(values[7]) if 8 <= len(values) <= 9 and values[7] >= 1 else 1
        rows.append(_Row(int(frame) - 1, int(instance), (left - 1, top - 1, width, height), kind - 1))
    return rows, left_out


def _class_names(folder: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """The lines of a sequence's labels.txt, which must be the `names` known so far; those, without one."""
    path = folder / "gt" / "labels.txt"
    if not path.is_file():
        return names
    found = tuple(line.strip() for line in read_text(path, kind="class names").splitlines() if line.strip())
    if names and found != names:
        raise UsageError(f"{path} names {', '.join(found)}; the sequences before have {', '.join(names)}")
    return found


def _record(folder: Path, root: Path, rows: list[_Row], faults: Faults, *, first_id: int) -> VideoRecord:
    info = _seqinfo(folder / "seqinfo.ini")
    pictures = {} if "video" in info else _pictures(_below(folder, info.get("imdir", "img1"), root), root)
    annotated = max((row.frame for row in rows), default=-1) + 1
    length = int(_fact(info, "seqlength", folder)) or max([annotated, *(number + 1 for number in pictures)])
    require_length(length, str(folder))
    for row in rows:
        if row.frame >= length:
            faults.add(BEYOND, f"{folder.name} frame {row.frame}, after {length} frames")
    width, height = (int(_fact(info, key, folder)) for key in ("imwidth", "imheight"))
    if not (width and height):
        width, height = _first_size(folder, root, pictures, faults)
    frames = [[] for _ in range(length)]
    for row in rows:
        if row.frame < length:
            frames[row.frame].append(row)
    return VideoRecord(
        name=info.get("name") or folder.resolve().name,
        file_name=listed_path(_below(folder, info["video"], root), root) if "video" in info else "",
        width=width,
        height=height,
        image_ids={frame: first_id + frame for frame in range(length)},
        boxes=tuple(from_xywh([row.box for row in part]).astype(np.float32) for part in frames),
        labels=tuple(np.array([row.label for row in part], dtype=np.int64) for part in frames),
        files=every_frame(pictures, length) if "video" not in info else (),
        instances=tuple(np.array([row.instance for row in part], dtype=np.int64) for part in frames),
        fps=_fact(info, "framerate", folder),
    )


def _below(folder: Path, path: str, root: Path) -> Path:
    """What seqinfo.ini names, from its folder on. Raises UsageError where it is not below the root."""
    try:
        inside(listed_path(folder / path, root))
    except UsageError as error:
        raise UsageError(f"{folder / 'seqinfo.ini'}: {error}") from error
    return folder / path


def _seqinfo(path: Path) -> dict[str, str]:
    """The keys of seqinfo.ini in lower case; none without the file."""
    if not path.is_file():
        return {}
    reader = configparser.ConfigParser(interpolation=None)
    try:
        reader.read_string(read_text(path, kind="sequence facts"))
        return dict(reader["Sequence"])
    except (configparser.Error, KeyError) as error:
        raise UsageError(f"{path} is no seqinfo.ini: {' '.join(str(error).split())}") from error


def _fact(info: dict[str, str], key: str, folder: Path) -> float:
    """A number among the facts, 0 where it is not given."""
    try:
        value = float(info.get(key, 0))
    except ValueError:
        value = -1
    if not 0 <= value < 1e9:
        raise UsageError(f"{folder / 'seqinfo.ini'}: {key} is '{info[key]}', expected a number from 0")
    return value


def _pictures(folder: Path, root: Path) -> dict[int, str]:
    """Frame from 0 → path, by the numbers in the names (from 1, or from 0 if there is a 0), else in order."""
    if not os.path.isdir(folder):  # False, too, for a name too long for a folder
        raise SourceError(f"{folder} is missing; the pictures of the sequence are expected there")
    names = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    paths = [listed_path(path, root) for path in sorted(names, key=natural_order)]
    if not paths:
        raise SourceError(f"{folder} holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
    numbers = [frame_number(path) for path in paths]
    if None in numbers or len(set(numbers)) < len(numbers):
        return dict(enumerate(paths))
    first = min(min(numbers), 1)
    return {number - first: path for number, path in zip(numbers, paths, strict=True)}


def _first_size(folder: Path, root: Path, pictures: dict[int, str], faults: Faults) -> tuple[int, int]:
    if not pictures:
        raise UsageError(f"{folder / 'seqinfo.ini'} gives no imWidth and imHeight")
    try:
        return picture_size(root / pictures[min(pictures)])
    except SourceError:
        if faults.strict:
            raise
        return 0, 0


def write_sequences(
    records: Sequence[VideoRecord], classes: tuple[str, ...], root: Path, folder: Path
) -> list[str]:
    """Write records into a folder, a sequence each, with links to pictures and videos below the root.

    Boxes without identity get numbers of their own. Returns what could not be carried, a line each; raises
    OutputError where a link, OSError where a file cannot be made, UsageError where two sequences would have
    the same name.
    """
    unknown, not_annotated, no_rate = 0, 0, 0
    for record, name in zip(records, flat_names(record.name for record in records), strict=True):
        sequence = folder / name
        (sequence / "gt").mkdir(parents=True)
        (sequence / "gt" / "labels.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
        lines, without = _gt_lines(record)
        (sequence / "gt" / "gt.txt").write_text("".join(lines), encoding="utf-8")
        (sequence / "seqinfo.ini").write_text(_seqinfo_text(record), encoding="utf-8")
        _link_pictures(record, root, sequence / "img1")
        if record.file_name:
            link(root / record.file_name, sequence / _video_name(record))
        unknown += without
        not_annotated += len(record) - len(record.image_ids)
        no_rate += not record.fps
    return [
        *([f"{unknown} boxes have no identity: each got a number of its own"] if unknown else []),
        *([f"{not_annotated} frames without annotation count as without targets"] if not_annotated else []),
        *([f"{no_rate} sequences have no rate: {USUAL_RATE} is written"] if no_rate else []),
    ]


def _gt_lines(record: VideoRecord) -> tuple[list[str], int]:
    """The rows of gt.txt, and how many had no identity."""
    known = {int(number) for row in record.instances for number in row if number >= 0}
    shift = int(0 in known)  # identities are positive here
    fresh, unknown, lines = max(known, default=0) + shift, 0, []
    for frame, boxes in enumerate(record.boxes):
        ids = record.instances[frame].tolist() if record.instances else [-1] * len(boxes)
        rows = to_xywh(boxes.astype(float)).tolist()
        for (left, top, width, height), label, instance in zip(rows, record.labels[frame], ids, strict=True):
            if instance < 0:
                unknown += 1
                fresh += 1
            number = fresh if instance < 0 else instance + shift
            place = ",".join(map(_decimal, (left + 1, top + 1, width, height)))
            lines.append(f"{frame + 1},{number},{place},1,{label + 1},1\n")
    return lines, unknown


def _decimal(value: float) -> str:
    """Up to six decimals, none for whole numbers."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _video_name(record: VideoRecord) -> str:
    """What the video of a sequence is called in its folder."""
    return f"video{Path(record.file_name).suffix}"


def _seqinfo_text(record: VideoRecord) -> str:
    facts = {
        "name": record.name,
        "imDir": "img1",
        "frameRate": _decimal(record.fps or USUAL_RATE),
        "seqLength": len(record),
        "imWidth": record.width,
        "imHeight": record.height,
        "imExt": Path(record.files[0]).suffix if record.files else "",
        "video": _video_name(record) if record.file_name else "",
    }
    return "[Sequence]\n" + "".join(f"{key}={value}\n" for key, value in facts.items() if value != "")


def _link_pictures(record: VideoRecord, root: Path, folder: Path) -> None:
    """Links numbered from 1; frames whose picture is not known have none."""
    if record.files:
        folder.mkdir()
    for number, path in enumerate(record.files, start=1):
        if path:
            link(root / path, folder / f"{number:06d}{Path(path).suffix}")
