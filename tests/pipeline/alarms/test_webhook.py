"""Web servers get one signed POST for each message, and say what becomes of it."""

from __future__ import annotations

import base64
import email
import email.policy
import hashlib
import hmac
import http.server
import re
import subprocess
import threading
import time
from email.utils import format_datetime

import pytest

from pipeline.alarms.message import Message
from pipeline.alarms.receiver import NotReached, Refused
from pipeline.alarms.webhook import Webhook, retry_after
from pipeline.config.alarms_section import WebhookConfig
from tests.conftest import PROJECT_ROOT
from tests.support.alarms import PICTURE, event, web_receiver
from tests.support.stream_servers import free_port, listener


@pytest.fixture
def server():
    with web_receiver() as one:
        yield one


def message(folder="", **changes):
    return Message(1, event(**changes).to_dict(), str(folder))


def webhook(url, **settings):
    return Webhook("hook", WebhookConfig(url=url, **settings))


def test_the_body_is_the_event_as_json(server):
    webhook(server.url).deliver(message())
    (request,) = server.requests
    expected = {"schema": "mote-event/1", "key": "run-1:0", "test": False, **event().to_dict()}
    assert request.table == expected
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Idempotency-Key"] == "run-1:0"
    assert "Mote-Signature" not in request.headers


def test_the_signature_proves_body_and_time(server, monkeypatch):
    monkeypatch.setenv("HOOK_KEY", "sesame")
    webhook(server.url, secret="env:HOOK_KEY").deliver(message())
    (request,) = server.requests
    timestamp = request.headers["Mote-Timestamp"]
    assert abs(time.time() - int(timestamp)) < 60
    signed = timestamp.encode() + b"." + request.body
    expected = hmac.new(b"sesame", signed, hashlib.sha256).hexdigest()
    assert request.headers["Mote-Signature"] == f"v1={expected}"


def test_the_receiver_in_the_documents_takes_each_signed_message_once(monkeypatch, capsys):
    text = (PROJECT_ROOT / "docs" / "alarms.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.setenv("HOOK_KEY", "sesame")
    monkeypatch.setenv("OTHER_KEY", "wrong")
    names: dict = {}
    exec(program, names)
    names["Hook"].log_message = lambda *_: None
    server = http.server.HTTPServer(("127.0.0.1", 0), names["Hook"])
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    for _ in range(2):
        webhook(url, secret="env:HOOK_KEY").deliver(message())
    with pytest.raises(Refused, match="status 401"):
        webhook(url, secret="env:OTHER_KEY").deliver(message())
    server.shutdown()
    server.server_close()
    assert capsys.readouterr().out.count("run-1:0") == 1


def test_headers_and_logins_come_from_environment_and_files(server, monkeypatch, tmp_path):
    (tmp_path / "token").write_text("Bearer sesame\n")
    monkeypatch.setenv("HOOK", f"http://me:ses%40me@127.0.0.1:{server.port}/hook?x=1")
    webhook("env:HOOK", headers={"X-Place": "mast"}).deliver(message())
    webhook(server.url, headers={"Authorization": f"file:{tmp_path / 'token'}"}).deliver(message())
    first, second = server.requests
    assert first.headers["Authorization"] == "Basic " + base64.b64encode(b"me:ses@me").decode()
    assert first.headers["X-Place"] == "mast"
    assert second.headers["Authorization"] == "Bearer sesame"


def test_a_picture_goes_along_in_the_json(server, tmp_path):
    (tmp_path / "snapshot.jpg").write_bytes(PICTURE)
    webhook(server.url, attach="base64").deliver(message(tmp_path))
    snapshot = server.requests[0].table["snapshot"]
    assert snapshot == {"type": "image/jpeg", "data": base64.b64encode(PICTURE).decode()}


def test_a_picture_goes_along_as_a_part_of_a_form(server, tmp_path):
    (tmp_path / "snapshot.jpg").write_bytes(PICTURE)
    webhook(server.url, attach="multipart").deliver(message(tmp_path))
    (request,) = server.requests
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    form = email.message_from_bytes(head + request.body, policy=email.policy.HTTP)
    parts = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
    assert parts["event"].get_content_type() == "application/json"
    assert parts["event"].get_payload(decode=True) == message().json()
    assert parts["snapshot"].get_content_type() == "image/jpeg"
    assert parts["snapshot"].get_payload(decode=True) == PICTURE


@pytest.mark.parametrize("attach", ["base64", "multipart"])
def test_an_event_without_a_picture_is_sent_all_the_same(server, tmp_path, attach):
    webhook(server.url, attach=attach).deliver(message(tmp_path / "deleted"))
    assert server.requests[0].table["key"] == "run-1:0"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_statuses_that_pass_are_tried_again(server, status):
    server.replies = [(status, {"Retry-After": "7"})]
    with pytest.raises(NotReached, match=f"status {status}") as caught:
        webhook(server.url).deliver(message())
    assert caught.value.after == 7.0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 422])
def test_other_statuses_are_a_refusal(server, status):
    server.replies = [(status, {})]
    with pytest.raises(Refused, match=f"status {status}"):
        webhook(server.url).deliver(message())


def test_a_redirection_is_not_followed(server):
    with web_receiver() as other:
        server.replies = [(307, {"Location": other.url})]
        with pytest.raises(Refused, match="redirects to another address"):
            webhook(server.url).deliver(message())
        assert other.requests == []


def test_retry_after_is_a_number_or_a_date_of_at_most_an_hour():
    now = 1_764_000_000.0
    assert retry_after("30", now) == 30.0
    assert retry_after("999999999999", now) == 3600.0
    assert retry_after("-5", now) is None
    assert retry_after(None, now) is None
    assert retry_after("soon", now) is None
    from datetime import UTC, datetime

    date = format_datetime(datetime.fromtimestamp(now + 90, UTC), usegmt=True)
    assert retry_after(date, now) == 90.0
    assert retry_after(date, now + 1000) == 0.0


def test_a_server_that_is_away_is_named_in_words():
    with pytest.raises(NotReached, match="Connection refused"):
        webhook(f"http://127.0.0.1:{free_port()}/").deliver(message())


def test_a_server_that_sends_a_byte_now_and_then_is_left():
    def drip(connection):
        connection.recv(100)
        while True:
            connection.sendall(b"H")
            time.sleep(0.05)

    with listener(drip) as port:
        started = time.monotonic()
        with pytest.raises(NotReached, match=r"no answer within 0\.3 s"):
            webhook(f"http://127.0.0.1:{port}/", timeout=0.3).deliver(message())
        assert time.monotonic() - started < 3


def test_a_server_that_says_nothing_is_left():
    with listener(lambda connection: time.sleep(5)) as port:
        with pytest.raises(NotReached, match="answer"):
            webhook(f"http://127.0.0.1:{port}/", timeout=0.2).deliver(message())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a certificate of 127.0.0.1, which nobody has signed, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2", "-subj", "/CN=mote"]
    command += ["-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "own.pem")]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl to make a certificate")
    path = folder / "both.pem"
    path.write_bytes((folder / "own.pem").read_bytes() + (folder / "key.pem").read_bytes())
    return path


def test_certificates_are_checked(certificate):
    with web_receiver(certificate=certificate) as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(NotReached, match="its certificate is not accepted"):
            webhook(url).deliver(message())
        assert server.requests == []
        webhook(url, ca=str(certificate)).deliver(message())
        assert len(server.requests) == 1
        with pytest.raises(NotReached, match=r"its certificate is not accepted: .*localhost"):
            webhook(url.replace("127.0.0.1", "localhost"), ca=str(certificate)).deliver(message())
