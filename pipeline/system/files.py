"""Files: atomic replacement, locks, fingerprints, and errors with a remedy."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.system.bounded_reads import MAX_JSON_BYTES, MAX_TEXT_BYTES, read_bounded
from pipeline.system.errors import MoteError, OutputError, UsageError

_REMEDIES = {
    errno.ENOENT: "create the folder first",
    errno.ESTALE: "leave the folder of a run where it is until the run has ended",
    errno.ENOTDIR: "choose a folder for the outputs",
    errno.EEXIST: "choose a folder for the outputs",
    errno.EISDIR: "it is a folder; remove it or choose another output",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ELOOP: "put the file itself in its place, or remove it",
    errno.EBUSY: "leave the files of a run alone until it has ended; --rotate-every starts new ones",
    errno.ENOSPC: "free space on the disk; what was written before is kept",
    errno.EDQUOT: "free space on the disk; what was written before is kept",
    errno.EFBIG: "the system's limit on file sizes was reached; what was written before is kept",
}

_EDGE = 1 << 20
"""Bytes at the start and at the end of a file that its fingerprint covers."""


def fingerprint(location: str) -> str | None:
    """Returns the SHA-256 of the size, the first and the last MiB of a file; None if it is no regular file.

    Fast for files of any size, since at most 2 MiB are read.
    """
    path = Path(location)
    try:
        if not path.is_file():
            return None
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = hashlib.sha256(f"{size} ".encode() + file.read(_EDGE))
            file.seek(max(_EDGE, size - _EDGE))
            digest.update(file.read(_EDGE))
    except (OSError, ValueError):  # ValueError: a NUL character in the name
        return None
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def output_error(path: Path, error: Exception) -> OutputError:
    """Returns the OutputError for a failure to write `path`, with a remedy if the cause is a known one."""
    number = getattr(error, "errno", None)
    if number == errno.ENOENT and path.parent.is_dir():
        number = None  # the folder is there, a file in it was removed
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    remedy = _REMEDIES.get(number) if number is not None else None
    return OutputError(f"cannot write {path}: {reason}" + (f"; {remedy}" if remedy else ""))


@contextmanager
def atomic_write(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yields a temporary path; its file replaces `path` if the block ends without an exception.

    Like `replace_on_success`, but an OSError in the block, or of the replacement, becomes an OutputError with
    a remedy.
    """
    try:
        with replace_on_success(path, sync=sync) as partial:
            yield partial
    except OSError as error:
        raise output_error(path, error) from error


@contextmanager
def replace_on_success(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yields a temporary path; its file replaces `path` if the block ends without an exception.

    The temporary file lies beside `path` and has its name with ".part" added; after an exception it is
    removed and `path` is unchanged, so readers find the old content or the new one, never a mixture. With
    `sync` this holds for a power failure, too, at the cost of waiting for the disk; without it only for the
    death of the process. Raises OSError if the file cannot be replaced.
    """
    partial = path.with_name(f"{path.name}.part")
    try:
        partial.unlink(missing_ok=True)  # of a killed process, or a link, through which would be written
        yield partial
        if sync:
            with partial.open("r+b") as file:
                os.fsync(file.fileno())
        partial.replace(path)
        if sync:
            sync_folder(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk, if the system can do that."""
    with suppress(OSError):  # Windows opens no folders, and some network file systems synchronise none
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def create_file(path: Path) -> io.FileIO:
    """Creates a file and opens it for unbuffered writing. Raises OSError if that fails.

    A file or link with its name is removed first: nothing is written through a link to another folder.
    """
    path.unlink(missing_ok=True)
    return io.FileIO(path, "xb")


def open_kept(path: Path) -> io.FileIO:
    """Opens an existing file for unbuffered reading and writing.

    Raises OSError if that fails, also if the file is a link, has a second name, or is no regular file.
    """
    require_regular(path)
    file = io.FileIO(os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)), "r+b")
    try:
        if os.fstat(file.fileno()).st_nlink > 1:
            raise OSError(errno.ELOOP, "it is a link: the file has a second name")
    except OSError:
        file.close()
        raise
    return file


def require_regular(path: Path) -> None:
    """Raises OSError if `path` is missing, a symbolic link, or no regular file."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "it is a link")
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.ELOOP, "it is no regular file")


def require_unchanged(file: io.FileIO, size: int) -> None:
    """Raises OSError if an open file was deleted or has another size, since it would then be damaged.

    The errors are ESTALE and EBUSY. `size` is what this process has written, in bytes.
    """
    status = os.fstat(file.fileno())
    if status.st_nlink == 0:
        raise OSError(errno.ESTALE, "it was deleted while it was written")
    if status.st_size != size:
        raise OSError(errno.EBUSY, "another program changed its size while it was written")


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Locks the output folder of a run during the block.

    A run holds this lock from before it removes or writes anything until its last file is closed. Raises
    OutputError if another run holds the lock or the folder cannot be opened.
    """
    busy = OutputError(f"cannot write {folder}: another run writes to it; use another --output")
    with _locked(folder, busy):
        yield


@contextmanager
def require_idle(folder: Path) -> Iterator[None]:
    """Locks the output folder of a run that has ended during the block, as `lock_folder` does.

    A missing folder is not locked. Raises UsageError if its run is still going, and OutputError if the folder
    cannot be opened.
    """
    if not folder.exists():
        yield
        return
    busy = UsageError(f"the run in {folder} is still going: wait for its end, or stop it first")
    with _locked(folder, busy):
        yield


@contextmanager
def _locked(folder: Path, busy: MoteError) -> Iterator[None]:
    """Locks a folder during the block; raises `busy` if it is locked."""
    descriptor = _open_for_lock(folder)
    try:
        if not try_lock(descriptor):
            raise busy
        yield
    finally:
        os.close(descriptor)


def _open_for_lock(path: Path) -> int:
    try:
        return open_to_lock(path)
    except OSError as error:
        raise output_error(path, error) from error


def open_to_lock(path: Path) -> int:
    """Returns a descriptor of a file or folder for `try_lock`. Raises OSError if it cannot be opened."""
    windows_folder = os.name == "nt" and path.is_dir()  # cannot be opened there, and has no lock
    return os.open(os.devnull if windows_folder else path, os.O_RDONLY)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Locks an open file or folder; returns False if it is locked through another descriptor.

    Several descriptors can have a `shared` lock at the same time, but none beside an exclusive one. The lock
    ends when the descriptor is closed, at the latest with the process, however it dies. It is taken on the
    output itself, not on a lock file beside it, which a killed run would leave behind. On file systems
    without locks the result is True.
    """
    try:
        if shared:
            return _try_shared_lock(descriptor)
        from filelock import lock_descriptor  # takes 20 ms to import, which `--help` need not pay

        return lock_descriptor(descriptor, blocking=False)
    except OSError:  # some network file systems have no locks
        return True


def _try_shared_lock(descriptor: int) -> bool:
    """Takes the lock of `filelock.lock_descriptor` in its shared form, which that library does not offer."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows: folders have no lock there, and files are not locked so
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_text(path: Path, *, kind: str) -> str:
    """Returns the content of a UTF-8 text file. Raises UsageError, which calls it a `kind`, if that fails."""
    try:
        return read_bounded(path, limit=MAX_TEXT_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"cannot read {kind} {path}: {reason}") from error


def load_json(path: Path, *, kind: str) -> Any:
    """Returns the content of a JSON file in UTF-8, 16 or 32, with or without a byte-order mark.

    Raises UsageError, naming its `kind` (plural), if it is none.
    """
    try:
        data = read_bounded(path, limit=MAX_JSON_BYTES)
        return json.loads(data.decode(json.detect_encoding(data)))
    except OSError as error:
        raise UsageError(f"cannot read {kind} {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # ValueError also for numbers with thousands of digits
        raise UsageError(f"{kind} {path} are not JSON: {error}") from error
