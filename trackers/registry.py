"""Trackers by name.

A tracker is any object with the methods of `pipeline.structures.protocols.Tracker`; the registry is needed
only for names in a configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from pipeline.config import parsing
from pipeline.config.plugins import build_plugin, is_plugin, require_part
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.protocols import Tracker
from pipeline.structures.tracks import Tracks
from pipeline.system.errors import UsageError, unknown_name

T = TypeVar("T")
MMDET = "mmdet:"
"""Prefix of the names of mmdet's trackers."""
CENTRE = "centre:"
"""Prefix of the names of the presets of the default tracker."""


class NoTracker:
    """A tracker without tracks, for detection only."""

    def update(self, detections: Detections, frame: Frame) -> Tracks:
        """Returns no tracks."""
        return Tracks.empty()

    def reset(self) -> None:
        """Does nothing."""


# the modules of trackers are imported when one is built: scipy.optimize is slow to load and is not needed to
# list the names


def _centre(**options) -> Tracker:
    from trackers.centre import CentreTracker
    from trackers.centre_options import CentreOptions
    from trackers.evidence_tracker import EvidenceTracker

    chosen = _options(CentreOptions, options)
    return EvidenceTracker(chosen) if chosen.birth == "evidence" else CentreTracker(chosen)


def _preset(name: str) -> Callable[..., Tracker]:
    def build(**options) -> Tracker:
        from trackers.centre_options import PRESETS

        return _centre(**{**PRESETS[name], **options})

    return build


def _sort(**options) -> Tracker:
    from trackers.iou.sort import SortOptions, SortTracker

    return SortTracker(_options(SortOptions, options))


def _byte(**options) -> Tracker:
    from trackers.iou.byte import ByteOptions, ByteTracker

    return ByteTracker(_options(ByteOptions, options))


def _ocsort(**options) -> Tracker:
    from trackers.iou.ocsort import OcsortOptions, OcsortTracker

    return OcsortTracker(_options(OcsortOptions, options))


def _options(kind: type[T], options: Mapping[str, Any]) -> T:
    """Builds the options of a tracker. Raises UsageError for an unknown name or a value out of range."""
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            raise unknown_name("tracker option", name, known)
    return parsing.build(kind, options, "tracker.options.")


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
    "centre:quiet": _preset("quiet"),
    "centre:sensitive": _preset("sensitive"),
    "byte": _byte,
    "ocsort": _ocsort,
    "sort": _sort,
    "none": _none,
    "mmdet:ByteTracker": _mmdet("ByteTracker"),
    "mmdet:OCSORTTracker": _mmdet("OCSORTTracker"),
}
"""Name → builder, which takes the options of the tracker as keyword arguments."""


def build(name: str, **options) -> Tracker:
    """Builds the tracker `name` of `TRACKERS`, or of the form `package.module:Class`.

    `options` override its defaults.

    Raises UsageError if the name or an option is unknown, or a value is out of range.
    """
    if name not in TRACKERS and is_plugin(name) and not name.startswith((MMDET, CENTRE)):
        tracker = build_plugin(name, **options)
        require_part(tracker, "tracker", name)
        return tracker
    if name not in TRACKERS:
        raise unknown_name("tracker", name, TRACKERS)
    return TRACKERS[name](**options)
