"""Graceful shutdown: SIGINT and SIGTERM end a run after the current frame, with all files closed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pipeline.system.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Records whether a signal has asked the run to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def check(self) -> None:
        """Raises Interrupted if a signal has arrived."""
        if self.signal is not None:
            raise Interrupted(self.signal, "what was done until then is kept")


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turns SIGINT and SIGTERM into a stop request within the block; only the first signal has an effect.

    A second Ctrl-C must not interrupt the closing of the files, so it is ignored; SIGQUIT and SIGKILL end the
    program at once. Shells start background jobs with SIGINT ignored; it is handled nevertheless, since a
    SIGINT that is sent to such a job is intended. In threads other than the main one the block has no effect.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield stop
        return

    def request(number: int, _frame: object) -> None:
        if stop.signal is None:
            stop.signal = number
            if os.isatty(2):  # somebody is watching
                # os.write, since print() is not re-entrant and may be what the signal has interrupted
                os.write(2, b"\nstopping after the work in hand; the files are being closed\n")

    before = {number: signal.signal(number, request) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def defer_signals() -> Iterator[None]:
    """Defers SIGINT and SIGTERM until the block ends, so it cannot be interrupted halfway.

    Python's handlers may raise, such as KeyboardInterrupt, before any line of the main thread, and even in a
    callback from C, which swallows the exception; no `try` statement can prevent that.
    """
    deferred: list[int] = []
    before: dict[signal.Signals, Callable[[int, FrameType | None], Any]] = {}
    try:
        if threading.current_thread() is threading.main_thread():  # no handler runs in others
            for number in SIGNALS:
                if callable(handler := signal.getsignal(number)):
                    before[number] = handler
                    signal.signal(number, lambda number, _: deferred.append(number))
        yield
    finally:
        for number in reversed(before):  # SIGINT last, since its handler raises
            signal.signal(number, before[number])
        for arrived in deferred:
            signal.raise_signal(arrived)
