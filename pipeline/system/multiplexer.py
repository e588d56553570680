"""Several iterables read ahead, each by a thread of its own, and handed out in turn to one consumer.

The consumer never waits for one of them while another has something: a slow or silent one costs the others
nothing. What each may have under way is bounded twice: read ahead, and handed out but not yet finished.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from pipeline.system.prefetch import JOIN_SECONDS, POLL_SECONDS, QueuePolicy

T = TypeVar("T")


class Round(NamedTuple, Generic[T]):
    """What there is to do now; both may be empty, where nothing happened for `POLL_SECONDS`."""

    items: list[tuple[int, T]]
    """Each with the number of its feed; those of one feed in their order."""
    ended: list[tuple[int, BaseException | None]]
    """Feeds all of whose items have been handed out, each told once, and what broke it off."""


class _Feed(Generic[T]):
    """The state of one iterable, guarded by the condition of its `StreamMultiplexer`."""

    def __init__(self, items: Iterable[T], queueing: QueuePolicy):
        self.items, self.queueing = items, queueing
        self.ahead: deque[T] = deque()
        self.in_hand = 0
        self.wanted = True
        self.exhausted = False
        self.told = False
        self.failure: BaseException | None = None


class StreamMultiplexer(Generic[T]):
    """The feeds, numbered in the order given, and their threads, which the `with` block starts and ends.

    `ahead` items at most wait in each feed, and then its thread does, unless there are `queues`, one for each
    feed, that say otherwise. A feed of which `in_hand` items are handed out and not yet `done` is passed
    over. Threads are named after the `names` of the feeds. A thread that stays inside its iterable for more
    than `JOIN_SECONDS` after the block is logged and left to itself: it is a daemon.
    """

    def __init__(
        self,
        feeds: Sequence[Iterable[T]],
        *,
        names: Sequence[str],
        in_hand: int,
        ahead: int = 1,
        queues: Sequence[QueuePolicy] | None = None,
    ):
        queues = [QueuePolicy(ahead)] * len(feeds) if queues is None else queues
        if min(ahead, in_hand, *(queueing.size for queueing in queues)) < 1:
            raise ValueError(f"{ahead = }, {in_hand = }, {queues = }, expected 1 or more")
        self._feeds = [_Feed(items, queueing) for items, queueing in zip(feeds, queues, strict=True)]
        self._in_hand = in_hand
        self._changed = threading.Condition()
        self._next = 0  # the feed whose turn it is
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

    def turns(self, size: int) -> Iterator[Round[T]]:
        """Up to `size` items at once, one of each feed in turn, until all feeds have ended or are dropped.

        What is there is taken at once: a full turn is not waited for. A consumer that is slower than its
        feeds finds them all filled, so the turns are full where it pays.
        """
        while True:
            with self._changed:
                self._changed.wait_for(self._something, POLL_SECONDS)
                if not any(feed.wanted and not feed.told for feed in self._feeds):
                    return
                turn = Round(self._take(size), self._ends())
                self._changed.notify_all()  # there is room for more
            yield turn

    def done(self, number: int) -> None:
        """One more item of a feed has been finished with."""
        with self._changed:
            self._feeds[number].in_hand -= 1
            self._changed.notify_all()

    def drop(self, number: int) -> None:
        """Nothing more is wanted of a feed: its thread ends, its items are let go, its end is not told."""
        with self._changed:
            self._feeds[number].wanted = False
            self._feeds[number].ahead.clear()
            self._changed.notify_all()

    def _something(self) -> bool:
        """Whether there is reason for a turn, or for the last one."""
        waiting = [feed for feed in self._feeds if feed.wanted and not feed.told]
        return not waiting or any(self._ready(feed) or self._over(feed) for feed in waiting)

    def _ready(self, feed: _Feed) -> bool:
        return bool(feed.ahead) and feed.in_hand < self._in_hand

    def _over(self, feed: _Feed) -> bool:
        return feed.wanted and feed.exhausted and not feed.ahead and not feed.told

    def _take(self, size: int) -> list[tuple[int, T]]:
        """Up to `size` items, the feeds in turn; the turn after this one goes on with the next of them."""
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
            feed.in_hand += 1
            taken.append((number, feed.ahead.popleft()))
        return taken

    def _ends(self) -> list[tuple[int, BaseException | None]]:
        ended = [(number, feed.failure) for number, feed in enumerate(self._feeds) if self._over(feed)]
        for number, _ in ended:
            self._feeds[number].told = True
        return ended

    def _read(self, feed: _Feed) -> None:
        """The work of a feed's thread, which also closes the iterator of its items, where that can be."""
        try:
            iterator = iter(feed.items)
            try:
                for item in iterator:
                    if not self._offer(feed, item):
                        break
            finally:
                if hasattr(iterator, "close"):
                    iterator.close()
        except BaseException as error:
            feed.failure = error
        finally:
            with self._changed:
                feed.exhausted = True
                self._changed.notify_all()

    def _offer(self, feed: _Feed, item: T) -> bool:
        """Add `item` when there is room, or in place of another; False if it is not wanted any more."""
        size, on_full, dropped = feed.queueing
        with self._changed:
            if on_full == "wait":
                self._changed.wait_for(lambda: len(feed.ahead) < size or not feed.wanted)
            if feed.wanted and len(feed.ahead) == size and on_full == "drop-newest":
                dropped(item)
            elif feed.wanted:
                if len(feed.ahead) == size:
                    dropped(feed.ahead.popleft())
                feed.ahead.append(item)
                self._changed.notify_all()
            return feed.wanted
