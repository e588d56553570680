"""Decodes infrared video, runs detectors and trackers frame by frame, and writes and evaluates the results.

`pipeline` knows detectors, segmenters and trackers only by the protocols in `pipeline.structures.protocols`.
"""

__version__ = "0.1.0"
