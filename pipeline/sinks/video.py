"""Writes `annotated.mp4`: annotated frames as H.264 in MP4, at the resolution and times of the source."""

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
from av.video.reformatter import Colorspace, VideoReformatter

from pipeline.structures.frame import SourceInfo
from pipeline.structures.results import Result
from pipeline.system.errors import OutputError
from pipeline.system.files import atomic_write, create_file, output_error, require_unchanged
from pipeline.system.reserved import FollowedFolder
from pipeline.system.signals import defer_signals

log = logging.getLogger(__name__)

_TICKS = 5_760_000
"""Ticks per second: a multiple of 90000, 15360, 12800, 120000, 24000 and 1000, so that the timestamps of
nearly all containers are whole numbers of ticks."""
_COARSE_TICKS = 90_000
"""Ticks per second for nominal rates with which the finer ticks would exceed `_MAX_TICKS`."""
_MAX_GAP = Fraction(300)
"""Maximum time between two frames in seconds, unless the nominal interval is longer."""
_MIN_RATE = Fraction(1, 20_000)
"""Minimum nominal rate in frames per second; at a lower one even coarse ticks would exceed `_MAX_TICKS`."""
_MAX_TICKS = 2**31 - 10
"""Maximum number of ticks between two frames, with a margin for rounding. The muxer counts them with 32 bits
and crashes if there are more."""
_KEY_FRAME_SECONDS = 2
"""Time between key frames: the step of seeking, and what a killed run loses."""
_MAX_DEFRAGMENTED_BYTES = 1_000_000_000
"""Maximum size of an endless video that is defragmented at the end of a run, which takes some seconds."""
_WITH_INDEX = "hybrid_fragmented+frag_keyframe"
"""The muxer remembers all frames, about 140 bytes each, and ends with a regular MP4."""
_WITHOUT_INDEX = "frag_keyframe+delay_moov+default_base_moof+skip_trailer"
"""The muxer remembers the frames of one fragment."""
_BT709 = 1  # AVCOL_SPC_BT709, AVCOL_PRI_BT709, AVCOL_TRC_BT709
_LIMITED_RANGE = 1  # AVCOL_RANGE_MPEG


class TimestampMapper:
    """Maps presentation times of a source to ticks since the first frame, which are strictly increasing.

    A time that does not advance is mapped to one tick after the previous frame. If the clock is set back by
    more than a second, or jumps ahead by more than five minutes and more than the nominal interval, the frame
    follows at the nominal interval, and later frames keep their distance to it.

    Args:
        rate: nominal rate of the source in frames per second.
        ticks: ticks per second.
    """

    def __init__(self, *, rate: Fraction, ticks: int):
        self._interval = 1 / rate
        # one tick more, since the last time was rounded
        self._max_interval = max(_MAX_GAP, self._interval + Fraction(1, ticks))
        self._ticks = ticks
        self._offset: Fraction | None = None
        self._last = -1
        self.adjusted = 0
        """Number of frames whose distance to the previous one was changed."""

    def to_ticks(self, pts: Fraction) -> int:
        """Returns the ticks of a frame with the presentation time `pts` in seconds; 0 for the first frame."""
        if self._offset is None:
            self._offset = pts
        last = Fraction(self._last, self._ticks)
        interval = pts - self._offset - last
        if not -1 <= interval <= self._max_interval:
            self._offset = pts - last - self._interval
            self.adjusted += 1
        tick = round((pts - self._offset) * self._ticks)
        if tick <= self._last:
            tick = self._last + 1
            self.adjusted += 1
        self._last = tick
        return tick


class VideoSink:
    """Draws and encodes results.

    Pixels are yuv420p, which every player supports and which needs even sides: an image of odd size is padded
    with a copy of its last column or row. The first frame is at time 0; intervals between frames are those of
    the source, exactly or to 0.1 µs, also if they are irregular (see `TimestampMapper`). The file is written
    as fragments of two seconds, which are playable if the process is killed; leaving turns it into a regular
    MP4, also after an exception.

    If a source is endless, the muxer must not remember all frames: with `endless` its memory does not grow.
    Leaving then defragments the file by copying it if it is not too large; else `defragment` can do so later.

    Args:
        path: file to write; it is replaced.
        info: size and nominal rate of the source.
        annotator: draws a result; returns (H, W, 3) uint8 R, G, B of the size of the source.
        quality: constant rate factor of x264: 0 is lossless, 51 the worst.
        preset: preset of x264, a compromise between speed and size.
        endless: the number of frames has no bound.
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
            # A short lookahead and no B-frames: few frames in memory, and no decoding time before the first.
            # One thread: the network needs the cores more than the encoder does.
            "x264-params": "bframes=0:rc-lookahead=10:sync-lookahead=0:threads=1:log-level=error",
        }
        self._rate = max(info.rate, _MIN_RATE)
        self._ticks = _ticks(self._rate)
        self._timestamps = TimestampMapper(rate=self._rate, ticks=self._ticks)
        self._padding = ((0, info.height % 2), (0, info.width % 2), (0, 0))
        self._reformatter = VideoReformatter()
        self._empty = True

    @property
    def adjusted(self) -> int:
        """Number of frames whose time could not be kept, see `TimestampMapper`."""
        return self._timestamps.adjusted

    @property
    def size(self) -> int:
        """Size in bytes of the part of the file that is valid."""
        return self._file.size

    def __enter__(self) -> Self:
        self._file = _SealingFile(self.path)
        self._folder = FollowedFolder(self.path.parent)
        # without flush_packets, complete fragments would stay in a buffer
        self._open({"movflags": _WITHOUT_INDEX if self._endless else _WITH_INDEX, "flush_packets": "1"})
        return self

    def _open(self, options: dict[str, str]) -> None:
        try:
            self._container = av.open(self._file, "w", format="mp4", options=options)
            self._stream = self._add_stream()
        except (av.error.FFmpegError, ValueError) as error:
            self._file.close()
            self._folder.close()
            raise output_error(self.path, error) from error

    def _add_stream(self) -> av.VideoStream:
        info = self._info
        stream = self._container.add_stream("libx264", rate=self._rate, options=self._options)
        stream.width, stream.height = info.width + info.width % 2, info.height + info.height % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, self._ticks)
        context.thread_count = 1
        context.gop_size = max(1, round(_KEY_FRAME_SECONDS * self._rate))
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        return stream

    def write(self, result: Result) -> None:
        """Draws and encodes one result.

        Raises OutputError if it cannot be written, or if its size is not that of the source.
        """
        image = self._annotator(result)
        expected = (self._info.height, self._info.width, 3)
        if image.shape != expected:
            raise OutputError(
                f"cannot write {self.path}: frame {result.frame.index} has the shape {image.shape}, "
                f"but the video was begun with {expected}"
            )
        if any(after for _, after in self._padding):
            image = np.pad(image, self._padding, mode="edge")
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame = self._reformatter.reformat(frame, format="yuv420p", dst_colorspace=Colorspace.ITU709)
        frame.pts = self._timestamps.to_ticks(result.frame.pts)
        frame.time_base = Fraction(1, self._ticks)
        self._empty = False
        self._encode(frame)

    def _encode(self, frame: av.VideoFrame | None) -> None:
        """Encodes and writes a frame; None flushes the encoder."""
        with defer_signals():  # later packets cannot be decoded if one is taken from the encoder and lost
            try:
                for packet in self._stream.encode(frame):
                    self._container.mux(packet)
            except av.error.FFmpegError as error:
                raise output_error(self.path, error) from error
            self._file.checkpoint()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        with defer_signals():
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        """Completes and closes the file; if `error` is being raised, a failure becomes a note on it."""
        folder = self._folder.path
        self._folder.close()
        try:
            if self._empty:
                self._write_empty()
            else:
                self._finish()
        except OutputError as failure:
            if error is None:
                raise
            if error is not failure and str(error) != str(failure):
                error.add_note(f"then: {failure}")
        finally:
            self._file.close()
        if self._endless and not self._empty and self.size <= _MAX_DEFRAGMENTED_BYTES:
            try:
                defragment(folder / self.path.name)
            except OutputError as failure:  # no room for the copy, for example: the fragments are playable
                log.warning("%s stays in fragments: %s", self.path.name, failure)

    def _finish(self) -> None:
        try:
            self._encode(None)
        finally:
            self._close()

    def _write_empty(self) -> None:
        """Writes a video without frames; a fragmented one cannot be completed before its first frame."""
        self._open({"movflags": "empty_moov"})
        self._container.start_encoding()
        self._close()

    def _close(self) -> None:
        try:
            self._container.close()
        except av.error.FFmpegError as error:
            raise output_error(self.path, error) from error
        self._file.checkpoint()


def defragment(path: Path) -> int:
    """Turns a fragmented MP4, which a killed process may have left, into a regular one, without reencoding.

    Times are preserved, an incomplete fragment is left out. Returns the number of frames; 0 if there is no
    complete fragment, in which case the file is unchanged. Raises OutputError if the file cannot be written.
    """
    try:
        with atomic_write(path) as partial:
            return _remux(path, partial)
    except (av.error.InvalidDataError, av.error.EOFError, IndexError):  # no header, or no complete fragment
        return 0
    except av.error.FFmpegError as error:
        raise output_error(path, error) from error


def write_empty(path: Path, info: SourceInfo) -> None:
    """Replaces a file by a video without frames, which can be opened. Raises OutputError."""
    with atomic_write(path) as partial, VideoSink(partial, info, lambda result: result.frame.image):
        pass


def _remux(fragmented: Path, regular: Path) -> int:
    """Copies the complete fragments of a video into a regular MP4; returns the number of frames.

    Raises IndexError if there are none.
    """
    with av.open(f"file:{fragmented}") as source, av.open(f"file:{regular}", "w", format="mp4") as target:
        stream = source.streams.video[0]
        if stream.codec_context is None:
            raise IndexError("the header is truncated before the codec")
        copy = target.add_stream_from_template(stream)
        copy.time_base = stream.time_base
        count = 0
        for packet in _complete_packets(source, stream):
            packet.stream = copy
            target.mux(packet)
            count += 1
    if not count:
        raise IndexError("no complete fragment")
    return count


def _complete_packets(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    with suppress(av.error.FFmpegError):
        for packet in container.demux(stream):
            if packet.is_corrupt:  # the file is truncated within it
                return
            if packet.size:
                yield packet


def _ticks(rate: Fraction) -> int:
    """Returns the ticks per second: the nominal interval is a whole number of ticks if possible."""
    exact = (math.lcm(_TICKS, rate.numerator), math.lcm(_COARSE_TICKS, rate.numerator))
    max_interval = max(_MAX_GAP, 1 / rate)
    return next(ticks for ticks in (*exact, _TICKS, _COARSE_TICKS) if ticks * max_interval <= _MAX_TICKS)


class _SealingFile:
    """The output file of the muxer, sealed by the first failure: later writes succeed without effect.

    If the muxer got an error, such as that of a full disk, it would still turn the fragments into a regular
    MP4 and corrupt them halfway. So `write` reports success, and `checkpoint` raises the error; the file ends
    with the last complete fragment. The same holds for all other exceptions in `write`, such as
    KeyboardInterrupt, which PyAV would discard.
    """

    def __init__(self, path: Path):
        self._path = path
        self._failure: BaseException | None = None
        self._valid_size = 0
        self._end = 0  # size of the file
        try:
            self._file = create_file(path)
        except OSError as error:
            raise output_error(path, error) from error

    def write(self, data: memoryview) -> int:
        """Writes all of `data`, a buffer of the muxer; returns its size in bytes."""
        view, start = memoryview(data), self._file.tell()
        self._seal_if_changed()
        try:
            while (
                view and self._failure is None
            ):  # a nearly full disk accepts a part before it raises an error
                view = view[self._file.write(view) :]
                self._end = max(self._end, self._file.tell())
        except BaseException as error:
            self._failure = error
            if start >= self._valid_size:  # else it is the header, which is rewritten at the end
                self._file.truncate(self._valid_size)
        return len(data)

    def _seal_if_changed(self) -> None:
        """Prevents further writes if another program has deleted or truncated the file."""
        if self._failure is None:
            try:
                require_unchanged(self._file, self._end)
            except OSError as error:
                self._failure = error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Changes the position of the next write, as files do; returns it."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Returns the position of the next write."""
        return self._file.tell()

    @property
    def size(self) -> int:
        """Size in bytes of the part that is valid."""
        return self._valid_size

    def checkpoint(self) -> None:
        """Marks everything written so far as valid.

        If a write has failed, raises its exception; an OSError is raised as OutputError.
        """
        self._seal_if_changed()
        if isinstance(self._failure, OSError):
            raise output_error(self._path, self._failure) from self._failure
        if self._failure is not None:
            raise self._failure
        self._valid_size = os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Closes the file. Raises OutputError if the operating system reports a delayed write error."""
        try:
            self._file.close()
        except OSError as error:
            raise output_error(self._path, error) from error
