"""Track metrics equal values computed by hand and those of motmetrics, for both gates."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import motmetrics
import numpy as np
import pytest

from pipeline.evaluation.tracking.gates import GATES, centre_distances, iou_distances
from pipeline.evaluation.tracking.identities import target_identities
from pipeline.evaluation.tracking.scoring import OVERALL, score_tracks, score_videos
from pipeline.evaluation.tracking.tables import video_table
from pipeline.evaluation.tracking.track_rows import TrackRows
from pipeline.structures.annotations import video_records
from pipeline.structures.coco_tables import load_coco
from pipeline.system.errors import UsageError
from tests.conftest import PROJECT_ROOT
from tests.support.track_cases import box, random_case, record, still, tracks

FRAMES = range(6)
RIGHT = {frame: 20 * frame for frame in FRAMES}
LEFT = {frame: 100 - 20 * frame for frame in FRAMES}
ONE = {1: still(FRAMES)}


def joined(first, second):
    """The first half of one path and the second half of another."""
    return {frame: (first if frame < 3 else second)[frame] for frame in FRAMES}


FAULTLESS = {
    "mota": 1, "motp": 0, "idf1": 1, "idp": 1, "idr": 1, "switches": 0, "fragments": 0, "misses": 0,
    "false_positives": 0, "mostly_tracked": 0, "mostly_lost": 0, "frames": 6,
}  # fmt: skip
ELSEWHERE = (
    "hota", "deta", "assa", "coverage", "missed_targets", "first_confirmation", "false_tracks",
    "false_tracks_per_minute", "false_tracks_per_hour", "tube_ap", "tube_ap50",
)  # fmt: skip
"""Metrics that other modules compute and test."""


def worked(name, targets, paths, **expected):
    """A case of six frames: what differs from faultless tracks of targets that are not mostly tracked."""
    counts = {"boxes": 6 * len(targets), "targets": len(targets), "tracks": len(paths)}
    return pytest.param(targets, paths, {**FAULTLESS, **counts, **expected}, id=name)


WORKED = [
    worked("every box by one track", ONE, {7: still(FRAMES)}, mostly_tracked=1),
    worked("another track takes over", ONE, {7: still([0, 1, 2]), 8: still([3, 4, 5])},
           mota=1 - 1 / 6, idf1=6 / 12, idp=3 / 6, idr=3 / 6, switches=1, mostly_tracked=1),
    worked("another track takes over after a pause", ONE, {7: still([0, 1]), 8: still([4, 5])},
           mota=1 - 3 / 6, idf1=4 / 10, idp=2 / 4, idr=2 / 6, switches=1, fragments=1, misses=2),
    worked("lost in the middle", ONE, {7: still([0, 1, 4, 5])},
           mota=1 - 2 / 6, idf1=8 / 10, idr=4 / 6, fragments=1, misses=2),
    worked("lost at the end", ONE, {7: still([0, 1, 2, 3])},
           mota=1 - 2 / 6, idf1=8 / 10, idr=4 / 6, misses=2),
    worked("found once", ONE, {7: still([2])},
           mota=1 / 6, idf1=2 / 7, idr=1 / 6, misses=5, mostly_lost=1),
    worked("a track on nothing", ONE, {7: still(FRAMES), 8: still([1, 2, 3], at=200)},
           mota=1 - 3 / 6, idf1=12 / 15, idp=6 / 9, false_positives=3, mostly_tracked=1),
    worked("more rows on nothing than boxes", ONE, {7: still(FRAMES, at=120), 8: still(FRAMES, at=200)},
           mota=1 - 18 / 6, motp=None, idf1=0, idp=0, idr=0, misses=6, false_positives=12, mostly_lost=1),
    worked("ids swapped at a crossing", {1: RIGHT, 2: LEFT}, {7: joined(RIGHT, LEFT), 8: joined(LEFT, RIGHT)},
           mota=1 - 2 / 12, idf1=6 / 12, idp=6 / 12, idr=6 / 12, switches=2, mostly_tracked=2),
    worked("ids kept at a crossing", {1: RIGHT, 2: LEFT}, {7: RIGHT, 8: LEFT}, mostly_tracked=2),
]  # fmt: skip


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(("targets", "paths", "expected"), WORKED)
def test_scores_are_those_worked_out_by_hand(targets, paths, expected, gate):
    scores = score_tracks(record(targets), tracks(paths), gate=gate).as_dict()
    scores = {name: value for name, value in scores.items() if name not in ELSEWHERE}
    assert scores == pytest.approx({**expected, "gate": gate, "limit": GATES[gate].limit})


@pytest.mark.parametrize(
    ("gate", "limit", "shift", "distance"),
    [
        pytest.param("iou", None, 1, 1 - 90 / 110, id="overlap 0.82"),
        pytest.param("iou", None, 5, None, id="overlap 1/3, limit 0.5"),
        pytest.param("iou", 0.3, 5, 1 - 1 / 3, id="overlap 1/3, limit 0.3"),
        pytest.param("centre", None, 1, 1, id="1 px"),
        pytest.param("centre", None, 5, 5, id="5 px, limit 5 px"),
        pytest.param("centre", 4.9, 5, None, id="5 px, limit 4.9 px"),
        pytest.param("centre", 20, 15, 15, id="15 px without overlap, limit 20 px"),
    ],
)
def test_motp_is_the_mean_distance_of_what_lies_within_the_gate(gate, limit, shift, distance):
    shifted = tracks({3: still(FRAMES, at=50 + shift)})
    scores = score_tracks(record(ONE), shifted, gate=gate, limit=limit)
    assert scores.motp == pytest.approx(distance)
    assert scores.misses == (0 if distance else 6)


def test_motp_counts_the_matches_at_which_the_track_changes():
    paths = {7: still([0, 1, 2]), 8: still([3, 4, 5], at=53)}
    assert score_tracks(record(ONE), tracks(paths), gate="centre").motp == pytest.approx(1.5)


def test_a_track_keeps_its_target_while_it_is_within_the_gate_even_if_another_is_nearer():
    paths = {7: still(FRAMES, at=52), 8: still([2, 3, 4, 5])}
    scores = score_tracks(record(ONE), tracks(paths), gate="centre")
    assert (scores.switches, scores.false_positives, scores.motp) == (0, 4, 2)


def test_overlap_distances_are_nan_beyond_the_limit():
    distances = iou_distances(np.array([box(0), box(40)]), np.array([box(0), [0, 0, 5, 10], box(4)]), 0.5)
    np.testing.assert_allclose(distances, [[0, 0.5, np.nan], [np.nan] * 3])


def test_centre_distances_are_nan_beyond_the_limit():
    distances = centre_distances(np.array([box(0), box(40)]), np.array([box(3, 4), box(44, 4)]), 5)
    np.testing.assert_allclose(distances, [[5, np.nan], [np.nan, np.nan]])


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
@pytest.mark.parametrize("shape", [(0, 0), (0, 2), (3, 0)])
def test_distances_of_nothing_have_the_shape_of_nothing(gate, shape):
    boxes = [np.zeros((count, 4), np.float32) for count in shape]
    assert gate.distances(*boxes, gate.limit).shape == shape


def test_an_unknown_gate_is_answered_with_the_closest_one():
    with pytest.raises(UsageError, match="unknown gate 'center'; did you mean 'centre'"):
        score_tracks(record(ONE), tracks({}), gate="center")


@pytest.mark.parametrize(
    ("gate", "limit"), [("iou", 0), ("iou", 1.5), ("iou", float("nan")), ("centre", -1), ("centre", np.inf)]
)
def test_a_limit_out_of_range_is_refused(gate, limit):
    with pytest.raises(UsageError, match=f"limit .* of gate '{gate}' is not above 0"):
        score_tracks(record(ONE), tracks({}), gate=gate, limit=limit)


def motmetrics_events(truth, rows, limit):
    """The same through motmetrics' own distance matrix, which holds squares."""
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for frame, boxes in enumerate(truth.boxes):
        here = rows.frames == frame
        squares = motmetrics.distances.norm2squared_matrix(
            (boxes[:, :2] + boxes[:, 2:]) / 2, (rows.boxes[here, :2] + rows.boxes[here, 2:]) / 2, limit**2
        )
        accumulator.update(truth.instances[frame], rows.ids[here], np.sqrt(squares))
    return accumulator


COMPARED = {
    "mota": "mota", "motp": "motp", "idf1": "idf1", "idp": "idp", "idr": "idr", "switches": "num_switches",
    "fragments": "num_fragmentations", "misses": "num_misses", "false_positives": "num_false_positives",
    "mostly_tracked": "mostly_tracked", "mostly_lost": "mostly_lost", "boxes": "num_objects",
    "targets": "num_unique_objects", "frames": "num_frames",
}  # fmt: skip


def test_random_tracks_score_as_motmetrics_scores_them_alone_and_together():
    cases = [random_case(seed, f"clip {seed}") for seed in range(5)]
    table = motmetrics.metrics.create().compute_many(
        [motmetrics_events(*case, limit=4) for case in cases],
        metrics=list(COMPARED.values()),
        names=[truth.name for truth, _ in cases],
        generate_overall=True,
    )
    scores = score_videos(cases, gate="centre", limit=4)
    assert list(scores) == list(table.index)
    assert scores[OVERALL].switches > 10
    for name, row in scores.items():
        assert [getattr(row, field) for field in COMPARED] == pytest.approx(table.loc[name].tolist())


def test_videos_pooled_count_tracks_and_targets_of_each():
    case = record(ONE), tracks({1: still(FRAMES)})
    scores = score_videos([case, (replace(case[0], name="other"), case[1])])[OVERALL]
    assert (scores.targets, scores.tracks, scores.frames, scores.idf1) == (2, 2, 12, 1)


def test_a_video_without_matches_leaves_the_motp_of_all_together_defined():
    found = record(ONE), tracks({1: still(FRAMES, at=52)})
    scores = score_videos([found, (record(ONE, name="lost"), tracks({}))], gate="centre")
    assert scores["lost"].motp is None
    assert scores[OVERALL].motp == pytest.approx(2)


def test_a_video_is_pooled_over_the_frames_that_were_processed():
    scores = score_videos([(record(ONE), tracks({1: still([0, 1])}), [0, 1])])
    assert (scores["clip"].frames, scores[OVERALL].mota) == (2, 1)


def test_videos_of_one_name_are_not_pooled():
    case = record(ONE), tracks({})
    with pytest.raises(UsageError, match="two videos named 'clip'"):
        score_videos([case, case])


NOTHING = {
    "no targets": ({}, ONE, 6, {"mota": None, "motp": None, "idf1": 0, "idp": 0, "idr": None}),
    "no tracks": (ONE, {}, 6, {"mota": 0, "motp": None, "idf1": 0, "idp": None, "idr": 0}),
    "neither": ({}, {}, 6, dict.fromkeys(("mota", "motp", "idf1", "idp", "idr"))),
    "no frames": ({}, {}, 0, dict.fromkeys(("mota", "motp", "idf1", "idp", "idr"))),
}


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(("targets", "paths", "frames", "expected"), NOTHING.values(), ids=NOTHING)
def test_what_is_undefined_is_none(targets, paths, frames, expected, gate):
    scores = score_tracks(record(targets, frames=frames), tracks(paths), gate=gate).as_dict()
    assert {name: scores[name] for name in expected} == expected
    assert scores["frames"] == frames
    json.dumps(scores, allow_nan=False)


def test_no_videos_pool_to_nothing():
    scores = score_videos([])
    assert list(scores) == [OVERALL]
    assert (scores[OVERALL].mota, scores[OVERALL].frames) == (None, 0)


def test_frames_that_were_not_processed_are_neither_misses_nor_false_positives():
    rows = tracks({1: still([0, 1]), 2: still([4], at=200)})
    scores = score_tracks(record(ONE), rows, frames=range(1, 3))
    assert (scores.frames, scores.boxes, scores.misses) == (2, 2, 1)
    assert (scores.tracks, scores.false_positives) == (1, 0)


def test_frames_that_are_not_annotated_are_left_out():
    scores = score_tracks(record({1: still([0, 3])}, annotated=[0, 3]), tracks({1: still(range(9))}))
    assert (scores.frames, scores.mota, scores.false_positives) == (2, 1, 0)


def test_the_order_of_rows_does_not_matter():
    truth, rows = random_case(3)
    order = np.random.default_rng(0).permutation(len(rows))
    mixed = TrackRows(rows.frames[order], rows.ids[order], rows.boxes[order])
    assert score_tracks(truth, mixed) == score_tracks(truth, rows)


def without_identities(truth):
    return replace(truth, instances=())


def test_a_single_target_without_identity_is_one_for_each_unbroken_run():
    truth = without_identities(record({1: still([0, 1, 4, 5])}))
    assert [ids.tolist() for ids in target_identities(truth)] == [[0], [0], [], [], [1], [1]]
    scores = score_tracks(truth, tracks({1: still([0, 1]), 2: still([4, 5])}))
    assert (scores.targets, scores.switches, scores.idf1) == (2, 0, 1)


def test_frames_that_are_not_annotated_do_not_break_a_run():
    truth = without_identities(record({1: still([0, 3, 6])}, frames=8, annotated=[0, 3, 6, 7]))
    assert [ids.tolist() for ids in target_identities(truth)] == [[0], [], [], [0], [], [], [0], []]


def test_a_target_without_identity_is_none_of_those_with_one():
    truth = record({-1: still([0, 1, 3]), 5: still(FRAMES, at=90)})
    assert [sorted(ids.tolist()) for ids in target_identities(truth)] == [
        [5, 6],
        [5, 6],
        [5],
        [5, 7],
        [5],
        [5],
    ]


def test_several_targets_without_identities_are_refused():
    truth = without_identities(record({1: still([2]), 2: still([2], at=90)}))
    with pytest.raises(UsageError, match="frame 2 of 'clip' has 2 targets without identities"):
        score_tracks(truth, tracks({}))


def test_an_identity_twice_in_a_frame_is_refused():
    truth = record({1: still([2]), 2: still([2], at=90)})
    truth = replace(truth, instances=tuple(np.minimum(ids, 1) for ids in truth.instances))
    with pytest.raises(UsageError, match=r"frame 2 of 'clip' has an identity twice: \[1, 1\]"):
        score_tracks(truth, tracks({}))


def test_a_file_scores_as_its_rows_do(tmp_path):
    truth, rows = record(ONE), tracks({1: still([0, 1, 2], at=51)})
    path = tmp_path / "tracks.txt"
    path.write_text("".join(f"{frame + 1},1,52,1,10,10,0.5,-1,-1,-1\n" for frame in range(3)))
    assert score_tracks(truth, path) == score_tracks(truth, str(path)) == score_tracks(truth, rows)


def test_the_table_names_the_gate_and_the_unit():
    shown = score_tracks(record(ONE), tracks({1: still(FRAMES, at=52)}), gate="centre").table()
    lines = dict(line.split(maxsplit=1) for line in shown.splitlines())
    assert (lines["gate"], lines["limit"]) == ("centre", "5.0000")
    assert (lines["mota"], lines["motp"]) == ("1.0000", "2.0000 (px)")


def test_the_tables_show_a_dash_for_what_is_undefined():
    scores = score_videos([(record({}), tracks({}))])
    assert "motp                     -" in scores["clip"].table()
    header, *rows = video_table(scores).splitlines()
    assert header.split()[:3] == ["video", "mota", "motp"]
    assert [row.split()[:3] for row in rows] == [["clip", "-", "-"], [OVERALL, "-", "-"]]
    assert len({len(line) for line in (header, *rows)}) == 1


def test_importing_the_module_does_not_load_motmetrics():
    code = "import sys, pipeline.evaluation.tracking.scoring"
    code += "; print(*{'motmetrics', 'pandas', 'torch', 'trackeval'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, check=True)
    assert said.stdout.strip() == b""


@pytest.mark.real_data
def test_the_labels_of_a_real_clip_score_full_marks_as_tracks_of_themselves(drone_ir):
    truth = next(
        r for r in video_records(load_coco(drone_ir / "annotations" / "val.json")) if r.name == "IR_BIRD_024"
    )
    frames = np.repeat(np.arange(len(truth)), [len(boxes) for boxes in truth.boxes])
    rows = TrackRows(frames, np.concatenate(truth.instances), np.concatenate(truth.boxes))
    scores = score_tracks(truth, rows)
    assert (scores.mota, scores.motp, scores.idf1, scores.targets) == (1, 0, 1, 1)
    assert scores.frames == len(truth) > scores.boxes > 0
