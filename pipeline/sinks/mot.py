"""Writes `tracks.txt`: tracks in the text format of the MOT Challenge."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pipeline.sinks.base import close_preserving_error
from pipeline.sinks.record_file import RecordFile
from pipeline.structures.results import Result
from pipeline.structures.tracks import TrackState


class MotSink:
    """Appends one line for each track and frame to `tracks.txt`.

    ``frame,id,left,top,width,height,conf,-1,-1,-1``

    Frames and pixels are counted from 1: x1 = 0 is written as 1, since readers such as motmetrics subtract 1.
    Boxes have four decimals. Confirmed and coasting tracks are written, tentative ones are not; `conf` is the
    score of the track's last detection.

    Args:
        path: file to write; it is replaced.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __enter__(self) -> Self:
        self._file = RecordFile(self.path)
        return self

    def write(self, result: Result) -> None:
        """Appends the tracks of a frame. Raises OutputError if they cannot be written."""
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
        """Size of the file in bytes."""
        return self._file.size

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        close_preserving_error(self._file.close, error)
