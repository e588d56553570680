"""What is needed to copy the coded packets of a video: whether browsers play them, and where they are."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import av

_PROFILES = ("Baseline", "Constrained Baseline", "Main", "High")
"""Profiles of H.264 that all browsers play; those for lossless video, 10 bits or 4:4:4 are not among them."""
_PIXEL_FORMATS = ("yuv420p", "yuvj420p")
_WITHOUT_TIMES = ("avi", "h264")
"""Container formats of FFmpeg that store no presentation times, which an MP4 file needs."""


class CodedFile(NamedTuple):
    """A video file whose packets can be copied at any time."""

    path: Path
    stream: int
    """Index of the stream in the container."""


def can_be_copied(container: av.container.InputContainer, stream: av.VideoStream) -> bool:
    """Returns whether the packets of a stream, as they are, make an MP4 file that browsers play."""
    context = stream.codec_context
    return (
        context.name == "h264"
        and context.profile in _PROFILES
        and context.pix_fmt in _PIXEL_FORMATS
        and container.format.name not in _WITHOUT_TIMES
    )


def make_template(stream: av.VideoStream, key: bytes) -> bytes:
    """Returns a file of one key frame, from which a stream is copied when the source may be closed.

    NUT is the container, because it changes neither packets nor the parameter sets beside them.
    """
    template = io.BytesIO()
    assert stream.time_base is not None  # as a stream with packets has it
    with av.open(template, "w", format="nut") as container:
        copy = container.add_stream_from_template(stream)
        copy.time_base = stream.time_base
        packet = av.Packet(key)
        packet.pts = packet.dts = 0
        packet.time_base, packet.is_keyframe, packet.stream = stream.time_base, True, copy
        container.mux(packet)
    return template.getvalue()
