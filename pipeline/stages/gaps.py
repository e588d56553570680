"""Where frames are missing between those that came: found, named, and told to all who look at several frames.

A `GapMarker` stands behind the last place where frames can be left out. It measures time in frame intervals:
by the presentation times where those go on, by the arrival where they leap.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import replace
from statistics import median
from typing import Literal

from pipeline.imaging.geometry import fitted
from pipeline.stages.scene_cuts import SceneCutDetector
from pipeline.structures.frame import Event, Frame, Gap, SourceInfo

Policy = Literal["repeat", "flush"]
LEARNED = 31
"""Frame intervals whose median is what frames are usually apart."""
MIN_LEARNED = 5
"""Before so many are known, frames are taken for one interval apart: the nominal rate of streams may be far
off, and each frame would pass for one after a gap."""
JITTER = 0.3
"""Frame intervals that a time may be off and still mean a whole number of them."""
MAX_STEP = 1.0
"""Seconds between frames that follow each other above which the clock may have leapt …"""
MAX_STEP_FRAMES = 5
"""… or as many frame intervals, where those are longer."""


class DropCounter:
    """Which frames a queue has left out; it is told in one thread and asked in another."""

    def __init__(self):
        self.count = 0
        self._indices: deque[int] = deque()
        self._lock = threading.Lock()

    def __call__(self, frame: Frame) -> None:
        """One more."""
        with self._lock:
            self.count += 1
            self._indices.append(frame.index)

    def before(self, index: int) -> int:
        """How many were left out before the frame of this index, and not told yet."""
        count = 0
        with self._lock:
            while self._indices and self._indices[0] < index:
                self._indices.popleft()
                count += 1
        return count


class GapMarker:
    """Marks the frames of one source, in their order, with what lies between them (`Frame.gap`).

    Frames of another size than the source was opened with are fitted to it, so that all coordinates stay
    those of one picture: scaled with their aspect kept, and centred, with their edges drawn out to the sides.

    Args:
        info: of the source.
        window: frames that the detector looks at together; 1 for one that looks at each by itself.
        policy: `repeat` bridges gaps of fewer frames than a window, `flush` none.
        dropped: what the queue before has left out.
        cuts: whether changes of scene are looked for. They are gaps, too, which no policy bridges.
    """

    def __init__(
        self,
        info: SourceInfo,
        *,
        window: int,
        policy: Policy,
        dropped: DropCounter | None = None,
        cuts: bool = True,
    ):
        self._size, self._nominal = (info.width, info.height), 1 / float(info.rate)
        self._window, self._policy = window, policy
        self._dropped = DropCounter() if dropped is None else dropped
        self._is_cut = SceneCutDetector() if cuts else None
        self._steps: deque[float] = deque(maxlen=LEARNED)  # seconds between successive frames
        self._real: deque[bool] = deque(maxlen=window)  # of the window, which are frames that came
        self._last: Frame | None = None
        self._at = 0.0
        self.events: Counter[Event] = Counter()
        """How often each has happened so far."""

    def __call__(self, frame: Frame) -> Frame:
        """The frame with its marks, of the size that was announced."""
        if self._last is None:
            gap, self._at = None, float(frame.index)
            self._dropped.before(frame.index)  # between no two frames
        else:
            gap = self._pass(self._last, frame)
        gap = self._with_cut(gap, frame)
        self._last = frame
        if gap is not None:
            self.events[gap.event] += 1
            if not gap.bridged:
                self._real.clear()
            self._real.extend([False] * min(gap.missing * gap.bridged, self._window))
        self._real.append(True)
        same = (frame.width, frame.height) == self._size
        image = frame.image if same else fitted(frame.image, self._size)
        return replace(frame, image=image, gap=gap, at=self._at, behind=sum(self._real))

    def _pass(self, last: Frame, frame: Frame) -> Gap | None:
        """Let the time between two frames pass, and say what lies between them."""
        step, count = float(frame.pts - last.pts), frame.index - last.index
        waited = None
        if frame.arrival is not None and last.arrival is not None:
            waited = frame.arrival - last.arrival
        usual = median(self._steps) if len(self._steps) >= MIN_LEARNED else self._nominal
        dropped = self._dropped.before(frame.index)
        longest = max(MAX_STEP, MAX_STEP_FRAMES * usual) + count * usual
        if (frame.width, frame.height) != (last.width, last.height):
            self._advance(max(step, usual), usual, count)
            return self._gap("resize", 0, known=False)
        if frame.connection != last.connection:
            self._steps.clear()
            return self._gap("reconnect", self._advance(max(step, usual), usual, count))
        if step < 0 or (step > longest and (waited is None or waited < step / 2)):
            # the clock leapt; how much time went by, only the arrival can tell
            missing = self._advance(waited or usual * count, usual, count)
            return self._gap("jump", missing if waited else 0, known=waited is not None)
        missing = self._advance(step, usual, count)
        if 0 < step <= longest:
            self._steps.append(step / count)
        if missing or dropped:
            return self._gap("dropped" if dropped else "lost", max(missing, dropped))
        return None

    def _with_cut(self, gap: Gap | None, frame: Frame) -> Gap | None:
        """The gap before the frame, or the cut that is found there."""
        if self._is_cut is None:
            return gap
        if gap is not None and gap.event not in ("lost", "dropped"):
            self._is_cut.restart()  # there is nothing to be the same as
        if not self._is_cut(frame.image):
            return gap
        return self._gap("cut", gap.missing if gap else 0, known=False)

    def _advance(self, seconds: float, usual: float, count: int) -> int:
        """Move on, for a frame whose index is `count` higher; returns how many frames are missing."""
        learning = len(self._steps) < MIN_LEARNED and seconds <= MAX_STEP
        intervals = float(count) if learning or seconds <= 0 else seconds / usual
        whole = max(round(intervals), 1)
        self._at += whole if abs(intervals - whole) <= JITTER else intervals
        return whole - 1

    def _gap(self, event: Event, missing: int, *, known: bool = True) -> Gap:
        short = event in ("lost", "dropped") and missing < self._window - 1
        return Gap(event, missing, bridged=short and self._policy == "repeat", known=known)
