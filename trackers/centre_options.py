"""Options of the default tracker."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pipeline.config.ranges import require_range
from pipeline.system.errors import UsageError

MIN_POSITIVE = 1e-3
"""Lower bound of options that are divisors, or that would disable the tracker at 0."""


@dataclass(frozen=True)
class CentreOptions:
    """Options of `CentreTracker`, each with the symptoms of a bad value.

    The defaults were tuned on infrared clips of 320×256 pixels at 30 frames per second with targets of 8 to
    35 pixels, and on invented scenes of that size. Values that scale with the target or the frame are
    fractions of its size; accelerations and `position_floor` are in pixels.
    """

    birth: Literal["hits", "evidence"] = "hits"
    """What confirms a track: a number of "hits", or "evidence", which also follows dim targets that move, and
    leaves out what stays at its place with low scores, such as lamps and hot pixels."""
    faintest: float = 0.1
    """Detections of this score or more start tracks if evidence confirms them; not used with "hits". Too low:
    much computing. Too high: dim targets never get a track."""
    high_score: float = 0.45
    """Detections of this score or more start tracks and are assigned first. Too low: clutter becomes tracks.
    Too high: faint targets never get a track although they are detected in every frame."""
    low_score: float = 0.3
    """Detections from this score up to `high_score` are assigned to confirmed tracks; lower ones are ignored.
    Too low: the track of a hidden target drifts along clutter. Too high: tracks of fading targets coast and
    end."""
    low_coast: int = 0
    """Maximum number of frame intervals without a detection after which a track still takes one of low score;
    then only one of `high_score` or more finds it again. 0: as long as it coasts. Too small: fading targets
    get a new id. Too large: the track of a thing that is gone is drawn away by faint clutter. Not used with
    "evidence"."""
    birth_hits: int = 3
    """Number of hits that confirm a track. Too small: false alarms become short tracks. Too large: tracks
    appear late, and those of briefly visible targets never do."""
    birth_window: int = 5
    """Number of frames, including the first one, in which those hits must occur; skipped frames do not count.
    Too small: a target that is missed once starts again. Too large: unrelated false alarms form a track."""
    coast: int = 90
    """Maximum number of frame intervals that a confirmed track coasts; above 30 no longer than it has been
    detected. Too small: a target that reappears from behind a cloud gets a new id. Too large: tracks outlive
    their targets and may take over others."""
    unrelated: float = 0.2
    """Expected number of detections per frame that belong to no track: a track takes a detection only if it
    is likelier to be its own than one of these. Too small: tracks jump to clutter. Too large: a target that
    turns or reappears gets a new id."""
    max_gate: float = 0.1
    """Maximum distance between a detection and the place where a track expects it, as a fraction of the
    frame's diagonal, times the stride. Too small: fast targets get no track, and none is recovered after a
    gap. Too large: coasting tracks take detections from anywhere."""
    calm_acceleration: float = 0.2
    """Standard deviation of the change of velocity per frame in px/frame², of a target that flies straight.
    Too small: tracks overshoot in slow bends. Too large: targets that cross exchange ids, boxes jitter."""
    agile_acceleration: float = 3.0
    """The same of a target that turns, or of a camera that shakes. Too small: tracks overshoot in turns and
    lose the target. Too large: tracks of turning targets take detections of others."""
    agile_share: float = 0.05
    """Share of the targets that are agile, as far as nothing is known about one of them. Too small: tracks
    lose targets that turn at once. Too large: as for the agile acceleration."""
    persistence: float = 0.98
    """Probability that a target stays calm, or agile, from one frame to the next. Too small: a turn is not
    remembered until the next one. Too large: the first turn of a calm target is lost."""
    growth: float = 0.05
    """Standard deviation of the change of width and height per frame, as a fraction of the size. Too small:
    boxes lag behind targets that approach. Too large: the size of boxes jitters."""
    start_speed: float = 1.5
    """Standard deviation of the velocity after the first detection, in target sizes per frame. Too small:
    fast targets are detected but never get a track. Too large: distant false alarms form tracks."""
    position_floor: float = 0.8
    """Standard deviation of a detected centre in pixels, for the smallest targets. Too small: jitter is taken
    for motion. Too large: tracks respond late to motion."""
    position_share: float = 0.15
    """Standard deviation that is added in quadrature for larger targets, as a fraction of the size. Too
    small: tracks of large targets jitter. Too large: they lag behind."""

    def __post_init__(self) -> None:
        bounds = {
            "faintest": (0, self.high_score),
            "high_score": (0, 1),
            "low_score": (0, self.high_score),
            "birth_hits": (1, math.inf),
            "birth_window": (self.birth_hits, math.inf),
            **dict.fromkeys(("unrelated", "max_gate", "position_floor"), (MIN_POSITIVE, math.inf)),
        }
        for name in (name for name in vars(self) if name != "birth"):
            low, high = bounds.get(name, (0, math.inf))
            require_range(self, name, low=low, high=high, prefix="tracker option ", error=UsageError)


PRESETS: dict[str, dict[str, float]] = {
    "quiet": {"high_score": 0.5, "low_coast": 5, "birth_hits": 6, "birth_window": 8},
    "sensitive": {"high_score": 0.3, "low_score": 0.2, "birth_hits": 4, "birth_window": 6},
}
"""Options that differ from the defaults, for where false tracks must be rare or dim targets must be found."""
