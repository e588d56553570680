"""Detection probability in scenes that differ only in the brightness of their targets."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from detectors import sensitivity as command
from detectors.evaluation.sensitivity import measure_sensitivity, render_scenes
from detectors.weights import restore
from pipeline.structures.detections import Detections

SIZE = {"width": 64, "height": 48}


@pytest.fixture(scope="module")
def network(nano_weights):
    return restore.restore_network("tridos-nano", nano_weights)[0].eval()


def test_another_ratio_gives_the_same_scene_with_brighter_targets():
    dim, bright = (next(render_scenes(ratio, count=1, frames=6, **SIZE)) for ratio in (2, 10))
    difference = bright.frames.astype(int) - dim.frames
    boxes = [box for rows in bright.boxes for box in rows]
    assert boxes
    outside = np.ones(difference.shape, bool)
    for frame, rows in zip(outside, bright.boxes, strict=True):
        for x1, y1, x2, y2 in rows.astype(int):
            frame[max(y1 - 8, 0) : y2 + 9, max(x1 - 8, 0) : x2 + 9] = False
    assert difference.max() > 5
    assert abs(difference[outside]).max() <= 1
    assert all(np.array_equal(a, b) for a, b in zip(dim.boxes, bright.boxes, strict=True))


def test_scenes_differ_from_each_other_and_are_reproducible():
    first, second = render_scenes(3, count=2, frames=2, **SIZE)
    again = next(render_scenes(3, count=1, frames=2, **SIZE))
    assert not np.array_equal(first.frames, second.frames)
    np.testing.assert_array_equal(first.frames, again.frames)


def measured(network, monkeypatch, detect):
    monkeypatch.setattr("detectors.evaluation.detection.detect_frames", detect)
    return measure_sensitivity(network, [2.0, 8.0], [0.0, 1.0], count=2, frames=8, **SIZE)


def finds(score: float, *, false_alarm: float, unseen: tuple = ()):
    """Returns a `detect_frames` that misses the targets of `unseen` scenes, with a false alarm per frame."""

    def detect(_, sequence, positions, *, enlarge):
        blind = any(np.array_equal(sequence.frames, other.frames) for other in unseen)
        for position in positions:
            boxes = np.zeros((0, 4)) if blind else sequence.boxes[position]
            scores = [*[score] * len(boxes), false_alarm]
            yield position, Detections(np.vstack([boxes, [0, 0, 1, 1]]), scores, [0] * len(scores))

    return detect


def test_the_probability_is_one_at_a_threshold_above_the_false_alarms(network, monkeypatch):
    result = measured(network, monkeypatch, finds(0.9, false_alarm=0.5))
    assert result.frames == 2 * 4
    none, one = result.levels
    assert (none.threshold, none.probability) == (pytest.approx(0.9), [1, 1])
    assert (one.threshold, one.probability) == (0.5, [1, 1])
    assert result.targets[0] == result.targets[1] > 0


def test_there_is_no_threshold_if_even_the_best_detections_exceed_the_rate(network, monkeypatch):
    none, one = measured(network, monkeypatch, finds(0.4, false_alarm=0.9)).levels
    assert (none.threshold, none.probability) == (None, [None, None])
    assert one.probability == [1, 1]


def test_each_ratio_has_its_own_probability_and_all_the_same_threshold(network, monkeypatch):
    dim = tuple(render_scenes(2.0, count=2, frames=8, **SIZE))
    levels = measured(network, monkeypatch, finds(0.8, false_alarm=0.1, unseen=dim)).levels
    assert [level.probability for level in levels] == [[0, 1], [0, 1]]
    assert [level.threshold for level in levels] == pytest.approx([0.8, 0.1])


def test_too_few_frames_are_refused(network):
    with pytest.raises(ValueError, match="expected 5 or more"):
        measure_sensitivity(network, [3.0], [0.1], count=1, frames=4)


def test_the_command_prints_a_table_and_writes_json_and_a_plot(nano_weights, tmp_path, capsys):
    out = tmp_path / "numbers.json"
    arguments = ["--ratios", "4", "--scenes", "1", "--frames", "5", "--false-alarms", "50"]
    places = ["--output", str(out), "--plots", str(tmp_path), "--device", "cpu"]
    assert command.main([nano_weights, *arguments, *places]) == 0
    assert "Pd at 50 false alarms a frame" in capsys.readouterr().out
    assert json.loads(out.read_text())["frames"] == 1
    assert np.ptp(cv2.imread(str(tmp_path / "sensitivity.png"))) > 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "4"], "expected a whole number of 5 or more"),
        (["--ratios", "dim"], "'dim'"),
    ],
)
def test_invalid_input_is_reported_in_one_line(nano_weights, capsys, arguments, message):
    assert command.main([nano_weights, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
