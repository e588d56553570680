"""The default tracker on real trajectories with simulated detections."""

from __future__ import annotations

import json
from fractions import Fraction

import motmetrics
import numpy as np
import pytest

from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.tracks import TrackState
from trackers import build

MATCH_RADIUS = 8.0
"""Maximum distance in pixels between the centres of a track and a target that are matched."""


def true_paths(annotations) -> dict[str, np.ndarray]:
    """Boxes (frames, 4) x1 y1 x2 y2 of each clip, at most one per frame; NaN if there is none."""
    data = json.loads(annotations.read_text())
    paths = {video["id"]: np.full((video["length"], 4), np.nan) for video in data["videos"]}
    frames = {image["id"]: image["frame_id"] for image in data["images"]}
    for annotation in data["annotations"]:
        x, y, width, height = annotation["bbox"]
        paths[annotation["video_id"]][frames[annotation["image_id"]]] = x, y, x + width, y + height
    return {video["name"]: paths[video["id"]] for video in data["videos"]}


def imagined_detections(path, *, rng, jitter=2.0, miss=0.15, false_alarms=0.2):
    """Returns detections of a simulated detector in frames of 320×256, frame by frame."""
    for box in path:
        boxes, scores = [], []
        if not np.isnan(box[0]) and rng.random() >= miss:
            centre = (box[:2] + box[2:]) / 2 + rng.normal(0, jitter, 2)
            half = (box[2:] - box[:2]) / 2 * rng.uniform(0.85, 1.15, 2)
            boxes.append([*(centre - half), *(centre + half)])
            scores.append(rng.normal(0.6, 0.15))
        for _ in range(rng.poisson(false_alarms)):
            corner, size = rng.uniform((0, 0), (305, 245)), rng.uniform(6, 15, 2)
            boxes.append([*corner, *(corner + size)])
            scores.append(rng.uniform(0.05, 0.5))
        yield Detections(np.reshape(boxes, (-1, 4)), np.clip(scores, 0, 1), np.zeros(len(boxes)))


def measure(paths, *, seed=0, options=None, **detector):
    """Returns a table of metrics with a row for each path and OVERALL; tentative tracks are left out."""
    rng = np.random.default_rng(seed)
    tracker = build("centre", **(options or {}))
    image = np.zeros((256, 320), np.uint8)
    accumulators = []
    for name, path in paths.items():
        tracker.reset()
        accumulator = motmetrics.MOTAccumulator(auto_id=True)
        for index, detections in enumerate(imagined_detections(path, rng=rng, **detector)):
            tracks = tracker.update(detections, Frame(image, index, Fraction(index, 30), name))
            tracks = tracks[tracks.state != TrackState.TENTATIVE]
            truth = path[index : index + 1][~np.isnan(path[index : index + 1, 0])]
            accumulator.update(range(len(truth)), tracks.ids.tolist(), centre_distances(truth, tracks.boxes))
        accumulators.append(accumulator)
    wanted = ["mota", "idf1", "num_switches", "num_misses", "num_false_positives", "num_objects"]
    return motmetrics.metrics.create().compute_many(
        accumulators, names=list(paths), metrics=wanted, generate_overall=True
    )


def centre_distances(truth, boxes):
    """Returns the distances (N, M) between box centres in pixels; NaN beyond the matching radius."""
    centres = (truth[:, None, :2] + truth[:, None, 2:]) / 2 - (boxes[None, :, :2] + boxes[None, :, 2:]) / 2
    distances = np.hypot(*np.moveaxis(centres, -1, 0))
    return np.where(distances <= MATCH_RADIUS, distances, np.nan)


@pytest.fixture(scope="module")
def paths(drone_ir):
    return true_paths(drone_ir / "annotations" / "val.json")


CALM = ["IR_AIRPLANE_023", "IR_BIRD_028", "IR_DRONE_049", "IR_DRONE_058", "IR_HELICOPTER_021"]
"""Clips in which one target is annotated without gaps."""


@pytest.mark.real_data
def test_a_target_keeps_one_id_through_jitter_misses_and_false_alarms(paths):
    overall = measure({name: paths[name] for name in CALM}, miss=0.2).loc["OVERALL"]
    assert overall.mota > 0.97
    assert overall.idf1 > 0.98
    assert overall.num_switches == 0


@pytest.mark.real_data
def test_most_targets_are_tracked_on_every_fourth_frame(paths):
    """At 7.5 frames per second, at which targets move four times as far between frames."""
    overall = measure({name: paths[name][::4] for name in CALM}).loc["OVERALL"]
    assert overall.mota > 0.93
    assert overall.idf1 > 0.96
    assert overall.num_switches <= 1


@pytest.mark.real_data
def test_ids_change_only_if_the_annotations_jump_to_another_target(paths):
    """The annotations jump by 91 pixels and pause for 99 frames in one clip, for 38 in the other."""
    table = measure({name: paths[name] for name in ("IR_BIRD_024", "IR_BIRD_031")})
    assert table.loc["OVERALL"].mota > 0.75
    assert table.num_switches.drop("OVERALL").tolist() == [2, 1]
