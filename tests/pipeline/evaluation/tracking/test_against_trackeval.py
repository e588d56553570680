"""HOTA, IDF1, MOTA and tube AP equal those of trackeval, of random tracks and for both gates."""

from __future__ import annotations

import numpy as np
import pytest
from trackeval.metrics import CLEAR, HOTA, Identity, TrackMAP

from pipeline.evaluation.tracking.scoring import OVERALL, score_tracks, score_videos
from pipeline.evaluation.tracking.track_rows import TrackRows
from pipeline.structures.boxes import iou
from tests.support.track_cases import random_case, record, still, tracks

LIMITS = {"iou": 0.5, "centre": 5.0}
QUIET = {"PRINT_CONFIG": False}


def similarity(truth, found, gate):
    """Similarities by a loop over pairs, from the definition."""
    if gate == "iou":
        return np.array([[iou(a[None], b[None])[0, 0] for b in found] for a in truth])
    middle = [[(b[:2].astype(float) + b[2:]) / 2 for b in boxes] for boxes in (truth, found)]
    return np.array([[max(0.0, 1 - np.linalg.norm(a - b) / (2 * 5.0)) for b in middle[1]] for a in middle[0]])


def data_of(truth, rows, gate):
    """The input of trackeval, made independently of the project's own."""
    targets = {number: i for i, number in enumerate(sorted({n for ids in truth.instances for n in ids}))}
    found = {number: i for i, number in enumerate(sorted(set(rows.ids.tolist())))}
    data = {"gt_ids": [], "tracker_ids": [], "similarity_scores": []}
    for frame, boxes in enumerate(truth.boxes):
        here = np.flatnonzero(rows.frames == frame)
        data["gt_ids"].append(np.array([targets[n] for n in truth.instances[frame]], int))
        data["tracker_ids"].append(np.array([found[n] for n in rows.ids[here].tolist()], int))
        table = similarity(boxes.astype(np.float64), rows.boxes[here].astype(np.float64), gate)
        data["similarity_scores"].append(table.reshape(len(boxes), len(here)))
    data["num_gt_dets"] = sum(map(len, data["gt_ids"]))
    data["num_tracker_dets"] = sum(map(len, data["tracker_ids"]))
    return {**data, "num_timesteps": len(truth), "num_gt_ids": len(targets), "num_tracker_ids": len(found)}


@pytest.mark.parametrize("gate", LIMITS)
def test_random_tracks_score_as_trackeval_scores_them_alone_and_together(gate):
    cases = [random_case(seed, f"clip {seed}") for seed in range(5)]
    scores = score_videos(cases, gate=gate)
    metrics = HOTA(), Identity(QUIET)
    single = [[metric.eval_sequence(data_of(*case, gate)) for metric in metrics] for case in cases]
    pooled = [m.combine_sequences({i: row[k] for i, row in enumerate(single)}) for k, m in enumerate(metrics)]
    for row, (hota, identity) in zip(scores.values(), [*single, pooled], strict=True):
        expected = [np.mean(hota[name]) for name in ("HOTA", "DetA", "AssA")]
        assert [row.hota, row.deta, row.assa] == pytest.approx(expected, abs=1e-6)
        assert [row.idf1, row.idp, row.idr] == pytest.approx(
            [identity[name] for name in ("IDF1", "IDP", "IDR")], abs=1e-6
        )
    assert 0.1 < scores[OVERALL].hota < 0.9


def apart(seed):
    """Random tracks of targets so far apart that each track is near one of them: matches have no ties."""
    chance = np.random.default_rng(seed)
    truth = {
        n: {f: (60 * n + chance.normal(), 60.0) for f in range(40) if chance.random() < 0.9} for n in range(4)
    }
    paths = {}
    for number in range(4):
        for frame in range(40):
            follower = 10 * number + int(frame / 40 * chance.integers(1, 4))
            if chance.random() < 0.85:
                paths.setdefault(follower, {})[frame] = (
                    60 * number + chance.normal(0, 3),
                    60 + chance.normal(0, 3),
                )
    return record(truth, frames=40), tracks(paths)


@pytest.mark.parametrize("gate", LIMITS)
@pytest.mark.parametrize("seed", range(3))
def test_mota_of_targets_far_apart_is_that_of_trackeval(gate, seed):
    # near each other, the two packages weigh the number and the distance of matches differently
    case = apart(seed)
    expected = CLEAR(QUIET).eval_sequence(data_of(*case, gate))
    scores = score_tracks(*case, gate=gate)
    assert scores.mota == pytest.approx(expected["MOTA"], abs=1e-6)
    assert (scores.switches, scores.misses) == (expected["IDSW"], expected["CLR_FN"])
    assert scores.switches > 0


def tube_data(truth, rows):
    """The input of trackeval's TrackMAP."""
    numbers = sorted({n for ids in truth.instances for n in ids.tolist()})
    wide = [
        {
            f: b
            for f, boxes in enumerate(truth.boxes)
            for b, n in zip(boxes, truth.instances[f], strict=True)
            if n == m
        }
        for m in numbers
    ]
    found = sorted(set(rows.ids.tolist()))
    return {
        "gt_track_ids": [n + 1 for n in numbers],
        "dt_track_ids": [n + 1 for n in found],
        "gt_tracks": wide,
        "dt_tracks": [
            {int(f): b for f, b, n in zip(rows.frames, rows.boxes, rows.ids, strict=True) if n == m}
            for m in found
        ],
        "dt_track_scores": np.array([rows.scores[rows.ids == m].mean() for m in found]),
        "iou_type": "bbox",
        "boxformat": "x0y0x1y1",
    }


def tube_case(seed):
    """Tracks near the targets; those of some targets are split in two."""
    truth, _ = random_case(seed, f"clip {seed}")
    chance = np.random.default_rng(seed)
    frames = np.repeat(np.arange(len(truth)), [len(ids) for ids in truth.instances])
    ids = np.concatenate(truth.instances)
    ids = ids + 200 * (frames > 25 + 5 * ids)
    boxes = np.concatenate(truth.boxes) + chance.normal(0, 0.7, (len(ids), 4))
    return truth, TrackRows(frames, ids, boxes, chance.random(len(ids)))


def test_tube_ap_is_trackevals_track_map_alone_and_together():
    metric = TrackMAP({**QUIET, "USE_AREA_RANGES": False, "USE_TIME_RANGES": False})
    cases = [tube_case(seed) for seed in range(4)]
    single = [metric.eval_sequence(tube_data(*case)) for case in cases]
    pooled = [{0: result} for result in single] + [dict(enumerate(single))]
    for row, results in zip(score_videos(cases).values(), pooled, strict=True):
        expected = metric.combine_sequences(results)["AP_all"]
        assert (row.tube_ap, row.tube_ap50) == pytest.approx((np.mean(expected), expected[0]), abs=1e-6)
        assert 0.1 < row.tube_ap < 0.9


def test_a_split_track_halves_the_tube_and_the_better_half_counts():
    halves = tracks({7: still([0, 1, 2, 3]), 8: still([4, 5])}, scores={7: 0.4, 8: 0.8})
    scores = score_tracks(record({1: still(range(6))}), halves, gate="centre")
    # the first hit ranks second: overlap 4 of 6 frames reaches 0.5, 0.55, 0.6 and 0.65, precision 1 of 2
    assert (scores.tube_ap50, scores.tube_ap) == pytest.approx((0.5, 0.5 * 4 / 10))


def test_without_trackeval_hota_is_left_out_and_the_rest_is_scored(monkeypatch):
    monkeypatch.setattr("pipeline.evaluation.tracking.scoring.is_installed", lambda name: False)
    scores = score_videos([(record({1: still(range(6))}), tracks({1: still(range(6))}))])[OVERALL]
    assert (scores.hota, scores.deta, scores.assa) == (None, None, None)
    assert (scores.mota, scores.tube_ap) == (1, 1)
