"""Weights that hold a calibration give scores that are chances of a hit; others give what they gave."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

import detectors
from detectors.inference.postprocess import decode
from detectors.inference.streaming import optimise_for_inference
from detectors.networks.plain import PlainNetwork
from detectors.publish import publish
from detectors.weights import fine_tuning, restore, state_dict
from pipeline.evaluation.analysis.score_calibration import calibrated_probability
from pipeline.system.errors import UsageError, WeightsError

FIT = {"slope": 4.25, "offset": 0.5}
RECIPE = {"model": {"name": "plain", "options": {"widths": [8, 8, 8, 8]}}}


def saved(folder, model, name="plain", **metadata):
    path = folder / "best.safetensors"
    recipe = {"model": {**RECIPE["model"], "name": name}} if name == "plain" else {}
    state_dict.save(model.state_dict(), path, metadata={"recipe": recipe, **metadata})
    return path


def detections(model):
    """Boxes and scores that a network in evaluation mode has for fixed noise."""
    generator = torch.Generator().manual_seed(3)
    with torch.inference_mode():
        raw = model.eval()(torch.randn(1, 3, 9, 64, 64, generator=generator))
    ((boxes, scores, _),) = decode(raw, conf=1e-4, iou=0.5)
    return boxes.numpy(), scores.numpy()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = PlainNetwork(widths=(8, 8, 8, 8))
    torch.nn.init.normal_(model.peaks.weight, std=3.0)
    torch.nn.init.zeros_(model.peaks.bias)
    return model


def test_scores_of_calibrated_weights_are_chances_and_boxes_stay(model, tmp_path):
    before = detections(model)
    path = saved(tmp_path, model, calibration=FIT)
    restored = restore.restore_network("plain", str(path)).model
    for network in (restored, optimise_for_inference(restored, "fp32")):
        boxes, scores = detections(network)
        expected = calibrated_probability(before[1], FIT["slope"], FIT["offset"])
        known = expected > 1e-4
        assert known.sum() == len(scores) > 3
        np.testing.assert_allclose(scores, expected[known], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(boxes, before[0][known], rtol=1e-4, atol=1e-4)


def test_weights_without_a_calibration_give_what_they_gave(model, tmp_path):
    restored = restore.restore_network("plain", str(saved(tmp_path, model))).model
    for one, other in zip(detections(restored), detections(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_training_begins_with_scores_that_are_not_calibrated(model, tmp_path):
    fresh = PlainNetwork(widths=(8, 8, 8, 8))
    fine_tuning.initialise_from(fresh, saved(tmp_path, model, calibration=FIT))
    assert torch.equal(fresh.peaks.bias, model.peaks.bias)


@pytest.mark.parametrize("table", [{"slope": 0, "offset": 1}, {"slope": "x", "offset": 1}, {"offset": 1}, 7])
def test_a_damaged_calibration_is_refused(table, model, tmp_path):
    with pytest.raises(WeightsError, match="damaged calibration"):
        restore.restore_network("plain", str(saved(tmp_path, model, calibration=table)))


def test_a_network_whose_score_is_no_single_logit_refuses_a_calibration(tmp_path):
    path = saved(tmp_path, detectors.build("tridos-nano"), name="tridos-nano", calibration=FIT)
    with pytest.raises(WeightsError, match="which 'tridos-nano' does not support"):
        restore.restore_network("tridos-nano", str(path))


def test_publishing_stores_the_fit_for_centres(model, tmp_path):
    saved(tmp_path, model)
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps({"iou": {"slope": 1, "offset": 0}, "centre_5px": {**FIT, "error": 0.1}}))
    (tmp_path / "zoo").mkdir()
    path = publish(tmp_path, "new", calibration=file, zoo=tmp_path / "zoo")
    with safe_open(path, "pt") as weights:
        stored = json.loads(weights.metadata()["calibration"])
    assert stored == {**FIT, "criterion": "centre_5px"}


def test_a_file_that_is_no_calibration_is_not_published(model, tmp_path):
    saved(tmp_path, model)
    (tmp_path / "calibration.json").write_text("[1]")
    with pytest.raises(UsageError, match=r"was not written by python -m pipeline\.calibration"):
        publish(tmp_path, "new", calibration=tmp_path / "calibration.json", zoo=tmp_path)
    assert not (tmp_path / "new.safetensors").exists()
