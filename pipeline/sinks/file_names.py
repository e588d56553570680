"""Names of the files in the output folder of a run."""

from __future__ import annotations

from pipeline.system.reserved import SUFFIX

VIDEO, COCO, MOT, JSONL = "annotated.mp4", "detections.json", "tracks.txt", "results.jsonl"
ZARR, EVENTS, RUN, METRICS = "results.zarr", "events.jsonl", "run.json", "metrics.json"
OUTPUTS = (VIDEO, COCO, MOT, JSONL, ZARR, EVENTS, RUN, METRICS)

EVIDENCE = "events"
"""Folder of the evidence, with one folder for each event, named by its id."""

UNFINISHED = (*(f"{name}.part" for name in (COCO, RUN, METRICS, MOT, VIDEO)), RUN + SUFFIX)
"""Temporary files that a killed run may leave."""
