"""Alarms arrive once and in order whatever happens to their receivers, and the run waits for nobody."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from pipeline.alarms.delivery import Deliveries, Worker, backoff
from pipeline.alarms.opening import QUEUE, open_deliveries
from pipeline.alarms.queue import AlarmQueue
from pipeline.alarms.receiver import NotReached, Refused
from tests.conftest import PROJECT_ROOT
from tests.support.alarms import alarms, event, wait_until, web_receiver
from tests.support.clock import Clock
from tests.support.stream_servers import free_port


class Recorder:
    """A receiver in memory. It fails as long as `failure` is set."""

    def __init__(self, name="recorder", rules=(), phases=("start", "end")):
        self.name, self.rules, self.phases, self.timeout = name, rules, phases, 1.0
        self.keys, self.attempts, self.failure, self.closed = [], 0, None, False

    def start(self, wake):
        self.wake = wake

    def announce(self, source, rules):
        self.announced = source, rules

    def deliver(self, message):
        self.attempts += 1
        if self.failure:
            raise self.failure
        self.keys.append(message.key)

    def close(self):
        self.closed = True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(tmp_path):
    one = AlarmQueue(tmp_path / QUEUE, max_waiting=100, max_age=1e6)
    yield one
    one.close()


@pytest.fixture
def worker(queue, clock):
    """A worker without its thread, whose receiver is a recorder and whose clock the test sets."""
    return Worker(Recorder(), queue, alarms(backoff=1.0, backoff_cap=8.0), clock=clock.monotonic)


def drain(worker):
    """Takes steps until nothing is due; returns the seconds until the next one."""
    while (wait := worker.step()) == 0.0:
        pass
    return wait


def test_an_outage_of_a_minute_loses_and_doubles_nothing(worker, queue, clock):
    recorder = worker.receiver
    recorder.failure = NotReached("status 503")
    for second in range(60):
        clock.now += 1.0
        queue.add(event(second), "", ["recorder"])
        drain(worker)
    assert recorder.keys == []
    assert 8 <= recorder.attempts <= 20  # not each second
    recorder.failure = None
    clock.now += 8.0
    assert drain(worker) is None
    assert recorder.keys == [f"run-{second}:0" for second in range(60)]
    assert worker.counts == (60, 0, 0, 0)


def test_waits_grow_to_their_limit_and_start_anew_after_a_success(worker, queue, clock):
    queue.add(event(1), "", ["recorder"])
    worker.receiver.failure = NotReached("away")
    waits = []
    for _ in range(6):
        waits.append(drain(worker))
        clock.now += waits[-1]
    for wait, longest in zip(waits, [1, 2, 4, 8, 8, 8], strict=True):
        assert longest / 2 <= wait <= longest
    worker.receiver.failure = None
    assert drain(worker) is None
    queue.add(event(2), "", ["recorder"])
    worker.receiver.failure = NotReached("away")
    assert drain(worker) <= 1.0


def test_waits_differ_between_programs():
    assert len({backoff(3, alarms()) for _ in range(20)}) > 10


def test_a_receiver_that_names_a_time_is_left_alone_until_then(worker, queue, clock):
    queue.add(event(1), "", ["recorder"])
    worker.receiver.failure = NotReached("status 429", 40.0)
    assert drain(worker) == 40.0
    clock.now += 39.0
    assert drain(worker) == 1.0
    assert worker.receiver.attempts == 1


def test_a_receiver_that_can_be_reached_again_is_not_made_to_wait(worker, queue):
    queue.add(event(1), "", ["recorder"])
    worker.receiver.failure = NotReached("away", 500.0)
    drain(worker)
    worker.receiver.failure = None
    worker.wake(now=True)
    assert drain(worker) is None
    assert worker.receiver.keys == ["run-1:0"]


def test_a_refused_message_is_given_up_with_one_warning(worker, queue, caplog):
    worker.receiver.failure = Refused("status 404")
    for number in range(5):
        queue.add(event(number), "", ["recorder"])
    assert drain(worker) is None
    assert worker.counts == (0, 5, 0, 0)
    assert caplog.messages == ["alarm receiver recorder refuses a message, given up: status 404"]
    worker.receiver.failure = None
    queue.add(event(9), "", ["recorder"])
    drain(worker)
    assert worker.receiver.keys == ["run-9:0"]


def test_an_outage_is_told_once_and_its_end_too(worker, queue, clock, caplog):
    queue.add(event(1), "", ["recorder"])
    worker.receiver.failure = NotReached("status 503")
    for _ in range(8):
        clock.now += drain(worker)
    assert worker.health.failing > 20
    assert worker.health.reason == "status 503"
    worker.receiver.failure = None
    drain(worker)
    assert worker.health == (0.0, "")
    first, second = caplog.messages
    assert first == "alarm receiver recorder is tried again until it answers: status 503"
    assert second.startswith("alarm receiver recorder is reached again after ")


def test_discarded_alarms_are_counted_and_told_once(tmp_path, clock, caplog):
    queue = AlarmQueue(tmp_path / QUEUE, max_waiting=10, max_age=1e6)
    worker = Worker(Recorder(), queue, alarms(), clock=clock.monotonic)
    worker.receiver.failure = NotReached("away", 1.0)
    for number in range(50):
        queue.add(event(number), "", ["recorder"])
        clock.now += 2.0
        drain(worker)
    assert worker.counts == (0, 0, 40, 0)
    assert sum("discarded" in line for line in caplog.messages) == 1
    worker.receiver.failure = None
    clock.now += 2.0
    drain(worker)
    assert worker.receiver.keys == [f"run-{number}:0" for number in range(40, 50)]
    queue.close()


def test_an_error_of_a_library_is_an_outage_and_shows_no_text_of_it(worker, queue, caplog):
    queue.add(event(1), "", ["recorder"])
    worker.receiver.failure = KeyError("sesame")
    assert drain(worker) > 0
    assert worker.health.reason == "KeyError in the delivery"
    assert "sesame" not in caplog.text


def test_a_message_that_could_not_be_marked_is_not_sent_again(worker, queue, clock, monkeypatch):
    from pipeline.system.errors import OutputError

    queue.add(event(1), "", ["recorder"])
    finish = queue.finish

    def full(*_, **__):
        raise OutputError("disk full")

    monkeypatch.setattr(queue, "finish", full)
    clock.now += drain(worker)
    clock.now += drain(worker)
    monkeypatch.setattr(queue, "finish", finish)
    assert drain(worker) is None
    assert worker.receiver.keys == ["run-1:0"]
    assert queue.waiting() == {}


@pytest.fixture
def deliveries(queue):
    """Makes and starts the deliveries to recorders; closes them at the end."""
    made = []

    def call(*recorders, **section):
        one = Deliveries(queue, recorders, alarms(**{"wait_at_end": 1.0, **section}))
        one.start()
        made.append(one)
        return one

    yield call
    for one in made:
        one.close()


def test_a_receiver_gets_its_rules_and_phases_alone(deliveries):
    every = Recorder("every", phases=("start", "update", "end"))
    gate = Recorder("gate", rules=("gate",), phases=("start",))
    one = deliveries(every, gate)
    for phase in ("start", "update", "end"):
        one.send(event(1, phase))
        one.send(event(2, phase, rule="sky"))
    wait_until(lambda: len(every.keys) == 6)
    assert every.keys == ["run-1:0", "run-2:0", "run-1:1", "run-2:1", "run-1:2", "run-2:2"]
    one.close()
    assert gate.keys == ["run-1:0"]


def test_a_receiver_that_hangs_delays_neither_the_run_nor_the_others(deliveries):
    class Hanging(Recorder):
        free = threading.Event()

        def deliver(self, message):
            self.free.wait(20)
            super().deliver(message)

    hanging, other = Hanging("hanging"), Recorder("other")
    one = deliveries(hanging, other)
    started = time.perf_counter()
    for number in range(50):
        one.send(event(number))
    assert (time.perf_counter() - started) / 50 < 0.05
    wait_until(lambda: len(other.keys) == 50)
    assert one.waiting() == {"hanging": 50, "other": 0}
    hanging.free.set()
    wait_until(lambda: len(hanging.keys) == 50)


def test_the_end_waits_for_receivers_that_answer_and_keeps_the_rest(deliveries, queue, caplog):
    slow, away = Recorder("slow"), Recorder("away")
    away.failure = NotReached("away")
    deliver = slow.deliver
    slow.deliver = lambda message: (time.sleep(0.02), deliver(message))
    one = deliveries(slow, away)
    for number in range(10):
        one.send(event(number))
    one.close()
    assert len(slow.keys) == 10
    assert slow.closed
    assert away.closed
    assert "10 alarms are not delivered yet; they wait in" in caplog.text
    away.failure = None
    again = AlarmQueue(queue.path, max_waiting=100, max_age=1e6)
    next_run = Deliveries(again, [away], alarms())
    next_run.start()
    next_run.send(event(99))
    next_run.close()
    assert away.keys == [f"run-{number}:0" for number in (*range(10), 99)]


def test_the_evidence_is_found_in_the_folder_of_its_source(deliveries, tmp_path):
    seen = []

    class Looking(Recorder):
        def deliver(self, message):
            seen.append(message.evidence)

    one = deliveries(Looking())
    one.announce("camera", tmp_path / "camera", ["gate"])
    one.send(event(1, evidence="events/1-gate"))
    one.send(event(2))
    wait_until(lambda: len(seen) == 2)
    assert seen == [str(tmp_path / "camera" / "events/1-gate"), ""]


def test_alarms_for_nobody_are_told(queue, deliveries, caplog):
    queue.add(event(1), "", ["gone"])
    deliveries(Recorder())
    assert caplog.messages == ["1 alarms wait for gone, which is no receiver of this run"]


def test_no_receiver_means_no_queue(tmp_path):
    assert open_deliveries(alarms(), tmp_path) is None
    assert not (tmp_path / QUEUE).exists()


def test_a_web_server_that_comes_back_gets_everything_once(tmp_path, caplog):
    port = free_port()
    url = f"http://127.0.0.1:{port}/hook"
    config = alarms(webhooks=[{"url": url}], backoff=0.05, backoff_cap=0.1)
    one = open_deliveries(config, tmp_path)
    one.start()
    sent = []
    for round_ in range(3):
        for number in range(10):
            one.send(event(10 * round_ + number))
            sent.append(f"run-{10 * round_ + number}:0")
        if round_ == 1:
            with web_receiver(port=port) as first:
                wait_until(lambda first=first: len(first.requests) == 20)
            assert first.keys == sent
    with web_receiver(port=port) as second:
        wait_until(lambda: one.waiting() == {"webhook-1": 0})
        one.close()
    assert second.keys == sent[20:]


KILLED = """
import sys
from pathlib import Path
from pipeline.alarms.opening import open_deliveries
from tests.support.alarms import alarms, event
folder, port = Path(sys.argv[1]), sys.argv[2]
one = open_deliveries(alarms(webhooks=[{"url": f"http://127.0.0.1:{port}/hook"}]), folder)
one.start()
for number in range(200):
    one.send(event(number))
    print(number, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_run_left_goes_out_with_the_next_one(tmp_path):
    """The server hangs after some messages; the process is killed after it has sent all."""
    taken = 37
    with web_receiver() as server:
        server.replies = [(200, {})] * taken + [(503, {"Retry-After": "3600"})]
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(server.port)]
        child = subprocess.Popen(command, cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for line in child.stdout:
            if line.split() == [b"199"]:
                break
        wait_until(lambda: not server.replies)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdin.close()
        child.stdout.close()
        assert len(server.requests) == taken
        one = open_deliveries(alarms(webhooks=[{"url": server.url}]), tmp_path)
        one.start()
        one.send(event(199))  # of a run that is resumed
        one.send(event(500))
        one.close()
        assert server.keys == [f"run-{number}:0" for number in (*range(200), 500)]


def test_sending_takes_no_time_and_arrival_little(tmp_path):
    with web_receiver() as server:
        one = open_deliveries(alarms(webhooks=[{"url": server.url}]), tmp_path)
        one.start()
        delays = []
        for number in range(30):
            started = time.monotonic()
            one.send(event(number))
            assert time.monotonic() - started < 0.5
            wait_until(lambda number=number: len(server.requests) == number + 1)
            delays.append(server.requests[-1].arrival - started)
        one.close()
    assert sorted(delays)[28] < 0.5
