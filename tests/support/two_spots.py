"""A detector that finds two targets by the number of the frame, and recordings for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.structures.detections import Detections
from pipeline.structures.results import FrameDetections

FRAMES, WIDTH, HEIGHT = 60, 96, 64
NAME = "tests.support.two_spots:TwoSpots"
RAW = {"source_format": "raw", "source_size": f"{WIDTH}x{HEIGHT}", "source_dtype": "uint8", "source_rate": 10}
OPTIONS = [word for key, value in RAW.items() for word in (f"--{key.replace('_', '-')}", value)]
EVENTS = """[events]
update = 1.0
[events.zones]
right = [[60, 0], [96, 0], [96, 64], [60, 64]]
"""
"""A configuration of events whose zone is the way of the second target, without rules."""
QUIET = ["events.evidence=false", "tracker.options.coast=5"]


def spots(index: int) -> list[tuple[float, float]]:
    """Centres of the targets in a frame: one flies to the right, another down from frame 30 on."""
    found = [(8.0 + 2 * index, 20.0)] if index < 35 else []
    return found + ([(70.0, 10.0 + 1.5 * (index - 30))] if index >= 30 else [])


class TwoSpots:
    """Finds the targets of `spots`."""

    window = 1
    classes = ("spot",)

    def __init__(self, config=None):
        self.config = config

    def detect(self, groups):
        """Yields the targets of each frame."""
        for group in groups:
            for frame in group:
                centres = np.reshape(spots(frame.index), (-1, 2))
                boxes = np.concatenate([centres - 2, centres + 2], axis=1)
                count = len(boxes)
                yield FrameDetections(frame, Detections(boxes, [0.9] * count, [0] * count), warmup=False)


def recording(folder: Path, name: str = "sky.raw") -> Path:
    """Writes a grey recording of 60 frames."""
    path = folder / name
    path.write_bytes(np.full((FRAMES, HEIGHT, WIDTH), 90, np.uint8).tobytes())
    return path
