"""Iterable sources of frames, which own their reader and can be closed from any thread."""

from __future__ import annotations

import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Self

from pipeline.config.schema import SourceConfig
from pipeline.sources.packets.coded import CodedFile
from pipeline.sources.packets.ring import PacketRing
from pipeline.sources.preparation import SensorPreprocessing
from pipeline.sources.reader import Reader, Selection
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.system.errors import MoteError, SourceLost


class ReaderFault(SourceLost):
    """An error that a reader should have handled; it ends this source and no other one of the run."""

    def __init__(self, name: str, error: Exception):
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename.rpartition('/')[2]}, line {place.lineno}"
        # `strerror`, because the text of FFmpeg's errors holds the address with its password
        reason = f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
        super().__init__(f"{name} cannot be read, by a fault of the program: {reason} ({where})")


class FrameSource(ABC):
    """Iterator of frames that owns the files or connections behind it; use it in a `with` statement.

    Iteration raises SourceLost if the source ends early, also by a fault of its reader. `close` may be called
    at any time and from any thread, also while another thread waits for the next frame.
    """

    pictures: Sequence[str] = ()
    """Path of the image file of each frame, from frame 0; empty if the frames are no image files."""
    selection: Selection = Selection()
    """Which frames of the source this iterator yields."""
    coded: CodedFile | PacketRing | None = None
    """Where the coded packets of the frames are, if copies of them are videos that browsers play. Those of
    streams are kept if `open_source` was given a ring for them."""
    reconnects: int = 0
    """Number of connections after the first that yielded frames."""
    outage: str | None = None
    """Reason for the current loss of connection; None while frames arrive."""

    @property
    @abstractmethod
    def info(self) -> SourceInfo:
        """Known before the first frame; `frame_count` is the number of frames that this source yields."""

    @property
    @abstractmethod
    def corrupt(self) -> int:
        """Number of damaged frames skipped so far; their indices are left out."""

    @property
    @abstractmethod
    def derived_times(self) -> int:
        """Number of frames so far without a presentation time, which was derived from the rate."""

    @abstractmethod
    def __next__(self) -> Frame:
        """Returns the next frame."""

    @abstractmethod
    def close(self) -> None:
        """Ends the frames and closes all files; further calls do nothing."""

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Source(FrameSource):
    """Preprocessed frames of one file, folder or connection; returned by `open_source`."""

    def __init__(self, reader: Reader, config: SourceConfig | None = None, *, remark: bool = True):
        """Takes ownership of the reader, which is closed if construction fails.

        Without `remark` there is no warning about frames that use a small part of their scale.

        Raises SourceError or UsageError if the corrections of `config` do not fit the frames.
        """
        self._reader = reader
        try:
            self._preprocess = SensorPreprocessing(config or SourceConfig(), reader.info, remark=remark)
        except BaseException:
            reader.close()
            raise
        self.pictures, self.selection, self.coded = reader.pictures, reader.selection, reader.coded
        self._frames = reader.frames()
        self._closed = False
        # `close` may be called in another thread than the one that decodes, and must not close the container
        # under it.
        self._lock = threading.Lock()

    @property
    def info(self) -> SourceInfo:
        """The reader's `info`."""
        return self._reader.info

    @property
    def corrupt(self) -> int:
        """The reader's count."""
        return self._reader.corrupt

    @property
    def skipped(self) -> int:
        """Number of frames so far that were received and are not among those of the selection."""
        return self._reader.skipped

    @property
    def derived_times(self) -> int:
        """The reader's count."""
        return self._reader.derived_times

    def __next__(self) -> Frame:
        with self._lock:
            try:
                return self._preprocess(next(self._frames))
            except SourceLost:
                if self._closed:  # the requested end, not a loss
                    raise StopIteration from None
                raise
            except StopIteration:
                self._preprocess.finish()
                raise
            except MoteError:
                raise
            except Exception as error:
                raise ReaderFault(self.info.name, error) from error

    def stop(self) -> None:
        """Asks the frames to end soon, also for a thread that waits for the next one. Thread-safe."""
        self._closed = True
        self._reader.stop()

    def close(self) -> None:
        """Ends the frames and closes all files, after a frame that another thread is decoding."""
        self.stop()
        with self._lock:
            self._frames.close()
            self._reader.close()
