"""HTTP server of a run: `/healthz` reports whether frames are processed, `/metrics` counts for Prometheus.

Both are computed from the records of the streams on request, in a thread of the server, so they cost the run
nothing. There is no login: the server listens on the loopback interface unless another one is configured.
"""

from __future__ import annotations

import json
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from pipeline import __version__
from pipeline.alarms.delivery import Deliveries
from pipeline.config.schema import ServiceConfig
from pipeline.runner.run_record import RunRecord
from pipeline.runner.summary import Summary
from pipeline.sources.pending import PendingSource
from pipeline.system.errors import UsageError, describe
from pipeline.system.redaction import redact

REQUEST_SECONDS = 5.0
"""Maximum duration of a whole request, from the connection to the last byte of the response."""
MAX_CONNECTIONS = 16
"""Maximum number of connections; a further one ends the oldest, so slow clients cannot keep others out."""
POLL_SECONDS = 0.05
"""Interval in which the server checks whether the run has ended."""
log = logging.getLogger(__name__)
STATES = ("starting", "running", "ended", "stalled", "away", "failed", "not opened")
"""States of a stream, see `health`."""
WELL = STATES[:3]
"""States of a healthy stream, unless it has a reason."""


class RunMetrics(Collector):
    """Metrics of a run for Prometheus, with the name of the stream as the label `stream`."""

    def __init__(self, summary: Summary, config: ServiceConfig):
        self._summary, self._config = summary, config

    def collect(self) -> Iterator[Any]:
        """Yields the current metrics."""
        about = GaugeMetricFamily("mote_info", "Version of the program.", labels=["version"])
        about.add_metric([__version__], 1)
        yield about
        # a copy: streams may be added by the run
        streams = dict(self._summary.records)
        for name, text, value in COUNTS:
            family = CounterMetricFamily(f"mote_{name}", text, labels=["stream"])
            for stream, record in streams.items():
                family.add_metric([stream], value(record))
            yield family
        yield _labelled("frames_dropped", "Frames left out on purpose.", "reason", streams, _drops)
        yield _labelled("events", "Events that have started, by rule.", "rule", streams, _events)
        yield _labelled("gaps", "Events between frames, by kind.", "event", streams, _gaps)
        alive = GaugeMetricFamily("mote_live_tracks", "Confirmed tracks now.", labels=["stream"])
        latency = HistogramMetricFamily(
            "mote_latency_seconds",
            "From the arrival of a frame of a live source to its written result.",
            labels=["stream"],
        )
        for stream, record in streams.items():
            alive.add_metric([stream], record.live_tracks)
            buckets, total = record.latency.cumulative()
            latency.add_metric([stream], buckets, total)
        yield alive
        yield latency
        well = GaugeMetricFamily(
            "mote_stream_healthy", "1 while frames of a stream go through, else 0.", labels=["stream"]
        )
        state = GaugeMetricFamily("mote_stream_state", "1 for the current state.", labels=["stream", "state"])
        for stream, facts in health(self._summary, self._config)["streams"].items():
            well.add_metric([stream], _is_well(facts))
            for name in STATES:
                state.add_metric([stream, name.replace(" ", "_")], facts["state"] == name)
        yield well
        yield state
        if self._summary.alarms is not None:
            yield from alarm_metrics(self._summary.alarms)


COUNTS = (
    ("frames_decoded", "Frames that left the source.", lambda one: one.decoded),
    ("frames_processed", "Frames whose results are written.", lambda one: one.written),
    ("frames_corrupt", "Coded pictures that were damaged and skipped.", lambda one: one.source.corrupt),
    ("reconnects", "Connections after the first that gave frames.", lambda one: one.source.reconnects),
    ("detections", "Detections written.", lambda one: one.detections),
    ("tracks", "Tracks confirmed at least once.", lambda one: one.tracks),
)
"""Counters: name, help text, and the function that reads it from the record of a stream."""


def alarm_metrics(alarms: Deliveries) -> Iterator[Any]:
    """Yields the metrics of the receivers of alarms, with the name of each as the label `receiver`."""
    delivered = CounterMetricFamily("mote_alarms_delivered", "Alarms delivered.", labels=["receiver"])
    text = "Alarms given up: refused by the receiver, or discarded from the queue."
    failed = CounterMetricFamily("mote_alarms_failed", text, labels=["receiver", "reason"])
    for name, counts in alarms.counts.items():
        delivered.add_metric([name], counts.delivered)
        for reason in ("refused", "too_many", "too_old"):
            failed.add_metric([name, reason], getattr(counts, reason))
    waiting = GaugeMetricFamily("mote_alarms_waiting", "Alarms in the queue.", labels=["receiver"])
    for name, count in alarms.waiting().items():
        waiting.add_metric([name], count)
    text = "Seconds since the first of the failures in a row; 0 if the last delivery succeeded."
    failing = GaugeMetricFamily("mote_alarms_failing_seconds", text, labels=["receiver"])
    for name, health in alarms.health.items():
        failing.add_metric([name], health.failing)
    yield from (delivered, failed, waiting, failing)


def alarm_states(alarms: Deliveries) -> dict[str, dict[str, Any]]:
    """Returns the state of each receiver of alarms.

    It is `ok`, `failing` while its deliveries fail, or `down` if they have failed for more than
    `alarms.down_after` seconds.
    """
    states: dict[str, dict[str, Any]] = {}
    waiting = alarms.waiting()
    for name, health in alarms.health.items():
        late = "down" if health.failing > alarms.config.down_after else "failing"
        facts = {"state": late if health.reason else "ok", "waiting": waiting[name]}
        why = {"failing_seconds": round(health.failing, 1), "reason": health.reason}
        states[name] = {**facts, **(why if health.reason else {})}
    return states


def _events(record: RunRecord) -> dict[str, int]:
    return record.events


def _drops(record: RunRecord) -> dict[str, int]:
    return {"queue full": record.dropped.count, "max rate": record.limit.skipped.count}


def _gaps(record: RunRecord) -> dict[str, int]:
    return {str(event): count for event, count in record.gaps.events.items()} if record.gaps else {}


def _labelled(name: str, text: str, label: str, streams: dict[str, RunRecord], counts) -> CounterMetricFamily:
    """Returns a counter that has a second label beside `stream`."""
    family = CounterMetricFamily(f"mote_{name}", text, labels=["stream", label])
    for stream, record in streams.items():
        for kind, count in counts(record).items():
            family.add_metric([stream, kind.replace(" ", "_")], count)
    return family


def health(summary: Summary, config: ServiceConfig) -> dict[str, Any]:
    """Returns the response of `/healthz`: a status, `ok` or `failing`, and the state of each stream.

    A stream is `starting` before its first result, with the reason if its source could not be opened so far
    or takes more than `service.stalled_after` seconds. Then it is `running` while results are written,
    `stalled` after these seconds without a result, `away` while a live source is reconnected, and finally
    `ended` or `failed`; a stream that could not be opened is `not opened`. Receivers of alarms have states,
    too, see `alarm_states`; they count for the status only with `alarms.unhealthy`.
    """
    streams = {name: _starting_state(pending, config) for name, pending in summary.starting.items()}
    streams |= {name: _state(record, config) for name, record in dict(summary.records).items()}
    for name, error in dict(summary.unopened).items():
        streams[name] = {"state": "not opened", "reason": redact(describe(error))}
    failing = not all(map(_is_well, streams.values()))
    if summary.alarms is None:
        return {"status": "failing" if failing else "ok", "streams": streams}
    receivers = alarm_states(summary.alarms)
    if summary.alarms.config.unhealthy:
        failing |= any(facts["state"] == "down" for facts in receivers.values())
    return {"status": "failing" if failing else "ok", "streams": streams, "alarms": receivers}


def _is_well(facts: dict[str, Any]) -> bool:
    return facts["state"] in WELL and "reason" not in facts


def _starting_state(pending: PendingSource, config: ServiceConfig) -> dict[str, Any]:
    """Returns the state of a stream whose source is being opened, or is open and waits for the networks."""
    idle, reason = time.monotonic() - pending.since, None
    if not pending.opened:
        late = f"not open for {config.stalled_after:g} s" if idle > config.stalled_after else None
        reason = pending.outage or late
    return _facts("starting", 0, idle, reason)


def _facts(state: str, frames: int, idle: float, reason: str | None) -> dict[str, Any]:
    facts = {"state": state, "frames": frames, "idle_seconds": round(idle, 1)}
    return {**facts, **({"reason": redact(reason)} if reason else {})}


def _state(record: RunRecord, config: ServiceConfig) -> dict[str, Any]:
    """Returns the state of a stream."""
    idle = time.monotonic() - record.last_progress
    if record.ended:
        state = "failed" if record.failure else "ended"
        reason = record.reason
    elif reason := record.source.outage:
        state = "away"
    elif idle > config.stalled_after:
        state, reason = "stalled", f"no result for {config.stalled_after:g} s"
    else:
        state = "running" if record.written else "starting"
    return _facts(state, record.written, idle, reason)


class _Server(socketserver.ThreadingTCPServer):
    """Threading HTTP server; that of http.server would first resolve the host name by DNS."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False  # a client that does not read its response must not delay the end of the run

    def __init__(self, family: socket.AddressFamily, address: tuple, handler):
        self.address_family = family
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, float] = {}  # with the time of their start, the oldest first
        super().__init__(address, handler)

    def process_request(self, request, client_address) -> None:
        """Starts the thread of a request; ends the oldest connection if there are too many."""
        with self._lock:
            surplus = list(self._connections)[: max(len(self._connections) - MAX_CONNECTIONS + 1, 0)]
            self._connections[request] = time.monotonic()
        self._end(surplus)
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Ends the connections whose time is up; called every `POLL_SECONDS`."""
        latest = time.monotonic() - REQUEST_SECONDS
        with self._lock:
            late = [request for request, started in self._connections.items() if started < latest]
        self._end(late)

    def shutdown_request(self, request) -> None:
        """Closes a connection."""
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def _end(self, requests: list[socket.socket]) -> None:
        """Ends reads and writes of connections; their threads close them."""
        with self._lock:
            for request in requests:
                if self._connections.pop(request, None) is not None:
                    with suppress(OSError):  # the client has ended it
                        request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_) -> None:
        """Ignores clients that disconnect during a request."""


class _Handler(BaseHTTPRequestHandler):
    """Handles requests of `/healthz` and `/metrics`."""

    timeout = REQUEST_SECONDS
    server_version = f"mote/{__version__}"

    def __init__(self, *arguments, summary: Summary, config: ServiceConfig, registry: CollectorRegistry):
        self._summary, self._config, self._registry = summary, config, registry
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Sends the response of a path."""
        path = self.path.partition("?")[0]
        if path == "/healthz":
            report = health(self._summary, self._config)
            code = HTTPStatus.OK if report["status"] == "ok" else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(code, "application/json", json.dumps(report).encode() + b"\n")
        elif path == "/metrics":
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            self._answer(HTTPStatus.OK, kind, encode(self._registry))
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"there are /healthz and /metrics\n")

    do_HEAD = do_GET

    def _answer(self, code: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        """Writes no log line per request."""


@contextmanager
def serve_health(summary: Summary, config: ServiceConfig) -> Iterator[None]:
    """Serves on `service.health_port` within the block. Raises UsageError if the port cannot be opened."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(RunMetrics(summary, config))
    handler = partial(_Handler, summary=summary, config=config, registry=registry)
    server = _listening(config, handler)
    serve = partial(server.serve_forever, poll_interval=POLL_SECONDS)
    thread = threading.Thread(target=serve, name="health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _listening(config: ServiceConfig, handler) -> _Server:
    host, port = config.health_host, config.health_port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        server = _Server(family, address, handler)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be one
        reason = getattr(error, "strerror", None) or str(error)
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        remedy = "choose another --health-port, or the address of an interface with --health-host"
        raise UsageError(f"nothing can be served on {where}: {reason}; {remedy}") from error
    if not ip_address(str(address[0]).partition("%")[0]).is_loopback:
        log.warning(
            "health and metrics are served on %s without a login to anybody who can reach that port", host
        )
    return server
