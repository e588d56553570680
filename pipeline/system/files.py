"""Whether a file is still the same, found out without reading all of it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.system.errors import OutputError, UsageError

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


_PART = 1 << 20
"""Bytes at the start and at the end that are looked at."""


def fingerprint(location: str) -> str | None:
    """SHA-256 of the size, the first and the last megabyte of a file; None for what is no regular file."""
    path = Path(location)
    try:
        if not path.is_file():
            return None
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = hashlib.sha256(f"{size} ".encode() + file.read(_PART))
            file.seek(max(_PART, size - _PART))
            digest.update(file.read(_PART))
    except (OSError, ValueError):  # ValueError: an address with a NUL in it
        return None
    return digest.hexdigest()


def output_error(path: Path, error: Exception) -> OutputError:
    """The error for the file at `path`, in one line with a remedy."""
    number = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    remedy = _REMEDIES.get(number)
    return OutputError(f"cannot write {path}: {reason}" + (f"; {remedy}" if remedy else ""))


def require_present(file: IO[bytes]) -> None:
    """Raise OSError for an open file that was deleted: what is written to it goes nowhere."""
    if os.fstat(file.fileno()).st_nlink == 0:
        raise OSError(errno.ESTALE, "it was deleted while it was written")


@contextmanager
def require_idle(path: Path) -> Iterator[None]:
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


def lock_folder(folder: Path) -> int:
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


def read_text(path: Path, *, kind: str) -> str:
    """A text file. Raises UsageError, which calls it a `kind`, when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"cannot read {kind} {path}: {reason}") from error


def load_json(path: Path, *, kind: str) -> Any:
    """What a JSON file holds. Raises UsageError, which calls the file `kind` (a plural), when it cannot."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {kind} {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # ValueError: also for numbers of thousands of digits
        raise UsageError(f"{kind} {path} are not JSON: {error}") from error
