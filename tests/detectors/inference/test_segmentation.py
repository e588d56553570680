"""Segmenters in the pipeline: as the detector, beside it, and in all outputs."""

from __future__ import annotations

import contextlib
import io
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco
from pycocotools.coco import COCO

import detectors
from detectors.inference.probability_maps import ProbabilityMaps, load_segmenter
from detectors.inference.segmentation import FrameSegmenter, SegmentingDetector
from detectors.loading import load_detector, load_segmenters
from detectors.weights import state_dict
from pipeline.config.schema import ComponentsConfig, DetectorConfig, SegmentationConfig, SegmenterConfig
from pipeline.stages.batching import batches
from pipeline.stages.segmentation import segment
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.results import FrameDetections
from pipeline.system.errors import WeightsError
from tests.support.bright_segmenter import Bright, add_segmenters, picture, save_bright, save_pictures
from tests.support.outputs import check_consistent, detections, lines, report, video

SPOT, FAINT = (10, 12, 14, 15, 0.9), (40, 30, 41, 31, 0.7)
BOXES = {SPOT: [10, 12, 4, 3], FAINT: [40, 30, 1, 1]}
"""Spot → x, y, width, height."""


def frame(image, index=0, bits=8):
    return Frame(image, index, Fraction(index, 30), "test", bits)


def segmenter(name="bright", **settings):
    return FrameSegmenter(name, ProbabilityMaps(Bright(), device="cpu", **settings), ComponentsConfig())


def detected(frames, *, conf=0.05, batch=1, **settings):
    return list(SegmentingDetector(segmenter(**settings), conf=conf).detect(batches(frames, batch)))


# As the detector


def test_components_become_boxes_with_masks_best_first():
    (found,) = detected([frame(picture(FAINT, SPOT))])
    assert found.detections.boxes.tolist() == [[10, 12, 14, 15], [40, 30, 41, 31]]
    assert found.detections.scores.tolist() == pytest.approx([0.9, 0.7], abs=2e-3)
    assert found.detections.labels.tolist() == [0, 0]
    np.testing.assert_array_equal(found.detections.masks[0], picture(SPOT) > 0)
    assert len(found.segments["bright"]) == 2


def test_a_frame_with_nothing_in_it_has_no_detections():
    (found,) = detected([frame(picture())])
    assert len(found.detections) == len(found.segments["bright"]) == 0


def test_detections_need_the_least_score_and_segments_do_not():
    (found,) = detected([frame(picture(SPOT, FAINT))], conf=0.8)
    assert (len(found.detections), len(found.segments["bright"])) == (1, 2)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_frames_keep_their_order_in_any_batch_and_none_is_warming_up(batch):
    spots = [(k, 2 * k, k + 2, 2 * k + 1, 0.8) for k in range(5)]
    found = detected([frame(picture(spot), k) for k, spot in enumerate(spots)], batch=batch)
    assert [item.detections.boxes.tolist() for item in found] == [[[*spot[:4]]] for spot in spots]
    assert [item.frame.index for item in found] == [0, 1, 2, 3, 4]
    assert not any(item.warmup for item in found)
    assert all(item.timings["detect"] > 0 for item in found)


@pytest.mark.parametrize("bits", [12, 14, 16])
def test_deep_frames_mean_the_same_as_shallow_ones(bits):
    (found,) = detected([frame(picture(SPOT, FAINT, bits=bits), bits=bits)])
    assert found.detections.boxes.tolist() == [[10, 12, 14, 15], [40, 30, 41, 31]]
    assert found.detections.scores.tolist() == pytest.approx([0.9, 0.7], abs=1e-3)


def test_colour_is_taken_as_grey():
    (found,) = detected([frame(np.stack([picture(SPOT)] * 3, axis=-1))])
    assert found.detections.boxes.tolist() == [[10, 12, 14, 15]]


@pytest.mark.parametrize("settings", [{}, {"enlarge": 2.0}, {"size": (192, 96), "fit": "stretch"}], ids=str)
def test_boxes_are_in_source_pixels_for_any_network_input(settings):
    spot = (20, 11, 32, 19, 0.9)
    (found,) = detected([frame(picture(spot, size=(97, 51)))], **settings)
    assert found.detections.boxes == pytest.approx(np.array([spot[:4]]), abs=1)
    assert found.detections.masks.shape == (1, 51, 97)


def test_a_letterboxed_frame_is_undone():
    spot = (20, 11, 32, 19, 0.95)
    (found,) = detected([frame(picture(spot, size=(96, 48)))], size=(192, 192), fit="letterbox")
    assert found.detections.boxes == pytest.approx(np.array([spot[:4]]), abs=1)


def test_a_network_that_gives_nan_is_an_error():
    model = Bright()
    model.weight.data.fill_(np.nan)
    broken = FrameSegmenter("bright", ProbabilityMaps(model, device="cpu"), ComponentsConfig())
    with pytest.raises(WeightsError, match="Bright gives NaN"):
        broken([frame(picture(SPOT))])


# Beside a detector


def test_a_segmenter_adds_its_segments_and_changes_nothing_else():
    boxes = Detections([[1, 1, 3, 3]], [0.9], [2])
    before = [FrameDetections(frame(picture(SPOT), k), boxes, k < 2, {"detect": 0.1}) for k in range(5)]
    after = list(segment(segment(before, segmenter("a"), batch=2), segmenter("b"), batch=3))
    for old, new in zip(before, after, strict=True):
        assert (new.frame, new.detections, new.warmup) == (old.frame, old.detections, old.warmup)
        assert list(new.segments) == ["a", "b"]
        assert list(new.timings) == ["detect", "segment a", "segment b"]
        assert new.segments["a"].components.boxes.tolist() == [[10, 12, 14, 15]]
    assert not before[0].segments


# Whole runs


@pytest.fixture
def known(monkeypatch):
    add_segmenters(monkeypatch, "bright", "second")


@pytest.fixture
def source(tmp_path):
    images = [picture(SPOT, FAINT), picture(), picture(SPOT), picture(SPOT), picture(FAINT)]
    return save_pictures(tmp_path / "in", images)


@pytest.fixture
def run(mote, known, tmp_path, source, nano_weights):
    """Runs the command on the source, without tracks; returns the reply and the folder."""
    out, bright = tmp_path / "out", save_bright(tmp_path / "bright.safetensors")

    def call(*arguments, detector="bright", code=0):
        file = bright if detector == "bright" else nano_weights
        named = ("--detector", detector, "--weights", file, "--output", out, "--progress", "off")
        reply = mote("--video", source, *named, *arguments)
        assert reply.code == code, reply
        return reply, out

    call.bright = bright
    return call


def boxes_of(out):
    return [[found["bbox"] for found in line["detections"]] for line in lines(out)]


def masks_of(out):
    return [line["masks"] for line in lines(out)]


def test_a_segmenter_is_a_detector_of_the_command_line(run, source):
    _, out = run()
    assert check_consistent(out) == 5
    both = [BOXES[SPOT], BOXES[FAINT]]
    assert boxes_of(out) == [both, [], both[:1], both[:1], both[1:]]
    assert not any(line["warmup"] for line in lines(out))
    assert set(report(out)["stages_ms"]) == {"decode", "detect", "track", "write"}
    assert report(out)["detector"]["components"] == {
        "threshold": 0.5,
        "score": "peak",
        "min_area": 1,
        "max_count": 100,
    }


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
def test_masks_are_read_back_by_pycocotools(run):
    _, out = run()
    (first, second), nothing = masks_of(out)[:2]
    assert nothing == []
    assert (first["segmenter"], first["bbox"], first["score"]) == (
        "bright",
        BOXES[SPOT],
        pytest.approx(0.9, abs=2e-3),
    )
    np.testing.assert_array_equal(coco.decode(first["rle"]), (picture(SPOT) > 0).astype(np.uint8))
    assert coco.area(second["rle"]) == 1
    rows = detections(out)
    assert len(rows) == 5
    np.testing.assert_array_equal(coco.decode(rows[0]["segmentation"]), (picture(SPOT) > 0).astype(np.uint8))


def test_pycocotools_loads_detections_with_masks(run):
    _, out = run()
    truth = COCO()
    truth.dataset = {"images": [{"id": k} for k in range(1, 6)], "annotations": [], "categories": [{"id": 1}]}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        results = truth.loadRes(str(out / "detections.json"))
    assert sorted(row["area"] for row in results.anns.values()) == [1, 1, 12, 12, 12]


def test_least_score_threshold_and_area_choose_what_is_reported(run):
    _, out = run("--conf", "0.8")
    assert boxes_of(out)[0] == [BOXES[SPOT]]
    assert len(masks_of(out)[0]) == 2
    _, out = run("--overwrite", "--set", "detector.components.threshold=0.75")
    assert len(masks_of(out)[0]) == 1
    _, out = run("--overwrite", "--set", "detector.components.min_area=2")
    assert boxes_of(out)[0] == [BOXES[SPOT]]


def test_a_segmenter_beside_the_detector_leaves_its_detections_as_they_are(run):
    _, out = run(detector="tridos-nano")
    alone = [line["detections"] for line in lines(out)]
    assert "masks" not in lines(out)[0]
    weights = f"bright={run.bright}"
    reply, out = run(
        "--overwrite", "--segmenter", "bright", "--segmenter-weights", weights, detector="tridos-nano"
    )
    assert [line["detections"] for line in lines(out)] == alone
    assert [len(masks) for masks in masks_of(out)] == [2, 0, 1, 1, 1]
    assert len(video(out / "annotated.mp4")) == 5
    assert all("segment bright" in line["timings_ms"] for line in lines(out))
    (row,) = (row for row in reply.out.splitlines() if row.startswith("segmenter "))
    assert "bright with" in row
    assert "ms per frame" in row
    (facts,) = report(out)["segmenters"]
    assert (facts["name"], facts["parameters"], len(facts["sha256"])) == ("bright", 1, 64)
    assert facts["ms_per_frame"] == report(out)["stages_ms"]["segment bright"]["mean"] > 0
    assert facts["overhead"] > 0
    assert report(out)["config"]["segmentation"]["segmenters"][0]["weights"] == str(run.bright)


def test_segmenters_run_in_the_order_in_which_they_are_named(run):
    arguments = [word for name in ("second", "bright") for word in ("--segmenter", name)]
    arguments += [
        word for name in ("bright", "second") for word in ("--segmenter-weights", f"{name}={run.bright}")
    ]
    _, out = run(*arguments, detector="tridos-nano")
    assert [mask["segmenter"] for mask in masks_of(out)[2]] == ["second", "bright"]
    assert [row["name"] for row in report(out)["segmenters"]] == ["second", "bright"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("none", [2, 0, 1, 1, 1]), ("confirm", [1, 0, 1, 1, 0]), ("union", [2, 0, 1, 1, 1])],
)
def test_fusion_decides_what_a_run_reports(run, tmp_path, rule, expected):
    """The second segmenter is dimmer: it does not see the faint spot."""
    dim = save_bright(tmp_path / "dim.safetensors", weight=0.65)
    weights = ("--segmenter-weights", f"second={dim}")
    _, out = run("--segmenter", "second", *weights, "--fuse", rule)
    assert [len(boxes) for boxes in boxes_of(out)] == expected
    assert check_consistent(out) == 5
    assert ("fuse" in report(out)["stages_ms"]) is (rule != "none")


def test_union_adds_what_the_detector_does_not_see(run, tmp_path):
    dim = save_bright(tmp_path / "dim.safetensors", weight=0.65)
    weights = ("--weights", dim, "--segmenter-weights", f"second={run.bright}")
    _, out = run("--segmenter", "second", *weights, "--fuse", "union")
    assert [len(boxes) for boxes in boxes_of(out)] == [2, 0, 1, 1, 1]
    added = lines(out)[4]["detections"]
    assert [row.pop("rle")["size"] for row in added] == [[64, 64]]
    assert added == [{"bbox": BOXES[FAINT], "score": pytest.approx(0.7, abs=3e-3), "label": 0}]
    assert all("segmentation" in row for row in detections(out))


def test_the_configuration_file_lists_segmenters_and_flags_change_them(run, tmp_path):
    table = f"""
[segmentation]
margin = 3
segmenters = [
    {{name = "bright", weights = "nowhere.pth", components = {{threshold = 0.75}}}},
    {{name = "second", weights = {json.dumps(str(run.bright))}}},
]
"""
    (tmp_path / "my.toml").write_text(table)
    files = ("--config", tmp_path / "my.toml", "--segmenter-weights", f"bright={run.bright}")
    _, out = run(*files, detector="tridos-nano")
    assert [mask["segmenter"] for mask in masks_of(out)[0]] == ["bright", "second", "second"]
    _, out = run(*files, "--segmenter", "bright", "--overwrite", detector="tridos-nano")
    assert [mask["segmenter"] for mask in masks_of(out)[0]] == ["bright"]
    assert report(out)["config"]["segmentation"]["margin"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("asked", [False, True])
def test_mirrored_views_are_averaged_when_asked_of_the_detector_and_beside_it(tmp_path, asked):
    """With random weights, the map of a mirrored image differs, but the mean over the views does not."""
    path = str(tmp_path / "rdian.safetensors")
    state_dict.save(detectors.build("rdian").state_dict(), Path(path), metadata={"trained_on": "nothing"})
    config = DetectorConfig(name="rdian", weights=path, device="cpu", flip_averaging=asked)
    row = SegmenterConfig(name="rdian", weights=path, flip_averaging=asked)
    detector, info = load_detector(config, maps=True)
    nano = DetectorConfig(device="cpu")
    (beside,), (info_beside,) = load_segmenters(SegmentationConfig(segmenters=(row,)), nano, maps=True)
    noise = np.random.default_rng(1).integers(0, 256, (32, 48), np.uint8)
    expected = ProbabilityMaps(load_segmenter("rdian", path)[0], flip_averaging=asked, device="cpu")(noise)
    (found,) = detector.detect([[frame(noise)]])
    ((_, grid),) = beside([frame(noise)])
    for given in (found.maps["detector"], grid):
        assert given.values == pytest.approx(expected, abs=1e-3)
    mirrored = np.ascontiguousarray(noise[:, ::-1])
    ((_, turned),) = beside([frame(mirrored)])
    assert np.allclose(turned.values[:, ::-1], grid.values, atol=1e-3) is asked
    assert info.flip_averaging is info_beside.flip_averaging is asked


# Mistakes


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        (2, ["--segmenter", "rdain"], "unknown segmenter 'rdain'; did you mean 'rdian'?"),
        (2, ["--segmenter", "tridos"], "unknown segmenter 'tridos'"),
        (
            4,
            ["--segmenter", "madnet"],
            "no weights ship for segmenter 'madnet'; give a file with --segmenter-weights madnet=",
        ),
        (2, ["--segmenter", "bright"], "segmenter 'bright' is the detector already; leave one out"),
        (
            2,
            ["--segmenter", "second", "--segmenter", "second", "--segmenter-weights", "second={}"],
            "segmenter 'second' is given twice",
        ),
        (
            2,
            ["--segmenter", "second", "--segmenter-weights", "second"],
            "'second' is not of the form NAME=FILE",
        ),
        (2, ["--segmenter-weights", "second={}"], "segmenter 'second' does not run; add --segmenter second"),
        (
            4,
            ["--segmenter", "second", "--segmenter-weights", "second=nowhere.pth"],
            "weights file nowhere.pth does not exist",
        ),
        (4, ["--segmenter", "rdian", "--segmenter-weights", "rdian={}"], "is not for this RDIAN"),
        (2, ["--fuse", "confirm"], "--fuse 'confirm' needs a segmenter; give --segmenter NAME"),
        (
            2,
            ["--detector", "tridos-nano", "--weights", "", "--set", "detector.flip_averaging=true"],
            "--set detector.flip_averaging=true has no effect: it is for a segmenter",
        ),
        (2, ["--fuse", "both"], "invalid choice: 'both'"),
        (2, ["--set", "segmentation.segmenters=[{weights = 'a'}]"], "a segmenter has no name"),
        (2, ["--set", "segmentation.segmenters=['rdian']"], "expected a list of tables"),
        (
            2,
            ["--set", "segmentation.segmenters=[{name = 'rdian', wieghts = 'a'}]"],
            "did you mean 'segmentation.segmenters.weights'?",
        ),
        (2, ["--set", "segmentation.margin=-1"], "--set segmentation.margin=-1, expected 0 or more"),
        (
            2,
            ["--set", "detector.components.threshold=1"],
            "--set detector.components.threshold=1, expected 0 or more and less than 1",
        ),
        (2, ["--size", "96x40"], "--size '96x40', expected multiples of 32"),
        (2, ["--set", "segmentation=3", "--segmenter", "rdian"], "'segmentation' is a value, not a section"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_one_line_and_leaves_no_outputs(run, code, arguments, message):
    reply, out = run(*(word.format(run.bright) if "{}" in word else word for word in arguments), code=code)
    (line,) = reply.err.splitlines()
    assert message in line
    assert not out.exists()


def test_segmenters_have_other_names_in_the_literature(mote, tmp_path, source, nano_weights):
    arguments = ("--video", source, "--weights", nano_weights, "--output", tmp_path / "out")
    reply = mote(*arguments, "--segmenter", "dcnet", "--segmenter", "DCONet", "--progress", "off")
    assert (reply.code, "segmenter 'dconet' is given twice" in reply.err) == (2, True)


# How much a network enlarges its input


@pytest.mark.parametrize(
    ("arguments", "expected"), [([], 1.5), (["--enlarge", "1"], 1.0), (["--enlarge", "2"], 2.0)]
)
def test_segmenters_are_used_at_the_scale_of_their_training(run, tmp_path, arguments, expected):
    file = save_bright(tmp_path / "large.safetensors", recipe={"data": {"enlarge": 1.5}})
    _, out = run("--weights", file, *arguments)
    assert report(out)["detector"]["enlarge"] == report(out)["config"]["detector"]["enlarge"] == expected
    assert np.array(boxes_of(out)[2]) == pytest.approx(np.array([BOXES[SPOT]]), abs=1)
