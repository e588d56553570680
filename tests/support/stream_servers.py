"""Servers on the loopback interface that send video, each in its own thread."""

from __future__ import annotations

import base64
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

DATAGRAM = 7 * 188
"""Usual number of bytes of a transport stream in one datagram."""
SESSION = "".join(
    f"{line}\r\n"
    for line in (
        "v=0",
        "o=- 0 0 IN IP4 127.0.0.1",
        "s=camera",
        "t=0 0",
        "m=video 0 RTP/AVP 33",
        "a=control:track",
    )
)
"""SDP of an RTSP camera with one track, an MPEG transport stream."""


def free_port() -> int:
    """Returns a free port of the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextmanager
def listener(serve: Callable[[socket.socket], None], port: int = 0) -> Iterator[int]:
    """Runs a TCP server that calls `serve` with each connection during the block; yields its port.

    With `port` 0 it has a free one.
    """
    server = socket.create_server(("127.0.0.1", port))
    connections: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                connections.append(connection)
                threading.Thread(target=quietly, args=(connection,), daemon=True).start()

    def quietly(connection: socket.socket) -> None:
        with suppress(OSError):
            serve(connection)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        for item in (server, *connections):
            item.close()


def silence(connection: socket.socket) -> None:
    """Reads everything and sends nothing."""
    while connection.recv(4096):
        pass


def sending(data: bytes, *, then_silent: bool = False) -> Callable[[socket.socket], None]:
    """Returns a handler that sends the data and then closes the connection or stays silent."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(data)
        if then_silent:
            silence(connection)
        connection.shutdown(socket.SHUT_RDWR)

    return serve


@contextmanager
def datagrams(data: bytes, *, pause: float = 0.002) -> Iterator[int]:
    """Sends the data repeatedly by UDP during the block; yields the port it is sent to."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stop = threading.Event()

    def send() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            while not stop.is_set():
                for start in range(0, len(data), DATAGRAM):
                    with suppress(OSError):
                        sender.sendto(data[start : start + DATAGRAM], ("127.0.0.1", port))
                    if stop.wait(pause):
                        return

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        stop.set()
        thread.join()


@contextmanager
def web_server(folder: Path, *, login: str | None = None) -> Iterator[int]:
    """Serves the files of a folder over HTTP; requires `login` as user:password if set; yields the port."""
    expected = login and "Basic " + base64.b64encode(login.encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if expected and self.headers.get("Authorization") != expected:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data = (folder / self.path.partition("?")[0].strip("/")).read_bytes()
            begin = int(self.headers.get("Range", "bytes=0-").partition("=")[2].partition("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - begin))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(data[begin:])

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def rtsp(
    stream: bytes, *, then_silent: bool = False, seconds: float | None = None
) -> Callable[[socket.socket], None]:
    """Returns a handler that serves an MPEG transport stream by RTSP, interleaved over TCP.

    It is a recording if its duration in `seconds` is announced, otherwise a camera.
    """
    session = SESSION if seconds is None else f"{SESSION}a=range:npt=0-{seconds:g}\r\n"

    def serve(connection: socket.socket) -> None:
        with connection.makefile("rb") as incoming:
            while request := _rtsp_request(incoming):
                method, address, number = request
                more, body = "", ""
                if method == "DESCRIBE":
                    body = session
                    more = f"Content-Base: {address}/\r\nContent-Type: application/sdp\r\n"
                elif method == "SETUP":
                    more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
                elif method == "OPTIONS":
                    more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
                head = f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\nSession: 1\r\n{more}"
                connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
                if method == "PLAY":
                    _send_rtp(connection, stream)
                    if not then_silent:
                        return connection.shutdown(socket.SHUT_RDWR)

    return serve


def _rtsp_request(incoming) -> tuple[str, str, str] | None:
    """Returns method, address and sequence number of the next request; None at the end."""
    first = incoming.readline().decode()
    if not first:
        return None
    headers = dict(line.split(": ", 1) for line in iter(lambda: incoming.readline().decode().strip(), ""))
    method, address, _ = first.split()
    return method, address, headers["CSeq"]


def _send_rtp(connection: socket.socket, stream: bytes) -> None:
    for number, start in enumerate(range(0, len(stream), DATAGRAM)):
        clock = int(time.monotonic() * 90_000) & 0xFFFFFFFF
        packet = struct.pack(">BBHII", 0x80, 33, number & 0xFFFF, clock, 1) + stream[start : start + DATAGRAM]
        connection.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)


def write(descriptor: int, data: bytes) -> None:
    """Writes the data until the reader closes its end."""
    with suppress(OSError):
        while data:
            data = data[os.write(descriptor, data) :]


@contextmanager
def standard_input(data: bytes | None) -> Iterator[int]:
    """Replaces standard input by a pipe with the data and its end; None for a silent writer.

    Yields the writing end.
    """
    kept = os.dup(0)
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    os.close(reading)

    def write_all() -> None:
        write(writing, data)
        os.close(writing)

    if data is not None:
        threading.Thread(target=write_all, daemon=True).start()
    try:
        yield writing
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        if data is None:
            os.close(writing)
