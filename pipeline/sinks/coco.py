"""Writes `detections.json`: detections in the results format of COCO."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from pipeline.sinks.base import close_preserving_error
from pipeline.sinks.jsonl_codec import encode_rle
from pipeline.sinks.record_file import RecordFile
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.results import Result
from pipeline.system.files import atomic_write, output_error
from pipeline.system.reserved import FollowedFolder

_HEAD, _TAIL = b"[", b"\n]\n"


class CocoSink:
    """Appends the detections of each frame to `detections.json`.

    ``[{"image_id", "category_id", "bbox": [x, y, w, h], "score"}, …]``

    Boxes have 6 decimals; scores keep all digits of a float32, which preserves their order. Detections with
    masks have them under ``"segmentation"`` in COCO's compressed RLE. Records are written to a file beside
    the target, with ``.part`` added to its name, which is a complete JSON array after every frame; leaving
    renames it to the target. No record stays in memory.

    Args:
        path: file to write.
        image_id: returns the image id of a frame in the ground truth, or None for a frame that is not
            annotated, which is skipped. Default: index + 1.
        category_id: category id of each label. `write` raises KeyError if a label is missing. Default:
            label + 1.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        image_id: Callable[[Frame], int | None] | None = None,
        category_id: Mapping[int, int] | None = None,
    ):
        self.path = Path(path)
        # Not an `atomic_write`, which removes its temporary file if the run fails: `recover` uses this one.
        self._part = self.path.with_name(self.path.name + ".part")
        self._image_id = image_id or (lambda frame: frame.index + 1)
        self._category_id = category_id
        self._separator = "\n"

    def __enter__(self) -> Self:
        self._file = RecordFile(self._part, head=_HEAD, tail=_TAIL)
        self._folder = FollowedFolder(self.path.parent)
        return self

    def write(self, result: Result) -> None:
        """Appends the detections of a frame.

        Raises:
            OutputError: they cannot be written.
            ValueError: a score is not finite, which JSON cannot represent.
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
        """Size of the file in bytes."""
        return self._file.size

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        close_preserving_error(self._finish, error)

    def _finish(self) -> None:
        folder = self._folder.path
        self._folder.close()
        self._file.close()
        try:
            os.replace(folder / self._part.name, folder / self.path.name)
        except OSError as error:
            raise output_error(self.path, error) from error


def join_coco(paths: Iterable[Path], target: Path) -> None:
    """Concatenates files of `CocoSink` into the file `target`, without parsing them. Raises OutputError."""
    with atomic_write(target) as partial, partial.open("wb") as joined:
        joined.write(b"[")
        separator = b""
        for path in paths:
            with path.open("rb") as file:
                rest = os.fstat(file.fileno()).st_size - len(_HEAD) - len(_TAIL)
                joined.write(separator * (rest > 0))
                separator = separator or b"," * (rest > 0)
                file.seek(len(_HEAD))
                while rest > 0:
                    rest -= joined.write(file.read(min(rest, 1 << 20)))
        joined.write(_TAIL)


def coco_results(
    detections: Detections, *, image_id: int, category_id: Mapping[int, int] | None = None
) -> Iterator[dict[str, Any]]:
    """Yields the detections of one frame as COCO results; `category_id` as for `CocoSink`."""
    labels, boxes = detections.labels.tolist(), _rounded_bboxes(detections.boxes)
    for row, (label, bbox, score) in enumerate(zip(labels, boxes, detections.scores, strict=True)):
        category = label + 1 if category_id is None else category_id[label]
        record = {"image_id": image_id, "category_id": category, "bbox": bbox, "score": float(str(score))}
        if detections.masks is not None:
            record["segmentation"] = encode_rle(detections.masks[row])
        yield record


def _rounded_bboxes(boxes: np.ndarray) -> list[list[float]]:
    """Converts boxes, (N, 4) x1 y1 x2 y2, to N lists x, y, w, h of six decimals.

    `results.jsonl` has exact boxes; here the decimals are few, since evaluation needs no more.
    """
    corners = boxes.astype(np.float64)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).round(6).tolist()
