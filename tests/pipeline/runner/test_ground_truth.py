"""Results take ids and categories from the ground truth and are scored by it, in a run and afterwards."""

from __future__ import annotations

import json

import pytest

from pipeline import vid_map_coco
from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.evaluation.detection.report import DetectionScores
from pipeline.runner.ground_truth import GroundTruth
from pipeline.runner.single import run
from pipeline.runner.summary import run_table
from pipeline.sources.opening import open_source
from pipeline.structures.annotations import video_records
from pipeline.structures.coco_tables import load_coco
from pipeline.structures.detections import Detections
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks
from pipeline.system.errors import UsageError
from run_pipeline import parts
from tests.support.nano import save_nano
from tests.support.outputs import detections, lines, report
from tests.support.truth import annotations_of


@pytest.fixture(scope="module")
def truth(whole, clip, tmp_path_factory):
    """Ground truth by which half of the detections in the clip are correct, so that scores are not 0 or 1."""

    def annotate_half(table):
        table["annotations"] = [
            {"id": n, "image_id": d["image_id"], "video_id": 1, "category_id": 1, "bbox": d["bbox"]}
            for n, d in enumerate(detections(whole)[::2], start=1)
        ]

    return rewritten(clip.with_suffix(".json"), tmp_path_factory.mktemp("truth") / "gt.json", annotate_half)


def rewritten(truth_file, path, change):
    """Saves a copy of ground truth after `change`; returns the path."""
    table = json.loads(truth_file.read_text())
    change(table)
    path.write_text(json.dumps(table))
    return path


def test_image_ids_are_taken_from_the_ground_truth(process, tmp_path, clip, truth):
    def shift(table):
        for image in table["images"]:
            image["id"] += 1000
        for annotation in table["annotations"]:
            annotation["image_id"] += 1000

    folder = process(clip, truth=rewritten(truth, tmp_path / "gt.json", shift))
    first, last = (lines(folder)[n]["frame"] + 1001 for n in (0, -1))
    ids = [d["image_id"] for d in detections(folder)]
    assert (min(ids), max(ids)) == (first, last)


def test_category_ids_are_taken_from_the_ground_truth(process, tmp_path, clip, truth):
    def rename(table):
        table["categories"][0]["id"] = 7
        for annotation in table["annotations"]:
            annotation["category_id"] = 7

    folder = process(clip, truth=rewritten(truth, tmp_path / "gt.json", rename))
    assert {d["category_id"] for d in detections(folder)} == {7}
    assert 0.1 < report(folder)["metrics"]["ap50"] < 0.9


def test_frames_without_annotation_are_processed_but_not_scored(process, tmp_path, clip, truth):
    def shorten(table):
        table["images"] = table["images"][:10]
        table["annotations"] = [a for a in table["annotations"] if a["image_id"] <= 10]

    folder = process(clip, truth=rewritten(truth, tmp_path / "gt.json", shorten))
    assert len(lines(folder)) == 16
    assert max(d["image_id"] for d in detections(folder)) <= 10
    assert report(folder)["metrics"]["frames"] == 10
    assert report(folder)["frames"]["not_annotated"] == 6


def test_targets_of_classes_that_are_left_out_are_not_scored(tmp_path, clip, truth):
    def alternate(table):
        table["categories"] = [{"id": 1, "name": "bird"}, {"id": 2, "name": "drone"}]
        for annotation in table["annotations"]:
            annotation["category_id"] = 1 + annotation["image_id"] % 2

    path = rewritten(truth, tmp_path / "gt.json", alternate)
    with open_source(clip) as source:
        known = annotations_of(path, source.info)
        frames = list(source)
    (record,) = video_records(load_coco(path))
    scored = GroundTruth(known, 2, labels=(1,))
    for frame in frames:
        boxes = record.boxes[frame.index][record.labels[frame.index] == 1]
        right = Detections(boxes, [0.9] * len(boxes), [1] * len(boxes))
        scored.add(Result(frame, right, warmup=False, tracks=Tracks.empty()))
    scores = scored.score(0.5).scores
    assert scores.frames == 16
    assert 0 < scores.targets < sum(map(len, record.boxes))
    assert scores.ap50 == pytest.approx(1)


def test_ground_truth_without_a_processed_frame_is_refused(tmp_path, clip, truth):
    def keep_one(table):
        (kept,) = (image for image in table["images"] if image["frame_id"] == 4)
        table["images"] = [kept]
        table["annotations"] = [row for row in table["annotations"] if row["image_id"] == kept["id"]]

    path = rewritten(truth, tmp_path / "gt.json", keep_one)
    with open_source(clip, stride=3) as source:
        with pytest.raises(UsageError, match="none of the frames 0 to 15 that are processed, one in 3"):
            annotations_of(path, source.info, stride=3)
    with open_source(clip, start=1, stride=3) as source:
        annotations_of(path, source.info, start=1, stride=3)


@pytest.mark.parametrize("start", [16, 20])
def test_ground_truth_of_other_frames_is_refused_before_the_run(clip, truth, start):
    with open_source(clip, start=0) as source, pytest.raises(UsageError, match="none of the frames"):
        annotations_of(truth, source.info, start=start)


def test_ground_truth_that_counts_frames_from_one_is_refused(tmp_path, clip, truth):
    def count_from_one(table):
        for image in table["images"]:
            image["frame_id"] += 1

    path = rewritten(truth, tmp_path / "gt.json", count_from_one)
    with open_source(clip) as source, pytest.raises(UsageError, match="count frames from 1"):
        annotations_of(path, source.info)


@pytest.mark.parametrize(
    ("classes", "label", "ap50"),
    [
        pytest.param(1, 0, 1.0, id="same class"),
        pytest.param(3, 0, 1.0, id="other classes"),
        pytest.param(3, 1, 1.0, id="other classes, a label that is not annotated"),
    ],
)
def test_classes_only_count_if_detector_and_annotations_have_the_same(clip, classes, label, ap50):
    path = clip.with_suffix(".json")
    (record,) = video_records(load_coco(path))
    with open_source(clip) as source:
        truth = GroundTruth(annotations_of(path, source.info), classes)
        for frame in source:
            boxes = record.boxes[frame.index]
            right = Detections(boxes, [0.9] * len(boxes), [label] * len(boxes))
            truth.add(Result(frame, right, warmup=False, tracks=Tracks.empty()))
    assert truth.frames == 16
    assert truth.score(0.5).scores.ap50 == pytest.approx(ap50)


def test_a_detector_with_other_classes_than_the_annotations_is_scored_without_classes(
    process, tmp_path, clip
):
    weights = save_nano(tmp_path / "three.safetensors", num_classes=3)
    folder = process(clip, truth=clip.with_suffix(".json"), weights=weights, conf=0.05)
    assert report(folder)["detector"]["classes"] == ["class 0", "class 1", "class 2"]
    assert report(folder)["metrics"]["frames"] == 16


# The scores of a run


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def scored(tmp_path_factory, clip, truth, nano_weights):
    """The outputs of a run over the clip with this ground truth."""
    folder = tmp_path_factory.mktemp("scored") / "out"
    table = {"detector": {"weights": nano_weights, "conf": 0.2}, "output": {"folder": str(folder)}}
    record = run(str(clip), build(RunConfig, table), parts(), annotations=str(truth), progress="off")
    (folder.parent / "summary.txt").write_text(run_table(record))
    return folder


def test_the_score_threshold_is_that_of_the_run(scored):
    metrics = metrics_of(scored)
    assert metrics["threshold"] == metrics["criteria"]["iou_0.5"]["at_threshold"]["threshold"] == 0.2


def test_the_record_of_the_run_has_the_main_metrics(scored):
    main, metrics = report(scored)["metrics"], metrics_of(scored)
    assert set(main) == set(DetectionScores.__dataclass_fields__)
    assert main == {name: metrics[name] for name in main}


@pytest.mark.parametrize("switch", ["coco", "mot"])
def test_metrics_need_no_other_output(process, clip, truth, scored, switch):
    bare = process(clip, truth=truth, output={switch: False, "video": False})
    assert report(bare)["metrics"] == report(scored)["metrics"]


def test_tracks_are_scored_on_the_frames_of_the_run(process, clip):
    sections = {"source": {"start": 2, "max_frames": 9}}
    tracks = metrics_of(process(clip, truth=clip.with_suffix(".json"), sections=sections))["tracks"]
    assert {gate: row["frames"] for gate, row in tracks.items()} == {"iou": 9, "centre": 9}


def test_a_run_without_tracks_has_no_track_scores(process, clip):
    output, sections = {"mot": False, "video": False}, {"source": {"max_frames": 2}}
    metrics = metrics_of(process(clip, truth=clip.with_suffix(".json"), output=output, sections=sections))
    assert (metrics["tracks"], metrics["notes"]) == (None, [])


def test_ambiguous_identities_are_noted_and_detections_are_scored(scored):
    metrics = metrics_of(scored)  # this ground truth has several targets per frame and no identities
    assert metrics["tracks"] is None
    (note,) = metrics["notes"]
    assert note.startswith("tracks are not scored: frame")
    assert 0.1 < metrics["ap50"] < 0.9
    assert note.replace("tracks are not scored", "not scored") in (scored.parent / "summary.txt").read_text()


def test_a_run_without_targets_shows_no_average_precision(tmp_path, clip, truth, nano_weights):
    path = rewritten(truth, tmp_path / "gt.json", lambda table: table["annotations"].clear())
    table = {
        "detector": {"weights": nano_weights},
        "output": {"folder": str(tmp_path / "out"), "video": False},
    }
    config = build(RunConfig, {**table, "source": {"max_frames": 2}})
    text = run_table(run(str(clip), config, parts(), annotations=str(path), progress="off"))
    assert "AP50        not defined: no targets in 2 frames" in text
    assert "best F1" not in text
    assert "MOTA" not in text


# pipeline.vid_map_coco


def test_the_evaluation_command_gives_the_metrics_of_the_run(tmp_path, truth, scored):
    arguments = ["--annotations", truth, "--detections", scored / "detections.json", "--conf", "0.2"]
    copy = tmp_path / "scores.json"
    assert vid_map_coco.main([*map(str, arguments), "--output", str(copy)]) == 0
    assert json.loads(copy.read_text()) == {**metrics_of(scored), "notes": []}


def test_the_evaluation_command_gives_the_track_scores_of_the_run(tmp_path, clip, whole, capsys):
    files = {"annotations": clip.with_suffix(".json"), "detections": whole / "detections.json"}
    files |= {"tracks": whole / "tracks.txt", "output": tmp_path / "scores.json"}
    assert vid_map_coco.main([text for k, v in files.items() for text in (f"--{k}", str(v))]) == 0
    assert json.loads(files["output"].read_text())["tracks"] == metrics_of(whole)["tracks"]
    assert "MOTA" in capsys.readouterr().out


def test_the_evaluation_command_can_be_restricted_to_some_videos(clip, whole, capsys):
    arguments = ["--annotations", str(clip.with_suffix(".json")), "--detections"]
    arguments.append(str(whole / "detections.json"))
    assert vid_map_coco.main([*arguments, "--videos", "clip"]) == 0
    assert capsys.readouterr().out.startswith("frames 16 ")
    assert vid_map_coco.main([*arguments, "--videos", "clop"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown video 'clop'; did you mean 'clip'?")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no JSON", "are not JSON"),
        ("{}", "are not a list of COCO results"),
        ("[1]", "are not a list of COCO results"),
        ('[{"image_id": 1}]', "detection 0 is not a COCO result"),
        (
            '[{"image_id": 99, "category_id": 1, "bbox": [1, 1, 2, 2], "score": 1}]',
            "which is not in the annotations",
        ),
    ],
    ids=["text", "object", "numbers", "fields", "image"],
)
def test_the_evaluation_command_refuses_other_files_than_results(tmp_path, clip, capsys, text, message):
    (tmp_path / "d.json").write_text(text)
    arguments = ["--annotations", clip.with_suffix(".json"), "--detections", tmp_path / "d.json"]
    assert vid_map_coco.main([*map(str, arguments)]) == UsageError.exit_code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
