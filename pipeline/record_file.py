"""Files of records that are whole at every moment, and that one process alone writes to."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from pipeline.errors import OutputError, UsageError

_REMEDIES = {
    errno.ENOENT: "create the folder first",
    errno.ESTALE: "leave the folder of a run where it is until the run has ended",
    errno.ENOTDIR: "choose a folder for the outputs",
    errno.EEXIST: "choose a folder for the outputs",
    errno.EISDIR: "it is a folder; remove it or choose another output",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOSPC: "free space on the disk; what was written before is kept",
    errno.EDQUOT: "free space on the disk; what was written before is kept",
    errno.EFBIG: "the system's limit on file sizes was reached; what was written before is kept",
}


def output_error(path: Path, error: Exception) -> OutputError:
    """The error for the file at `path`, in one line with a remedy."""
    number = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    remedy = _REMEDIES.get(number)
    return OutputError(f"cannot write {path}: {reason}" + (f"; {remedy}" if remedy else ""))


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
        if alone and not _lock(self._file.fileno()):
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


def require_present(file: IO[bytes]) -> None:
    """Raise OSError for an open file that was deleted: what is written to it goes nowhere."""
    if os.fstat(file.fileno()).st_nlink == 0:
        raise OSError(errno.ESTALE, "it was deleted while it was written")


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """A block in which no run writes to its results.jsonl, which may be missing, or to a folder of pieces.

    Raises UsageError where one does, and OutputError for a file that cannot be opened.
    """
    if not path.exists():
        yield
        return
    descriptor = _opened(path)
    try:
        if not _lock(descriptor):
            folder = path if path.is_dir() else path.parent
            raise UsageError(f"the run in {folder} is still going: wait for its end, or stop it first")
        yield
    finally:
        os.close(descriptor)


def locked(folder: Path) -> int:
    """Lock a folder until the descriptor that is returned is closed; OutputError where another run has it."""
    descriptor = _opened(folder)
    if not _lock(descriptor):
        os.close(descriptor)
        raise OutputError(f"cannot write {folder}: another run writes to it; use another --output")
    return descriptor


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise output_error(path, error) from error


def _lock(descriptor: int) -> bool:
    """Lock an open file until it is closed, by a death of the process, too; False if another one has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems have no locks
        pass
    return True
