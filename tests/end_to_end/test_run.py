"""Whole runs on a short clip: every frame is in every output with its time."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from fractions import Fraction

import motmetrics
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

import trackers
from datasets.synthesis import rendering
from pipeline.evaluation.detection.report import DetectionScores
from pipeline.runner.ground_truth import GroundTruth
from tests.support.outputs import OUTPUTS, check_consistent, detections, lines, report, scene, video


def boxes_of(folder) -> list[np.ndarray]:
    """Returns the boxes (N, 4) x, y, width, height of each frame."""
    return [np.array([d["bbox"] for d in line["detections"]]).reshape(-1, 4) for line in lines(folder)]


# One run and all its outputs


def test_the_network_of_these_tests_finds_a_few_boxes_in_every_frame(whole):
    counts = [len(boxes) for boxes in boxes_of(whole)]
    assert min(counts) >= 1
    assert max(counts) <= 40
    assert (whole / "tracks.txt").read_text()


def test_every_frame_is_in_every_output(whole):
    assert check_consistent(whole) == 16


def test_the_annotated_video_has_the_times_and_size_of_the_source(whole, clip):
    assert video(whole / "annotated.mp4") == video(clip)
    assert [line["pts"] for line in lines(whole)] == [round(float(pts), 6) for pts, _ in video(clip)]


def test_the_record_counts_all_frames(whole):
    account = report(whole)
    assert (account["state"], account["reason"]) == ("complete", None)
    expected = {"announced": 16, "decoded": 16, "written": 16, "unprocessed": 0}
    expected |= {"dropped": {}, "not_annotated": 0, "corrupt": 0, "times_derived": 0}
    assert account["frames"] == expected
    assert account["detections"] == len(detections(whole))
    assert account["source"]["rate"] == "30"
    assert len(account["detector"]["sha256"]) == 64
    assert account["config"]["detector"]["conf"] == 0.2


def test_every_stage_is_timed(whole):
    stages = report(whole)["stages_ms"]
    assert set(stages) == {"decode", "detect", "suppress", "track", "write"}
    for summary in stages.values():
        assert 0 < summary["p50"] <= summary["p95"] <= summary["max"]
    assert all(set(line["timings_ms"]) == {"detect", "suppress", "track"} for line in lines(whole))


def test_confirmed_tracks_are_counted_once(whole):
    ids = {row.split(",")[1] for row in (whole / "tracks.txt").read_text().splitlines()}
    assert report(whole)["tracks"] == len(ids)


def test_only_the_first_four_frames_are_warm_up(whole):
    assert [line["warmup"] for line in lines(whole)] == [True] * 4 + [False] * 12


def test_pycocotools_reads_the_detections(whole, clip):
    with contextlib.redirect_stdout(io.StringIO()):
        results = COCO(clip.with_suffix(".json")).loadRes(str(whole / "detections.json"))
    assert len(results.anns) == len(detections(whole))


@pytest.mark.filterwarnings("ignore::Warning:motmetrics")
def test_motmetrics_reads_the_tracks(whole):
    table = motmetrics.io.loadtxt(str(whole / "tracks.txt"), fmt="mot15-2D")
    assert len(table) == len((whole / "tracks.txt").read_text().splitlines())
    assert set(table.index.get_level_values("FrameId")) <= set(range(1, 17))


def test_scores_are_in_both_reports(whole):
    scores = json.loads((whole / "metrics.json").read_text())
    assert scores["frames"] == 16
    assert set(report(whole)["metrics"]) == set(DetectionScores.__dataclass_fields__)
    assert report(whole)["metrics"].items() <= scores.items()


# Choices


@pytest.mark.parametrize("batch", [3, 7])
def test_the_batch_size_does_not_change_the_results(process, whole, clip, batch):
    folder = process(clip, batch=batch)
    assert check_consistent(folder) == 16
    for together, alone in zip(boxes_of(folder), boxes_of(whole), strict=True):
        assert together.shape == alone.shape
        assert np.abs(together - alone).max() < 1e-3
    assert [line["warmup"] for line in lines(folder)] == [line["warmup"] for line in lines(whole)]


def test_start_and_max_frames_keep_index_and_time_of_the_frames(process, clip):
    folder = process(clip, sections={"source": {"start": 5, "max_frames": 7}})
    assert [line["frame"] for line in lines(folder)] == list(range(5, 12))
    assert [line["pts"] for line in lines(folder)] == [round(n / 30, 6) for n in range(5, 12)]
    assert [pts for pts, _ in video(folder / "annotated.mp4")] == [Fraction(n, 30) for n in range(7)]
    assert {d["image_id"] for d in detections(folder)} <= set(range(6, 13))
    assert report(folder)["frames"]["announced"] == 7


def test_a_folder_of_images_is_processed_at_the_configured_rate(process, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index, (picture, _) in enumerate(rendering.render(scene(frames=6))):
        Image.fromarray(picture).save(pictures / f"{index}.png")
    folder = process(pictures, sections={"source": {"rate": 25.0}})
    assert check_consistent(folder) == 6
    assert [pts for pts, _ in video(folder / "annotated.mp4")] == [Fraction(n, 25) for n in range(6)]


@pytest.mark.parametrize(
    ("switch", "name"),
    [
        ("video", "annotated.mp4"),
        ("coco", "detections.json"),
        ("mot", "tracks.txt"),
        ("jsonl", "results.jsonl"),
    ],
)
def test_each_output_can_be_left_out(mote, tmp_path, clip, nano_weights, switch, name):
    out = tmp_path / "out"
    arguments = ("--video", clip, "--weights", nano_weights, "--output", out, "--max-frames", 2)
    reply = mote(*arguments, "--progress", "off", f"--no-save-{switch}")
    assert reply.code == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(set(OUTPUTS) - {name})
    assert name not in reply.out


def test_a_clip_of_sixteen_bits_runs(process, tmp_path):
    rendering.write_scene(scene(frames=6, bits=16), tmp_path / "deep.mkv")
    folder = process(tmp_path / "deep.mkv")
    assert check_consistent(folder) == 6
    assert report(folder)["source"]["bit_depth"] == 16


def test_the_bit_depth_does_not_change_the_detections(process, tmp_path):
    for bits in (8, 16):
        pictures = tmp_path / str(bits)
        pictures.mkdir()
        for index, (picture, _) in enumerate(rendering.render(scene(frames=6))):
            deep = picture.astype(np.uint16) * 257  # the same fraction of the full scale
            Image.fromarray(picture if bits == 8 else deep).save(pictures / f"{index}.png")
    scaling = {"source": {"scaling": "full-range"}}
    shallow, deep = (
        boxes_of(process(tmp_path / name, folder=f"out{name}", sections=scaling)) for name in ("8", "16")
    )
    for first, second in zip(shallow, deep, strict=True):
        assert np.abs(first - second).max() < 1e-3


def inside(boxes, width, height):
    ends = boxes[:, :2] + boxes[:, 2:]
    return (boxes >= 0).all() and (boxes[:, 2:] > 0).all() and (ends <= [width + 1e-3, height + 1e-3]).all()


@pytest.mark.parametrize(("width", "height"), [(97, 75), (64, 33)])
def test_odd_sizes_run_and_boxes_lie_inside_the_picture(process, tmp_path, width, height):
    rendering.write_scene(scene(width=width, height=height, frames=6, bits=16), tmp_path / "odd.mkv")
    folder = process(tmp_path / "odd.mkv", conf=0.05)
    assert check_consistent(folder) == 6
    boxes = np.concatenate(boxes_of(folder))
    assert len(boxes)
    assert inside(boxes, width, height)


def test_a_picture_smaller_than_its_labels_is_processed(process, tmp_path):
    rendering.write_scene(scene(width=31, height=20, frames=6, bits=16), tmp_path / "small.mkv")
    assert check_consistent(process(tmp_path / "small.mkv", conf=1.0)) == 6


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_boxes_are_in_source_pixels_for_any_network_size(process, tmp_path, fit):
    rendering.write_scene(scene(width=160, height=96, frames=6), tmp_path / "wide.mp4")
    folder = process(tmp_path / "wide.mp4", size="64x64", fit=fit, conf=0.02)
    assert check_consistent(folder) == 6
    boxes = np.concatenate(boxes_of(folder))
    assert inside(boxes, 160, 96)
    assert (boxes[:, :2] + boxes[:, 2:])[:, 0].max() > 64


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_precision_runs_on_a_cpu(process, clip, precision):
    folder = process(clip, precision=precision, sections={"source": {"max_frames": 6}})
    assert check_consistent(folder) == 6
    assert len(detections(folder))


# Faults during a run


class Faulty(trackers.NoTracker):
    def update(self, found, frame):
        if frame.index == 5:
            raise RuntimeError("a bug")
        return super().update(found, frame)


@pytest.fixture
def faulty_tracker(monkeypatch):
    monkeypatch.setitem(trackers.TRACKERS, "faulty", Faulty)
    return {"tracker": {"name": "faulty"}}


def test_a_bug_in_a_stage_is_raised_and_keeps_the_frames_before_it(process, tmp_path, clip, faulty_tracker):
    with pytest.raises(RuntimeError, match="a bug"):
        process(clip, sections=faulty_tracker)
    assert check_consistent(tmp_path / "out") == 5
    assert report(tmp_path / "out")["state"] == "partial"
    assert report(tmp_path / "out")["reason"] == "RuntimeError: a bug"


def test_a_bug_in_a_stage_leaves_no_thread_running(process, clip, faulty_tracker):
    with pytest.raises(RuntimeError) as caught:
        process(clip, sections=faulty_tracker)
    assert caught.value.__traceback__  # keeps the frames of the stack and their variables alive
    assert {thread.name for thread in threading.enumerate()}.isdisjoint({"decode", "detect"})


def test_a_bug_in_the_scoring_is_reported_and_keeps_all_outputs(process, tmp_path, clip, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("in the scoring")

    monkeypatch.setattr(GroundTruth, "score", fail)
    with pytest.raises(ZeroDivisionError):
        process(clip, truth=clip.with_suffix(".json"))
    assert check_consistent(tmp_path / "out") == 16
    assert report(tmp_path / "out")["reason"] == "ZeroDivisionError: in the scoring"
