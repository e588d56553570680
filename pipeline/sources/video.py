"""The first video stream of a container, from a file or from whatever else FFmpeg opens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.codec.hwaccel import HWAccel, hwdevices_available

from pipeline.imaging import image_files
from pipeline.imaging.image_files import check_size
from pipeline.imaging.pixel_formats import PictureConverter
from pipeline.sources.reader import Reader, Request
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.system.errors import SourceError, SourceLost

FORMATS = {"auto": None, "mpegts": "mpegts", "y4m": "yuv4mpegpipe"}
"""Formats of the configuration → FFmpeg's names; None for what it finds."""


class VideoReader(Reader):
    """The first video stream of a container; cover pictures do not count."""

    def __init__(
        self,
        container: av.container.InputContainer,
        request: Request,
        *,
        path: Path | None = None,
        live: bool = False,
        stop: Callable[[], None] | None = None,
    ):
        """Takes over the container, of the file at `path` if it is one.

        `live` says that the source does not wait for its reader; `stop` ends a wait for its data.
        """
        self._container, self._request, self._path = container, request, path
        self._stop = stop
        self._failure: str | None = None
        self._packets = 0
        self._index = 0
        self._clock = 0, Fraction(0)  # index and time of the last frame
        try:
            self._stream = _video_stream(container, request.name)
            live = live and not container.duration  # a recording behind an address waits
            # Opening a stream may take its time, too; what never becomes a picture must not take for ever.
            self._deadline = time.monotonic() + request.config.timeout if live else None
            self._pictures = self._decode()
            self._first = self._decode_first()
            self._deadline = None
            self._convert = PictureConverter(self._first)
            self.info = self._describe(live)
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """End a wait for data, where the source can do that; others end with what comes next, or time out."""
        self._deadline = -math.inf
        if self._stop is not None:
            self._stop()

    def close(self) -> None:
        """Close the container."""
        self._container.close()

    def frames(self) -> Iterator[Frame]:
        """The frames; raises SourceLost at the end of a file that is cut off and where the pictures change.

        A change of their size is none where `any_size` was asked for.
        """
        request, given = self._request, 0
        for picture in self._with_first():
            index = self._index
            self._index += 1
            change = self._convert.difference(picture, any_size=request.any_size)
            if change:
                where = f"at frame {index}; the frames before it were given"
                raise SourceLost(f"{request.name}: {change} {where}")
            shown = self._time(picture, index)
            if index < request.start:
                continue
            image, depth = self._convert(picture), self.info.bit_depth
            arrival = picture.opaque if self.info.live else None
            yield Frame(image, index, shown, request.name, depth, arrival=arrival)
            given += 1
            if given == request.max_frames:
                return
        self._check_end(given)

    def _decode_first(self) -> av.VideoFrame:
        first = next(self._pictures, None)
        if first is None:
            reason = self._failure or "it is damaged, or holds no pictures"
            raise SourceError(f"{self._request.name}: no frame can be decoded: {reason}")
        return first

    def _describe(self, live: bool) -> SourceInfo:
        convert, stream = self._convert, self._stream
        return SourceInfo(
            name=self._request.name,
            width=convert.width,
            height=convert.height,
            rate=stream.average_rate or stream.guessed_rate or self._request.rate,
            frame_count=self._request.count(_announced_frames(stream)),
            bit_depth=self._request.depth(convert.bit_depth),
            channels=1 if convert.grey else 3,
            live=live,
        )

    def _demux(self) -> Iterator[av.Packet]:
        """Packets of the video stream; remembers in `_failure` why they ended early, if they did."""
        # A packet that is marked as damaged is half there if it is the last, and left out. Before others, the
        # mark may mean no more than two MPEG-TS recordings joined: then the decoder shall judge.
        doubtful: av.Packet | None = None
        try:
            for packet in self._container.demux(self._stream):
                if packet.size == 0 and packet.dts is None:  # marks the end
                    break
                self._packets += 1
                packet.opaque = time.monotonic()  # goes with its picture through the decoder
                if self._deadline is not None and packet.opaque > self._deadline:
                    self._failure = f"none in {self._request.config.timeout:g} s; see source.timeout"
                    break
                if doubtful is not None:
                    yield doubtful
                doubtful = packet if packet.is_corrupt else None
                if doubtful is None:
                    yield packet
        except av.error.ExitError:
            self._failure = f"nothing came for {self._request.config.timeout:g} s"
        except av.error.FFmpegError as error:
            self._failure = error.strerror or "the container cannot be read"
        self.corrupt += doubtful is not None
        expected = _announced_packets(self._stream)
        too_few = expected is not None and self._packets < expected
        if self._failure is None and (
            doubtful is not None or too_few or _is_cut(self._container, self._path)
        ):
            self._failure = "the file is cut off"

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Pictures in order of presentation; moves `_index` past those that are lost."""
        lost: list[int] = []  # presentation times of damaged packets, until the pictures have passed them
        for packet in self._demux():
            pictures = self._decode_packet(packet)
            if pictures is None and packet.pts is None:
                self._index += 1
            elif pictures is None:
                lost.append(packet.pts)
            for picture in pictures or ():
                # packets come in order of decoding: a lost one takes its index when its time has come
                waiting = [pts for pts in lost if picture.pts is None or pts >= picture.pts]
                self._index += len(lost) - len(waiting)
                lost = waiting
                yield picture
        yield from self._decode_packet(None) or ()

    def _decode_packet(self, packet: av.Packet | None) -> list[av.VideoFrame] | None:
        """Pictures that come out when `packet` goes in, the last ones for None; None if it is damaged."""
        if packet is not None and packet.size == 0:
            return []  # AVI's mark for "the same again", which a decoder would take for the end
        try:
            return self._stream.codec_context.decode(packet)
        except av.error.EOFError:
            return []
        except av.error.FFmpegError:
            self.corrupt += 1
            return None

    def _with_first(self) -> Iterator[av.VideoFrame]:
        """All pictures, with the one that was decoded ahead for `info`."""
        first, self._first = self._first, None
        yield first
        yield from self._pictures

    def _time(self, picture: av.VideoFrame, index: int) -> Fraction:
        """Presentation time in seconds, counted on from the last one where the stream has none."""
        # AVI has no presentation times; those that FFmpeg makes up run back and forth with reordered pictures
        if picture.pts is not None and self._container.format.name != "avi":
            shown = picture.pts * self._stream.time_base
        else:
            self.derived_times += 1
            last_index, last_time = self._clock
            shown = last_time + (index - last_index) / self.info.rate
        self._clock = index, shown
        return shown

    def _check_end(self, given: int) -> None:
        if self._failure:
            announced = _announced_frames(self._stream)
            of = "" if announced is None else f" of {announced}"
            raise SourceLost(f"{self._request.name}: lost after {self._index}{of} frames: {self._failure}")
        if given == 0:
            raise self._request.nothing_left(self._index)


def open_file(path: Path, request: Request) -> VideoReader:
    """The video in a file. Raises SourceError where there is none that can be decoded."""
    name = request.name
    if not path.is_file():
        raise SourceError(f"{name} is not a regular file")
    try:
        if path.stat().st_size == 0:
            raise SourceError(f"{name} is empty")
        # with the protocol, or a file called concat:… would be taken for one
        kind = FORMATS[request.config.format]
        hardware = accelerated(request.config.hwaccel)
        container = av.open(f"file:{path}", metadata_errors="replace", format=kind, hwaccel=hardware)
    except (av.error.FFmpegError, OSError, RuntimeError) as error:
        if hardware is not None:
            refused = f"{name} cannot be decoded by {request.config.hwaccel}: {error}"
            raise SourceError(f"{refused}; leave --hwaccel out") from error
        if isinstance(error, RuntimeError):
            raise
        reason = f"{error.strerror}; is it a video, and was its recording finished?"
        raise SourceError(f"{name} cannot be opened as video: {reason}") from error
    return VideoReader(container, request, path=path)


def _video_stream(container: av.container.InputContainer, name: str) -> av.VideoStream:
    covers = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & covers]
    if container.format.name == "tty":  # FFmpeg takes any text for a terminal recording
        raise SourceError(f"{name} is a text, not a video")
    if not streams:
        kinds = sorted({stream.type for stream in container.streams}) or ["nothing"]
        raise SourceError(f"{name} holds no video, only {', '.join(kinds)}")
    stream = streams[0]
    context = stream.codec_context
    if context is None:
        raise SourceError(f"{name}: there is no decoder for its video")
    check_size(name, context.width, context.height)
    context.options = {"max_pixels": str(image_files.MAX_PIXELS)}  # for what it may turn to later
    context.flags |= av.codec.context.Flags.copy_opaque
    # Threads within a picture, never across pictures: with those, damage among the last pictures swallows
    # good ones beside it, the more the more threads there are (PyAV 18.1, H.264: 4 with 8 threads).
    stream.thread_type = "SLICE"
    return stream


def _announced_packets(stream: av.VideoStream) -> int | None:
    """Number of coded pictures that the container lists; None where it lists none."""
    if "mp4" not in stream.container.format.name.split(","):
        return stream.frames or None
    # The sample table also counts what an edit list cut away at the end; the index is what will be read.
    return len(stream.index_entries) or None


def _announced_frames(stream: av.VideoStream) -> int | None:
    """Number of pictures that the container says it shows; None where it does not say."""
    if not stream.frames or "mp4" not in stream.container.format.name.split(","):
        return stream.frames or None
    return sum(not entry.is_discard for entry in stream.index_entries)


def _is_cut(container: av.container.InputContainer, path: Path | None) -> bool:
    """Whether the file is shorter than its structure asks for, in containers that do not list pictures."""
    if path is None:
        return False
    if container.format.name == "mpegts":
        # packets of 188 bytes, plain, with a time stamp, or with error correction
        return all(container.size % length for length in (188, 192, 204))
    if container.format.name.startswith("matroska"):
        with path.open("rb") as file:
            return container.size < _matroska_end(file.read(4096))
    return False


def _matroska_end(head: bytes) -> int:
    """Where the segment that begins in `head` ends, in bytes from the start of the file; 0 if not written."""
    start = head.find(b"\x18\x53\x80\x67")
    if start < 0 or start + 5 > len(head) or head[start + 4] == 0:
        return 0
    length = 9 - head[start + 4].bit_length()  # of the size field, coded in its leading zeros
    field = head[start + 4 : start + 4 + length]
    value = int.from_bytes(field, "big") & ((1 << 7 * length) - 1)
    unknown = (1 << 7 * length) - 1  # recorded live, never closed
    return 0 if value == unknown else start + 4 + length + value


def accelerated(kind: str) -> HWAccel | None:
    """What `av.open` takes as `hwaccel`: pictures come back to the memory of the CPU. None for "none".

    Raises SourceError where this build of PyAV does not know the kind of device.
    """
    if kind == "none":
        return None
    there = hwdevices_available()
    if kind not in there:
        known = ", ".join(there) or "no hardware"
        raise SourceError(f"this build of PyAV decodes by {known}, not by {kind}; leave --hwaccel out")
    return HWAccel(device_type=kind, allow_software_fallback=False)
