"""Runs whose files are in pieces, for the tests."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import chain

import av
import pytest

from pipeline.config.rotation import Rotation
from pipeline.sinks.coco import CocoSink
from pipeline.sinks.file_names import COCO, JSONL, MOT, VIDEO
from pipeline.sinks.jsonl import JsonlSink
from pipeline.sinks.mot import MotSink
from pipeline.sinks.rotating import RotatingSink, find_rotated_files
from tests.support.outputs import video

FOREVER = Rotation(seconds=0, size=10**12, budget=0)


def open_files(place):
    """Sinks of three kinds."""
    return [JsonlSink(place(JSONL)), CocoSink(place(COCO)), MotSink(place(MOT))]


def sizes(folder):
    """Bytes of each piece that is there."""
    return [piece.size() for piece in find_rotated_files(folder)]


def records(piece, name=JSONL):
    """The lines of a piece."""
    return [json.loads(line) for line in piece.path(name).read_text().splitlines()]


def assert_whole(folder, expected):
    """Assert that the pieces in a folder are those of a run with the `expected` lines, video and all."""
    pieces = find_rotated_files(folder)
    assert [piece.number for piece in pieces] == list(range(1, len(pieces) + 1))
    found = [[line["frame"] for line in records(piece)] for piece in pieces]
    assert list(chain(*found)) == expected
    assert all(found)
    for piece, frames in zip(pieces, found, strict=True):
        assert_plays(piece.path(VIDEO), len(frames))


def assert_plays(path, count):
    """Assert that a video by itself shows so many frames from a key frame and time 0 on."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert packets[0].is_keyframe
    assert [pts for pts, _ in video(path)] == [Fraction(index, 30) for index in range(count)]


def in_pieces(process, source, *, every=4, **output):
    """The folder of a run with so many frames in each piece."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RotatingSink, "_due", lambda self: self._frames == every)
        return process(source, output={"rotate_every": "1h", **output})
