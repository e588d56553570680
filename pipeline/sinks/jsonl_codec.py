"""Converts results to the records of results.jsonl and back, without loss.

A record is the JSON object of one line, as `pipeline.sinks.jsonl.JsonlSink` describes it. Numbers are the
shortest decimals that convert back to the same float32. So the other files can be rebuilt from the records,
and a tracker that gets the recorded detections gives the recorded tracks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.imaging.image_files import MAX_PIXELS
from pipeline.structures.detections import Detections, Segments
from pipeline.structures.frame import Frame
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks, TrackState
from pipeline.system.errors import UsageError, reason_of
from pipeline.system.files import require_regular

_DECIMALS = 9
"""Decimals of widths and heights, if so many suffice to restore the other corner of the box exactly."""
MAX_COUNT = 1 << 53
"""Upper bound of frame numbers, counts and sizes."""
DECODE_ERRORS = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
"""Exceptions that decoding raises for text that is not a record."""


class ValidPrefix(NamedTuple):
    """The complete lines at the start of a results.jsonl."""

    line_count: int
    """Number of complete lines, one for each frame."""
    end: int
    """Size of these lines in bytes."""
    truncated: int
    """Number of bytes after them, which belong to a truncated line."""


EMPTY = ValidPrefix(0, 0, 0)


def to_record(result: Result) -> dict[str, Any]:
    """Returns the record of a result."""
    detections = result.detections
    columns = (_exact_bboxes(detections.boxes), _scores(detections.scores), detections.labels.tolist())
    record: dict[str, Any] = {
        "frame": result.frame.index,
        "pts": seconds_of(result.frame),
        "detections": [
            {"bbox": bbox, "score": score, "label": label}
            for bbox, score, label in zip(*columns, strict=True)
        ],
        "tracks": track_records(result.tracks),
        "warmup": result.warmup,
        **_gap_fields(result.frame),
        "timings_ms": {stage: _rounded(seconds * 1e3, 3) for stage, seconds in result.timings.items()},
    }
    if detections.masks is not None:
        for row, mask in zip(record["detections"], detections.masks, strict=True):
            row["rle"] = encode_rle(mask)
    if result.segments:
        record["masks"] = [row for name, found in result.segments.items() for row in _mask_rows(name, found)]
    return record


def _gap_fields(frame: Frame) -> dict[str, Any]:
    """Returns the fields of a record about the temporal window of a frame and the gap before it."""
    fields: dict[str, Any] = (
        {} if frame.real_frames_in_window is None else {"behind": frame.real_frames_in_window}
    )
    if gap := frame.gap:
        window = "repeated" if gap.repeat_previous else "restarted"
        fields["gap"] = {
            "event": gap.event,
            "missing": gap.missing if gap.elapsed_known else None,
            "window": window,
        }
    if frame.motion is not None:
        fields["motion"] = frame.motion.ravel().tolist()
    return fields


def motion_of(record: Mapping[str, Any]) -> np.ndarray | None:
    """Returns the motion of the camera in a record, (2, 3) float64; None if it has none.

    Raises one of `DECODE_ERRORS` if it is not six finite numbers.
    """
    if "motion" not in record:
        return None
    motion = np.array(record["motion"], np.float64)
    if motion.shape != (6,) or not np.isfinite(motion).all():
        raise ValueError("its motion is not six numbers")
    return motion.reshape(2, 3)


def seconds_of(frame: Frame) -> float | None:
    """Returns the presentation time of a frame in seconds as in its record: six decimals."""
    return _rounded(float(frame.pts), 6)


def track_records(tracks: Tracks) -> list[dict[str, Any]]:
    """Returns the tracks of a frame as in its record."""
    columns = (
        tracks.ids.tolist(),
        _exact_bboxes(tracks.boxes),
        _scores(tracks.scores),
        tracks.labels.tolist(),
        tracks.state.tolist(),
        tracks.velocity.tolist(),
        tracks.age.tolist(),
        [0] * len(tracks) if tracks.provisional is None else tracks.provisional.tolist(),
    )
    return [
        {
            "id": track_id,
            **({"provisional": provisional} if provisional else {}),
            "bbox": bbox,
            "score": score,
            "label": label,
            "state": TrackState(state).name.lower(),
            "velocity": [_rounded(component, 4) for component in velocity],
            "age": age,
        }
        for track_id, bbox, score, label, state, velocity, age, provisional in zip(*columns, strict=True)
    ]


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """Encodes a mask, (H, W) bool, in COCO's compressed RLE: ``{"size": [H, W], "counts": text}``."""
    from pycocotools import mask as coco

    coded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": coded["counts"].decode()}


def detections_of(record: Mapping[str, Any]) -> Detections:
    """Returns the detections of a record, equal to the written ones.

    Raises one of `DECODE_ERRORS` if it is not a record.
    """
    rows = record["detections"]
    masks = _decode_masks(rows) if rows and "rle" in rows[0] else None
    return Detections(*_arrays(rows), masks)


def tracks_of(record: Mapping[str, Any]) -> Tracks:
    """Returns the tracks of a record; velocities have four decimals. Raises as `detections_of` does."""
    rows = record["tracks"]
    states = np.array([TrackState[row["state"].upper()] for row in rows], np.int64)
    velocities = np.reshape([row["velocity"] for row in rows], (-1, 2))
    ids, ages = (np.array([row[key] for row in rows], np.int64) for key in ("id", "age"))
    provisional = np.array([row.get("provisional", 0) for row in rows], np.int64)
    return Tracks(*_arrays(rows), ids, states, velocities, ages, provisional)


def segments_of(
    record: Mapping[str, Any], names: Iterable[str], shape: tuple[int, int]
) -> dict[str, Segments]:
    """Returns the components in a frame of `shape` (H, W) by the names of the segmenters that found them.

    Raises ValueError if the masks have another shape.
    """
    found = {}
    for name in names:
        rows = [row for row in record["masks"] if row["segmenter"] == name]
        regions = np.zeros(shape, np.int32)
        masks = _decode_masks(rows)
        if len(masks) and masks.shape[1:] != shape:
            raise ValueError(f"its masks are for frames of {masks.shape[2]}x{masks.shape[1]}")
        for number, mask in enumerate(masks, start=1):
            regions[mask] = number
        boxes, scores, _ = _arrays([{**row, "label": 0} for row in rows])
        found[name] = Segments(regions, Detections(boxes, scores, np.zeros(len(rows))))
    return found


def scan(path: Path) -> ValidPrefix:
    """Finds the complete lines of a results.jsonl; a missing file has none.

    Raises UsageError if the file cannot be read, is a link, or is damaged before its last line.
    """
    last = -1

    def require_result(text: bytes) -> None:
        nonlocal last
        last = _validated(text, last)["frame"]

    return scan_lines(path, require_result, kind="a result")


def scan_lines(path: Path, validate: Callable[[bytes], None], *, kind: str) -> ValidPrefix:
    """Finds the complete lines of a file of JSON Lines; a missing file has none.

    Args:
        path: the file.
        validate: called with each line; raises one of `DECODE_ERRORS` if it is invalid.
        kind: what a line is, for messages.

    Raises:
        UsageError: the file cannot be read, is a link, or is damaged before its last line.
    """
    count, end = 0, 0
    problem: str | None = None
    try:
        require_regular(path)
        with path.open("rb") as file:
            for text in file:
                if problem:
                    raise UsageError(f"{path}, line {count + 1} is not {kind}: {problem}")
                try:
                    validate(text)
                except DECODE_ERRORS as error:
                    problem = reason_of(error)
                else:
                    count, end = count + 1, end + len(text)
            size = file.tell()
    except FileNotFoundError:
        return EMPTY
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    return ValidPrefix(count, end, size - end)


def read_records(path: Path, count: int) -> Iterator[dict[str, Any]]:
    """Yields the objects in the first `count` lines of a file, which were found valid before."""
    if not count:  # the file may be missing
        return
    with path.open("rb") as file:
        for _, text in zip(range(count), file, strict=False):
            yield json.loads(text)


def _validated(text: bytes, last: int) -> dict[str, Any]:
    """Parses a line whose frame comes after frame `last`. Raises one of `DECODE_ERRORS` if it is invalid."""
    if not text.endswith(b"\n"):
        raise ValueError("it is truncated")
    record = json.loads(text)
    if not (isinstance(record, dict) and is_count(record["frame"]) and record["frame"] > last):
        raise ValueError("its frame does not follow the one before")
    detections_of(record)
    tracks_of(record)
    motion_of(record)
    for row in record.get("masks", ()):
        _decode_masks([row])
        Detections(*_arrays([{**row, "label": 0}]))
        row["segmenter"]
    if not isinstance(record["warmup"], bool):
        raise ValueError("'warmup' is neither true nor false")
    for value in (record["pts"], *record["timings_ms"].values()):
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            raise ValueError("its times are no numbers")
    return record


def is_count(value: object) -> bool:
    """Returns whether a value is a whole number from 0 to `MAX_COUNT`."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT


def _mask_rows(segmenter: str, segments: Segments) -> Iterator[dict[str, Any]]:
    """Yields the components that a segmenter found as in a record."""
    found = segments.components
    columns = zip(_exact_bboxes(found.boxes), _scores(found.scores), segments.masks(), strict=True)
    for bbox, score, mask in columns:
        yield {"segmenter": segmenter, "score": score, "bbox": bbox, "rle": encode_rle(mask)}


def _decode_masks(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Decodes the RLE of rows; returns (N, H, W) bool."""
    from pycocotools import mask as coco

    coded = [{"size": row["rle"]["size"], "counts": row["rle"]["counts"].encode()} for row in rows]
    for one in coded:
        height, width = one["size"]
        if not (is_count(height) and is_count(width) and height * width <= MAX_PIXELS):
            raise ValueError("a mask has no valid size")
    return np.array([coco.decode(one) for one in coded], dtype=bool)


def _arrays(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns boxes, (N, 4) float32 x1 y1 x2 y2, scores, (N,) float32, and labels, (N,) int64."""
    bboxes = np.reshape(np.array([row["bbox"] for row in rows], np.float64), (-1, 4))
    boxes = np.concatenate([bboxes[:, :2], bboxes[:, :2] + bboxes[:, 2:]], axis=1)
    scores = np.array([row["score"] for row in rows], np.float32)
    return boxes.astype(np.float32), scores, np.array([row["label"] for row in rows], np.int64)


def _exact_bboxes(boxes: np.ndarray) -> list[list[float]]:
    """Converts boxes, (N, 4) float32 x1 y1 x2 y2, to N lists x, y, w, h without loss.

    x + w in float64, rounded to float32, is x2 again; likewise y + h is y2.
    """
    rows = []
    for x1, y1, x2, y2 in boxes:
        x, y = _shortest(x1), _shortest(y1)
        rows.append([x, y, _exact_extent(x, x2), _exact_extent(y, y2)])
    return rows


def _exact_extent(start: float, end: np.float32) -> float:
    short = round(_shortest(end) - start, _DECIMALS)
    return short if np.float32(start + short) == end else float(end) - start


def _shortest(value: np.float32) -> float:
    return float(str(value))


def _scores(scores: np.ndarray) -> list[float | None]:
    return [_shortest(score) if math.isfinite(score) else None for score in scores]


def _rounded(value: float, decimals: int) -> float | None:
    return round(value, decimals) if math.isfinite(value) else None
