"""The door: `open_source` looks at a location and gives its frames, whatever it is.

All that can be known to be wrong raises SourceError while opening, before any output; what goes wrong later
ends the frames with `SourceLost` after the last good one.
"""

from __future__ import annotations

import glob
import re
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from pipeline.config import HIGHEST_RATE, LEAST_RATE
from pipeline.errors import SourceError, UsageError
from pipeline.frame import Frame, SourceInfo
from pipeline.readers import ImageReader, Request, SourceLost, VideoReader

__all__ = ["IMAGE_SUFFIXES", "Source", "SourceLost", "natural_order", "open_source", "redact"]

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")


class Source:
    """Iterator of the frames of one source, and the owner of its files: use it in a `with` statement.

    Iterating raises `SourceLost` where the source ends before its end. `close` may be called at any time and
    from any thread, also while another one waits for the next frame.
    """

    def __init__(self, reader: ImageReader | VideoReader):
        self._reader = reader
        self._frames = reader.frames()
        # Who closes the source may not be the thread that decodes, which must not find its container gone.
        self._lock = threading.Lock()

    @property
    def info(self) -> SourceInfo:
        """Known before the first frame; `frame_count` is the number of frames this source will give."""
        return self._reader.info

    @property
    def corrupt(self) -> int:
        """Coded pictures so far that were damaged and skipped; their indices are left out."""
        return self._reader.corrupt

    @property
    def derived_times(self) -> int:
        """Frames so far without a presentation time, which was derived from the rate."""
        return self._reader.derived_times

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        with self._lock:
            return next(self._frames)

    def close(self) -> None:
        """End the frames and close the files; later calls do nothing."""
        with self._lock:
            self._frames.close()
            self._reader.close()


def open_source(
    location: str | Path,
    *,
    start: int = 0,
    max_frames: int | None = None,
    rate: Fraction | float = 30,
) -> Source:
    """Open a video file, a folder of images, a pattern that matches images, or a single image.

    Frames from index `start` on are given, at most `max_frames`; they keep their index and presentation time
    in the source. Images come in natural order (2.png before 10.png), `rate` of them per second; videos know
    their own times. Grey video and images, also when stored as colour, give (H, W), others (H, W, 3); see
    `pipeline.pictures` for how this is settled. Rotation that the file asks for is applied.

    Raises SourceError for a location that is missing, of a kind that is not supported, or without a frame
    that can be decoded; UsageError for a wrong `start`, `max_frames` or `rate`.
    """
    if start < 0:
        raise UsageError(f"start is {start}, expected a frame index from 0")
    if max_frames is not None and max_frames < 1:
        raise UsageError(f"max_frames is {max_frames}, expected 1 or more")
    if not LEAST_RATE <= rate <= HIGHEST_RATE:
        raise UsageError(f"rate is {rate}, expected {LEAST_RATE} to {HIGHEST_RATE} frames per second")
    location = str(location)
    request = Request(redact(location), start, max_frames, Fraction(rate).limit_denominator(100_000))
    kind = next((kind for kind in _KINDS if kind.matches(location)), None)
    if kind is None:
        raise SourceError(f"{request.name}: no such file or folder")
    if kind.open is None:
        supported = ", ".join(kind.name for kind in _KINDS if kind.open)
        raise SourceError(f"{request.name} is {kind.name}, which is not supported; give {supported}")
    return Source(kind.open(location, request))


def redact(location: str) -> str:
    """`location` without the `user:password@` of an address.

    Where a password holds characters that should have been escaped, rather too much is taken than too little.
    """
    return re.sub(r"(?<=://)(?:[^\s/@]*:\S*@|[^\s/@]*@)", "", location)


def natural_order(path: Path) -> tuple:
    """Sort key by which numbers in names count as numbers: 2.png before 10.png."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if part.isdecimal() else part.casefold() for part in parts], str(path)


def _open_folder(location: str, request: Request) -> ImageReader:
    return _open_images(Path(location).iterdir(), request)


def _open_pattern(location: str, request: Request) -> ImageReader:
    return _open_images((Path(path) for path in glob.glob(location, recursive=True)), request)


def _open_images(paths: Iterator[Path], request: Request) -> ImageReader:
    try:
        images = sorted((path for path in paths if _is_image(str(path))), key=natural_order)
    except OSError as error:
        raise SourceError(f"{request.name} cannot be listed: {error.strerror}") from error
    if not images:
        raise SourceError(f"{request.name} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return ImageReader(images, request)


def _open_image(location: str, request: Request) -> ImageReader:
    return ImageReader([Path(location)], request)


def _open_video(location: str, request: Request) -> VideoReader:
    return VideoReader(Path(location), request)


def _is_image(location: str) -> bool:
    path = Path(location)
    # names with a leading dot are what file systems leave beside the pictures
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


class _Kind(NamedTuple):
    """A kind of source."""

    name: str
    """As it reads in messages."""
    matches: Callable[[str], bool]
    """Whether a location is of this kind."""
    open: Callable[[str, Request], ImageReader | VideoReader] | None
    """Makes the reader; None where the kind is known but not supported."""


# The first row that matches decides.
_KINDS = (
    _Kind("a live address", re.compile(r"[a-zA-Z][\w+.-]*://").match, None),
    _Kind("standard input", lambda location: location == "-", None),
    _Kind("a zarr store", lambda location: location.rstrip("/").endswith(".zarr"), None),
    _Kind("a folder of images", lambda location: Path(location).is_dir(), _open_folder),
    _Kind("an image", _is_image, _open_image),
    _Kind("a video file", lambda location: Path(location).exists(), _open_video),
    _Kind("a pattern of images", glob.has_magic, _open_pattern),
    _Kind("a camera", str.isdecimal, None),
)
