"""Where results go: JSON lines, COCO results, MOT challenge text, and several sinks as one.

A sink is a context manager with one method: entering opens its file, `write` takes one result, leaving
closes the file. Files are valid at every moment, whatever ends the run: each record is handed to the
system as a whole, and one that does not fit on the disk is taken back. Boxes are measured in source pixels.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from pipeline.errors import OutputError
from pipeline.frame import Detections, Frame, Result, Segments, Tracks, TrackState
from pipeline.interrupt import signals_held

_REMEDIES = {
    errno.ENOENT: "create the folder first",
    errno.ENOTDIR: "choose a folder for the outputs",
    errno.EEXIST: "choose a folder for the outputs",
    errno.EISDIR: "it is a folder; remove it or choose another output",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOSPC: "free space on the disk; what was written before is kept",
    errno.EDQUOT: "free space on the disk; what was written before is kept",
    errno.EFBIG: "the system's limit on file sizes was reached; what was written before is kept",
}


class Sink(Protocol):
    """What `Sinks` can hold."""

    def __enter__(self) -> Self:
        """Open the output; `OutputError` where that is impossible."""

    def write(self, result: Result) -> None:
        """Take one result, in the order of the source; `OutputError` where it cannot be written."""

    def __exit__(self, kind, error, traceback) -> None:
        """Complete and close the output, also while `error` is on its way out."""


def output_error(path: Path, error: Exception) -> OutputError:
    """The error for the file at `path`, in one line with a remedy."""
    number = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    remedy = _REMEDIES.get(number)
    return OutputError(f"cannot write {path}: {reason}" + (f"; {remedy}" if remedy else ""))


class Sinks:
    """Several sinks as one: all are entered, each result goes to all, and all are closed in reverse.

    If one fails, the others are still closed; the first error is the one that is raised, and what failed
    after it is noted on it.
    """

    def __init__(self, sinks: Iterable[Sink]):
        self._sinks = list(sinks)
        self._open: list[Sink] = []

    def __enter__(self) -> Self:
        try:
            with signals_held():
                for sink in self._sinks:
                    sink.__enter__()
                    self._open.append(sink)
        except BaseException as error:
            self._close(error)
            raise
        return self

    def write(self, result: Result) -> None:
        """Hand `result` to every sink, in the order given; an `OutputError` ends it, a signal does not."""
        with signals_held():
            for sink in self._open:
                sink.write(result)

    def __exit__(self, kind, error, traceback) -> None:
        with signals_held():
            first = self._close(error)
            if first is not error:
                raise first

    def _close(self, first: BaseException | None) -> BaseException | None:
        while self._open:
            try:
                self._open.pop().__exit__(type(first) if first else None, first, None)
            except BaseException as error:
                if first is None:
                    first = error
                elif error is not first:
                    first.add_note(f"then: {error}")
        return first


class _RecordFile:
    """A file of records that ends with a fixed `tail` at every moment; every fault is an `OutputError`."""

    def __init__(self, path: Path, *, head: bytes = b"", tail: bytes = b""):
        self._path, self._tail = path, tail
        self._end = 0  # where the next record goes: before the tail
        try:
            self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by the sink that opened it
        except OSError as error:
            raise output_error(path, error) from error
        try:
            self.append(head)
        except OutputError:
            self.close()
            raise

    def append(self, record: bytes) -> None:
        """Write `record` and the tail; after a failure the file is what it was before."""
        try:
            self._put(record + self._tail)
        except OSError as error:
            with suppress(OSError):  # the space that the tail takes was there before
                self._put(self._tail)
                self._file.truncate(self._end + len(self._tail))
            raise output_error(self._path, error) from error
        self._end += len(record)

    def _put(self, data: bytes) -> None:
        self._file.seek(self._end)
        view = memoryview(data)
        while view:  # a nearly full disk takes a part first and refuses the rest
            view = view[self._file.write(view) :]

    def close(self) -> None:
        """Close the file; `OutputError` if the system reports a late fault."""
        try:
            self._file.close()
        except OSError as error:
            raise output_error(self._path, error) from error


class JsonlSink:
    """`results.jsonl`: one JSON object a line, one line a frame, there as soon as the frame is done.

    ``{"frame": index, "pts": seconds, "detections": [{"bbox": [x, y, w, h], "score", "label"}],
    "tracks": [{"id", "bbox", "score", "label", "state", "velocity": [x, y], "age"}], "warmup": bool,
    "timings_ms": {stage: milliseconds}}``

    Where segmenters ran, also ``"masks": [{"segmenter", "score", "bbox", "rle": {"size": [H, W],
    "counts"}}]``: each group of pixels that one marked, in COCO's compressed run lengths, which
    `pycocotools.mask.decode` reads.

    Boxes keep 4 decimals; `state` is tentative, confirmed or coasting; a number that is not finite is null.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __enter__(self) -> Self:
        self._file = _RecordFile(self.path)
        return self

    def write(self, result: Result) -> None:
        """Append one line; `OutputError` if it cannot be written."""
        detections = result.detections
        line = {
            "frame": result.frame.index,
            "pts": _number(float(result.frame.pts), 6),
            "detections": [
                {"bbox": bbox, "score": score, "label": label}
                for bbox, score, label in zip(
                    _bboxes(detections.boxes, 4),
                    _scores(detections.scores),
                    detections.labels.tolist(),
                    strict=True,
                )
            ],
            "tracks": _track_records(result.tracks),
            "warmup": result.warmup,
            "timings_ms": {stage: _number(seconds * 1e3, 3) for stage, seconds in result.timings.items()},
        }
        if result.segments:
            line["masks"] = [r for name, found in result.segments.items() for r in _mask_records(name, found)]
        self._file.append(json.dumps(line, allow_nan=False, separators=(",", ":")).encode() + b"\n")

    def __exit__(self, kind, error, traceback) -> None:
        _quietly(self._file.close, error)


class CocoSink:
    """`detections.json`: COCO results, ``[{"image_id", "category_id", "bbox": [x, y, w, h], "score"}, …]``.

    Detections with masks have them under ``"segmentation"``, in COCO's compressed run lengths.

    Records go to a file beside the target, ending in ``.part``, which is a complete JSON array after
    every frame; leaving renames it to the target. No record stays in memory. Boxes keep 6 decimals, scores
    all digits of their type, so that their order survives.

    Args:
        path: the target file.
        image_id: id of a frame in the ground truth; None for a frame that is not in it, which is
            skipped. Default: index + 1.
        category_id: label -> category id; KeyError in `write` for a label that is missing.
            Default: label + 1.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        image_id: Callable[[Frame], int | None] | None = None,
        category_id: Mapping[int, int] | None = None,
    ):
        self.path = Path(path)
        self._part = self.path.with_name(self.path.name + ".part")
        self._image_id = image_id or (lambda frame: frame.index + 1)
        self._category_id = category_id

    def __enter__(self) -> Self:
        self._file = _RecordFile(self._part, head=b"[", tail=b"\n]\n")
        self._separator = "\n"
        return self

    def write(self, result: Result) -> None:
        """Append the frame's detections.

        Raises:
            OutputError: they cannot be written.
            ValueError: a score is not finite; COCO has no way to say that.
        """
        image_id = self._image_id(result.frame)
        if image_id is None or not len(result.detections):
            return
        rows = coco_results(result.detections, image_id=image_id, category_id=self._category_id)
        records = [json.dumps(row, allow_nan=False) for row in rows]
        self._file.append((self._separator + ",\n".join(records)).encode())
        self._separator = ",\n"

    def __exit__(self, kind, error, traceback) -> None:
        _quietly(self._finish, error)

    def _finish(self) -> None:
        self._file.close()
        try:
            os.replace(self._part, self.path)
        except OSError as error:
            raise output_error(self.path, error) from error


def coco_results(
    detections: Detections, *, image_id: int, category_id: Mapping[int, int] | None = None
) -> Iterator[dict]:
    """The detections of one frame as COCO results; `category_id` as for `CocoSink`."""
    labels, boxes = detections.labels.tolist(), _bboxes(detections.boxes, 6)
    for row, (label, bbox, score) in enumerate(zip(labels, boxes, detections.scores, strict=True)):
        category = label + 1 if category_id is None else category_id[label]
        record = {"image_id": image_id, "category_id": category, "bbox": bbox, "score": float(str(score))}
        if detections.masks is not None:
            record["segmentation"] = run_lengths(detections.masks[row])
        yield record


def run_lengths(mask: np.ndarray) -> dict:
    """(H, W) bool → ``{"size": [H, W], "counts": text}``, COCO's compressed run lengths."""
    from pycocotools import mask as coco

    coded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": coded["counts"].decode()}


class MotSink:
    """`tracks.txt`: MOT challenge, one line a track and frame.

    ``frame,id,left,top,width,height,conf,-1,-1,-1``

    Frames, x and y count from 1, decimals are kept: a box whose x1 is 0 is written as 1, since readers
    such as motmetrics subtract it. Confirmed and coasting tracks are written, tentative ones are not;
    `conf` is the score of the track's last detection.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __enter__(self) -> Self:
        self._file = _RecordFile(self.path)
        return self

    def write(self, result: Result) -> None:
        """Append the frame's tracks; `OutputError` if they cannot be written."""
        tracks = result.tracks[result.tracks.state != TrackState.TENTATIVE]
        rows = zip(tracks.ids.tolist(), tracks.boxes.tolist(), tracks.scores.tolist(), strict=True)
        frame = result.frame.index + 1
        lines = [
            f"{frame},{track_id},{x1 + 1:.4f},{y1 + 1:.4f},{x2 - x1:.4f},{y2 - y1:.4f},{score:.6f},-1,-1,-1\n"
            for track_id, (x1, y1, x2, y2), score in rows
        ]
        if lines:
            self._file.append("".join(lines).encode())

    def __exit__(self, kind, error, traceback) -> None:
        _quietly(self._file.close, error)


def _mask_records(segmenter: str, segments: Segments) -> Iterator[dict]:
    """The groups that one segmenter marked."""
    found = segments.components
    for bbox, score, mask in zip(
        _bboxes(found.boxes, 4), _scores(found.scores), segments.masks(), strict=True
    ):
        yield {"segmenter": segmenter, "score": score, "bbox": bbox, "rle": run_lengths(mask)}


def _track_records(tracks: Tracks) -> list[dict]:
    columns = (
        tracks.ids.tolist(),
        _bboxes(tracks.boxes, 4),
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


def _bboxes(boxes: np.ndarray, decimals: int) -> list[list[float]]:
    """(N, 4) x1 y1 x2 y2 -> N lists x, y, w, h."""
    corners = boxes.astype(np.float64)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).round(decimals).tolist()


def _scores(scores: np.ndarray) -> list[float | None]:
    return [_number(score, 6) for score in scores.tolist()]


def _number(value: float, decimals: int) -> float | None:
    return round(value, decimals) if math.isfinite(value) else None


def _quietly(close: Callable[[], None], error: BaseException | None) -> None:
    """Close; while `error` is on its way out, a second fault is noted on it instead of hiding it."""
    try:
        close()
    except OutputError as fault:
        if error is None:
            raise
        error.add_note(f"then: {fault}")
