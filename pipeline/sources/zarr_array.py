"""Frames of a zarr array (T, H, W) in a folder, versions 2 and 3 of the format.

zarr reads the description of the array, the chunks are read here: a chunk can then neither unpack to more
than it should, nor run code as some codecs do, nor lie outside the folder.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import product
from math import prod
from pathlib import Path

import numpy as np

from pipeline.imaging.image_files import check_size
from pipeline.sources.reader import Reader, Request
from pipeline.structures.frame import Frame
from pipeline.system.errors import SourceError, SourceLost

MAX_SLAB = 1 << 30
"""Bytes of the chunks that hold one frame, unpacked; they are in memory at once."""
MAX_DESCRIPTION = 16 << 20
"""Bytes of the text that describes an array."""
CODECS = ("zstd", "blosc", "lz4", "gzip", "zlib")
"""How chunks may be compressed."""
_DESCRIPTIONS = ("zarr.json", ".zarray")
_UNFILLED = b"unfilled"
"""Put where the last bytes of a chunk go: no picture ends like this."""


class ZarrReader(Reader):
    """The frames of an array, one row of chunks in memory."""

    def __init__(self, root: Path, request: Request):
        self._request = request
        self._folder = _array_folder(root, request)
        try:
            self._array = array = _open(self._folder, request.name)
            self._check()
            self._codec = _codec(array, request.name)
            self._stored = array.dtype
            if (
                getattr(array.serializer, "endian", None) is not None
            ):  # version 3 keeps the order of bytes there
                self._stored = array.dtype.newbyteorder(
                    "<" if array.serializer.endian.value == "little" else ">"
                )
        except SourceError:
            raise
        except Exception as error:  # zarr and its codecs raise almost anything for a damaged description
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise SourceError(f"{request.name} cannot be opened as zarr array: {reason}") from error
        count, height, width = array.shape
        if not count:
            raise SourceError(f"{request.name} holds no frames")
        stored = 8 * array.dtype.itemsize
        self.info = request.info(width=width, height=height, announced=count, stored=stored)

    def frames(self) -> Iterator[Frame]:
        """The frames; raises SourceLost at a damaged chunk, and where all chunks of a frame are missing."""
        info, step = self.info, self._array.chunks[0]
        slab, held = None, -1
        for index in range(self._request.start, self._request.start + info.frame_count):
            number, place = divmod(index, step)
            if number != held:
                slab, held = self._slab(number, index), number
            yield Frame(slab[place].copy(), index, index / info.rate, info.name, info.bit_depth)

    def _check(self) -> None:
        """Raise SourceError for an array that does not hold grey frames, or too much at once."""
        array, name = self._array, self._request.name
        if array.ndim != 3 or array.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
            shape = "x".join(map(str, array.shape)) or "one number"
            raise SourceError(f"{name} holds {shape} of {array.dtype}; give (T, H, W) of uint8 or uint16")
        check_size(name, array.shape[2], array.shape[1])
        if getattr(array, "shards", None):
            raise SourceError(f"{name} is stored in shards; write it again without, one chunk a file")
        if min(array.chunks) < 1:
            raise SourceError(f"{name} has chunks of {'x'.join(map(str, array.chunks))}, which hold nothing")
        chunk = prod(map(int, array.chunks)) * array.dtype.itemsize
        frame_chunks = prod(
            -(-size // part) for size, part in zip(array.shape[1:], array.chunks[1:], strict=True)
        )
        if chunk * frame_chunks > MAX_SLAB:
            needed = (
                f"{chunk * frame_chunks} bytes for one frame in chunks of {'x'.join(map(str, array.chunks))}"
            )
            raise SourceError(f"{name} needs {needed}; {MAX_SLAB} are allowed: use smaller chunks")

    def _slab(self, number: int, index: int) -> np.ndarray:
        """The frames of a row of chunks, (chunk's T, H, W); `index` is the one that is wanted."""
        array = self._array
        step, rows, columns = array.chunks
        _, height, width = array.shape
        slab = np.full((step, height, width), array.fill_value or 0, array.dtype.newbyteorder("="))
        found = False
        for row, column in product(range(-(-height // rows)), range(-(-width // columns))):
            try:
                chunk = self._chunk((number, row, column))
            except (OSError, ValueError, RuntimeError, zlib.error) as error:
                reason = " ".join((getattr(error, "strerror", None) or str(error)).split())
                where = f"chunk {number}, {row}, {column}: {reason}"
                raise SourceLost(f"{self.info.name}: lost at frame {index}: {where}") from error
            if chunk is not None:
                found = True
                top, left = row * rows, column * columns
                part = slab[:, top : top + rows, left : left + columns]
                part[:] = chunk[:, : part.shape[1], : part.shape[2]]
        if not found:  # one that is all fill value need not be there, but no camera makes such frames
            raise SourceLost(f"{self.info.name}: lost at frame {index}: its chunks are missing")
        return slab

    def _chunk(self, position: tuple[int, int, int]) -> np.ndarray | None:
        """A chunk (t, h, w) as stored; None where there is none. Raises ValueError, RuntimeError, OSError."""
        array = self._array
        path = self._folder / array.metadata.encode_chunk_key(position)
        if not path.resolve().is_relative_to(self._folder.resolve()):
            raise ValueError("it lies outside the store")
        expected = prod(array.chunks) * array.dtype.itemsize
        try:
            size = path.stat().st_size
            if size > expected + expected // 8 + 4096:  # nothing grows more than that by being compressed
                raise ValueError(f"it has {size} bytes for {expected}")
            coded = path.read_bytes()
        except FileNotFoundError:
            return None
        plain = _unpacked(self._codec, coded, expected)
        return np.frombuffer(plain, self._stored).reshape(array.chunks, order=array.order)


def _array_folder(root: Path, request: Request) -> Path:
    """Where the array lies in the store at `root`: at its root, where it is said, or the only one below."""
    name, wanted = request.name, request.config.array
    if not root.is_dir():
        raise SourceError(f"{name}: no such folder")
    if wanted:
        folder = root / wanted
        if not folder.resolve().is_relative_to(root.resolve()):
            raise SourceError(f"{name}: array '{wanted}' lies outside the store")
        if not _describes_array(folder, name):
            raise SourceError(f"{name} holds no array '{wanted}'")
        return folder
    if _describes_array(root, name):
        return root
    below = [folder for folder in sorted(root.iterdir()) if folder.is_dir()]
    inside = [folder for folder in below if folder.resolve().is_relative_to(root.resolve())]
    arrays = [folder for folder in inside if _describes_array(folder, name)]
    if len(arrays) != 1:
        found = ", ".join(folder.name for folder in arrays) or "none"
        raise SourceError(
            f"{name} is no array, and of those in it one is needed; name it with source.array: {found}"
        )
    return arrays[0]


def _describes_array(folder: Path, name: str) -> bool:
    """Whether a folder is an array and not a group; SourceError for a description out of all proportion."""
    for description in _DESCRIPTIONS:
        path = folder / description
        if path.is_file():
            if (size := path.stat().st_size) > MAX_DESCRIPTION:
                raise SourceError(f"{name}: {description} has {size} bytes; {MAX_DESCRIPTION} are read")
            return description == ".zarray" or b'"array"' in path.read_bytes()
    return False


def _open(folder: Path, name: str):
    import zarr

    try:
        return zarr.open_array(folder, mode="r")
    except RecursionError as error:
        raise SourceError(f"{name}: its description is nested too deep") from error


def _codec(array, name: str) -> str:
    """How the chunks are compressed, one of `CODECS` or nothing. Raises SourceError for what else is done."""
    names = [_codec_name(codec) for codec in (*array.filters, *array.compressors)]
    plain = array.serializer is None or _codec_name(array.serializer) == "bytes"
    if not plain or len(names) > 1 or any(name not in CODECS for name in names):
        found = " and ".join(names if plain else [_codec_name(array.serializer)])
        known = ", ".join(CODECS)
        raise SourceError(f"{name}: chunks stored by {found} are not read; use one of {known}, or nothing")
    return names[0] if names else ""


def _codec_name(codec) -> str:
    if hasattr(codec, "codec_id"):  # of version 2
        return codec.codec_id
    return codec.to_dict()["name"]


def _unpacked(codec: str, coded: bytes, expected: int) -> bytes | np.ndarray:
    """The `expected` bytes of a chunk. Raises ValueError or RuntimeError for more, fewer, and damage."""
    if codec == "":
        plain = coded
    elif codec in ("gzip", "zlib"):
        plain = zlib.decompressobj(wbits=47).decompress(coded, expected + 1)
    else:
        import numcodecs

        plain = np.zeros(
            expected, np.uint8
        )  # the codecs refuse what does not fit, and leave what they do not fill
        plain[-len(_UNFILLED) :] = np.frombuffer(_UNFILLED, np.uint8)[:expected]
        numcodecs.get_codec({"id": codec}).decode(coded, out=plain)
        if plain[-len(_UNFILLED) :].tobytes() == _UNFILLED[:expected]:
            plain = b""
    if len(plain) != expected:
        raise ValueError(f"it does not unpack to the {expected} bytes of a chunk")
    return plain
