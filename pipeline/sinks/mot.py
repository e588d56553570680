"""Writes `tracks.txt`: tracks in the text format of the MOT Challenge, as they are found or smoothed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from pipeline.config.schema import OutputConfig
from pipeline.sinks.base import close_preserving_error
from pipeline.sinks.record_file import RecordFile
from pipeline.smoothing.history import TrackHistory
from pipeline.structures.results import Result
from pipeline.structures.tracks import TrackState
from pipeline.system.errors import UsageError
from pipeline.system.files import atomic_write


class MotSink:
    """Appends one line for each track and frame to `tracks.txt`.

    ``frame,id,left,top,width,height,conf,-1,-1,-1``

    Frames and pixels are counted from 1: x1 = 0 is written as 1, since readers such as motmetrics subtract 1.
    Boxes have four decimals. Confirmed tracks are written, tentative ones are not; `conf` is the score of the
    track's last detection.

    Args:
        path: file to write; it is replaced.
        coasting: whether predicted boxes of tracks without a detection are written, too.
    """

    def __init__(self, path: str | Path, *, coasting: bool = False):
        self.path = Path(path)
        self._unwritten = [TrackState.TENTATIVE, *([] if coasting else [TrackState.COASTING])]

    def __enter__(self) -> Self:
        self._file = RecordFile(self.path)
        return self

    def write(self, result: Result) -> None:
        """Appends the tracks of a frame. Raises OutputError if they cannot be written."""
        tracks = result.tracks[~np.isin(result.tracks.state, self._unwritten)]
        rows = zip(tracks.ids.tolist(), tracks.boxes.tolist(), tracks.scores.tolist(), strict=True)
        lines = [_line(result.frame.index, *row) for row in rows]
        if lines:
            self._file.append("".join(lines).encode())

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self._file.size

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        close_preserving_error(self._file.close, error)


class SmoothedMotSink(MotSink):
    """Replaces the lines of `tracks.txt` by those of the smoothed tracks when it is left.

    Until then the file is that of a `MotSink`. `pipeline.smoothing.history` says how tracks are smoothed. The
    detections of all tracks are kept in memory.
    """

    def __enter__(self) -> Self:
        self._history = TrackHistory()
        return super().__enter__()

    def write(self, result: Result) -> None:
        """Appends the tracks of a frame. Raises OutputError if they cannot be written."""
        super().write(result)
        self._history.add(result)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        super().__exit__(kind, error, traceback)
        close_preserving_error(self._replace, error)

    def _replace(self) -> None:
        with atomic_write(self.path) as part, part.open("w", encoding="ascii") as file:
            for row in self._history.smoothed():
                file.write(_line(*row))


def mot_sink(path: str | Path, output: OutputConfig, *, live: bool = False) -> MotSink:
    """Builds the sink of `tracks.txt` of a configuration.

    Raises UsageError if the tracks of a live source are to be smoothed.
    """
    if not output.smooth:
        return MotSink(path, coasting=output.coasting)
    if live:
        remedy = "leave --smooth out, and use mote track RUN --smooth when the run has ended"
        raise UsageError(f"tracks are smoothed from their ends, which a live source does not know; {remedy}")
    return SmoothedMotSink(path)


def _line(frame: int, track: int, box: Sequence[float], score: float) -> str:
    """Returns the line of a track in the frame of an index; `box` is x1 y1 x2 y2."""
    x1, y1, x2, y2 = box
    place = f"{x1 + 1:.4f},{y1 + 1:.4f},{x2 - x1:.4f},{y2 - y1:.4f}"
    return f"{frame + 1},{track},{place},{score:.6f},-1,-1,-1\n"
