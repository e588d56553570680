"""The evaluator as a program: mistakes are told in one line each."""

from __future__ import annotations

import json

import pytest

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
def test_scores_are_printed_one_a_line(evaluator, arguments):
    code, out, err = evaluator(*arguments)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "ap50           1.0000"
    assert out.splitlines()[-1] == "frames         1"


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        ([], {"images": [{"video_id": 1}]}, "images[0] has no valid 'id'"),
        ([], {"images": 5}, "'images' is not a list of objects"),
        (["--class-agnostic"], {"categories": []}, "'categories' is empty"),
        (["--videos", "clip"], {"videos": [{"id": 1}]}, "videos[0] has no valid 'name'"),
        (["--videos", "clip"], {"images": [{"id": 1}]}, "frames to be scored are missing"),
        (["--vidoes", "clip"], {}, "unknown option '--vidoes', did you mean '--videos'?"),
    ],
    ids=["image without id", "number", "no categories", "no name", "no frames", "option"],
)
def test_a_mistake_is_told_in_one_line(evaluator, arguments, changes, message):
    code, out, err = evaluator(*arguments, **changes)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert message in err


def test_numbers_that_cannot_be_written_are_an_output_error(evaluator, tmp_path):
    code, _, err = evaluator("--output", str(tmp_path / "missing" / "scores.json"))
    assert (code, err.count("\n")) == (5, 1)
    assert "cannot write" in err
