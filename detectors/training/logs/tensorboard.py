"""The event files that TensorBoard reads, written without it: its package brings a hundred megabytes along.

A file is a row of records: length, checksum of the length, an `Event` message of protocol buffers, checksum
of the message; numbers little-endian, checksums CRC-32C, rotated and shifted by a constant.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path

POLYNOMIAL = 0x82F63B78  # of Castagnoli, its bits in reverse
MASK = 0xA282EAD8


@cache
def _table() -> tuple[int, ...]:
    """The checksum of each single byte."""
    entries = []
    for entry in range(256):
        for _ in range(8):
            entry = entry >> 1 ^ (POLYNOMIAL if entry & 1 else 0)
        entries.append(entry)
    return tuple(entries)


def masked_crc(data: bytes) -> int:
    """The checksum that stands in the file."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF


def _varint(value: int) -> bytes:
    """Seven bits a byte, lowest first; the top bit says that more follow."""
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _nested(field: int, content: bytes) -> bytes:
    """A field that holds text or a message."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def event(time: float, *, step: int = 0, scalars: Mapping[str, float] | None = None) -> bytes:
    """The record of named numbers at a step; without them the one that opens a file. `time` is Unix time."""
    message = b"\x09" + struct.pack("<d", time)  # 1: wall_time
    if scalars is None:
        message += _nested(3, b"brain.Event:2")  # 3: file_version
    else:
        values = b"".join(  # 5: summary, of 1: values, each 1: tag and 2: simple_value
            _nested(1, _nested(1, name.encode()) + b"\x15" + struct.pack("<f", value))
            for name, value in scalars.items()
        )
        message += b"\x10" + _varint(step) + _nested(5, values)  # 2: step
    length = struct.pack("<Q", len(message))
    checks = (struct.pack("<I", masked_crc(part)) for part in (length, message))
    return length + next(checks) + message + next(checks)


class EventFile:
    """One open event file."""

    def __init__(self, path: Path, *, time: float):
        self._file = path.open("wb")
        self._file.write(event(time))

    def add(self, step: int, scalars: Mapping[str, float], *, time: float) -> None:
        """Append numbers of a step."""
        self._file.write(event(time, step=step, scalars=scalars))

    def flush(self) -> None:
        """Let readers see what has been added."""
        self._file.flush()

    def close(self) -> None:
        """Finish the file."""
        self._file.close()
