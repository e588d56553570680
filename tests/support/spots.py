"""A detector of another package, which finds the brightest pixels without a network."""

from __future__ import annotations

import numpy as np

from pipeline.structures.detections import Detections
from pipeline.structures.results import FrameDetections


class Spots:
    """Detects the brightest 3×3 pixels of a frame if its brightest pixel is above 60 % of the full scale."""

    window = 1
    classes = ("spot",)

    def __init__(self, config=None):
        pass

    def detect(self, groups):
        for frames in groups:
            for frame in frames:
                grey = frame.image if frame.image.ndim == 2 else frame.image.max(axis=2)
                full = 2**frame.bit_depth - 1
                y, x = np.unravel_index(int(grey.argmax()), grey.shape)
                rows, columns = np.nonzero(grey[y : y + 3, max(x - 2, 0) : x + 3] > 0.6 * full)
                if grey[y, x] <= 0.6 * full:
                    yield FrameDetections(frame, Detections.empty(), False)
                    continue
                columns = columns + max(x - 2, 0)
                box = [columns.min(), y + rows.min(), columns.max() + 1, y + rows.max() + 1]
                yield FrameDetections(frame, Detections([box], [0.9], [0]), False)
