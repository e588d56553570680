"""A zarr array on disk that grows along its first axis while other processes read it.

Rows are there before they are counted: `append` writes chunks, each a file that is put in its place as a
whole, and `publish` then replaces the description of the array, which holds its length. So whoever opens the
array, at any moment and after a death of the writer, finds every row that its length counts. A reader keeps
the length that it has opened the array with; it opens it again to see more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.system.files import replace_on_success

LEVEL = 1
"""Of zstd; a higher one saves little of noisy frames and takes longer."""
_DESCRIPTION = "zarr.json"


class ArraySpec(NamedTuple):
    """What an array of such a kind holds."""

    shape: tuple[int, ...]
    """Of one row."""
    dtype: Any
    step: int
    """Rows in a chunk."""
    dimensions: Sequence[str]
    """Names of the axes, the first one included."""
    attributes: Mapping[str, Any]


def create(group, name: str, column: ArraySpec) -> None:
    """Add an array of no rows to an open zarr group; raises OSError."""
    from zarr.codecs import ZstdCodec

    group.create_array(
        name,
        shape=(0, *column.shape),
        chunks=(column.step, *column.shape),
        dtype=column.dtype,
        compressors=ZstdCodec(level=LEVEL, checksum=True),
        fill_value=0,
        chunk_key_encoding={"name": "default", "separator": "."},  # all chunks in one folder
        dimension_names=list(column.dimensions),
        attributes=dict(column.attributes),
    )


class AppendableArray:
    """The only writer of an array that `create` has made; of what it holds, the first `length` rows stay."""

    def __init__(self, folder: Path, length: int = 0):
        import zarr
        from numcodecs.zstd import Zstd

        array = zarr.open_array(folder, mode="r")
        self._folder, self._codec = folder, Zstd(level=LEVEL, checksum=True)
        self._description = json.loads((folder / _DESCRIPTION).read_bytes())
        self._key = array.metadata.encode_chunk_key
        self._shape, self._dtype = array.chunks, array.dtype.newbyteorder("<")
        self._length = length
        self._tail = array[length // self._shape[0] * self._shape[0] : length]  # of a chunk that has room
        self._sizes = [0, 0]

    @property
    def size(self) -> int:
        """Bytes of the chunks that were written."""
        return sum(self._sizes)

    def append(self, rows: np.ndarray) -> None:
        """Write rows (n, …), which nobody sees until `publish`; raises OSError."""
        step = self._shape[0]
        number = self._length // step
        rows = np.concatenate([self._tail, rows])
        for start in range(0, len(rows), step):
            self._write(number + start // step, rows[start : start + step])
        self._length = number * step + len(rows)
        self._tail = rows[len(rows) // step * step :].copy()

    def publish(self) -> None:
        """Let readers know of all rows; raises OSError."""
        self._description["shape"][0] = self._length
        _replace(self._folder / _DESCRIPTION, json.dumps(self._description, indent=2).encode())

    def _write(self, number: int, rows: np.ndarray) -> None:
        """Put a chunk in its place; one that is not full replaces the one of fewer rows."""
        chunk = np.zeros(self._shape, self._dtype)
        chunk[: len(rows)] = rows
        coded = self._codec.encode(chunk)
        _replace(self._folder / self._key((number, *[0] * (chunk.ndim - 1))), coded)
        self._sizes[1] = len(coded)
        if len(rows) == self._shape[0]:
            self._sizes = [sum(self._sizes), 0]


def _replace(path: Path, content: bytes) -> None:
    """Replaces a file as a whole. Raises OSError, which leaves the old one."""
    # Chunks are written several times a second: waiting for the disk each time would slow the run down.
    with replace_on_success(path, sync=False) as partial:
        partial.write_bytes(content)
