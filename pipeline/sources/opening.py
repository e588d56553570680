"""Opens a source by its location. The first kind in this list that matches the location reads it:

- an address such as rtsp://camera/1: `pipeline.sources.streams`, with FFmpeg
- "-", standard input: `pipeline.sources.raw` if `source.format` is raw, otherwise `pipeline.sources.streams`
- a folder that ends in .zarr: `pipeline.sources.zarr_array`
- a file, if `source.format` is raw: `pipeline.sources.raw`
- a folder of images: `pipeline.sources.images`
- an image file, each page of a TIFF file being a frame: `pipeline.sources.images`
- any other file: `pipeline.sources.video`, with FFmpeg
- a pattern of image files such as clip/*.png: `pipeline.sources.images`
- the number of a camera: `pipeline.sources.streams`, with Video4Linux
"""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config.applicability import SourceKind
from pipeline.config.schema import SourceConfig
from pipeline.imaging.image_files import IMAGE_SUFFIXES, natural_order
from pipeline.sources import raw, streams, video, zarr_array
from pipeline.sources.images import ImageReader
from pipeline.sources.packets.ring import PacketRing
from pipeline.sources.reader import Reader, ReadRequest
from pipeline.sources.source import ReaderFault, Source
from pipeline.system.errors import MoteError, SourceError, UsageError
from pipeline.system.redaction import looks_like_address, redact_location
from pipeline.system.terminal import printable

log = logging.getLogger(__name__)

_ADDRESS = re.compile(r"[a-zA-Z][\w+.-]*://")
_NUMBERED = re.compile(r"%0?\d*d|#+(?=\.)")
"""Matches the place of the number in the patterns of FFmpeg, OpenCV and others: %d, %05d, ####."""


def open_source(
    location: str | Path,
    config: SourceConfig | None = None,
    *,
    allow_resize: bool = False,
    remark: bool = True,
    packets: PacketRing | None = None,
    **changes: Any,
) -> Source:
    """Opens any kind of source that this module lists.

    Frames from index `start` on are yielded, at most `max_frames`, with their index and presentation time in
    the source. Images come in natural order (2.png before 10.png) at `rate` frames per second; videos have
    presentation times. Grey video and images, also if stored as colour, give (H, W), others (H, W, 3); see
    `pipeline.imaging.pixel_formats`. Rotation that the file declares is applied.

    Args:
        location: path, pattern, address, camera number or "-".
        config: the frames to read and the properties to assume; None for the defaults.
        allow_resize: continue with frames of another size if the size changes within a video; otherwise, and
            if pixels are corrected, such a change raises SourceLost.
        remark: warn if the frames use a small part of their scale.
        packets: gets the coded packets of a stream or of standard input, if they can be copied into a video
            that browsers play; `Source.coded` is the ring then. None: no packet is kept.
        changes: fields of `config` to replace, such as `start=100`; None leaves a field unchanged.

    Raises SourceError if the location does not exist, is of no supported kind, or has no frame that can be
    decoded, and UsageError if values of the configuration are invalid or do not fit the frames. Iteration
    raises SourceLost, after the last good frame, if the source ends early.
    """
    try:
        given = {key: value for key, value in changes.items() if value is not None}
        config = replace(config or SourceConfig(), **given)
    except ValueError as error:
        raise UsageError(f"source: {error}") from error
    location = str(location)
    allow_resize = allow_resize and not (config.offset or config.bad_pixels)
    request = ReadRequest(redact_location(location), config, allow_resize, packets)
    kind = next((kind for kind in _KINDS if kind.matches(location, config)), None)
    if kind is None:
        raise SourceError(f"{request.name}: no such file or folder{_remedy(location)}")
    try:
        return Source(kind.open(location, request), config, remark=remark)
    except MoteError:
        raise
    except Exception as error:
        raise ReaderFault(request.name, error) from error


def _remedy(location: str) -> str:
    """Returns how to write a location that is meant otherwise than it is read, as the end of a message."""
    if looks_like_address(location):
        return "; an address has the form rtsp://HOST/PATH"
    if _NUMBERED.search(location):
        return f"; for numbered images give '{_NUMBERED.sub('*', location)}'"
    return ""


def waits_for_peer(location: str) -> bool:
    """Returns whether opening a location may wait for another program or a device."""
    return location == "-" or location.isdecimal() or _ADDRESS.match(location) is not None


def source_kind(location: str, config: SourceConfig) -> SourceKind | None:
    """Returns the kind of a location; None if there is nothing that can be opened."""
    return next((kind.name for kind in _KINDS if kind.matches(location, config)), None)


class _Kind(NamedTuple):
    """A kind of source."""

    name: SourceKind
    matches: Callable[[str, SourceConfig], bool]
    """Returns whether a location is of this kind."""
    open: Callable[[str, ReadRequest], Reader]
    """Returns the reader of a location."""


def _is_image(location: str) -> bool:
    path = Path(location)
    # names with a leading dot are metadata that file systems store beside images
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _is_raw(location: str, config: SourceConfig) -> bool:
    return config.format == "raw" and Path(location).is_file()


def _open_input(_: str, request: ReadRequest) -> Reader:
    return raw.open_input(request) if request.config.format == "raw" else streams.open_input(request)


def _open_folder(location: str, request: ReadRequest) -> ImageReader:
    return _open_images(Path(location).iterdir(), request)


def _open_pattern(location: str, request: ReadRequest) -> ImageReader:
    return _open_images((Path(path) for path in glob.glob(location, recursive=True)), request)


def _open_images(paths: Iterable[Path], request: ReadRequest) -> ImageReader:
    try:
        images = sorted((path for path in paths if _is_image(str(path))), key=natural_order)
    except OSError as error:
        raise SourceError(f"{request.name} cannot be listed: {error.strerror}") from error
    if not images:
        raise SourceError(f"{request.name} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return ImageReader(_without_copies(images, request.name), request)


def _without_copies(images: Sequence[Path], name: str) -> list[Path]:
    """Returns the images, of those with the same name in several formats only one, and logs a warning.

    The format is a lossless one if there is any.
    """
    best: dict[Path, Path] = {}
    for path in sorted(images, key=lambda path: path.suffix.lower() in (".jpg", ".jpeg")):
        best.setdefault(path.with_suffix(""), path)
    kept = set(best.values())
    left_out = [path for path in images if path not in kept]
    if left_out:
        log.warning(
            "%s: %d images have the name of another one in a better format, and are left out (first: %s); "
            "give a pattern such as '*%s' to read them instead",
            printable(name),
            len(left_out),
            printable(left_out[0].name),
            left_out[0].suffix,
        )
    return [path for path in images if path in kept]


# In the order of the list at the top of this module.
_KINDS = (
    _Kind("address", lambda location, _: _ADDRESS.match(location) is not None, streams.open_address),
    _Kind("input", lambda location, _: location == "-", _open_input),
    _Kind(
        "zarr",
        lambda location, _: location.rstrip("/").endswith(".zarr"),
        lambda location, request: zarr_array.ZarrReader(Path(location), request),
    ),
    _Kind("raw file", _is_raw, lambda location, request: raw.open_file(Path(location), request)),
    _Kind("images", lambda location, _: Path(location).is_dir(), _open_folder),
    _Kind(
        "images",
        lambda location, _: _is_image(location),
        lambda location, request: ImageReader([Path(location)], request),
    ),
    _Kind(
        "video file",
        lambda location, _: Path(location).exists(),
        lambda location, request: video.open_file(Path(location), request),
    ),
    _Kind("images", lambda location, _: glob.has_magic(location), _open_pattern),
    _Kind("camera", lambda location, _: location.isdecimal(), streams.open_camera),
)
