"""pipeline.sinks.file_names."""

from __future__ import annotations

VIDEO, COCO, MOT, JSONL = "annotated.mp4", "detections.json", "tracks.txt", "results.jsonl"

ZARR, RUN, METRICS = "results.zarr", "run.json", "metrics.json"

OUTPUTS = (VIDEO, COCO, MOT, JSONL, ZARR, RUN, METRICS)

UNFINISHED = tuple(f"{name}.part" for name in (COCO, RUN, METRICS, MOT, VIDEO))
"""What a run that was killed may leave beside them."""
