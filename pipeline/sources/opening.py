"""The door: `open_source` looks at a location and gives its frames, whatever it is.

All that can be known to be wrong raises SourceError while opening, before any output; what goes wrong later
ends the frames with `SourceLost` after the last good one.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config.schema import SourceConfig
from pipeline.imaging.image_files import IMAGE_SUFFIXES, natural_order
from pipeline.sources import raw, streams, video, zarr_array
from pipeline.sources.images import ImageReader
from pipeline.sources.reader import Reader, Request
from pipeline.sources.source import Source
from pipeline.system.errors import SourceError, UsageError
from pipeline.system.redaction import redact


def open_source(
    location: str | Path, config: SourceConfig | None = None, *, any_size: bool = False, **changes: Any
) -> Source:
    """Open whatever gives frames: see the table at the end of this module.

    `changes` are fields of `config` with other values, such as `start=100`; None leaves one as it is. Frames
    from index `start` on are given, at most `max_frames`; they keep their index and presentation time in the
    source. Images come in natural order (2.png before 10.png), `rate` of them per second; videos know their
    own times. Grey video and images, also when stored as colour, give (H, W), others (H, W, 3); see
    `pipeline.imaging.pixel_formats` for how this is settled. Rotation that the file asks for is applied.
    Where the size changes within a video the frames end with SourceLost; with `any_size` they go on in the
    other size, unless corrections are asked for, which are of pixels of the first.

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
