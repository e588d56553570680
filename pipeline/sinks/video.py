"""The annotated video: H.264 in mp4 at source resolution, each frame at the time it has in the source."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from pipeline.structures.frame import SourceInfo
from pipeline.structures.results import Result
from pipeline.system.errors import OutputError
from pipeline.system.files import atomic_write, output_error, require_present
from pipeline.system.signals import defer_signals

log = logging.getLogger(__name__)

_TICKS = 5_760_000
"""Ticks per second: a multiple of 90000, 15360, 12800, 120000, 24000 and 1000, so that the time stamps of
nearly all containers are whole numbers of ticks."""
_COARSE_TICKS = 90_000
"""For nominal rates that do not go with the finer ones."""
_MAX_GAP = 300
"""Seconds between two frames at most, if the nominal interval is not longer."""
_MIN_RATE = Fraction(1, 20_000)
"""Frames per second; for an interval longer than this, the coarse ticks are too many for `_MAX_TICKS`."""
_MAX_TICKS = 2**31 - 10
"""Between two frames, with room for rounding. The muxer counts them with 32 bits, and crashes on more."""
_KEY_FRAMES = 2
"""Seconds between key frames: what seeking jumps by, and what a killed run loses."""
_ORDINARY_BYTES = 1_000_000_000
"""Size up to which a file that was written without an index gets one at its end: some seconds of copying."""
_WITH_INDEX = "hybrid_fragmented+frag_keyframe"
"""The muxer remembers each frame, about 140 bytes, and ends with an ordinary mp4."""
_WITHOUT_INDEX = "frag_keyframe+delay_moov+default_base_moof+skip_trailer"
"""It remembers the frames of one fragment."""
_BT709 = 1
_LIMITED_RANGE = 1


class TimestampMapper:
    """From presentation times in a source to ticks since the first frame, strictly increasing.

    A time that does not advance is moved to one tick after the frame before. Where the clock was set back by
    more than a second, or jumps ahead by more than five minutes and than the nominal interval, the frame
    follows at the nominal interval and later ones keep their distance to it. `adjusted` counts the frames
    whose distance to the one before was changed.
    """

    def __init__(self, *, rate: Fraction, ticks: int):
        self._interval = 1 / rate
        self._longest = max(_MAX_GAP, self._interval + Fraction(1, ticks))  # the last one was rounded
        self._ticks = ticks
        self._offset: Fraction | None = None
        self._last = -1
        self.adjusted = 0

    def place(self, pts: Fraction) -> int:
        """Ticks of the frame that is presented at `pts` seconds; the first frame is at 0."""
        if self._offset is None:
            self._offset = pts
        last = Fraction(self._last, self._ticks)
        moved = pts - self._offset - last
        if not -1 <= moved <= self._longest:
            self._offset = pts - last - self._interval
            self.adjusted += 1
        tick = round((pts - self._offset) * self._ticks)
        if tick <= self._last:
            tick = self._last + 1
            self.adjusted += 1
        self._last = tick
        return tick


class VideoSink:
    """Encodes what an annotator draws; a context manager like every sink.

    Pixels: yuv420p, which every player shows; its frames have even sides, so a picture of odd size is
    extended by a copy of its last column or row. Time: the first frame is at 0, the distances between frames
    are the source's, exactly or to 0.1 µs, regular or not (see `TimestampMapper`). Safety: the file is
    written in fragments of two seconds, which are playable if the process is killed, and is turned into an
    ordinary mp4 on leaving, by an exception or not.

    Of a source without an end the muxer must not remember each frame: with `endless` what it holds does not
    grow. Such a file becomes an ordinary mp4 by a copy, if it is not too large for that; else it stays in
    fragments, which `as_ordinary` can join later.

    Args:
        path: the target file; it is overwritten.
        info: of the source: size and nominal rate.
        annotator: draws a result as (H, W, 3) uint8 R, G, B of the source's size.
        quality: constant rate factor of x264: 0 lossless, 51 worst.
        preset: of x264, speed against size.
        endless: nobody knows how many frames will come.
    """

    def __init__(
        self,
        path: str | Path,
        info: SourceInfo,
        annotator: Callable[[Result], np.ndarray],
        *,
        quality: float = 20,
        preset: str = "veryfast",
        endless: bool = False,
    ):
        self.path = Path(path)
        self._endless = endless
        self._info = info
        self._annotator = annotator
        self._options = {
            "preset": preset,
            "crf": str(quality),
            # a short look ahead and no B-frames: few frames in memory, and no time before the first one.
            # The network needs the cores more than the encoder does.
            "x264-params": "bframes=0:rc-lookahead=10:sync-lookahead=0:threads=1:log-level=error",
        }
        self._rate = max(info.rate, _MIN_RATE)
        self._ticks = _ticks(self._rate)
        self._timeline = TimestampMapper(rate=self._rate, ticks=self._ticks)
        self._padding = ((0, info.height % 2), (0, info.width % 2), (0, 0))
        self._reformatter = VideoReformatter()
        self._empty = True

    @property
    def adjusted(self) -> int:
        """Frames so far whose time could not be kept, see `TimestampMapper`."""
        return self._timeline.adjusted

    @property
    def size(self) -> int:
        """Bytes on the disk so far."""
        return self._file.size

    def __enter__(self) -> Self:
        self._file = _SealingFile(self.path)
        # flush_packets: or the fragments would wait in a buffer for longer than they should
        self._open({"movflags": _WITHOUT_INDEX if self._endless else _WITH_INDEX, "flush_packets": "1"})
        return self

    def _open(self, options: dict[str, str]) -> None:
        try:
            self._container = av.open(self._file, "w", format="mp4", options=options)
            self._stream = self._add_stream()
        except (av.error.FFmpegError, ValueError) as error:
            self._file.close()
            raise output_error(self.path, error) from error

    def _add_stream(self) -> av.VideoStream:
        info = self._info
        stream = self._container.add_stream("libx264", rate=self._rate, options=self._options)
        stream.width, stream.height = info.width + info.width % 2, info.height + info.height % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, self._ticks)
        context.thread_count = 1
        context.gop_size = max(1, round(_KEY_FRAMES * self._rate))
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        return stream

    def write(self, result: Result) -> None:
        """Draw and encode one result.

        Raises:
            OutputError: it cannot be written, or its size is not the source's.
        """
        picture = self._annotator(result)
        expected = (self._info.height, self._info.width, 3)
        if picture.shape != expected:
            raise OutputError(
                f"cannot write {self.path}: frame {result.frame.index} has the shape {picture.shape}, "
                f"but the video was begun with {expected}"
            )
        if any(after for _, after in self._padding):
            picture = np.pad(picture, self._padding, mode="edge")
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = self._reformatter.reformat(frame, format="yuv420p", dst_colorspace="ITU709")
        frame.pts = self._timeline.place(result.frame.pts)
        frame.time_base = Fraction(1, self._ticks)
        self._empty = False
        self._encode(frame)

    def _encode(self, frame: av.VideoFrame | None) -> None:
        """Encode and write a frame, or with None all that the encoder still holds."""
        with defer_signals():  # a packet that is taken out and not written would spoil those after it
            try:
                for packet in self._stream.encode(frame):
                    self._container.mux(packet)
            except av.error.FFmpegError as error:
                raise output_error(self.path, error) from error
            self._file.checkpoint()

    def __exit__(self, kind, error, traceback) -> None:
        with defer_signals():
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        """Complete and close the file; a fault is noted on the `error` that is on its way out, if one is."""
        try:
            if self._empty:
                self._write_empty()
            else:
                self._finish()
        except OutputError as fault:
            if error is None:
                raise
            if error is not fault and str(error) != str(fault):
                error.add_note(f"then: {fault}")
        finally:
            self._file.close()
        if self._endless and not self._empty and self.size <= _ORDINARY_BYTES:
            try:
                as_ordinary(self.path)
            except OutputError as fault:  # such as a disk without room for the copy: the fragments are whole
                log.warning("%s stays in fragments: %s", self.path.name, fault)

    def _finish(self) -> None:
        try:
            self._encode(None)
        finally:
            self._close()

    def _write_empty(self) -> None:
        """A video without frames; the fragmented kind cannot be ended before its first frame."""
        self._open({"movflags": "empty_moov"})
        self._container.start_encoding()
        self._close()

    def _close(self) -> None:
        try:
            self._container.close()
        except av.error.FFmpegError as error:
            raise output_error(self.path, error) from error
        self._file.checkpoint()


def as_ordinary(path: Path) -> int:
    """Turn fragments, also those that a killed process has left, into an ordinary mp4; returns the number of
    frames.

    Nothing is coded anew, times stay, and half a fragment is left out. Before the first whole one the file
    stays as it is, and the number is 0. Raises OutputError where the file cannot be written.
    """
    try:
        with atomic_write(path) as partial:
            return _remux(path, partial)
    except (av.error.InvalidDataError, av.error.EOFError, IndexError):  # no header, or no whole fragment
        return 0
    except av.error.FFmpegError as error:
        raise output_error(path, error) from error


def _remux(fragmented: Path, ordinary: Path) -> int:
    """Copies the whole fragments of a video into an ordinary mp4; returns the number of frames.

    Raises IndexError if there is none.
    """
    with av.open(f"file:{fragmented}") as given, av.open(f"file:{ordinary}", "w", format="mp4") as made:
        stream = given.streams.video[0]
        if stream.codec_context is None:
            raise IndexError("the header is cut off before the codec")
        copy = made.add_stream_from_template(stream)
        copy.time_base = stream.time_base
        count = 0
        for packet in _whole_packets(given, stream):
            packet.stream = copy
            made.mux(packet)
            count += 1
    if not count:
        raise IndexError("no whole fragment")
    return count


def _whole_packets(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    with suppress(av.error.FFmpegError):
        for packet in container.demux(stream):
            if packet.is_corrupt:  # the file ends within it
                return
            if packet.size:
                yield packet


def _ticks(rate: Fraction) -> int:
    """Ticks per second: a whole number of them in the nominal interval, and in others if possible."""
    exact = (math.lcm(_TICKS, rate.numerator), math.lcm(_COARSE_TICKS, rate.numerator))
    longest = max(_MAX_GAP, 1 / rate)
    return next(ticks for ticks in (*exact, _TICKS, _COARSE_TICKS) if ticks * longest <= _MAX_TICKS)


class _SealingFile:
    """The file under the muxer: after the first fault it accepts everything and writes nothing more.

    The muxer, told of a full disk, would still turn its fragments into an ordinary mp4 and ruin them halfway.
    So it is not told; `checkpoint` raises the fault instead, and the file ends with the last whole fragment.
    Likewise for all else that is raised in `write`: PyAV passes errors on to the muxer, and loses the rest.
    """

    def __init__(self, path: Path):
        self._path = path
        self._fault: BaseException | None = None
        self._good = 0
        try:
            self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise output_error(path, error) from error

    def write(self, data) -> int:
        """Write all of `data`, the muxer's view of its buffer."""
        view, start = memoryview(data), self._file.tell()
        try:
            while view and self._fault is None:  # a nearly full disk takes a part first
                view = view[self._file.write(view) :]
        except BaseException as error:
            self._fault = error
            if start >= self._good:  # else it is the header, rewritten when all is there
                self._file.truncate(self._good)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to `offset`, as files do."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The position of the next write."""
        return self._file.tell()

    @property
    def size(self) -> int:
        """Bytes that are known to be whole."""
        return self._good

    def checkpoint(self) -> None:
        """Declare all that was written to be whole; if not all was, raise why, as `OutputError` if it can."""
        if isinstance(self._fault, OSError):
            raise output_error(self._path, self._fault) from self._fault
        if self._fault is not None:
            raise self._fault
        try:
            require_present(self._file)
        except OSError as error:
            raise output_error(self._path, error) from error
        self._good = os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file; `OutputError` if the system reports a late fault."""
        try:
            self._file.close()
        except OSError as error:
            raise output_error(self._path, error) from error
