"""Files that a run can still complete if the disk is full, or if its folder was renamed meanwhile."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pipeline.system.files import atomic_write, create_file, output_error, sync_folder

SUFFIX = ".reserved"
"""Added to the name of a file for which room is reserved."""


class FollowedFolder:
    """Follows a folder that is renamed or moved while files are written in it.

    Needs `/proc`; on other systems the path stays the first one.

    Args:
        path: folder that exists.

    Raises:
        OutputError: the folder cannot be opened.
    """

    def __init__(self, path: Path):
        self._first = path
        try:
            self._descriptor = None if os.name == "nt" else os.open(path, os.O_RDONLY)
        except OSError as error:
            raise output_error(path, error) from error

    @property
    def path(self) -> Path:
        """Present path of the folder; the first one if the folder was deleted."""
        if self._descriptor is None or self._is_at(self._first):
            return self._first
        with suppress(OSError):
            present = Path(os.readlink(f"/proc/self/fd/{self._descriptor}"))
            if self._is_at(present):
                return present
        return self._first

    def _is_at(self, path: Path) -> bool:
        assert self._descriptor is not None
        try:
            return os.path.samestat(os.fstat(self._descriptor), path.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Ends the following."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class ReservedFile:
    """Reserves room on the disk for the content that a file gets at the end of a run.

    The room is a file of blanks beside the target, ``NAME.reserved``. Completing it needs neither blocks nor
    an inode, except on file systems that never overwrite blocks in place.

    Args:
        path: the target.
        size: number of bytes to reserve.

    Raises:
        OutputError: there is no room.
    """

    def __init__(self, path: Path, size: int):
        self._name = path.name
        room = path.with_name(path.name + SUFFIX)
        self._folder = FollowedFolder(path.parent)
        try:
            self._file = create_file(room)
        except OSError as error:
            self._folder.close()
            raise output_error(room, error) from error
        try:
            self._write(b" " * size)
        except OSError as error:
            self.discard()
            raise output_error(room, error) from error

    @property
    def folder(self) -> Path:
        """Present path of the folder, which may have been renamed."""
        return self._folder.path

    def complete(self, content: bytes) -> None:
        """Replaces the target by `content`, as a whole. Raises OutputError if that fails."""
        target = self.folder / self._name
        try:
            self._write(content)
            os.replace(self._room, target)
            sync_folder(target.parent)
        except OSError:  # more content than room, or the room was removed
            with atomic_write(target) as partial:
                partial.write_bytes(content)
        finally:
            self.discard()

    def discard(self) -> None:
        """Releases the room."""
        self._file.close()
        remove_reserved(self.folder / self._name)
        self._folder.close()

    @property
    def _room(self) -> Path:
        return self.folder / (self._name + SUFFIX)

    def _write(self, content: bytes) -> None:
        self._file.seek(0)
        view = memoryview(content)
        while view:
            view = view[self._file.write(view) :]
        self._file.truncate()
        os.fsync(self._file.fileno())


def remove_reserved(path: Path) -> None:
    """Removes the room that a killed process has reserved for the file `path`, if there is any."""
    with suppress(OSError):
        path.with_name(path.name + SUFFIX).unlink(missing_ok=True)
