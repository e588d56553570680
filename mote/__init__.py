"""Finds and follows tiny moving targets in infrared video.

    for result in mote.watch("in.mp4"):
        print(result.frame.index, result.tracks.boxes)

`watch` yields the results of a source, `Finder` processes frames of any other origin one by one, and `run`
writes the outputs of the command `mote run`. The other names are the structures of results, for reading them
and for detectors, trackers and outputs of one's own. All are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline import __version__

if TYPE_CHECKING:
    from mote.finder import Finder
    from mote.runs import run, watch
    from pipeline.structures.detections import Detections
    from pipeline.structures.events import Event
    from pipeline.structures.frame import Frame
    from pipeline.structures.results import FrameDetections, Result
    from pipeline.structures.tracks import Tracks, TrackState

__all__ = [
    "Detections",
    "Event",
    "Finder",
    "Frame",
    "FrameDetections",
    "Result",
    "TrackState",
    "Tracks",
    "__version__",
    "run",
    "watch",
]

_MODULES = {
    "Detections": "pipeline.structures.detections",
    "Event": "pipeline.structures.events",
    "Finder": "mote.finder",
    "Frame": "pipeline.structures.frame",
    "FrameDetections": "pipeline.structures.results",
    "Result": "pipeline.structures.results",
    "TrackState": "pipeline.structures.tracks",
    "Tracks": "pipeline.structures.tracks",
    "run": "mote.runs",
    "watch": "mote.runs",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
