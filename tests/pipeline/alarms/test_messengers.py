"""Apprise takes alarms to mail and messengers; a web server of its scheme json stands for them."""

from __future__ import annotations

import base64

import pytest

from pipeline.alarms.message import Message
from pipeline.alarms.opening import make_receivers
from pipeline.alarms.receiver import NotReached
from pipeline.system.errors import UsageError
from pipeline.system.packages import MissingPackage
from tests.support.alarms import PICTURE, alarms, event, web_receiver
from tests.support.stream_servers import free_port


def messenger(monkeypatch, address, **settings):
    monkeypatch.setenv("MESSENGER", address)
    (receiver,) = make_receivers(alarms(apprise={"urls": ["env:MESSENGER"], **settings}))
    return receiver


def test_a_message_is_for_people(monkeypatch):
    with web_receiver() as server:
        one = messenger(monkeypatch, f"json://127.0.0.1:{server.port}/hook")
        one.deliver(Message(1, event(zone="field").to_dict(), ""))
    table = server.requests[0].table
    assert table["title"] == "gate: drone is followed in field"
    assert table["message"].splitlines() == [
        "source camera, 1.6 s of the recording",
        "track 1, 0.6 s so far, score 0.88",
        "at 12, 23, 5 pixels per second",
        "message run-1:0",
    ]


def test_the_picture_goes_along(monkeypatch, tmp_path):
    (tmp_path / "snapshot.jpg").write_bytes(PICTURE)
    with web_receiver() as server:
        address = f"json://127.0.0.1:{server.port}/hook"
        messenger(monkeypatch, address).deliver(Message(1, event().to_dict(), str(tmp_path)))
        messenger(monkeypatch, address, attach=False).deliver(Message(1, event().to_dict(), str(tmp_path)))
    with_picture, without = (request.table["attachments"] for request in server.requests)
    assert base64.b64decode(with_picture[0]["base64"]) == PICTURE
    assert without == []


def test_a_service_that_is_away_is_told_without_its_address(monkeypatch, capfd, caplog):
    one = messenger(monkeypatch, f"json://me:sesame@127.0.0.1:{free_port()}/sesame")
    with pytest.raises(NotReached) as caught:
        one.deliver(Message(1, event().to_dict(), ""))
    assert "sesame" not in str(caught.value) + caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("address", ["nonsense", "unknown://sesame", "mailto://", "json://h,json://g"])
def test_an_address_that_apprise_does_not_know_is_refused_and_not_shown(monkeypatch, address):
    with pytest.raises(UsageError, match="'apprise-1': env:MESSENGER holds no address") as caught:
        messenger(monkeypatch, address)
    assert "sesame" not in str(caught.value)


def test_each_address_is_a_receiver(monkeypatch, tmp_path):
    (tmp_path / "two").write_text("json://127.0.0.2\n")
    monkeypatch.setenv("ONE", "json://127.0.0.1")
    config = alarms(apprise={"urls": ["env:ONE", f"file:{tmp_path / 'two'}"], "name": "mail"})
    assert [receiver.name for receiver in make_receivers(config)] == ["mail-1", "mail-2"]


@pytest.mark.parametrize(
    ("package", "section", "told"),
    [
        ("apprise", {"apprise": {"urls": ["env:ONE"]}}, "alarms.apprise needs the package apprise; install"),
        (
            "paho",
            {"mqtt": {"host": "h"}},
            "alarms.mqtt needs the package paho; install it with: pip install paho-mqtt",
        ),
    ],
)
def test_a_missing_package_is_named_and_webhooks_need_none(
    hide_packages, monkeypatch, package, section, told
):
    monkeypatch.setenv("ONE", "json://127.0.0.1")
    hide_packages("apprise", "paho")
    with pytest.raises(MissingPackage, match=told):
        make_receivers(alarms(**section))
    assert len(make_receivers(alarms(webhooks=[{"url": "http://h/"}]))) == 1
