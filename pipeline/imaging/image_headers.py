"""Image sizes from file headers, read without decoding, and the pages of TIFF files."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_PNG, _BMP, _JPEG, _TIFF = b"\x89PNG\r\n\x1a\n", b"BM", b"\xff\xd8", (b"II", b"MM")
_PNG_NEEDED = (b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")  # transparency, orientation, animation
_PNM = re.compile(rb"P([2356])" + 3 * rb"(?:\s|#[^\n]*\n)+(\d{1,9})" + rb"\s")  # kind, width, height, maximum
_MAX_PAGES = 10_000_000
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG start of frame; the others: tables
_DAMAGED = (struct.error, ValueError, OverflowError)  # OverflowError: offsets beyond any possible file
_SUBFILE, _WIDTH, _HEIGHT = 254, 256, 257
_VALUES = {3: "H", 4: "I", 13: "I", 16: "Q"}  # types of TIFF fields that can hold a size


class Page(NamedTuple):
    """A page of a TIFF file at full resolution."""

    number: int
    """Position in the file, from 0. Reduced-resolution copies are counted but not listed."""
    width: int
    height: int
    offset: int
    """Position of its directory in the file, in bytes."""


def claimed_size(encoded: bytes) -> tuple[int, int] | None:
    """Returns the (width, height) that the header of a PNG, BMP, JPEG, TIFF, PGM or PPM file claims.

    None if the data are damaged or of another format.
    """
    try:
        if encoded.startswith(_PNG):
            width, height = struct.unpack_from(">II", encoded, 16)
            return width, height
        if encoded.startswith(_BMP):
            old = struct.unpack_from("<I", encoded, 14)[0] == 12
            width, height = struct.unpack_from("<HH" if old else "<ii", encoded, 18)
            return abs(width), abs(height)  # a negative height means rows from top to bottom
        if encoded.startswith(_JPEG):
            return _jpeg_size(encoded)
        if header := _PNM.match(encoded):
            return int(header[2]), int(header[3])
        if encoded.startswith(_TIFF):
            page = next(_pages(io.BytesIO(encoded)), None)
            return (page.width, page.height) if page else None
    except _DAMAGED:
        return None
    return None


def claimed_maximum(encoded: bytes) -> int | None:
    """Returns the maximum of the samples that the header of a PGM or PPM file claims; None for others."""
    header = _PNM.match(encoded)
    return int(header[4]) if header else None


def is_tiff(encoded: bytes) -> bool:
    """Returns whether data begin as a TIFF file does."""
    return encoded.startswith(_TIFF)


def tiff_pages(file: BinaryIO) -> list[Page]:
    """Returns the pages of a TIFF file at full resolution; none if it is damaged or of another format."""
    try:
        return list(_pages(file))
    except _DAMAGED:
        return []


def without_metadata(encoded: bytes) -> bytes | None:
    """Returns a PNG file without the chunks that change no pixel, or None if it is cut off.

    Other files are returned as they are. Decoders print warnings about colour profiles and texts, with bytes
    of the file in them, and allocate what the length of a chunk claims, up to 2 GB.
    """
    if not encoded.startswith(_PNG):
        return encoded
    kept, begin, place = [], 0, len(_PNG)
    while place + 12 <= len(encoded):
        end = place + 12 + int.from_bytes(encoded[place : place + 4], "big")
        kind = encoded[place + 4 : place + 8]
        if end > len(encoded):
            return None
        if kind == b"IEND":  # other data may follow
            break
        if kind[:1].islower() and kind not in _PNG_NEEDED:  # a capital letter marks a critical chunk
            kept.append(encoded[begin:place])
            begin = end
        place = end
    return b"".join([*kept, encoded[begin:]]) if kept else encoded


def _jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    position = 2
    while encoded[position : position + 1] == b"\xff":
        marker, length = struct.unpack_from(">BH", encoded, position + 1)
        if marker == 0xFF:  # padding
            position += 1
            continue
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", encoded, position + 5)
            return width, height
        position += 2 + length
    return None


def _pages(file: BinaryIO) -> Iterator[Page]:
    order = ">" if file.read(2) == b"MM" else "<"
    big = _read(file, f"{order}H")[0] == 43  # BigTIFF: all offsets have 8 bytes
    if big:
        file.seek(8)
    count_format, entry_format, offset_format = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    (offset,) = _read(file, order + offset_format)
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < _MAX_PAGES:  # the chain of pages may be cyclic
        number = len(seen)
        seen.add(offset)
        start = offset
        file.seek(start)
        (count,) = _read(file, order + count_format)
        fields: dict[int, int] = {}
        for _ in range(min(count, 0xFFFF)):
            tag, kind, _, value = _read(file, order + entry_format)
            if kind in _VALUES and tag in (_SUBFILE, _WIDTH, _HEIGHT):
                (fields[tag],) = struct.unpack_from(order + _VALUES[kind], value.ljust(8, b"\0"))
        if not fields.get(_SUBFILE, 0) & 1:
            yield Page(number, fields.get(_WIDTH, 0), fields.get(_HEIGHT, 0), start)
        (offset,) = _read(file, order + offset_format)


def _read(file: BinaryIO, layout: str) -> tuple:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))
