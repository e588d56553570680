"""Writes coded packets into MP4 files without encoding them again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import av

from pipeline.sources.packets.coded import CodedFile
from pipeline.sources.packets.ring import CodedPacket

_FRAGMENTS = {"movflags": "frag_keyframe+delay_moov+default_base_moof"}
"""Options of a file that is playable up to its last complete group of pictures, if its process is killed."""
_FASTSTART = {"movflags": "faststart"}
_STEPS = (0.0, 2.0, 10.0)
"""Seconds before the begin of a clip at which its key frame is looked for."""
_MAX_PENDING = 32
"""Packets without a decoding time at the start of a clip that are kept until one has it."""


class Written(NamedTuple):
    """What a clip holds."""

    frames: int
    begin: float
    """Presentation time of its first frame in seconds, on the clock of the frames."""
    end: float
    """Presentation time of its last frame."""


class PacketWriter:
    """Writes the packets of a sequence into an MP4, from a key frame on, which is at time 0.

    Args:
        path: file to write.
        template: stream whose codec and parameters are those of the packets; used in the constructor only.
        time_base: unit of the times of the packets.
        shift: added to times of the frames, gives those of the packets.
        metadata: metadata of a file whose index comes first; None for a file in fragments, to which packets
            are added for some time.

    Raises av.error.FFmpegError or OSError, as its methods do, if the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        template: av.VideoStream,
        time_base: Fraction,
        *,
        shift: float = 0.0,
        metadata: Mapping[str, str] | None = None,
    ):
        self._time_base, self._shift = time_base, shift
        options = _FRAGMENTS if metadata is None else _FASTSTART
        self._container = av.open(f"file:{path}", "w", format="mp4", options=options)
        self._container.metadata.update(metadata or {})
        try:
            self._stream = self._container.add_stream_from_template(template)
        except BaseException:
            self._container.close()
            raise
        self._stream.time_base = time_base
        self._pending: list[CodedPacket] = []
        self._first: CodedPacket | None = None
        self._last_dts: int | None = None
        self._times: list[float] = []  # of the first and the last picture shown
        self.frames = 0
        """Number of packets written."""

    def write(self, packets: Iterable[CodedPacket]) -> None:
        """Appends packets in decoding order; pictures before the first key frame in time are left out."""
        for packet in packets:
            self._first = self._first or packet
            if packet.seconds < self._first.seconds:  # refers to pictures before the clip
                continue
            self._pending.append(packet)
            if packet.dts is not None or len(self._pending) >= _MAX_PENDING:
                self._write_pending()

    def close(self) -> Written:
        """Completes the file; returns what it holds."""
        try:
            if self._pending:
                self._write_pending()
        finally:
            self._container.close()
        return Written(self.frames, *(self._times or (0.0, 0.0)))

    def _write_pending(self) -> None:
        """Writes the packets that wait, the first ones with decoding times counted back from the last one."""
        pending, self._pending = self._pending, []
        last = pending[-1]
        known = last.dts if last.dts is not None else last.pts
        assert known is not None
        assert self._first is not None
        origin = self._first.pts if self._first.pts is not None else known
        for before, packet in zip(range(len(pending) - 1, -1, -1), pending, strict=True):
            dts = packet.dts if packet.dts is not None else known - before * max(packet.duration, 1)
            self._mux(packet, dts - origin, (dts if packet.pts is None else packet.pts) - origin)

    def _mux(self, packet: CodedPacket, dts: int, pts: int) -> None:
        if self._last_dts is not None:
            dts = max(dts, self._last_dts + 1)
        self._last_dts = dts
        copy = av.Packet(packet.data)
        copy.dts, copy.pts, copy.duration = dts, max(pts, dts), packet.duration
        copy.time_base, copy.is_keyframe, copy.stream = self._time_base, packet.is_key, self._stream
        self._container.mux(copy)
        self.frames += 1
        seconds = packet.seconds - self._shift
        self._times = [min([*self._times, seconds]), max([*self._times, seconds])]


def copy_range(
    coded: CodedFile, target: Path, span: tuple[float, float], metadata: Mapping[str, str], *, longest: float
) -> Written:
    """Copies the packets of a file from the last key frame up to the begin of a span to its end, in seconds.

    If this key frame is more than `longest` seconds earlier, the next one is taken. Raises ValueError if
    there is none up to the end or the source cannot be opened, av.error.FFmpegError or OSError if packets
    cannot be read or written.
    """
    begin, end = span
    try:
        source = av.open(f"file:{coded.path}", metadata_errors="replace")
    except av.error.FFmpegError as error:  # it was there before
        raise ValueError(f"the source cannot be read again: {error.strerror}") from error
    with source:
        stream = source.streams[coded.stream]
        assert isinstance(stream, av.VideoStream)
        assert stream.time_base is not None
        head = _seek(source, stream, begin, longest=longest)
        if not head or head[0].seconds > end:
            raise ValueError(f"the file has no key frame from {max(0.0, begin - longest):.1f} to {end:.1f} s")
        writer = PacketWriter(target, stream, stream.time_base, metadata=metadata)
        try:
            writer.write(until(chain(head, _packets(source, stream)), end))
        except BaseException:
            with suppress(av.error.FFmpegError, OSError):
                writer.close()
            raise
        return writer.close()


def until(packets: Iterable[CodedPacket], end: float) -> Iterator[CodedPacket]:
    """Yields the packets that are decoded up to `end`, and those shown between them."""
    shown = -math.inf
    for packet in packets:
        if packet.order > end and packet.seconds > shown:
            return
        shown = max(shown, packet.seconds)
        yield packet


def _seek(
    source: av.container.InputContainer, stream: av.VideoStream, begin: float, *, longest: float
) -> list[CodedPacket]:
    """Reads up to the first packet after `begin`; returns the packets from the last key frame before it on.

    If there is no such key frame, the list begins with the next one; it is empty if there is none.
    """
    assert stream.time_base is not None
    for earlier in (*_STEPS, longest):  # some demuxers seek past the key frame
        place = begin - min(earlier, longest)
        source.seek(max(0, int(place / stream.time_base)), stream=stream, backward=True)
        read: list[CodedPacket] = []
        for packet in _packets(source, stream):
            if packet.is_key and packet.seconds >= begin - longest and (packet.seconds <= begin or not read):
                read = []
            elif not read:
                continue
            read.append(packet)
            if packet.order > begin:
                break
        if (read and read[0].seconds <= begin) or place <= 0:
            break
    return read


def _packets(source: av.container.InputContainer, stream: av.VideoStream) -> Iterator[CodedPacket]:
    """Yields the packets of a file from the present place on."""
    time_base: Fraction = stream.time_base or Fraction(1)
    for packet in source.demux(stream):
        pts, dts = packet.pts, packet.dts
        if not packet.size or (pts is None and dts is None):
            continue
        shown, decoded = (pts if pts is not None else dts), (dts if dts is not None else pts)
        assert shown is not None
        assert decoded is not None
        seconds, order = float(shown * time_base), float(decoded * time_base)
        length = packet.duration or 0
        yield CodedPacket(0, 0, bytes(packet), pts, dts, length, packet.is_keyframe, seconds, order, 0.0)


def finish(fragments: Path, target: Path, metadata: Mapping[str, str]) -> None:
    """Copies a fragmented MP4 into one whose index comes first, so that it plays while it is loaded.

    Raises av.error.FFmpegError or OSError if a file cannot be read or written.
    """
    with av.open(f"file:{fragments}") as source:
        stream = source.streams.video[0]
        with av.open(f"file:{target}", "w", format="mp4", options=_FASTSTART) as container:
            container.metadata.update(metadata)
            copy = container.add_stream_from_template(stream)
            copy.time_base = stream.time_base
            for packet in source.demux(stream):
                if packet.size and not packet.is_corrupt:
                    packet.stream = copy
                    container.mux(packet)
