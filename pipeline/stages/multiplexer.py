"""Reads several iterables ahead, each in its own thread, and serves them round-robin to one consumer.

The consumer never waits for one input while another has an item, so a slow or silent input does not delay the
others. Two numbers are bounded for each input: items read ahead, and items served but not yet finished.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from pipeline.system.prefetch import JOIN_SECONDS, POLL_SECONDS

T = TypeVar("T")

_END: Any = object()


class Round(NamedTuple, Generic[T]):
    """Items taken round-robin, and feeds that ended; both are empty after `POLL_SECONDS` without news."""

    items: list[tuple[int, T]]
    """Each with the number of its feed; those of one feed in their order."""
    ended: list[tuple[int, BaseException | None]]
    """Feeds whose items have all been served, each reported once, with the exception that ended it."""


class _Feed(Generic[T]):
    """The state of one iterable, guarded by the condition of its `StreamMultiplexer`."""

    def __init__(self, items: Iterable[T]):
        self.items = items
        self.ahead: deque[T] = deque()
        self.in_flight = 0
        self.wanted = True
        self.exhausted = False
        self.reported = False
        self.failure: BaseException | None = None


class StreamMultiplexer(Generic[T]):
    """Serves several iterables round-robin; a context manager that starts and ends their threads.

    A thread that stays inside its iterable for more than `JOIN_SECONDS` after the block is logged and left
    running as a daemon thread.

    Args:
        feeds: the iterables, numbered from 0; each is closed in its thread if it has a `close` method.
        names: names of the threads.
        in_flight: a feed with this number of items served but not yet `done` is passed over.
        ahead: maximum number of items waiting in each feed; its thread takes the next one when there is room.
    Raises ValueError if a number is below 1.
    """

    def __init__(
        self,
        feeds: Sequence[Iterable[T]],
        *,
        names: Sequence[str],
        in_flight: int,
        ahead: int = 1,
    ):
        if min(ahead, in_flight) < 1:
            raise ValueError(f"{ahead = }, {in_flight = }, expected 1 or more")
        self._feeds = [_Feed(items) for items in feeds]
        self._ahead, self._in_flight = ahead, in_flight
        self._changed = threading.Condition()
        self._next = 0  # the feed to be served next
        self._threads = [
            threading.Thread(target=self._read, args=(feed,), name=name, daemon=True)
            for feed, name in zip(self._feeds, names, strict=True)
        ]

    def __enter__(self) -> StreamMultiplexer[T]:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        for number in range(len(self._feeds)):
            self.drop(number)
        latest = time.monotonic() + JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(latest - time.monotonic(), 0))
            if thread.is_alive():
                logging.getLogger(__name__).warning(
                    "thread %s is still busy and was left behind", thread.name
                )

    def rounds(self, size: int) -> Iterator[Round[T]]:
        """Yields rounds of up to `size` items, the feeds in turn, until all have ended or were dropped.

        Available items are served at once, without waiting for a full round. If the consumer is slower than
        its feeds, their queues are full, and so are the rounds.
        """
        while True:
            with self._changed:
                self._changed.wait_for(self._has_news, POLL_SECONDS)
                if not any(feed.wanted and not feed.reported for feed in self._feeds):
                    return
                current = Round(self._take(size), self._ends())
                self._changed.notify_all()  # there is room for more items
            yield current

    def done(self, number: int) -> None:
        """Marks one item of a feed as finished."""
        with self._changed:
            self._feeds[number].in_flight -= 1
            self._changed.notify_all()

    def drop(self, number: int) -> None:
        """Ends the thread of a feed and discards its items; its end is not reported."""
        with self._changed:
            self._feeds[number].wanted = False
            self._feeds[number].ahead.clear()
            self._changed.notify_all()

    def _has_news(self) -> bool:
        """Whether an item or an end can be served, or all feeds have ended."""
        waiting = [feed for feed in self._feeds if feed.wanted and not feed.reported]
        return not waiting or any(self._ready(feed) or self._over(feed) for feed in waiting)

    def _ready(self, feed: _Feed) -> bool:
        return bool(feed.ahead) and feed.in_flight < self._in_flight

    def _over(self, feed: _Feed) -> bool:
        return feed.wanted and feed.exhausted and not feed.ahead and not feed.reported

    def _take(self, size: int) -> list[tuple[int, T]]:
        """Takes up to `size` items round-robin; the next call continues with the feed after the last one."""
        taken: list[tuple[int, T]] = []
        count, passed = len(self._feeds), 0
        while len(taken) < size and passed < count:
            number = self._next
            self._next = (number + 1) % count
            feed = self._feeds[number]
            if not self._ready(feed):
                passed += 1
                continue
            passed = 0
            feed.in_flight += 1
            taken.append((number, feed.ahead.popleft()))
        return taken

    def _ends(self) -> list[tuple[int, BaseException | None]]:
        ended = [(number, feed.failure) for number, feed in enumerate(self._feeds) if self._over(feed)]
        for number, _ in ended:
            self._feeds[number].reported = True
        return ended

    def _read(self, feed: _Feed) -> None:
        """Reads a feed, in its thread, and closes its iterator if that has a `close` method."""
        try:
            iterator = iter(feed.items)
            try:
                while self._has_room(feed) and (item := next(iterator, _END)) is not _END:
                    self._add(feed, item)
            finally:
                if hasattr(iterator, "close"):
                    iterator.close()
        except BaseException as error:
            feed.failure = error
        finally:
            with self._changed:
                feed.exhausted = True
                self._changed.notify_all()

    def _has_room(self, feed: _Feed) -> bool:
        """Waits until one more item may be read ahead; returns False if the feed was dropped."""
        with self._changed:
            self._changed.wait_for(lambda: len(feed.ahead) < self._ahead or not feed.wanted)
            return feed.wanted

    def _add(self, feed: _Feed, item: T) -> None:
        with self._changed:
            if feed.wanted:
                feed.ahead.append(item)
                self._changed.notify_all()
