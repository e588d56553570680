"""What a user notices of tracks: targets covered, how soon, and tracks on nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.tracking.frame_rows import FrameRows
from pipeline.evaluation.tracking.gates import Gate

MIN_SHARE = 0.2
"""A track with a smaller share of its rows on targets is false; a target with less of its boxes is missed."""


class _Seen(NamedTuple):
    """Frames of one target or track."""

    frames: list[int]
    """Indices of its frames, ascending."""
    met: list[bool]
    """Whether a row of the other kind is inside the gate in that frame."""

    @property
    def share(self) -> float:
        """Share of the frames that are met."""
        return sum(self.met) / len(self.met)


@dataclass(frozen=True)
class Presence:
    """Counts of one or several videos, which `sum_presence` adds up."""

    boxes: int
    """Annotated boxes."""
    covered: int
    """Those with a track inside the gate."""
    targets: int
    """Annotated identities."""
    missed: int
    """Targets of which less than `MIN_SHARE` of the boxes are covered."""
    false_tracks: int
    """Tracks with less than `MIN_SHARE` of their rows inside the gate of an annotated box."""
    delays: tuple[float, ...]
    """Seconds, or frame intervals without a rate, from the first box of a target to its first covered one:
    one value for each target that is covered at all."""
    seconds: float | None
    """Duration of the scored frames; None without a rate."""

    @property
    def coverage(self) -> float | None:
        """Share of the annotated boxes with a track inside the gate."""
        return self.covered / self.boxes if self.boxes else None

    @property
    def false_per_minute(self) -> float | None:
        """False tracks a minute of video; None if its duration is unknown."""
        return 60 * self.false_tracks / self.seconds if self.seconds else None

    @property
    def first_confirmation(self) -> float | None:
        """Mean of `delays`; None if no target is covered."""
        return float(np.mean(self.delays)) if self.delays else None


def presence(rows: Sequence[FrameRows], gate: Gate, limit: float, rate: float | None) -> Presence:
    """Counts covered boxes, missed targets and false tracks of one video at `rate` frames per second.

    Pairs inside the gate need not be matched one to one.
    """
    targets: dict[int, _Seen] = defaultdict(lambda: _Seen([], []))
    tracks: dict[int, _Seen] = defaultdict(lambda: _Seen([], []))
    for row in rows:
        near = np.isfinite(gate.distances(row.target_boxes, row.track_boxes, limit))
        for ids, met, seen in ((row.targets, near.any(1), targets), (row.tracks, near.any(0), tracks)):
            for number, is_met in zip(ids.tolist(), met.tolist(), strict=True):
                seen[number].frames.append(row.frame)
                seen[number].met.append(is_met)
    delays = [
        seen.frames[seen.met.index(True)] - seen.frames[0] for seen in targets.values() if any(seen.met)
    ]
    step = float(np.median(np.diff([row.frame for row in rows]))) if len(rows) > 1 else 1.0
    return Presence(
        boxes=sum(len(seen.met) for seen in targets.values()),
        covered=sum(sum(seen.met) for seen in targets.values()),
        targets=len(targets),
        missed=sum(seen.share < MIN_SHARE for seen in targets.values()),
        false_tracks=sum(seen.share < MIN_SHARE for seen in tracks.values()),
        delays=tuple(delay / rate if rate else float(delay) for delay in delays),
        seconds=len(rows) * step / rate if rate else None,
    )


def sum_presence(videos: Iterable[Presence]) -> Presence:
    """Returns the counts of all videos together; the duration is unknown if that of one is."""
    found = list(videos)
    seconds = [video.seconds for video in found]
    return Presence(
        boxes=sum(video.boxes for video in found),
        covered=sum(video.covered for video in found),
        targets=sum(video.targets for video in found),
        missed=sum(video.missed for video in found),
        false_tracks=sum(video.false_tracks for video in found),
        delays=tuple(delay for video in found for delay in video.delays),
        seconds=None if None in seconds else sum(second for second in seconds if second is not None),
    )
