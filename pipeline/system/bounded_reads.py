"""Reads whole files that a user names: regular files only, with a maximum size for each kind.

A device such as /dev/zero has no end, and a pipe that nobody writes to blocks its reader forever.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

MAX_SETTINGS_BYTES = 16 << 20
"""Configurations, recipes, and the records that a run keeps of itself."""
MAX_TEXT_BYTES = 1 << 30
"""Text with one item a line, such as MOT files and lists of images."""
MAX_JSON_BYTES = 2 << 30
"""COCO ground truth and results; the annotations of COCO 2017 have 0.5 GiB."""
MAX_WEIGHTS_BYTES = 32 << 30
"""Weights, and checkpoints with the state of the optimiser."""
MAX_ARRAY_BYTES = 2 << 30
"""One numpy array, or one chunk of a zarr array."""


def open_regular(path: Path, *, limit: int) -> BinaryIO:
    """Opens a file for reading. Raises OSError if it is no regular file or has more than `limit` bytes."""
    require_bounded(path, limit=limit)
    # The file may be replaced after the check: without blocking, a pipe is opened and refused below.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check(os.fstat(descriptor), limit)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bounded(path: Path, *, limit: int) -> bytes:
    """Returns the content of a file. Raises OSError as `open_regular` does, also if the file grows."""
    with open_regular(path, limit=limit) as file:
        data = file.read(os.fstat(file.fileno()).st_size + 1)
        # a file that grows, or one of /proc, whose size is stated as 0
        while len(data) <= limit and (more := file.read(min(limit, 1 << 20))):
            data += more
    if len(data) > limit:
        raise _too_large(len(data), limit)
    return data


def require_bounded(path: Path, *, limit: int) -> None:
    """Raises OSError if `path` is no regular file, nor a link to one, or has more than `limit` bytes."""
    _check(path.stat(), limit)


def _check(status: os.stat_result, limit: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    if status.st_size > limit:
        raise _too_large(status.st_size, limit)


def _too_large(size: int, limit: int) -> OSError:
    return OSError(errno.EFBIG, f"it has {_in_words(size)}, and at most {_in_words(limit)} are allowed")


def _in_words(size: int) -> str:
    return f"{size} bytes" if size < 1 << 20 else f"{size / 2**20:.1f} MiB"
