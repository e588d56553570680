"""Software pipelining of the two phases of inference."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Literal, TypeVar

from pipeline.system.prefetch import prefetch

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")

Schedule = Literal["sequential", "threaded", "delayed"]
"""How the two phases of inference are scheduled. sequential: one after the other. threaded: phase 1 of item
n + 1 overlaps phase 2 of item n, in another thread. delayed: one after the other, with results returned one
item late, so that a GPU runs ahead."""


def run_two_phase(
    items: Iterable[T],
    begin: Callable[[T], U],
    finish: Callable[[U], V],
    schedule: Schedule,
    workers: int = 1,
) -> Generator[V]:
    """Yields `finish(begin(item))` of each item, in order.

    With `workers` above 1, a threaded schedule runs phase 2 of so many successive items at once, each in a
    thread of its own; `begin` still takes one item after the other. A result is yielded as soon as it and
    those before it are there, whether a further item has come or not. At most one more item than `workers`
    is in progress.
    """
    if schedule == "threaded" and workers > 1:
        yield from _run_in_pool(items, begin, finish, workers)
        return
    if schedule == "threaded":
        with closing(prefetch(map(begin, items), size=1, name="features", join_timeout=None)) as begun:
            yield from map(finish, begun)
        return
    results = (finish(begin(item)) for item in items)
    yield from delay_by_one(results) if schedule == "delayed" else results


def _run_in_pool(
    items: Iterable[T], begin: Callable[[T], U], finish: Callable[[U], V], workers: int
) -> Generator[V]:
    """Yields the results of a threaded schedule whose second phase runs in a pool of threads."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="join")

    def submit(item: T) -> Future[V]:
        return pool.submit(finish, begin(item))

    ahead = prefetch(map(submit, items), size=workers - 1, name="features", join_timeout=None)
    try:
        with closing(ahead) as pending:
            for result in pending:
                yield result.result()
    finally:  # after `ahead`, whose thread submits; what has not begun is not wanted any more
        pool.shutdown(cancel_futures=True)


def delay_by_one(items: Iterable[T]) -> Iterator[T]:
    """Yields each item only after the next one has been computed.

    If `items` raises an exception, the items before it are yielded first.
    """
    pending: list[T] = []
    try:
        for item in items:
            pending.append(item)
            if len(pending) == 2:
                yield pending.pop(0)
    except Exception:
        yield from pending
        raise
    yield from pending
