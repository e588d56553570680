"""Our evaluators and those of mmdet give the same results for the same files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from detectors.mmdet_adapter.__main__ import main
from detectors.mmdet_adapter.comparison import compare_detections, compare_tracks, select_frames
from pipeline.evaluation.tracking.track_rows import TrackRows
from pipeline.structures.annotations import VideoRecord, video_records
from pipeline.structures.boxes import to_xywh
from pipeline.structures.coco_tables import load_coco
from pipeline.system.errors import UsageError

WIDTH, HEIGHT = 320, 256


def table(rng: np.random.Generator, *, videos: int = 2, frames: int = 12, targets: int = 2) -> dict:
    """Returns a table with small targets of two categories at random positions in some of the frames."""
    images, annotations = [], []
    for video in range(1, videos + 1):
        for frame in range(frames):
            image = {"id": 100 * video + frame, "video_id": video, "frame_id": frame}
            images.append({**image, "width": WIDTH, "height": HEIGHT})
            for target in range(targets if rng.random() < 0.9 else 0):
                box = [*rng.uniform(20, 200, 2), *rng.uniform(4, 20, 2)]
                facts = {"category_id": target % 2 + 3, "instance_id": target, "bbox": box}
                annotations.append({"image_id": image["id"], "id": len(annotations) + 1, **facts})
    return {
        "videos": [
            {"id": n, "name": f"v{n}", "width": WIDTH, "height": HEIGHT} for n in range(1, videos + 1)
        ],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 4, "name": "bird"}, {"id": 3, "name": "drone"}],
    }


def results(truth: dict, rng: np.random.Generator) -> list[dict]:
    """Returns detections of most targets, some of them twice or of the wrong category, and false alarms."""
    rows = []
    for row in truth["annotations"]:
        for _ in range(rng.integers(0, 3)):
            box = (np.array(row["bbox"]) + rng.normal(0, 1, 4)).clip(min=1).tolist()
            category = row["category_id"] if rng.random() < 0.9 else 3
            score = round(float(rng.random()), 2)
            rows.append({"image_id": row["image_id"], "category_id": category, "bbox": box, "score": score})
    for image in truth["images"]:
        box = [*rng.uniform(0, 200, 2), 9.0, 8.0]
        rows.append({"image_id": image["id"], "category_id": 4, "bbox": box, "score": float(rng.random())})
    return rows


def perturbed(record: VideoRecord, rng: np.random.Generator) -> TrackRows:
    """Returns tracks with gaps, switches of identity, jitter, and false tracks."""
    rows, shift = [], 0
    for frame, (boxes, ids) in enumerate(zip(record.boxes, record.instances, strict=True)):
        shift += 10 * (rng.random() < 0.1)
        for box, target in zip(boxes, ids, strict=True):
            if rng.random() < 0.85:
                rows.append((frame, target + shift, box + rng.normal(0, 1, 4)))
        if rng.random() < 0.2:
            rows.append((frame, 9000, [1, 1, 9, 9]))
    frames, ids, boxes = zip(*rows, strict=True)
    return TrackRows(np.array(frames), np.array(ids), np.array(boxes))


@pytest.mark.parametrize("agnostic", [False, True], ids=["by class", "class-agnostic"])
@pytest.mark.parametrize("stride", [1, 3])
def test_average_precision_is_that_of_coco_metric(agnostic, stride):
    rng = np.random.default_rng(1)
    truth = table(rng)
    rows = compare_detections(truth, results(truth, rng), stride=stride, class_agnostic=agnostic)
    assert [row.name for row in rows] == ["AP50", "AP", "AP75", "AR100"]
    assert all(0.02 < row.ours < 0.98 for row in rows)
    assert all(abs(row.difference) < 1e-9 for row in rows)


def test_the_stride_applies_to_each_video():
    chosen = select_frames(table(np.random.default_rng(1), frames=7), stride=3)
    assert [image["id"] for image in chosen["images"]] == [100, 103, 106, 200, 203, 206]
    assert {row["image_id"] for row in chosen["annotations"]} <= {100, 103, 106, 200, 203, 206}


def test_track_metrics_are_those_of_mot_challenge_metric():
    rng = np.random.default_rng(2)
    records = video_records(table(rng, frames=40))
    rows = compare_tracks(records, {record.name: perturbed(record, rng) for record in records})
    ours = {row.name: row.ours for row in rows}
    assert 0.2 < ours["MOTA"] < 0.95
    assert 0.1 < ours["IDF1"] < 0.95
    assert min(ours[name] for name in ("switches", "misses", "false_positives")) > 3
    assert all(abs(row.difference) < 1e-9 for row in rows)


def test_fractions_of_pixels_are_used_by_both():
    """If truncated to whole pixels, the target would be 2x2 and the IoU less than 0.5."""
    box = [[10.9, 10.9, 13.8, 13.8]]
    instances = (np.array([1]),)
    labelled = VideoRecord(
        "v", "", 32, 32, {0: 1}, (np.array(box, np.float32),), (np.zeros(1, np.int64),), instances=instances
    )
    rows = compare_tracks([labelled], {"v": TrackRows(np.array([0]), np.array([5]), np.array(box))})
    assert {row.name: (row.ours, row.theirs) for row in rows}["MOTA"] == (1.0, 1.0)


def test_after_a_gap_the_two_prefer_different_tracks_of_a_target():
    """The difference that the module describes: ours prefers the track from before the gap."""
    box = np.array([10.0, 10, 20, 20])
    near = box + np.array([0, 0, 0, 2])
    truth = VideoRecord(
        "v",
        "",
        64,
        64,
        {n: n + 1 for n in range(3)},
        (box[None].astype(np.float32),) * 3,
        (np.zeros(1, np.int64),) * 3,
        instances=(np.array([1]),) * 3,
    )
    frames, ids = np.array([0, 1, 2, 2]), np.array([1, 3, 1, 2])
    tracks = TrackRows(frames, ids, np.array([box, box + 30, near, box]))
    rows = {row.name: row for row in compare_tracks([truth], {"v": tracks})}
    assert (rows["switches"].ours, rows["switches"].theirs) == (0, 1)
    assert rows["IDF1"].difference == 0


def test_the_command_prints_both_and_writes_them(tmp_path, capsys):
    rng = np.random.default_rng(3)
    truth = table(rng)
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "det.json").write_text(json.dumps(results(truth, rng)))
    tracks = tmp_path / "tracks"
    tracks.mkdir()
    for record in video_records(truth):
        rows = perturbed(record, rng)
        text = [
            f"{frame + 1},{track},{left + 1:.4f},{top + 1:.4f},{width:.4f},{height:.4f},1,-1,-1,-1"
            for frame, track, (left, top, width, height) in zip(
                rows.frames, rows.ids, to_xywh(rows.boxes), strict=True
            )
        ]
        (tracks / f"{record.name}.txt").write_text("\n".join(text))
    options = ["--detections", tmp_path / "det.json", "--tracks", tracks, "--output", tmp_path / "out.json"]
    assert main(["compare", "--annotations", str(tmp_path / "gt.json"), *map(str, options)]) == 0
    written = json.loads((tmp_path / "out.json").read_text())
    printed = capsys.readouterr().out
    for row in written["detections"] + written["tracks"]:
        assert row["ours"] == pytest.approx(row["theirs"], abs=1e-9)
        assert row["name"] in printed


def test_files_without_annotated_frames_are_refused():
    truth = table(np.random.default_rng(1))
    with pytest.raises(UsageError, match="no detection is on an annotated image"):
        compare_detections(truth, [])
    with pytest.raises(UsageError, match=r"no file of tracks .* NAME-OF-VIDEO.txt"):
        compare_tracks(video_records(truth), {"other": TrackRows(np.zeros(0), np.zeros(0), np.zeros((0, 4)))})


@pytest.mark.real_data
def test_real_annotations_give_the_same_results(drone_ir):
    rng = np.random.default_rng(4)
    truth = load_coco(drone_ir / "annotations" / "val.json")
    records = video_records(truth)[::12]
    rows = compare_tracks(records, {record.name: perturbed(record, rng) for record in records})
    found = results(select_frames(truth, stride=50), rng)
    rows += compare_detections(truth, found, stride=50, class_agnostic=True)
    assert all(row.ours > 0 for row in rows)
    assert all(abs(row.difference) < 1e-4 for row in rows)
