"""Corrupted frames are scored against boxes that move with them, in pixels of the clean frame."""

from __future__ import annotations

import json

import numpy as np
import pytest

from datasets.augmentation.corruptions import CORRUPTIONS, Corruption
from datasets.layouts import registry
from datasets.synthesis import rendering
from detectors import robustness as command
from detectors.evaluation import robustness
from detectors.evaluation.detection import score_dataset
from detectors.evaluation.robustness import detect_corrupted, evaluate_robustness
from detectors.weights import restore
from pipeline.structures.detections import Detections
from tests.support.outputs import scene

FRAMES = 8
CLEAN = CORRUPTIONS[0]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rendering.write_scene(scene(frames=FRAMES), folder / "clip.mp4")
    return folder


@pytest.fixture(scope="module")
def dataset(root):
    return registry.load_dataset("coco-video", root, "clip.json")


@pytest.fixture(scope="module")
def network(nano_weights):
    return restore.restore_network("tridos-nano", nano_weights)[0].eval()


def test_clean_frames_have_the_scores_of_the_evaluation(network, dataset):
    row = evaluate_robustness(network, dataset, [CLEAN], stride=3)[0]
    evaluator, _ = score_dataset(network, dataset, stride=3)
    report = evaluator.report(0.4)
    assert row.ap50 == report.scores.ap50
    assert row.best_f1 == report.scores.best_f1
    assert row.centre_ap == report.criteria["centre_5px"].ap
    assert (row.ap50_loss, row.best_f1_loss, row.centre_ap_loss) == (0, 0, 0)


def test_the_stride_of_a_corruption_selects_the_frames_of_the_window(network, dataset, monkeypatch):
    seen = []
    monkeypatch.setattr(
        robustness, "detect_clip", lambda _, clip, **__: seen.append(clip) or Detections.empty()
    )
    whole = Corruption("whole", "", CLEAN.apply)
    half = Corruption("half", "", CLEAN.apply, stride=2)
    list(detect_corrupted(network, dataset.records[0], dataset.root, [7], 1.0, [whole, half]))
    every, other = (clip.frames for clip in seen)
    np.testing.assert_array_equal(every[-1], other[-1])
    np.testing.assert_array_equal(every[-3], other[-2])
    assert not np.array_equal(every[-2], other[-2])


@pytest.mark.parametrize("name", ["clean", "jitter", "half"])
def test_a_network_that_detects_the_moved_boxes_has_no_loss(network, dataset, monkeypatch, name):
    """Detections in pixels of the corrupted clip are converted to those of the clean frame."""

    def ideal(_, clip, **__):
        return Detections(clip.boxes, np.full(len(clip.boxes), 0.9), np.zeros(len(clip.boxes)))

    monkeypatch.setattr(robustness, "detect_clip", ideal)
    chosen = [d for d in CORRUPTIONS if d.name in ("clean", name)]
    rows = evaluate_robustness(network, dataset, chosen, stride=2)
    assert [row.ap50 for row in rows] == [1.0] * len(chosen)
    seen = list(detect_corrupted(network, dataset.records[0], dataset.root, [6], 1.0, chosen))
    moved = np.abs(seen[-1].boxes - dataset.records[0].boxes[6]).max()
    assert (moved > 0.9) == (name == "jitter")


def test_losses_are_those_against_the_first_row(network, dataset):
    clean, blind = evaluate_robustness(
        network, dataset, [CLEAN, Corruption("black", "black", black)], stride=4
    )
    assert blind.ap50_loss == clean.ap50 - blind.ap50
    assert blind.centre_ap_loss == clean.centre_ap - blind.centre_ap
    assert clean != blind


def black(clip, _):
    return type(clip)(np.zeros_like(clip.frames), clip.boxes, clip.labels)


def test_several_processes_give_the_same_results_as_one(network, dataset):
    chosen = [d for d in CORRUPTIONS if d.name in ("clean", "noise_5")]
    alone = evaluate_robustness(network, dataset, chosen, stride=4)
    assert evaluate_robustness(network, dataset, chosen, stride=4, workers=2) == alone


def run(root, weights_file, *arguments: str) -> int:
    places = ["--root", str(root), "--dataset", "coco-video", "--split", "clip.json", "--device", "cpu"]
    return command.main([weights_file, *places, *arguments])


def test_the_command_prints_a_table_and_writes_json(root, nano_weights, tmp_path, capsys):
    out = tmp_path / "rows.json"
    assert run(root, nano_weights, "--stride", "7", "--only", "noise_5", "half", "--output", str(out)) == 0
    rows = json.loads(out.read_text())
    assert [row["name"] for row in rows] == ["clean", "noise_5", "half"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert {line.count("|") for line in lines} == {5}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--only", "nois_5"], 2, "did you mean 'noise_5'"),
        (["--output", "missing/rows.json"], 5, "there is no folder missing"),
        (["--stride", "0"], 2, "expected a whole number of 1 or more"),
    ],
)
def test_invalid_input_is_reported_in_one_line(root, nano_weights, capsys, arguments, code, message):
    assert run(root, nano_weights, *arguments) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
