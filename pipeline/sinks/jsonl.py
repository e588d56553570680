"""Writes `results.jsonl`: the complete results as JSON Lines, one JSON object for each frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

from pipeline.sinks.base import close_preserving_error
from pipeline.sinks.jsonl_codec import EMPTY, ValidPrefix, to_record
from pipeline.sinks.record_file import RecordFile
from pipeline.structures.results import Result


class JsonlSink:
    """Appends one line for each frame to `results.jsonl`; a line is on the disk before the next frame.

    The format of a line:

    ``{"frame": index, "pts": seconds, "detections": [{"bbox": [x, y, w, h], "score", "label"}],
    "tracks": [{"id", "bbox", "score", "label", "state", "velocity": [x, y], "age"}], "warmup": bool,
    "behind": frames, "timings_ms": {stage: milliseconds}}``

    `behind` is the number of real frames, this one included, in the temporal window of the detector; `state`
    is tentative, confirmed or coasting; numbers that are not finite are null. Boxes and scores keep all
    digits of a float32, see `pipeline.sinks.jsonl_codec`. Detections with masks have them under ``"rle"``.
    Confirmed tracks are numbered from 1, tentative ones have negative ids. A track that was tentative has
    this id as ``"provisional"`` in the frame of its confirmation.

    While the camera moves a line also has ``"motion": [a, b, c, d, e, f]``: a point x, y of the frame before
    is at a·x + b·y + c, d·x + e·y + f in this one.

    After a gap a line also has ``"gap": {"event": "lost" | "dropped" | "reconnect" | "jump" | "resize" |
    "cut" | "shutter", "missing": frames or null, "window": "repeated" | "restarted"}``. If segmenters run
    beside the detector, it also has ``"masks": [{"segmenter", "score", "bbox", "rle": {"size": [H, W],
    "counts"}}]``: each connected component of a segmenter in COCO's compressed RLE, as
    `pycocotools.mask.decode` reads it.

    Args:
        path: file to write.
        kept: the lines that stay if a run is resumed. Their results come first in `write`, which skips them.
    """

    def __init__(self, path: str | Path, *, kept: ValidPrefix = EMPTY):
        self.path = Path(path)
        self._kept = kept
        self._to_skip = kept.line_count

    def __enter__(self) -> Self:
        self._file = RecordFile(self.path, kept=self._kept.end)
        return self

    def write(self, result: Result) -> None:
        """Appends one line. Raises OutputError if it cannot be written."""
        if self._to_skip:
            self._to_skip -= 1
            return
        line = json.dumps(to_record(result), allow_nan=False, separators=(",", ":"))
        self._file.append(line.encode() + b"\n")

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self._file.size

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        close_preserving_error(self._file.close, error)
