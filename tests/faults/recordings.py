"""Fuzz targets of recordings: video in containers of all kinds, and damaged packets in sound containers."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tests.faults.binaries import frames_of
from tests.faults.mutants import COUNT, SIZE, Seed, made, whole
from tests.faults.pictures import COLOUR, encoded, jpegs, orientation, saved, with_segments
from tests.support.media import LOSSLESS, grey_frames, write_video


def muxed(name: str, codec: str, pixel_format: str) -> Callable[[dict[str, bytes], Path], Path]:
    """Returns a function that writes files as the packets of a recording, in their order."""

    def write(files: dict[str, bytes], folder: Path) -> Path:
        path = folder / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=30)
            stream.width, stream.height = SIZE
            stream.pix_fmt = pixel_format
            stream.time_base = Fraction(1, 30)
            for number, data in enumerate(files.values()):
                packet = av.Packet(data)
                packet.stream, packet.time_base = stream, Fraction(1, 30)
                packet.pts = packet.dts = number
                packet.is_keyframe = True
                container.mux(packet)
        return path

    return write


def concatenated(files: dict[str, bytes], folder: Path) -> Path:
    """Writes files one after the other, as bare Motion-JPEG is."""
    path = folder / "a.mjpeg"
    path.write_bytes(b"".join(files.values()))
    return path


def packets(path: Path) -> dict[str, bytes]:
    """Returns the packets of a recording by number."""
    with av.open(str(path)) as container:
        found = [bytes(packet) for packet in container.demux(video=0)]
    return {f"{number}.packet": data for number, data in enumerate(found) if data}


def packets_of(folder: Path, name: str, **how) -> dict[str, bytes]:
    """Encodes a recording; returns its packets."""
    return packets(write_video(folder / name, grey_frames(COUNT, *SIZE[::-1]), **how))


def gif() -> bytes:
    """Returns an animation with a palette of its own for each image, transparency and a comment."""
    pages = [Image.fromarray(picture).convert("P") for picture in grey_frames(COUNT, *SIZE[::-1])]
    return saved(
        pages[0],
        "GIF",
        save_all=True,
        append_images=pages[1:],
        duration=[10, 20, 0, 40],
        disposal=[0, 1, 2, 3],
        transparency=7,
        comment=b"a",
    )


def packet_seeds(folder: Path) -> list[Seed]:
    """Returns seeds whose packets are mutated and whose containers are not."""
    jpeg = {
        f"{number}.jpg": with_segments(saved(Image.fromarray(COLOUR), "JPEG", exif=orientation(number + 5)))
        for number in range(COUNT)
    }
    mixed = {f"{number}.jpg": data for number, data in enumerate(jpegs()[:COUNT])}
    tiff = {f"{number}.tiff": encoded(".tiff", COLOUR[..., 0] * np.uint16(257)) for number in range(COUNT)}
    png = {f"{number}.png": encoded(".png", COLOUR) for number in range(COUNT)}
    coded = [
        ("a.mkv", "libx264", "yuv420p", packets_of(folder, "a.h264", **LOSSLESS)),
        ("a.mkv", "ffv1", "gray16le", packets_of(folder, "b.mkv", codec="ffv1", pixel_format="gray16le")),
        ("a.mov", "qtrle", "rgb555be", packets_of(folder, "c.mov", codec="qtrle", pixel_format="rgb555be")),
    ]
    ways = [("a.avi", "mjpeg", "yuvj420p", jpeg), ("a.mov", "mjpeg", "yuvj420p", mixed)]
    ways += [("a.mov", "tiff", "gray16le", tiff), ("a.mov", "png", "rgb24", png), *coded]
    seeds = [
        Seed(files, muxed(name, codec, pixel_format), frames_of) for name, codec, pixel_format, files in ways
    ]
    return [*seeds, Seed(jpeg, concatenated, frames_of)]


CONTAINERS = [
    ("a.mp4", LOSSLESS),
    ("a.mp4", {**LOSSLESS, "container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    ("a.ts", LOSSLESS),
    ("a.mkv", {"codec": "ffv1", "pixel_format": "gray"}),
    ("a.avi", {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
    ("a.avi", {"codec": "rawvideo", "pixel_format": "rgb555le"}),
    ("a.mov", {"codec": "qtrle", "pixel_format": "rgb555be"}),
    ("a.mov", {"codec": "rawvideo", "pixel_format": "gray16be"}),
    ("a.y4m", {"codec": "wrapped_avframe", "pixel_format": "gray"}),
    (
        "a.y4m",
        {
            "codec": "wrapped_avframe",
            "pixel_format": "yuv420p10le",
            "source_format": "gray",
            "container_options": {"strict": "-1"},
        },
    ),
    ("a.h264", LOSSLESS),
]
"""Name of a recording, whose suffix determines the container, and arguments of `write_video`."""


def video() -> list[Seed]:
    """Returns seeds of recordings in containers of all kinds."""
    pictures = grey_frames(COUNT, *SIZE[::-1])
    seeds = [
        Seed(
            made(lambda folder, name=name, how=how: write_video(folder / name, pictures, **how)),
            whole,
            frames_of,
        )
        for name, how in CONTAINERS
    ]
    collected: list[Seed] = []
    made(lambda folder: collected.extend(packet_seeds(folder)))
    return [*seeds, Seed({"a.gif": gif()}, whole, frames_of), *collected]
