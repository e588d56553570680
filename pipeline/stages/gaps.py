"""Detection of discontinuities of a stream: missing frames, reconnects, clock jumps, resizes, cuts, shutters.

A `GapMarker` follows the last place where frames can be dropped, and attaches each discontinuity to the next
frame as `Frame.gap`. It measures time in frame intervals: by presentation times while they are continuous,
and by arrival times across jumps of the clock.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import replace
from statistics import median
from typing import Literal

from pipeline.imaging.geometry import fit_to_size
from pipeline.stages.scene_cuts import SceneCutDetector
from pipeline.structures.frame import Event, Frame, Gap, SourceInfo

GapPolicy = Literal["repeat", "flush"]
"""How a temporal window continues after missing frames. repeat: the previous frame stands in for them if they
are fewer than a window. flush: the window is reset."""
INTERVAL_HISTORY = 31
"""Number of recent frame intervals whose median is the usual interval."""
MIN_INTERVALS = 5
"""Number of intervals before that median is used. Until then frames count as one interval apart, because the
nominal rate of a stream may be far off and every frame would appear to follow a gap."""
JITTER_TOLERANCE = 0.3
"""Maximum deviation, in frame intervals, of a time that still counts as a whole number of intervals."""
MAX_STEP_SECONDS = 1.0
"""Maximum time between successive frames before a jump of the clock is suspected …"""
MAX_STEP_FRAMES = 5
"""… or this number of frame intervals, if that is longer."""
MAX_SHUTTER_SECONDS = 2.0
"""Maximum time for which a picture without detail is taken for the closed shutter of the camera."""


class DropCounter:
    """Records the frames that a queue drops in one thread, and counts them in another."""

    def __init__(self) -> None:
        self.count = 0
        self._indices: deque[int] = deque()
        self._lock = threading.Lock()

    def __call__(self, frame: Frame) -> None:
        """Records a dropped frame."""
        with self._lock:
            self.count += 1
            self._indices.append(frame.index)

    def take_before(self, index: int) -> int:
        """Returns how many frames before this index were dropped and not yet counted by a call."""
        count = 0
        with self._lock:
            while self._indices and self._indices[0] < index:
                self._indices.popleft()
                count += 1
        return count


class RateLimit:
    """Selects at most `rate` frames per second of a source, by the times of their arrival; 0: all."""

    def __init__(self, rate: float):
        self._interval = 1 / rate if rate else 0.0
        self._due: float | None = None
        self.skipped = DropCounter()
        """The frames that are left out."""

    def __call__(self, frame: Frame) -> bool:
        """Returns whether the next frame is processed; one without a time of arrival is."""
        if not self._interval or frame.arrival is None:
            return True
        if self._due is None or frame.arrival - self._due > self._interval:
            self._due = frame.arrival
        if frame.arrival < self._due - JITTER_TOLERANCE * self._interval:
            self.skipped(frame)
            return False
        self._due += self._interval
        return True


class GapMarker:
    """Attaches gaps, times and window lengths to the frames of one source, in order.

    Frames whose size differs from that of the source are resized to it, so that all coordinates refer to one
    image size: scaled with their aspect ratio kept, centred, with their edges replicated into the margins.

    Args:
        info: the source.
        window: temporal window of the detector in frames; 1 if it has none.
        policy: whether gaps of fewer frames than a window are bridged ("repeat") or none ("flush").
        dropped: the frames that the queue before has dropped.
        skipped: the frames that were left out on purpose, beside those that the stride leaves out.
        stride: difference of the indices of successive frames; those between are left out, not missing.
        cuts: whether scene cuts are detected. They are gaps that no policy bridges. Pictures of the closed
            shutter of the camera are no scene: the networks see the last image before it instead, and the
            frame after it follows a gap "shutter" that counts them as missing.
    """

    def __init__(
        self,
        info: SourceInfo,
        *,
        window: int,
        policy: GapPolicy,
        dropped: DropCounter | None = None,
        skipped: DropCounter | None = None,
        stride: int = 1,
        cuts: bool = True,
    ):
        self._size, self._nominal_interval = (info.width, info.height), 1 / float(info.rate)
        self._window, self._policy, self._stride = window, policy, stride
        self._dropped = DropCounter() if dropped is None else dropped
        self._skipped = DropCounter() if skipped is None else skipped
        shutter_frames = max(round(MAX_SHUTTER_SECONDS * float(info.rate) / stride), 1)
        self._is_cut = SceneCutDetector(shutter_frames=shutter_frames) if cuts else None
        self._scene: Frame | None = None  # the last frame that shows a scene
        self._intervals: deque[float] = deque(maxlen=INTERVAL_HISTORY)  # seconds between successive frames
        self._real: deque[bool] = deque(maxlen=window)  # which frames of the window are not repeated ones
        self._last: Frame | None = None
        self._time = 0.0  # in frame intervals
        self.events: Counter[Event] = Counter()
        """Number of gaps so far by their event."""

    def __call__(self, frame: Frame) -> Frame:
        """Returns the frame with gap, time and window length set, in the size of the source."""
        gap = None
        if self._last is None:
            self._time = float(frame.index)
            self._dropped.take_before(frame.index)  # these do not lie between two frames
            self._skipped.take_before(frame.index)
        else:
            gap = self._find_gap(self._last, frame)
        gap = self._with_cut(gap, frame)
        self._last = frame
        closed = self._is_cut is not None and self._is_cut.closed_frames > 0
        if gap is not None:
            self.events[gap.event] += 1
            if not gap.repeat_previous:
                self._real.clear()
            self._real.extend([False] * min(gap.missing * gap.repeat_previous, self._window))
        self._real.append(not closed)
        same_size = (frame.width, frame.height) == self._size
        image = frame.image if same_size else fit_to_size(frame.image, self._size)
        frame = replace(
            frame,
            image=image,
            gap=gap,
            time_in_frames=self._time,
            stride=self._stride,
            real_frames_in_window=sum(self._real),
        )
        if closed and self._scene is not None:
            return replace(frame, seen=self._scene.image, levels=self._scene.levels)
        self._scene = frame if self._is_cut else None
        return frame

    def _find_gap(self, last: Frame, frame: Frame) -> Gap | None:
        """Advances the time from `last` to `frame`, and returns the gap between them."""
        step, count = float(frame.pts - last.pts), frame.index - last.index
        waited = None
        if frame.arrival is not None and last.arrival is not None:
            waited = frame.arrival - last.arrival
        enough = len(self._intervals) >= MIN_INTERVALS
        interval = median(self._intervals) if enough else self._nominal_interval
        dropped, skipped = (counter.take_before(frame.index) for counter in (self._dropped, self._skipped))
        longest = self._stride * max(MAX_STEP_SECONDS, MAX_STEP_FRAMES * interval) + count * interval
        if (frame.width, frame.height) != (last.width, last.height):
            self._advance(max(step, interval), interval, count)
            return self._gap("resize", 0, elapsed_known=False)
        if frame.connection != last.connection:
            self._intervals.clear()
            return self._gap("reconnect", self._advance(max(step, interval), interval, count))
        if step < 0 or (step > longest and (waited is None or waited < step / 2)):
            # the clock jumped; only arrival times measure how much time passed
            missing = self._advance(waited or interval * count, interval, count)
            return self._gap("jump", missing if waited else 0, elapsed_known=waited is not None)
        missing = max(self._advance(step, interval, count) - skipped, 0)
        if 0 < step <= longest:
            self._intervals.append(step / count)
        if missing or dropped:
            return self._gap("dropped" if dropped else "lost", max(missing, dropped))
        return None

    def _with_cut(self, gap: Gap | None, frame: Frame) -> Gap | None:
        """Returns the gap before the frame, or the cut that is detected there."""
        if self._is_cut is None:
            return gap
        if gap is not None and gap.event not in ("lost", "dropped"):
            self._is_cut.restart()  # the frame before is not comparable
        hidden = self._is_cut.closed_frames
        if self._is_cut(frame.image):
            return self._gap("cut", gap.missing if gap else 0, elapsed_known=False)
        if not hidden or self._is_cut.closed_frames:
            return gap
        missing = hidden + (gap.missing if gap else 0)
        return Gap("shutter", missing, repeat_previous=self._policy == "repeat", elapsed_known=True)

    def _advance(self, seconds: float, interval: float, count: int) -> int:
        """Advances the time by `seconds`, in which the index grew by `count`.

        `interval` is the usual frame interval in seconds. Returns the number of missing frames among those
        that the stride does not leave out.
        """
        learning = len(self._intervals) < MIN_INTERVALS and seconds <= self._stride * MAX_STEP_SECONDS
        intervals = float(count) if learning or seconds <= 0 else seconds / interval
        whole = max(round(intervals), 1)
        self._time += whole if abs(intervals - whole) <= JITTER_TOLERANCE else intervals
        return max(round(whole / self._stride), 1) - 1

    def _gap(self, event: Event, missing: int, *, elapsed_known: bool = True) -> Gap:
        short = event in ("lost", "dropped") and missing < self._window - 1
        return Gap(
            event, missing, repeat_previous=short and self._policy == "repeat", elapsed_known=elapsed_known
        )
