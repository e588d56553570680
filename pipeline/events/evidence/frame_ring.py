"""A bounded ring of the frames of a source whose coded packets cannot be copied."""

from __future__ import annotations

import itertools
import threading
from collections import deque

from pipeline.structures.frame import Frame

WAIT_SECONDS = 30.0
"""Longest time for which a source that can wait does so for its clips to be encoded."""


class FrameRing:
    """The frames of the last seconds. Thread-safe.

    Args:
        seconds: time that the ring covers, if that fits into `max_bytes`; frames stay longer for cursors.
        max_bytes: maximum size of all images in bytes; one frame is kept in any case.
        waits: `add` waits for cursors that have not taken the frames that would be dropped; else the cursors
            lose them.
    """

    def __init__(self, *, seconds: float, max_bytes: int, waits: bool):
        self._seconds, self._max_bytes, self._waits = seconds, max_bytes, waits
        self._frames: deque[tuple[int, Frame]] = deque()
        self._cursors: list[FrameCursor] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self.size = 0
        """Bytes of all images."""

    def add(self, frame: Frame) -> None:
        """Appends a frame and drops old ones."""
        with self._changed:
            self._frames.append((next(self._numbers), frame))
            self.size += frame.image.nbytes
            while len(self._frames) > 1:
                if self.size > self._max_bytes:
                    self._wait_until_taken()
                elif not (self._is_old(frame) and self._is_taken()):
                    return
                self.size -= self._frames.popleft()[1].image.nbytes

    def cursor(self, lead_from: float) -> FrameCursor:
        """Returns a cursor at the first frame that is not before a presentation time."""
        with self._changed:
            found = (number for number, frame in self._frames if float(frame.pts) >= lead_from)
            cursor = FrameCursor(self, next(found))
            self._cursors.append(cursor)
            return cursor

    def take(self, cursor: FrameCursor, until: float) -> Frame | None:
        """Returns the next frame of a cursor up to a presentation time; None if it is not there yet."""
        with self._changed:
            if not self._frames or self._frames[-1][0] < cursor.next:
                return None
            first = self._frames[0][0]
            cursor.lost += max(0, first - cursor.next)
            number, frame = self._frames[max(0, cursor.next - first)]
            if float(frame.pts) > until:
                return None
            cursor.next = number + 1
            self._changed.notify_all()
            return frame

    def release(self, cursor: FrameCursor) -> None:
        """Ends a cursor: nothing waits for it any more."""
        with self._changed:
            if cursor in self._cursors:
                self._cursors.remove(cursor)
            self._changed.notify_all()

    def _is_old(self, newest: Frame) -> bool:
        """Returns whether the time is covered without the oldest frame."""
        return float(newest.pts - self._frames[1][1].pts) >= self._seconds

    def _is_taken(self) -> bool:
        """Returns whether all cursors have taken the oldest frame."""
        return all(cursor.next > self._frames[0][0] for cursor in self._cursors)

    def _wait_until_taken(self) -> None:
        if self._waits and not self._changed.wait_for(self._is_taken, WAIT_SECONDS):
            self._waits = False  # the disk hangs: the clips lose frames, the run goes on


class FrameCursor:
    """A place in a ring of frames."""

    def __init__(self, ring: FrameRing, first: int):
        self._ring = ring
        self.next = first
        """Number of the frame that is taken next."""
        self.lost = 0
        """Number of frames that the ring had dropped before they were taken."""

    def take(self, until: float) -> Frame | None:
        """Returns the next frame up to a presentation time; None if it is not there yet."""
        return self._ring.take(self, until)

    def close(self) -> None:
        """Ends the cursor: the ring does not wait for it any more."""
        self._ring.release(self)
