"""Trackers join the detections of successive frames to tracks; `build` makes one by name.

A tracker is any object with the methods of `Tracker`; the registry is only for names in a configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

from pipeline.config import parsing
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.protocols import Tracker
from pipeline.structures.tracks import Tracks
from pipeline.system.errors import UsageError, unknown_name


class NoTracker:
    """Follows nothing: detections go through the pipeline without tracks."""

    def update(self, detections: Detections, frame: Frame) -> Tracks:
        """No tracks, whatever was detected."""
        return Tracks.empty()

    def reset(self) -> None:
        """Nothing to forget."""


def _centre(**options) -> Tracker:
    # imported here: scipy's optimiser is slow to load and of no use to whoever only lists the names
    from trackers.centre import CentreOptions, CentreTracker

    known = [field.name for field in fields(CentreOptions)]
    for name in options:
        if name not in known:
            raise unknown_name("tracker option", name, known)
    return CentreTracker(parsing.build(CentreOptions, options, "tracker.options."))


def _none(**options) -> Tracker:
    if options:
        raise UsageError(f"tracker 'none' takes no options, got {', '.join(options)}; remove them")
    return NoTracker()


def _mmdet(name: str) -> Callable[..., Tracker]:
    def build(**options) -> Tracker:
        # imported here: mmdet takes seconds to load
        from trackers.mmdet import MmdetTracker

        return MmdetTracker(name, **options)

    return build


TRACKERS: dict[str, Callable[..., Tracker]] = {
    "centre": _centre,
    "none": _none,
    "mmdet:ByteTracker": _mmdet("ByteTracker"),
    "mmdet:OCSORTTracker": _mmdet("OCSORTTracker"),
}
"""Name -> builder, which takes the options of the tracker as keyword arguments."""


def build(name: str, **options) -> Tracker:
    """A new tracker by its `name` in `TRACKERS`, with `options` in place of its defaults.

    Raises `UsageError` for an unknown name, an unknown option, or a value out of range.
    """
    if name not in TRACKERS:
        raise unknown_name("tracker", name, TRACKERS)
    return TRACKERS[name](**options)
