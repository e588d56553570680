"""Names of the files in the output folder of a run."""

from __future__ import annotations

from pipeline.system.reserved import SUFFIX

VIDEO, COCO, MOT, JSONL = "annotated.mp4", "detections.json", "tracks.txt", "results.jsonl"
ZARR, RUN, METRICS = "results.zarr", "run.json", "metrics.json"
OUTPUTS = (VIDEO, COCO, MOT, JSONL, ZARR, RUN, METRICS)

UNFINISHED = (*(f"{name}.part" for name in (COCO, RUN, METRICS, MOT, VIDEO)), RUN + SUFFIX)
"""Temporary files that a killed run may leave."""
