"""Reader of zarr arrays (T, H, W) in a folder, versions 2 and 3 of the format.

The zarr library reads the metadata of the array. Chunks are read here, so that a malicious chunk can neither
decompress to more than its size, nor run code as some codecs do, nor lie outside the folder.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Generator
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.imaging.image_files import check_size
from pipeline.sources.reader import Reader, ReadRequest
from pipeline.structures.frame import Frame
from pipeline.system.bounded_reads import read_bounded
from pipeline.system.errors import SourceError, SourceLost
from pipeline.system.packages import require_package

if TYPE_CHECKING:
    import zarr
    from zarr.abc.codec import Codec
    from zarr.abc.numcodec import Numcodec

MAX_SLAB_BYTES = 1 << 30
"""Decompressed bytes of the chunks that hold one frame; they are in memory at the same time."""
MAX_METADATA_BYTES = 16 << 20
"""Size of a metadata file."""
CODECS = ("zstd", "blosc", "lz4", "gzip", "zlib")
"""Supported compression of chunks."""
_METADATA_FILES = (".zattrs", "zarr.json", ".zarray")
_UNFILLED = b"unfilled"
"""Placed in the last bytes of a chunk before decompression, to detect chunks that are too short."""


class ZarrReader(Reader):
    """Reads the frames of an array, with one slab of chunks in memory."""

    def __init__(self, root: Path, request: ReadRequest):
        """Raises SourceError if the store at `root` has no array of grey frames that can be read."""
        require_package("zarr", "reading a zarr array")
        self._request = request
        self._is_elsewhere = functools.cache(self._is_present)
        self._folder = _array_folder(root, request)
        try:
            self._array = array = _open(self._folder, request.name)
            self._check()
            self._codec = _codec(array, request.name)
            self._stored_dtype = array.dtype
            endian = getattr(array.serializer, "endian", None)
            if endian is not None:  # version 3 declares the byte order here
                self._stored_dtype = array.dtype.newbyteorder("<" if endian.value == "little" else ">")
        except SourceError:
            raise
        except Exception as error:  # zarr and its codecs raise errors of any type for damaged metadata
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise SourceError(f"{request.name} cannot be opened as zarr array: {reason}") from error
        count, height, width = array.shape
        if not count:
            raise SourceError(f"{request.name} holds no frames")
        stored_bits = 8 * array.dtype.itemsize
        self.selection = request.selection()
        self.info = request.info(
            self.selection, width=width, height=height, total=count, stored_bits=stored_bits
        )

    def frames(self) -> Generator[Frame]:
        """Yields the frames. Raises SourceLost if a chunk is damaged or missing."""
        info, step = self.info, self._array.chunks[0]
        slab, current = np.zeros((0, 0, 0)), -1
        for index in self.selection.indices(self._array.shape[0]):
            number, position = divmod(index, step)
            if number != current:
                slab, current = self._slab(number, index), number
            yield Frame(slab[position].copy(), index, index / info.rate, info.name, info.bit_depth)

    def _check(self) -> None:
        """Raises SourceError if the array does not hold grey frames or its chunks are too large."""
        array, name = self._array, self._request.name
        if array.ndim != 3 or array.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
            shape = "x".join(map(str, array.shape)) or "one number"
            raise SourceError(f"{name} holds {shape} of {array.dtype}; give (T, H, W) of uint8 or uint16")
        check_size(name, array.shape[2], array.shape[1])
        if getattr(array, "shards", None):
            raise SourceError(f"{name} is stored in shards; write it again without, one chunk a file")
        if min(array.chunks) < 1:
            raise SourceError(f"{name} has chunks of {'x'.join(map(str, array.chunks))}, which hold nothing")
        grid = [-(-size // part) for size, part in zip(array.shape[1:], array.chunks[1:], strict=True)]
        slab_bytes = prod(map(int, array.chunks)) * array.dtype.itemsize * prod(grid)
        if slab_bytes > MAX_SLAB_BYTES:
            needed = f"{slab_bytes} bytes for one frame in chunks of {'x'.join(map(str, array.chunks))}"
            raise SourceError(f"{name} needs {needed}; {MAX_SLAB_BYTES} are allowed: use smaller chunks")

    def _slab(self, number: int, index: int) -> np.ndarray:
        """Reads the chunks that cover frames `number` * t to (`number` + 1) * t: (t, H, W).

        t is the chunk length. `index` is the requested frame, for messages.
        """
        array = self._array
        step, rows, columns = array.chunks
        _, height, width = array.shape
        slab = np.full((step, height, width), array.fill_value or 0, array.dtype.newbyteorder("="))
        found = False
        missing: tuple[int, int] | None = None  # a chunk that is present for other frames
        for row, column in product(range(-(-height // rows)), range(-(-width // columns))):
            try:
                chunk = self._chunk((number, row, column))
            except (OSError, ValueError, RuntimeError, zlib.error) as error:
                reason = " ".join((getattr(error, "strerror", None) or str(error)).split())
                where = f"chunk {number}, {row}, {column}: {reason}"
                raise SourceLost(f"{self.info.name}: lost at frame {index}: {where}") from error
            if chunk is None:
                missing = missing or ((row, column) if self._is_elsewhere(row, column) else None)
            else:
                found = True
                top, left = row * rows, column * columns
                part = slab[:, top : top + rows, left : left + columns]
                part[:] = chunk[:, : part.shape[1], : part.shape[2]]
        if not found:  # no camera yields frames of nothing but the fill value
            raise SourceLost(f"{self.info.name}: lost at frame {index}: its chunks are missing")
        if missing:
            where = "chunk {}, {}, {} is missing".format(number, *missing)
            remedy = "if it is black there, write the array with write_empty_chunks"
            raise SourceLost(f"{self.info.name}: lost at frame {index}: {where}; {remedy}")
        return slab

    def _is_present(self, row: int, column: int) -> bool:
        """Returns whether the chunk at a place of the image is present for any frames.

        A part of the image that is absent from all frames holds nothing but the fill value, such as a border.
        """
        count = -(-self._array.shape[0] // self._array.chunks[0])
        places = ((number, row, column) for number in range(count))
        return any((self._folder / self._array.metadata.encode_chunk_key(place)).exists() for place in places)

    def _chunk(self, position: tuple[int, int, int]) -> np.ndarray | None:
        """Reads a chunk (t, h, w) in its stored dtype; None if it is absent.

        Raises ValueError, RuntimeError, OSError or zlib.error if it is damaged.
        """
        array = self._array
        path = self._folder / array.metadata.encode_chunk_key(position)
        if not path.resolve().is_relative_to(self._folder.resolve()):
            raise ValueError("it lies outside the store")
        expected = prod(array.chunks) * array.dtype.itemsize
        try:
            encoded = read_bounded(path, limit=expected + expected // 8 + 4096)  # no codec expands data more
        except FileNotFoundError:
            return None
        data = _decompress(self._codec, encoded, expected)
        return np.frombuffer(data, self._stored_dtype).reshape(array.chunks, order=array.order)


def _array_folder(root: Path, request: ReadRequest) -> Path:
    """Returns the folder of the array: the one named, the root of the store, or the only array below it.

    Raises SourceError if there is none, or several of which none is named.
    """
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
            f"{name} is no array, and of those in it one is needed; "
            f"name it with --set source.array=NAME: {found}"
        )
    return arrays[0]


def _describes_array(folder: Path, name: str) -> bool:
    """Returns whether a folder is an array and not a group. Raises SourceError for unreadable metadata."""
    for file_name in _METADATA_FILES:
        try:
            metadata = read_bounded(folder / file_name, limit=MAX_METADATA_BYTES)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SourceError(f"{name}: {file_name} cannot be read: {error.strerror}") from error
        if file_name != ".zattrs":
            return file_name == ".zarray" or b'"array"' in metadata
    return False


def _open(folder: Path, name: str) -> zarr.Array:
    import zarr

    try:
        return zarr.open_array(folder, mode="r")
    except RecursionError as error:
        raise SourceError(f"{name}: its metadata is nested too deep") from error


def _codec(array: zarr.Array, name: str) -> str:
    """Returns the compression of the chunks, one of `CODECS` or empty for none.

    Raises SourceError for other codecs and for filters besides.
    """
    names = [_codec_name(codec) for codec in (*array.filters, *array.compressors)]
    serializer = "bytes" if array.serializer is None else _codec_name(array.serializer)
    if serializer != "bytes" or len(names) > 1 or any(name not in CODECS for name in names):
        found = " and ".join(names) if serializer == "bytes" else serializer
        known = ", ".join(CODECS)
        raise SourceError(f"{name}: chunks stored by {found} are not read; use one of {known}, or nothing")
    return names[0] if names else ""


def _codec_name(codec: Numcodec | Codec) -> str:
    if hasattr(codec, "codec_id"):  # version 2
        return codec.codec_id
    return str(codec.to_dict()["name"])


def _decompress(codec: str, encoded: bytes, size: int) -> bytes | np.ndarray:
    """Returns the `size` bytes of a chunk.

    Raises ValueError, RuntimeError or zlib.error if they are more, fewer, or damaged.
    """
    data: bytes | np.ndarray
    if codec == "":
        data = encoded
    elif codec in ("gzip", "zlib"):
        data = zlib.decompressobj(wbits=47).decompress(encoded, size + 1)
    else:
        data = _decompress_by_numcodecs(codec, encoded, size)
    if len(data) != size:
        raise ValueError(f"it does not unpack to the {size} bytes of a chunk")
    return data


def _decompress_by_numcodecs(codec: str, encoded: bytes, size: int) -> np.ndarray:
    """Returns (size,) uint8, empty if the data are shorter; the codecs raise errors for longer data."""
    import numcodecs  # type: ignore[import-untyped]  # it ships no types

    buffer = np.zeros(size, np.uint8)
    buffer[-len(_UNFILLED) :] = np.frombuffer(_UNFILLED, np.uint8)[:size]
    numcodecs.get_codec({"id": codec}).decode(encoded, out=buffer)
    unfilled = buffer[-len(_UNFILLED) :].tobytes() == _UNFILLED[:size]
    return buffer[:0] if unfilled else buffer
