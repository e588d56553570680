"""Runs with rotated files."""

from __future__ import annotations

import json
from contextlib import contextmanager
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
    """Returns sinks of three kinds."""
    return [JsonlSink(place(JSONL)), CocoSink(place(COCO)), MotSink(place(MOT))]


def sizes(folder):
    """Returns the bytes of each set of rotated files."""
    return [files.size() for files in find_rotated_files(folder)]


def records(files, name=JSONL):
    """Reads the lines of a set of rotated files."""
    return [json.loads(line) for line in files.path(name).read_text().splitlines()]


def assert_whole(folder, expected):
    """Asserts that the rotated files in a folder hold the frames `expected`, in lines and video."""
    sets = find_rotated_files(folder)
    assert [files.number for files in sets] == list(range(1, len(sets) + 1))
    found = [[line["frame"] for line in records(files)] for files in sets]
    assert list(chain(*found)) == expected
    assert all(found)
    for files, frames in zip(sets, found, strict=True):
        assert_plays(files.path(VIDEO), len(frames))


def assert_plays(path, count):
    """Asserts that a video shows `count` frames and begins with a key frame at time 0."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert packets[0].is_keyframe
    assert [pts for pts, _ in video(path)] == [Fraction(index, 30) for index in range(count)]


@contextmanager
def rotation_every(frames):
    """Rotates files after a number of frames within the block, whatever their time and size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RotatingSink, "_due", lambda self: self._frames == frames)
        yield


def run_rotated(process, source, *, every=4, truth=None, **output):
    """Runs with `every` frames in each set of rotated files; returns the folder."""
    with rotation_every(every):
        return process(source, truth=truth, output={"rotate_every": "1h", **output})
