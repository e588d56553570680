"""Reader of image files as one sequence; each page or ImageJ plane of a TIFF file is a frame."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.imaging.image_files import check_size, read_samples
from pipeline.imaging.pixel_formats import convert_channels, is_grey
from pipeline.imaging.tiff_files import TiffFile
from pipeline.sources.reader import Reader, ReadRequest
from pipeline.structures.frame import Frame
from pipeline.system.errors import SourceError, SourceLost

_TIFF_SUFFIXES = (".tif", ".tiff")


class ImageLocation(NamedTuple):
    """An image file, or a page of one."""

    path: Path
    page: int | None = None
    """Frame of a TIFF file that has several, from 0."""

    def __str__(self) -> str:
        return self.path.name if self.page is None else f"{self.path.name}, page {self.page + 1}"


class ImageReader(Reader):
    """Reads images in the order given; the first one determines size, bit depth, and grey or colour."""

    def __init__(self, paths: list[Path], request: ReadRequest):
        """Raises SourceError if the first image cannot be read or the request does not fit the sequence."""
        locations = list(_locations(paths))
        self.selection = request.selection()
        if len(locations) == len(paths):  # pages of a file have no names of their own
            self.pictures = tuple(str(location.path) for location in locations)
        self._numbered = [(index, locations[index]) for index in self.selection.indices(len(locations))]
        self._tiff: TiffFile | None = None  # stays open from page to page
        self._tiff_path: Path | None = None
        first, self._stored_bits = self._read(locations[0])
        height, width = first.shape[:2]
        self.info = request.info(
            self.selection,
            width=width,
            height=height,
            total=len(locations),
            stored_bits=self._stored_bits,
            channels=1 if is_grey(first) else 3,
        )

    def frames(self) -> Generator[Frame]:
        """Yields the frames.

        Raises SourceLost if an image cannot be read or differs in size or stored bits from the first one.
        """
        info = self.info
        for index, location in self._numbered:
            try:
                image, bits = self._read(location)
            except SourceError as error:
                raise SourceLost(f"{info.name}: lost at frame {index}: {error}") from error
            height, width = image.shape[:2]
            # files of one sequence may state different depths, such as the maximum of each image
            fits = (bits > 8) == (self._stored_bits > 8) and not (
                bits > self._stored_bits and int(image.max()) >> self._stored_bits
            )
            if (width, height) != (info.width, info.height) or not fits:
                before = f"{info.width}x{info.height} at {self._stored_bits} bits"
                raise SourceLost(
                    f"{info.name}: frame size changes from {before} to {width}x{height} at {bits} bits "
                    f"at frame {index} ({location}); all frames before it were read"
                )
            image = convert_channels(image, grey=info.channels == 1)
            yield Frame(image, index, index / info.rate, info.name, info.bit_depth)

    def close(self) -> None:
        """Closes the TIFF file whose pages are being read."""
        if self._tiff is not None:
            self._tiff.close()
        self._tiff = self._tiff_path = None

    def _read(self, location: ImageLocation) -> tuple[np.ndarray, int]:
        """Reads an image and its significant bits."""
        if location.page is None:
            return read_samples(location.path)
        if self._tiff is None or location.path != self._tiff_path:
            self.close()
            self._tiff, self._tiff_path = TiffFile(location.path), location.path
        check_size(str(location), *self._tiff.size(location.page))
        return self._tiff.read(location.page)


def _locations(paths: Iterable[Path]) -> Iterator[ImageLocation]:
    """Yields the images of the files, in order."""
    for path in paths:
        count = _count_frames(path) if path.suffix.lower() in _TIFF_SUFFIXES else 1
        if count > 1:
            yield from (ImageLocation(path, number) for number in range(count))
        else:
            yield ImageLocation(path)


def _count_frames(path: Path) -> int:
    try:
        file = TiffFile(path)
    except SourceError:
        return 1  # reported when the image is read
    file.close()
    return len(file)
