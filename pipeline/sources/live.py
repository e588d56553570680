"""Live sources: reconnection with backoff, timeouts, and the queue policy.

Each connection is read in a thread of its own, and the consumer waits at most `source.timeout` for a frame.
A connection whose thread is stuck, because a peer sends nothing or a driver never returns, is abandoned.
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

import numpy as np

from pipeline.config.schema import LiveConfig, SourceConfig
from pipeline.imaging.pixel_formats import convert_channels
from pipeline.sources.opening import open_source
from pipeline.sources.packets.ring import PacketRing
from pipeline.sources.source import FrameSource, Source
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.system.errors import SourceError, SourceLost
from pipeline.system.memory import release_free_memory
from pipeline.system.prefetch import POLL_SECONDS, QueuePolicy
from pipeline.system.signals import StopRequest
from pipeline.system.terminal import printable

OPENING_TIMEOUTS = 3
"""Time limit for the first frame of a new connection, as a multiple of `source.timeout`: opening a connection
takes several waits."""
STABLE_SECONDS = 10.0
"""Duration of frames after which a connection counts as stable and resets the number of attempts."""
QUEUE_SIZE_WAIT, QUEUE_SIZE_DROP = 8, 2
"""Default queue sizes before the detector: long enough to even out the load if the source waits, short for
low latency if frames are dropped."""
CLOSE_SECONDS = 2.0
"""Maximum time that `LiveSource.close` waits for the connection to close."""
log = logging.getLogger(__name__)


class _Timeout(Exception):
    """No frame arrived in time."""


class _Connection:
    """A source that is opened and read in a thread of its own, so that the consumer never blocks on it."""

    def __init__(self, open_: Callable[[], Source], name: str):
        self._open = open_
        self._queue: queue.Queue[Frame | None] = queue.Queue(1)
        self._abandoned = threading.Event()
        self.source: Source | None = None
        self.failure: BaseException | None = None
        """The exception that ended the frames; None at their regular end."""
        self._thread = threading.Thread(target=self._read, name=f"read {name}", daemon=True)
        self._thread.start()

    def get(self, timeout: float) -> Frame | None:
        """Returns the next frame, None at the end. Raises _Timeout if none arrives in `timeout` seconds."""
        try:
            return self._queue.get(timeout=timeout)
        except queue.Empty:
            raise _Timeout from None

    @property
    def skipped(self) -> int:
        """Number of frames so far that were received and not put into the queue."""
        return self.source.skipped if self.source else 0

    def abandon(self) -> None:
        """Asks the thread to close the source as soon as it can."""
        self._abandoned.set()
        if self.source is not None:
            self.source.stop()

    def join(self) -> None:
        """Waits for the thread to close the source, up to `CLOSE_SECONDS`, because it may be stuck."""
        self._thread.join(CLOSE_SECONDS)

    def _read(self) -> None:
        try:
            with self._open() as self.source:
                for frame in self.source:
                    if not self._put(frame):
                        return
        except BaseException as error:  # handled by the consumer
            self.failure = error
        finally:
            self._put(None)

    def _put(self, item: Frame | None) -> bool:
        """Puts an item when there is room; returns False if the connection is abandoned."""
        while not self._abandoned.is_set():
            try:
                self._queue.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False


class LiveSource(FrameSource):
    """A live source as one sequence of frames over any number of connections.

    Images have the channels and the bit depth of the first connection, whatever a later one sends. Indices
    continue from one connection to the next, and presentation times advance by the time between the
    arrivals; `Frame.connection` numbers the connections. Iteration ends after a request to stop, and raises
    SourceLost if the source cannot be opened again.
    """

    def __init__(
        self,
        source: Source,
        location: str,
        config: SourceConfig,
        policy: LiveConfig,
        *,
        stop: StopRequest,
        packets: PacketRing | None = None,
    ):
        """Takes ownership of `source`, which was opened at `location` with `config` and `packets`."""
        self._info, self.selection, self.coded = source.info, source.selection, source.coded
        self._packets = packets
        self._location, self._config, self._policy, self._stop = location, config, policy, stop
        self._closed = threading.Event()
        self._counts = 0, 0  # corrupt frames and derived times of earlier connections
        self._number = 0  # of this connection
        self._yielded = 0
        self._uptime = 0.0  # seconds from the first to the latest frame of this connection
        self._last: Frame | None = None
        # added to the index and the presentation time of the frames of this connection
        self._shift: tuple[int, Fraction] = (0, Fraction(0))
        self._connection = _Connection(lambda: source, self.info.name)
        self._frames = self._sequence()

    @property
    def info(self) -> SourceInfo:
        """That of the first connection."""
        return self._info

    @property
    def corrupt(self) -> int:
        """Sum over all connections."""
        source = self._connection.source
        return self._counts[0] + (source.corrupt if source else 0)

    @property
    def derived_times(self) -> int:
        """Sum over all connections."""
        source = self._connection.source
        return self._counts[1] + (source.derived_times if source else 0)

    def __next__(self) -> Frame:
        return next(self._frames)

    def close(self) -> None:
        """Ends the frames; the connection is closed by its own thread."""
        self._closed.set()
        self._connection.abandon()
        self._connection.join()

    @property
    def _stopping(self) -> bool:
        return self._closed.is_set() or self._stop.signal is not None

    def _sequence(self) -> Iterator[Frame]:
        attempt = 0
        while True:
            reason = yield from self._connected(self._config.timeout * (OPENING_TIMEOUTS if attempt else 1))
            if reason is None or self._stopping:
                return
            self.outage = reason = reason.removeprefix(self.info.name).lstrip(": ")
            attempt = 1 if self._uptime >= STABLE_SECONDS else attempt + 1
            if attempt > self._policy.attempts:
                self._give_up(reason, attempt - 1)
                return
            seconds = backoff(attempt, self._policy)
            name, cause = printable(self.info.name), printable(reason)
            log.warning("%s: %s; connecting again in %.1f s", name, cause, seconds)
            if not self._pause(seconds):
                return
            self._reconnect()

    def _connected(self, patience: float) -> Generator[Frame, None, str | None]:
        """Yields the frames of this connection; returns why they ended, None if no more are requested."""
        connection, first = self._connection, None
        self._uptime = 0.0
        while True:
            try:
                frame = self._wait(connection, patience)
            except _Timeout:
                connection.failure = SourceLost(f"{self.info.name}: no frame for {patience:g} s")
                return str(connection.failure)
            if frame is None:
                failure = connection.failure
                if failure is not None and not isinstance(failure, SourceError):
                    raise failure
                return "the stream ended" if failure is None else str(failure)
            patience, now = self._config.timeout, time.monotonic()
            first = now if first is None else first
            self._uptime = now - first
            frame = self._continued(frame)
            yield frame
            self._yielded += 1
            following = frame.index + self.selection.stride
            if self._yielded == self.selection.max_frames or self.selection.is_past(following):
                return None

    def _wait(self, connection: _Connection, patience: float) -> Frame | None:
        """Returns the next frame, or None at the end or if the source is stopping, which is polled.

        Raises _Timeout if no frame arrives within `patience` seconds.
        """
        latest, skipped = time.monotonic() + patience, connection.skipped
        while not self._stopping:
            left = latest - time.monotonic()
            try:
                return connection.get(max(min(left, POLL_SECONDS), 0))
            except _Timeout:
                if connection.skipped != skipped:  # frames arrive that the selection leaves out
                    latest, skipped = time.monotonic() + patience, connection.skipped
                elif left <= POLL_SECONDS:
                    raise
        return None

    def _continued(self, frame: Frame) -> Frame:
        """Returns the frame with index and time continued from those of earlier connections."""
        last = self._last
        if last is not None:
            frame = in_form(frame, self.info, last.image.dtype)
        if last is not None and last.connection != self._number:
            self.reconnects += 1
            self._warn_of_another_form()
            waited = 1 / self.info.rate
            if frame.arrival is not None and last.arrival is not None:
                waited = max(Fraction(frame.arrival - last.arrival).limit_denominator(10**6), waited)
            self._shift = last.index + self.selection.stride - frame.index, last.pts + waited - frame.pts
        index, pts = frame.index + self._shift[0], frame.pts + self._shift[1]
        self.outage = None
        self._last = replace(frame, index=index, pts=pts, connection=self._number)
        return self._last

    def _warn_of_another_form(self) -> None:
        """Logs that the images of this connection are converted, if they are."""
        source, name = self._connection.source, printable(self.info.name)
        if source is not None and _form(source.info) != _form(self.info):
            log.warning(
                "%s comes back as %s; its images are converted to %s, as on the first connection",
                name,
                _form(source.info),
                _form(self.info),
            )

    def _give_up(self, reason: str, attempts: int) -> None:
        """Raises the loss of the source; returns if its stream ended and no reconnection is configured."""
        failure = self._connection.failure
        if not attempts:
            if failure is None:
                return
            raise failure
        times = "an attempt" if attempts == 1 else f"{attempts} attempts"
        raise SourceLost(
            f"{self.info.name}: lost after {self._yielded} frames and {times} to connect again: {reason}"
        )

    def _pause(self, seconds: float) -> bool:
        """Waits for `seconds`; returns False early if the source is stopping."""
        latest = time.monotonic() + seconds
        while (left := latest - time.monotonic()) > 0 and not self._stopping:
            self._closed.wait(min(left, POLL_SECONDS))
        return not self._stopping

    def _reconnect(self) -> None:
        self._counts = self.corrupt, self.derived_times
        self._connection.abandon()
        # A frame of PyAV whose side data were read refers to itself, and keeps all buffers of its decoder
        # alive. In a process with many objects, garbage collection would run after hundreds of connections.
        release_free_memory()
        self._number += 1
        config = self._config
        if self._last is not None:  # the first frame of the new connection takes the next place
            following = self._last.index + self.selection.stride
            end, limit = self.selection.end, config.max_frames
            left = 0 if end is None else end - following
            config = replace(config, start=0, end=left, max_frames=limit and limit - self._yielded)
        self._connection = _Connection(
            lambda: open_source(self._location, config, allow_resize=True, packets=self._packets),
            self.info.name,
        )


def in_form(frame: Frame, info: SourceInfo, dtype: np.dtype) -> Frame:
    """Returns the frame with as many channels and bits as a source has, of a dtype; its size is unchanged.

    Samples are scaled so that full scale stays full scale. If bits are lost, the grey levels that the
    networks map to 0 and 1 become 0 and full scale, so that a narrow range does not vanish.
    """
    image, levels = frame.image, frame.levels
    channels = 1 if image.ndim == 2 else 3
    if channels == info.channels and frame.bit_depth == info.bit_depth and image.dtype == dtype:
        return frame
    image = convert_channels(image, grey=info.channels == 1)
    if frame.bit_depth != info.bit_depth:
        low, high = 0.0, 2.0**frame.bit_depth - 1
        if levels is not None and frame.bit_depth > info.bit_depth:
            (low, high), levels = levels, None
        full_scale = 2.0**info.bit_depth - 1
        scaled = (image.astype(np.float32) - np.float32(low)) * np.float32(full_scale / (high - low))
        image = np.rint(scaled).clip(0, full_scale)
        if levels is not None:
            levels = levels[0] * full_scale / high, levels[1] * full_scale / high
    return replace(frame, image=image.astype(dtype), bit_depth=info.bit_depth, levels=levels)


def _form(info: SourceInfo) -> str:
    return f"{'grey' if info.channels == 1 else 'colour'} of {info.bit_depth} bits"


def backoff(attempt: int, policy: LiveConfig) -> float:
    """Returns the seconds to wait before an attempt, counted from 1.

    They double with each attempt up to the cap, and are shortened by a random part of up to half.
    """
    longest = min(policy.backoff * 2.0 ** min(attempt - 1, 64), policy.backoff_cap)
    return longest * random.uniform(0.5, 1)


def queue_policy(info: SourceInfo, policy: LiveConfig, dropped: Callable[[Frame], None]) -> QueuePolicy:
    """Returns the policy of the queue before the detector; "auto" drops frames of live sources only."""
    on_full = policy.on_full
    if on_full == "auto":
        on_full = "drop-oldest" if info.live else "wait"
    return QueuePolicy(
        policy.queue or (QUEUE_SIZE_WAIT if on_full == "wait" else QUEUE_SIZE_DROP), on_full, dropped
    )
