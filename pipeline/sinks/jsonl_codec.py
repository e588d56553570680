"""What a line of results.jsonl holds: a result as JSON, and read back as it was, to the last bit.

Numbers are the shortest decimals from which the same float32 comes back. So the other files can be rebuilt
from the lines, and a tracker that is given the detections again does again what it did.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.structures.detections import Detections, Segments
from pipeline.structures.frame import Frame
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks, TrackState
from pipeline.system.errors import UsageError

_DECIMALS = 9
"""Of widths and heights, where that is enough: what the digits of a float32 leave of their difference."""


FAULTS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What is raised where something is read that is not a line."""


class ValidPrefix(NamedTuple):
    """What of a results.jsonl is whole."""

    count: int
    """Lines, one for each frame."""
    end: int
    """Bytes that they take."""
    torn: int
    """Bytes after them, of a line that was not finished."""


EMPTY = ValidPrefix(0, 0, 0)


def to_record(result: Result) -> dict:
    """The line of a frame, as `pipeline.sinks.jsonl.JsonlSink` describes it."""
    detections = result.detections
    columns = (_bboxes(detections.boxes), _scores(detections.scores), detections.labels.tolist())
    line = {
        "frame": result.frame.index,
        "pts": seconds_of(result.frame),
        "detections": [
            {"bbox": bbox, "score": score, "label": label}
            for bbox, score, label in zip(*columns, strict=True)
        ],
        "tracks": track_records(result.tracks),
        "warmup": result.warmup,
        **_continuity(result.frame),
        "timings_ms": {stage: _number(seconds * 1e3, 3) for stage, seconds in result.timings.items()},
    }
    if detections.masks is not None:
        for record, mask in zip(line["detections"], detections.masks, strict=True):
            record["rle"] = run_lengths(mask)
    if result.segments:
        line["masks"] = [r for name, found in result.segments.items() for r in _mask_records(name, found)]
    return line


def _continuity(frame: Frame) -> dict:
    """How many frames stood behind a result, and what lies before its frame."""
    record = {} if frame.behind is None else {"behind": frame.behind}
    if gap := frame.gap:
        window = "repeated" if gap.bridged else "restarted"
        record["gap"] = {"event": gap.event, "missing": gap.missing if gap.known else None, "window": window}
    return record


def seconds_of(frame: Frame) -> float | None:
    """The presentation time of a frame as its line has it."""
    return _number(float(frame.pts), 6)


def track_records(tracks: Tracks) -> list[dict]:
    """The tracks of a frame as its line has them."""
    columns = (
        tracks.ids.tolist(),
        _bboxes(tracks.boxes),
        _scores(tracks.scores),
        tracks.labels.tolist(),
        tracks.state.tolist(),
        tracks.velocity.tolist(),
        tracks.age.tolist(),
    )
    return [
        {
            "id": track_id,
            "bbox": bbox,
            "score": score,
            "label": label,
            "state": TrackState(state).name.lower(),
            "velocity": [_number(component, 4) for component in velocity],
            "age": age,
        }
        for track_id, bbox, score, label, state, velocity, age in zip(*columns, strict=True)
    ]


def run_lengths(mask: np.ndarray) -> dict:
    """(H, W) bool → ``{"size": [H, W], "counts": text}``, COCO's compressed run lengths."""
    from pycocotools import mask as coco

    coded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": coded["counts"].decode()}


def detections_of(line: dict) -> Detections:
    """The detections of a line, as they were. Raises one of `FAULTS` for what is no line."""
    rows = line["detections"]
    masks = _masks(rows) if rows and "rle" in rows[0] else None
    return Detections(*_columns(rows), masks)


def tracks_of(line: dict) -> Tracks:
    """The tracks of a line, velocities to four decimals. Raises as `detections_of` does."""
    rows = line["tracks"]
    states = [TrackState[row["state"].upper()] for row in rows]
    velocities = np.reshape([row["velocity"] for row in rows], (-1, 2))
    ids, ages = ([row[key] for row in rows] for key in ("id", "age"))
    return Tracks(*_columns(rows), ids, states, velocities, ages)


def segments_of(line: dict, names: Sequence[str], shape: tuple[int, int]) -> dict[str, Segments]:
    """What each of the segmenters of those `names` marked in a frame of (H, W) pixels, as it was."""
    found = {}
    for name in names:
        rows = [row for row in line["masks"] if row["segmenter"] == name]
        regions = np.zeros(shape, np.int32)
        for number, mask in enumerate(_masks(rows), start=1):
            regions[mask] = number
        boxes, scores, _ = _columns([{**row, "label": 0} for row in rows])
        found[name] = Segments(regions, Detections(boxes, scores, np.zeros(len(rows))))
    return found


def scan(path: Path) -> ValidPrefix:
    """How much of a results.jsonl is whole; a missing file has no lines.

    Raises UsageError for a file that cannot be read, and for one that is damaged before its last line.
    """
    count, end, last, fault = 0, 0, -1, None
    try:
        with path.open("rb") as file:
            for text in file:
                if fault:
                    raise UsageError(f"{path}, line {count + 1} is no result: {fault}")
                try:
                    last = _checked(text, last)["frame"]
                except FAULTS as error:
                    fault = str(error) or type(error).__name__
                else:
                    count, end = count + 1, end + len(text)
            size = file.tell()
    except FileNotFoundError:
        return EMPTY
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    return ValidPrefix(count, end, size - end)


def read(path: Path, count: int) -> Iterator[dict]:
    """The first `count` lines of a file that was surveyed, one after the other."""
    if not count:  # there need not be a file
        return
    with path.open("rb") as file:
        for _, text in zip(range(count), file, strict=False):
            yield json.loads(text)


def _checked(text: bytes, last: int) -> dict:
    """A line whose frame comes after the `last` one. Raises as `detections_of` does for what is none."""
    if not text.endswith(b"\n"):
        raise ValueError("it is not finished")
    line = json.loads(text)
    if not (isinstance(line, dict) and isinstance(line["frame"], int) and line["frame"] > last):
        raise ValueError("its frame does not follow the one before")
    detections_of(line)
    tracks_of(line)
    line["pts"], line["warmup"], line["timings_ms"]
    return line


def _mask_records(segmenter: str, segments: Segments) -> Iterator[dict]:
    """The groups that one segmenter marked."""
    found = segments.components
    rows = zip(_bboxes(found.boxes), _scores(found.scores), segments.masks(), strict=True)
    for bbox, score, mask in rows:
        yield {"segmenter": segmenter, "score": score, "bbox": bbox, "rle": run_lengths(mask)}


def _masks(rows: Sequence[dict]) -> np.ndarray:
    """(N, H, W) bool of records with run lengths."""
    from pycocotools import mask as coco

    coded = [{"size": row["rle"]["size"], "counts": row["rle"]["counts"].encode()} for row in rows]
    return np.array([coco.decode(one) for one in coded], dtype=bool)


def _columns(rows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, list[float], list[int]]:
    """Boxes (N, 4) x1 y1 x2 y2, scores and labels of records."""
    bboxes = np.reshape(np.array([row["bbox"] for row in rows], np.float64), (-1, 4))
    boxes = np.concatenate([bboxes[:, :2], bboxes[:, :2] + bboxes[:, 2:]], axis=1)
    return boxes.astype(np.float32), [row["score"] for row in rows], [row["label"] for row in rows]


def _bboxes(boxes: np.ndarray) -> list[list[float]]:
    """(N, 4) float32 x1 y1 x2 y2 → N lists x, y, w, h; x + w in float64 gives x2 again, and y + h y2."""
    rows = []
    for x1, y1, x2, y2 in boxes:
        x, y = _shortest(x1), _shortest(y1)
        rows.append([x, y, _extent(x, x2), _extent(y, y2)])
    return rows


def _extent(start: float, end: np.float32) -> float:
    short = round(_shortest(end) - start, _DECIMALS)
    return short if np.float32(start + short) == end else float(end) - start


def _shortest(value: np.float32) -> float:
    return float(str(value))


def _scores(scores: np.ndarray) -> list[float | None]:
    return [_shortest(score) if math.isfinite(score) else None for score in scores]


def _number(value: float, decimals: int) -> float | None:
    return round(value, decimals) if math.isfinite(value) else None
