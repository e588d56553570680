"""Readers of video from network addresses, standard input and cameras."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av

from pipeline.sources.reader import ReadRequest, SourceUnavailable
from pipeline.sources.video import FORMATS, VideoReader
from pipeline.system.errors import SourceError
from pipeline.system.redaction import has_blanks

PROTOCOLS = {
    "rtsp": "rtsp,rtp,udp,tcp",
    "http": "http,tcp,hls,crypto,httpproxy",
    "https": "https,http,tls,tcp,hls,crypto,httpproxy",
    "tcp": "tcp",
    "udp": "udp",
    "rtp": "rtp,udp",
}
"""Schemes of addresses → protocols that FFmpeg may use for them. None of these opens local files."""
_SAMPLES = {"uint8": "gray", "uint16le": "gray16le", "uint16be": "gray16be"}
"""Values of `source.dtype` → pixel formats of FFmpeg."""
_ANALYSED_MICROSECONDS = 1_000_000
"""Maximum duration of a live stream that FFmpeg analyses before the first frame."""
_POLL_SECONDS = 0.1


MAX_MISSING_SECONDS, MAX_MISSING_SHARE = 1.0, 0.01
"""Seconds, or share of its announced duration if that is more, by which a recording may end earlier, because
announced durations are estimates and may be those of a longer sound track."""
MAX_TRAILER_SHARE = 0.02
"""Share of a recording's bytes that may follow its last picture, such as an index or sound."""


class StandardInput:
    """Unbuffered input from a file descriptor; another thread can end a wait for data."""

    def __init__(self, timeout: float, descriptor: int = 0):
        """Duplicates the descriptor; a read waits for data for up to `timeout` seconds.

        Raises SourceError if the descriptor is closed or a terminal.
        """
        self._timeout = timeout
        self.timed_out = False
        """True once a read has found no data for `timeout` seconds."""
        try:
            self._descriptor = os.dup(descriptor)
        except OSError as error:
            raise SourceError("standard input is closed; pipe a stream into it") from error
        self._stopped, self._open = threading.Event(), True
        if os.isatty(self._descriptor):
            self.close()
            raise SourceError("standard input is a terminal; pipe a stream into it")

    def read(self, size: int) -> bytes:
        """Returns up to `size` bytes as soon as there are any; none at the end, after `stop` or a timeout."""
        latest = time.monotonic() + self._timeout
        while not self._stopped.is_set() and not self.timed_out:
            if select.select([self._descriptor], [], [], _POLL_SECONDS)[0]:
                return os.read(self._descriptor, size)
            self.timed_out = time.monotonic() >= latest
        return b""

    def stop(self) -> None:
        """Ends all reads. Thread-safe."""
        self._stopped.set()

    def close(self) -> None:
        """Closes the duplicated descriptor; further calls do nothing."""
        self._stopped.set()
        if self._open:
            self._open = False
            os.close(self._descriptor)


class _AddressReader(VideoReader):
    """Reads video from an address; an end by a timeout, or well before the announced one, is a loss."""

    def _demux(self) -> Iterator[av.Packet]:
        """Yields the packets of the video stream; sets `_failure` to the reason if they end early."""
        timeout = self._request.config.timeout
        packets, waited = super()._demux(), 0.0
        first = last = end_byte = None
        while True:
            started = time.monotonic()
            packet = next(packets, None)
            if packet is None:
                waited = time.monotonic() - started
                break
            if packet.pts is not None:
                first = packet.pts if first is None else min(first, packet.pts)
                last = max(packet.pts + (packet.duration or 0), packet.pts if last is None else last)
            end_byte = None if packet.pos is None else packet.pos + packet.size
            yield packet
        if self._failure is not None:
            return
        if waited >= timeout:  # some demuxers of FFmpeg turn a timeout into the end
            self._failure = f"no data for {timeout:g} s"
        elif first is not None and last is not None:
            self._failure = self._missing(last - first, end_byte)

    def _missing(self, read: int, end_byte: int | None) -> str | None:
        """Returns what is missing at the end of a recording of which `read` units of time were read."""
        container, stream = self._container, self._stream
        if not container.duration or stream.time_base is None:
            return None  # live
        seconds = float(read * stream.time_base)
        announced = container.duration / av.time_base
        if stream.duration:
            announced = float(stream.duration * stream.time_base)
        if announced - seconds <= max(MAX_MISSING_SECONDS, MAX_MISSING_SHARE * announced):
            return None
        if end_byte is not None and 0 < (1 - MAX_TRAILER_SHARE) * container.size <= end_byte:
            return None
        return f"the stream ended after {seconds:.1f} of {announced:.1f} s"


class _InputReader(VideoReader):
    """Reads video from standard input."""

    def __init__(self, source: StandardInput, container: av.container.InputContainer, request: ReadRequest):
        self._source = source
        super().__init__(container, request, stop=source.stop)

    def _demux(self) -> Iterator[av.Packet]:
        """Yields the packets of the video stream; sets `_failure` to the reason if they end early."""
        yield from super()._demux()
        if self._source.timed_out:
            self._failure = f"no data for {self._request.config.timeout:g} s"

    def close(self) -> None:
        """Closes the container and standard input."""
        super().close()
        self._source.close()


def open_input(request: ReadRequest) -> VideoReader:
    """Opens video on standard input. Raises SourceError if there is none that can be decoded."""
    source = StandardInput(request.config.timeout)
    try:
        container = av.open(source, "r", metadata_errors="replace", format=FORMATS[request.config.format])
    except av.error.FFmpegError as error:
        source.close()
        if source.timed_out:
            silence = f"no data for {request.config.timeout:g} s; see --timeout"
            raise SourceError(f"standard input cannot be opened: {silence}") from error
        remedy = "give --source-format mpegts or y4m, or raw with --source-size and --source-dtype"
        raise SourceError(f"standard input holds no video: {error.strerror}; {remedy}") from error
    except BaseException:
        source.close()
        raise
    return _InputReader(source, container, request)


def open_address(location: str, request: ReadRequest) -> VideoReader:
    """Opens video at an address with one of the `PROTOCOLS`.

    Raises SourceError for other schemes, or if no video can be decoded within `source.timeout`, and
    SourceUnavailable in particular if no peer answers.
    """
    scheme = location.partition("://")[0].lower()
    if scheme not in PROTOCOLS:
        known = ", ".join(PROTOCOLS)
        raise SourceError(f"{request.name}: addresses of scheme '{scheme}' are not supported; give {known}")
    if has_blanks(location):
        raise SourceError(
            f"{scheme}: the address holds a blank or a control character, which no address does; "
            "write a blank as %20 and check the quotes around the address"
        )
    timeout = request.config.timeout
    options = {
        "protocol_whitelist": PROTOCOLS[scheme],
        "analyzeduration": str(_ANALYSED_MICROSECONDS),
        "timeout": str(round(timeout * 1e6)),
        "rtsp_transport": request.config.transport,
    }
    container_format = FORMATS.get(request.config.format)
    if request.config.format == "raw":
        container_format, options = "rawvideo", options | _declared_options(request)
    return _AddressReader(_open_container(location, container_format, options, request), request, live=True)


def open_camera(location: str, request: ReadRequest) -> VideoReader:
    """Opens a camera by its number N, as /dev/videoN. Raises SourceUnavailable if there is none."""
    device = Path(f"/dev/video{location}")
    if sys.platform != "linux":
        raise SourceError(f"camera {location}: cameras are read on Linux alone; pipe its stream into -")
    if not device.exists():
        raise SourceUnavailable(f"camera {location}: there is no {device}")
    container = _open_container(str(device), "v4l2", _declared_options(request), request)
    return VideoReader(container, request, live=True)


def _declared_options(request: ReadRequest) -> dict[str, str]:
    """Returns the declared sample type, size and rate as options of FFmpeg."""
    config = request.config
    options: dict[str, str] = {}
    if size := config.frame_size():
        options["video_size"] = "{}x{}".format(*size)
    if config.dtype:
        options["pixel_format"] = _SAMPLES[config.dtype]
    if config.format == "raw":
        options["framerate"] = str(request.rate)
    return options


def _open_container(
    location: str, container_format: str | None, options: dict[str, str], request: ReadRequest
) -> av.container.InputContainer:
    timeout = request.config.timeout
    try:
        return av.open(
            location,
            metadata_errors="replace",
            format=container_format,
            options=options,
            timeout=(timeout, timeout),
        )
    except av.error.ExitError:
        reason = f"no data for {timeout:g} s"
    except av.error.FFmpegError as error:
        reason = error.strerror or "FFmpeg does not say why"
    # not `from error`: the text of FFmpeg's errors holds the address with its password
    raise SourceUnavailable(f"{request.name} cannot be opened: {reason}") from None
