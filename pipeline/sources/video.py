"""Reader of a video stream of a container, from a file or any other input of FFmpeg."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import av.logging
from av.codec.hwaccel import HWAccel, hwdevices_available

from pipeline.config.schema import MAX_RATE, MIN_RATE
from pipeline.imaging import image_files
from pipeline.imaging.file_signatures import describe_foreign
from pipeline.imaging.image_files import check_size
from pipeline.imaging.pixel_formats import FrameConverter
from pipeline.sources.packets.coded import CodedFile, can_be_copied
from pipeline.sources.packets.ring import Tap
from pipeline.sources.reader import Reader, ReadRequest, SourceUnavailable
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.system.errors import SourceError, SourceLost, UsageError
from pipeline.system.terminal import printable

log = logging.getLogger(__name__)
_remarked: set[str] = set()
"""Names of the sources whose other streams were remarked on; a live source is opened many times."""

FORMATS = {"auto": None, "mpegts": "mpegts", "y4m": "yuv4mpegpipe"}
"""Values of `source.format` → container formats of FFmpeg; None for automatic detection."""

_BARE_FORMATS = ("h264", "hevc", "vvc", "evc", "m4v", "mpegvideo", "obu", "vc1", "cavsvideo", "avs2", "avs3")
"""Container formats of FFmpeg that stand for a bare stream of a codec that may state its frame rate."""


class VideoReader(Reader):
    """Reads the video stream of a container that `source.stream` names; cover images are ignored."""

    def __init__(
        self,
        container: av.container.InputContainer,
        request: ReadRequest,
        *,
        path: Path | None = None,
        live: bool = False,
        stop: Callable[[], None] | None = None,
    ):
        """Takes ownership of the container, which is closed if construction fails.

        `path` is the file, if it is one. `live` is True if the source does not wait for its reader. `stop`
        ends a read that waits for data.

        Raises SourceError if no frame can be decoded or the request does not fit the video, UsageError if the
        video has no stream of the number that is asked for.
        """
        self._container, self._request, self._path = container, request, path
        self._stop = stop
        self._failure: str | None = None
        self._packets = 0
        self._index = 0
        self._clock = 0, Fraction(0)  # index and time of the last frame
        try:
            self._stream = _video_stream(container, request)
            self._keep = self._find_packets()
            live = live and not container.duration  # a recording at an address waits for its reader
            # Limits the wait for the first frame, in case packets arrive and none can be decoded.
            self._deadline = time.monotonic() + request.config.timeout if live else None
            self._decoded = self._decode()
            first = self._decode_first()
            self._first: av.VideoFrame | None = first
            self._deadline = None
            self._convert = FrameConverter(first)
            self.info = self._describe(live)
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """Ends a wait for data if the source supports it; others end with the next packet or a timeout."""
        self._deadline = -math.inf
        if self._stop is not None:
            self._stop()

    def close(self) -> None:
        """Closes the container."""
        self._container.close()

    def frames(self) -> Generator[Frame]:
        """Yields the frames.

        Raises SourceLost at the end of a truncated file, and if the pixel format changes, or the size without
        `allow_resize`. Raises SourceError if the video has no frame from `start` on.
        """
        request, selection, count = self._request, self.selection, 0
        for decoded in self._with_first():
            index = self._index
            if selection.is_past(index):
                break
            self._index += 1
            change = self._convert.describe_change(decoded, allow_resize=request.allow_resize)
            if change:
                where = f"at frame {index}; all frames before it were read"
                raise SourceLost(f"{request.name}: {change} {where}")
            pts = self._time(decoded, index)
            if index not in selection:
                self.skipped += 1
                continue
            image, depth = self._convert(decoded), self.info.bit_depth
            # the arrival of its packet, which `_demux` attached
            arrival = decoded.opaque if self.info.live and isinstance(decoded.opaque, float) else None
            yield Frame(image, index, pts, request.name, depth, arrival=arrival)
            count += 1
            if count == selection.max_frames or selection.is_past(index + 1):
                return
        self._check_end(count)

    def _find_packets(self) -> Tap | None:
        """Sets `coded`; returns what takes the packets of a stream, None if they are not kept."""
        copied = can_be_copied(self._container, self._stream)
        if self._path is not None:
            self.coded = CodedFile(self._path, self._stream.index) if copied else None
            return None
        ring = self._request.packets
        self.coded = ring if copied else None
        return ring.connect(self._stream if copied else None) if ring else None

    def _decode_first(self) -> av.VideoFrame:
        first = next(self._decoded, None)
        if first is None:
            reason = self._failure or "it is damaged, or holds no frames"
            kind = SourceError if self._deadline is None else SourceUnavailable
            raise kind(f"{self._request.name}: no frame can be decoded: {reason}")
        return first

    def _describe(self, live: bool) -> SourceInfo:
        convert, stream = self._convert, self._stream
        total = _announced_frames(stream)
        rate = _frame_rate(stream) or self._request.rate
        self.selection = self._request.selection(rate, live=live)
        return SourceInfo(
            name=self._request.name,
            width=convert.width,
            height=convert.height,
            rate=rate,
            frame_count=None if total is None else self._request.frame_count(total, self.selection),
            bit_depth=self._request.bit_depth(convert.bit_depth),
            channels=1 if convert.grey else 3,
            live=live,
        )

    def _demux(self) -> Iterator[av.Packet]:
        """Yields the packets of the video stream; sets `_failure` to the reason if they end early."""
        # A packet marked as corrupt is incomplete if it is the last one, and is dropped. Before others, the
        # mark may only mean a splice of two MPEG-TS recordings; then the decoder decides.
        doubtful: av.Packet | None = None
        try:
            for packet in self._container.demux(self._stream):
                if packet.size == 0 and packet.dts is None:  # marks the end
                    break
                self._packets += 1
                arrival = time.monotonic()
                packet.opaque = arrival  # the decoder copies it to the frame
                if self._keep is not None:
                    self._keep(packet, arrival)
                if self._deadline is not None and arrival > self._deadline:
                    self._failure = f"none in {self._request.config.timeout:g} s; see --timeout"
                    break
                if doubtful is not None:
                    yield doubtful
                doubtful = packet if packet.is_corrupt else None
                if doubtful is None:
                    yield packet
        except av.error.ExitError:
            self._failure = f"no data for {self._request.config.timeout:g} s"
        except av.error.FFmpegError as error:
            self._failure = error.strerror or "the container cannot be read"
        self.corrupt += doubtful is not None
        expected = _announced_packets(self._stream)
        too_few = expected is not None and self._packets < expected
        if self._failure is None and (
            doubtful is not None or too_few or _is_truncated(self._container, self._path)
        ):
            self._failure = "the file is cut off"

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Yields frames in order of presentation; advances `_index` past those that are lost."""
        lost: list[int] = []  # presentation times of damaged packets that no frame has passed yet
        for packet in self._demux():
            frames = self._decode_packet(packet)
            if frames is None:
                if packet.pts is None:
                    self._index += 1
                else:
                    lost.append(packet.pts)
                continue
            for frame in frames:
                # packets come in decoding order: a lost one takes its index once a later frame is shown
                waiting = [pts for pts in lost if frame.pts is None or pts >= frame.pts]
                self._index += len(lost) - len(waiting)
                lost = waiting
                yield frame
        yield from self._decode_packet(None) or ()

    def _decode_packet(self, packet: av.Packet | None) -> list[av.VideoFrame] | None:
        """Returns the frames that `packet` completes, the remaining ones for None; None if it is damaged."""
        if packet is not None and packet.size == 0:
            return []  # in AVI, a repetition of the previous frame; decoders take it for the end
        try:
            return self._stream.codec_context.decode(packet)
        except av.error.EOFError:
            return []
        except av.error.FFmpegError:
            self.corrupt += 1
            return None

    def _with_first(self) -> Iterator[av.VideoFrame]:
        """Yields all frames, including the one that was decoded for `info`."""
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._decoded

    def _time(self, frame: av.VideoFrame, index: int) -> Fraction:
        """Returns the presentation time in seconds, extrapolated at the rate if the stream has none."""
        # AVI has no presentation times; those that FFmpeg derives are not monotonic if frames are reordered
        if frame.pts is not None and self._container.format.name != "avi":
            assert self._stream.time_base is not None  # as a stream with packets has it
            pts = frame.pts * self._stream.time_base
        else:
            self.derived_times += 1
            last_index, last_time = self._clock
            pts = last_time + (index - last_index) / self.info.rate
        self._clock = index, pts
        return pts

    def _check_end(self, count: int) -> None:
        """Raises SourceLost if the video ended early, and SourceError if none of its frames was read."""
        if self._failure:
            announced = _announced_frames(self._stream)
            of = "" if announced is None else f" of {announced}"
            raise SourceLost(f"{self._request.name}: lost after {self._index}{of} frames: {self._failure}")
        if count == 0:
            raise self._request.start_beyond_end(self._index, self.selection)


def open_file(path: Path, request: ReadRequest) -> VideoReader:
    """Opens a video file. Raises SourceError if it has no video that can be decoded."""
    name = request.name
    if not path.is_file():
        raise SourceError(f"{name} is not a regular file")
    try:
        if path.stat().st_size == 0:
            raise SourceError(f"{name} is empty")
        if foreign := describe_foreign(path):
            raise SourceError(f"{name} {foreign}")
        # with a protocol, because FFmpeg would take a file called "concat:…" for an address
        container_format = FORMATS[request.config.format]
        hardware = hardware_decoder(request.config.hwaccel)
        container = av.open(
            f"file:{path}", metadata_errors="replace", format=container_format, hwaccel=hardware
        )
    except (av.error.FFmpegError, OSError, RuntimeError) as error:
        if hardware is not None:
            refused = f"{name} cannot be decoded by {request.config.hwaccel}: {error}"
            raise SourceError(f"{refused}; leave --hwaccel out") from error
        if isinstance(error, RuntimeError):
            raise
        reason = f"{error.strerror}; is it a video, and was its recording finished?"
        raise SourceError(f"{name} cannot be opened as video: {reason}") from error
    return VideoReader(container, request, path=path)


def _video_stream(container: av.container.InputContainer, request: ReadRequest) -> av.VideoStream:
    """Returns the video stream that a request asks for, with its decoder configured.

    Raises SourceError if there is none that can be decoded, UsageError if there is none of its number.
    """
    name, number = request.name, request.config.stream
    covers = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & covers]
    if container.format.name == "tty":  # FFmpeg reads any text as a terminal recording
        raise SourceError(f"{name} is a text, not a video")
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams}))
        raise SourceError(f"{name} holds no video" + (f", only {kinds}" if kinds else " and no other stream"))
    if number > len(streams):
        raise UsageError(f"--source-stream {number}: {name} has {_list_streams(streams)}")
    if not number and len(streams) > 1 and name not in _remarked:
        _remarked.add(name)
        remark = f"{name} has {_list_streams(streams)}; the first is read, --source-stream N chooses another"
        log.warning("%s", printable(remark))
    stream = streams[max(number - 1, 0)]
    context = stream.codec_context
    if context is None:
        remedy = "convert it to FFV1 or H.264 with the program that made it"
        raise SourceError(
            f"{name}: there is no decoder for its video{_codec_tag(container, stream)}; {remedy}"
        )
    check_size(name, context.width, context.height)
    context.options = {"max_pixels": str(image_files.MAX_PIXELS)}  # the size may change later
    context.flags |= av.codec.context.Flags.copy_opaque
    # Threads within a frame, never across frames: those lose good frames next to damaged ones at the end,
    # more of them with more threads (PyAV 18.1, H.264: 4 with 8 threads).
    stream.thread_type = "SLICE"
    return stream


def _list_streams(streams: Sequence[av.VideoStream]) -> str:
    """Describes the video streams of a container: "2 video streams: 1 (h264 320x256, visible), 2 (…)"."""
    texts = []
    for number, stream in enumerate(streams, 1):
        context, title = stream.codec_context, stream.metadata.get("title", "")
        kind = "unknown codec" if context is None else f"{context.name} {context.width}x{context.height}"
        texts.append(f"{number} ({', '.join(filter(None, (kind, title)))})")
    count = "one video stream" if len(streams) == 1 else f"{len(streams)} video streams"
    return f"{count}: {', '.join(texts)}"


def _codec_tag(container: av.container.InputContainer, stream: av.VideoStream) -> str:
    """Returns the tag that a container gives the codec of a stream, for a message; empty if it has none."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)  # PyAV names the tag of an unknown codec in this text alone
    try:
        text = container.dumps_format()  # type: ignore[attr-defined]  # missing in the stubs of PyAV
    finally:
        av.logging.set_level(level)
    found = re.search(rf"Stream #0:{stream.index}\b.*?Video: none \((.{{1,16}}?) */ (0x\w+)\)", text)
    return f", codec tag '{found[1]}' ({found[2]})" if found else ""


def _frame_rate(stream: av.VideoStream) -> Fraction | None:
    """Returns the frames per second that a stream states, after its first frame; None if it states none.

    For bare streams without a container FFmpeg assumes 25, whatever the codec states.
    """
    stated = stream.codec_context.framerate if stream.container.format.name in _BARE_FORMATS else None
    if stated and MIN_RATE <= stated <= MAX_RATE:
        return stated
    return stream.average_rate or stream.guessed_rate


def _announced_packets(stream: av.VideoStream) -> int | None:
    """Returns the number of packets that the container lists; None if it lists none."""
    if "mp4" not in stream.container.format.name.split(","):
        return stream.frames or None
    # The sample table also counts samples that an edit list removes at the end; the index lists those read.
    return len(stream.index_entries) or None


def _announced_frames(stream: av.VideoStream) -> int | None:
    """Returns the number of frames that the container says it shows; None if it does not say."""
    if not stream.frames or "mp4" not in stream.container.format.name.split(","):
        return stream.frames or None
    return sum(not entry.is_discard for entry in stream.index_entries)


def _is_truncated(container: av.container.InputContainer, path: Path | None) -> bool:
    """Returns whether a file is shorter than its structure implies, for containers that list no packets."""
    if path is None:
        return False
    if container.format.name == "mpegts":
        # packets of 188 bytes, alone, with a time stamp, or with error correction
        return all(container.size % length for length in (188, 192, 204))
    if container.format.name.startswith("matroska"):
        with path.open("rb") as file:
            return container.size < _matroska_end(file.read(4096))
    return False


def _matroska_end(head: bytes) -> int:
    """Returns the end of the segment that begins in `head`, in bytes from the file's start; 0 if unknown."""
    start = head.find(b"\x18\x53\x80\x67")
    if start < 0 or start + 5 > len(head) or head[start + 4] == 0:
        return 0
    length = 9 - head[start + 4].bit_length()  # bytes of the size field, coded in its leading zeros
    field = head[start + 4 : start + 4 + length]
    value = int.from_bytes(field, "big") & ((1 << 7 * length) - 1)
    unknown = (1 << 7 * length) - 1  # a live recording that was never closed
    return 0 if value == unknown else start + 4 + length + value


def hardware_decoder(kind: str) -> HWAccel | None:
    """Returns the argument `hwaccel` of `av.open`; None for "none".

    Decoded frames are copied to CPU memory. Raises SourceError if this build of PyAV does not support the
    device.
    """
    if kind == "none":
        return None
    available = hwdevices_available()
    if kind not in available:
        known = ", ".join(available) or "no hardware"
        raise SourceError(f"this build of PyAV decodes by {known}, not by {kind}; leave --hwaccel out")
    return HWAccel(device_type=kind, allow_software_fallback=False)
