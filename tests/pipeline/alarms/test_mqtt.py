"""A real broker gets messages, states and pictures, and Home Assistant finds the devices."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pipeline.alarms.opening import make_receivers, open_deliveries
from pipeline.alarms.topics import part
from tests.conftest import PROJECT_ROOT
from tests.support.alarms import PICTURE, alarms, broker, event, needs_broker, subscriber, wait_until
from tests.support.stream_servers import free_port

pytestmark = needs_broker


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with broker(tmp_path_factory.mktemp("broker")) as one:
        yield one


@pytest.fixture
def deliveries(tmp_path):
    """Starts deliveries to a broker; closes them at the end."""
    made = []

    def call(port, folder="out", **mqtt):
        section = {"mqtt": {"host": "127.0.0.1", "port": port, **mqtt}, "backoff": 0.05, "backoff_cap": 1.0}
        one = open_deliveries(alarms(**section), tmp_path / folder)
        one.start()
        one.announce("camera", tmp_path, ["gate"])
        made.append(one)
        return one

    yield call
    for one in made:
        one.close()


def phases(subscribed, topic):
    """Phases of the messages on a topic."""
    return [json.loads(payload)["phase"] for payload in subscribed.payloads(topic)]


def test_messages_states_and_pictures_of_an_event(served, deliveries, tmp_path):
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "snapshot.jpg").write_bytes(PICTURE)
    with subscriber(served.port, "one/#") as seen:
        one = deliveries(served.port, topic="one")
        one.send(event(1, evidence="events"))
        one.send(event(2))
        one.send(event(1, "end", evidence="events"))
        one.send(event(2, "end"))
        wait_until(lambda: phases(seen, "one/camera/gate/events") == ["start", "start", "end", "end"])
        one.close()
        wait_until(lambda: b"offline" in seen.payloads("one/availability"))
    assert seen.payloads("one/availability") == [b"online", b"offline"]
    assert seen.payloads("one/camera/gate/state") == [b"OFF", b"ON", b"ON", b"ON", b"OFF", b"OFF"]
    assert seen.payloads("one/camera/gate/snapshot") == [PICTURE, PICTURE]
    first = json.loads(seen.payloads("one/camera/gate/events")[0])
    assert first == {
        "schema": "mote-event/1",
        "key": "run-1:0",
        "test": False,
        **event(1, evidence="events").to_dict(),
    }
    with subscriber(served.port, "one/#") as late:
        wait_until(lambda: late.payloads("one/camera/gate/snapshot"))
        assert late.payloads("one/camera/gate/state") == [b"OFF"]
        assert json.loads(late.payloads("one/camera/gate/last")[0])["key"] == "run-2:2"
        assert late.payloads("one/camera/gate/events") == []


def test_home_assistant_is_told_of_each_rule(served, deliveries):
    with subscriber(served.port, "ha/#") as seen:
        deliveries(served.port, topic="two", discovery="ha")
        wait_until(lambda: len(seen.messages) == 3)
    tables = {message.topic: json.loads(message.payload) for message in seen.messages}
    sensor = tables["ha/binary_sensor/two_camera/gate/config"]
    assert sensor["state_topic"] == "two/camera/gate/state"
    assert sensor["json_attributes_topic"] == "two/camera/gate/last"
    assert sensor["availability_topic"] == "two/availability"
    assert sensor["device_class"] == "motion"
    assert sensor["unique_id"] == "two_camera_gate_binary_sensor"
    assert sensor["device"]["identifiers"] == ["two_camera"]
    trigger = tables["ha/device_automation/two_camera/gate_start/config"]
    assert trigger["automation_type"] == "trigger"
    assert (trigger["type"], trigger["subtype"], trigger["payload"]) == ("event_start", "gate", "start")
    assert trigger["topic"] == "two/camera/gate/events"
    assert "ha/device_automation/two_camera/gate_end/config" in tables


def test_the_camera_of_a_rule_appears_with_its_first_picture(served, deliveries, tmp_path):
    (tmp_path / "snapshot.jpg").write_bytes(PICTURE)
    with subscriber(served.port, "ha3/camera/#") as seen:
        one = deliveries(served.port, topic="three", discovery="ha3")
        for number in range(3):
            one.send(event(number, evidence="."))
        wait_until(lambda: seen.messages)
        one.close()
    (message,) = seen.messages
    assert message.topic == "ha3/camera/three_camera/gate/config"
    assert json.loads(message.payload)["topic"] == "three/camera/gate/snapshot"


def test_a_broker_that_is_away_gets_everything_once_when_it_is_back(deliveries, tmp_path):
    with broker(tmp_path) as one_broker:
        one = deliveries(one_broker.port, topic="four")
        with subscriber(one_broker.port, "four/camera/gate/events") as seen:
            one.send(event(0))
            wait_until(lambda: len(seen.messages) == 1)
        one_broker.stop()
        for number in range(1, 20):
            one.send(event(number))
        wait_until(lambda: one.health["mqtt"].failing)
        one_broker.start()
        with subscriber(one_broker.port, "four/#") as seen:
            wait_until(lambda: len(seen.payloads("four/camera/gate/events")) >= 19)
            one.close()
    keys = [json.loads(payload)["key"] for payload in seen.payloads("four/camera/gate/events")]
    assert keys == [f"run-{number}:0" for number in range(1, 20)]
    assert one.counts["mqtt"].delivered == 20


DYING = """
import sys
from pathlib import Path
from pipeline.alarms.opening import open_deliveries
from tests.support.alarms import alarms, event
folder, port = Path(sys.argv[1]), int(sys.argv[2])
one = open_deliveries(alarms(mqtt={"host": "127.0.0.1", "port": port, "topic": "five"}), folder)
one.start()
one.announce("camera", folder, ["gate"])
one.send(event(1))
sys.stdin.read()
"""


def test_the_broker_tells_that_a_program_died(served, tmp_path):
    with subscriber(served.port, "five/#") as seen:
        command = [sys.executable, "-c", DYING, str(tmp_path), str(served.port)]
        child = subprocess.Popen(command, cwd=PROJECT_ROOT, stdin=subprocess.PIPE)
        wait_until(lambda: b"ON" in seen.payloads("five/camera/gate/state"), 60)
        child.kill()
        child.wait()
        child.stdin.close()
        wait_until(lambda: seen.payloads("five/availability") == [b"online", b"offline"])


def test_what_an_earlier_run_left_is_told_but_is_no_state(deliveries, served, tmp_path):
    nobody = free_port()
    first = deliveries(nobody, folder="again", topic="six")
    first.send(event(1))
    first.close()
    with subscriber(served.port, "six/#") as seen:
        second = deliveries(served.port, folder="again", topic="six")
        wait_until(lambda: phases(seen, "six/camera/gate/events") == ["start"])
        second.close()
    assert set(seen.payloads("six/camera/gate/state")) == {b"OFF"}


def test_logins_are_checked_and_a_wrong_one_is_named(tmp_path, monkeypatch, deliveries):
    monkeypatch.setenv("BROKER_PASSWORD", "sesame")
    monkeypatch.setenv("WRONG_PASSWORD", "password1")
    passwords = tmp_path / "passwords"
    passwords.touch()
    passwords.chmod(0o644)
    made = subprocess.run(["mosquitto_passwd", "-b", str(passwords), "me", "sesame"], capture_output=True)
    assert made.returncode == 0, made.stderr
    with broker(tmp_path, allow_anonymous="false", password_file=str(passwords), user="root") as one_broker:
        wrong = deliveries(one_broker.port, "wrong", user="me", password="env:WRONG_PASSWORD")
        wrong.send(event(1))
        wait_until(lambda: wrong.health["mqtt"].failing)
        assert wrong.health["mqtt"].reason.startswith("the broker refuses the connection: Not authorized")
        with subscriber(one_broker.port, user="me", password="sesame") as seen:
            right = deliveries(one_broker.port, "right", user="me", password="env:BROKER_PASSWORD")
            right.send(event(2))
            wait_until(lambda: seen.payloads("mote/camera/gate/events"))


@pytest.mark.parametrize(
    ("host", "reason"),
    [("127.0.0.1", "Connection refused"), ("no-such-host.invalid", "its host is unknown")],
)
def test_a_broker_that_cannot_be_reached_is_named_in_words(deliveries, host, reason):
    one = deliveries(free_port(), host=host)
    one.send(event(1))
    wait_until(lambda: reason in one.health["mqtt"].reason)


def test_nothing_waits_for_a_broker_that_is_not_there():
    (receiver,) = make_receivers(alarms(mqtt={"host": "127.0.0.1", "port": free_port()}))
    receiver.start(lambda: None)
    receiver.announce("camera", ["gate"])
    receiver.close()


@pytest.mark.parametrize(
    ("name", "level"),
    [("gate", "gate"), ("a/b +#", "a-b"), ("Kamera Süd.mp4", "Kamera-S-d-mp4"), ("+", "unnamed")],
)
def test_names_are_one_level_of_a_topic(name, level):
    assert part(name) == level
