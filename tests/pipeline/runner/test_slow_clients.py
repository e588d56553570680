"""Slow clients of the health port neither use up descriptors nor keep others out."""

from __future__ import annotations

import http.client
import logging
import socket
import time
from contextlib import ExitStack, suppress

import pytest

from pipeline.config.schema import ServiceConfig
from pipeline.runner import health
from pipeline.runner.summary import Summary
from tests.support import stream_servers
from tests.support.media import open_files


@pytest.fixture
def port():
    port = stream_servers.free_port()
    with health.serve_health(Summary(), ServiceConfig(health_port=port)):
        yield port


def status(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/healthz")
    with connection.getresponse() as response:
        response.read()
        return response.status


def wait_for(condition, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_many_silent_clients_do_not_use_up_descriptors_or_keep_others_out(port):
    before = open_files()
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(100)]
        assert status(port) == 200
        wait_for(lambda: open_files() <= before + len(clients) + health.MAX_CONNECTIONS)
        assert status(port) == 200
    wait_for(lambda: open_files() <= before)


def test_a_client_that_sends_a_byte_now_and_then_is_ended_after_the_time_limit(port, monkeypatch):
    monkeypatch.setattr(health, "REQUEST_SECONDS", 0.5)
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\n")
        with suppress(OSError):
            while time.monotonic() - started < 10:
                client.sendall(b"X")
                time.sleep(0.05)
    assert 0.4 < time.monotonic() - started < 5
    assert status(port) == 200


@pytest.mark.parametrize(("host", "count"), [("127.0.0.1", 0), ("0.0.0.0", 1)])
def test_one_warning_says_that_health_is_open_to_other_machines(caplog, host, count):
    config = ServiceConfig(health_port=stream_servers.free_port(), health_host=host)
    with caplog.at_level(logging.WARNING), health.serve_health(Summary(), config):
        pass
    found = [record.getMessage() for record in caplog.records if "without a login" in record.getMessage()]
    assert len(found) == count
