"""Frames of bare samples of a declared size and type, from a file or from standard input."""

from __future__ import annotations

from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path

import numpy as np

from pipeline.imaging.image_files import check_size
from pipeline.sources.reader import Reader, Request
from pipeline.sources.streams import StandardInput
from pipeline.structures.frame import Frame
from pipeline.system.errors import SourceError, SourceLost

_TYPES = {"uint8": "u1", "uint16le": "<u2", "uint16be": ">u2"}
_PIECE = 1 << 20  # bytes that are skipped at once


class RawReader(Reader):
    """Grey frames without anything around them but a header in front of the first."""

    def __init__(self, source: RawIOBase | StandardInput, request: Request, *, total: int | None = None):
        """Takes over `source`, which has `total` bytes where that is known."""
        self._source, self._request = source, request
        config = request.config
        try:
            width, height = config.frame_size()
            check_size(request.name, width, height)
            self._dtype = np.dtype(_TYPES[config.dtype])
            self._shape = height, width
            self._bytes = width * height * self._dtype.itemsize
            whole = None if total is None else (total - config.header) // self._bytes
            if whole is not None and whole < 1:
                raise SourceError(f"{request.name} has {total} bytes, too few for {self._declared()}")
            stored = 8 * self._dtype.itemsize
            self.info = request.info(width=width, height=height, announced=whole, stored=stored)
        except BaseException:
            source.close()
            raise

    def frames(self) -> Iterator[Frame]:
        """The frames; raises SourceLost where the last one is not whole."""
        request, info = self._request, self.info
        first = request.start
        skipped = self._skip(request.config.header + first * self._bytes)
        index = first
        while request.max_frames is None or index < first + request.max_frames:
            data = self._read(self._bytes) if skipped else b""
            if len(data) < self._bytes:
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
            index += 1

    def stop(self) -> None:
        """End a wait for data."""
        if isinstance(self._source, StandardInput):
            self._source.stop()

    def close(self) -> None:
        """Close what the frames come from."""
        self._source.close()

    def _declared(self) -> str:
        config = self._request.config
        behind = f" behind {config.header} bytes" if config.header else ""
        return f"frames of {config.size} {config.dtype}{behind}, {self._bytes} bytes each"

    def _read(self, size: int) -> bytes:
        """So many bytes, fewer only at the end."""
        pieces, missing = [], size
        while missing and (piece := self._source.read(missing)):
            pieces.append(piece)
            missing -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _skip(self, size: int) -> bool:
        """Pass over so many bytes; False where there are fewer."""
        if not isinstance(self._source, StandardInput):
            self._source.seek(size)
            return True
        while size and (passed := len(self._read(min(size, _PIECE)))):
            size -= passed
        return size == 0


def open_file(path: Path, request: Request) -> RawReader:
    """The frames of a file. Raises SourceError where it cannot be read or holds none."""
    try:
        file = path.open("rb", buffering=0)
        return RawReader(file, request, total=path.stat().st_size)
    except OSError as error:
        raise SourceError(f"{request.name} cannot be read: {error.strerror}") from error


def open_input(request: Request) -> RawReader:
    """The frames that are piped in. Raises SourceError where nothing can come."""
    return RawReader(StandardInput(), request)
