"""Detections of some classes are kept, and classes that the detector does not have are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.stages.classes import class_labels, keep_classes
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.results import FrameDetections
from pipeline.system.errors import UsageError
from tests.support.nano import save_nano
from tests.support.outputs import lines, report

KNOWN = ("airplane", "bird", "drone", "2")


@pytest.mark.parametrize(
    ("asked", "labels"),
    [
        (["drone"], (2,)),
        (["drone", "airplane", 0], (0, 2)),
        (["1"], (1,)),
        ([1], (1,)),
        (["2"], (3,)),  # a name comes before a number
    ],
)
def test_classes_are_named_or_numbered(asked, labels):
    assert class_labels(asked, KNOWN) == labels


@pytest.mark.parametrize("asked", ["birds", "4", "-1", ""])
def test_an_unknown_class_is_refused_with_the_known_ones(asked):
    with pytest.raises(UsageError, match=r"no such class \(known: 0 airplane, 1 bird, 2 drone, 3 2"):
        class_labels([asked], KNOWN)


def test_detections_of_other_classes_are_left_out():
    boxes = np.tile([1, 2, 3, 4], (3, 1))
    masks = np.arange(3)[:, None, None] * np.ones((3, 8, 8)) > 0
    found = Detections(boxes, [0.9, 0.8, 0.7], [2, 0, 1], masks=masks)
    item = FrameDetections(Frame(np.zeros((8, 8), np.uint8), 0, 0, "a"), found, warmup=False, timings={})
    (kept,) = keep_classes([item], (1, 2))
    assert kept.detections.labels.tolist() == [2, 1]
    np.testing.assert_array_equal(kept.detections.masks, masks[[0, 2]])


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("weights") / "three.safetensors", num_classes=3)


def found_in(folder) -> list[list[dict]]:
    """The detections of each frame."""
    return [line["detections"] for line in lines(folder)]


@pytest.mark.slow
def test_a_run_of_one_or_of_several_sources_keeps_the_classes_asked_for(mote, clip, three_classes, tmp_path):
    asked = ("--weights", three_classes, "--conf", 0.2, "--progress", "off", "--output")
    assert mote(clip, *asked, tmp_path / "all").code == 0
    every = found_in(tmp_path / "all")
    classes = sorted({row["label"] for rows in every for row in rows})
    assert len(classes) > 1
    wanted = [[row for row in rows if row["label"] == classes[1]] for rows in every]
    name = report(tmp_path / "all")["detector"]["classes"][classes[1]]

    assert mote(clip, *asked, tmp_path / "one", "--classes", classes[1]).code == 0
    assert found_in(tmp_path / "one") == wanted
    assert report(tmp_path / "one")["config"]["detector"]["classes"] == [name]
    rows = json.loads((tmp_path / "one" / "detections.json").read_text())
    assert len(rows) == sum(map(len, wanted))

    both = ("--video", clip, "--video", clip)
    assert mote(*both, *asked, tmp_path / "both", "--classes", name).code == 0
    assert found_in(tmp_path / "both" / clip.stem) == wanted


@pytest.mark.slow
def test_python_keeps_the_classes_asked_for(clip, three_classes):
    import mote

    settings = {"weights": three_classes, "conf": 0.2, "backend": "torch", "classes": [1]}
    finder = mote.Finder(**settings)
    for number, result in enumerate(mote.watch(clip, max_frames=6, **settings)):
        alone = finder(result.frame.image)
        assert set(result.detections.labels) <= {1}
        assert len(alone.detections) == len(result.detections), number


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--classes", "birds"], "--classes birds: the detector has no such class (known: 0 class 0)"),
        (["--classes"], "argument --classes: expected at least one argument"),
    ],
)
def test_the_command_refuses_classes_that_are_not_there(mote, clip, nano_weights, tmp_path, options, reason):
    reply = mote(clip, "--weights", nano_weights, "--output", tmp_path / "out", *options)
    assert reply.code == 2
    assert reason in reply.err
    assert not (tmp_path / "out").exists()
