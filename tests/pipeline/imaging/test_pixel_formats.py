"""Frames of any pixel format and with any side data become arrays."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.imaging.pixel_formats import FrameConverter, convert_channels
from pipeline.sources.opening import open_source
from tests.support.media import ORIENTATIONS, grey_frames, write_video


def exif_segment(orientation: int) -> bytes:
    """The APP1 segment of a JPEG with one EXIF entry, the orientation."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    return b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif


def write_motion_jpeg(path: Path, images: list[np.ndarray], *, orientation: int) -> Path:
    """Bare Motion-JPEG, each image with its EXIF orientation."""
    plain = write_video(path.with_suffix(".avi"), images, codec="mjpeg", pixel_format="yuvj420p")
    with av.open(str(plain)) as container, path.open("wb") as file:
        for packet in container.demux(video=0):
            if encoded := bytes(packet):
                file.write(encoded[:2] + exif_segment(orientation) + encoded[2:])
    return path


def images_of(path: Path) -> list[np.ndarray]:
    with open_source(path) as source:
        return [frame.image for frame in source]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "count", "dtype"),
    [
        ("mjpeg_with_exif.avi", 5, np.uint8),
        ("mjpeg_stream_with_exif.mjpeg", 5, np.uint8),
        ("tiff_gray16_in_mov.mov", 3, np.uint16),
        ("qtrle_rgb555.mov", 3, np.uint8),
        ("avi_bi_rgb_16.avi", 5, np.uint8),
    ],
)
def test_video_with_unknown_side_data_or_few_bits_is_read_to_its_end(shared_root, name, count, dtype):
    images = images_of(shared_root / "cases" / name)
    assert [image.shape[:2] for image in images] == [(64, 80)] * count
    assert {image.dtype for image in images} == {np.dtype(dtype)}


@pytest.mark.real_data
def test_exif_changes_no_pixel(shared_root):
    plain, tagged = (images_of(shared_root / f"cases/mjpeg_{n}_exif.avi") for n in ("without", "with"))
    np.testing.assert_array_equal(tagged, plain)


@pytest.mark.parametrize(("orientation", "displayed"), ORIENTATIONS.items())
def test_the_exif_orientation_of_motion_jpeg_is_applied(tmp_path, orientation, displayed):
    ramp = np.add.outer(np.arange(64), 2 * np.arange(96)).astype(np.uint8)
    found = images_of(write_motion_jpeg(tmp_path / "a.mjpeg", [ramp] * 2, orientation=orientation))
    expected = displayed(ramp)
    assert [image.shape for image in found] == [expected.shape] * 2
    assert np.abs(found[0].astype(int) - expected).max() <= 8


DEEP = [
    "gray9le",
    "gray10be",
    "gray12le",
    "gray14le",
    "gray16be",
    "yuv422p10le",
    "yuv444p16be",
]
"""Pixel formats that keep more than 8 bits."""
OTHERS = [
    "monow",
    "monob",
    "pal8",
    "rgb8",
    "bgr8",
    "rgb4_byte",
    "rgb444le",
    "bgr444be",
    "rgb555le",
    "bgr555be",
    "rgb565le",
    "bgr565be",
    "gray",
    "grayf32le",
    "ya8",
    "ya16le",
    "yuyv422",
    "uyvy422",
    "yuv420p",
    "yuva420p",
    "nv12",
    "nv21",
    "p010le",
    "p016be",
    "y210le",
    "rgb24",
    "bgra",
    "rgb48le",
    "rgba64be",
    "gbrp",
    "gbrp9le",
    "gbrp16be",
    "gbrpf32le",
    "gbrapf32be",
    "x2rgb10le",
    "bayer_bggr8",
    "bayer_rggb16le",
]


@pytest.mark.parametrize("name", [*DEEP, *OTHERS])
def test_frames_of_any_pixel_format_become_arrays(name):
    frame = av.VideoFrame(48, 32, name)
    for plane in frame.planes:
        plane.update(b"\x10" * plane.buffer_size)
    convert = FrameConverter(frame)
    image = convert(frame)
    assert image.shape == ((32, 48) if convert.grey else (32, 48, 3))
    assert image.dtype == (np.uint16 if name in DEEP and convert.grey else np.uint8)


@pytest.mark.parametrize("pixel_format", ["rgb555le", "rgb565le", "rgb4_byte", "monow", "monob"])
def test_video_of_fewer_than_eight_bits_a_channel_is_read(tmp_path, pixel_format):
    images = [np.where(image > 127, 255, 0).astype(np.uint8) for image in grey_frames(3)]
    codec = {"codec": "rawvideo", "pixel_format": pixel_format}
    found = images_of(write_video(tmp_path / "a.nut", images, **codec))
    grey = [convert_channels(image, grey=True).astype(int) for image in found]
    assert np.abs(np.subtract(grey, images)).max() <= 8
