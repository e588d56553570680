"""The door: `open_source` looks at a location and gives its frames, whatever it is.

All that can be known to be wrong raises SourceError while opening, before any output; what goes wrong later
ends the frames with `SourceLost` after the last good one.
"""

from __future__ import annotations

import glob
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from pipeline.addresses import redact
from pipeline.config import SourceConfig
from pipeline.correction import Preparation
from pipeline.errors import SourceError, UsageError
from pipeline.frame import Frame, SourceInfo
from pipeline.reading import raw, streams, video, zarr_array
from pipeline.reading.images import ImageReader
from pipeline.reading.request import Reader, Request, SourceLost

__all__ = ["IMAGE_SUFFIXES", "FrameSource", "Source", "SourceLost", "natural_order", "open_source", "redact"]

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")


class FrameSource(ABC):
    """Iterator of frames, and the owner of what they come from: use it in a `with` statement.

    Iterating raises `SourceLost` where the frames end before their end. `close` may be called at any time and
    from any thread, also while another one waits for the next frame.
    """

    reconnects: int = 0
    """Connections after the first that gave frames."""
    away: str | None = None
    """Why frames no longer come, from the loss of a connection until a frame comes by another."""

    @property
    @abstractmethod
    def info(self) -> SourceInfo:
        """Known before the first frame; `frame_count` is the number of frames this source will give."""

    @property
    @abstractmethod
    def corrupt(self) -> int:
        """Coded pictures so far that were damaged and skipped; their indices are left out."""

    @property
    @abstractmethod
    def derived_times(self) -> int:
        """Frames so far without a presentation time, which was derived from the rate."""

    @abstractmethod
    def __next__(self) -> Frame:
        """The next frame."""

    @abstractmethod
    def close(self) -> None:
        """End the frames and close what they come from; later calls do nothing."""

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Source(FrameSource):
    """The frames of one file, folder or connection: what `open_source` gives."""

    def __init__(self, reader: Reader, config: SourceConfig | None = None):
        """Takes over the reader. Raises SourceError or UsageError where `config` does not fit its frames."""
        self._reader = reader
        try:
            self._prepare = Preparation(config or SourceConfig(), reader.info)
        except BaseException:
            reader.close()
            raise
        self._frames = reader.frames()
        self._closed = False
        # Who closes the source may not be the thread that decodes, which must not find its container gone.
        self._lock = threading.Lock()

    @property
    def info(self) -> SourceInfo:
        """As the reader found it when it was opened."""
        return self._reader.info

    @property
    def corrupt(self) -> int:
        """As the reader counts them."""
        return self._reader.corrupt

    @property
    def derived_times(self) -> int:
        """As the reader counts them."""
        return self._reader.derived_times

    def __next__(self) -> Frame:
        with self._lock:
            try:
                return self._prepare(next(self._frames))
            except SourceLost:
                if self._closed:  # no loss, if it was asked for
                    raise StopIteration from None
                raise

    def stop(self) -> None:
        """Called from any thread: the frames shall end soon, also for a thread that waits for the next."""
        self._closed = True
        self._reader.stop()

    def close(self) -> None:
        """Waits for a frame that is being decoded in another thread."""
        self.stop()
        with self._lock:
            self._frames.close()
            self._reader.close()


def open_source(
    location: str | Path, config: SourceConfig | None = None, *, any_size: bool = False, **changes: Any
) -> Source:
    """Open whatever gives frames: see the table at the end of this module.

    `changes` are fields of `config` with other values, such as `start=100`; None leaves one as it is. Frames
    from index `start` on are given, at most `max_frames`; they keep their index and presentation time in the
    source. Images come in natural order (2.png before 10.png), `rate` of them per second; videos know their
    own times. Grey video and images, also when stored as colour, give (H, W), others (H, W, 3); see
    `pipeline.pictures` for how this is settled. Rotation that the file asks for is applied. Where the size
    changes within a video the frames end with SourceLost; with `any_size` they go on in the other size,
    unless corrections are asked for, which are of pixels of the first.

    Raises SourceError for a location that is missing, of a kind that is not supported, or without a frame
    that can be decoded; UsageError for values that the configuration refuses or that do not fit the frames.
    """
    try:
        given = {key: value for key, value in changes.items() if value is not None}
        config = replace(config or SourceConfig(), **given)
    except ValueError as error:
        raise UsageError(f"source: {error}") from error
    location = str(location)
    any_size = any_size and not (config.offset or config.bad_pixels)
    request = Request(redact(location), config, any_size)
    kind = next((kind for kind in _KINDS if kind.matches(location, config)), None)
    if kind is None:
        raise SourceError(f"{request.name}: no such file or folder")
    return Source(kind.open(location, request), config)


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


def _is_image(location: str) -> bool:
    path = Path(location)
    # names with a leading dot are what file systems leave beside the pictures
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


class _Kind(NamedTuple):
    """A kind of source."""

    matches: Callable[[str, SourceConfig], Any]
    """Whether a location is of this kind."""
    open: Callable[[str, Request], Reader]
    """Makes the reader."""


def _by_place(matches: Callable[[str], Any]) -> Callable[[str, SourceConfig], Any]:
    return lambda location, config: matches(location)


def _is_raw(location: str, config: SourceConfig) -> bool:
    return config.format == "raw" and Path(location).is_file()


def _open_input(location: str, request: Request) -> Reader:
    return (raw if request.config.format == "raw" else streams).open_input(request)


# What is read, and by what; the first row that matches decides.
_KINDS = (
    # an address, such as rtsp://camera/1
    _Kind(_by_place(re.compile(r"[a-zA-Z][\w+.-]*://").match), streams.open_address),
    # standard input
    _Kind(_by_place(lambda location: location == "-"), _open_input),
    # a zarr store
    _Kind(
        _by_place(lambda location: location.rstrip("/").endswith(".zarr")),
        lambda location, request: zarr_array.ZarrReader(Path(location), request),
    ),
    # a file of raw frames
    _Kind(_is_raw, lambda location, request: raw.open_file(Path(location), request)),
    # a folder of images
    _Kind(_by_place(lambda location: Path(location).is_dir()), _open_folder),
    # an image
    _Kind(_by_place(_is_image), _open_image),
    # a video file
    _Kind(
        _by_place(lambda location: Path(location).exists()),
        lambda location, request: video.open_file(Path(location), request),
    ),
    # a pattern of images
    _Kind(_by_place(glob.has_magic), _open_pattern),
    # the number of a camera
    _Kind(_by_place(str.isdecimal), streams.open_camera),
)
