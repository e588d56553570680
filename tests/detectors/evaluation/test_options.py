"""Options of the commands that would have no effect are refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from datasets import synthetic
from detectors import evaluate, segment
from detectors.weights.zoo import network_of
from pipeline import mask_metrics
from pipeline.system.errors import UsageError


def test_a_detector_that_is_not_that_of_the_weights_is_refused():
    assert network_of("tridos-nano-drone-ir", None) == "tridos-nano"
    assert network_of("tridos-nano-drone-ir", "Tridos-Nano") == "tridos-nano"
    assert network_of("file.safetensors", None) == "tridos-nano"
    assert network_of("file.safetensors", "tridos") == "tridos"
    with pytest.raises(UsageError, match="--detector tridos: weights 'tridos-nano-drone-ir' are for"):
        network_of("tridos-nano-drone-ir", "tridos")


@pytest.mark.parametrize("option", [["--threshold", "0.3"], ["--flip-averaging"]])
def test_options_for_masks_are_refused_for_a_network_that_predicts_boxes(drone_ir, capsys, option):
    assert evaluate.main(["tridos-nano-drone-ir", "--root", str(drone_ir), *option]) == 2
    assert f"{option[0]} is for segmenters" in capsys.readouterr().err


def test_fit_needs_a_size(tmp_path, capsys):
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "0.png")
    folders = ["--images", str(tmp_path), "--output", str(tmp_path / "maps")]
    assert segment.main(["--detector", "rdian", *folders, "--fit", "stretch"]) == 2
    assert "--fit stretch is for a network input of --size WxH" in capsys.readouterr().err


def test_the_quality_of_h264_is_refused_for_deep_video(tmp_path, capsys):
    arguments = [str(tmp_path / "deep.mkv"), "--bits", "16", "--frames", "2"]
    assert synthetic.main([*arguments, "--crf", "20"]) == 2
    assert "--crf 20 is for H.264" in capsys.readouterr().err
    assert synthetic.main(arguments) == 0


def test_logits_are_refused_if_all_maps_are_images(tmp_path, capsys):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "0.png")
    folders = ["--predictions", str(tmp_path), "--masks", str(tmp_path)]
    assert mask_metrics.main([*folders, "--logits"]) == 2
    assert "--logits is for .mat and .npy" in capsys.readouterr().err
