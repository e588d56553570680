"""A page of annotated frames shows those of finished runs, read from their annotated videos."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.config.rotation import Rotation
from pipeline.gallery import GAP, main, page, parse_frames
from pipeline.sinks.base import Sinks
from pipeline.sinks.file_names import JSONL, RUN, VIDEO
from pipeline.sinks.jsonl import JsonlSink
from pipeline.sinks.rotating import RotatingSink, find_rotated_files
from pipeline.sinks.video import VideoSink
from tests.pipeline.sinks.test_sinks import make_result, source_info

COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200), (120, 120, 120))
START = 40


def draw_colour(result):
    """The frame in one colour, which tells its index."""
    return np.full((*result.frame.image.shape, 3), COLOURS[result.frame.index - START], np.uint8)


def open_files(place):
    return [JsonlSink(place(JSONL)), VideoSink(place(VIDEO), source_info(), draw_colour, quality=1)]


def write_run(folder, sink):
    """A finished run of six frames, which started at frame 40 of its source."""
    with sink:
        for index in range(START, START + len(COLOURS)):
            sink.write(make_result(index))
    source = {"name": "in.mp4", "rate": "25/1", "frame_count": None, "bit_depth": 8, "channels": 1}
    source |= {"width": 48, "height": 32}
    detector = {"classes": ["target"]}
    sections = {"source": source, "config": {}, "detector": detector, "segmenters": [], "mote": "1"}
    (folder / RUN).write_text(json.dumps({"state": "complete", **sections}))
    return folder


@pytest.fixture
def finished(tmp_path):
    """The folder of a finished run."""
    (tmp_path / "run").mkdir()
    return write_run(tmp_path / "run", Sinks(open_files((tmp_path / "run").joinpath)))


@pytest.fixture
def rotated(tmp_path):
    """The folder of a finished run with two frames in each set of files."""
    (tmp_path / "rotated").mkdir()
    now = iter(range(1000))
    sink = RotatingSink(tmp_path / "rotated", open_files, Rotation(2, 0, 0), clock=lambda: next(now))
    return write_run(tmp_path / "rotated", sink)


@pytest.fixture
def show(tmp_path):
    """Runs the command; returns its exit code and the image written, (H, W, 3) R, G, B, or None."""

    def run(*frames: str, output: str = "page.png", extra: tuple[str, ...] = ()):
        target = tmp_path / output
        code = main([*map(str, frames), "--output", str(target), *extra])
        return code, cv2.imread(str(target))[..., ::-1] if target.is_file() else None

    return run


def assert_colour(image, index):
    np.testing.assert_allclose(image.mean(axis=(0, 1)), COLOURS[index - START], atol=4)


@pytest.mark.parametrize("index", range(START, START + len(COLOURS)))
def test_frames_are_numbered_as_in_the_source(show, finished, index):
    code, image = show(f"{finished}:{index}")
    assert code == 0
    assert image.shape == (32, 48, 3)
    assert_colour(image, index)


def test_each_frame_is_one_image_of_the_page(show, finished):
    code, image = show(f"{finished}:41", f"{finished}:45", extra=("--columns", "1"))
    assert code == 0
    assert image.shape == (2 * 32 + GAP, 48, 3)
    assert_colour(image[:32], 41)
    assert_colour(image[32 + GAP :], 45)


def test_frames_of_a_rotated_run_are_read_from_the_set_of_files_that_holds_them(show, rotated):
    assert len(find_rotated_files(rotated)) == 3
    for index in range(START, START + len(COLOURS)):
        code, image = show(f"{rotated}:{index}")
        assert code == 0
        assert_colour(image, index)


def test_a_real_run_is_shown(show, whole):
    code, image = show(f"{whole}:0", f"{whole}:15")
    assert code == 0
    assert image.std() > 1


def test_images_lie_in_reading_order_on_white():
    images = [np.full((4, 6, 3), level, np.uint8) for level in (10, 20, 30)]
    canvas = page(images, columns=2)
    assert canvas.shape == (8 + GAP, 12 + GAP, 3)
    assert [int(canvas[y, x, 0]) for y, x in ((0, 0), (0, 6 + GAP), (4 + GAP, 0))] == [10, 20, 30]
    assert (canvas[4 + GAP :, 6 + GAP :] == 255).all()


def test_paths_may_hold_colons():
    folder, frames = parse_frames("C:/runs/a:12")
    assert (str(folder), list(frames)) == ("C:/runs/a", [12])


def test_a_range_of_frames_holds_every_nth_one(show, finished):
    assert list(parse_frames("runs/a:3-9", every=3)[1]) == [3, 6, 9]
    code, image = show(f"{finished}:40-44", extra=("--every", "2", "--columns", "1"))
    assert code == 0
    for row, index in enumerate((40, 42, 44)):
        assert_colour(image[row * (32 + GAP) :][:32], index)


@pytest.mark.parametrize("ending", ["webp", "gif"])
def test_an_animation_shows_the_frames_one_after_another(finished, tmp_path, ending):
    target = tmp_path / f"moving.{ending}"
    assert main([f"{finished}:41-45", "--every", "2", "--rate", "5", "--output", str(target)]) == 0
    with Image.open(target) as moving:
        assert (moving.n_frames, moving.info["loop"]) == (3, 0)
        for place, index in enumerate((41, 43, 45)):
            moving.seek(place)
            picture = np.asarray(moving.convert("RGB"))
            assert moving.info["duration"] == 200
            np.testing.assert_allclose(picture.mean(axis=(0, 1)), COLOURS[index - START], atol=8)


@pytest.mark.parametrize(
    ("frame", "extra", "message"),
    [
        ("runs/a", (), "'runs/a' is not RUN_DIR:FRAME"),
        ("runs/a:x", (), "is not RUN_DIR:FRAME"),
        ("runs/a:7-5", (), "is not RUN_DIR:FRAME or RUN_DIR:FIRST-LAST"),
        ("missing:3", (), "missing holds no run: cannot read run.json"),
        (".:1", ("--columns", "0"), "whole number of 1 or more"),
    ],
    ids=["no frame", "no number", "no range", "no run", "no column"],
)
def test_wrong_arguments_are_reported_in_one_line(show, capsys, frame, extra, message):
    assert show(frame, extra=extra) == (2, None)
    reported = capsys.readouterr().err
    assert message in reported
    assert reported.count("\n") == 1


@pytest.mark.parametrize("index", [0, START - 1, START + len(COLOURS), 100_000])
@pytest.mark.parametrize("kind", ["finished", "rotated"])
def test_a_frame_that_the_run_does_not_have_is_refused(show, request, kind, index, capsys):
    folder = request.getfixturevalue(kind)
    assert show(f"{folder}:{index}") == (2, None)
    assert capsys.readouterr().err == f"error: {folder} has no frame {index} in results.jsonl\n"


def test_a_run_without_an_annotated_video_is_refused(show, finished, capsys):
    (finished / VIDEO).unlink()
    assert show(f"{finished}:41") == (3, None)
    reported = capsys.readouterr().err
    assert f"cannot read {finished / VIDEO}: No such file" in reported
    assert reported.count("\n") == 1


@pytest.mark.parametrize("size", [0, 100, 700])
def test_a_video_that_is_truncated_is_refused(show, finished, size, capsys):
    (finished / VIDEO).write_bytes((finished / VIDEO).read_bytes()[:size])
    assert show(f"{finished}:45") == (3, None)
    reported = capsys.readouterr().err
    assert f"cannot read {finished / VIDEO}: " in reported
    assert reported.count("\n") == 1


def test_a_video_with_fewer_frames_than_the_run_is_refused(show, finished, capsys):
    with VideoSink(finished / VIDEO, source_info(), draw_colour) as sink:
        for index in range(START, START + 3):
            sink.write(make_result(index))
    assert show(f"{finished}:42")[0] == 0
    assert show(f"{finished}:45")[0] == 3
    assert "it has no more than 3 frames" in capsys.readouterr().err


def test_a_page_of_an_unknown_format_is_refused(show, finished, capsys):
    assert show(f"{finished}:40", output="page.xyz") == (5, None)
    assert ".png, .jpg, .webp or .gif" in capsys.readouterr().err


def test_a_page_in_a_missing_folder_is_refused(show, finished, capsys):
    assert show(f"{finished}:40", output="missing/page.png") == (5, None)
    assert "create the folder first" in capsys.readouterr().err
