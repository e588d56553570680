"""Work ahead of the consumer in a thread of its own: the only place in the pipeline with threads."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, Literal, NamedTuple, TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.1  # how long a blocking call may last before it looks whether it is still wanted
JOIN_SECONDS = 5.0  # how long the end waits for a worker that is busy inside its iterator

_END = object()

OnFull = Literal["wait", "drop-oldest", "drop-newest"]
"""What becomes of an item for which there is no room: it waits, the one that waits longest makes room for it,
or it is let go itself."""


def _forget(item: Any) -> None:
    """Nobody asks what was dropped."""


class QueuePolicy(NamedTuple):
    """How items wait for whoever takes them."""

    size: int
    """Items that may wait."""
    on_full: OnFull = "wait"
    dropped: Callable[[Any], None] = _forget
    """Told each item that is dropped, in the thread that reads them."""


def prefetch(
    items: Iterable[T],
    *,
    size: int,
    name: str = "prefetch",
    patience: float | None = JOIN_SECONDS,
    on_full: OnFull = "wait",
    dropped: Callable[[T], None] = _forget,
) -> Generator[T]:
    """The same items in the same order, taken from `items` by a worker thread up to `size` + 1 ahead.

    Where the consumer is slower than the worker, `on_full` says whether the worker waits; `dropped` is told
    each item that is left out, in the worker's thread.

    The worker starts with the first `next`. An exception of `items` is raised here, with its traceback, after
    the items before it. When the returned generator is closed or dropped, the worker stops at once, or when
    the item it works on is there. In any case the worker itself closes the iterator of `items`, where that
    has a `close`; an error in there is raised by the generator's `close`. A worker that stays inside `items`
    for longer than `patience` seconds is logged and left to itself: it is a daemon. None waits for as long as
    it takes, for workers that the interpreter must not leave behind. `name` is the thread's.

    Raises ValueError for a `size` below 1.
    """
    if size < 1:
        raise ValueError(f"{size = }, expected 1 or more")
    return _consume(items, QueuePolicy(size, on_full, dropped), name, patience)


def _consume(items: Iterable[T], queueing: QueuePolicy, name: str, patience: float | None) -> Generator[T]:
    ahead: queue.Queue = queue.Queue(queueing.size)
    stop = threading.Event()
    failures: list[BaseException] = []
    arguments = (items, ahead, queueing, stop, failures)
    worker = threading.Thread(target=_produce, args=arguments, name=name, daemon=True)
    worker.start()
    try:
        while (item := _take(ahead, worker)) is not _END:
            yield item
    except GeneratorExit:
        pass  # closed early: go on below, so that `close` tells what the worker met when it closed `items`
    finally:
        stop.set()
        _discard(ahead)
        # the garbage collector may end this generator in any thread, the worker's own included
        if worker is not threading.current_thread():
            worker.join(patience)
            if worker.is_alive():
                logging.getLogger(__name__).warning("thread %s is still busy and was left behind", name)
    if failures:
        raise failures.pop()


def _produce(
    items: Iterable[T], ahead: queue.Queue, queueing: QueuePolicy, stop: threading.Event, failures: list
) -> None:
    """The worker: fill the queue until `items` end or `stop` is set; always leave a sentinel."""
    try:
        iterator = iter(items)
        try:
            for item in iterator:
                if queueing.on_full != "wait":
                    _squeeze(ahead, item, queueing)
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


def _offer(ahead: queue.Queue, item: object, stop: threading.Event) -> bool:
    """Put `item`, waiting for room; False if it is not wanted any more."""
    while not stop.is_set():
        try:
            ahead.put(item, timeout=POLL_SECONDS)
        except queue.Full:
            continue
        return True
    return False


def _squeeze(ahead: queue.Queue, item: T, queueing: QueuePolicy) -> None:
    """Put `item` at once, where need be in place of the one that waits longest, or drop it."""
    while True:
        try:
            return ahead.put_nowait(item)
        except queue.Full:
            if queueing.on_full == "drop-newest":
                return queueing.dropped(item)
        try:
            queueing.dropped(ahead.get_nowait())
        except queue.Empty:  # it was taken meanwhile
            continue


def _take(ahead: queue.Queue, worker: threading.Thread) -> object:
    """The next item or the sentinel; RuntimeError if the worker has died without leaving one."""
    while True:
        try:
            return ahead.get(timeout=POLL_SECONDS)
        except queue.Empty:
            if not worker.is_alive() and ahead.empty():
                raise RuntimeError(f"thread {worker.name} died without a word") from None


def _discard(ahead: queue.Queue) -> None:
    """Make room for a worker that waits in `put`, and let go of the items that nobody will take."""
    while True:
        try:
            ahead.get_nowait()
        except queue.Empty:
            return
