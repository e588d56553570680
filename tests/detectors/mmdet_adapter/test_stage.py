"""A detector of mmdet in the pipeline."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from detectors.mmdet_adapter import configuration, stage
from pipeline.config.schema import DetectorConfig
from pipeline.structures.frame import Frame
from pipeline.system.errors import UsageError, WeightsError
from tests.detectors.mmdet_adapter import mmdet_cases
from tests.support.outputs import check_consistent, lines, report


@pytest.fixture(scope="module")
def yolox(tmp_path_factory) -> mmdet_cases.Case:
    return mmdet_cases.yolox(tmp_path_factory.mktemp("yolox"))


def frame_of(image: np.ndarray, *, index: int = 0, bits: int = 8) -> Frame:
    return Frame(image, index, Fraction(index, 25), "made", bits)


def named(case: mmdet_cases.Case, **more) -> DetectorConfig:
    return DetectorConfig(name=f"mmdet:{case.config}", weights=str(case.weights), **more)


def test_frames_are_converted_to_bgr_with_eight_bits():
    grey = np.array([[0, 100], [200, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(stage.to_bgr(frame_of(grey)), np.dstack([grey] * 3))
    colour = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    np.testing.assert_array_equal(stage.to_bgr(frame_of(colour)), colour[..., ::-1])
    deep = np.array([[0, 8192], [16383, 32]], dtype=np.uint16)
    assert stage.to_bgr(frame_of(deep, bits=14))[..., 0].tolist() == [[0, 128], [255, 0]]
    assert stage.to_bgr(frame_of(grey, bits=8)).dtype == stage.to_bgr(frame_of(deep, bits=14)).dtype


def test_boxes_are_clipped_sorted_and_invalid_ones_left_out():
    boxes = [[-5, 2, 4, 6], [1, 1, 3, 3], [40, 1, 50, 3], [2, 2, 4, 4], [0, 0, float("nan"), 1]]
    found = SimpleNamespace(
        bboxes=torch.tensor(boxes),
        scores=torch.tensor([0.3, 0.9, 0.8, 0.1, 0.7]),
        labels=torch.tensor([0, 1, 2, 3, 4]),
    )
    rows = stage.to_detections(found, frame_of(np.zeros((8, 10), np.uint8)), conf=0.2)
    assert rows.labels.tolist() == [1, 0]
    assert rows.boxes.tolist() == [[1, 1, 3, 3], [0, 2, 4, 6]]
    assert rows.scores.tolist() == pytest.approx([0.9, 0.3])


def test_detections_equal_those_of_mmdets_own_api(yolox):
    from mmdet.apis import inference_detector

    detector, info = stage.load(named(yolox, conf=0.2))
    image = np.random.default_rng(0).integers(0, 256, (120, 160), np.uint8)
    frames = (frame_of(image), frame_of(image[::-1].copy(), index=1))
    found = list(detector.detect([frames]))
    detector.model.cfg = configuration.read(yolox.config)
    for row in found:
        theirs = inference_detector(detector.model, np.dstack([row.frame.image] * 3)).pred_instances
        expected = stage.to_detections(theirs, row.frame, conf=0.2)
        assert len(row.detections) == len(expected) > 5
        np.testing.assert_allclose(row.detections.boxes, expected.boxes, atol=1e-3)
        np.testing.assert_allclose(row.detections.scores, expected.scores, atol=1e-5)
        assert set(row.detections.labels.tolist()) == {3}
        assert not row.warmup
        assert row.timings["detect"] > 0
    assert list(info.classes) == list(mmdet_cases.CLASSES)
    assert info.parameters == 5055855


def test_class_names_come_from_the_dataset_if_the_checkpoint_has_none(yolox, tmp_path):
    state = torch.load(yolox.weights, weights_only=True)["state_dict"]
    torch.save(state, tmp_path / "bare.pth")
    _, info = stage.load(named(yolox._replace(weights=tmp_path / "bare.pth")))
    assert info.classes[:2] == ("person", "bicycle")
    assert len(info.classes) == 80


def test_a_run_with_detector_and_tracker_of_mmdet_writes_all_outputs(mote, yolox, clip, tmp_path):
    reply = mote(
        *("--video", clip, "--detector", f"mmdet:{yolox.config}", "--weights", yolox.weights),
        *("--tracker", "mmdet:ByteTracker", "--set", "tracker.options.init_track_thr=0.02"),
        *("--max-frames", 3, "--conf", 0.2, "--output", tmp_path / "out", "--progress", "off"),
    )
    assert reply.code == 0, reply.err
    assert check_consistent(tmp_path / "out") == 3
    assert all(line["detections"] and line["tracks"] for line in lines(tmp_path / "out"))
    config = report(tmp_path / "out")["config"]
    assert config["detector"]["name"] == f"mmdet:{yolox.config}"
    assert config["tracker"]["name"] == "mmdet:ByteTracker"
    assert config["tracker"]["options"]["init_track_thr"] == 0.02


@pytest.mark.real_data
def test_a_real_clip_passes_a_detector_of_mmdet(mote, yolox, drone_ir, tmp_path):
    video = min((drone_ir / "videos").glob("*.mp4"))
    reply = mote(
        *("--video", video, "--detector", f"mmdet:{yolox.config}", "--weights", yolox.weights),
        *("--max-frames", 2, "--conf", 0.2, "--output", tmp_path / "out", "--progress", "off"),
    )
    assert reply.code == 0, reply.err
    assert check_consistent(tmp_path / "out") == 2
    assert all(line["detections"] for line in lines(tmp_path / "out"))


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = dict(", "cannot be read: SyntaxError"),
        ("model = dict(type=1 / 0)", "cannot be read: ZeroDivisionError"),
        ("model = dict(type='NoSuchDetector')", "describes no model: KeyError.*NoSuchDetector"),
        (
            "model = dict(type='mmdet.CSPDarknet')",
            "is of a CSPDarknet; give one of a detector with a test_dataloader",
        ),
    ],
)
def test_a_configuration_that_is_not_of_a_detector_is_named(yolox, tmp_path, text, message):
    config = write(tmp_path / "config.py", text)
    with pytest.raises(UsageError, match=f"configuration {config} {message}"):
        stage.load(named(yolox._replace(config=config)))


def test_a_configuration_is_read_only_from_the_path_that_is_named(yolox, tmp_path):
    with pytest.raises(UsageError, match=r"none.py does not exist"):
        stage.load(named(yolox._replace(config=tmp_path / "none.py")))
    with pytest.raises(UsageError, match=r"config.toml is not a Python file"):
        stage.load(named(yolox._replace(config=write(tmp_path / "config.toml", ""))))


def test_settings_override_values_of_a_configuration(yolox):
    config = configuration.read(yolox.config, ["model.test_cfg.score_thr=0.5", "default_scope=other"])
    assert (config.model.test_cfg.score_thr, config.default_scope) == (0.5, "other")
    with pytest.raises(UsageError, match="setting 'scope', expected KEY=VALUE"):
        configuration.read(yolox.config, ["scope"])


def test_weights_must_be_given_and_fit(yolox, nano_weights):
    with pytest.raises(WeightsError, match="needs weights; give its checkpoint with --weights"):
        stage.load(DetectorConfig(name=f"mmdet:{yolox.config}"))
    with pytest.raises(WeightsError, match=r"is not for this YOLOX: \d+ missing .* unexpected"):
        stage.load(named(yolox._replace(weights=nano_weights)))
    with pytest.raises(UsageError, match="--size and --enlarge are for our networks"):
        stage.load(named(yolox, size="64x64"))
    with pytest.raises(UsageError, match="precision fp16 needs a GPU"):
        stage.load(named(yolox, device="cpu", precision="fp16"))
