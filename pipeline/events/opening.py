"""What the events of a run need: checks before the networks are loaded, and the parts of each source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from pipeline.config.events_section import EventsConfig
from pipeline.drawing.places import Outline
from pipeline.events.rules import require_classes, require_sources, rules_of
from pipeline.events.zones import Places, resolve_places
from pipeline.structures.frame import SourceInfo


def check_events(
    config: EventsConfig,
    sources: Mapping[str, SourceInfo],
    *,
    names: Sequence[str],
    classes: Sequence[str] | None = None,
) -> None:
    """Raises UsageError for rules that do not fit a run.

    Args:
        config: the section of the configuration.
        sources: the sources that are open, by their names.
        names: names of all sources, also of those that are not open.
        classes: the classes of the detector whose detections are kept; None if they are not known yet.
    """
    require_sources(config, names)
    if classes is not None:
        require_classes(config, classes)
    for name, info in sources.items():
        resolve_places(config, rules_of(config, name), info)


def outlines_of(places: Places) -> list[Outline]:
    """Returns what is drawn of places, masks first."""
    outlines = []
    for name, mask in places.masks.items():
        if isinstance(mask, np.ndarray):
            found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
            paths = tuple(contour[:, 0].astype(np.float64) for contour in found)
        else:
            paths = (np.array(mask, np.float64),)
        outlines.append(Outline(name, "mask", paths))
    outlines += [Outline(name, "zone", (np.array(area),)) for name, area in places.zones.items()]
    return outlines + [Outline(name, "line", (np.array(line),)) for name, line in places.lines.items()]
