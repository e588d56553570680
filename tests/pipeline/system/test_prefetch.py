"""Prefetching works ahead, within bounds, and never leaves a thread or a consumer waiting."""

from __future__ import annotations

import gc
import itertools
import queue
import subprocess
import sys
import threading
import time
import traceback

import pytest

from pipeline.system.prefetch import prefetch

SECONDS = 5.0


def workers(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def wait_until(condition) -> bool:
    end = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


class Counter:
    """Endless items that remember how many were taken, and in which thread they were closed."""

    def __init__(self):
        self.taken = 0
        self.closed_in: str | None = None
        self.closed = threading.Event()

    def items(self):
        try:
            while True:
                self.taken += 1
                yield self.taken
        finally:
            self.closed_in = threading.current_thread().name
            self.closed.set()


@pytest.mark.parametrize("size", [1, 3, 100])
def test_items_keep_their_order_and_number(size):
    assert list(prefetch(range(1000), size=size)) == list(range(1000))


def test_nothing_in_nothing_out():
    assert list(prefetch([], size=2)) == []


def test_a_queue_without_room_is_refused():
    with pytest.raises(ValueError, match="size = 0, expected 1 or more"):
        prefetch([], size=0)


def test_the_worker_is_a_daemon_with_the_given_name():
    ahead = prefetch(itertools.count(), size=1, name="decode")
    next(ahead)
    (worker,) = workers("decode")
    assert worker.daemon
    ahead.close()


def test_a_worker_that_is_stuck_does_not_keep_the_program_from_ending():
    code = """
import time
from pipeline.system.prefetch import prefetch

def items():
    yield 1
    time.sleep(60)

ahead = prefetch(items(), size=1, join_timeout=0.05)
print(next(ahead))
"""
    reply = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (reply.returncode, reply.stdout) == (0, "1\n")


def test_the_producer_is_never_more_than_size_and_one_ahead():
    counter = Counter()
    ahead = prefetch(counter.items(), size=4)
    for used in range(1, 20):
        next(ahead)
        assert wait_until(lambda used=used: counter.taken == used + 5)
    time.sleep(0.05)
    assert counter.taken == 19 + 5
    ahead.close()


def test_it_works_ahead_while_the_consumer_is_busy():
    third = threading.Event()

    def items():
        yield 1
        yield 2
        third.set()
        yield 3

    ahead = prefetch(items(), size=2)
    assert next(ahead) == 1
    assert third.wait(SECONDS)  # without asking for the second
    assert list(ahead) == [2, 3]


def test_an_exception_arrives_after_the_items_before_it_with_its_traceback():
    def items():
        yield 1
        yield 2
        raise LookupError("no third")

    ahead = prefetch(items(), size=5, name="failing")
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(LookupError, match="no third") as caught:
        next(ahead)
    assert "items" in [entry.name for entry in traceback.extract_tb(caught.value.__traceback__)]
    assert wait_until(lambda: not workers("failing"))


def test_an_exception_arrives_while_the_consumer_handles_another_one():
    def items():
        yield 1
        raise LookupError("inner")

    try:
        raise ValueError("outer")
    except ValueError:
        with pytest.raises(LookupError, match="inner"):
            list(prefetch(items(), size=1))


def test_what_cannot_be_iterated_is_reported():
    with pytest.raises(TypeError, match="not iterable"):
        list(prefetch(5, size=1))


def test_closing_stops_the_worker_and_closes_the_items_in_its_thread():
    counter = Counter()
    ahead = prefetch(counter.items(), size=2, name="closing")
    next(ahead)
    ahead.close()
    assert counter.closed.is_set()
    assert counter.closed_in == "closing"
    assert not workers("closing")


def test_a_worker_that_waits_for_room_stops_at_once():
    counter = Counter()
    ahead = prefetch(counter.items(), size=1, name="waiting")
    next(ahead)
    assert wait_until(lambda: counter.taken == 3)  # one used, one queued, one held by the worker
    start = time.monotonic()
    ahead.close()
    assert time.monotonic() - start < 1.0
    assert not workers("waiting")


def test_leaving_the_loop_stops_the_worker():
    counter = Counter()
    for item in prefetch(counter.items(), size=2, name="leaving"):
        if item == 3:
            break
    assert counter.closed.wait(SECONDS)
    assert wait_until(lambda: not workers("leaving"))


def test_an_exception_of_the_consumer_stops_the_worker():
    counter = Counter()
    with pytest.raises(ZeroDivisionError):
        sum(1 / (3 - item) for item in prefetch(counter.items(), size=2, name="consumer"))
    assert counter.closed.wait(SECONDS)
    assert wait_until(lambda: not workers("consumer"))


def test_an_interrupt_of_the_consumer_is_not_masked_and_stops_the_worker():
    counter = Counter()
    ahead = prefetch(counter.items(), size=2, name="interrupted")
    next(ahead)
    with pytest.raises(KeyboardInterrupt):
        ahead.throw(KeyboardInterrupt)
    assert counter.closed.is_set()
    assert not workers("interrupted")


def test_an_error_while_closing_the_items_is_reported():
    def items():
        try:
            yield from itertools.count()
        finally:
            raise OSError("cannot close")

    ahead = prefetch(items(), size=2)
    next(ahead)
    with pytest.raises(OSError, match="cannot close"):
        ahead.close()


def test_a_worker_that_is_stuck_in_its_items_is_left_behind_and_logged(caplog):
    release = threading.Event()

    def items():
        yield 1
        release.wait(SECONDS)

    ahead = prefetch(items(), size=1, name="stuck", join_timeout=0.05)
    next(ahead)
    ahead.close()
    assert "thread stuck is still busy" in caplog.text
    release.set()
    assert wait_until(lambda: not workers("stuck"))


def test_a_worker_that_dies_without_an_exception_is_noticed(monkeypatch):
    def broken_put(self, item, timeout=None):
        raise MemoryError

    monkeypatch.setattr(queue.Queue, "put", broken_put)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    with pytest.raises(RuntimeError, match="died without an exception"):
        list(prefetch([1], size=1))


def test_an_iterator_without_close_is_fine():
    ahead = prefetch(iter([1, 2, 3]), size=1)
    assert next(ahead) == 1
    ahead.close()


def test_a_generator_that_never_began_starts_no_thread():
    prefetch(itertools.count(), size=1, name="never").close()
    assert not workers("never")


def test_many_cycles_leave_no_thread():
    before = threading.active_count()
    for cycle in range(200):
        ahead = prefetch(itertools.count(), size=2)
        for _ in range(cycle % 4):
            next(ahead)
        if cycle % 2:
            ahead.close()
        del ahead
    gc.collect()
    assert wait_until(lambda: threading.active_count() == before)
