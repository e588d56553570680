"""Reader of image files as one sequence; each page of a TIFF file is a frame."""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.imaging.image_files import check_size, read_image
from pipeline.imaging.image_headers import Page, tiff_pages
from pipeline.imaging.pixel_formats import convert_channels, is_grey
from pipeline.sources.reader import Reader, ReadRequest
from pipeline.structures.frame import Frame
from pipeline.system.errors import SourceError, SourceLost

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_TIFF_SUFFIXES = (".tif", ".tiff")
_PAGE_TYPES = {"L": np.uint8, "RGB": np.uint8, "I;16": np.uint16, "I;16B": np.uint16}
"""Supported modes of TIFF pages, as Pillow names them → dtype of their samples."""


class ImageLocation(NamedTuple):
    """An image file, or a page of one."""

    path: Path
    page: int | None = None
    """Page of a TIFF file that has several, from 0."""

    def __str__(self) -> str:
        return self.path.name if self.page is None else f"{self.path.name}, page {self.page + 1}"


class ImageReader(Reader):
    """Reads images in the order given; the first one determines size, bit depth, and grey or colour."""

    def __init__(self, paths: list[Path], request: ReadRequest):
        """Raises SourceError if the first image cannot be read or the request does not fit the sequence."""
        locations = list(_locations(paths))
        count = request.frame_count(len(locations))
        self._numbered = list(enumerate(locations))[request.start : request.start + count]
        self._tiff = _TiffFile()
        first = self._read(locations[0])
        height, width = first.shape[:2]
        self._stored_bits = 8 * first.itemsize
        self.info = request.info(
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
                image = self._read(location)
            except SourceError as error:
                raise SourceLost(f"{info.name}: lost at frame {index}: {error}") from error
            height, width = image.shape[:2]
            bits = 8 * image.itemsize
            if (width, height, bits) != (info.width, info.height, self._stored_bits):
                before = f"{info.width}x{info.height} at {self._stored_bits} bits"
                raise SourceLost(
                    f"{info.name}: frame size changes from {before} to {width}x{height} at {bits} bits "
                    f"at frame {index} ({location}); all frames before it were read"
                )
            image = convert_channels(image, grey=info.channels == 1)
            yield Frame(image, index, index / info.rate, info.name, info.bit_depth)

    def close(self) -> None:
        """Closes the TIFF file whose pages are being read."""
        self._tiff.close()

    def _read(self, location: ImageLocation) -> np.ndarray:
        if location.page is None:
            return read_image(location.path)
        return self._tiff.read(location, location.page)


class _TiffFile:
    """The TIFF file with several pages that is being read; it stays open from page to page."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file: ImageFile | None = None

    def close(self) -> None:
        """Closes the file, if one is open."""
        if self._file is not None:
            self._file.close()
        self._path = self._file = None

    def read(self, location: ImageLocation, page: int) -> np.ndarray:
        """Reads a page as (H, W) grey or (H, W, 3) RGB, uint8 or uint16.

        Raises SourceError if it cannot be decoded or has pixels of an unsupported type.
        """
        from PIL import Image

        try:
            if self._file is None or location.path != self._path:
                self.close()
                self._file, self._path = Image.open(location.path, formats=["TIFF"]), location.path
            self._file.seek(page)
            check_size(str(location), *self._file.size)
            mode = self._file.mode
            pixels = np.asarray(self._file) if mode in _PAGE_TYPES else None
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            raise SourceError(f"{location} cannot be decoded: {' '.join(str(error).split())}") from error
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, struct.error) as error:
            # Pillow does not validate all fields of a damaged page
            raise SourceError(
                f"{location} cannot be decoded: it is damaged ({type(error).__name__})"
            ) from error
        if pixels is None:
            raise SourceError(
                f"{location} holds pixels of kind {mode}; give 8 or 16 bit grey, or 8 bit colour"
            )
        return np.ascontiguousarray(pixels, dtype=_PAGE_TYPES[mode])


def _locations(paths: Iterable[Path]) -> Iterator[ImageLocation]:
    """Yields the images of the files, in order."""
    for path in paths:
        pages = _pages(path) if path.suffix.lower() in _TIFF_SUFFIXES else []
        if len(pages) > 1:
            yield from (ImageLocation(path, page.number) for page in pages)
        else:
            yield ImageLocation(path)


def _pages(path: Path) -> list[Page]:
    try:
        with path.open("rb") as file:
            return tiff_pages(file)
    except OSError:
        return []  # reported when the image is read
