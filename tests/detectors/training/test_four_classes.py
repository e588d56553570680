"""Training with several classes: initial weights, sampling, loss and validation."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import detectors
from datasets.augmentation.balancing import class_balanced_weights, frame_weights
from datasets.sequences.clips import VideoSequence
from detectors.training.data import training_clips
from detectors.training.detection_loss import detection_loss
from detectors.training.recipe import Recipe
from detectors.weights import state_dict, zoo
from detectors.weights.fine_tuning import initialise_from
from pipeline.config.parsing import build, load_toml, override
from pipeline.system.errors import WeightsError
from pipeline.system.signals import StopRequest
from tests.conftest import PROJECT_ROOT
from tests.support.training_runs import complaint, rows, run, write_clip

SEVERAL = {
    "model.options.num_classes": 2,
    "data.class_agnostic": False,
    "data.synthetic_share": 0.5,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A dataset of one clip with a bird in its first half and a drone in its second half."""
    folder = write_clip(tmp_path_factory.mktemp("data"))
    table = json.loads((folder / "clip.json").read_text())
    table["categories"] = [{"id": 1, "name": "bird"}, {"id": 2, "name": "drone"}]
    images = [row["id"] for row in table["images"]]
    first = set(images[: len(images) // 2])
    shown = [row for row in table["annotations"] if (row["instance_id"] == 1) == (row["image_id"] in first)]
    table["annotations"] = [{**row, "category_id": row["instance_id"]} for row in shown]
    (folder / "clip.json").write_text(json.dumps(table))
    return folder


# Initial weights


def saved(folder, **options):
    """Saves the weights of a fresh network; returns the path and the state dict."""
    torch.manual_seed(1)
    network, path = detectors.build("tridos-nano", **options), folder / "w.safetensors"
    state_dict.save(network.state_dict(), path, metadata={"note": "fresh"})
    return path, network.state_dict()


@pytest.mark.parametrize(("before", "known"), [(1, "1 class"), (3, "3 classes")])
def test_with_another_number_of_classes_only_the_class_branch_is_fresh(tmp_path, before, known):
    path, theirs = saved(tmp_path, num_classes=before)
    network = detectors.build("tridos-nano", num_classes=2)
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    assert (
        initialise_from(network, path)
        == f"w.safetensors has {known}: the classification branch for 2 starts from fresh weights"
    )
    for name, value in network.state_dict().items():
        expected = fresh if name.startswith(("head.cls_convs.", "head.cls_preds.")) else theirs
        assert torch.equal(value, expected[name]), name
    assert not torch.equal(fresh["head.stems.0.conv.weight"], theirs["head.stems.0.conv.weight"])


def test_weights_for_the_same_number_of_classes_are_loaded_unchanged(tmp_path):
    path, before = saved(tmp_path, num_classes=2)
    network = detectors.build("tridos-nano", num_classes=2)
    assert initialise_from(network, path) is None
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("options", [{"width": 0.5}, {"width": 0.5, "num_classes": 2}])
def test_weights_of_another_network_are_refused(tmp_path, options):
    path, _ = saved(tmp_path, **options)
    with pytest.raises(WeightsError, match="is not for this Tridos"):
        initialise_from(detectors.build("tridos-nano"), path)


# Sampling


def sequence(name, frames, label):
    labels = np.full(0 if label is None else 1, label or 0)
    boxes = np.zeros((len(labels), 4), np.float32)
    return VideoSequence(name, np.zeros((frames, 8, 8), np.uint8), (boxes,) * frames, (labels,) * frames)


def test_balancing_draws_all_classes_equally_often():
    sequences = [sequence("a", 60, 0), sequence("b", 20, 0), sequence("c", 16, 3), sequence("d", 4, None)]
    assert frame_weights(sequences).tolist() == [60, 20, 16, 4]
    assert class_balanced_weights(sequences) == pytest.approx([36, 12, 48, 4])


def test_balancing_one_class_draws_all_frames_equally_often():
    sequences = [sequence("a", 60, 0), sequence("b", 20, 0)]
    assert class_balanced_weights(sequences).tolist() == frame_weights(sequences).tolist()


def recipe_for(root, **more):
    keys = {"data.layout": "coco-video", "data.root": str(root), "data.train": "clip.json", "data.store": ""}
    keys |= {"data.synthetic_videos": 1, "data.synthetic_frames": 6, "schedule.whole_share": 0.0, **more}
    return build(Recipe, override({}, [(key.split("."), value) for key, value in keys.items()]))


def labels_drawn(recipe, classes):
    sampler = training_clips(recipe, StopRequest(), frames=5, num_classes=classes, progress="off")
    clips = (sampler.clip(0, place, crop_size=(96, 64)) for place in range(24))
    return set(np.concatenate([clip.labels for clip in clips]).tolist())


def test_synthetic_targets_have_no_class_if_there_are_several(root):
    assert labels_drawn(recipe_for(root, **SEVERAL), 2) == {-1, 0, 1}


def test_synthetic_targets_have_the_only_class_if_there_is_one(root):
    assert labels_drawn(recipe_for(root), 1) == {0}


def test_balance_without_classes_is_refused(root, tmp_path, capsys):
    assert run(root, tmp_path, 1, **{"data.balance": True}) == 2
    assert "balance needs classes; set class_agnostic = false" in complaint(capsys)


# Loss


def loss_of(label):
    """Returns the loss of one object with a label, and the gradient of the raw output (1, 5 + 3, 8, 8)."""
    raw = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = detection_loss(raw, [torch.tensor([[30.0, 30.0, 14.0, 12.0]])], [torch.tensor([label])])
    loss.total.backward()
    return loss, raw.grad


def test_an_object_of_unknown_class_contributes_to_box_and_objectness_terms_only():
    loss, gradient = loss_of(-1)
    assert loss.foreground > 0
    assert loss.class_sum == 0
    assert gradient[:, :4].any()
    assert (gradient[:, 4] != 0).all()
    assert not gradient[:, 5:].any()


def test_an_object_of_known_class_contributes_to_the_class_term():
    loss, gradient = loss_of(2)
    assert loss.class_sum > 0
    assert gradient[:, 5:].any()


def test_an_object_of_unknown_class_does_not_change_the_class_term_of_others():
    raw = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    boxes = [torch.tensor([[30.0, 30.0, 14.0, 12.0]])] * 2
    known, alone = torch.tensor([2]), detection_loss(raw[:1], boxes[:1], [torch.tensor([2])])
    both = detection_loss(raw, boxes, [known, torch.tensor([-1])])
    assert both.class_sum == pytest.approx(alone.class_sum.item())
    assert both.foreground > alone.foreground


# Validation


def test_a_run_is_validated_by_class_and_as_one_class(root, tmp_path, capsys):
    path, _ = saved(tmp_path)
    more = {**SEVERAL, "model.init": str(path), "data.balance": True, "record.log_every": 100}
    assert run(root, tmp_path / "run", 1, **more) == 0
    output = capsys.readouterr().out
    assert output.startswith(
        "w.safetensors has 1 class: the classification branch for 2 starts from fresh weights\n"
    )
    assert "AP50 as one class 0." in output
    assert "of each class: bird 0." in output
    val = rows(tmp_path / "run")[-1]["val"]
    assert val["ap50"] == pytest.approx((val["ap50_bird"] + val["ap50_drone"]) / 2)
    assert val["targets"] == 2


@pytest.mark.parametrize("perfect", [True, False])
def test_a_target_is_matched_by_detections_of_its_class_only(root, tmp_path, monkeypatch, perfect):
    """The detections are the ground truth, with its labels or with those of the other class."""
    from detectors.evaluation import detection
    from pipeline.structures.detections import Detections

    def found(_, sequence, positions, **__):
        for position in positions:
            labels = sequence.labels[position]
            scores = np.full(len(labels), 0.9, np.float32)
            yield position, Detections(sequence.boxes[position], scores, labels if perfect else 1 - labels)

    monkeypatch.setattr(detection, "detect_frames", found)
    assert run(root, tmp_path, 1, **SEVERAL) == 0
    val = rows(tmp_path)[-1]["val"]
    assert val["ap50_as_one"] == pytest.approx(1)
    assert [val["ap50"], val["ap50_bird"], val["ap50_drone"]] == pytest.approx([float(perfect)] * 3)


def test_the_configuration_starts_from_supplied_weights():
    recipe = build(Recipe, load_toml(PROJECT_ROOT / "configs" / "tridos_nano_4c_drone_ir.toml"))
    network = detectors.build(recipe.model.name, **recipe.model.options)
    assert network.num_classes == 4
    path, _ = zoo.locate_weights(recipe.model.init)
    assert initialise_from(network, path).endswith(
        "the classification branch for 4 starts from fresh weights"
    )
