"""Picture files as one sequence, each page of a TIFF file a frame of its own."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.imaging.image_files import check_size, read_image
from pipeline.imaging.image_headers import tiff_pages
from pipeline.imaging.pixel_formats import image_is_grey, with_channels
from pipeline.sources.reader import Reader, Request
from pipeline.structures.frame import Frame
from pipeline.system.errors import SourceError, SourceLost

_TIFF_SUFFIXES = (".tif", ".tiff")
_PAGE_TYPES = {"L": np.uint8, "RGB": np.uint8, "I;16": np.uint16, "I;16B": np.uint16}
"""Pillow's names of what pages may hold, and the type of their samples."""


class Place(NamedTuple):
    """Where a picture is."""

    path: Path
    page: int | None = None
    """Of a TIFF file with several."""

    def __str__(self) -> str:
        return self.path.name if self.page is None else f"{self.path.name}, page {self.page + 1}"


class ImageReader(Reader):
    """Image files as one sequence, in the order given; the first sets size, bit depth, and grey or colour."""

    def __init__(self, paths: list[Path], request: Request):
        places = list(_places(paths))
        count = request.count(len(places))
        self._numbered = list(enumerate(places))[request.start : request.start + count]
        self._stack = _Stack()
        first = self._picture(places[0])
        height, width = first.shape[:2]
        self._stored = 8 * first.itemsize
        channels = 1 if image_is_grey(first) else 3
        self.info = request.info(
            width=width, height=height, announced=len(places), stored=self._stored, channels=channels
        )

    def frames(self) -> Iterator[Frame]:
        """The frames; raises SourceLost at an image that cannot be read or differs in size or bit depth."""
        info = self.info
        for index, place in self._numbered:
            try:
                picture = self._picture(place)
            except SourceError as error:
                raise SourceLost(f"{info.name}: lost at frame {index}: {error}") from error
            height, width = picture.shape[:2]
            depth = 8 * picture.itemsize
            if (width, height, depth) != (info.width, info.height, self._stored):
                before = f"{info.width}x{info.height} at {self._stored} bits"
                raise SourceLost(
                    f"{info.name}: frame size changes from {before} to {width}x{height} at {depth} bits "
                    f"at frame {index} ({place}); the frames before it were given"
                )
            image = with_channels(picture, grey=info.channels == 1)
            yield Frame(image, index, index / info.rate, info.name, info.bit_depth)

    def close(self) -> None:
        """Close a TIFF file that pages are read from."""
        self._stack.close()

    def _picture(self, place: Place) -> np.ndarray:
        return read_image(place.path) if place.page is None else self._stack.read(place)


class _Stack:
    """The TIFF file with several pages that is being read, which stays open from page to page."""

    def __init__(self):
        self._path: Path | None = None
        self._file = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._path = self._file = None

    def read(self, place: Place) -> np.ndarray:
        """A page as (H, W) grey or (H, W, 3) R, G, B; uint8 or uint16."""
        from PIL import Image

        try:
            if place.path != self._path:
                self.close()
                self._file, self._path = Image.open(place.path, formats=["TIFF"]), place.path
            self._file.seek(place.page)
            check_size(str(place), *self._file.size)
            mode = self._file.mode
            pixels = np.asarray(self._file) if mode in _PAGE_TYPES else None
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            raise SourceError(f"{place} cannot be decoded: {' '.join(str(error).split())}") from error
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, struct.error) as error:
            # Pillow does not look at all that a damaged page may say
            raise SourceError(f"{place} cannot be decoded: it is damaged ({type(error).__name__})") from error
        if pixels is None:
            raise SourceError(f"{place} holds pixels of kind {mode}; give 8 or 16 bit grey, or 8 bit colour")
        return np.ascontiguousarray(pixels, dtype=_PAGE_TYPES[mode])


def _places(paths: Iterable[Path]) -> Iterator[Place]:
    """Where the pictures are, one after the other."""
    for path in paths:
        pages = _pages(path) if path.suffix.lower() in _TIFF_SUFFIXES else []
        if len(pages) > 1:
            yield from (Place(path, page.number) for page in pages)
        else:
            yield Place(path)


def _pages(path: Path) -> list:
    try:
        with path.open("rb") as file:
            return tiff_pages(file)
    except OSError:
        return []  # told when the picture is read
