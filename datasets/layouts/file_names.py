"""Paths and names in dataset layouts: paths below the root, relative links, image sizes, first frames."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from pipeline.imaging.image_files import MAX_FILE_BYTES
from pipeline.structures.frame_paths import is_absolute, require_inside_root
from pipeline.system.bounded_reads import open_regular
from pipeline.system.errors import OutputError, SourceError, UsageError


def root_relative(path: str) -> str:
    """Returns a path of a list as a path relative to the root of the dataset.

    Absolute paths, which other machines have written, are cut before their last `images/`. Raises UsageError
    for an absolute path without `images/`, and for a path that leads out of the root.
    """
    path = path.replace("\\", "/")
    if is_absolute(path):
        _, images, rest = path.rpartition("/images/")
        if not images:
            raise UsageError(f"'{path}' is absolute and has no 'images/' in it, from which it would be taken")
        path = f"images/{rest}"
    return require_inside_root(path)


def relative_posix(path: Path, root: Path) -> str:
    """Returns the path of a file relative to the root, with forward slashes."""
    return Path(os.path.relpath(path, root)).as_posix()


def sequence_file_names(names: Iterable[str]) -> list[str]:
    """Converts names of sequences to names of files.

    Raises UsageError if two of them are equal, or one cannot be the name of a file.
    """
    flat = [name.replace("/", "_") for name in names]
    wrong = next((name for name in flat if name in ("", ".", "..") or "\0" in name), None)
    if wrong is not None:
        raise UsageError(f"a sequence is called '{wrong}', which no file can be; give it another name")
    twice = next((name for name, count in Counter(flat).items() if count > 1), None)
    if twice is not None:
        raise UsageError(f"two sequences would be called '{twice}'; convert them one by one")
    return flat


def image_size(path: Path) -> tuple[int, int]:
    """Returns the (width, height) of an image file from its header. Raises SourceError if that fails."""
    from PIL import Image

    try:
        with open_regular(path, limit=MAX_FILE_BYTES) as file, Image.open(file) as image:
            return image.size
    except FileNotFoundError as error:
        raise SourceError(f"{path} is missing") from error
    except (OSError, ValueError, LookupError, Image.DecompressionBombError) as error:
        raise SourceError(f"{path} cannot be read as an image") from error


def link_relative(original: Path, link: Path) -> None:
    """Creates `link`, a relative symbolic link to `original`. Raises OutputError if that fails."""
    target = os.path.relpath(original.resolve(), link.parent.resolve())
    try:
        link.symlink_to(target)
    except OSError as error:
        raise OutputError(f"cannot link {link} to {target}: {error.strerror}") from error


def first_frame_number(numbers: Iterable[int], exists: Callable[[int], bool]) -> int:
    """Returns the number of the first frame of a sequence of which a list gives some frame `numbers`.

    Lists may leave out frames without targets, also at the beginning, so the first frame is 0 or 1 if that
    frame `exists`, and the lowest listed number otherwise.
    """
    lowest = min(numbers)
    return next((number for number in range(min(lowest, 2)) if exists(number)), lowest)
