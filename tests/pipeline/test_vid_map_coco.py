"""The command: tables, files, plots, and errors reported in one line."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from pipeline import vid_map_coco

TRUTH = {
    "videos": [{"id": 1, "name": "clip"}],
    "images": [{"id": 1, "video_id": 1}],
    "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]}],
    "categories": [{"id": 1, "name": "target"}],
}
RESULTS = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "score": 0.9}]


@pytest.fixture
def evaluator(tmp_path, capsys):
    """Runs the evaluator on ground truth with `changes`; returns exit code, output and complaints."""

    def call(*arguments, **changes):
        (tmp_path / "gt.json").write_text(json.dumps({**TRUTH, **changes}))
        (tmp_path / "d.json").write_text(json.dumps(RESULTS))
        files = ["--annotations", str(tmp_path / "gt.json"), "--detections", str(tmp_path / "d.json")]
        code = vid_map_coco.main([*files, *arguments])
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("arguments", [[], ["--class-agnostic"], ["--videos", "clip"]], ids=" ".join)
def test_scores_are_printed(evaluator, arguments):
    code, out, err = evaluator(*arguments)
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "frames 1 (0 without targets), targets 1, detections 1"
    assert "AP50 AP75 AP AR1 AR10 AR100 recall50" in lines
    assert "all 1.000 1.000 1.000 1.000 1.000 1.000 1.000" in lines
    assert "average precision 1.000 1.000 1.000" in lines
    assert "up to 4x4 1 1.000 1.000" in lines
    assert "clip 1 0 1 1 1.000 1.000 0.000" in lines
    assert "all frames 1.000 1.000 1.000 1.000" in lines
    assert ("target 1 1 1.000 1.000 1.000 1.000 1.000 1.000 0.900" in lines) is (
        "--class-agnostic" not in arguments
    )


def test_several_classes_are_printed_apart_and_as_one(evaluator):
    _, out, _ = evaluator(categories=[{"id": 1, "name": "bird"}, {"id": 2, "name": "drone"}])
    lines = [line.split() for line in out.splitlines()]
    assert ["class", "by", "class", *["1.000"] * 7] in lines
    assert ["classes", "as", "one", *["1.000"] * 7] in lines
    assert ["drone", "0", "0", *["-"] * 5, "0.000", "1.000"] in lines


def test_unreached_values_are_printed_as_dashes(evaluator):
    _, out, _ = evaluator(annotations=[*TRUTH["annotations"]] * 2)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "false alarms a frame at recall 0.5 0.0000 0.0000 0.0000" in lines
    assert "false alarms a frame at recall 0.7 - - -" in lines


def test_the_threshold_is_that_of_the_option(evaluator):
    _, out, _ = evaluator("--conf", "0.95")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    place = lines.index("at score 0.95: precision - - -")
    assert lines[place + 1] == "recall 0.000 0.000 0.000"


def test_columns_are_aligned(evaluator):
    _, out, _ = evaluator()
    for section in out.split("\n\n")[1:]:
        assert len({len(line) for line in section.splitlines()[1:]}) == 1


def test_notes_are_printed(evaluator, monkeypatch):
    monkeypatch.setattr("tests.pipeline.test_vid_map_coco.RESULTS", RESULTS * 2)
    _, out, _ = evaluator()
    assert "note: repeated detections: 1, the first of them number 1; they are false alarms" in out


def test_all_numbers_are_written_as_json(evaluator, tmp_path):
    evaluator("--output", str(tmp_path / "m.json"))
    numbers = json.loads((tmp_path / "m.json").read_text())
    assert (numbers["frames"], numbers["recall50"], numbers["tracks"]) == (1, 1, None)
    assert numbers["criteria"]["centre_3px"]["at_threshold"]["hits"] == 1


@pytest.mark.parametrize("changes", [{}, {"annotations": []}], ids=["targets", "no targets"])
def test_curves_are_drawn(evaluator, tmp_path, changes):
    code, out, _ = evaluator("--plots", str(tmp_path / "new" / "plots"), **changes)
    assert code == 0
    for name in ("precision_recall.png", "froc.png"):
        assert name in out
        with Image.open(tmp_path / "new" / "plots" / name) as image:
            assert image.size == (768, 576)
            assert len(set(image.convert("RGB").get_flattened_data())) > 10


def test_plots_that_cannot_be_written_are_an_output_error(evaluator, tmp_path):
    (tmp_path / "plots").write_text("a file")
    code, _, err = evaluator("--plots", str(tmp_path / "plots"))
    assert (code, err.count("\n")) == (5, 1)
    assert "cannot write" in err


@pytest.mark.parametrize(("option", "place"), [("--output", "missing/scores.json"), ("--plots", "gt.json")])
def test_unwritable_outputs_are_reported_before_anything_is_scored(
    evaluator, tmp_path, monkeypatch, option, place
):
    monkeypatch.setattr(vid_map_coco, "Evaluator", lambda *_, **__: pytest.fail("scored"))
    code, out, err = evaluator(option, str(tmp_path / place))
    assert (code, out, err.count("\n")) == (5, "", 1)
    assert f"cannot write {tmp_path / place}: " in err


def test_tracks_are_scored_by_overlap_and_by_centres(evaluator, tmp_path):
    (tmp_path / "t.txt").write_text("1,1,2,2,4,4,0.9,-1,-1,-1\n")
    image = {"id": 1, "video_id": 1, "frame_id": 0}
    video = {"id": 1, "name": "clip", "width": 64, "height": 48}
    code, out, _ = evaluator("--tracks", str(tmp_path / "t.txt"), images=[image], videos=[video])
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    assert "iou 0.5 1.000 0.000 1.000 1.000 1.000 1.000 1.000 1.000 0 0 0 0 1" in lines
    assert "centre 5 1.000 0.000 1.000 1.000 1.000 1.000 1.000 1.000 0 0 0 0 1" in lines


def test_tracks_need_a_single_video(evaluator, tmp_path):
    images = [{"id": n, "video_id": n, "frame_id": 0} for n in (1, 2)]
    videos = [{"id": n, "name": f"clip {n}", "width": 64, "height": 48} for n in (1, 2)]
    code, _, err = evaluator("--tracks", str(tmp_path / "t.txt"), images=images, videos=videos)
    assert code == 2
    assert "--tracks are those of one video, but 2 videos are scored" in err
    assert "--videos" in err


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        ([], {"images": [{"video_id": 1}]}, "images[0] has no valid 'id'"),
        ([], {"images": 5}, "'images' is not a list of objects"),
        (["--class-agnostic"], {"categories": []}, "'categories' is empty"),
        (["--videos", "clip"], {"videos": [{"id": 1}]}, "videos[0] has no valid 'name'"),
        (["--videos", "clip"], {"images": [{"id": 1}]}, "frames to be scored are missing"),
        (["--conf", "1.5"], {}, "'1.5', expected a score from 0 to 1"),
        (["--conf", "nan"], {}, "'nan', expected a score from 0 to 1"),
        (["--conf", "high"], {}, "'high', expected a score from 0 to 1"),
        (["--vidoes", "clip"], {}, "unknown option '--vidoes', did you mean '--videos'?"),
    ],
    ids=[
        "image without id",
        "number",
        "no categories",
        "no name",
        "no frames",
        "high",
        "NaN",
        "word",
        "option",
    ],
)
def test_a_mistake_is_reported_in_one_line(evaluator, arguments, changes, message):
    code, out, err = evaluator(*arguments, **changes)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert message in err


def test_numbers_that_cannot_be_written_are_an_output_error(evaluator, tmp_path):
    code, _, err = evaluator("--output", str(tmp_path / "missing" / "scores.json"))
    assert (code, err.count("\n")) == (5, 1)
    assert "cannot write" in err


def two_frames(**more):
    """Changes of the ground truth: a second frame with a target that no result is on, and `more`."""
    images = [{"id": n, "video_id": 1, "frame_id": n - 1} for n in (1, 2)]
    annotations = [{**TRUTH["annotations"][0], "image_id": n} for n in (1, 2)]
    return {"images": images, "annotations": annotations, **more}


def test_frames_without_results_are_counted_and_can_be_left_out(evaluator, tmp_path):
    code, out, _ = evaluator("--output", str(tmp_path / "m.json"), **two_frames())
    assert code == 0
    assert "note: frames without any result: 1 of 2; they count as frames in which nothing was found" in out
    assert "--with-results leaves them out" in out
    numbers = json.loads((tmp_path / "m.json").read_text())
    assert (numbers["recall50"], len(numbers["notes"])) == (0.5, 1)
    code, out, _ = evaluator("--with-results", "--output", str(tmp_path / "m.json"), **two_frames())
    assert "note" not in out
    numbers = json.loads((tmp_path / "m.json").read_text())
    assert (numbers["recall50"], numbers["frames"], numbers["notes"]) == (1, 1, [])


def test_tracks_are_scored_on_the_frames_with_results(evaluator, tmp_path):
    (tmp_path / "t.txt").write_text("1,1,2,2,4,4,0.9,-1,-1,-1\n")
    changes = two_frames(videos=[{"id": 1, "name": "clip", "width": 64, "height": 48}])
    tracks = ["--tracks", str(tmp_path / "t.txt")]
    for arguments, mota in (([], "0.500"), (["--with-results"], "1.000")):
        _, out, _ = evaluator(*tracks, *arguments, **changes)
        assert f"iou 0.5 {mota}" in " ".join(out.split())


def test_no_results_at_all_leave_nothing_to_score(evaluator):
    changes = two_frames(images=[{"id": 2}], annotations=[])
    code, _, err = evaluator("--with-results", **changes)
    assert (code, err.count("\n")) == (2, 1)
    assert "none of the 1 frames has results" in err


def test_an_image_that_repeats_a_frame_is_left_out(evaluator):
    images = [{"id": n, "video_id": 1, "frame_id": 0} for n in (1, 2)]
    _, out, _ = evaluator(images=images)
    assert out.startswith("frames 1 (0 without targets), targets 1, detections 1")
    assert "note: images that repeat a frame of an earlier image: 1; they are left out" in out


def test_ids_of_results_may_be_text(evaluator, monkeypatch):
    row = {**RESULTS[0], "image_id": "1", "category_id": "1"}
    monkeypatch.setattr("tests.pipeline.test_vid_map_coco.RESULTS", [row])
    assert evaluator()[1].startswith("frames 1 (0 without targets), targets 1, detections 1")


def test_results_may_be_the_annotations_of_a_whole_file(evaluator, monkeypatch):
    monkeypatch.setattr("tests.pipeline.test_vid_map_coco.RESULTS", {"annotations": RESULTS})
    assert evaluator()[0] == 0


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("image_id", "on image 7, which is not in the annotations (1)"),
        ("category_id", "of category 7, which is not in the annotations (1); --class-agnostic ignores"),
    ],
)
def test_ids_that_are_not_annotated_are_named_beside_those_that_are(evaluator, monkeypatch, key, message):
    monkeypatch.setattr("tests.pipeline.test_vid_map_coco.RESULTS", [{**RESULTS[0], key: 7}])
    assert message in evaluator()[2]


def test_videos_of_the_same_name_are_scored_together(evaluator):
    videos = [{"id": n, "name": "clip", "file_name": f"{n}/clip.mp4"} for n in (1, 2)]
    images = [{"id": n, "video_id": n} for n in (1, 2)]
    assert evaluator("--videos", "clip", videos=videos, images=images)[1].startswith("frames 2 ")


def test_without_targets_there_is_no_average_precision(evaluator):
    _, out, _ = evaluator(annotations=[])
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "all - - - - - - -" in lines
    assert "annotated frames only - - - -" in lines
