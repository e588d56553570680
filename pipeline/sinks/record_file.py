"""Append-only files of records that are valid after every record."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from pipeline.system.files import create_file, open_kept, output_error, require_unchanged


class RecordFile:
    """A file of a head, records, and a tail that is written again after every record.

    Args:
        path: file to write; it is replaced, except for the first `kept` bytes.
        head: bytes before the first record.
        tail: bytes after the last record.
        kept: number of bytes of an existing file that stay.

    Raises:
        OutputError: the file cannot be opened, or is a link and would be kept.
    """

    def __init__(self, path: Path, *, head: bytes = b"", tail: bytes = b"", kept: int = 0):
        self._path, self._tail = path, tail
        self._end = kept  # where the next record goes: before the tail
        self._failed = False  # whether a record could not be written
        try:
            self._file = open_kept(path) if kept else create_file(path)
        except OSError as error:
            raise output_error(path, error) from error
        try:
            if os.fstat(self._file.fileno()).st_size < kept:
                raise OSError(errno.EBUSY, "another program has truncated it")
            self._file.truncate(kept)
            self._put(head + tail)
        except OSError as error:
            self._file.close()
            raise output_error(path, error) from error
        self._end += len(head)

    def append(self, record: bytes) -> None:
        """Appends a record. Raises OutputError if that fails; the file is then as it was before.

        Fails, too, if another program has deleted or truncated the file.
        """
        self._require_unchanged()
        try:
            self._put(record + self._tail)
        except OSError as error:
            self._failed = True
            with suppress(OSError):  # needs no space on the disk: the old tail was as long
                self._put(self._tail)
                self._file.truncate(self._end + len(self._tail))
            raise output_error(self._path, error) from error
        self._end += len(record)

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self._end + len(self._tail)

    def _require_unchanged(self) -> None:
        try:
            require_unchanged(self._file, self.size)
        except OSError as error:
            raise output_error(self._path, error) from error

    def _put(self, data: bytes) -> None:
        self._file.seek(self._end)
        view = memoryview(data)
        while view:  # a nearly full disk accepts a part before it raises an error
            view = view[self._file.write(view) :]

    def close(self) -> None:
        """Closes the file.

        Raises OutputError if another program has changed it, or the system reports a delayed write error.
        """
        try:
            if not self._failed:
                self._require_unchanged()
        finally:
            try:
                self._file.close()
            except OSError as error:
                raise output_error(self._path, error) from error
