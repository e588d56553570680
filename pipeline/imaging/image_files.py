"""Image files: supported formats, size limits, and reading at full bit depth."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import cv2
import numpy as np

from pipeline.imaging.image_headers import claimed_maximum, claimed_size, is_tiff, without_metadata
from pipeline.imaging.tiff_files import TiffFile
from pipeline.system.bounded_reads import read_bounded
from pipeline.system.errors import SourceError

MAX_PIXELS = 100_000_000
"""Pixels per frame; a file that claims more is refused before memory is allocated for it."""

MAX_FILE_BYTES = 1 << 30
"""Size of an image file."""

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg", ".pgm")

MASK_ENDINGS = ("", "_pixels0", "_mask")
"""Endings that the name of a mask may add to the name of its image."""


def check_size(name: str, width: int, height: int) -> None:
    """Raises SourceError if a frame has no pixels or more than `MAX_PIXELS`."""
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        limit = f"1 pixel to {MAX_PIXELS // 10**6} megapixels"
        raise SourceError(f"{name}: frames of {width}x{height} are refused; {limit} are allowed")


def read_image(path: Path) -> np.ndarray:
    """Reads an image file as (H, W) grey or (H, W, 3) RGB, uint8 or uint16; see `read_samples`."""
    return read_samples(path)[0]


def read_samples(path: Path) -> tuple[np.ndarray, int]:
    """Reads an image file as (H, W) grey or (H, W, 3) RGB, uint8 or uint16 as stored.

    Returns the image and its significant bits, 8 to 16: those that TIFF and PGM files state, otherwise those
    stored. The EXIF orientation is applied, alpha is dropped, palettes are resolved. Of a TIFF file with
    several frames the first one is read; see `pipeline.imaging.tiff_files`.

    Raises SourceError if the file cannot be read or decoded, if its pixels are not integers of up to 16 bits,
    or if the file or the image size that its header claims is too large.
    """
    try:
        encoded = read_bounded(path, limit=MAX_FILE_BYTES)
        if is_tiff(encoded):
            return _read_tiff(path)
        claimed = claimed_size(encoded)
        if claimed is not None:
            check_size(str(path), *claimed)
        image = None if claimed is None else _decode(encoded)
    except (OSError, cv2.error) as error:
        raise SourceError(f"{path} cannot be read: {_one_line(error)}") from error
    if image is None:
        raise SourceError(f"{path} cannot be decoded: it is damaged or no image")
    if image.dtype not in (np.uint8, np.uint16):
        raise SourceError(f"{path} holds {image.dtype} pixels; only 8 and 16 bit integers are supported")
    stored_bits = 8 * image.itemsize
    bits = (claimed_maximum(encoded) or 0).bit_length()
    image = image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1])  # BGR to RGB
    return image, bits if 8 < bits < stored_bits else stored_bits


def _read_tiff(path: Path) -> tuple[np.ndarray, int]:
    file = TiffFile(path)
    try:
        check_size(str(path), *file.size(0))
        return file.read(0)
    finally:
        file.close()


def _decode(encoded: bytes) -> np.ndarray | None:
    """Decodes by OpenCV with its log silenced, so that damage is reported by one error of one line."""
    # OpenCV needs a character after the last number of a PGM or PPM file of text
    data = encoded + b"\n" if encoded.startswith((b"P2", b"P3")) else without_metadata(encoded)
    if data is None:
        return None
    with _log_silencer:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)


class _LogSilencer:
    """Silences the log of OpenCV, which is one for the whole process, while any thread is in the block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside, self._level = 0, 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                cv2.utils.logging.setLogLevel(self._level)


_log_silencer = _LogSilencer()


def _one_line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())


def natural_order(path: Path) -> tuple[list[int | str], str]:
    """Sort key that compares digits in names as numbers: 2.png before 10.png."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if part.isdecimal() else part.casefold() for part in parts], str(path)
