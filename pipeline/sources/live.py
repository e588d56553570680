"""Sources that do not wait and may go away: watched, opened again, and timed from arrival to result.

Each connection is read by a thread of its own. Whoever takes the frames waits for that thread no longer than
`source.timeout`: a peer that accepts and then says nothing, or a driver that never returns, is turned away
from, whatever the thread is stuck in.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from fractions import Fraction

from pipeline.config.schema import LiveConfig, RunConfig, SourceConfig
from pipeline.sources.opening import open_source
from pipeline.sources.source import FrameSource, Source
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.system.errors import SourceError, SourceLost
from pipeline.system.memory import release_free_memory
from pipeline.system.prefetch import POLL_SECONDS, QueuePolicy
from pipeline.system.signals import StopRequest

OPENING = 3
"""Times `source.timeout`: for a new connection until its first frame, which is more than one wait."""
STEADY_SECONDS = 10.0
"""After frames for so long a connection counts as good: attempts to open the next count from one again."""
WAITING, KEEPING_UP = 8, 2
"""Frames in the queue before the network: to even out where the source waits, else few and new ones."""
LEAVING_SECONDS = 2.0
"""How long the end waits for a connection to be closed."""
log = logging.getLogger(__name__)


class _Silent(Exception):
    """Nothing came in time."""


class _Connection:
    """A source that a thread of its own opens and reads, so that nobody need wait for it."""

    def __init__(self, opened: Callable[[], Source], name: str):
        self._opened = opened
        self._handed: queue.Queue[Frame | None] = queue.Queue(1)
        self._left = threading.Event()
        self.source: Source | None = None
        self.failure: BaseException | None = None
        """What ended the frames."""
        self._thread = threading.Thread(target=self._read, name=f"read {name}", daemon=True)
        self._thread.start()

    def take(self, seconds: float) -> Frame | None:
        """The next frame; None at the end. Raises _Silent where none comes in `seconds`."""
        try:
            return self._handed.get(timeout=seconds)
        except queue.Empty:
            raise _Silent from None

    def leave(self) -> None:
        """Nothing more is wanted: the thread closes the source as soon as it can."""
        self._left.set()
        if self.source is not None:
            self.source.stop()

    def join(self) -> None:
        """Wait for the thread to close the source, but not for ever: it may be stuck."""
        self._thread.join(LEAVING_SECONDS)

    def _read(self) -> None:
        try:
            with self._opened() as self.source:
                for frame in self.source:
                    if not self._hand(frame):
                        return
        except BaseException as error:  # raised where the frames are taken
            self.failure = error
        finally:
            self._hand(None)

    def _hand(self, item: Frame | None) -> bool:
        while not self._left.is_set():
            try:
                self._handed.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False


class LiveSource(FrameSource):
    """A live source as one sequence of frames, over as many connections as it takes.

    Indices go on from connection to connection, and so do times, by as much as went by between the arrivals;
    `Frame.connection` counts. Iterating ends where `stop` was asked for, and raises `SourceLost` where the
    source does not come back.
    """

    def __init__(
        self, source: Source, location: str, config: SourceConfig, policy: LiveConfig, *, stop: StopRequest
    ):
        """Takes over the `source` that was opened at the location as `config` says."""
        self._info = source.info
        self._location, self._config, self._policy, self._stop = location, config, policy, stop
        self._closed = threading.Event()
        self._past = 0, 0  # corrupt and derived times of earlier connections
        self._number = 0  # of this connection
        self._given = 0
        self._lived = 0.0  # seconds for which this connection has given frames
        self._last: Frame | None = None
        self._moved = 0, 0  # what is added to the index and the time of a frame of this connection
        self._connection = _Connection(lambda: source, self.info.name)
        self._frames = self._sequence()

    @property
    def info(self) -> SourceInfo:
        """As of the first connection."""
        return self._info

    @property
    def corrupt(self) -> int:
        """Of all connections."""
        source = self._connection.source
        return self._past[0] + (source.corrupt if source else 0)

    @property
    def derived_times(self) -> int:
        """Of all connections."""
        source = self._connection.source
        return self._past[1] + (source.derived_times if source else 0)

    def __next__(self) -> Frame:
        return next(self._frames)

    def close(self) -> None:
        """End the frames; the connection is closed by its own thread."""
        self._closed.set()
        self._connection.leave()
        self._connection.join()

    @property
    def _over(self) -> bool:
        return self._closed.is_set() or self._stop.signal is not None

    def _sequence(self) -> Iterator[Frame]:
        attempt = 0
        while True:
            reason = yield from self._connected(self._config.timeout * (OPENING if attempt else 1))
            if reason is None or self._over:
                return
            self.away = reason = reason.removeprefix(self.info.name).lstrip(": ")
            attempt = 1 if self._lived >= STEADY_SECONDS else attempt + 1
            if attempt > self._policy.attempts:
                self._give_up(reason, attempt - 1)
                return
            seconds = backoff(attempt, self._policy)
            log.warning("%s: %s; connecting again in %.1f s", self.info.name, reason, seconds)
            if not self._pause(seconds):
                return
            self._reconnect()

    def _connected(self, patience: float) -> Generator[Frame, None, str | None]:
        """The frames of this connection; returns why there are no more, None if no more are wanted."""
        connection, first = self._connection, None
        self._lived = 0.0
        while True:
            try:
                frame = self._wait(connection, patience)
            except _Silent:
                connection.failure = SourceLost(f"{self.info.name}: nothing came for {patience:g} s")
                return str(connection.failure)
            if frame is None:
                failure = connection.failure
                if failure is not None and not isinstance(failure, SourceError):
                    raise failure
                return "the stream ended" if failure is None else str(failure)
            patience, now = self._config.timeout, time.monotonic()
            first = now if first is None else first
            self._lived = now - first
            yield self._placed(frame)
            self._given += 1
            if self._given == self._config.max_frames:
                return None

    def _wait(self, connection: _Connection, patience: float) -> Frame | None:
        """The next frame, or None at the end and when it is over; looks for the latter now and then."""
        latest = time.monotonic() + patience
        while not self._over:
            left = latest - time.monotonic()
            try:
                return connection.take(max(min(left, POLL_SECONDS), 0))
            except _Silent:
                if left <= POLL_SECONDS:
                    raise
        return None

    def _placed(self, frame: Frame) -> Frame:
        """The frame with index and time going on from those of earlier connections."""
        last = self._last
        if last is not None and last.connection != self._number:
            self.reconnects += 1
            waited = 1 / self.info.rate
            if frame.arrival is not None and last.arrival is not None:
                waited = max(Fraction(frame.arrival - last.arrival).limit_denominator(10**6), waited)
            self._moved = last.index + 1 - frame.index, last.pts + waited - frame.pts
        index, pts = frame.index + self._moved[0], frame.pts + self._moved[1]
        self.away = None
        self._last = replace(frame, index=index, pts=pts, connection=self._number)
        return self._last

    def _give_up(self, reason: str, attempts: int) -> None:
        """The end without a further attempt: a loss, unless the stream just ended and none was asked for."""
        failure = self._connection.failure
        if not attempts and failure is None:
            return
        if not attempts:
            raise failure
        times = "an attempt" if attempts == 1 else f"{attempts} attempts"
        raise SourceLost(
            f"{self.info.name}: lost after {self._given} frames and {times} to connect again: {reason}"
        )

    def _pause(self, seconds: float) -> bool:
        """Wait; False if it is over meanwhile."""
        latest = time.monotonic() + seconds
        while (left := latest - time.monotonic()) > 0 and not self._over:
            self._closed.wait(min(left, POLL_SECONDS))
        return not self._over

    def _reconnect(self) -> None:
        self._past = self.corrupt, self.derived_times
        self._connection.leave()
        # A picture of PyAV whose side data were looked at holds itself, and with it all buffers of its
        # decoder; in a process with many objects it would be hundreds of connections until they are found.
        release_free_memory()
        self._number += 1
        wanted = self._config.max_frames
        config = replace(self._config, start=0, max_frames=wanted and wanted - self._given)
        self._connection = _Connection(
            lambda: open_source(self._location, config, any_size=True), self.info.name
        )


def backoff(attempt: int, policy: LiveConfig) -> float:
    """Seconds to wait before an attempt, counted from 1: doubled each time up to the cap, and shortened by a
    random part of up to half."""
    longest = min(policy.backoff * 2.0 ** min(attempt - 1, 64), policy.backoff_cap)
    return longest * random.uniform(0.5, 1)


def open_with_reconnect(location: str, config: RunConfig, stop: StopRequest) -> FrameSource:
    """The source at a location; one that is live comes back when it was lost, as `config.live` says.

    The size of its frames may change on the way. Raises what `open_source` does: a source must be there at
    the start.
    """
    source = open_source(location, config.source, any_size=True)
    if not source.info.live:
        return source
    return LiveSource(source, location, config.source, config.live, stop=stop)


def queue_policy(info: SourceInfo, policy: LiveConfig, dropped: Callable[[Frame], None]) -> QueuePolicy:
    """How frames of a source wait for the network."""
    on_full = policy.on_full
    if on_full == "auto":
        on_full = "drop-oldest" if info.live else "wait"
    return QueuePolicy(policy.queue or (WAITING if on_full == "wait" else KEEPING_UP), on_full, dropped)
