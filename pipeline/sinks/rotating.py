"""Rotates the output files of long runs: NAME-000001-20261121T180000Z.EXT and so on.

A set of files holds the outputs of the same frames, each of them valid without the other sets: a video starts
with a key frame at time 0. The number orders the sets; the time, in UTC, is that of the start of a set. If
the disk has a budget, the oldest sets are deleted.
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
from pipeline.sinks.base import Sink, Sinks, close_preserving_error
from pipeline.sinks.coco import join_coco
from pipeline.sinks.file_names import COCO, EVENTS, JSONL, MOT, VIDEO, ZARR
from pipeline.structures.results import Result
from pipeline.system.errors import OutputError
from pipeline.system.files import output_error
from pipeline.system.reserved import FollowedFolder

ROTATED_OUTPUTS = (JSONL, EVENTS, COCO, MOT, VIDEO, ZARR)
"""Names of the outputs that are rotated."""
_STORE_SUFFIX = Path(ZARR).suffix
_STEMS = "|".join(Path(name).stem for name in ROTATED_OUTPUTS)
_PATTERN = re.compile(rf"(?:{_STEMS})-(\d{{6,}})-(\d{{8}}T\d{{6}}Z)\.\w+(?:\.part)?")


class RotatedFiles(NamedTuple):
    """One set of rotated files in a folder."""

    folder: Path
    number: int
    began: str
    """Start of the set, UTC, as in the names of its files."""

    def path(self, name: str) -> Path:
        """Returns the path of an output in this set; the file may be missing."""
        plain = Path(name)
        return self.folder / f"{plain.stem}-{self.number:06d}-{self.began}{plain.suffix}"

    def size(self) -> int:
        """Returns the size of the files in bytes."""
        return sum(_size(self.path(name)) for name in ROTATED_OUTPUTS)

    def files(self) -> list[Path]:
        """Returns the paths of the outputs that exist."""
        return [path for name in ROTATED_OUTPUTS if (path := self.path(name)).exists()]

    def delete(self) -> None:
        """Deletes the files; results.jsonl, the record of the others, comes last. Raises OutputError."""
        for name in reversed(ROTATED_OUTPUTS):
            path = self.path(name)
            delete_output(path.with_name(f"{path.name}.part"))
            delete_output(path)


def find_rotated_files(folder: Path) -> list[RotatedFiles]:
    """Returns the sets of rotated files in a folder, oldest first.

    Raises OutputError if the folder cannot be read.
    """
    try:
        found = [match for name in os.listdir(folder) if (match := _PATTERN.fullmatch(name))]
    except OSError as error:
        raise output_error(folder, error) from error
    sets = {RotatedFiles(folder, int(match[1]), match[2]) for match in found}
    return sorted(sets, key=lambda files: files[1:])


class SizedSink(Sink, Protocol):
    """A sink that knows how much it has written."""

    @property
    def size(self) -> int:
        """Size of the output in bytes so far; used between entering and leaving."""


class BudgetShare(Protocol):
    """Other outputs of a run that share the budget of the disk with the rotated files."""

    @property
    def size(self) -> int:
        """Bytes of all of them."""

    @property
    def oldest(self) -> float | None:
        """Time at which the oldest output that may be deleted was complete; None if there is none."""

    def delete_oldest(self) -> int:
        """Deletes this output; returns its bytes. Raises OutputError if that fails."""


class _OpenFiles(NamedTuple):
    """The set of files that is being written."""

    files: RotatedFiles
    sinks: Sequence[SizedSink]
    entered: Sinks


class _ClosedFiles(NamedTuple):
    """A set of files that this run has completed."""

    files: RotatedFiles
    frames: int
    size: int
    ended: float
    """Time by the clock."""


class RotatingSink:
    """Writes results to one set of files after the other.

    Args:
        folder: folder of the files.
        open_files: returns the sinks of a set, not yet entered; its argument maps the name of an output to
            the path of its file.
        rotation: when the next set begins, always between two frames, and the budget of all sets.
        clock: monotonic clock in seconds.
        shared: other outputs that count for the budget and are deleted in the order of their age, by the same
            clock.
    """

    def __init__(
        self,
        folder: Path,
        open_files: Callable[[Callable[[str], Path]], Sequence[SizedSink]],
        rotation: Rotation,
        *,
        clock: Callable[[], float] = time.monotonic,
        shared: BudgetShare | None = None,
    ):
        self._path, self._open_files, self._rotation, self._clock = folder, open_files, rotation, clock
        self._shared = shared
        self._followed: FollowedFolder | None = None
        self._closed: deque[_ClosedFiles] = deque()
        self._open: _OpenFiles | None = None
        self._number = 0  # of the open set
        self._frames = 0  # in the open set
        self._size = 0  # of the open set, bytes
        self._began = 0.0  # start of the open set, by the clock
        self.counts = {"kept": 0, "deleted": 0, "deleted_frames": 0, "deleted_bytes": 0}
        """Sets that exist, and sets, frames and bytes that were deleted for the budget; goes to run.json."""
        if shared is not None:
            self.counts["deleted_events"] = 0

    def __enter__(self) -> Self:
        self._followed = FollowedFolder(self._path)
        try:
            self._begin()
        except BaseException:
            self._followed.close()
            raise
        return self

    def write(self, result: Result) -> None:
        """Writes one result, to a new set of files if one is due. Raises OutputError if that fails."""
        if self._frames and self._due():
            self._end(None)
            self._begin()
        assert self._open is not None
        self._open.entered.write(result)
        self._frames += 1
        self._size = sum(sink.size for sink in self._open.sinks)
        self._keep_budget()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        assert self._followed is not None
        try:
            close_preserving_error(lambda: self._finish(error), error)
        finally:
            self._followed.close()

    @property
    def _folder(self) -> Path:
        """Present path of the folder, which may have been renamed."""
        return self._followed.path if self._followed else self._path

    def _finish(self, error: BaseException | None) -> None:
        try:
            self._end(error)
            self._keep_budget()
        except OutputError as failure:
            close_preserving_error(lambda: merge_detections(self._folder), failure)
            raise
        merge_detections(self._folder)

    def _due(self) -> bool:
        """Returns whether the next result belongs to a new set."""
        rotation = self._rotation
        late = rotation.seconds and self._clock() - self._began >= rotation.seconds
        return bool(late or (rotation.size and self._size >= rotation.size))

    def _begin(self) -> None:
        """Opens the next set of files."""
        self._number += 1
        files = RotatedFiles(self._folder, self._number, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        sinks = self._open_files(files.path)
        self._began, self._frames, self._size = self._clock(), 0, 0
        self._open = _OpenFiles(files, sinks, Sinks(sinks).__enter__())
        self.counts["kept"] += 1

    def _end(self, error: BaseException | None) -> None:
        """Closes the open set of files, if there is one."""
        ended, self._open = self._open, None
        if ended is None:
            return
        try:
            ended.entered.__exit__(type(error) if error else None, error, None)
        finally:
            size = ended.files._replace(folder=self._folder).size()
            self._closed.append(_ClosedFiles(ended.files, self._frames, size, self._clock()))
            self._size = 0

    def _keep_budget(self) -> None:
        """Deletes the oldest closed outputs while all exceed the budget; the last set of files stays."""
        budget, shared = self._rotation.budget, self._shared
        if not budget:
            return
        used = self._size + sum(closed.size for closed in self._closed) + (shared.size if shared else 0)
        while used > budget:
            closed = self._closed[0].ended if len(self._closed) > (self._open is None) else None
            other = shared.oldest if shared else None
            if shared and other is not None and (closed is None or other <= closed):
                freed = shared.delete_oldest()
                self.counts["deleted_events"] += 1
            elif closed is not None:
                freed = self._delete_oldest()
            else:
                return
            used -= freed
            self.counts["deleted_bytes"] += freed

    def _delete_oldest(self) -> int:
        """Deletes the oldest closed set; returns its bytes."""
        oldest = self._closed.popleft()
        oldest.files._replace(folder=self._folder).delete()
        self.counts["kept"] -= 1
        self.counts["deleted"] += 1
        self.counts["deleted_frames"] += oldest.frames
        return oldest.size


def merge_detections(folder: Path) -> None:
    """Concatenates the rotated files of detections, if there are any, to one. Raises OutputError."""
    paths = [files.path(COCO) for files in find_rotated_files(folder)]
    parts = [path for path in paths if path.exists() and not path.is_symlink()]  # no files of others
    if parts:
        join_coco(parts, folder / COCO)


def delete_output(path: Path) -> None:
    """Deletes an output, a file or a zarr store, if it exists. Raises OutputError."""
    try:
        if path.suffix == _STORE_SUFFIX:
            zarr_store.remove_store(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


def _size(path: Path) -> int:
    """Returns the size in bytes of a file, or of all files in a folder; 0 if it is missing."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
