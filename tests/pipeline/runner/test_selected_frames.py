"""A run over every N-th frame between two places: outputs, ground truth, resuming, tracking again."""

from __future__ import annotations

import json

import pytest

from tests.support.interrupted_runs import assert_same, interrupted_copy
from tests.support.outputs import lines, report
from trackers import track

ASKED = ("--start", "0.05s", "--end", "0:00.5", "--stride", 3)
FRAMES = [2, 5, 8, 11, 14]


@pytest.fixture
def selected(mote, clip, nano_weights, tmp_path):
    """Runs the command over the selected frames; returns the folder of the outputs."""

    def call(name, *more):
        arguments = (
            "--weights",
            nano_weights,
            "--conf",
            0.2,
            "--progress",
            "off",
            "--output",
            tmp_path / name,
        )
        truth = ("--annotations", clip.with_suffix(".json"))
        reply = mote(clip, *arguments, *truth, *more)
        assert (reply.code, reply.err) == (0, "")
        return tmp_path / name

    return call


def test_a_run_of_selected_frames_is_written_scored_resumed_and_tracked_again(selected, tmp_path):
    folder = selected("whole", *ASKED)
    rows = lines(folder)
    assert [row["frame"] for row in rows] == FRAMES
    assert not any("gap" in row for row in rows)
    about = report(folder)
    assert about["requested"] == {"start": "0.05s", "end": "0:00.5"}
    assert {key: about["config"]["source"][key] for key in ("start", "end", "stride")} == {
        "start": 2,
        "end": 15,
        "stride": 3,
    }
    assert (about["frames"]["announced"], about["frames"]["written"]) == (5, 5)
    assert about["metrics"]["frames"] == 5
    images = {row["image_id"] for row in json.loads((folder / "detections.json").read_text())}
    assert images <= {frame + 1 for frame in FRAMES}

    again = interrupted_copy(folder, tmp_path / "again", after=2)
    selected("again", "--start", 2, "--end", 15, "--stride", 3, "--resume")  # the same frames, by number
    assert_same(again, folder)

    anew = tmp_path / "anew"
    assert track.main([str(folder), "--output", str(anew)]) == 0
    assert [row["tracks"] for row in lines(anew)] == [row["tracks"] for row in rows]


def test_whole_numbers_select_the_frames_that_an_every_frame_run_finds(selected):
    whole, part = lines(selected("whole")), lines(selected("part", "--start", 4, "--end", 9))
    assert [row["frame"] for row in part] == [4, 5, 6, 7, 8]
    assert [row["pts"] for row in part] == [row["pts"] for row in whole[4:9]]
