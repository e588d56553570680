"""Ground truth and tracks made for tests of track metrics."""

from __future__ import annotations

import numpy as np

from pipeline.evaluation.tracking.track_rows import TrackRows
from pipeline.structures.annotations import VideoRecord

SIZE = 10


def box(x, y=0):
    return [x, y, x + SIZE, y + SIZE]


def record(targets, *, frames=6, name="clip", annotated=None, fps=0.0):
    """Ground truth of boxes 10×10 at `targets`: identity → frame → left edge, or (left, top)."""
    rows = [
        [(number, box(*np.atleast_1d(path[frame]))) for number, path in targets.items() if frame in path]
        for frame in range(frames)
    ]
    return VideoRecord(
        name=name,
        file_name="",
        width=320,
        height=256,
        image_ids={frame: frame + 1 for frame in (range(frames) if annotated is None else annotated)},
        boxes=tuple(np.array([b for _, b in row], np.float32).reshape(-1, 4) for row in rows),
        labels=tuple(np.zeros(len(row), np.int64) for row in rows),
        instances=tuple(np.array([number for number, _ in row], np.int64) for row in rows),
        fps=fps,
    )


def tracks(paths, scores=None):
    """Rows of boxes 10×10 at `paths`: id → frame → left edge, or (left, top); `scores`: id → score."""
    rows = [
        (frame, number, box(*np.atleast_1d(at)))
        for number, path in paths.items()
        for frame, at in path.items()
    ]
    values = None if scores is None else [scores[n] for _, n, _ in rows]
    return TrackRows([f for f, _, _ in rows], [n for _, n, _ in rows], [b for _, _, b in rows], values)


def still(frames, at=50):
    return dict.fromkeys(frames, at)


def random_case(seed, name="clip"):
    """Three targets on random walks, lost at times and with changes of ids, and some tracks on nothing."""
    chance = np.random.default_rng(seed)
    truth, paths, fresh = {}, {}, 100
    for number in range(3):
        walk = np.cumsum(chance.normal(0, 2, (40, 2)), axis=0) + chance.uniform(40, 70, 2)
        truth[number] = {f: at for f, at in enumerate(walk) if chance.random() < 0.9}
        follower = number
        for frame, at in enumerate(walk):
            if chance.random() < 0.05:
                fresh += 1
                follower = fresh
            if chance.random() < 0.85:
                paths.setdefault(follower, {})[frame] = at + chance.normal(0, 2, 2)
    paths[99] = {frame: chance.uniform(40, 70, 2) for frame in range(0, 40, 3)}
    return record(truth, frames=40, name=name), tracks(paths)
