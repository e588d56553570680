"""Outputs of runs that go on for long, in pieces: NAME-000001-20261121T180000Z.EXT, and so on.

All files of a piece tell of the same frames, and each is valid by itself: a video begins with a key frame
and at time 0. The number orders the pieces; the time, in UTC, is that at which a piece was begun. Where the
disk has a budget the oldest pieces are deleted for it.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from pipeline.config.rotation import Rotation
from pipeline.sinks import zarr_store
from pipeline.sinks.base import Sink, Sinks, quietly
from pipeline.sinks.coco import join_coco
from pipeline.sinks.file_names import COCO, JSONL, MOT, VIDEO, ZARR
from pipeline.structures.results import Result
from pipeline.system.errors import OutputError
from pipeline.system.files import lock_folder, output_error

NAMES = (JSONL, COCO, MOT, VIDEO, ZARR)
"""What is in pieces."""
STORE = Path(ZARR).suffix
_STEMS = "|".join(Path(name).stem for name in NAMES)
_FORM = re.compile(rf"(?:{_STEMS})-(\d{{6,}})-(\d{{8}}T\d{{6}}Z)\.\w+(?:\.part)?")


class RotatedFiles(NamedTuple):
    """One of the pieces in a folder."""

    folder: Path
    number: int
    began: str
    """UTC, as in the names of its files."""

    def path(self, name: str) -> Path:
        """Where the piece has the output of this name, if it has it."""
        plain = Path(name)
        return self.folder / f"{plain.stem}-{self.number:06d}-{self.began}{plain.suffix}"

    def size(self) -> int:
        """Bytes of its files."""
        return sum(_size(self.path(name)) for name in NAMES)

    def files(self) -> list[Path]:
        """Those of its outputs that are there."""
        return [path for name in NAMES if (path := self.path(name)).exists()]

    def delete(self) -> None:
        """Remove its files; results.jsonl comes last, as what tells of the others. Raises OutputError."""
        for name in reversed(NAMES):
            path = self.path(name)
            delete(path.with_name(f"{path.name}.part"))
            delete(path)


def pieces_in(folder: Path) -> list[RotatedFiles]:
    """The pieces in a folder, oldest first. Raises OutputError for a folder that cannot be read."""
    try:
        found = [match for name in os.listdir(folder) if (match := _FORM.fullmatch(name))]
    except OSError as error:
        raise output_error(folder, error) from error
    return sorted(
        {RotatedFiles(folder, int(match[1]), match[2]) for match in found}, key=lambda piece: piece[1:]
    )


class _Closed(NamedTuple):
    piece: RotatedFiles
    frames: int
    size: int


class SizedSink(Sink, Protocol):
    """A sink of which it is known how much it has written."""

    @property
    def size(self) -> int:
        """Bytes on the disk so far; asked for between entering and leaving."""


class RotatingSink:
    """A sink that hands results to the files of one piece after the other.

    Args:
        folder: where they lie.
        open_files: the sinks of a piece, not yet entered, given where each output is to be.
        rotation: when the next piece begins, which is between two frames, and how much all may take.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        folder: Path,
        open_files: Callable[[Callable[[str], Path]], Sequence[SizedSink]],
        rotation: Rotation,
        *,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._folder, self._open_files, self._rotation, self._clock = folder, open_files, rotation, clock
        self.account = {"kept": 0, "deleted": 0, "deleted_frames": 0, "deleted_bytes": 0}
        """For run.json."""

    def __enter__(self) -> Self:
        self._lock = lock_folder(self._folder)
        self._closed: deque[_Closed] = deque()
        self._number = 0
        self._files: Sinks | None = None
        try:
            self._begin()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def write(self, result: Result) -> None:
        """Hand on one result, to a new piece where it is time for one; `OutputError` where that fails."""
        if self._frames and self._due():
            self._end(None)
            self._begin()
        self._files.write(result)
        self._frames += 1
        self._size = sum(sink.size for sink in self._sinks)
        self._keep_budget()

    def __exit__(self, kind, error, traceback) -> None:
        try:
            quietly(lambda: self._finish(error), error)
        finally:
            os.close(self._lock)

    def _finish(self, error: BaseException | None) -> None:
        try:
            self._end(error)
            self._keep_budget()
        except OutputError as fault:
            quietly(lambda: merge_detections(self._folder), fault)
            raise
        merge_detections(self._folder)

    def _due(self) -> bool:
        rotation = self._rotation
        late = rotation.seconds and self._clock() - self._began >= rotation.seconds
        return bool(late or (rotation.size and self._size >= rotation.size))

    def _begin(self) -> None:
        self._number += 1
        self._piece = RotatedFiles(self._folder, self._number, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        self._sinks = self._open_files(self._piece.path)
        self._began, self._frames, self._size = self._clock(), 0, 0
        self._files = Sinks(self._sinks).__enter__()
        self.account["kept"] += 1

    def _end(self, error: BaseException | None) -> None:
        """Close the files of the open piece, if there is one."""
        files, self._files = self._files, None
        if files is None:
            return
        try:
            files.__exit__(type(error) if error else None, error, None)
        finally:
            self._closed.append(_Closed(self._piece, self._frames, self._piece.size()))
            self._size = 0

    def _keep_budget(self) -> None:
        """Delete closed pieces, but for the last of a run, while all together take more than they may."""
        budget, taken = self._rotation.budget, self._size + sum(closed.size for closed in self._closed)
        while budget and taken > budget and len(self._closed) > (self._files is None):
            oldest = self._closed.popleft()
            oldest.piece.delete()
            taken -= oldest.size
            self.account["kept"] -= 1
            self.account["deleted"] += 1
            self.account["deleted_frames"] += oldest.frames
            self.account["deleted_bytes"] += oldest.size


def merge_detections(folder: Path) -> None:
    """Make detections.json of those of the pieces that are there, if any is. Raises OutputError."""
    parts = [path for piece in pieces_in(folder) if (path := piece.path(COCO)).exists()]
    if parts:
        join_coco(parts, folder / COCO)


def delete(path: Path) -> None:
    """Remove an output, if it is there. Raises OutputError."""
    try:
        if path.suffix == STORE:
            zarr_store.remove(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 for what is missing."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
