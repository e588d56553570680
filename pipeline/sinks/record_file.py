"""Files of records that are whole at every moment, and that one process alone writes to."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pipeline.system.errors import OutputError
from pipeline.system.files import output_error, require_present, try_lock


class RecordFile:
    """A file of records that ends with a fixed `tail` at every moment; every fault is an `OutputError`.

    The first `kept` bytes of a file that is there stay. Where `alone`, no other process may write to it: the
    system keeps a lock for as long as this process lives, see `claimed`.
    """

    def __init__(
        self, path: Path, *, head: bytes = b"", tail: bytes = b"", kept: int = 0, alone: bool = False
    ):
        self._path, self._tail = path, tail
        self._end = kept  # where the next record goes: before the tail
        try:
            mode = "r+b" if kept else "wb"
            self._file = open(path, mode, buffering=0)  # noqa: SIM115 - closed by the sink that opened it
        except OSError as error:
            raise output_error(path, error) from error
        if alone and not try_lock(self._file.fileno()):
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
        """Write `record` and the tail; after a failure the file is what it was before."""
        try:
            require_present(self._file)
            self._put(record + self._tail)
        except OSError as error:
            with suppress(OSError):  # the space that the tail takes was there before
                self._put(self._tail)
                self._file.truncate(self._end + len(self._tail))
            raise output_error(self._path, error) from error
        self._end += len(record)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._end + len(self._tail)

    def _put(self, data: bytes) -> None:
        self._file.seek(self._end)
        view = memoryview(data)
        while view:  # a nearly full disk takes a part first and refuses the rest
            view = view[self._file.write(view) :]

    def close(self) -> None:
        """Close the file; `OutputError` if the system reports a late fault."""
        try:
            self._file.close()
        except OSError as error:
            raise output_error(self._path, error) from error
