"""TIFF files: their frames at full resolution, and reading these with their samples as stored.

tifffile reads the directories. The samples are assembled here, because tifffile alone reads neither LZW nor
samples of 9 to 15 bits. Only pages in other forms, such as JPEG and fax, are decoded by Pillow as a whole.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from pipeline.imaging.image_headers import tiff_pages
from pipeline.system.errors import SourceError
from pipeline.system.packages import require_package

if TYPE_CHECKING:
    import tifffile

_NONE, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS = 1, 5, 8, 32946, 32773
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE = range(4)
_MAX_SAMPLES = 16
"""Maximum number of samples per pixel, alpha and other extra samples included."""
_REVERSED_BITS = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)
_SHORT, _LONG = 3, 4


class TiffFile:
    """An open TIFF file; its frames are its pages at full resolution, or the planes of an ImageJ stack.

    ImageJ writes a stack as one page whose data are followed by those of the other planes.
    """

    def __init__(self, path: Path):
        """Raises SourceError if the file cannot be opened or holds no page."""
        for package in ("tifffile", "PIL"):
            require_package(package, "reading TIFF")
        import tifffile

        # damage is reported by one error
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module="PIL")
        self._path = path
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}") from error
        try:
            self._pages = tiff_pages(self._file)
            if not self._pages:
                raise SourceError(f"{path} cannot be decoded: it is damaged or no image")
            self._file.seek(0)
            self._tiff = tifffile.TiffFile(self._file)
            self._planes = self._count_planes() if len(self._pages) == 1 else 1
        except SourceError:
            self._file.close()
            raise
        except Exception as error:  # tifffile raises errors of many types for damaged directories
            self._file.close()
            raise _damaged(path, error) from error

    def __len__(self) -> int:
        """Returns the number of frames."""
        return len(self._pages) if len(self._pages) > 1 else self._planes

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def size(self, number: int) -> tuple[int, int]:
        """Returns the (width, height) that the directory of a frame claims; check it before `read`."""
        page = self._pages[number if len(self._pages) > 1 else 0]
        return page.width, page.height

    def read(self, number: int) -> tuple[np.ndarray, int]:
        """Reads a frame as (H, W) grey or (H, W, 3) RGB, uint8 or uint16, and its significant bits, 8 to 16.

        Samples of 9 to 16 bits are returned as stored, fewer are stretched to 8 bits. Where white is 0, the
        samples are inverted; palettes are resolved, alpha is dropped, the orientation is applied.

        Raises SourceError if it cannot be decoded or has samples of an unsupported type.
        """
        name = f"{self._path.name}, page {number + 1}" if len(self) > 1 else str(self._path)
        page = self._pages[number if len(self._pages) > 1 else 0]
        try:
            directory = self._directory(page.offset)
            depth, format_ = int(directory.bitspersample), int(directory.sampleformat)
            if depth > 16 or format_ != 1:
                kind = {1: "uint", 2: "int", 3: "float"}.get(format_, "other ")
                raise SourceError(
                    f"{name} holds {kind}{depth} pixels; only 8 and 16 bit integers are supported"
                )
            if _is_plain(directory):
                skip = number * _plane_bytes(directory) if self._planes > 1 else 0
                image, bits = _displayed(self._assemble(directory, skip), directory)
            else:
                return self._decode(page.number, name), 8
            return _oriented(image, directory), bits
        except SourceError:
            raise
        except Exception as error:
            raise _damaged(name, error) from error

    def _directory(self, offset: int) -> tifffile.TiffPage:
        import tifffile

        self._tiff.filehandle.seek(offset)
        directory = tifffile.TiffPage(self._tiff, index=0)
        if directory.samplesperpixel not in range(1, _MAX_SAMPLES + 1):
            raise ValueError(f"{directory.samplesperpixel} samples per pixel")
        return directory

    def _count_planes(self) -> int:
        """Returns the number of planes of an ImageJ stack behind the only page; 1 for other files."""
        import tifffile

        directory = self._directory(self._pages[0].offset)
        if not directory.is_imagej or directory.compression != _NONE or not _is_plain(directory):
            return 1
        described = tifffile.tifffile.imagej_description_metadata(directory.imagej_description or "")
        count = int(described.get("images", 1))
        # a stack whose end is missing is announced in full, so that its loss is reported
        data = os.fstat(self._file.fileno()).st_size - directory.dataoffsets[0]
        return count if 1 <= count <= data / _plane_bytes(directory) + 1 else 1

    def _assemble(self, page: tifffile.TiffPage, skip: int) -> np.ndarray:
        """Returns the samples of a page as stored: (H, W, samples), uint8 or uint16.

        `skip` is the distance in bytes from the first plane of a stack.
        """
        height, width, bits = page.imagelength, page.imagewidth, int(page.bitspersample)
        separate = page.planarconfig == 2 and page.samplesperpixel > 1
        together = 1 if separate else page.samplesperpixel  # samples of a pixel that lie side by side
        rows, columns = (
            (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, height), width)
        )
        if rows < 1 or columns < 1 or rows * columns > 4 * max(height * width, 1 << 20):
            raise ValueError(f"it is stored in pieces of {columns}x{rows}")
        samples = np.zeros((height, width, page.samplesperpixel), np.uint8 if bits <= 8 else np.uint16)
        pieces = iter(zip(page.dataoffsets, page.databytecounts, strict=True))
        for plane in range(page.samplesperpixel if separate else 1):
            for top in range(0, height, rows):
                for left in range(0, width, columns):
                    offset, size = next(pieces)
                    count = rows if page.is_tiled else min(rows, height - top)
                    encoded = self._read(offset + skip, size)
                    piece = _samples(encoded, page, count, columns, together)
                    part = samples[top : top + rows, left : left + columns, plane : plane + together]
                    part[:] = piece[: part.shape[0], : part.shape[1]]
        return samples

    def _read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(size)
        if not data or len(data) < size:
            raise ValueError("the file is cut off")
        return data

    def _decode(self, number: int, name: str) -> np.ndarray:
        """Decodes a page of 8 bits by Pillow; `number` counts all directories."""
        from PIL import Image

        with Image.open(self._path, formats=["TIFF"]) as file:
            file.seek(number)
            if file.mode not in ("1", "L", "RGB", "YCbCr"):
                raise SourceError(f"{name} holds pixels of kind {file.mode}; give grey or RGB, 8 or 16 bit")
            return np.array(file.convert("L" if file.mode in ("1", "L") else "RGB"))


def _is_plain(page: tifffile.TiffPage) -> bool:
    """Returns whether the samples of a page can be assembled here."""
    compressions = (_NONE, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS)
    photometrics = (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE)
    predicted = page.predictor == 2 and page.bitspersample in (8, 16)
    return (
        page.compression in compressions
        and page.photometric in photometrics
        and (page.predictor == 1 or predicted)
    )


def _plane_bytes(page: tifffile.TiffPage) -> int:
    """Returns the bytes of one uncompressed plane."""
    row = -(-page.imagewidth * page.samplesperpixel * int(page.bitspersample) // 8)
    return row * page.imagelength


def _samples(encoded: bytes, page: tifffile.TiffPage, rows: int, columns: int, together: int) -> np.ndarray:
    """Returns the samples of a strip or tile: (rows, columns, together), uint8 or uint16."""
    bits = int(page.bitspersample)
    row_bytes = -(-columns * together * bits // 8)
    if page.fillorder == 2:
        encoded = _REVERSED_BITS[np.frombuffer(encoded, np.uint8)].tobytes()
    if page.compression == _NONE:
        stored = np.frombuffer(encoded, np.uint8, rows * row_bytes).reshape(rows, row_bytes)
    else:
        stored = _decompress(encoded, int(page.compression), rows, row_bytes)
    if bits == 8:
        samples: np.ndarray = stored
    elif bits == 16:
        samples = stored.view(f"{page.parent.byteorder}u2").astype(np.uint16)
    else:  # the first bit is the highest, in both byte orders
        digits = np.unpackbits(stored, axis=1, count=columns * together * bits)
        weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint16)
        samples = digits.reshape(rows, -1, bits).astype(np.uint16) @ weights
        samples = samples.astype(np.uint8 if bits < 8 else np.uint16)
    samples = samples.reshape(rows, columns, together)
    if page.predictor == 2:  # each sample is stored as the difference from the one before it
        return np.cumsum(samples, axis=1, dtype=samples.dtype)
    return samples


def _decompress(encoded: bytes, compression: int, rows: int, row_bytes: int) -> np.ndarray:
    """Decompresses a strip or tile to (rows, row_bytes) uint8. Raises an error if it is damaged."""
    if compression in (_DEFLATE, _OLD_DEFLATE):
        data = zlib.decompressobj().decompress(encoded, rows * row_bytes)
        return np.frombuffer(data, np.uint8, rows * row_bytes).reshape(rows, row_bytes)
    # Pillow decompresses it as the 8-bit grey image of a file that holds nothing else
    from PIL.TiffImagePlugin import TiffImageFile

    tags = (
        (256, _LONG, row_bytes),
        (257, _LONG, rows),
        (258, _SHORT, 8),
        (259, _SHORT, compression),
        (262, _SHORT, _BLACK_IS_ZERO),
        (273, _LONG, 8 + 2 + 9 * 12 + 4),
        (277, _SHORT, 1),
        (278, _LONG, rows),
        (279, _LONG, len(encoded)),
    )
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    file = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + encoded
    with TiffImageFile(io.BytesIO(file)) as image:
        return np.array(image)


def _displayed(samples: np.ndarray, page: tifffile.TiffPage) -> tuple[np.ndarray, int]:
    """Returns the image (H, W) or (H, W, 3) of stored samples (H, W, samples), and its significant bits."""
    bits = int(page.bitspersample)
    if page.photometric == _PALETTE:
        colours = np.asarray(page.colormap).reshape(3, -1)
        if colours.max() > 255:  # some programs write 8 bits in spite of the specification
            colours = colours >> 8
        return np.moveaxis(colours.astype(np.uint8)[:, samples[..., 0]], 0, -1).copy(), 8
    image = samples[..., :3] if page.photometric == _RGB and samples.shape[2] >= 3 else samples[..., 0]
    peak = (1 << bits) - 1
    if page.photometric == _WHITE_IS_ZERO:
        image = peak - image
    if bits < 8:
        image = np.rint(image * (255 / peak)).astype(np.uint8)
    return np.ascontiguousarray(image), max(bits, 8)


def _oriented(image: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """Applies the orientation of a page, 1 to 8 as in EXIF."""
    tag = page.tags.get(274)
    orientation = int(tag.value) if tag is not None else 1
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    mirror_x, mirror_y = orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
    return np.ascontiguousarray(image[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1])


def _damaged(name: object, error: Exception) -> SourceError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return SourceError(f"{name} cannot be decoded: it is damaged ({reason[:200]})")
