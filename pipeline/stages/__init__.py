"""Stages between decoder and sinks: generators and callables over frames, detections and tracks.

`pipeline.stages.multiplexer` serves the frames of several sources in turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.stages.batching import batches
    from pipeline.stages.tracking import track

__all__ = ["batches", "track"]


def __getattr__(name: str) -> Any:
    if name == "batches":
        from pipeline.stages.batching import batches

        return batches
    if name == "track":
        from pipeline.stages.tracking import track

        return track
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
