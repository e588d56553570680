"""Grey images of a recorded sequence, from a video or from image files, for training and analysis."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np

from pipeline.imaging.image_files import IMAGE_SUFFIXES, natural_order
from pipeline.imaging.pixel_formats import convert_channels
from pipeline.sources.images import ImageReader
from pipeline.sources.opening import open_source
from pipeline.sources.reader import ReadRequest
from pipeline.sources.source import Source
from pipeline.structures.annotations import VideoRecord
from pipeline.system.errors import UsageError
from pipeline.system.progress import Progress

Location = Path | Sequence[Path]
"""A video file, or the image files of a sequence in order."""


def record_location(record: VideoRecord, root: Path) -> Location:
    """Returns the files of a sequence below `root`; instead of a video there may be a folder of image files.

    Raises UsageError if annotations do not name all files.
    """
    if not record.files and not record.file_name:
        raise UsageError(f"{record.name}: the annotations name neither a video nor images for it")
    if not record.files:
        location = root / record.file_name
        return image_files_in(location) if location.is_dir() else location
    if "" in record.files:
        missing = record.files.index("")
        raise UsageError(f"{record.name}: frame {missing} has no image, and a sequence needs all of them")
    return [root / file for file in record.files]


def image_files_in(folder: Path) -> list[Path]:
    """Returns the image files of a folder in natural order, 2.png before 10.png."""
    return sorted((p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES), key=natural_order)


def grey_images(
    location: Location, *, name: str, progress: Progress | None = None
) -> Generator[np.ndarray, None, None]:
    """Yields the images (H, W) of a sequence, all uint8 or all uint16, equal to those of a run.

    Image files in colour become grey. `progress` advances by one per image.

    Raises SourceError if the sequence cannot be read to its end, and UsageError for colour video and for bit
    depths other than 8 and 16; both name the sequence `name`.
    """
    with _open(location, name) as source:
        info = source.info
        if isinstance(location, Path) and info.channels != 1:
            raise UsageError(f"{name}: training reads grey video, and this one has colours; convert it first")
        if info.bit_depth not in (8, 16):
            depth = f"{info.bit_depth}-bit"
            raise UsageError(f"{name}: training reads 8- and 16-bit grey, this is {depth}; convert it first")
        for frame in source:
            yield convert_channels(frame.image, grey=True)
            if progress is not None:
                progress.advance()


def _open(location: Location, name: str) -> Source:
    if isinstance(location, Path):
        return open_source(location, remark=False)
    if not location:
        raise UsageError(f"{name}: no image files are listed; a sequence has one or more")
    return Source(ImageReader(list(location), ReadRequest(name)), remark=False)
