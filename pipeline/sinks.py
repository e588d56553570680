"""Where results go: JSON lines, COCO results, MOT challenge text, and several sinks as one.

A sink is a context manager with one method: entering opens its file, `write` takes one result, leaving
closes the file. Files are valid at every moment, whatever ends the run: each record is handed to the
system as a whole, and one that does not fit on the disk is taken back. Boxes are measured in source pixels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from pipeline.errors import OutputError
from pipeline.frame import Detections, Frame, Result, TrackState
from pipeline.interrupt import signals_held
from pipeline.lines import NOTHING, Written, line_of, run_lengths
from pipeline.record_file import RecordFile, output_error


class Sink(Protocol):
    """What `Sinks` can hold."""

    def __enter__(self) -> Self:
        """Open the output; `OutputError` where that is impossible."""

    def write(self, result: Result) -> None:
        """Take one result, in the order of the source; `OutputError` where it cannot be written."""

    def __exit__(self, kind, error, traceback) -> None:
        """Complete and close the output, also while `error` is on its way out."""


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


class JsonlSink:
    """`results.jsonl`: one JSON object a line, one line a frame, there as soon as the frame is done.

    ``{"frame": index, "pts": seconds, "detections": [{"bbox": [x, y, w, h], "score", "label"}],
    "tracks": [{"id", "bbox", "score", "label", "state", "velocity": [x, y], "age"}], "warmup": bool,
    "behind": frames, "timings_ms": {stage: milliseconds}}``

    `behind` counts the real frames, this one included, in the window of the detector. After a gap there is
    also ``"gap": {"event": "lost" | "dropped" | "reconnect" | "jump" | "resize" | "cut", "missing": frames
    or null, "window": "repeated" | "restarted"}``.

    Where segmenters ran, also ``"masks": [{"segmenter", "score", "bbox", "rle": {"size": [H, W],
    "counts"}}]``: each group of pixels that one marked, in COCO's compressed run lengths, which
    `pycocotools.mask.decode` reads.

    Detections with masks have them under "rle". Boxes and scores keep all digits of their type (see
    `pipeline.lines`); `state` is tentative, confirmed or coasting; a number that is not finite is null.

    Args:
        path: the target file.
        kept: of a run that is resumed: what of the file stays. The results that its lines are of come first,
            and are not written again.
    """

    def __init__(self, path: str | Path, *, kept: Written = NOTHING):
        self.path = Path(path)
        self._kept = kept

    def __enter__(self) -> Self:
        self._file = RecordFile(self.path, kept=self._kept.end, alone=True)
        self._known = self._kept.count
        return self

    def write(self, result: Result) -> None:
        """Append one line; `OutputError` if it cannot be written."""
        if self._known:
            self._known -= 1
            return
        line = json.dumps(line_of(result), allow_nan=False, separators=(",", ":"))
        self._file.append(line.encode() + b"\n")

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._file.size

    def __exit__(self, kind, error, traceback) -> None:
        quietly(self._file.close, error)


_COCO_HEAD, _COCO_TAIL = b"[", b"\n]\n"


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
        self._file = RecordFile(self._part, head=_COCO_HEAD, tail=_COCO_TAIL)
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

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._file.size

    def __exit__(self, kind, error, traceback) -> None:
        quietly(self._finish, error)

    def _finish(self) -> None:
        self._file.close()
        try:
            os.replace(self._part, self.path)
        except OSError as error:
            raise output_error(self.path, error) from error


def join_coco(paths: Iterable[Path], target: Path) -> None:
    """Write the results in files of `CocoSink`, one after the other, to `target`. Raises OutputError."""
    partial = target.with_name(f"{target.name}.part")
    try:
        with partial.open("wb") as whole:
            whole.write(b"[")
            separator = b""
            for path in paths:
                with path.open("rb") as file:
                    rest = os.fstat(file.fileno()).st_size - len(_COCO_HEAD) - len(_COCO_TAIL)
                    whole.write(separator * (rest > 0))
                    separator = separator or b"," * (rest > 0)
                    file.seek(len(_COCO_HEAD))
                    while rest > 0:
                        rest -= whole.write(file.read(min(rest, 1 << 20)))
            whole.write(_COCO_TAIL)
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise output_error(target, error) from error


def coco_results(
    detections: Detections, *, image_id: int, category_id: Mapping[int, int] | None = None
) -> Iterator[dict]:
    """The detections of one frame as COCO results; `category_id` as for `CocoSink`."""
    labels, boxes = detections.labels.tolist(), _bboxes(detections.boxes)
    for row, (label, bbox, score) in enumerate(zip(labels, boxes, detections.scores, strict=True)):
        category = label + 1 if category_id is None else category_id[label]
        record = {"image_id": image_id, "category_id": category, "bbox": bbox, "score": float(str(score))}
        if detections.masks is not None:
            record["segmentation"] = run_lengths(detections.masks[row])
        yield record


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
        self._file = RecordFile(self.path)
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

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._file.size

    def __exit__(self, kind, error, traceback) -> None:
        quietly(self._file.close, error)


def _bboxes(boxes: np.ndarray) -> list[list[float]]:
    """(N, 4) x1 y1 x2 y2 -> N lists x, y, w, h."""
    corners = boxes.astype(np.float64)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).round(6).tolist()


def quietly(close: Callable[[], None], error: BaseException | None) -> None:
    """Close; while `error` is on its way out, a second fault is noted on it instead of hiding it."""
    try:
        close()
    except OutputError as fault:
        if error is None:
            raise
        error.add_note(f"then: {fault}")
