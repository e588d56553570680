"""What reads each kind of source: image files as one sequence, the first video stream of a container.

A reader knows its `info` from construction, gives its frames once through `frames()`, and holds files open
until `close()`. All that can be known to be wrong raises SourceError on construction; what goes wrong later
raises `SourceLost` after the last good frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from pipeline.errors import SourceError
from pipeline.frame import Frame, SourceInfo
from pipeline.pictures import PictureConverter, image_is_grey, read_image, with_channels

MAX_PIXELS = 100_000_000


class SourceLost(SourceError):
    """The source ended before its end; all frames before the loss have been given."""


@dataclass(frozen=True)
class Request:
    """What is asked of a source."""

    name: str
    """The location without credentials, for messages and records."""
    start: int = 0
    """Index of the first frame to give."""
    max_frames: int | None = None
    """Number of frames to give at most."""
    rate: Fraction = Fraction(30)
    """Frames per second of image sequences."""

    def count(self, announced: int | None) -> int | None:
        """Number of frames that will be given out of the `announced`; SourceError if `start` leaves none."""
        if announced is None:
            return None
        if self.start >= announced:
            raise self.nothing_left(announced)
        left = announced - self.start
        return left if self.max_frames is None else min(left, self.max_frames)

    def nothing_left(self, count: int) -> SourceError:
        """The error for a `start` beyond the last of `count` frames."""
        return SourceError(f"{self.name} has {count} frames, none from index {self.start} on; start earlier")


def check_size(name: str, width: int, height: int) -> None:
    """Raise SourceError for frames too large to be meant."""
    if width * height > MAX_PIXELS:
        limit = f"{MAX_PIXELS // 10**6} megapixels"
        raise SourceError(f"{name}: frames of {width}x{height} are refused; {limit} are allowed")


class ImageReader:
    """Image files as one sequence, in the order given; the first sets size, bit depth, and grey or colour."""

    corrupt = 0
    derived_times = 0

    def __init__(self, paths: list[Path], request: Request):
        count = request.count(len(paths))
        self._numbered = list(enumerate(paths))[request.start : request.start + count]
        first = read_image(paths[0])
        height, width = first.shape[:2]
        check_size(request.name, width, height)
        self.info = SourceInfo(
            name=request.name,
            width=width,
            height=height,
            rate=request.rate,
            frame_count=count,
            bit_depth=8 * first.itemsize,
            channels=1 if image_is_grey(first) else 3,
        )

    def frames(self) -> Iterator[Frame]:
        """The frames; raises SourceLost at an image that cannot be read or differs in size or bit depth."""
        info = self.info
        for index, path in self._numbered:
            try:
                picture = read_image(path)
            except SourceError as error:
                raise SourceLost(f"{info.name}: lost at frame {index}: {error}") from error
            height, width = picture.shape[:2]
            depth = 8 * picture.itemsize
            if (width, height, depth) != (info.width, info.height, info.bit_depth):
                before = f"{info.width}x{info.height} at {info.bit_depth} bits"
                raise SourceLost(
                    f"{info.name}: frame size changes from {before} to {width}x{height} at {depth} bits "
                    f"at frame {index} ({path.name}); the frames before it were given"
                )
            image = with_channels(picture, grey=info.channels == 1)
            yield Frame(image, index, index / info.rate, info.name, info.bit_depth)

    def close(self) -> None:
        """Nothing is held open between two frames."""


class VideoReader:
    """The first video stream of a container; cover pictures do not count."""

    corrupt = 0
    derived_times = 0

    def __init__(self, path: Path, request: Request):
        self._request = request
        self._failure: str | None = None
        self._packets = 0
        self._index = 0
        self._clock = 0, Fraction(0)  # index and time of the last frame
        self._container = _open_container(path, request.name)
        try:
            self._stream = _video_stream(self._container, request.name)
            self._pictures = self._decode()
            self._first = self._decode_first()
            self._convert = PictureConverter(self._first)
            self.info = self._describe()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the container."""
        self._container.close()

    def frames(self) -> Iterator[Frame]:
        """The frames; raises SourceLost at a change of size and at the end of a file that is cut off."""
        request, given = self._request, 0
        for picture in self._with_first():
            index = self._index
            self._index += 1
            change = self._convert.difference(picture)
            if change:
                where = f"at frame {index}; the frames before it were given"
                raise SourceLost(f"{request.name}: {change} {where}")
            time = self._time(picture, index)
            if index < request.start:
                continue
            yield Frame(self._convert(picture), index, time, request.name, self._convert.bit_depth)
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

    def _describe(self) -> SourceInfo:
        convert, stream = self._convert, self._stream
        return SourceInfo(
            name=self._request.name,
            width=convert.width,
            height=convert.height,
            rate=stream.average_rate or stream.guessed_rate or self._request.rate,
            frame_count=self._request.count(_announced_frames(stream)),
            bit_depth=convert.bit_depth,
            channels=1 if convert.grey else 3,
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
                if doubtful is not None:
                    yield doubtful
                doubtful = packet if packet.is_corrupt else None
                if doubtful is None:
                    yield packet
        except av.error.FFmpegError as error:
            self._failure = error.strerror or "the container cannot be read"
        self.corrupt += doubtful is not None
        expected = _announced_packets(self._stream)
        too_few = expected is not None and self._packets < expected
        if self._failure is None and (doubtful is not None or too_few or _is_cut(self._container)):
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
            time = picture.pts * self._stream.time_base
        else:
            self.derived_times += 1
            last_index, last_time = self._clock
            time = last_time + (index - last_index) / self.info.rate
        self._clock = index, time
        return time

    def _check_end(self, given: int) -> None:
        if self._failure:
            announced = _announced_frames(self._stream)
            of = "" if announced is None else f" of {announced}"
            raise SourceLost(f"{self._request.name}: lost after {self._index}{of} frames: {self._failure}")
        if given == 0:
            raise self._request.nothing_left(self._index)


def _open_container(path: Path, name: str) -> av.container.InputContainer:
    if not path.is_file():
        raise SourceError(f"{name} is not a regular file")
    try:
        if path.stat().st_size == 0:
            raise SourceError(f"{name} is empty")
        container = av.open(str(path), metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        reason = f"{error.strerror}; is it a video, and was its recording finished?"
        raise SourceError(f"{name} cannot be opened as video: {reason}") from error
    return container


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


def _is_cut(container: av.container.InputContainer) -> bool:
    """Whether the file is shorter than its structure asks for, in containers that do not list pictures."""
    path, size = Path(container.name), container.size
    if container.format.name == "mpegts":
        # packets of 188 bytes, plain, with a time stamp, or with error correction
        return all(size % length for length in (188, 192, 204))
    if container.format.name.startswith("matroska"):
        with path.open("rb") as file:
            return size < _matroska_end(file.read(4096))
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
