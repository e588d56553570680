"""Tracks of one video as arrays, and the MOT text files that they are read from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.structures.boxes import from_xywh
from pipeline.system.bounded_reads import MAX_TEXT_BYTES, read_bounded
from pipeline.system.errors import UsageError

_MAX_ID = 2**53
"""motmetrics stores ids as float64, which represents integers exactly up to this one."""


@dataclass(frozen=True, eq=False)
class TrackRows:
    """Tracks of one video, one row for each track and frame, in any order.

    Raises ValueError for other shapes or values than those of the fields.
    """

    frames: np.ndarray
    """(N,) int64 frame index from 0."""
    ids: np.ndarray
    """(N,) int64, not negative, unique within a frame."""
    boxes: np.ndarray
    """(N, 4) float32 x1 y1 x2 y2 in pixels, right and bottom exclusive."""
    scores: np.ndarray = None  # type: ignore[assignment]
    """(N,) float64; 1 for all if it is not given."""

    def __post_init__(self) -> None:
        count = np.size(self.frames)
        if self.scores is None:
            object.__setattr__(self, "scores", np.ones(count))
        for name, dtype, shape in (
            ("frames", np.int64, ()),
            ("ids", np.int64, ()),
            ("boxes", np.float32, (4,)),
            ("scores", np.float64, ()),
        ):
            array = np.array(getattr(self, name), dtype=dtype)
            array = array if array.size else array.reshape(0, *shape)
            if array.shape != (count, *shape):
                raise ValueError(f"{name} has shape {array.shape}, expected {(count, *shape)}")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if (self.frames < 0).any() or (self.ids < 0).any() or (self.ids > _MAX_ID).any():
            raise ValueError("frames and ids must be 0 or more, ids at most 2**53")
        if not np.isfinite(self.scores).all():
            raise ValueError("scores must be finite")
        if not np.isfinite(self.boxes).all() or (self.boxes[:, 2:] < self.boxes[:, :2]).any():
            raise ValueError("boxes must be finite, with x1 <= x2 and y1 <= y2")
        if len(set(zip(self.frames.tolist(), self.ids.tolist(), strict=True))) < len(self):
            raise ValueError("an id occurs twice in a frame")

    def __len__(self) -> int:
        return len(self.frames)


def read_tracks(path: str | Path) -> TrackRows:
    """Reads a MOT file: lines of `frame,id,left,top,width,height,score`, further values ignored.

    Rows without a score have 1.

    Frames, left and top count from 1 in the file, as `pipeline.sinks.mot.MotSink` writes them, and from 0 in
    the result. That sink omits tentative tracks and includes coasting ones, whose boxes are predictions; all
    rows are treated alike. An empty file has no tracks. Raises UsageError, which names the line, if the file
    is malformed.
    """
    try:
        text = read_bounded(Path(path), limit=MAX_TEXT_BYTES).decode("utf-8")
    except OSError as error:
        raise UsageError(f"cannot read tracks {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"tracks {path} are not MOT text: {error}") from error
    rows: dict[tuple[int, int], list[float]] = {}
    scores = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            frame, track, box, score = _parse_line(line)
            if (frame, track) in rows:
                raise ValueError(f"track {track} is in frame {frame} a second time")
        except ValueError as error:
            raise UsageError(f"tracks {path}, line {number}: {error}") from error
        rows[frame, track] = box
        scores.append(score)
    keys = np.array(list(rows), dtype=np.int64).reshape(-1, 2)
    corners = from_xywh(np.array(list(rows.values()), dtype=np.float64)) - 1
    return TrackRows(frames=keys[:, 0] - 1, ids=keys[:, 1], boxes=corners, scores=np.array(scores))


def _parse_line(line: str) -> tuple[int, int, list[float], float]:
    """Returns frame from 1, id, left, top, width and height, and score. Raises ValueError if malformed."""
    fields = line.split(",")
    if len(fields) < 6:
        raise ValueError(f"{len(fields)} values between commas, expected frame,id,left,top,width,height,…")
    frame, track, *box = (_parse_number(field) for field in fields[:6])
    score = _parse_number(fields[6]) if fields[6:] and fields[6].strip() else 1.0
    if frame < 1 or frame != int(frame):
        raise ValueError(f"frame {fields[0]} is not a whole number from 1")
    if track < 0 or track != int(track):
        raise ValueError(f"id {fields[1]} is not a whole number from 0; -1 is for detections without tracks")
    if min(box[2:]) < 0:
        raise ValueError(f"width {fields[4]}, height {fields[5]}: neither may be negative")
    return int(frame), int(track), box, score


def _parse_number(field: str) -> float:
    try:
        value = float(field)
    except ValueError:
        value = math.nan
    if not abs(value) <= _MAX_ID:
        raise ValueError(f"'{field.strip()}' is not a number of at most 2**53")
    return value
