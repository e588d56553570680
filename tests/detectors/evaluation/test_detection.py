"""The evaluation of weights equals that of the detections that the pipeline would write."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch

from datasets.layouts import registry
from datasets.sequences.clips import read_sequence
from datasets.synthesis import rendering
from detectors import evaluate
from detectors.evaluation import detection
from detectors.networks.tridos.optimised.fused import FusedTridos
from detectors.weights import restore
from pipeline.vid_map_coco import main as vid_map_coco
from tests.support.nano import save_nano
from tests.support.outputs import TARGETS, scene

FRAMES = 12


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A dataset of two clips in one COCO-video file, both.json."""
    folder = tmp_path_factory.mktemp("data")
    tables = []
    for number in (1, 2):
        made = scene(frames=FRAMES, seed=number)
        rendering.write_scene(made, folder / f"clip{number}.mp4")
        tables.append(json.loads((folder / f"clip{number}.json").read_text()))
    (folder / "both.json").write_text(json.dumps(joined(tables)))
    return folder


def joined(tables: list[dict]) -> dict:
    """Merges COCO-video tables; ids of the n-th are shifted by n · 1000."""
    whole = {"videos": [], "images": [], "annotations": [], "categories": tables[0]["categories"]}
    for number, table in enumerate(tables):
        for kind in ("videos", "images", "annotations"):
            for row in table[kind]:
                keys = [key for key in ("id", "image_id", "video_id") if key in row]
                whole[kind].append({**row, **{key: row[key] + 1000 * number for key in keys}})
    return whole


@pytest.fixture(scope="module")
def network(nano_weights):
    return restore.restore_network("tridos-nano", nano_weights)[0].eval()


@pytest.fixture(scope="module")
def dataset(root):
    return registry.load_dataset("coco-video", root, "both.json")


def run(root, weights_file, *arguments: str) -> int:
    places = ["--root", str(root), "--dataset", "coco-video", "--split", "both.json", "--device", "cpu"]
    return evaluate.main([str(weights_file), *places, *arguments])


@pytest.mark.parametrize("stride", [1, 2, 5, 11])
def test_streams_and_clips_give_the_same_boxes(network, dataset, root, stride):
    record = dataset.records[0]
    sequence = read_sequence(record, root)
    positions = detection.annotated_positions(record, stride)
    shapes = []
    found = dict(detection.detect_frames(network, sequence, positions))
    alone = {p: next(detection.detect_frames(network, sequence, [p]))[1] for p in positions}
    assert list(found) == positions == list(range(0, FRAMES, stride))
    for position, detections in found.items():
        np.testing.assert_array_equal(detections.boxes, alone[position].boxes)
        np.testing.assert_array_equal(detections.scores, alone[position].scores)
        shapes.append(len(detections))
    assert sum(shapes) > 0


@pytest.mark.parametrize(("stride", "streamed"), [(1, True), (3, True), (5, False)], ids=str)
def test_only_overlapping_windows_are_streamed(network, dataset, root, monkeypatch, stride, streamed):
    used = []
    monkeypatch.setattr(network, "stream", lambda: used.append(1) or type(network).stream(network))
    record = dataset.records[0]
    list(
        detection.detect_frames(
            network, read_sequence(record, root), detection.annotated_positions(record, stride)
        )
    )
    assert bool(used) == streamed


def test_the_training_mode_is_restored(network, dataset, root):
    sequence = read_sequence(dataset.records[0], root)
    network.train()
    list(detection.detect_frames(network, sequence, [0]))
    training = [module.training for module in network.modules()]
    network.eval()
    assert all(training)


@pytest.fixture
def one_thread():
    """Computes with one thread, as worker processes do: the number of threads changes the rounding."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_several_processes_give_the_same_results_as_one(network, dataset, one_thread):
    alone, rows = detection.score_dataset(network, dataset, stride=4)
    shared, same = detection.score_dataset(network, dataset, stride=4, workers=2)
    assert rows == same
    assert alone.scores() == shared.scores()
    assert alone.scores().frames == 2 * FRAMES / 4
    assert alone.scores().targets == 2 * len(TARGETS) * FRAMES / 4


def test_a_margin_grows_the_boxes_and_nothing_else(network, dataset):
    (_, rows), (_, grown) = (
        detection.score_dataset(network, dataset, stride=FRAMES, margin=margin) for margin in (0, 1.5)
    )
    assert [row["score"] for row in rows] == [row["score"] for row in grown]
    sides = np.array([row["bbox"][2:] for row in rows])
    np.testing.assert_allclose([row["bbox"][2:] for row in grown], sides + 3, atol=0.02)


def test_the_scores_are_those_of_the_written_detections(root, nano_weights, tmp_path, capsys):
    files = [tmp_path / name for name in ("numbers.json", "found.json", "again.json")]
    assert (
        run(root, nano_weights, "--stride", "1", "--output", str(files[0]), "--detections", str(files[1]))
        == 0
    )
    printed = capsys.readouterr().out
    arguments = ["--annotations", str(root / "both.json"), "--detections", str(files[1]), "--class-agnostic"]
    assert vid_map_coco([*arguments, "--output", str(files[2])]) == 0
    assert capsys.readouterr().out == printed
    numbers, again = (json.loads(file.read_text()) for file in (files[0], files[2]))
    assert again.pop("tracks") is None
    assert numbers == again
    assert numbers["frames"] == 2 * FRAMES


def test_classes_are_scored_separately_on_request(root, tmp_path, capsys):
    """The network has the two classes of the annotations; all targets are of the first."""
    table = json.loads((root / "both.json").read_text())
    first = table["categories"][0]
    table["categories"].append({**first, "id": first["id"] + 1, "name": "other"})
    (root / "classes.json").write_text(json.dumps(table))
    file = save_nano(tmp_path / "two.safetensors", num_classes=2)
    split = ["--split", "classes.json", "--stride", "6"]
    assert run(root, file, *split, "--by-class", "--output", str(tmp_path / "numbers.json")) == 0
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert len(numbers["per_class"]) == 2
    assert "By class" in capsys.readouterr().out


def test_half_precision_changes_the_scores_slightly(root, nano_weights, tmp_path, capsys):
    scores = {}
    for precision in ("fp32", "bf16"):
        file = tmp_path / f"{precision}.json"
        options = ["--stride", "6", "--precision", precision, "--detections", str(file)]
        assert run(root, nano_weights, *options) == 0
        scores[precision] = sorted(row["score"] for row in json.loads(file.read_text()))[-5:]
    assert scores["bf16"] != scores["fp32"]
    assert np.allclose(scores["bf16"], scores["fp32"], atol=0.05)


def test_the_optimised_network_of_a_run_is_evaluated(root, nano_weights, monkeypatch):
    computed = []
    score_dataset = detection.score_dataset

    def noting(model, *arguments, **options):
        computed.append(model)
        return score_dataset(model, *arguments, **options)

    monkeypatch.setattr(evaluate, "score_dataset", noting)
    assert run(root, nano_weights, "--stride", "12") == 0
    assert [type(model) for model in computed] == [FusedTridos]


def test_curves_are_plotted(root, nano_weights, tmp_path):
    assert run(root, nano_weights, "--stride", "6", "--plots", str(tmp_path)) == 0
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["froc.png", "precision_recall.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--by-class", "--split", "two.json"], 2, "the network has 1 classes, the dataset 2"),
        (["--split", "none.json"], 2, "none.json"),
        (["--dataset", "dron-ir"], 2, "did you mean 'drone-ir'"),
        (["--conf", "2"], 2, "--conf"),
        (["--precision", "fp16"], 2, "fp16 needs a GPU"),
    ],
    ids=["classes", "split", "dataset", "threshold", "precision"],
)
def test_invalid_input_is_reported_in_one_line(root, nano_weights, capsys, arguments, code, message):
    table = json.loads((root / "both.json").read_text())
    table["categories"].append({"id": 99, "name": "other"})
    (root / "two.json").write_text(json.dumps(table))
    assert run(root, nano_weights, "--stride", "12", *arguments) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.parametrize(
    ("option", "place", "reason"),
    [
        ("--output", "missing/numbers.json", "there is no folder {}/missing; make it first"),
        ("--detections", "missing/found.json", "there is no folder {}/missing; make it first"),
        ("--detections", "", "it is a folder; name a file in it"),
        ("--output", "file/numbers.json", "there is no folder {}/file; make it first"),
        ("--plots", "file", "{}/file is no folder; choose another name"),
        ("--plots", "file/curves", "{}/file is no folder; choose another name"),
        ("--plots", "locked/curves", "{}/locked may not be written; choose another place"),
        ("--output", "locked/numbers.json", "{}/locked may not be written; choose another place"),
    ],
)
def test_an_output_that_cannot_be_written_is_reported_before_the_evaluation(
    root, nano_weights, tmp_path, capsys, monkeypatch, option, place, reason
):
    (tmp_path / "file").touch()
    (tmp_path / "locked").mkdir()
    access = os.access  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: "locked" not in str(path) and access(path, mode))
    monkeypatch.setattr(evaluate, "score_dataset", lambda *_, **__: pytest.fail("measured"))
    path = tmp_path / place
    assert run(root, nano_weights, option, str(path)) == 5
    assert capsys.readouterr().err == f"error: cannot write {path}: {reason.format(tmp_path)}\n"
