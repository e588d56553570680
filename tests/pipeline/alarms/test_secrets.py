"""No message, log line or record shows a secret, whatever goes wrong."""

from __future__ import annotations

import json
import logging

import pytest

import run_pipeline
from pipeline.alarms.opening import make_receivers, open_deliveries
from pipeline.alarms.receiver import DeliveryError
from pipeline.alarms.secrets import Secrets
from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.system.errors import UsageError, describe
from pipeline.system.redaction import redact, redact_argument
from tests.support.alarms import alarms, event, wait_until, web_receiver
from tests.support.stream_servers import free_port

SECRET = "sesame"


def deliver(config):
    """Tries the receiver of a configuration; returns everything that is told about it."""
    from pipeline.alarms.message import Message

    (receiver,) = make_receivers(config)
    receiver.start(lambda: None)
    try:
        receiver.deliver(Message(1, event().to_dict(), ""))
    except DeliveryError as error:
        return str(error)
    finally:
        receiver.close()
    return "delivered"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://no-such-host.invalid/sesame", "its host is unknown"),
        ("https://me:sesame@no-such-host.invalid/", "its host is unknown"),
        ("http://me:sesame@127.0.0.1:{port}/sesame?key=sesame", "Connection refused"),
        ("https://127.0.0.1:{port}/sesame", "Connection refused"),
    ],
)
def test_failures_of_web_servers_show_no_secret(monkeypatch, url, told):
    monkeypatch.setenv("HOOK", url.format(port=free_port()))
    text = deliver(alarms(webhooks=[{"url": "env:HOOK"}]))
    assert told in text
    assert SECRET not in text


def test_refusals_and_wrong_certificates_show_no_secret(monkeypatch):
    with web_receiver() as server:
        server.replies = [(401, {"WWW-Authenticate": "sesame"}), (503, {"Retry-After": "sesame"})]
        monkeypatch.setenv("HOOK", f"{server.url}/sesame")
        for expected in ("status 401", "status 503"):
            assert deliver(alarms(webhooks=[{"url": "env:HOOK"}])) == expected
        monkeypatch.setenv("HOOK", server.url.replace("http:", "https:") + "/sesame")  # it speaks no TLS
        assert SECRET not in deliver(alarms(webhooks=[{"url": "env:HOOK"}]))


WRONG = [
    {"webhooks": [{"url": "https//h/sesame"}]},
    {"webhooks": [{"url": "https://h:port/sesame"}]},
    {"webhooks": [{"url": "https://[sesame"}]},
    {"webhooks": [{"url": "ftp://h/sesame"}]},
    {"webhooks": [{"url": "https://h/ses ame sesame"}]},
    {"webhooks": [{"url": "https://me:sesame@h/"}]},
    {"webhooks": [{"url": ["sesame"]}]},
    {"webhooks": ["https://h/sesame"]},
    {"webhooks": [{"url": "https://h/", "secret": "sesame"}]},
    {"webhooks": [{"url": "https://h/", "headers": {"X": "ses\nsesame"}}]},
    {"webhooks": [{"url": "https://h/", "headers": "Authorization: sesame"}]},
    {"mqtt": "mqtt://me:sesame@h"},
    {"mqtt": {"host": "me:sesame@h"}},
    {"mqtt": {"host": "h", "user": "me", "password": "sesame"}},
    {"mqtt": {"host": "h", "password": ["sesame"]}},
    {"apprise": {"urls": ["mailto://me:sesame@h"]}},
    {"apprise": {"urls": "mailto://me:sesame@h"}},
]


@pytest.mark.parametrize("section", WRONG, ids=[str(number) for number in range(len(WRONG))])
def test_wrong_configurations_are_told_without_their_values(section):
    with pytest.raises(UsageError) as caught:
        build(RunConfig, {"alarms": section, "events": {"enabled": True}})
    assert SECRET not in redact(describe(caught.value))
    assert "alarms" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("https//h/sesame", "no address of a web server"),
        ("https://h/ sesame", "without blanks"),
        ("", "not set"),
    ],
)
def test_an_address_in_the_environment_that_is_none_is_not_shown(monkeypatch, value, told):
    monkeypatch.setenv("HOOK", value)
    with pytest.raises(UsageError, match=told) as caught:
        make_receivers(alarms(webhooks=[{"url": "env:HOOK"}]))
    assert SECRET not in str(caught.value)


def test_a_missing_variable_and_a_missing_file_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("HOOK", raising=False)
    with pytest.raises(UsageError, match="'webhook-1': url = env:HOOK, but the environment variable HOOK is"):
        make_receivers(alarms(webhooks=[{"url": "env:HOOK"}]))
    with pytest.raises(UsageError, match=r"secret = file:.*key, which cannot be read: No such file"):
        make_receivers(alarms(webhooks=[{"url": "http://h/", "secret": f"file:{tmp_path / 'key'}"}]))
    (tmp_path / "key").write_text("\n")
    with pytest.raises(UsageError, match="key is empty"):
        make_receivers(alarms(webhooks=[{"url": "http://h/", "secret": f"file:{tmp_path / 'key'}"}]))
    with pytest.raises(UsageError, match=r"ca = .*nothing\.pem' cannot be used: No such file"):
        make_receivers(alarms(webhooks=[{"url": "http://h/", "ca": str(tmp_path / "nothing.pem")}]))


def test_logs_of_failures_show_no_secret(monkeypatch, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HOOK", f"http://me:sesame@127.0.0.1:{free_port()}/sesame")
    one = open_deliveries(alarms(webhooks=[{"url": "env:HOOK"}]), tmp_path)
    one.start()
    one.send(event())
    wait_until(lambda: one.health["webhook-1"].failing)
    one.close()
    assert "is tried again until it answers: Connection refused" in caplog.text
    assert SECRET not in caplog.text + str(one.health)
    assert SECRET.encode() not in (tmp_path / "alarms.sqlite").read_bytes()


def test_the_record_of_a_run_names_hosts_and_references_alone():
    rows = [
        {"url": "https://hooks.example.org:8443/services/sesame?key=sesame", "headers": {"X-Key": "sesame"}},
        {"url": "env:HOOK", "secret": "file:/etc/mote/key", "headers": {"Authorization": "env:LOGIN"}},
    ]
    table = alarms(webhooks=rows, mqtt={"host": "h", "user": "me", "password": "env:P"}).public()
    assert SECRET not in json.dumps(table)
    first, second = table["webhooks"]
    assert (first["url"], first["headers"]) == ("https://hooks.example.org:8443/***", {"X-Key": "***"})
    assert (second["url"], second["secret"]) == ("env:HOOK", "file:/etc/mote/key")
    assert second["headers"] == {"Authorization": "env:LOGIN"}
    assert table["mqtt"]["password"] == "env:P"


@pytest.mark.parametrize(
    "argument",
    [
        'alarms.webhooks=[{url="https://h/sesame"}]',
        "--set=alarms.webhooks=[{url='https://h/sesame'}]",
        ' "alarms".webhooks = [{url="sesame"}]',
        "alarms.mqtt.password=sesame",
    ],
)
def test_the_command_in_the_record_shows_no_setting_of_alarms(argument):
    shown = redact_argument(argument)
    assert SECRET not in shown
    assert shown.endswith("=***")
    assert redact_argument("alarms-of-may.mp4") == "alarms-of-may.mp4"


def test_parts_of_a_secret_are_hidden_and_short_words_are_not():
    secrets = Secrets("hook")
    secrets.remember("https://me:ses%40me@h.example.org/T0/B00B/xYz12345?to=me")
    text = "cannot post to h.example.org/T0/B00B/xYz12345 as ses@me, ses%40me: to me https"
    shown = secrets.hide(text)
    for part in ("xYz12345", "ses@me", "ses%40me", "B00B", "h.example.org"):
        assert part not in shown
    assert shown.endswith("to me https")


def test_the_help_has_no_secret(capsys, monkeypatch):
    monkeypatch.setenv("HOOK", "sesame")
    assert run_pipeline.main(["--help"]) == 0
    assert SECRET not in capsys.readouterr().out
