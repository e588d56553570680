"""Health and metrics of a run over HTTP: states, numbers, no passwords, no effect on the run."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from itertools import count

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig, ServiceConfig
from pipeline.runner.health import RunMetrics, health, serve_health
from pipeline.runner.multi import run_many
from pipeline.runner.single import run
from pipeline.runner.summary import Summary
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks
from pipeline.system.errors import UsageError
from run_pipeline import parts
from tests.conftest import PROJECT_ROOT
from tests.support import stream_servers
from tests.support.media import grey_frames
from tests.support.outputs import lines, report

SECONDS = 60.0
"""Longest wait of a test."""
RAW = {"format": "raw", "size": "64x64", "dtype": "uint8", "timeout": SECONDS}
QUICK = {"on_full": "wait", "reconnect": "forever", "backoff": 0.02, "backoff_cap": 0.05}


def ask(port: int, path: str, *, host: str = "127.0.0.1", method: str = "GET") -> tuple[int, str]:
    """Sends a request; returns status and body of the response."""
    connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def healthz(port: int) -> tuple[int, dict]:
    status, body = ask(port, "/healthz")
    return status, json.loads(body)


def metrics(text: str) -> dict[tuple, float]:
    """Parses the samples of a run with one stream by (name, values of the labels except `stream`, …)."""
    samples = (one for family in text_string_to_metric_families(text) for one in family.samples)
    return {
        (one.name, *(value for label, value in one.labels.items() if label != "stream")): one.value
        for one in samples
    }


def until(found, what: str):
    """Calls `found` until its value is true; returns the value."""
    latest = time.monotonic() + SECONDS
    while not (value := found()):
        assert time.monotonic() < latest, f"timeout while waiting for {what}"
        time.sleep(0.02)
    return value


def raw(number: int) -> bytes:
    return b"".join(picture.tobytes() for picture in grey_frames(number, 64, 64))


@pytest.fixture
def config(tmp_path, nano_weights):
    """Builds a configuration from sections; returns it and its port."""

    def make(**sections) -> tuple[RunConfig, int]:
        port = stream_servers.free_port()
        table = {
            "detector": {"weights": nano_weights, "conf": 0.2},
            "output": {"folder": str(tmp_path / "out")},
        }
        table |= {"source": RAW, "live": QUICK, **sections}
        table["service"] = {"health_port": port, **sections.get("service", {})}
        return build(RunConfig, table), port

    return make


@contextmanager
def going(work, *arguments):
    """Runs `work` in a thread, which must end with the block; yields the list for its result."""
    results, failures = [], []

    def do() -> None:
        try:
            results.append(work(*arguments, parts(), progress="off"))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=do)
    thread.start()
    try:
        yield results
    finally:
        thread.join(SECONDS)
    assert not thread.is_alive()
    assert not failures


def frames_done(port: int, wanted: int) -> dict | None:
    """Returns the response of /healthz once `wanted` frames are processed; None before."""
    try:
        _, answer = healthz(port)
    except OSError:  # not listening yet
        return None
    return answer if sum(row.get("frames", 0) for row in answer["streams"].values()) >= wanted else None


def test_a_live_run_reports_health_and_metrics_and_stops_the_server_at_its_end(config):
    settings, port = config(live={**QUICK, "reconnect": "none"})
    over = threading.Event()

    def serve(connection) -> None:
        connection.sendall(raw(7))
        over.wait(SECONDS)
        connection.shutdown(socket.SHUT_RDWR)

    with (
        stream_servers.listener(serve) as camera,
        going(run, f"tcp://user:sesame@127.0.0.1:{camera}", settings) as ended,
    ):
        answer = until(lambda: frames_done(port, 7), "seven frames")
        stream = f"127.0.0.1-{camera}"
        assert (answer["status"], list(answer["streams"])) == ("ok", [stream])
        assert answer["streams"][stream]["state"] == "running"
        assert healthz(port)[0] == 200
        status, text = ask(port, "/metrics")
        assert status == 200
        assert f'mote_frames_processed_total{{stream="{stream}"}} 7.0' in text
        now = metrics(text)
        assert now["mote_frames_decoded_total",] == 7
        assert now["mote_stream_healthy",] == 1
        assert now["mote_latency_seconds_count",] == 7
        assert now["process_resident_memory_bytes",] > 50e6
        assert "sesame" not in text + json.dumps(answer)
        assert [thread.daemon for thread in threading.enumerate() if thread.name == "health"] == [True]
        over.set()
    assert ended[0].failure is None
    with pytest.raises(ConnectionRefusedError):
        ask(port, "/healthz")
    assert "health" not in [thread.name for thread in threading.enumerate()]


def test_a_run_without_results_for_too_long_is_stalled(config):
    settings, port = config(service={"stalled_after": 0.3}, live={**QUICK, "reconnect": "none"})
    over = threading.Event()

    def serve(connection) -> None:
        connection.sendall(raw(3))
        over.wait(SECONDS)
        connection.shutdown(socket.SHUT_RDWR)

    with stream_servers.listener(serve) as camera, going(run, f"tcp://127.0.0.1:{camera}", settings):
        until(lambda: frames_done(port, 3), "three frames")
        answer = until(lambda: (response := healthz(port))[0] == 503 and response[1], "a stall")
        over.set()
    (row,) = answer["streams"].values()
    assert (answer["status"], row["state"]) == ("failing", "stalled")
    assert row["reason"] == "no result for 0.3 s"
    assert row["idle_seconds"] >= 0.3


def test_a_lost_source_is_reported_until_it_reconnects(config):
    settings, port = config(source={**RAW, "max_frames": 7})
    number, back = count(), threading.Event()

    def serve(connection) -> None:
        if next(number) == 0:
            connection.sendall(raw(3))
        elif back.is_set():
            connection.sendall(raw(7))
        connection.shutdown(socket.SHUT_RDWR)

    with (
        stream_servers.listener(serve) as camera,
        going(run, f"tcp://127.0.0.1:{camera}?token=sesame", settings) as ended,
    ):
        until(lambda: frames_done(port, 3), "three frames")
        answer = until(lambda: (response := healthz(port))[0] == 503 and response[1], "the loss")
        now = metrics(ask(port, "/metrics")[1])
        back.set()
    ((name, row),) = answer["streams"].items()
    assert name == f"127.0.0.1-{camera}"
    assert row["state"] == "away"
    assert row["reason"]
    assert "sesame" not in json.dumps(answer)
    assert now["mote_stream_healthy",] == 0
    assert ended[0].written == 7
    assert ended[0].source.outage is None


def test_streams_are_reported_by_name_including_unopened_ones(config, tmp_path):
    settings, port = config(live={**QUICK, "reconnect": "none"})
    over = threading.Event()

    def serve(connection) -> None:
        connection.sendall(raw(3))
        over.wait(SECONDS)
        connection.shutdown(socket.SHUT_RDWR)

    with stream_servers.listener(serve) as north, stream_servers.listener(serve) as south:
        cameras = [f"tcp://127.0.0.1:{camera}" for camera in (north, south)]
        with going(run_many, [*cameras, str(tmp_path / "gone.bin")], settings) as ended:
            until(lambda: frames_done(port, 6), "three frames of each")
            status, answer = healthz(port)
            text = ask(port, "/metrics")[1]
            over.set()
    assert status == 503
    states = {name: row["state"] for name, row in answer["streams"].items()}
    names = [f"127.0.0.1-{camera}" for camera in (north, south)]
    assert states == {**dict.fromkeys(names, "running"), "gone": "not opened"}
    assert answer["streams"]["gone"]["reason"].endswith("gone.bin: no such file or folder")
    for name in names:
        assert f'mote_frames_processed_total{{stream="{name}"}} 3.0' in text
    assert 'mote_stream_healthy{stream="gone"} 0.0' in text
    assert 'mote_stream_state{state="not_opened",stream="gone"} 1.0' in text
    assert f'mote_stream_state{{state="running",stream="{names[0]}"}} 1.0' in text
    assert f'mote_stream_state{{state="starting",stream="{names[0]}"}} 0.0' in text
    assert [record.written for record in ended[0].records.values()] == [3, 3]


def collected(summary: Summary) -> dict[tuple, float]:
    """Collects the metrics of all streams without a server."""
    registry = prometheus_client.CollectorRegistry()
    registry.register(RunMetrics(summary, ServiceConfig()))
    return metrics(prometheus_client.generate_latest(registry).decode())


def test_metrics_agree_with_run_json(config, clip, tmp_path):
    settings, _ = config(source={}, live={"on_full": "drop-oldest", "queue": 1}, service={"health_port": 0})
    summary = Summary()
    summary.records["clip"] = run(str(clip), settings, parts(), progress="off")
    found, facts = collected(summary), report(tmp_path / "out")
    assert found["mote_frames_decoded_total",] == facts["frames"]["decoded"] == 16
    assert found["mote_frames_processed_total",] == facts["frames"]["written"]
    assert found["mote_frames_dropped_total", "queue_full"] == facts["frames"]["dropped"].get("queue full", 0)
    assert found["mote_detections_total",] == facts["detections"] > 0
    assert found["mote_tracks_total",] == facts["tracks"]
    seen = [track for track in lines(tmp_path / "out")[-1]["tracks"] if track["state"] != "tentative"]
    assert found["mote_live_tracks",] == len(seen)
    gaps = {key[1]: value for key, value in found.items() if key[0] == "mote_gaps_total"}
    assert gaps == facts["gaps"]


def test_latency_buckets_are_cumulative(config, clip):
    settings, _ = config(source={"max_frames": 1}, service={"health_port": 0})
    summary = Summary()
    summary.records["clip"] = record = run(str(clip), settings, parts(), progress="off")
    durations = [0.0004, 0.002, 0.02, 0.02, 0.3, 200]
    for seconds in durations:
        record.latency.add(seconds)
    found = collected(summary)
    buckets = {key[1]: value for key, value in found.items() if key[0] == "mote_latency_seconds_bucket"}
    assert list(buckets)[:4] == ["0.001", "0.00251", "0.00501", "0.01"]
    for edge, number in buckets.items():
        assert number == sum(seconds <= float(edge) for seconds in durations)
    assert found["mote_latency_seconds_count",] == len(durations)
    assert found["mote_latency_seconds_sum",] == pytest.approx(sum(durations))


def test_each_result_restarts_the_stall_timer(config, clip):
    settings, _ = config(source={"max_frames": 1}, service={"health_port": 0})
    record = run(str(clip), settings, parts(), progress="off")
    first = record.last_progress
    frame = Frame(grey_frames(1)[0], 1, Fraction(1), "clip")
    record.add(Result(frame, Detections.empty(), tracks=Tracks.empty(), warmup=False))
    assert record.last_progress > first


def test_a_failed_stream_is_unhealthy_and_a_finished_one_is_not(config, clip):
    settings, _ = config(source={"max_frames": 1}, service={"health_port": 0})
    summary = Summary()
    summary.records["clip"] = record = run(str(clip), settings, parts(), progress="off")
    assert health(summary, settings.service)["status"] == "ok"
    record.failure = UsageError("rtsp://user:sesame@camera/1: lost")
    answer = health(summary, settings.service)
    assert answer["status"] == "failing"
    assert answer["streams"]["clip"]["state"] == "failed"
    assert answer["streams"]["clip"]["reason"] == "rtsp://camera/1: lost"


def test_the_global_prometheus_registry_is_not_used():
    with serve_health(Summary(), ServiceConfig(health_port=stream_servers.free_port())):
        assert b"mote_" not in prometheus_client.generate_latest(prometheus_client.REGISTRY)


def test_the_server_listens_on_the_loopback_interface_by_default():
    with serve_health(Summary(), ServiceConfig(health_port=(port := stream_servers.free_port()))):
        assert healthz(port) == (200, {"status": "ok", "streams": {}})
        with pytest.raises(ConnectionRefusedError):
            ask(port, "/healthz", host="127.0.0.2")
    with serve_health(
        Summary(), ServiceConfig(health_port=(port := stream_servers.free_port()), health_host="0.0.0.0")
    ):
        assert ask(port, "/healthz", host="127.0.0.2")[0] == 200


def test_unknown_paths_are_not_found_and_head_has_no_body():
    with serve_health(Summary(), ServiceConfig(health_port=(port := stream_servers.free_port()))):
        assert ask(port, "/")[0] == 404
        assert ask(port, "/metrics/../../etc/passwd")[0] == 404
        assert ask(port, "/healthz?verbose=1")[0] == 200
        assert ask(port, "/metrics", method="HEAD") == (200, "")
        assert ask(port, "/metrics", method="POST")[0] == 501


def test_a_silent_client_blocks_neither_others_nor_the_end(monkeypatch):
    monkeypatch.setattr("pipeline.runner.health._Handler.timeout", SECONDS)
    with ExitStack() as clients:
        with serve_health(Summary(), ServiceConfig(health_port=(port := stream_servers.free_port()))):
            clients.enter_context(socket.create_connection(("127.0.0.1", port)))
            assert healthz(port)[0] == 200
            ending = time.monotonic()
        assert time.monotonic() - ending < SECONDS / 2


def test_a_port_in_use_ends_in_one_line_without_outputs(mote, clip, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        reply = mote("--video", clip, "--output", tmp_path / "out", "--health-port", port)
    assert reply.code == 2
    assert reply.err == (
        f"error: nothing can be served on 127.0.0.1:{port}: Address already in use; choose another "
        "--health-port, or the address of an interface with --health-host\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--health-port", "70000"], "--health-port 70000, expected 1 to 65535, or 0 for none"),
        (["--health-port", "9", "--health-host", ""], "health_host is empty"),
        (
            ["--set", "service.stalled_after=0"],
            "--set service.stalled_after=0, expected seconds, more than 0",
        ),
        (
            ["--health-port", "8099", "--health-host", "203.0.113.7"],
            "nothing can be served on 203.0.113.7:8099",
        ),
    ],
)
def test_an_invalid_port_or_host_is_refused(mote, clip, tmp_path, options, message):
    reply = mote("--video", clip, "--output", tmp_path / "out", *options)
    assert reply.code == 2
    assert message in reply.err
    assert reply.err.count("\n") == 1


TWICE = """
import sys, run_pipeline
from run_pipeline import parts
for options in (["--output", "unasked"], ["--output", "asked", "--health-port", sys.argv[1]]):
    assert run_pipeline.main([*sys.argv[2:], *options]) == 0
    names = ("prometheus_client", "http.server", "pipeline.runner.health")
    print([name for name in names if name in sys.modules])
"""


def test_server_modules_are_only_loaded_on_request_and_keep_no_process_alive(tmp_path, clip, nano_weights):
    options = ["--video", clip, "--weights", nano_weights, "--max-frames", "1", "--no-save-video"]
    command = [sys.executable, "-c", TWICE, stream_servers.free_port(), *options, "--progress", "off"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    done = subprocess.run(
        [*map(str, command)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("[")] == [
        "[]",
        "['prometheus_client', 'http.server', 'pipeline.runner.health']",
    ]
