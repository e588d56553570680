"""Feeds are read ahead in threads and served round-robin; none waits for another, none is left behind."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter as Counts

import pytest

from pipeline.stages import multiplexer
from pipeline.stages.multiplexer import StreamMultiplexer

SECONDS = 10.0


def wait_until(condition) -> bool:
    end = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


def gathering(*feeds, ahead=4, in_flight=100):
    names = [f"feed {number}" for number in range(len(feeds))]
    return StreamMultiplexer(feeds, names=names, ahead=ahead, in_flight=in_flight)


class Counter:
    """Endless numbers from 0 that remember how many were taken, and whether they were closed."""

    def __init__(self):
        self.taken, self.closed = 0, False

    def __iter__(self):
        try:
            while True:
                self.taken += 1
                yield self.taken - 1
        finally:
            self.closed = True


def waiting_for(event, items=()):
    """Yields the items once the event is set; fails the test if that takes too long."""
    assert event.wait(SECONDS)
    yield from items


def everything(feeds, size):
    """Returns all items of each feed, and the reported ends in their order."""
    found, ended = {}, []
    for turn in feeds.rounds(size):
        assert len(turn.items) <= size
        for number, item in turn.items:
            found.setdefault(number, []).append(item)
            feeds.done(number)
        ended += turn.ended
    return found, ended


@pytest.mark.parametrize("size", [1, 2, 7])
def test_each_feed_keeps_its_order_and_all_its_items(size):
    with gathering(range(50), range(100, 120), [], ahead=3) as feeds:
        found, ended = everything(feeds, size)
    assert found == {0: list(range(50)), 1: list(range(100, 120))}
    assert sorted(ended) == [(0, None), (1, None), (2, None)]


def test_feeds_that_are_ahead_are_served_in_turn():
    counters = [Counter() for _ in range(3)]
    with gathering(*counters) as feeds:
        turns, order = feeds.rounds(4), []
        for _ in range(3):
            served = Counts(number for number, _ in order)
            # four items of each feed wait
            assert wait_until(lambda s=served: all(c.taken == s[n] + 4 for n, c in enumerate(counters)))
            order += next(turns).items
    assert [number for number, _ in order] == [0, 1, 2] * 4
    assert [item for number, item in order if number == 1] == [0, 1, 2, 3]


def test_a_silent_feed_costs_the_others_nothing():
    over = threading.Event()
    with gathering(waiting_for(over, ["late"]), range(30)) as feeds:
        turns, found = feeds.rounds(2), []
        while len(found) < 30:
            found += next(turns).items
        over.set()
        rest = [item for turn in turns for item in turn.items]
    assert found == [(1, number) for number in range(30)]
    assert rest == [(0, "late")]


def test_a_turn_comes_even_where_nothing_happens():
    over = threading.Event()
    with gathering(waiting_for(over)) as feeds:
        assert next(feeds.rounds(1)) == ([], [])
        over.set()


def test_no_more_is_read_ahead_than_allowed():
    counter = Counter()
    with gathering(counter, ahead=3):
        assert wait_until(lambda: counter.taken == 3)
        time.sleep(0.05)
        assert counter.taken == 3


def test_a_feed_whose_items_are_not_done_is_passed_over():
    counters = [Counter(), Counter()]
    with gathering(*counters, in_flight=2) as feeds:
        turns, order = feeds.rounds(1), []
        while len(order) < 12:
            for number, _ in next(turns).items:
                order.append(number)
                if number == 1:
                    feeds.done(1)
        assert order.count(0) == 2
        feeds.done(0)
        while order.count(0) < 3:
            (number, _), *_ = next(turns).items
            order.append(number)
            if number == 1:
                feeds.done(1)


def test_a_failure_is_told_after_the_items_before_it_and_leaves_the_others():
    def broken():
        yield from "ab"
        raise ValueError("torn")

    with gathering(broken(), range(20)) as feeds:
        found, ended = everything(feeds, 3)
    assert found == {0: ["a", "b"], 1: list(range(20))}
    assert {number: str(error) for number, error in ended} == {0: "torn", 1: "None"}


def test_a_feed_that_is_dropped_is_closed_and_its_end_is_not_reported():
    counter = Counter()
    with gathering(counter, range(10)) as feeds:
        next(feeds.rounds(1))
        feeds.drop(0)
        found, ended = everything(feeds, 1)
        assert wait_until(lambda: counter.closed)
    assert 0 not in found
    assert ended == [(1, None)]


def test_leaving_ends_the_threads_and_closes_the_feeds():
    counters = [Counter() for _ in range(4)]
    with gathering(*counters) as feeds:
        list(itertools.islice(feeds.rounds(1), 3))
    assert all(counter.closed for counter in counters)
    assert not any(thread.name.startswith("feed") for thread in threading.enumerate())


def test_a_thread_that_does_not_end_is_told_and_left_behind(monkeypatch, caplog):
    monkeypatch.setattr(multiplexer, "JOIN_SECONDS", 0.1)
    over = threading.Event()
    with gathering(waiting_for(over), range(3)) as feeds:
        next(feeds.rounds(1))
    over.set()
    assert [record.getMessage() for record in caplog.records] == [
        "thread feed 0 is still busy and was left behind"
    ]


@pytest.mark.parametrize("limits", [{"ahead": 0}, {"in_flight": 0}], ids=str)
def test_feeds_without_room_are_refused(limits):
    with pytest.raises(ValueError, match="expected 1 or more"):
        gathering([], **limits)
