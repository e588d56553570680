"""Trackers, which link the detections of successive frames to tracks.

The public names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.structures.protocols import Tracker
    from trackers.registry import TRACKERS, NoTracker, build

__all__ = ["TRACKERS", "NoTracker", "Tracker", "build"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from trackers import registry

        return getattr(registry, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
