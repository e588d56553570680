"""MOT files are read back as they were written; malformed lines are reported by their number."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pipeline.evaluation.tracking.track_rows import TrackRows, read_tracks
from pipeline.sinks.mot import MotSink
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks, TrackState
from pipeline.system.errors import UsageError

BOX = [0, 0, 10, 10]


def test_tracks_are_read_back_as_the_sink_wrote_them(tmp_path):
    boxes = [(0, 0, 3, 2), (10.25, 20.5, 13.75, 22.125), (5, 5, 6, 6)]
    states = [TrackState.CONFIRMED, TrackState.COASTING, TrackState.TENTATIVE]
    found = Tracks(boxes, [0.9] * 3, [0] * 3, [4, 5, 6], states, np.zeros((3, 2)), [0] * 3)
    with MotSink(tmp_path / "tracks.txt", coasting=True) as sink:
        for index in (0, 7):
            frame = Frame(np.zeros((32, 32), np.uint8), index, Fraction(index, 30), "test")
            sink.write(Result(frame, Detections.empty(), False, tracks=found))
    rows = read_tracks(tmp_path / "tracks.txt")
    assert rows.frames.tolist() == [0, 0, 7, 7]
    assert rows.ids.tolist() == [4, 5, 4, 5]
    np.testing.assert_array_equal(rows.boxes, [*boxes[:2], *boxes[:2]])
    assert rows.boxes.dtype == np.float32
    assert rows.scores.tolist() == [0.9] * 4


def test_an_empty_file_is_a_run_without_tracks(tmp_path):
    (tmp_path / "tracks.txt").write_text("\n")
    assert len(read_tracks(tmp_path / "tracks.txt")) == 0


MALFORMED = {
    "too few values": ("2,1,5,5,3", "5 values between commas"),
    "spaces instead of commas": ("2 1 5 5 3 3 1", "1 values between commas"),
    "a word": ("2,1,5,x,3,3,1", "'x' is not a number"),
    "frame 0": ("0,1,5,5,3,3", "frame 0 is not a whole number from 1"),
    "half a frame": ("1.5,1,5,5,3,3", "frame 1.5 is not a whole number from 1"),
    "no identity": ("2,-1,5,5,3,3", "id -1 is not a whole number from 0; -1 is for detections"),
    "negative width": ("2,1,5,5,-3,3", "width -3, height 3: neither may be negative"),
    "not a number": ("2,1,nan,5,3,3", "'nan' is not a number"),
    "infinite": ("2,1,5,5,inf,3", "'inf' is not a number"),
    "an id too long to be kept": ("2,99999999999999999999,5,5,3,3", "'9+' is not a number of at most 2"),
    "the same track twice": ("1,1,9,9,3,3", "track 1 is in frame 1 a second time"),
}


@pytest.mark.parametrize(("line", "fault"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_line_is_named_by_its_number(tmp_path, line, fault):
    path = tmp_path / "tracks.txt"
    path.write_text(f"1,1,5,5,3,3,0.9,-1,-1,-1\n\n{line}\n")
    with pytest.raises(UsageError, match=f"tracks .*tracks.txt, line 3: {fault}"):
        read_tracks(path)


def test_a_file_that_is_missing_or_not_text_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read tracks .*: No such file"):
        read_tracks(tmp_path / "missing.txt")
    (tmp_path / "video.mp4").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="are not MOT text"):
        read_tracks(tmp_path / "video.mp4")


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        pytest.param(([0, 1], [1], [BOX]), r"ids has shape \(1,\), expected \(2,\)", id="lengths"),
        pytest.param(([-1], [1], [BOX]), "0 or more", id="negative frame"),
        pytest.param(([0, 1], [1, 1], np.transpose([BOX, BOX])), r"expected \(2, 4\)", id="columns"),
        pytest.param(([0], [1], [[5, 5, 1, 9]]), "x1 <= x2", id="box inside out"),
        pytest.param(([0, 0], [1, 1], [BOX, BOX]), "an id occurs twice in a frame", id="id twice"),
    ],
)
def test_rows_that_are_no_tracks_are_refused(rows, fault):
    with pytest.raises(ValueError, match=fault):
        TrackRows(*rows)
