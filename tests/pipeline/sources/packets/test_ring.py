"""The ring of coded packets is bounded, begins with a key frame, and finds the packet of a frame."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.sources import video
from pipeline.sources.opening import open_source
from pipeline.sources.packets import ring as rings
from pipeline.sources.packets.ring import PacketRing
from pipeline.sources.pending import PendingSource, packet_ring
from pipeline.structures.frame import Frame
from pipeline.system.signals import StopRequest
from tests.support import stream_servers
from tests.support.evidence import RATE, write_clip

GROUP = 10


@pytest.fixture
def connect(monkeypatch):
    """Connects a ring to a stream of invented packets; returns what sends one."""
    monkeypatch.setattr(rings, "make_template", lambda stream, key: b"template")

    def start(ring):
        tap = ring.connect(SimpleNamespace(time_base=Fraction(1, RATE)))

        def send(number, *, size=100, key=None, arrival=None):
            is_key = number % GROUP == 0 if key is None else key
            packet = Packet(bytes(size), number, is_key)
            tap(packet, float(number) if arrival is None else arrival)

        return send

    return start


class Packet(bytes):
    """A coded packet whose presentation and decoding times are its number."""

    def __new__(cls, data, number, is_key):
        packet = super().__new__(cls, data)
        packet.pts = packet.dts = number
        packet.duration, packet.is_keyframe = 1, is_key
        return packet


def numbers(ring) -> list[int]:
    return [packet.pts for packet in ring.packets_from(0)]


def frame(index, *, pts=None, arrival=None) -> Frame:
    seconds = Fraction(index, RATE) if pts is None else pts
    return Frame(np.zeros((2, 2), np.uint8), index, seconds, "camera", arrival=arrival)


def test_the_ring_begins_with_a_key_frame_and_covers_its_seconds(connect):
    ring = PacketRing(seconds=1.0, max_bytes=10**6)
    send = connect(ring)
    for number in range(3, 95):
        send(number)
    assert numbers(ring)[0] == 70  # the group before the last one that is a second old
    assert numbers(ring) == list(range(70, 95))


def test_the_ring_is_bounded_in_bytes(connect):
    ring = PacketRing(seconds=100.0, max_bytes=3500)
    send = connect(ring)
    for number in range(200):
        send(number)
        assert ring.size <= 3500
        assert ring.size == sum(len(packet.data) for packet in ring.packets_from(0))
    assert numbers(ring) == list(range(170, 200))


def test_a_group_larger_than_the_ring_is_dropped_until_the_next_key_frame(connect):
    ring = PacketRing(seconds=100.0, max_bytes=3500)
    send = connect(ring)
    for number in range(60):
        send(number, key=number in (0, 50))
        assert ring.size <= 3500
    assert numbers(ring) == list(range(50, 60))


def test_packets_before_the_first_key_frame_are_left_out(connect):
    ring = PacketRing(seconds=10.0, max_bytes=10**6)
    send = connect(ring)
    for number in range(5, 15):
        send(number)
    assert numbers(ring) == [10, 11, 12, 13, 14]


def test_a_cursor_begins_at_the_key_frame_before_the_lead_and_takes_each_packet_once(connect):
    ring = PacketRing(seconds=100.0, max_bytes=10**6)
    send = connect(ring)
    for number in range(60):
        send(number)
    cursor = ring.cursor(frame(50), lead=1.2)  # frame 26
    assert cursor.begin == 1.0
    assert [packet.pts for packet in cursor.take(2.0)] == list(range(20, 41))
    assert [packet.pts for packet in cursor.take(2.1)] == [41, 42]
    send(60)
    assert [packet.pts for packet in cursor.take(9.0)] == list(range(43, 61))
    assert (cursor.lost, cursor.ended) == (0, False)


def test_a_cursor_that_is_overtaken_goes_on_at_a_key_frame_and_counts_what_it_lost(connect):
    ring = PacketRing(seconds=1.0, max_bytes=10**6)
    send = connect(ring)
    for number in range(30):
        send(number)
    cursor = ring.cursor(frame(29), lead=0.0)
    cursor.take(2.0)
    for number in range(30, 95):
        send(number)
    assert [packet.pts for packet in cursor.take(9.0)] == list(range(70, 95))
    assert cursor.lost == 40


def test_frames_of_a_live_source_are_found_by_their_arrival_whatever_their_time(connect):
    ring = PacketRing(seconds=100.0, max_bytes=10**6)
    send = connect(ring)
    for number in range(40):
        send(number, arrival=1000 + number / RATE)
    # after a reconnection, times of frames are shifted against those of packets
    cursor = ring.cursor(frame(30, pts=Fraction(500), arrival=1000 + 30 / RATE), lead=0.3)
    assert cursor.begin == pytest.approx(499.5)
    assert [packet.pts for packet in cursor.take(500.1)] == list(range(20, 33))
    assert ring.cursor(frame(30, arrival=999.0), lead=0.3) is None


def test_a_new_connection_begins_a_new_sequence(connect):
    ring = PacketRing(seconds=100.0, max_bytes=10**6)
    old = connect(ring)
    for number in range(30):
        old(number)
    cursor = ring.cursor(frame(29, arrival=29.0), lead=0.2)
    new = connect(ring)
    old(30)  # a thread that is stuck in the old connection
    for number in range(15):
        new(number, arrival=100.0 + number)
    assert [packet.pts for packet in cursor.take(9.0)] == list(range(20, 30))
    assert cursor.ended
    later = ring.cursor(frame(3, arrival=112.0), lead=0.1)
    assert [packet.pts for packet in later.take(9.0)] == [10, 11, 12, 13, 14]


def test_a_jump_of_the_clock_ends_a_sequence(connect):
    ring = PacketRing(seconds=100.0, max_bytes=10**6)
    send = connect(ring)
    for arrival, number in enumerate((*range(15), *range(8000, 8025))):
        send(number, arrival=float(arrival))
    assert numbers(ring) == [*range(15), *range(8000, 8025)]
    cursor = ring.cursor(frame(0, arrival=30.0), lead=100.0)
    assert cursor.take(1e6)[0].pts == 8000


# Sources


def test_without_events_no_packet_is_kept(tmp_path):
    clip = write_clip(tmp_path / "stream.ts", 20)
    with stream_servers.standard_input(clip.read_bytes()), open_source("-") as source:
        list(source)
        assert source.coded is None
    assert packet_ring(build(RunConfig, {})) is None
    assert packet_ring(build(RunConfig, {"events": {"enabled": True, "evidence": False}})) is None
    assert packet_ring(build(RunConfig, {"events": {"enabled": True}})) is not None


def test_a_file_keeps_no_packets_and_says_where_they_are(tmp_path):
    clip, ring = write_clip(tmp_path / "source.mp4", 20), PacketRing(seconds=9.0, max_bytes=10**6)
    with open_source(clip, packets=ring) as source:
        list(source)
        assert source.coded == video.CodedFile(clip, 0)
    assert ring.size == 0


def test_a_live_stream_fills_the_ring_that_its_configuration_asks_for(tmp_path):
    data = write_clip(tmp_path / "stream.ts", 60).read_bytes()
    table = {"events": {"enabled": True, "clip_memory": "1MB"}, "source": {"timeout": 10.0}}
    config = build(RunConfig, {**table, "live": {"reconnect": "none"}})
    with (
        stream_servers.listener(stream_servers.sending(data)) as port,
        PendingSource(f"tcp://127.0.0.1:{port}", config, StopRequest()) as pending,
    ):
        source = pending.wait()
        frames = list(source)
        cursor = source.coded.cursor(frames[45], lead=0.5)
    taken = cursor.take(100.0)
    assert taken[0].is_key
    assert cursor.begin == pytest.approx(float(frames[20].pts))
    assert len(taken) == 40
