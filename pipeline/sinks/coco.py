"""pipeline.sinks.coco."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self

import numpy as np

from pipeline.sinks.base import quietly
from pipeline.sinks.jsonl_codec import run_lengths
from pipeline.sinks.record_file import RecordFile
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.results import Result
from pipeline.system.files import atomic_write, output_error

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
        # Open for the length of the run and complete after every record, so `recover` can use it: not the
        # block of an `atomic_write`, whose part is removed if the run fails.
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
    with atomic_write(target) as partial, partial.open("wb") as whole:
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


def _bboxes(boxes: np.ndarray) -> list[list[float]]:
    """(N, 4) x1 y1 x2 y2 -> N lists x, y, w, h."""
    corners = boxes.astype(np.float64)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).round(6).tolist()
