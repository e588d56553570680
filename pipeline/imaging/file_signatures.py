"""Recognises files that are not read, such as those of some cameras, by their first bytes, to name them."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

_NPY = b"\x93NUMPY"
_HEAD_BYTES = 64
_EXPORT = "export its frames as 16-bit TIFF, or as video"
_SIGNATURES = (
    (b"FFF\0", "a FLIR recording (SEQ, CSQ, FFF)", f"{_EXPORT} with FLIR's software"),
    (b"AFF\0", "a FLIR recording (SEQ, CSQ, FFF)", f"{_EXPORT} with FLIR's software"),
    (b"\xed\xfe\0\0" + "Norpix".encode("utf-16-le"), "a Norpix sequence (SEQ)", f"{_EXPORT} with StreamPix"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "write its frames to a zarr array (T, H, W), or to TIFF files"),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file", "write its frames with imwrite to TIFF files"),
    (b"SIMPLE  =", "a FITS file", "write its frames to a zarr array (T, H, W), or to TIFF files"),
)
"""First bytes, what a file is that begins with them, and how to convert it."""
_DTYPES = {"|u1": "uint8", "<u2": "uint16le", ">u2": "uint16be"}
"""Types of NumPy arrays that can be read as raw frames → values of `source.dtype`."""


def describe_foreign(path: Path) -> str | None:
    """Returns what a file is and how to convert or read it, if it is known and not read; None for others.

    Raises OSError if the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        for signature, kind, remedy in _SIGNATURES:
            if head.startswith(signature):
                return f"is {kind}, which is not read; {remedy}"
        if head.startswith(b"PK\x03\x04") and path.suffix.lower() == ".npz":
            return (
                "is an archive of NumPy arrays (NPZ), which is not read; save one (T, H, W) with numpy.save"
            )
        if head.startswith(_NPY):
            file.seek(0)
            return _describe_npy(file)
    return None


def npy_header_bytes(path: Path) -> int | None:
    """Returns the size of the header of a file of NumPy; None for other files and damaged headers.

    Raises OSError if the file cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(_NPY)) != _NPY:
            return None
        file.seek(0)
        return file.tell() if _read_npy_header(file) else None


def _describe_npy(file: BinaryIO) -> str:
    header = _read_npy_header(file)
    if header is None:
        return "is a NumPy file (NPY) with a damaged header"
    shape, column_major, dtype = header
    kind = f"is a NumPy array {shape} of {dtype}"
    if dtype.str not in _DTYPES or column_major or len(shape) not in (2, 3):
        return f"{kind}; save (T, H, W) of uint8 or uint16, in C order, with numpy.save"
    height, width = shape[-2:]
    raw = f"--source-size {width}x{height} --source-dtype {_DTYPES[dtype.str]}"
    return f"{kind}; give --source-format raw {raw} --set source.header={file.tell()}"


def _read_npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype] | None:
    """Reads the header of a file of NumPy up to its data: shape, whether it is column-major, and dtype."""
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        return read(file)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
