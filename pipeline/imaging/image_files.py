"""pipeline.imaging.image_files."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from pipeline.imaging.image_headers import picture_size
from pipeline.system.errors import SourceError

MAX_PIXELS = 100_000_000
"""Of one frame; what claims more is refused before memory is taken for it."""

MAX_FILE = 1 << 30  # bytes of one picture

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")

ENDINGS = ("", "_pixels0", "_mask")
"""What may follow the picture's name in that of its mask."""


def check_size(name: str, width: int, height: int) -> None:
    """Raise SourceError for frames too large to be meant, or without a pixel."""
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        limit = f"1 pixel to {MAX_PIXELS // 10**6} megapixels"
        raise SourceError(f"{name}: frames of {width}x{height} are refused; {limit} are allowed")


def read_image(path: Path) -> np.ndarray:
    """Image file as (H, W) grey or (H, W, 3) R, G, B; uint8 or uint16 as stored, turned as EXIF data asks.

    Alpha is dropped, palettes are looked up. Raises SourceError for a file that cannot be read, and for one
    that is too large, or says that its picture is.
    """
    try:
        if (size := path.stat().st_size) > MAX_FILE:
            raise SourceError(f"{path} has {size} bytes; a picture of up to {MAX_FILE} is read")
        coded = path.read_bytes()
        claimed = picture_size(coded)
        if claimed is not None:
            check_size(str(path), *claimed)
        image = None if claimed is None else _decoded(coded)
    except (OSError, cv2.error) as error:
        raise SourceError(f"{path} cannot be read: {_one_line(error)}") from error
    if image is None:
        raise SourceError(f"{path} cannot be decoded: it is damaged or no image")
    if image.dtype not in (np.uint8, np.uint16):
        raise SourceError(f"{path} holds {image.dtype} pixels; only 8 and 16 bit integers are supported")
    return image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1])


def _decoded(coded: bytes) -> np.ndarray | None:
    """What OpenCV makes of a file, without its own lines on damage: the error that follows is one line."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.imdecode(np.frombuffer(coded, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    finally:
        cv2.utils.logging.setLogLevel(level)


def _one_line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())


def natural_order(path: Path) -> tuple:
    """Sort key by which numbers in names count as numbers: 2.png before 10.png."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if part.isdecimal() else part.casefold() for part in parts], str(path)
