"""A bounded ring of the coded packets that a source has received last."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

import av

from pipeline.sources.packets.coded import make_template
from pipeline.structures.frame import Frame

BACKWARD_SECONDS, FORWARD_SECONDS = 1.0, 60.0
"""A jump of the clock of a stream by more than this ends its sequence; a clip does not go on after it."""

Tap = Callable[[av.Packet, float], None]
"""Takes a packet and the time of its arrival in seconds of `time.monotonic`."""


class CodedPacket(NamedTuple):
    """A packet in decoding order."""

    number: int
    """Consecutive over all connections."""
    sequence: int
    """Number of the sequence: packets of one connection without a jump of their clock."""
    data: bytes
    pts: int | None
    dts: int | None
    duration: int
    is_key: bool
    seconds: float
    """Presentation time, or the decoding time if it has none."""
    order: float
    """Decoding time in seconds, or the presentation time if it has none."""
    arrival: float


class CodedSequence(NamedTuple):
    """What all packets of a sequence have in common."""

    template: bytes
    """A file from which the stream is copied, see `make_template`."""
    time_base: Fraction


class PacketRing:
    """The packets of the last seconds, over any number of connections. Thread-safe.

    The ring begins with a key frame: whole groups of pictures are dropped, the oldest first. A single group
    above `max_bytes` is dropped, too.

    Args:
        seconds: time that the ring covers, if that fits into `max_bytes`.
        max_bytes: maximum size of all packets in bytes.
    """

    def __init__(self, *, seconds: float, max_bytes: int):
        self._seconds, self._max_bytes = seconds, max_bytes
        self._packets: deque[CodedPacket] = deque()
        self._keys: deque[CodedPacket] = deque()
        self._sequences: dict[int, CodedSequence] = {}
        self._numbers, self._serials = itertools.count(), itertools.count()
        self._open: object = None  # the latest connection
        self._lock = threading.Lock()
        self.size = 0
        """Bytes of all packets."""

    def connect(self, stream: av.VideoStream | None) -> Tap | None:
        """Begins a connection and returns what takes its packets; those of earlier ones are ignored then.

        None stands for a stream whose packets cannot be copied.
        """
        connection = None if stream is None else _Connection(self, stream)
        with self._lock:
            self._open = connection
        return connection.add if connection else None

    def cursor(self, frame: Frame, lead: float) -> PacketCursor | None:
        """Returns a cursor at the last key frame that is at least `lead` seconds before a decoded frame.

        If the ring does not reach so far back, at its oldest one; None if there is none before the frame.
        """
        with self._lock:
            anchor = self._find(frame)
            if anchor is None:
                return None
            # the presentation times of frames are those of packets, shifted at each reconnection
            shift = 0.0 if frame.arrival is None else anchor.seconds - float(frame.pts)
            begin = float(frame.pts) + shift - lead
            keys = [key for key in self._keys if key.sequence == anchor.sequence]
            keys = [key for key in keys if key.number <= anchor.number]
            if not keys:
                return None
            first = next((key for key in reversed(keys) if key.seconds <= begin), keys[0])
            return PacketCursor(self, self._sequences[first.sequence], first, shift)

    def _find(self, frame: Frame) -> CodedPacket | None:
        """Returns the packet of a frame; for sources that are not live, the last one up to its time."""
        if frame.arrival is not None:  # of its packet, and unlike other times never changed on the way
            return next((p for p in reversed(self._packets) if p.arrival == frame.arrival), None)
        pts = float(frame.pts)
        return next((p for p in reversed(self._packets) if p.seconds <= pts), None)

    def packets_from(self, number: int) -> Iterator[CodedPacket]:
        """Yields the packets from a number on, or from the oldest one if that is later."""
        with self._lock:
            first = self._packets[0].number if self._packets else 0
            rows = list(itertools.islice(self._packets, max(number - first, 0), None))
        yield from rows

    def new_sequence(self, connection: object, key: bytes, stream: av.VideoStream) -> int | None:
        """Begins a sequence with a key frame; returns its number.

        None if the connection is outdated, or if FFmpeg cannot copy the stream.
        """
        assert stream.time_base is not None
        try:
            sequence = CodedSequence(make_template(stream, key), stream.time_base)
        except av.error.FFmpegError:  # the source is read on: a clip will be missing
            return None
        with self._lock:
            if connection is not self._open:
                return None
            number = next(self._serials)
            self._sequences[number] = sequence
            return number

    def append(self, connection: object, make: Callable[[int], CodedPacket]) -> None:
        """Appends the packet that `make` returns for a number, unless the connection is outdated."""
        with self._lock:
            if connection is not self._open:
                return
            packet = make(next(self._numbers))
            if not (packet.is_key or self._keys):  # its group was too large
                return
            self._packets.append(packet)
            self.size += len(packet.data)
            if packet.is_key:
                self._keys.append(packet)
            self._drop_old(packet)

    def _drop_old(self, newest: CodedPacket) -> None:
        while len(self._keys) > 1:
            following = self._keys[1]
            if following.sequence == newest.sequence:
                age = newest.seconds - following.seconds
            else:
                age = newest.arrival - following.arrival
            if self.size <= self._max_bytes and age < self._seconds:
                return
            self._drop_until(following.number)
        if self.size > self._max_bytes:
            self._drop_until(newest.number + 1)

    def _drop_until(self, number: int) -> None:
        """Drops the packets before a number, with what is known about sequences that are gone."""
        while self._packets and self._packets[0].number < number:
            packet = self._packets.popleft()
            self.size -= len(packet.data)
            if packet.is_key:
                self._keys.popleft()
        kept = {key.sequence for key in self._keys}
        for sequence in [known for known in self._sequences if known not in kept]:
            del self._sequences[sequence]


class _Connection:
    """Appends the packets of one connection to a ring, from the first key frame on."""

    def __init__(self, ring: PacketRing, stream: av.VideoStream):
        self._ring, self._stream = ring, stream
        self._sequence: int | None = None
        self._order = 0.0

    def add(self, packet: av.Packet, arrival: float) -> None:
        """Appends a packet; one without any time has no place in a clip."""
        time_base, data = self._stream.time_base, bytes(packet)
        pts, dts = packet.pts, packet.dts
        if time_base is None or (pts is None and dts is None) or not data:
            return
        shown, decoded = (pts if pts is not None else dts), (dts if dts is not None else pts)
        assert shown is not None
        assert decoded is not None
        order = float(decoded * time_base)
        jumped = not -BACKWARD_SECONDS <= order - self._order <= FORWARD_SECONDS
        if self._sequence is None or jumped:
            if not packet.is_keyframe:
                self._sequence = None
                return
            self._sequence = self._ring.new_sequence(self, data, self._stream)
            if self._sequence is None:
                return
        sequence, self._order = self._sequence, order
        key, length, seconds = packet.is_keyframe, packet.duration or 0, float(shown * time_base)
        self._ring.append(
            self,
            lambda number: CodedPacket(
                number, sequence, data, pts, dts, length, key, seconds, order, arrival
            ),
        )


class PacketCursor:
    """Takes the packets of one sequence from a ring, in decoding order, from a key frame on."""

    def __init__(self, ring: PacketRing, sequence: CodedSequence, first: CodedPacket, shift: float):
        self._ring, self._number, self._next = ring, first.sequence, first.number
        self.sequence = sequence
        self.begin = first.seconds - shift
        """Time of the first picture, on the clock of the frames."""
        self.shift = shift
        """Added to times of frames, gives those of packets."""
        self._shown = first.seconds
        self.lost = 0
        """Number of packets that the ring had dropped before they were taken."""
        self.ended = False
        """True once packets of a later sequence have come."""

    def take(self, until: float) -> list[CodedPacket]:
        """Returns the packets that are there and decoded up to a time on the clock of the frames.

        Those that are shown between them are among them.
        """
        taken: list[CodedPacket] = []
        for packet in self._ring.packets_from(self._next):
            if packet.sequence != self._number:
                self.ended = packet.sequence > self._number
                if self.ended:
                    break
                continue
            if packet.order - self.shift > until and packet.seconds > self._shown:
                break
            self._shown = max(self._shown, packet.seconds)
            self.lost += packet.number - self._next
            self._next = packet.number + 1
            taken.append(packet)
        return taken
