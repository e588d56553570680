"""Computes items ahead of their consumer in a worker thread, with a bounded queue between the two."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, Literal, NamedTuple, TypeVar, cast

T = TypeVar("T")

POLL_SECONDS = 0.1  # longest blocking wait before a thread checks whether it should stop
JOIN_SECONDS = 5.0  # how long closing waits for a worker that is busy inside its iterator

_END = object()

OnFull = Literal["wait", "drop-oldest", "drop-newest"]
"""Overflow policy of a bounded queue: block the producer, drop the oldest item, or drop the new item."""


def _ignore(item: object) -> None:
    """The default `dropped` callback: does nothing."""


class QueuePolicy(NamedTuple):
    """Size and overflow policy of a bounded queue."""

    size: int
    """Maximum number of waiting items, 1 or more."""
    on_full: OnFull = "wait"
    dropped: Callable[[Any], None] = _ignore
    """Called with each dropped item, in the thread that reads the items."""


def prefetch(
    items: Iterable[T],
    *,
    size: int,
    name: str = "prefetch",
    join_timeout: float | None = JOIN_SECONDS,
    on_full: OnFull = "wait",
    dropped: Callable[[T], None] = _ignore,
) -> Generator[T]:
    """Yields the items in order while a worker thread computes up to `size` + 1 of them ahead.

    The worker starts with the first `next`. An exception of `items` is raised here, with its traceback, after
    the items before it. When the generator is closed or collected, the worker stops after its current item.
    The worker itself closes the iterator of `items`, if that has a `close` method; an exception of that is
    raised by the `close` of the generator.

    Args:
        items: what to iterate over, in the worker thread only.
        size: maximum number of items in the queue.
        name: name of the worker thread.
        join_timeout: seconds that closing waits for a worker inside `items`, which is then logged and left
            running as a daemon thread; None waits for its end, for workers that must not outlive the caller.
        on_full: what happens if the consumer is slower than the worker.
        dropped: called with each dropped item, in the worker thread.

    Raises ValueError if `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"{size = }, expected 1 or more")
    return _consume(items, QueuePolicy(size, on_full, dropped), name, join_timeout)


def _consume(items: Iterable[T], policy: QueuePolicy, name: str, join_timeout: float | None) -> Generator[T]:
    ahead: queue.Queue[T | object] = queue.Queue(policy.size)
    stop = threading.Event()
    failures: list[BaseException] = []
    arguments = (items, ahead, policy, stop, failures)
    worker = threading.Thread(target=_produce, args=arguments, name=name, daemon=True)
    worker.start()
    try:
        while (item := _take(ahead, worker)) is not _END:
            yield cast(T, item)
    except GeneratorExit:
        pass  # closed early: continue below, so that `close` raises what closing `items` raised
    finally:
        stop.set()
        _discard(ahead)
        # The garbage collector may close this generator in any thread, even in the worker.
        if worker is not threading.current_thread():
            worker.join(join_timeout)
            if worker.is_alive():
                logging.getLogger(__name__).warning("thread %s is still busy and was left behind", name)
    if failures:
        raise failures.pop()


def _produce(
    items: Iterable[T],
    ahead: queue.Queue[T | object],
    policy: QueuePolicy,
    stop: threading.Event,
    failures: list[BaseException],
) -> None:
    """Fills the queue, in the worker, until `items` end or `stop` is set; always ends with the sentinel."""
    try:
        iterator = iter(items)
        try:
            for item in iterator:
                if policy.on_full != "wait":
                    _put_or_drop(ahead, item, policy)
                    if stop.is_set():
                        break
                elif not _offer(ahead, item, stop):
                    break
        finally:
            if hasattr(iterator, "close"):
                iterator.close()
    except BaseException as error:
        failures.append(error)
    finally:
        _offer(ahead, _END, stop)


def _offer(ahead: queue.Queue[T | object], item: T | object, stop: threading.Event) -> bool:
    """Puts an item, waiting for room; returns False if `stop` was set before."""
    while not stop.is_set():
        try:
            ahead.put(item, timeout=POLL_SECONDS)
        except queue.Full:
            continue
        return True
    return False


def _put_or_drop(ahead: queue.Queue[T | object], item: T, policy: QueuePolicy) -> None:
    """Puts an item without waiting; if the queue is full, drops it or the oldest one."""
    while True:
        try:
            return ahead.put_nowait(item)
        except queue.Full:
            if policy.on_full == "drop-newest":
                return policy.dropped(item)
        try:
            policy.dropped(ahead.get_nowait())
        except queue.Empty:  # the consumer took it meanwhile
            continue


def _take(ahead: queue.Queue[T | object], worker: threading.Thread) -> T | object:
    """Returns the next item or the sentinel; raises RuntimeError if the worker died without either."""
    while True:
        try:
            return ahead.get(timeout=POLL_SECONDS)
        except queue.Empty:
            if not worker.is_alive() and ahead.empty():
                raise RuntimeError(f"thread {worker.name} died without an exception") from None


def _discard(ahead: queue.Queue[T | object]) -> None:
    """Empties the queue: frees a worker that waits in `put`, and the items that nobody will take."""
    while True:
        try:
            ahead.get_nowait()
        except queue.Empty:
            return
