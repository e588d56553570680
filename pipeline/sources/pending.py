"""Sources that are being opened: each in a thread of its own, and again if its peer is not there yet."""

from __future__ import annotations

import logging
import threading
import time

from pipeline.config.schema import RunConfig
from pipeline.sources.live import LiveSource, backoff
from pipeline.sources.opening import open_source
from pipeline.sources.packets.ring import PacketRing
from pipeline.sources.reader import SourceUnavailable
from pipeline.sources.source import FrameSource
from pipeline.system.errors import MoteError, SourceError
from pipeline.system.prefetch import POLL_SECONDS
from pipeline.system.redaction import redact_location
from pipeline.system.signals import StopRequest
from pipeline.system.terminal import printable

log = logging.getLogger(__name__)


RING_SECONDS = 15.0
"""Time that a ring of packets covers in addition to the pre-roll: from the arrival of a packet to the message
about its frame, with a group of pictures."""


def packet_ring(config: RunConfig) -> PacketRing | None:
    """Returns a ring for the packets of a source, if evidence of events is kept; None otherwise."""
    events = config.events
    if not events.keeps_evidence:
        return None
    return PacketRing(seconds=events.pre_roll + RING_SECONDS, max_bytes=events.clip_bytes)


class PendingSource:
    """A source that is opened in a thread, since FFmpeg may wait for data and then no signal is received.

    A live source is opened again after a loss as `config.live` declares, and its frame size may change from
    one connection to the next. With `retry` the first connection is tried again in the same way, if the
    address does not answer or the camera is missing.

    A context manager: at the end of the block the source is closed, or its thread is left behind, which
    closes the source if it is ever opened.
    """

    outage: str | None = None
    """Why the latest attempt to open the source failed; None before the first failure."""

    def __init__(self, location: str, config: RunConfig, stop: StopRequest, *, retry: bool = False):
        self._location, self._config, self._stop = location, config, stop
        self._retries = config.live.attempts if retry else 0
        self._name = redact_location(location)
        self._lock = threading.Lock()
        self._decided = threading.Event()
        self._closed = threading.Event()
        self._source: FrameSource | None = None
        self._failure: BaseException | None = None
        self.since = time.monotonic()
        """Start of the first attempt, in seconds of `time.monotonic`."""
        threading.Thread(target=self._work, name=f"open {self._name}", daemon=True).start()

    def __enter__(self) -> PendingSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def decided(self) -> bool:
        """True once the source is open or will not be opened any more."""
        return self._decided.is_set()

    @property
    def opened(self) -> bool:
        """True once the source is open."""
        return self._source is not None

    def wait(self) -> FrameSource:
        """Returns the source as soon as it is open.

        Raises SourceError or UsageError if it cannot be opened, as `open_source` does, and Interrupted if a
        signal arrives before.
        """
        while not self._decided.wait(POLL_SECONDS):
            self._stop.check()
            if self._closed.is_set():
                raise SourceError(f"{self._name} was closed before it was open")
        if self._failure is not None:
            raise self._failure
        assert self._source is not None
        return self._source

    def close(self) -> None:
        """Closes the source, or ends the attempts to open it; further calls do nothing."""
        with self._lock:
            self._closed.set()
            source = self._source
        if source is not None:
            source.close()

    def _work(self) -> None:
        try:
            source = self._open_repeatedly()
        except BaseException as error:  # raised by `wait`
            self._failure = error
        else:
            with self._lock:
                self._source = source
                closed = self._closed.is_set()
            if closed:
                source.close()
        self._decided.set()

    def _open_repeatedly(self) -> FrameSource:
        attempt = 0
        while True:
            try:
                return self._open()
            except SourceUnavailable as error:
                reason = str(error)
                attempt += 1
                if attempt > self._retries:
                    raise self._final_error(error, attempt - 1) from error
            self.outage = reason
            seconds = backoff(attempt, self._config.live)
            log.warning("%s; connecting again in %.1f s", printable(reason), seconds)
            if self._closed.wait(seconds) or self._stop.signal is not None:
                raise SourceError(reason)

    def _open(self) -> FrameSource:
        config = self._config
        packets = packet_ring(config)
        source = open_source(self._location, config.source, allow_resize=True, packets=packets)
        if not source.info.live:
            return source
        return LiveSource(
            source, self._location, config.source, config.live, stop=self._stop, packets=packets
        )

    def _final_error(self, error: SourceError, retries: int) -> MoteError:
        """Returns the error for a source that was not opened after a number of repeated attempts."""
        if not retries:
            return error
        times = "another attempt" if retries == 1 else f"{retries} more attempts"
        return SourceError(f"{error}; {times} failed, too")
