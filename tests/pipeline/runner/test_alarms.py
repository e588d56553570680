"""Runs tell their events to receivers, and health and metrics tell of the receivers."""

from __future__ import annotations

import json
from dataclasses import replace

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.alarms.opening import open_deliveries
from pipeline.alarms.queue import AlarmQueue
from pipeline.config.schema import ServiceConfig
from pipeline.runner.health import RunMetrics, health
from pipeline.runner.summary import Summary
from pipeline.sinks.video import VideoSink
from tests.support.alarms import alarms, event, wait_until, web_receiver
from tests.support.stream_servers import free_port

EAGER = {"options": {"high_score": 0.2, "low_score": 0.2, "birth_hits": 1, "birth_window": 1}}
"""A tracker that follows what untrained weights detect."""

QUICK = {"video": False, "coco": False}


def sections(url):
    """Sections of a run whose events go to a web server."""
    rules = [{"name": "gate", "min_duration": 0.0}]
    return {
        "tracker": EAGER,
        "events": {"rules": rules, "evidence": False},
        "alarms": {"webhooks": [{"url": url}], "backoff": 0.05, "wait_at_end": 20.0},
    }


def keys_of(folder):
    """Keys of the messages in events.jsonl."""
    rows = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [f"{row['id']}:{row['sequence']}" for row in rows if row["phase"] != "update"]


@pytest.fixture
def server():
    with web_receiver() as one:
        yield one


def test_every_message_of_a_run_arrives_once_and_the_record_shows_no_secret(process, clip, server):
    folder = process(clip, sections=sections(f"{server.url}/sesame"), output=QUICK)
    assert server.keys == keys_of(folder)
    assert len(server.keys) > 0
    assert server.requests[0].table["source"] == "clip"
    config = json.loads((folder / "run.json").read_text())["config"]
    assert config["alarms"]["webhooks"][0]["url"] == f"http://127.0.0.1:{server.port}/***"
    assert b"sesame" not in b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_an_alarm_arrives_while_its_frame_is_still_being_drawn(process, clip, server, monkeypatch):
    arrived, write = [], VideoSink.write

    def slow(self, result):
        for message in result.events:
            if message.phase == "start":
                wait_until(lambda key=f"{message.id}:{message.sequence}": key in server.keys)
                arrived.append(message.id)
        write(self, result)

    monkeypatch.setattr(VideoSink, "write", slow)
    folder = process(clip, sections=sections(server.url), output={"coco": False})
    assert len(arrived) > 0
    assert server.keys == keys_of(folder)


def test_what_a_run_could_not_deliver_goes_out_with_the_next_one(process, clip):
    port = free_port()
    first = keys_of(process(clip, sections=sections(f"http://127.0.0.1:{port}/hook"), output=QUICK))
    with web_receiver(port=port) as server:
        again = process(clip, sections=sections(server.url), output={"overwrite": True, **QUICK})
        assert server.keys == [*first, *keys_of(again)]


def test_two_runs_with_one_queue_end_in_one_line(mote, clip, tmp_path, nano_weights, server):
    path = tmp_path / "queue.sqlite"
    held = AlarmQueue(path, max_waiting=1, max_age=1.0)
    options = ["--set", f'alarms.webhooks=[{{url="{server.url}"}}]', "--set", f"alarms.queue={path}"]
    reply = mote(clip, "--weights", nano_weights, "--events", *options, "--output", tmp_path / "out")
    held.close()
    assert reply.code == 5
    assert "another run delivers its alarms; give this one another alarms.queue" in reply.err


def test_receivers_without_events_are_refused(mote, clip, tmp_path):
    reply = mote(clip, "--set", 'alarms.webhooks=[{url="http://h/sesame"}]', "--output", tmp_path / "out")
    assert reply.code == 2
    assert "there are receivers of alarms, but no rule of events" in reply.err
    assert "sesame" not in reply.err


def test_a_receiver_of_an_unknown_rule_is_refused(mote, clip, tmp_path):
    hook = 'alarms.webhooks=[{url="http://h/", rules=["gte"]}]'
    rules = 'events.rules=[{name="gate"}]'
    reply = mote(clip, "--set", hook, "--set", rules, "--output", tmp_path / "out")
    assert reply.code == 2
    assert "unknown rule of an alarm receiver 'gte'; did you mean 'gate'?" in reply.err


def test_the_test_of_alarms_tells_of_each_receiver(mote, tmp_path, server):
    config = tmp_path / "run.toml"
    rows = f'[[alarms.webhooks]]\nname = "right"\nurl = "{server.url}"\n'
    config.write_text(rows)
    reply = mote("--test-alarm", "--config", config)
    assert reply.code == 0
    assert reply.out.startswith("right: delivered in ")
    assert server.requests[0].table["test"] is True
    config.write_text(f'{rows}[[alarms.webhooks]]\nurl = "http://127.0.0.1:{free_port()}/sesame"\n')
    reply = mote("--test-alarm", "--config", config)
    assert reply.code == 1
    assert "webhook-2: failed after " in reply.out
    assert reply.out.endswith("ms: Connection refused\n")
    assert "sesame" not in reply.out + reply.err


def test_the_test_of_alarms_needs_a_receiver(mote):
    reply = mote("--test-alarm")
    assert reply.code == 2
    assert "no receiver is configured" in reply.err


def test_receivers_have_states_and_metrics(tmp_path):
    url = f"http://127.0.0.1:{free_port()}/"
    summary = Summary()
    summary.alarms = one = open_deliveries(alarms(webhooks=[{"url": url}], down_after=0.01), tmp_path)
    one.start()
    assert health(summary, ServiceConfig())["alarms"] == {"webhook-1": {"state": "ok", "waiting": 0}}
    one.send(event())
    wait_until(lambda: one.health["webhook-1"].failing > 0.01)
    report = health(summary, ServiceConfig())
    facts = report["alarms"]["webhook-1"]
    assert (facts["state"], facts["waiting"], facts["reason"]) == ("down", 1, "Connection refused")
    assert report["status"] == "ok"
    found = collected(summary)
    assert found["mote_alarms_delivered_total", "webhook-1"] == 0
    assert found["mote_alarms_waiting", "webhook-1"] == 1
    assert found["mote_alarms_failing_seconds", "webhook-1"] > 0
    assert found["mote_alarms_failed_total", "refused", "webhook-1"] == 0
    one.config = replace(one.config, unhealthy=True)
    assert health(summary, ServiceConfig())["status"] == "failing"
    one.close()
    assert collected(summary)["mote_alarms_waiting", "webhook-1"] == 1


def collected(summary):
    """Metrics by their names and the values of their labels."""
    registry = prometheus_client.CollectorRegistry()
    registry.register(RunMetrics(summary, ServiceConfig()))
    text = prometheus_client.generate_latest(registry).decode()
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return {(one.name, *(value for _, value in sorted(one.labels.items()))): one.value for one in samples}
