"""A simulated camera on the loopback interface with the faults of real ones.

It sends H.264 in an MPEG transport stream over TCP to one client at a time; at seeded times it disconnects,
stays silent, or loses and damages packets.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import count
from multiprocessing.connection import Connection
from typing import Literal, NamedTuple

import av
import numpy as np

from datasets.synthesis.rendering import render
from datasets.synthesis.scene import Scene, Target

TARGETS = (Target(x=60, y=80, vx=1, scr=30), Target(x=200, y=150, vx=-0.7, vy=0.2, scr=30))
SCENE_FRAMES = 120
PACKET = 188
"""Bytes of a transport stream packet."""
HEADER = 4
"""Bytes of its header."""
PORTS = range(20_000, 32_000)
"""Below the ephemeral ports, so that no connection takes the port while the camera is disconnected."""
SENDING_SECONDS = 2.0
"""Time a client may take to read a frame before it counts as gone."""

Kind = Literal["stop", "silence", "loss", "damage"]


class Trouble(NamedTuple):
    """A fault and its time in seconds from the start of the camera."""

    kind: Kind
    begin: float
    end: float
    share: float
    """Share of the packets that are lost or damaged meanwhile."""


def troubles(seed: int, seconds: float) -> list[Trouble]:
    """Draws the faults of so many seconds: one at a time, with pauses between them."""
    chance, found, now = random.Random(seed), [], 0.0
    while True:
        now += chance.uniform(8, 32)
        kind = chance.choice(("stop", "silence", "loss", "damage"))
        lasting = chance.uniform(2, 8) if kind in ("stop", "silence") else chance.uniform(3, 15)
        if now + lasting + 5 > seconds:
            return found
        found.append(Trouble(kind, now, now + lasting, chance.choice((0.01, 0.03, 0.1))))
        now += lasting


class _Stream:
    """Encodes the frames of one connection to packets of a transport stream."""

    def __init__(self, width: int, height: int, rate: int):
        self._written = bytearray()
        self._container = av.open(self, "w", format="mpegts", options={"flush_packets": "1"})
        options = {"preset": "ultrafast", "tune": "zerolatency", "g": str(rate)}
        self._video = self._container.add_stream("libx264", rate=rate, options=options)
        self._video.width, self._video.height, self._video.pix_fmt = width, height, "yuv420p"
        self._video.codec_context.time_base = Fraction(1, rate)

    def write(self, data: bytes) -> int:
        """Collects the bytes of the container."""
        self._written += data
        return len(data)

    def packets(self, picture: np.ndarray, number: int) -> list[bytearray]:
        """Returns the packets of a picture (H, W) uint8."""
        frame = av.VideoFrame.from_ndarray(picture, format="gray")
        frame.pts, frame.time_base = number, self._video.codec_context.time_base
        self._container.mux(self._video.encode(frame))
        data, self._written = self._written, bytearray()
        return [data[place : place + PACKET] for place in range(0, len(data), PACKET)]

    def close(self) -> None:
        """Closes the encoder."""
        self._container.close()


class Camera:
    """Sends pictures (H, W) uint8 forwards and backwards, `rate` per second, until it is stopped."""

    def __init__(self, pictures: Sequence[np.ndarray], rate: int, wrong: Sequence[Trouble], seed: int):
        self._pictures, self._rate, self._wrong = pictures, rate, wrong
        self._chance = random.Random(seed)
        self._server: socket.socket | None = None
        self._reader: socket.socket | None = None
        self._stream: _Stream | None = None
        self.port = self._chosen_port()
        self.sent, self.connections = 0, 0

    def _chosen_port(self) -> int:
        for _ in range(100):
            port = random.choice(PORTS)
            with suppress(OSError):
                self._server = socket.create_server(("127.0.0.1", port))
                self._server.setblocking(False)
                return port
        raise OSError("no port is free")

    def run(self, seconds: float, stopped: Callable[[], bool]) -> None:
        """Sends frames at their times for so many seconds or until `stopped`."""
        begin = time.monotonic()
        for number in count():
            due = number / self._rate
            if due > seconds or stopped():
                return
            time.sleep(max(0.0, begin + due - time.monotonic()))
            wrong = next((trouble for trouble in self._wrong if trouble.begin <= due < trouble.end), None)
            if wrong is not None and wrong.kind == "stop":
                self.close()
                continue
            self._accept()
            if self._reader is not None and (wrong is None or wrong.kind != "silence"):
                self._send(number, wrong)

    def _accept(self) -> None:
        if self._server is None:
            self._server = socket.create_server(("127.0.0.1", self.port))
            self._server.setblocking(False)
        with suppress(BlockingIOError):
            reader, _ = self._server.accept()
            self._leave()  # a client that connects again has given up its connection
            reader.settimeout(SENDING_SECONDS)
            height, width = self._pictures[0].shape
            self._reader, self._stream = reader, _Stream(width, height, self._rate)
            self.connections += 1

    def _send(self, number: int, wrong: Trouble | None) -> None:
        turns = 2 * len(self._pictures) - 2
        place = number % turns
        picture = self._pictures[min(place, turns - place)]
        packets = self._stream.packets(picture, number)
        data = b"".join(packets if wrong is None else self._damaged(packets, wrong))
        try:
            self._reader.sendall(data)
            self.sent += 1
        except OSError:
            self._leave()

    def _damaged(self, packets: list[bytearray], wrong: Trouble) -> Iterator[bytearray]:
        for packet in packets:
            hit = self._chance.random() < wrong.share
            if hit and wrong.kind == "loss":
                continue
            if hit:
                packet[self._chance.randrange(HEADER, len(packet))] ^= 1 << self._chance.randrange(8)
            yield packet

    def _leave(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._stream.close()
            self._reader = self._stream = None

    def close(self) -> None:
        """Closes the connection and the port."""
        self._leave()
        if self._server is not None:
            self._server.close()
            self._server = None


def serve(
    pipe: Connection,
    size: tuple[int, int],
    rate: int,
    wrong: Sequence[Trouble],
    seed: int,
    seconds: float,
) -> None:
    """Runs a camera of a synthetic scene of `size` (width, height); the target function of a process.

    Sends its port through the pipe; ends after so many seconds, or when the pipe receives anything or is
    closed; then sends the numbers of frames and connections.
    """
    width, height = size
    scene = Scene(width=width, height=height, frames=SCENE_FRAMES, targets=TARGETS)
    camera = Camera([picture for picture, _ in render(scene)], rate, wrong, seed)
    pipe.send(camera.port)
    try:
        camera.run(seconds, pipe.poll)
    finally:
        camera.close()
        with suppress(OSError):
            pipe.send({"sent": camera.sent, "connections": camera.connections})
