"""Visible sizes in images, the comparison of box sizes with them, and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest

from datasets.synthesis import rendering
from datasets.synthesis.scene import Scene, Target
from pipeline.error_analysis import main
from pipeline.evaluation.analysis.box_sizes import compare_box_sizes, visible_size
from pipeline.evaluation.detection.ground_truth import FrameTruth
from pipeline.evaluation.detection.predictions import PredictedBoxes

SPOT = (20, 14, 6, 3)  # left, top, width, height


def image(spot=SPOT, *, level=200, sky=100, noise=2.0, seed=0) -> np.ndarray:
    """(48, 64) uint8: faint noise and a spot of one level."""
    grey = np.random.default_rng(seed).normal(sky, noise, (48, 64))
    left, top, width, height = spot
    grey[top : top + height, left : left + width] = level
    return grey.round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("level", [200, 150, 20], ids=["bright", "dim", "cold"])
@pytest.mark.parametrize("loose", [0, 2, 5])
def test_the_size_is_that_of_the_spot_however_loose_the_box(level, loose):
    left, top, width, height = SPOT
    box = np.array([left - loose, top - loose, width + 2 * loose, height + 2 * loose], float)
    assert visible_size(image(level=level), box) == (6, 3)


def test_a_box_that_cuts_the_spot_does_not_cut_its_size():
    assert visible_size(image(), np.array([22.0, 14.0, 2.0, 3.0])) == (6, 3)


def test_a_second_spot_beside_it_does_not_count():
    both = image()
    both[14:17, 30:34] = 200
    assert visible_size(both, np.array([18.0, 12.0, 10.0, 7.0])) == (6, 3)


@pytest.mark.parametrize("corner", [(-3, -2), (60, 45), (0, 0)], ids=str)
def test_boxes_at_the_edge_of_the_image_are_no_fault(corner):
    spot = (max(corner[0], 0), max(corner[1], 0), 3, 2)
    assert visible_size(image(spot), np.array([*corner, 6.0, 5.0])) == (3, 2)


def test_where_nothing_stands_out_there_is_no_size():
    assert visible_size(image(level=101), np.array([18.0, 12.0, 10.0, 7.0])) is None
    assert visible_size(image(), np.array([0.0, 0.0, 64.0, 48.0])) is None


def video(name: str, spot, label, found, *, frames=4):
    """A still video: a spot, its label and a found box, each left, top, width, height."""
    truth = FrameTruth(np.array([label], float), np.zeros(1, int), np.zeros(1, bool))
    best = PredictedBoxes(np.array([found], float), np.array([0.9]), np.zeros(1, int))
    return name, [((truth, best), image(spot))] * frames


def box_round(spot, free):
    left, top, width, height = spot
    return [left - free / 2, top - free / 2, width + free, height + free]


SPOTS = [(20, 14, 4, 3), (20, 14, 8, 3), (20, 14, 12, 5)]


def test_found_boxes_that_leave_the_same_free_everywhere_follow_what_stands_out():
    free = (10, 4, 16)
    videos = [
        video(str(n), s, box_round(s, f), box_round(s, 8))
        for n, (s, f) in enumerate(zip(SPOTS, free, strict=True))
    ]
    measured = compare_box_sizes(videos, 0.4)
    assert [row.visible for row in measured.videos] == [(4, 3), (8, 3), (12, 5)]
    assert [row.predicted for row in measured.videos] == [(12, 11), (16, 11), (20, 13)]
    assert measured.predicted_spread == (0, 0)
    assert measured.annotated_spread == pytest.approx((np.std(free), np.std(free)))
    assert measured.predicted_correlation > 0.99 > measured.annotated_correlation


def test_only_targets_that_are_found_and_videos_of_enough_frames_count():
    spot = SPOTS[0]
    short = video("short", spot, box_round(spot, 4), box_round(spot, 4), frames=2)
    missed = video("missed", spot, box_round(spot, 4), box_round((40, 14, 4, 3), 4))
    assert compare_box_sizes([short, missed], 0.4).videos == []
    assert compare_box_sizes([video("low", spot, box_round(spot, 4), box_round(spot, 4))], 0.95).videos == []
    assert compare_box_sizes([], 0.4).annotated_correlation is None


def test_the_command_reads_the_images_below_the_root(tmp_path, capsys):
    target = Target(x=20, y=20, vx=0.5, sigma=1.5, scr=80)
    scene = Scene(width=64, height=48, frames=6, noise=0.5, targets=(target,))
    truth = rendering.write_scene(scene, tmp_path / "clip.mp4")
    rows = [{key: row[key] for key in ("image_id", "category_id", "bbox")} for row in truth["annotations"]]
    found, out = tmp_path / "found.json", tmp_path / "numbers.json"
    found.write_text(json.dumps([{**row, "score": 0.8} for row in rows]))
    files = ["--annotations", str(tmp_path / "clip.json"), "--detections", str(found), "--stride", "2"]
    assert main([*files, "--root", str(tmp_path), "--output", str(out)]) == 0
    assert "Boxes against visible sizes" in capsys.readouterr().out
    (video,) = json.loads(out.read_text())["extents"]["videos"]
    assert video["frames"] == 3
    assert video["label"] == pytest.approx(video["found"])
    assert 3 <= video["visible"][0] <= 7
