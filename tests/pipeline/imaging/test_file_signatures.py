"""Files of cameras and other programs that are not read are named for what they are."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pipeline.imaging.file_signatures import describe_foreign
from pipeline.sources.opening import open_source
from pipeline.system.errors import SourceError

FRAMES = np.arange(3 * 4 * 8, dtype=np.uint16).reshape(3, 4, 8)


@pytest.mark.parametrize(
    ("name", "head", "said"),
    [
        ("a.seq", b"FFF\0", "FLIR recording .*FLIR's software"),
        ("a.csq", b"FFF\0", "FLIR recording"),
        ("a.fff", b"AFF\0", "FLIR recording"),
        ("a.seq", b"\xed\xfe\0\0" + "Norpix seq".encode("utf-16-le"), "Norpix sequence .*StreamPix"),
        ("a.mat", b"MATLAB 5.0 MAT-file", "MATLAB file, .*TIFF"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "HDF5 file, .*zarr"),
        ("a.npz", b"PK\x03\x04", "archive of .*NPZ.*numpy.save"),
        ("a.npy", b"\x93NUMPY\x01\0\xff\xff", "NumPy file .*damaged header"),
    ],
)
def test_a_file_that_is_not_read_says_what_it_is_and_how_to_convert_it(tmp_path, name, head, said):
    path = tmp_path / name
    path.write_bytes(head + bytes(300))
    with pytest.raises(SourceError, match=f"{re.escape(str(path))} is an? {said}"):
        open_source(path)


def test_other_files_are_not_described(tmp_path):
    (tmp_path / "a.seq").write_bytes(bytes(100))
    assert describe_foreign(tmp_path / "a.seq") is None


@pytest.mark.parametrize("dtype", ["uint8", "<u2", ">u2"])
def test_the_options_that_a_numpy_file_needs_read_its_frames(tmp_path, dtype):
    path, frames = tmp_path / "a.npy", FRAMES.astype(dtype)
    np.save(path, frames)
    with pytest.raises(SourceError) as caught:
        open_source(path)
    options = dict(re.findall(r"source[-.](\w+)[ =](\w+)", str(caught.value)))
    with open_source(path, **{**options, "header": int(options["header"])}) as source:
        assert np.array_equal([frame.image for frame in source], frames)


@pytest.mark.parametrize(
    "array", [FRAMES.astype(np.float32), np.asfortranarray(FRAMES), FRAMES[0, 0]], ids=["float", "F", "row"]
)
def test_other_arrays_have_to_be_saved_differently(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(SourceError, match=r"NumPy array \(.*\) of .*; save \(T, H, W\) of uint8 or uint16"):
        open_source(tmp_path / "a.npy")


def test_the_header_of_a_numpy_file_is_not_read_as_pixels(tmp_path):
    np.save(tmp_path / "a.npy", FRAMES)
    with pytest.raises(SourceError, match=r"--set source\.header=128"):
        open_source(tmp_path / "a.npy", format="raw", size="8x4", dtype="uint16le")
