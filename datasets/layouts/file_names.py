"""Pictures as frames: the number of a frame in its file's name, names of neighbours, sizes, links."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from pipeline.structures.frame_paths import _is_absolute, inside
from pipeline.system.errors import OutputError, SourceError, UsageError


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
