"""Damage to files."""

from __future__ import annotations

from pathlib import Path


def turn_a_bit(path: Path) -> None:
    """Changes one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)
