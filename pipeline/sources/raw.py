"""Reader of raw frames: bare samples of declared size and type, from a file or standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from io import RawIOBase
from pathlib import Path

import numpy as np

from pipeline.imaging.file_signatures import describe_foreign, npy_header_bytes
from pipeline.imaging.image_files import check_size
from pipeline.sources.reader import Reader, ReadRequest
from pipeline.sources.streams import StandardInput
from pipeline.structures.frame import Frame
from pipeline.system.errors import SourceError, SourceLost

_TYPES = {"uint8": "u1", "uint16le": "<u2", "uint16be": ">u2"}
_SKIP_BYTES = 1 << 20  # read at a time when skipping


class RawReader(Reader):
    """Reads grey frames stored one after the other, after a header of `source.header` bytes."""

    def __init__(self, file: RawIOBase | StandardInput, request: ReadRequest, *, total: int | None = None):
        """Takes ownership of `file`, which has `total` bytes, None if unknown.

        Raises SourceError if the frames are too large or the file holds none of those requested.
        """
        self._file, self._request = file, request
        config = request.config
        try:
            size = config.frame_size()
            assert size is not None  # `SourceConfig` refuses the format raw without it
            width, height = size
            check_size(request.name, width, height)
            self._dtype = np.dtype(_TYPES[config.dtype])
            self._shape = height, width
            self._frame_bytes = width * height * self._dtype.itemsize
            whole = None if total is None else (total - config.header) // self._frame_bytes
            if whole is not None and whole < 1:
                raise SourceError(f"{request.name} has {total} bytes, too few for {self._declared()}")
            stored_bits = 8 * self._dtype.itemsize
            self.selection = selection = request.selection()
            self.info = request.info(
                selection, width=width, height=height, total=whole, stored_bits=stored_bits
            )
        except BaseException:
            file.close()
            raise

    def frames(self) -> Generator[Frame]:
        """Yields the frames.

        Raises SourceLost if the last one is incomplete, and SourceError if there is none from `start` on.
        """
        request, info = self._request, self.info
        first = self.selection.start
        skipped = self._skip(request.config.header + first * self._frame_bytes)
        for index in self.selection.indices(sys.maxsize):
            if index > first:
                skipped = self._skip((self.selection.stride - 1) * self._frame_bytes)
            data = self._read(self._frame_bytes) if skipped else b""
            if len(data) < self._frame_bytes:
                if isinstance(self._file, StandardInput) and self._file.timed_out:
                    silence = f"no data for {request.config.timeout:g} s"
                    raise SourceLost(f"{info.name}: lost after {index - first} frames: {silence}")
                if index == first and not data:
                    raise SourceError(f"{info.name} ends before frame {first} of {self._declared()}")
                if data:
                    raise SourceLost(
                        f"{info.name}: lost after {index} frames: {len(data)} bytes are left over; it is cut "
                        f"off, or does not hold {self._declared()}"
                    )
                return
            image = np.frombuffer(data, self._dtype).reshape(self._shape)
            native = image.astype(self._dtype.newbyteorder("="), copy=False)
            yield Frame(native, index, index / info.rate, info.name, info.bit_depth)

    def stop(self) -> None:
        """Ends a wait for data of standard input."""
        if isinstance(self._file, StandardInput):
            self._file.stop()

    def close(self) -> None:
        """Closes the file or standard input."""
        self._file.close()

    def _declared(self) -> str:
        config = self._request.config
        behind = f" behind {config.header} bytes" if config.header else ""
        return f"frames of {config.size} {config.dtype}{behind}, {self._frame_bytes} bytes each"

    def _read(self, size: int) -> bytes:
        """Reads `size` bytes, fewer only at the end."""
        pieces, missing = [], size
        while missing and (piece := self._file.read(missing)):
            pieces.append(piece)
            missing -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _skip(self, size: int) -> bool:
        """Skips `size` bytes; returns False if standard input has fewer."""
        if not isinstance(self._file, StandardInput):
            self._file.seek(size, os.SEEK_CUR)
            return True
        while size and (passed := len(self._read(min(size, _SKIP_BYTES)))):
            size -= passed
        return size == 0


def open_file(path: Path, request: ReadRequest) -> RawReader:
    """Opens a file of raw frames. Raises SourceError if it cannot be read or holds no frame."""
    try:
        header = npy_header_bytes(path)
        if header and request.config.header != header:
            raise SourceError(f"{request.name} {describe_foreign(path)}")
        file = path.open("rb", buffering=0)
        return RawReader(file, request, total=path.stat().st_size)
    except OSError as error:
        raise SourceError(f"{request.name} cannot be read: {error.strerror}") from error


def open_input(request: ReadRequest) -> RawReader:
    """Opens raw frames on standard input. Raises SourceError if it is closed or a terminal."""
    return RawReader(StandardInput(request.config.timeout), request)
