"""Synthetic clips and ways to damage them."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.sources.opening import open_source
from pipeline.system.errors import SourceLost

LOSSLESS = {"codec": "libx264", "options": {"qp": "0"}}
IDENTITY = (1, 0, 0, 1)
ORIENTATIONS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.T,
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].T,
    8: lambda image: np.rot90(image),
}
"""EXIF orientation → how a stored grey image (H, W) is displayed."""


def grey_frames(count: int, height: int = 64, width: int = 96) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return list(random.integers(0, 256, (count, height, width), np.uint8))


def write_video(
    path: Path,
    images: list[np.ndarray],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    source_format: str = "gray",
    rate: Fraction | int = 30,
    times: list[int] | None = None,
    time_base: Fraction | None = None,
    options: dict | None = None,
    container_options: dict | None = None,
) -> Path:
    """Encodes images (H, W) or (H, W, 3) at `times` in `time_base` or at `rate`; returns the path."""
    time_base = time_base or 1 / Fraction(rate)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = time_base
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format=source_format)
            frame.pts, frame.time_base = times[index] if times else index, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def planar_yuv(luma: np.ndarray, blue: int = 128, red: int = 128, *, pixel_format: str = "yuv420p"):
    """Returns a frame with the given luma (H, W) uint8 and constant chroma."""
    frame = av.VideoFrame(luma.shape[1], luma.shape[0], pixel_format)
    for plane, values in zip(frame.planes, (luma, blue, red), strict=True):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        rows[:, : plane.width] = values
        plane.update(rows.tobytes())
    return frame


def write_yuv(path: Path, frames: list[av.VideoFrame], color_range: int = 1) -> Path:
    """Encodes frames losslessly and without conversion; returns the path."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height = frames[0].width, frames[0].height
        stream.pix_fmt = frames[0].format.name
        stream.codec_context.color_range = color_range
        for index, frame in enumerate(frames):
            frame.pts, frame.color_range = index, color_range
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut(path: Path, share: float = 0.7) -> Path:
    """Truncates a copy of the file after a share of its bytes; returns its path."""
    data = path.read_bytes()
    shorter = path.with_name(f"cut_{path.name}")
    shorter.write_bytes(data[: int(len(data) * share)])
    return shorter


def turn(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Writes a display matrix into the track header of an mp4; returns the path."""

    def coded(a, b, c, d):
        return np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()

    data = path.read_bytes()
    position = data.index(coded(*IDENTITY), data.index(b"tkhd"))
    path.write_bytes(data[:position] + coded(*matrix) + data[position + 36 :])
    return path


def read_until_lost(path: Path) -> tuple[list, str]:
    """Returns the frames before the loss and its message."""
    frames = []
    with open_source(path) as source:
        with pytest.raises(SourceLost) as caught:
            frames.extend(source)  # keeps what came before the error
    return frames, str(caught.value)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
