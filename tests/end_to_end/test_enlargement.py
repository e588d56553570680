"""A run enlarges frames by the factor its weights were trained with unless `--enlarge` is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detectors.weights import state_dict
from tests.support.outputs import check_consistent, lines, report


@pytest.fixture(scope="module")
def enlarged_weights(tmp_path_factory, nano_weights):
    """The weights of the tests with metadata of a training on frames enlarged by 1.5."""
    path = tmp_path_factory.mktemp("enlarged") / "nano.safetensors"
    state_dict.save(
        state_dict.read_state_dict(Path(nano_weights)), path, metadata={"recipe": {"data": {"enlarge": 1.5}}}
    )
    return path


@pytest.fixture
def enlarge(mote, tmp_path, clip):
    """Processes four frames; returns the scale in run.json and the boxes of the first frame."""

    def call(path, *arguments) -> tuple[float, list]:
        out = tmp_path / "out"
        arguments = ("--weights", path, "--output", out, "--overwrite", "--max-frames", 4, *arguments)
        reply = mote("--video", clip, "--progress", "off", *arguments)
        assert reply.code == 0, reply
        assert check_consistent(out) == 4
        record = report(out)
        assert record["detector"]["enlarge"] == record["config"]["detector"]["enlarge"]
        return record["detector"]["enlarge"], [found["bbox"] for found in lines(out)[0]["detections"]]

    return call


def test_weights_are_used_at_the_scale_of_their_training(enlarge, enlarged_weights, nano_weights):
    scale, boxes = enlarge(enlarged_weights)
    asked_for, same = enlarge(nano_weights, "--enlarge", 1.5)
    assert scale == asked_for == 1.5
    assert len(boxes)
    assert boxes == same


def test_the_flag_overrides_what_the_weights_say(enlarge, enlarged_weights, nano_weights):
    scale, boxes = enlarge(enlarged_weights, "--enlarge", 1)
    plain_scale, plain = enlarge(nano_weights)
    assert scale == plain_scale == 1.0
    assert boxes == plain
    assert boxes != enlarge(enlarged_weights)[1]


def test_boxes_of_enlarged_frames_are_in_source_pixels(enlarge, enlarged_weights):
    boxes = np.array(enlarge(enlarged_weights)[1])
    assert (boxes[:, :2] + boxes[:, 2:]).max() <= 64


def test_a_size_of_its_own_is_not_enlarged(enlarge, enlarged_weights):
    assert enlarge(enlarged_weights, "--size", "64x64")[0] == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--enlarge", "2", "--size", "64x64"], "--enlarge 2.0 needs --size native, not '64x64'"),
        (["--enlarge", "0.1"], "--enlarge 0.1, expected 0.25 to 8, or 0 for that of the weights"),
        (["--enlarge", "9"], "--enlarge 9, expected 0.25 to 8"),
        (["--enlarge", "-1"], "--enlarge -1, expected 0.25 to 8"),
        (["--enlarge", "twice"], "argument --enlarge: invalid float value: 'twice'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_invalid_enlargement_is_reported(mote, tmp_path, clip, nano_weights, arguments, message):
    reply = mote("--video", clip, "--weights", nano_weights, "--output", tmp_path / "out", *arguments)
    assert reply.code == 2
    (line,) = reply.err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()
