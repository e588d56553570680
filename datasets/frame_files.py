"""Pictures as frames: the number of a frame in its file's name, names of neighbours, sizes, links."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from pipeline.errors import OutputError, SourceError, UsageError

MOST_DIGITS = 18
_NUMBER = re.compile(r"\d+(?=\D*$)")


def frame_number(path: str) -> int | None:
    """The last number in the name of a file, its suffix aside: 12 for `a/frame_012.png`; None without one.

    What has more digits than 64 bits hold counts no frames.
    """
    match = _NUMBER.search(PurePosixPath(path).stem)
    return int(match[0]) if match and len(match[0]) <= MOST_DIGITS else None


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


def relative(path: str) -> str:
    """A listed path relative to the root: of absolute ones, as other machines wrote them, the part from
    the last `images/` on.

    Raises UsageError for an absolute path without such a part, and for one that leads out of the root.
    """
    path = path.replace("\\", "/")
    if _is_absolute(path):
        _, images, rest = path.rpartition("/images/")
        if not images:
            raise UsageError(f"'{path}' is absolute and has no 'images/' in it, from which it would be taken")
        path = f"images/{rest}"
    return inside(path)


def inside(path: str) -> str:
    """A listed path as it is. Raises UsageError for one that leads out of the root.

    Only what is written counts: links on the disk are followed, for whoever made them may read there.
    """
    plain = path.replace("\\", "/")
    if _is_absolute(plain) or os.path.normpath(plain).split("/")[0] == ".." or "\0" in plain:
        raise UsageError(f"'{path}' is not below the root of the dataset, where all its files must be")
    return path


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or re.match(r"[A-Za-z]:", path) is not None


def listed_path(path: Path, root: Path) -> str:
    """The path of a file relative to the root, with forward slashes."""
    return Path(os.path.relpath(path, root)).as_posix()


def flat_names(names: Iterable[str]) -> list[str]:
    """Names of sequences as names of files. Raises UsageError where two would be the same, or one is none."""
    flat = [name.replace("/", "_") for name in names]
    wrong = next((name for name in flat if name in ("", ".", "..") or "\0" in name), None)
    if wrong is not None:
        raise UsageError(f"a sequence is called '{wrong}', which no file can be; give it another name")
    twice = next((name for name, count in Counter(flat).items() if count > 1), None)
    if twice is not None:
        raise UsageError(f"two sequences would be called '{twice}'; convert them one by one")
    return flat


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image file as stored, from its head alone. Raises SourceError."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError as error:
        raise SourceError(f"{path} is missing") from error
    except (OSError, ValueError, LookupError, Image.DecompressionBombError) as error:
        raise SourceError(f"{path} cannot be read as an image") from error


def link(original: Path, place: Path) -> None:
    """Make `place` a relative link to the `original`. Raises OutputError."""
    target = os.path.relpath(original.resolve(), place.parent.resolve())
    try:
        place.symlink_to(target)
    except OSError as error:
        raise OutputError(f"cannot link {place} to {target}: {error.strerror}") from error


def first_frame(numbered: Iterable[int], exists: Callable[[int], bool]) -> int:
    """The number of a sequence's first frame: 0 or 1 where such a picture `exists`, else the lowest listed.

    Lists may leave out frames without targets, also at the beginning.
    """
    lowest = min(numbered)
    return next((number for number in range(min(lowest, 2)) if exists(number)), lowest)
