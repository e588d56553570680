"""Ctrl-C and SIGTERM as a request: the run ends after the work in hand and closes every file."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.system.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether a signal has asked the run to end."""

    def __init__(self):
        self.signal: int | None = None

    def check(self) -> None:
        """Raise Interrupted once a signal has come."""
        if self.signal is not None:
            raise Interrupted(self.signal, "what was done until then is kept")


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request within the block; later ones change nothing.

    A second Ctrl-C must not break off the closing of the files, so it is ignored too; SIGQUIT and SIGKILL end
    the program at once. Shells start background jobs with SIGINT ignored; it is taken all the same, since
    whoever sends it to a run by hand means it.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield stop
        return

    def request(number: int, _frame: object) -> None:
        if stop.signal is None:
            stop.signal = number
            if os.isatty(2):  # a person waits
                # print() may be what the signal has interrupted, and is not made to be entered twice
                os.write(2, b"\nstopping after the work in hand; the files are being closed\n")

    before = {number: signal.signal(number, request) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def defer_signals() -> Iterator[None]:
    """What must not be broken off halfway: signals that come within the block are handled when it is left.

    A handler of Python's may raise before any line of the main thread, KeyboardInterrupt for one, also in a
    callback from C, which swallows it; no `try` is early enough for that.
    """
    waiting: list[int] = []
    before = {}
    try:
        if threading.current_thread() is threading.main_thread():  # in others no handler runs
            for number in SIGNALS:
                if callable(handler := signal.getsignal(number)):
                    before[number] = handler
                    signal.signal(number, lambda number, _: waiting.append(number))
        yield
    finally:
        for number in reversed(before):  # SIGINT last, whose handler is the one that raises
            signal.signal(number, before[number])
        for number in waiting:
            signal.raise_signal(number)
