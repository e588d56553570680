"""The pixels of one sequence, from a video or from picture files in order, as grey pictures one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.imaging.pixel_formats import with_channels
from pipeline.sources.images import ImageReader
from pipeline.sources.opening import open_source
from pipeline.sources.reader import Request
from pipeline.sources.source import Source
from pipeline.system.errors import UsageError
from pipeline.system.progress import Progress

Location = Path | Sequence[Path]
"""A video file, or the picture files of a sequence in order."""


def grey_pictures(location: Location, *, name: str, progress: Progress | None = None) -> Iterator[np.ndarray]:
    """The (H, W) pictures of one sequence, all uint8 or all uint16, equal to what the pipeline reads.

    Colour picture files become grey; `progress` advances by each picture. Raises SourceError for what cannot
    be read to its end, UsageError for colour video and for depths other than 8 and 16 bits; both call the
    sequence `name`.
    """
    with _opened(location, name) as source:
        info = source.info
        if isinstance(location, Path) and info.channels != 1:
            raise UsageError(f"{name}: training reads grey video, and this one has colours; convert it first")
        if info.bit_depth not in (8, 16):
            depth = f"{info.bit_depth}-bit"
            raise UsageError(f"{name}: training reads 8- and 16-bit grey, this is {depth}; convert it first")
        for frame in source:
            yield with_channels(frame.image, grey=True)
            if progress is not None:
                progress.advance()


def _opened(location: Location, name: str) -> Source:
    if isinstance(location, Path):
        return open_source(location)
    if not location:
        raise UsageError(f"{name}: no picture files are listed; a sequence has one or more")
    return Source(ImageReader(list(location), Request(name)))
