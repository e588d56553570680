"""Video that comes in as it is made: from an address, from standard input, from a camera."""

from __future__ import annotations

import os
import select
import sys
import threading
from pathlib import Path

import av

from pipeline.sources.reader import Request
from pipeline.sources.video import FORMATS, VideoReader
from pipeline.system.errors import SourceError

PROTOCOLS = {
    "rtsp": "rtsp,rtp,udp,tcp",
    "http": "http,tcp,hls,crypto,httpproxy",
    "https": "https,http,tls,tcp,hls,crypto,httpproxy",
    "tcp": "tcp",
    "udp": "udp",
    "rtp": "rtp,udp",
}
"""Schemes of addresses → the protocols that FFmpeg may use for them: none opens files of this machine."""
_SAMPLES = {"uint8": "gray", "uint16le": "gray16le", "uint16be": "gray16be"}
"""Names of `source.dtype` → FFmpeg's."""
_ANALYSED = 1_000_000
"""Microseconds of a live stream that are looked at, at most, before its first frame is given."""
_POLL_SECONDS = 0.1


class StandardInput:
    """Bytes from a descriptor, whose wait for more can be ended from another thread."""

    def __init__(self, descriptor: int = 0):
        """Raises SourceError where nothing can come from it."""
        try:
            self._descriptor = os.dup(descriptor)
        except OSError as error:
            raise SourceError("standard input is closed; pipe a stream into it") from error
        self._stopped, self._open = threading.Event(), True
        if os.isatty(self._descriptor):
            self.close()
            raise SourceError("standard input is a terminal; pipe a stream into it")

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, as soon as there are any; none at the end or once it is stopped."""
        while not self._stopped.is_set():
            if select.select([self._descriptor], [], [], _POLL_SECONDS)[0]:
                return os.read(self._descriptor, size)
        return b""

    def stop(self) -> None:
        """End all waiting, from any thread."""
        self._stopped.set()

    def close(self) -> None:
        """Close this copy of the descriptor; later calls do nothing."""
        self._stopped.set()
        if self._open:
            self._open = False
            os.close(self._descriptor)


class _InputReader(VideoReader):
    """The video in standard input."""

    def __init__(self, source: StandardInput, container: av.container.InputContainer, request: Request):
        self._source = source
        super().__init__(container, request, stop=source.stop)

    def close(self) -> None:
        """Close the container and standard input."""
        super().close()
        self._source.close()


def open_input(request: Request) -> VideoReader:
    """The video that is piped in. Raises SourceError where there is none that can be decoded."""
    source = StandardInput()
    try:
        container = av.open(source, metadata_errors="replace", format=FORMATS[request.config.format])
    except av.error.FFmpegError as error:
        source.close()
        remedy = "give mpegts, y4m, or raw with source.format, source.size and source.dtype"
        raise SourceError(f"standard input holds no video: {error.strerror}; {remedy}") from error
    except BaseException:
        source.close()
        raise
    return _InputReader(source, container, request)


def open_address(location: str, request: Request) -> VideoReader:
    """The video behind an address with one of the `PROTOCOLS`. Raises SourceError where none comes."""
    scheme = location.partition("://")[0].lower()
    if scheme not in PROTOCOLS:
        known = ", ".join(PROTOCOLS)
        raise SourceError(f"{request.name}: '{scheme}' is no kind of address that is read; give {known}")
    timeout = request.config.timeout
    options = {
        "protocol_whitelist": PROTOCOLS[scheme],
        "analyzeduration": str(_ANALYSED),
        "timeout": str(round(timeout * 1e6)),
        "rtsp_transport": request.config.transport,
    }
    form = FORMATS.get(request.config.format)
    if request.config.format == "raw":
        form, options = "rawvideo", options | _asked(request)
    return VideoReader(_opened(location, form, options, request), request, live=True)


def open_camera(location: str, request: Request) -> VideoReader:
    """The camera of a number, as Linux counts them. Raises SourceError where there is none."""
    device = Path(f"/dev/video{location}")
    if sys.platform != "linux":
        raise SourceError(f"camera {location}: cameras are read on Linux alone; pipe its stream into -")
    if not device.exists():
        raise SourceError(f"camera {location}: there is no {device}")
    return VideoReader(_opened(str(device), "v4l2", _asked(request), request), request, live=True)


def _asked(request: Request) -> dict[str, str]:
    """What is declared about samples and size, as FFmpeg's options."""
    config, options = request.config, {}
    if size := config.frame_size():
        options["video_size"] = "{}x{}".format(*size)
    if config.dtype:
        options["pixel_format"] = _SAMPLES[config.dtype]
    if config.format == "raw":
        options["framerate"] = str(request.rate)
    return options


def _opened(
    location: str, form: str | None, options: dict[str, str], request: Request
) -> av.container.InputContainer:
    timeout = request.config.timeout
    try:
        return av.open(
            location, metadata_errors="replace", format=form, options=options, timeout=(timeout, timeout)
        )
    except av.error.ExitError:
        reason = f"nothing came for {timeout:g} s"
    except av.error.FFmpegError as error:
        reason = error.strerror or "FFmpeg does not say why"
    # not `from error`: the text of FFmpeg's errors holds the address with its password
    raise SourceError(f"{request.name} cannot be opened: {reason}") from None
