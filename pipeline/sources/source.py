"""pipeline.sources.source."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Self

from pipeline.config.schema import SourceConfig
from pipeline.sources.preparation import SensorPreprocessing
from pipeline.sources.reader import Reader
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.system.errors import SourceLost


class FrameSource(ABC):
    """Iterator of frames, and the owner of what they come from: use it in a `with` statement.

    Iterating raises `SourceLost` where the frames end before their end. `close` may be called at any time and
    from any thread, also while another one waits for the next frame.
    """

    reconnects: int = 0
    """Connections after the first that gave frames."""
    away: str | None = None
    """Why frames no longer come, from the loss of a connection until a frame comes by another."""

    @property
    @abstractmethod
    def info(self) -> SourceInfo:
        """Known before the first frame; `frame_count` is the number of frames this source will give."""

    @property
    @abstractmethod
    def corrupt(self) -> int:
        """Coded pictures so far that were damaged and skipped; their indices are left out."""

    @property
    @abstractmethod
    def derived_times(self) -> int:
        """Frames so far without a presentation time, which was derived from the rate."""

    @abstractmethod
    def __next__(self) -> Frame:
        """The next frame."""

    @abstractmethod
    def close(self) -> None:
        """End the frames and close what they come from; later calls do nothing."""

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Source(FrameSource):
    """The frames of one file, folder or connection: what `open_source` gives."""

    def __init__(self, reader: Reader, config: SourceConfig | None = None):
        """Takes over the reader. Raises SourceError or UsageError where `config` does not fit its frames."""
        self._reader = reader
        try:
            self._prepare = SensorPreprocessing(config or SourceConfig(), reader.info)
        except BaseException:
            reader.close()
            raise
        self._frames = reader.frames()
        self._closed = False
        # Who closes the source may not be the thread that decodes, which must not find its container gone.
        self._lock = threading.Lock()

    @property
    def info(self) -> SourceInfo:
        """As the reader found it when it was opened."""
        return self._reader.info

    @property
    def corrupt(self) -> int:
        """As the reader counts them."""
        return self._reader.corrupt

    @property
    def derived_times(self) -> int:
        """As the reader counts them."""
        return self._reader.derived_times

    def __next__(self) -> Frame:
        with self._lock:
            try:
                return self._prepare(next(self._frames))
            except SourceLost:
                if self._closed:  # no loss, if it was asked for
                    raise StopIteration from None
                raise

    def stop(self) -> None:
        """Called from any thread: the frames shall end soon, also for a thread that waits for the next."""
        self._closed = True
        self._reader.stop()

    def close(self) -> None:
        """Waits for a frame that is being decoded in another thread."""
        self.stop()
        with self._lock:
            self._frames.close()
            self._reader.close()
