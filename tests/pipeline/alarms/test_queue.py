"""The queue of alarms keeps what waits, in its order, and forgets nothing that was delivered."""

from __future__ import annotations

import os
import sqlite3

import pytest

from pipeline.alarms.queue import AlarmQueue, remove_if_done
from pipeline.system.errors import OutputError
from tests.support.alarms import event


class Clock:
    """Seconds since 1970 that the test sets."""

    now = 1e9

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def reopen(tmp_path, clock):
    """Closes the queue of the test and opens it again."""
    opened = []

    def call(**limits):
        if opened:
            opened.pop().close()
        values = {"max_waiting": 100, "max_age": 1000.0, **limits}
        opened.append(AlarmQueue(tmp_path / "alarms.sqlite", clock=clock, **values))
        return opened[0]

    yield call
    if opened:
        opened.pop().close()


def taken(queue, receiver):
    """Delivers all messages of a receiver; returns their keys."""
    keys = []
    while message := queue.next(receiver):
        queue.finish(message, delivered=True)
        keys.append(message.key)
    return keys


def test_messages_come_in_their_order_to_each_receiver(reopen):
    queue = reopen()
    for number in range(5):
        queue.add(event(number), "", ["a", "b"])
    assert taken(queue, "a") == [f"run-{number}:0" for number in range(5)]
    assert queue.waiting() == {"b": 5}
    assert taken(queue, "b") == [f"run-{number}:0" for number in range(5)]


def test_a_message_comes_back_as_it_was_put_in(reopen):
    sent = event(7, "end", label="é \udcff", zone="field", time="2026-11-30T21:00:00.000Z")
    queue = reopen()
    queue.add(sent, "/runs/é/events/1", ["a"])
    message = reopen().next("a")
    assert dict(message.event) == sent.to_dict()
    assert message.evidence == "/runs/é/events/1"


def test_what_waits_survives_and_is_not_of_this_run(reopen):
    reopen().add(event(1), "", ["a"])
    queue = reopen()
    queue.add(event(2), "", ["a"])
    first = queue.next("a")
    assert (first.key, first.current) == ("run-1:0", False)
    queue.finish(first, delivered=True)
    second = queue.next("a")
    assert (second.key, second.current) == ("run-2:0", True)


def test_a_message_that_comes_again_is_ignored_whatever_became_of_it(reopen):
    queue = reopen()
    for number in (1, 2, 3):
        assert queue.add(event(number), "", ["a"]) == 1
    queue.finish(queue.next("a"), delivered=True)
    queue.finish(queue.next("a"), delivered=False)
    queue = reopen()
    assert [queue.add(event(number), "", ["a"]) for number in (1, 2, 3)] == [0, 0, 0]
    assert queue.add(event(1, "end"), "", ["a"]) == 1
    assert taken(queue, "a") == ["run-3:0", "run-1:2"]


def test_the_oldest_are_discarded_if_too_many_wait(reopen):
    queue = reopen(max_waiting=3)
    for number in range(10):
        queue.add(event(number), "", ["a"])
    queue.add(event(0), "", ["b"])
    assert queue.apply_limits("a") == (7, 0)
    assert queue.apply_limits("a") == (0, 0)
    assert taken(queue, "a") == ["run-7:0", "run-8:0", "run-9:0"]
    assert queue.waiting() == {"b": 1}


def test_messages_that_waited_too_long_are_discarded(reopen, clock):
    queue = reopen(max_age=60.0)
    queue.add(event(1), "", ["a"])
    clock.now += 50
    queue.add(event(2), "", ["a"])
    clock.now += 20
    assert queue.apply_limits("a") == (0, 1)
    assert taken(queue, "a") == ["run-2:0"]


def test_contents_and_old_keys_do_not_pile_up(reopen, clock, tmp_path):
    queue = reopen(max_age=60.0)
    queue.add(event(1), "", ["a"])
    taken(queue, "a")
    clock.now += 200
    queue.add(event(2), "", ["a"])
    taken(queue, "a")
    queue.close()
    assert os.listdir(tmp_path) == ["alarms.sqlite"]
    rows = sqlite3.connect(tmp_path / "alarms.sqlite").execute("SELECT event, body FROM messages").fetchall()
    assert rows == [("run-2", None)]


def test_two_runs_cannot_deliver_from_one_queue(reopen, tmp_path):
    reopen().add(event(1), "", ["a"])
    with pytest.raises(OutputError, match=r"another run delivers its alarms; give this one another"):
        AlarmQueue(tmp_path / "alarms.sqlite", max_waiting=1, max_age=1.0)
    reopen()


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\7" * 500])
def test_a_file_that_is_no_queue_is_named_and_kept(tmp_path, content):
    path = tmp_path / "alarms.sqlite"
    path.write_bytes(content)
    with pytest.raises(OutputError, match=r"alarms\.sqlite"):
        AlarmQueue(path, max_waiting=1, max_age=1.0)
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_not_changed(tmp_path):
    path = tmp_path / "other.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE birds (name TEXT)")
    other.commit()
    other.close()
    with pytest.raises(OutputError, match=r"no queue of this version"):
        AlarmQueue(path, max_waiting=1, max_age=1.0)
    tables = sqlite3.connect(path).execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("birds",)]


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "alarms.sqlite").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="it is a link"):
        AlarmQueue(tmp_path / "alarms.sqlite", max_waiting=1, max_age=1.0)
    assert not (tmp_path / "elsewhere").exists()


def test_a_queue_is_removed_only_if_nothing_waits(reopen, tmp_path):
    path = tmp_path / "alarms.sqlite"
    queue = reopen()
    queue.add(event(1), "", ["a"])
    queue.close()
    remove_if_done(path)
    assert path.exists()
    queue = AlarmQueue(path, max_waiting=1, max_age=1e6)
    remove_if_done(path)  # another process uses it
    assert taken(queue, "a") == ["run-1:0"]
    queue.close()
    remove_if_done(path)
    assert not path.exists()


def test_a_full_disk_is_an_error_of_the_output(reopen, monkeypatch):
    queue = reopen()
    queue._connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(OutputError, match="full"):
        queue.add(event(1, label="x" * 100_000), "", ["a"])
    queue._connection.execute("PRAGMA max_page_count = 100000")
    assert queue.add(event(1), "", ["a"]) == 1
