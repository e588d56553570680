"""Paths of the frames of a sequence: frame numbers in file names, neighbouring names, the dataset's root."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from pipeline.system.errors import UsageError

MAX_DIGITS = 18

_NUMBER = re.compile(r"\d+(?=\D*$)")
_ROBOFLOW = re.compile(r"\.rf\.\w+$")
"""What Roboflow adds to the names of exported images."""


def frame_number(path: str) -> int | None:
    """Returns the last number in the name of a file without its suffix: 12 for `a/frame_012.png`.

    The characters that Roboflow adds do not count: 12 for `frame_012_png.rf.4fa1.jpg`. None if there is no
    number, or one with more digits than 64 bits can hold.
    """
    match = _NUMBER.search(_ROBOFLOW.sub("", PurePosixPath(path).stem))
    return int(match[0]) if match and len(match[0]) <= MAX_DIGITS else None


def neighbour_path(path: str, step: int) -> str:
    """Returns the path of the image `step` frames after this one.

    '' if its name has no number, or cannot be derived because Roboflow has added characters to it.
    """
    place = PurePosixPath(path)
    match = None if _ROBOFLOW.search(place.stem) else _NUMBER.search(place.stem)
    if match is None or int(match[0]) + step < 0:
        return ""
    width = len(match[0]) if match[0].startswith("0") else 1
    number = f"{int(match[0]) + step:0{width}}"
    name = place.stem[: match.start()] + number + place.stem[match.end() :] + place.suffix
    return str(place.with_name(name))


def paths_of_all_frames(names: Mapping[int, str], count: int) -> tuple[str, ...]:
    """Returns a path for each of `count` frames; those missing in `names` (frame → path) are extrapolated."""
    paths, last = [], min(names, default=0)
    for frame in range(count):
        last = frame if frame in names else last
        paths.append(names.get(frame) or neighbour_path(names.get(last, ""), frame - last))
    return tuple(paths)


def require_inside_root(path: str) -> str:
    """Returns a listed path unchanged. Raises UsageError if it leads out of the root of the dataset.

    Only the text of the path is checked: symbolic links on the disk are followed.
    """
    plain = path.replace("\\", "/")
    if is_absolute(plain) or os.path.normpath(plain).split("/")[0] == ".." or "\0" in plain:
        raise UsageError(f"'{path}' is not below the root of the dataset, where all its files must be")
    return path


def is_absolute(path: str) -> bool:
    """Whether a path is absolute on POSIX systems or names a drive of Windows."""
    return path.startswith("/") or re.match(r"[A-Za-z]:", path) is not None
