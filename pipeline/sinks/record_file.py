"""Append-only files of records that are valid after every record."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pipeline.system.errors import OutputError
from pipeline.system.files import output_error, require_present, try_lock


class RecordFile:
    """A file of a head, records, and a tail that is written again after every record.

    Args:
        path: file to write; it is replaced, except for the first `kept` bytes.
        head: bytes before the first record.
        tail: bytes after the last record.
        kept: number of bytes of an existing file that stay.
        exclusive: lock the file until it is closed, so no other run writes to it, see
            `pipeline.system.files.require_idle`.

    Raises:
        OutputError: the file cannot be opened, or another process holds its lock.
    """

    def __init__(
        self, path: Path, *, head: bytes = b"", tail: bytes = b"", kept: int = 0, exclusive: bool = False
    ):
        self._path, self._tail = path, tail
        self._end = kept  # where the next record goes: before the tail
        try:
            mode = "r+b" if kept else "wb"
            self._file = open(path, mode, buffering=0)  # noqa: SIM115 - closed by the sink that opened it
        except OSError as error:
            raise output_error(path, error) from error
        if exclusive and not try_lock(self._file.fileno()):
            self._file.close()
            raise OutputError(f"cannot write {path}: another run writes to it; use another --output")
        try:
            self._file.truncate(kept)
            self.append(head)
        except OSError as error:
            self._file.close()
            raise output_error(path, error) from error
        except OutputError:
            self.close()
            raise

    def append(self, record: bytes) -> None:
        """Appends a record. Raises OutputError if that fails; the file is then as it was before."""
        try:
            require_present(self._file)
            self._put(record + self._tail)
        except OSError as error:
            with suppress(OSError):  # needs no space on the disk: the old tail was as long
                self._put(self._tail)
                self._file.truncate(self._end + len(self._tail))
            raise output_error(self._path, error) from error
        self._end += len(record)

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self._end + len(self._tail)

    def _put(self, data: bytes) -> None:
        self._file.seek(self._end)
        view = memoryview(data)
        while view:  # a nearly full disk accepts a part before it raises an error
            view = view[self._file.write(view) :]

    def close(self) -> None:
        """Closes the file. Raises OutputError if the operating system reports a delayed write error."""
        try:
            self._file.close()
        except OSError as error:
            raise output_error(self._path, error) from error
