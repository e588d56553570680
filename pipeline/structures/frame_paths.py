"""pipeline.structures.frame_paths."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from pipeline.system.errors import UsageError

MAX_DIGITS = 18

_NUMBER = re.compile(r"\d+(?=\D*$)")


def frame_number(path: str) -> int | None:
    """The last number in the name of a file, its suffix aside: 12 for `a/frame_012.png`; None without one.

    What has more digits than 64 bits hold counts no frames.
    """
    match = _NUMBER.search(PurePosixPath(path).stem)
    return int(match[0]) if match and len(match[0]) <= MAX_DIGITS else None


def neighbour(path: str, step: int) -> str:
    """The name of the picture `step` frames after this one; '' where no number tells it."""
    place = PurePosixPath(path)
    match = _NUMBER.search(place.stem)
    if match is None or int(match[0]) + step < 0:
        return ""
    width = len(match[0]) if match[0].startswith("0") else 1
    number = f"{int(match[0]) + step:0{width}}"
    name = place.stem[: match.start()] + number + place.stem[match.end() :] + place.suffix
    return str(place.with_name(name))


def every_frame(names: Mapping[int, str], count: int) -> tuple[str, ...]:
    """A path for each of `count` frames; what `names` (frame → path) lacks is told by a neighbour."""
    paths, last = [], min(names, default=0)
    for frame in range(count):
        last = frame if frame in names else last
        paths.append(names.get(frame) or neighbour(names.get(last, ""), frame - last))
    return tuple(paths)


def inside(path: str) -> str:
    """A listed path as it is. Raises UsageError for one that leads out of the root.

    Only what is written counts: links on the disk are followed, for whoever made them may read there.
    """
    plain = path.replace("\\", "/")
    if is_absolute(plain) or os.path.normpath(plain).split("/")[0] == ".." or "\0" in plain:
        raise UsageError(f"'{path}' is not below the root of the dataset, where all its files must be")
    return path


def is_absolute(path: str) -> bool:
    return path.startswith("/") or re.match(r"[A-Za-z]:", path) is not None
