"""A zarr array that grows along its first axis while other processes read it.

`append` writes chunks, each of them a file that is replaced atomically; `publish` then replaces the metadata
of the array, which hold its length. So a reader finds all rows that the length counts, at any moment, also if
the writer was killed. A reader sees the length at which it opened the array; it opens it again to see more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.system.files import replace_on_success

if TYPE_CHECKING:
    import zarr

ZSTD_LEVEL = 1
"""Compression level; higher ones take longer and save little, since frames are noisy."""
_METADATA_FILE = "zarr.json"


class ArraySpec(NamedTuple):
    """Shape, type and chunks of an array."""

    shape: tuple[int, ...]
    """Shape of one row."""
    dtype: npt.DTypeLike
    chunk_rows: int
    """Number of rows in a chunk."""
    dimensions: Sequence[str]
    """Names of the axes, beginning with that of the rows."""
    attributes: Mapping[str, Any]


def create_array(group: zarr.Group, name: str, spec: ArraySpec) -> None:
    """Adds an empty array to an open zarr group. Raises OSError."""
    from zarr.codecs import ZstdCodec

    group.create_array(
        name,
        shape=(0, *spec.shape),
        chunks=(spec.chunk_rows, *spec.shape),
        dtype=spec.dtype,
        compressors=ZstdCodec(level=ZSTD_LEVEL, checksum=True),
        fill_value=0,
        chunk_key_encoding={"name": "default", "separator": "."},  # all chunks in one folder
        dimension_names=list(spec.dimensions),
        attributes=dict(spec.attributes),
    )


class AppendableArray:
    """Appends rows to an array of `create_array`, of which it must be the only writer.

    Args:
        folder: folder of the array.
        length: number of rows of the array that stay; the others are overwritten.

    Raises:
        OSError: the array cannot be read.
    """

    def __init__(self, folder: Path, length: int = 0):
        import zarr
        from numcodecs.zstd import Zstd  # type: ignore[import-untyped]  # it ships no type information

        array = zarr.open_array(folder, mode="r")
        self._folder, self._codec = folder, Zstd(level=ZSTD_LEVEL, checksum=True)
        self._metadata = json.loads((folder / _METADATA_FILE).read_bytes())
        self._chunk_key = array.metadata.encode_chunk_key
        self._chunk_shape, self._dtype = array.chunks, array.dtype.newbyteorder("<")
        self._length = length
        full = length // self._chunk_shape[0] * self._chunk_shape[0]
        self._tail = np.asarray(array[full:length])  # rows of the last chunk, which has room for more
        self._full_bytes = self._tail_bytes = 0

    @property
    def size(self) -> int:
        """Size in bytes of the chunks that were written."""
        return self._full_bytes + self._tail_bytes

    def append(self, rows: np.ndarray) -> None:
        """Writes rows, (n, …), which readers do not see before `publish`. Raises OSError."""
        step = self._chunk_shape[0]
        number = self._length // step
        rows = np.concatenate([self._tail, rows])
        for start in range(0, len(rows), step):
            self._write_chunk(number + start // step, rows[start : start + step])
        self._length = number * step + len(rows)
        self._tail = rows[len(rows) // step * step :].copy()

    def publish(self) -> None:
        """Makes all rows visible to readers. Raises OSError."""
        self._metadata["shape"][0] = self._length
        _replace(self._folder / _METADATA_FILE, json.dumps(self._metadata, indent=2).encode())

    def _write_chunk(self, number: int, rows: np.ndarray) -> None:
        """Writes a chunk; it replaces the chunk of this number that had fewer rows."""
        chunk = np.zeros(self._chunk_shape, self._dtype)
        chunk[: len(rows)] = rows
        encoded = self._codec.encode(chunk)
        _replace(self._folder / self._chunk_key((number, *[0] * (chunk.ndim - 1))), encoded)
        self._tail_bytes = len(encoded)
        if len(rows) == self._chunk_shape[0]:
            self._full_bytes, self._tail_bytes = self.size, 0


def _replace(path: Path, content: bytes) -> None:
    """Replaces a file atomically. Raises OSError; the old file then stays."""
    # Chunks are written several times a second: waiting for the disk each time would slow the run down.
    with replace_on_success(path, sync=False) as partial:
        partial.write_bytes(content)
