"""Events for alarms, and peers that receive them on the loopback interface."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeline.config.alarms_section import AlarmsConfig
from pipeline.config.parsing import build
from pipeline.structures.events import Event
from tests.support.stream_servers import free_port

PICTURE = b"\xff\xd8 a picture \xff\xd9"


def event(number: int = 1, phase: str = "start", **changes: Any) -> Event:
    """Returns a message; those of one number are about the same event."""
    values: dict[str, Any] = {
        "id": f"run-{number}",
        "sequence": {"start": 0, "update": 1, "end": 2}[phase],
        "phase": phase,
        "rule": "gate",
        "source": "camera",
        "track": number,
        "label": "drone",
        "frame": 40,
        "pts": 1.6,
        "time": None,
        "begun": 1.0,
        "duration": 0.6,
        "score": 0.875,
        "box": (10.0, 20.0, 14.0, 26.0),
        "velocity": (3.0, 4.0),
        "zone": None,
        "evidence": None,
    }
    return Event(**{**values, **changes})


def alarms(**section: Any) -> AlarmsConfig:
    """Returns a section [alarms]."""
    return build(AlarmsConfig, section)


def wait_until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Waits until a condition holds; fails if it does not within some seconds."""
    latest = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < latest, "it takes too long"
        time.sleep(0.005)


class Request(NamedTuple):
    """A request that a web server got."""

    headers: dict[str, str]
    body: bytes
    arrival: float

    @property
    def table(self) -> dict[str, Any]:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class WebReceiver:
    """A web server that records POST requests and answers them as it is told."""

    port: int
    replies: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Status and headers of the next responses; 200 after those."""
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def keys(self) -> list[str]:
        """Keys of the messages that were taken, in their order."""
        return [request.headers["Idempotency-Key"] for request in self.requests]


@contextmanager
def web_receiver(
    *, port: int = 0, certificate: Path | None = None, delay: float = 0.0
) -> Iterator[WebReceiver]:
    """Runs a web server in the block, with TLS if there is a file of a certificate and its key."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            arrival = time.monotonic()
            time.sleep(delay)
            status, headers = receiver.replies.pop(0) if receiver.replies else (200, {})
            if 200 <= status < 300:
                receiver.requests.append(Request(dict(self.headers), body, arrival))
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Writes nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Ignores clients that end a handshake."""

    server = Server(("127.0.0.1", port), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    receiver = WebReceiver(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()


class Broker:
    """A broker of MQTT, mosquitto, and a client that keeps what is published."""

    def __init__(self, folder: Path, **lines: str):
        self.port = free_port()
        self._file = folder / "mosquitto.conf"
        settings = {"listener": f"{self.port} 127.0.0.1", "allow_anonymous": "true", **lines}
        self._file.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Starts the broker and waits until it listens."""
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        command = [program, "-c", str(self._file)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._listens)

    def stop(self) -> None:
        """Ends the broker; what was retained is lost."""
        if self._process:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def _listens(self) -> bool:
        import socket

        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Published(NamedTuple):
    """A message that a subscriber got."""

    topic: str
    payload: bytes
    retained: bool
    arrival: float


class Subscriber:
    """A client of a broker that keeps all messages."""

    def __init__(self, port: int, topic: str = "#", **login: str):
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.messages: list[Published] = []
        self._ready = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2)
        if login:
            self._client.username_pw_set(login["user"], login["password"])
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._keep
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(10)

    def _keep(self, _client: Any, _data: Any, message: Any) -> None:
        row = Published(message.topic, message.payload, message.retain, time.monotonic())
        self.messages.append(row)

    def payloads(self, topic: str) -> list[bytes]:
        """Returns what was published on a topic, in its order."""
        return [message.payload for message in list(self.messages) if message.topic == topic]

    def close(self) -> None:
        """Ends the connection."""
        self._client.disconnect()
        self._client.loop_stop()


has_mosquitto = shutil.which("mosquitto") is not None or Path("/usr/sbin/mosquitto").exists()
needs_broker = pytest.mark.skipif(not has_mosquitto, reason="no mosquitto: apt-get install mosquitto")


@contextmanager
def broker(folder: Path, **lines: str) -> Iterator[Broker]:
    """Runs a broker in the block; `lines` are further lines of its configuration."""
    one = Broker(folder, **lines)
    one.start()
    try:
        yield one
    finally:
        one.stop()


@contextmanager
def subscriber(port: int, topic: str = "#", **login: str) -> Iterator[Subscriber]:
    """Runs a subscriber in the block."""
    one = Subscriber(port, topic, **login)
    try:
        yield one
    finally:
        one.close()
