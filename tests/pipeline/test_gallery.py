"""A page of annotated frames shows the frames that were asked for, as the annotated video would."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.gallery import GAP, main, page, split


@pytest.fixture
def show(nano_weights, tmp_path):
    """Runs the command; returns its exit code and the picture written, if any."""

    def run(*frames: str, output: str = "page.png", extra: tuple[str, ...] = ()):
        target = tmp_path / output
        code = main([*frames, "--output", str(target), "--weights", nano_weights, "--device", "cpu", *extra])
        return code, cv2.imread(str(target)) if target.is_file() else None

    return run


def test_each_frame_is_one_picture_of_the_page(show, clip):
    code, picture = show(f"{clip}:0", f"{clip}:4", extra=("--columns", "1"))
    assert code == 0
    one = show(f"{clip}:4", output="one.png")[1]
    height, width = one.shape[:2]
    assert picture.shape == (2 * height + GAP, width, 3)
    assert np.array_equal(picture[height + GAP :], one)
    assert not np.array_equal(picture[:height], one)


def test_pictures_lie_in_reading_order_on_white():
    pictures = [np.full((4, 6, 3), level, np.uint8) for level in (10, 20, 30)]
    canvas = page(pictures, columns=2)
    assert canvas.shape == (8 + GAP, 12 + GAP, 3)
    assert [int(canvas[y, x, 0]) for y, x in ((0, 0), (0, 6 + GAP), (4 + GAP, 0))] == [10, 20, 30]
    assert (canvas[4 + GAP :, 6 + GAP :] == 255).all()


def test_names_may_hold_colons():
    assert split("C:/clips/a.mp4:12") == ("C:/clips/a.mp4", 12)


@pytest.mark.parametrize(
    ("frame", "extra", "code", "message"),
    [
        ("a.mp4", (), 2, "'a.mp4' is not VIDEO:FRAME"),
        ("a.mp4:x", (), 2, "is not VIDEO:FRAME"),
        ("missing.mp4:3", (), 3, "missing.mp4: no such file"),
        ("a.mp4:1", ("--columns", "0"), 2, "whole number of 1 or more"),
    ],
    ids=["no frame", "no number", "no file", "no column"],
)
def test_mistakes_are_told_in_one_line(show, capsys, frame, extra, code, message):
    assert show(frame, extra=extra) == (code, None)
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_frame_beyond_the_end_is_refused(show, clip, capsys):
    assert show(f"{clip}:100000")[0] in (2, 3)
    assert capsys.readouterr().err.count("\n") == 1


def test_a_page_of_an_unknown_format_is_refused(show, clip, capsys):
    assert show(f"{clip}:0", output="page.xyz")[0] == 5
    assert ".png or .jpg" in capsys.readouterr().err
