"""What is found is named and scored as the ground truth has it, during a run and afterwards."""

from __future__ import annotations

import json

import pytest

from pipeline import vid_map_coco
from pipeline.errors import UsageError
from pipeline.ground_truth import GroundTruth
from pipeline.sources import open_source
from tests.outputs import detections, lines, report, save_nano


@pytest.fixture(scope="module")
def truth(whole, clip, tmp_path_factory):
    """Ground truth by which half of what is found in the clip is right, so that scores are not all 0 or 1."""

    def believe(table):
        table["annotations"] = [
            {"id": n, "image_id": d["image_id"], "video_id": 1, "category_id": 1, "bbox": d["bbox"]}
            for n, d in enumerate(detections(whole)[::2], start=1)
        ]

    return rewritten(clip.with_suffix(".json"), tmp_path_factory.mktemp("truth") / "gt.json", believe)


def rewritten(truth_file, path, change):
    """A copy of ground truth with `change` made to it."""
    table = json.loads(truth_file.read_text())
    change(table)
    path.write_text(json.dumps(table))
    return path


def test_image_ids_are_those_of_the_ground_truth(process, tmp_path, clip, truth):
    def shift(table):
        for image in table["images"]:
            image["id"] += 1000
        for annotation in table["annotations"]:
            annotation["image_id"] += 1000

    folder = process(clip, truth=rewritten(truth, tmp_path / "gt.json", shift))
    first, last = (lines(folder)[n]["frame"] + 1001 for n in (0, -1))
    ids = [d["image_id"] for d in detections(folder)]
    assert (min(ids), max(ids)) == (first, last)


def test_category_ids_are_those_of_the_ground_truth(process, tmp_path, clip, truth):
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


@pytest.mark.parametrize("start", [16, 20])
def test_ground_truth_of_other_frames_is_refused_before_the_run(clip, truth, start):
    with open_source(clip, start=0) as source, pytest.raises(UsageError, match="none of the frames"):
        GroundTruth(truth, source.info, start=start)


def test_frames_counted_from_one_are_refused_instead_of_scored_one_off(tmp_path, clip, truth):
    def count_from_one(table):
        for image in table["images"]:
            image["frame_id"] += 1

    path = rewritten(truth, tmp_path / "gt.json", count_from_one)
    with open_source(clip) as source, pytest.raises(UsageError, match="count frames from 1"):
        GroundTruth(path, source.info)


def test_metrics_need_the_detections_file(mote, tmp_path, clip, truth, nano_weights):
    options = ("--weights", nano_weights, "--output", tmp_path / "out", "--no-save-coco")
    reply = mote("--video", clip, "--annotations", truth, *options)
    assert reply.code == 2
    assert "leave out --no-save-coco" in reply.err


def perfect(truth_file, label):
    """Results that repeat the ground truth, all of category `label`."""
    table = json.loads(truth_file.read_text())
    return [
        {"image_id": a["image_id"], "category_id": label, "bbox": a["bbox"], "score": 0.9}
        for a in table["annotations"]
    ]


@pytest.mark.parametrize(
    ("classes", "label", "ap50"),
    [
        pytest.param(1, 1, 1.0, id="same class"),
        pytest.param(3, 1, 1.0, id="other classes"),
        pytest.param(3, 2, 1.0, id="other classes, a label that is not annotated"),
    ],
)
def test_classes_count_only_where_detector_and_annotations_have_the_same(
    tmp_path, clip, classes, label, ap50
):
    with open_source(clip) as source:
        truth = GroundTruth(clip.with_suffix(".json"), source.info)
        assert [truth.image_id(frame) for frame in source] == list(range(1, 17))
    (tmp_path / "d.json").write_text(json.dumps(perfect(clip.with_suffix(".json"), label)))
    assert truth.score(tmp_path / "d.json", classes).ap50 == pytest.approx(ap50)


def test_a_detector_of_other_classes_than_the_annotations_is_scored_all_the_same(process, tmp_path, clip):
    weights = save_nano(tmp_path / "three.safetensors", num_classes=3)
    folder = process(clip, truth=clip.with_suffix(".json"), weights=weights, conf=0.05)
    assert report(folder)["detector"]["classes"] == ["class 0", "class 1", "class 2"]
    assert report(folder)["metrics"]["frames"] == 16


# The evaluator as a program


def test_the_evaluator_alone_gives_the_scores_of_the_run(process, tmp_path, clip, truth, capsys):
    folder = process(clip, truth=truth)
    arguments = ["--annotations", truth, "--detections", folder / "detections.json"]
    copy = tmp_path / "scores.json"
    assert vid_map_coco.main([*map(str, arguments), "--output", str(copy)]) == 0
    scores = json.loads((folder / "metrics.json").read_text())
    assert 0.1 < scores["ap50"] < 0.9
    assert f"ap50           {scores['ap50']:.4f}" in capsys.readouterr().out.splitlines()
    assert json.loads(copy.read_text()) == scores


def test_the_evaluator_can_be_kept_to_some_videos(clip, whole, capsys):
    arguments = ["--annotations", str(clip.with_suffix(".json")), "--detections"]
    arguments.append(str(whole / "detections.json"))
    assert vid_map_coco.main([*arguments, "--videos", "clip"]) == 0
    assert "frames         16" in capsys.readouterr().out.splitlines()
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
def test_the_evaluator_refuses_what_are_not_results(tmp_path, clip, capsys, text, message):
    (tmp_path / "d.json").write_text(text)
    arguments = ["--annotations", clip.with_suffix(".json"), "--detections", tmp_path / "d.json"]
    assert vid_map_coco.main([*map(str, arguments)]) == UsageError.exit_code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
