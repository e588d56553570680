"""The scenarios are what they say and the same each time; own trackers and peers are scored alike."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import trackers
from pipeline.evaluation.tracking.track_rows import TrackRows
from pipeline.structures.boxes import to_centres
from tests.benchmarks import tracker_envs, tracker_peers
from tests.benchmarks.tracker_report import report
from tests.benchmarks.tracker_scores import mean_scores, score, score_scenes, tracked
from tests.benchmarks.trackers import main
from tests.support.track_scenarios import FRAMES, HEIGHT, RATE, SCENARIOS, WIDTH, make_scene


@pytest.fixture(scope="module")
def scenes():
    return {name: make_scene(name, 0) for name in SCENARIOS}


def test_there_are_25_scenarios():
    assert len(SCENARIOS) == 25


@pytest.mark.parametrize("name", ["crossings", "everything"])
def test_a_scene_depends_on_its_seed_only(scenes, name):
    again, other = make_scene(name, 0), make_scene(name, 1)
    first = scenes[name]
    for one, two in zip(first.detections, again.detections, strict=True):
        np.testing.assert_array_equal(one.boxes, two.boxes)
        np.testing.assert_array_equal(one.scores, two.scores)
    np.testing.assert_array_equal(np.concatenate(first.record.boxes), np.concatenate(again.record.boxes))
    assert not np.array_equal(np.concatenate(first.record.boxes), np.concatenate(other.record.boxes))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scene_lasts_eight_seconds_and_its_boxes_are_inside_the_picture(scenes, name):
    scene = scenes[name]
    lengths = {len(scene.detections), len(scene.motion), len(scene.record), len(scene.record.image_ids)}
    assert lengths == {FRAMES}
    truth = np.concatenate(scene.record.boxes)
    found = np.concatenate([frame.boxes for frame in scene.detections])
    for boxes in (truth, found):
        assert (boxes >= -1e-3).all()
        assert (boxes <= [WIDTH + 1e-3, HEIGHT + 1e-3] * 2).all()
    assert len(np.unique(np.concatenate(scene.record.instances))) >= 6
    for ids, boxes in zip(scene.record.instances, scene.record.boxes, strict=True):
        assert len(ids) == len(boxes) == len(set(ids.tolist()))
    moving = SCENARIOS[name].camera is not None
    assert {None if m is None else m.shape for m in scene.motion[1:]} == ({(2, 3)} if moving else {None})


def test_the_motion_is_that_of_what_stands_in_the_scene(scenes):
    scene = scenes["pan"]
    steps = np.array([motion[:, 2] for motion in scene.motion[1:]])
    np.testing.assert_allclose(steps.mean(axis=0), (-3, 0), atol=0.1)
    assert 0.1 < steps.std(axis=0).max() < 0.3
    paths = {}
    for ids, boxes in zip(scene.record.instances, scene.record.boxes, strict=True):
        for number, centre in zip(ids.tolist(), to_centres(boxes)[:, :2], strict=True):
            paths.setdefault(number, []).append(centre)
    speeds = np.concatenate([np.diff(path, axis=0) for path in paths.values() if len(path) > 1])
    assert np.median(speeds[:, 0]) == pytest.approx(
        -3, abs=1
    )  # targets fly in all directions, at 1 px a frame


def test_crossing_targets_come_close_and_pairs_stay_at_six_pixels(scenes):
    def least_and_median(name):
        gaps = []
        for boxes in scenes[name].record.boxes:
            centres = to_centres(boxes)[:, :2]
            distances = np.linalg.norm(centres[:, None] - centres, axis=2) + 1e6 * np.eye(len(centres))
            gaps += distances.min(axis=1).tolist() if len(centres) > 1 else []
        return min(gaps), np.median(gaps)

    assert least_and_median("crossings")[0] < 3
    assert least_and_median("pairs")[1] == pytest.approx(6, abs=1)


def test_detection_probability_dim_scores_and_false_alarms_are_those_named(scenes):
    def boxes(name):
        return sum(map(len, scenes[name].record.boxes))

    def scores(name):
        return np.concatenate([frame.scores for frame in scenes[name].detections])

    assert scores("false-0").size == pytest.approx(0.95 * boxes("false-0"), rel=0.03)
    assert scores("dim-detected-0.6").size == pytest.approx(0.6 * boxes("dim-detected-0.6"), rel=0.1)
    assert scores("dim").min() >= 0.1
    assert scores("dim").max() <= 0.4
    false = (scores("false-20").size - 0.95 * boxes("false-20")) / FRAMES
    assert false == pytest.approx(20, rel=0.1)
    assert np.quantile(scores("false-20"), 0.5) < 0.2
    assert np.quantile(scores("false-20-strong"), 0.5) > 0.4


def test_targets_that_blink_are_gone_for_a_second_and_keep_their_identity(scenes):
    record = scenes["blink"].record
    gaps = []
    for number in np.unique(np.concatenate(record.instances)):
        gaps += np.diff([frame for frame, ids in enumerate(record.instances) if number in ids]).tolist()
    assert gaps.count(RATE + 1) >= 6
    assert set(gaps) == {1, RATE + 1}


def test_a_tracker_is_scored_on_each_scenario_and_on_all_together():
    scores = score(lambda: trackers.build("sort"), ["easy", "dim"], seeds=[0])
    assert scores["easy"].idf1 > 0.9
    assert scores["easy"].hota > 0.7
    assert scores["easy"].missed == 0
    mean = mean_scores(scores)
    assert mean.idf1 == pytest.approx((scores["easy"].idf1 + scores["dim"].idf1) / 2)
    assert mean.targets == scores["easy"].targets + scores["dim"].targets


def test_no_tracker_misses_all_and_has_no_false_track(scenes):
    scores = score_scenes(lambda: trackers.build("none"), [scenes["easy"]])
    assert (scores.idf1, scores.coverage, scores.false_per_minute) == (0, 0, 0)
    assert scores.missed == scores.targets


def test_false_tracks_of_clips_with_unlabelled_things_are_not_counted(scenes):
    clutter = scenes["false-20-strong"]
    counted = score_scenes(lambda: trackers.build("sort"), [clutter], hota=False)
    both = [clutter._replace(counts_false=False), scenes["false-0"]]
    left_out = score_scenes(lambda: trackers.build("sort"), both, hota=False)
    assert counted.false_per_minute > 0
    assert left_out.false_per_minute == 0


def fake_peers(monkeypatch, update):
    """Runs the side of the peers in this process, with one tracker."""
    peers = {"echo": lambda: lambda rate: update}
    monkeypatch.setattr(tracker_peers, "PEERS", peers)

    def run(python, *arguments):
        monkeypatch.setattr("sys.argv", ["tracker_peers.py", *arguments])
        tracker_peers.main()
        return "echo\n"

    monkeypatch.setattr(tracker_envs, "_run", run)


def test_a_peer_gets_the_detections_of_each_frame_and_its_tracks_come_back_scene_by_scene(
    scenes, monkeypatch
):
    fake_peers(monkeypatch, lambda boxes, scores, picture: tracker_peers.Rows(np.arange(len(boxes)), boxes))
    short = scenes["easy"]._replace(
        record=replace(
            scenes["easy"].record,
            boxes=scenes["easy"].record.boxes[:5],
            image_ids={frame: frame for frame in range(5)},
        ),
        detections=scenes["easy"].detections[:5],
        motion=(None,) * 5,
    )
    given = [short, scenes["false-0"]]
    rows = tracker_envs.peer_tracks(Path("python"), ["echo"], given)["echo"]
    for scene, found in zip(given, rows, strict=True):
        expected = np.concatenate([frame.boxes for frame in scene.detections])
        np.testing.assert_allclose(found.boxes, expected, atol=1e-4)
        counts = [len(frame) for frame in scene.detections]
        assert found.frames.tolist() == np.repeat(np.arange(len(counts)), counts).tolist()


def test_boxes_enlarged_for_a_peer_come_back_as_they_were():
    boxes = np.array([[3.0, 4, 9, 8], [0, 0, 5, 5]])
    wide = tracker_peers.enlarged(boxes, 4)
    np.testing.assert_allclose(wide[0], [-6, -2, 18, 14])
    np.testing.assert_allclose(tracker_peers.enlarged(wide, 1 / 4), boxes)


def test_tentative_and_coasting_rows_are_left_out_unless_asked_for(scenes):
    rows = tracked(trackers.build("centre"), scenes["detected-0.5"])
    more = tracked(trackers.build("centre"), scenes["detected-0.5"], coasting=True)
    assert isinstance(rows, TrackRows)
    assert len(more) > 1.3 * len(rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenarios", "esy"], "unknown scenario 'esy'; did you mean 'easy'"),
        (["--tracker", "centr"], "unknown tracker 'centr'; did you mean 'centre'"),
        (["--real", "drone-ir"], "'drone-ir' is not of the form SET=FILE"),
        (["--peers", "nowhere"], "cannot run nowhere/bin/python: No such file or directory"),
        (["--peers", sys.prefix], "has none of the packages trackers, boxmot and norfair"),
    ],
)
def test_wrong_arguments_end_in_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_report_shows_what_was_measured(tmp_path, capsys):
    kept, plot = tmp_path / "scores.json", tmp_path / "plot.png"
    base = ["--scenarios", "easy", "fast", "--seeds", "0", "--output", str(kept)]
    assert main([*base, "--tracker", "sort"]) == 0
    assert main([*base, "--tracker", "none"]) == 0
    table = capsys.readouterr().out
    assert "missed" in table
    numbers = json.loads(kept.read_text())["scores"]
    assert list(numbers) == ["sort", "none"]
    text = report(kept, plot=plot)
    row = next(line for line in text.splitlines() if line.startswith("| sort"))
    assert f"{(numbers['sort']['easy']['idf1'] + numbers['sort']['fast']['idf1']) / 2:.3f}" in row
    assert plot.stat().st_size > 5000
