"""pipeline.sinks.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

from pipeline.sinks.base import quietly
from pipeline.sinks.jsonl_codec import EMPTY, ValidPrefix, to_record
from pipeline.sinks.record_file import RecordFile
from pipeline.structures.results import Result


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
    `pipeline.sinks.jsonl_codec`); `state` is tentative, confirmed or coasting; a number that is not finite
    is null.

    Args:
        path: the target file.
        kept: of a run that is resumed: what of the file stays. The results that its lines are of come first,
            and are not written again.
    """

    def __init__(self, path: str | Path, *, kept: ValidPrefix = EMPTY):
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
        line = json.dumps(to_record(result), allow_nan=False, separators=(",", ":"))
        self._file.append(line.encode() + b"\n")

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._file.size

    def __exit__(self, kind, error, traceback) -> None:
        quietly(self._file.close, error)
