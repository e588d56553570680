"""The side of `tests.benchmarks.trackers` that runs in the environment of other trackers.

    ENV/bin/python -P tests/benchmarks/tracker_peers.py scenes.npz FOLDER NAME …

It imports nothing of this project, and nothing of this project imports it. `scenes.npz` holds detections of
all scenes one after another: `boxes` (N, 4) x1 y1 x2 y2, `scores` (N,), `frames` (N,) index over all scenes;
`lengths` (S,), `widths` (S,), `heights` (S,) and `rates` (S,) of the scenes. For each name, `FOLDER/0.npz`
and so on get `frames`, `ids` and `boxes` of the tracks that have a detection in a frame, and `seconds`.
Without arguments the names of the `PEERS` that are installed are printed. With -P, no file beside this one is
imported.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np


class Rows(NamedTuple):
    """Tracks of one frame."""

    ids: np.ndarray
    boxes: np.ndarray


Update = Callable[[np.ndarray, np.ndarray, np.ndarray], Rows]
"""Boxes (N, 4), scores (N,), black picture (H, W, 3) → tracks."""
NOTHING = Rows(np.zeros(0, int), np.zeros((0, 4)))


def enlarged(boxes: np.ndarray, factor: float) -> np.ndarray:
    """Returns boxes of `factor` times the width and height round the same centres."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    return np.concatenate([middle - half * factor, middle + half * factor], axis=1)


def roboflow(
    name: str, *, low: float = 0.0, enlarge: float = 1.0, **options: Any
) -> Callable[[float], Update]:
    """A tracker of the package trackers; detections below `low` are left out, boxes are enlarged for it."""
    import supervision

    import trackers

    def build(rate: float) -> Update:
        tracker = getattr(trackers, name)(frame_rate=rate, **options)

        def update(boxes: np.ndarray, scores: np.ndarray, picture: np.ndarray) -> Rows:
            kept = scores >= low
            given = enlarged(boxes[kept], enlarge).reshape(-1, 4)
            labels = np.zeros(len(given), int)
            found = tracker.update(
                supervision.Detections(xyxy=given, confidence=scores[kept], class_id=labels)
            )
            if found.tracker_id is None or not len(found):
                return NOTHING
            known = found.tracker_id >= 0
            return Rows(found.tracker_id[known].astype(int), enlarged(found.xyxy[known], 1 / enlarge))

        return update

    return build


def boxmot(name: str, *, low: float = 0.0, enlarge: float = 1.0, **options: Any) -> Callable[[float], Update]:
    """A tracker of the package boxmot, as `roboflow`."""
    import boxmot as package

    def build(rate: float) -> Update:
        tracker = getattr(package, name)(**options)

        def update(boxes: np.ndarray, scores: np.ndarray, picture: np.ndarray) -> Rows:
            kept = scores >= low
            given = enlarged(boxes[kept], enlarge).reshape(-1, 4)
            table = np.column_stack([given, scores[kept], np.zeros(len(given))])
            found = np.asarray(tracker.update(table, picture)).reshape(-1, 8)
            return Rows(found[:, 4].astype(int), enlarged(found[:, :4], 1 / enlarge))

        return update

    return build


def norfair(*, low: float = 0.0, pixels: float = 30.0, **options: Any) -> Callable[[float], Update]:
    """Norfair with the distance of centres; boxes have the size of the detection."""
    import norfair as package

    def build(rate: float) -> Update:
        tracker = package.Tracker(distance_function="euclidean", distance_threshold=pixels, **options)

        def update(boxes: np.ndarray, scores: np.ndarray, picture: np.ndarray) -> Rows:
            kept = scores >= low
            given = [
                package.Detection(points=(box[:2] + box[2:])[None] / 2, scores=np.array([score]), data=box)
                for box, score in zip(boxes[kept], scores[kept], strict=True)
            ]
            present = {id(detection) for detection in given}
            ids, found = [], []
            for thing in tracker.update(detections=given):
                if id(thing.last_detection) in present:
                    box, middle = thing.last_detection.data, thing.estimate[0]
                    half = (box[2:] - box[:2]) / 2
                    ids.append(thing.id)
                    found.append(np.concatenate([middle - half, middle + half]))
            return Rows(np.array(ids, int), np.array(found).reshape(-1, 4))

        return update

    return build


def byte(low: float, high: float) -> dict[str, float]:
    """Options of roboflow's trackers with two thresholds."""
    return {"low": low, "track_activation_threshold": high, "high_conf_det_threshold": high}


PEERS: dict[str, Callable[[], Callable[[float], Update]]] = {
    "roboflow ByteTrack, default": lambda: roboflow("ByteTrackTracker"),
    "roboflow ByteTrack, tuned": lambda: roboflow("ByteTrackTracker", enlarge=2, **byte(0.1, 0.2)),
    "roboflow ByteTrack, tuned on drone-ir": lambda: roboflow(
        "ByteTrackTracker", enlarge=4, **byte(0.3, 0.45)
    ),
    "roboflow OC-SORT, default": lambda: roboflow("OCSORTTracker"),
    "roboflow OC-SORT, tuned": lambda: roboflow(
        "OCSORTTracker", low=0.1, enlarge=4, high_conf_det_threshold=0.2
    ),
    "roboflow OC-SORT, tuned on drone-ir": lambda: roboflow(
        "OCSORTTracker", low=0.1, enlarge=4, high_conf_det_threshold=0.3
    ),
    "roboflow SORT, default": lambda: roboflow("SORTTracker"),
    "roboflow SORT, tuned": lambda: roboflow(
        "SORTTracker", low=0.2, enlarge=4, track_activation_threshold=0.2, minimum_iou_threshold=0.1
    ),
    "roboflow SORT, tuned on drone-ir": lambda: roboflow(
        "SORTTracker", low=0.3, enlarge=1, track_activation_threshold=0.3
    ),
    "roboflow C-BIoU, tuned": lambda: roboflow("CBIoUTracker", enlarge=4, **byte(0.1, 0.3)),
    "roboflow C-BIoU, tuned on drone-ir": lambda: roboflow("CBIoUTracker", enlarge=2, **byte(0.3, 0.45)),
    "boxmot ByteTrack, default": lambda: boxmot("ByteTrack"),
    "boxmot ByteTrack, tuned": lambda: boxmot("ByteTrack", enlarge=2, min_conf=0.1, track_thresh=0.2),
    "boxmot ByteTrack, tuned on drone-ir": lambda: boxmot(
        "ByteTrack", enlarge=2, min_conf=0.3, track_thresh=0.45
    ),
    "boxmot OC-SORT, default": lambda: boxmot("OcSort"),
    "boxmot OC-SORT, tuned": lambda: boxmot("OcSort", enlarge=4, min_conf=0.1, det_thresh=0.2),
    "boxmot OC-SORT, tuned on drone-ir": lambda: boxmot(
        "OcSort", min_conf=0.3, det_thresh=0.45, asso_func="centroid", iou_threshold=0.94
    ),
    "norfair, 30 px": lambda: norfair(),
    "norfair, tuned": lambda: norfair(low=0.2, pixels=15, hit_counter_max=30, initialization_delay=2),
    "norfair, tuned on drone-ir": lambda: norfair(
        low=0.3, pixels=8, hit_counter_max=15, initialization_delay=4
    ),
}
"""Settings by name: as the packages come, and as chosen on seeds 0 to 2 and on other clips of drone-ir."""


PACKAGES = {"roboflow": "trackers", "boxmot": "boxmot", "norfair": "norfair"}
"""First words of the names and the packages that they need."""


def tracked(scenes: dict[str, np.ndarray], build: Callable[[float], Update]) -> dict[str, np.ndarray]:
    """Returns the tracks of all scenes, and the seconds that the tracker took."""
    frames, ids, boxes, seconds = [], [], [], 0.0
    for update, picture, frame, rows in _frames(scenes, build):
        began = time.perf_counter()
        found = update(scenes["boxes"][rows], scenes["scores"][rows], picture)
        seconds += time.perf_counter() - began
        frames += [frame] * len(found.ids)
        ids += found.ids.tolist()
        boxes.append(found.boxes)
    table = np.concatenate([np.zeros((0, 4)), *boxes])
    return {
        "frames": np.array(frames, int),
        "ids": np.array(ids, int),
        "boxes": table,
        "seconds": np.array(seconds),
    }


def _frames(
    scenes: dict[str, np.ndarray], build: Callable[[float], Update]
) -> Iterator[tuple[Update, np.ndarray, int, slice]]:
    """Yields for each frame the tracker of its scene, a picture, its index and the rows of its detections."""
    starts = np.searchsorted(scenes["frames"], np.arange(int(scenes["lengths"].sum()) + 1))
    index = 0
    for number, length in enumerate(scenes["lengths"].tolist()):
        update = build(float(scenes["rates"][number]))
        picture = np.zeros((int(scenes["heights"][number]), int(scenes["widths"][number]), 3), np.uint8)
        for _ in range(length):
            yield update, picture, index, slice(starts[index], starts[index + 1])
            index += 1


def main() -> None:
    """Prints the names of peers, or runs some."""
    if len(sys.argv) == 1:
        print("\n".join(name for name in PEERS if find_spec(PACKAGES[name.partition(" ")[0].strip(",")])))
        return
    source, target, *names = sys.argv[1:]
    with np.load(source) as file:
        scenes = dict(file)
    for number, name in enumerate(names):
        np.savez(f"{target}/{number}.npz", **tracked(scenes, PEERS[name]()))


if __name__ == "__main__":
    main()
