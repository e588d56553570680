"""Graceful shutdown: SIGINT, SIGTERM and SIGHUP end a run after the current frame, with all files closed.

Before the run begins, while sources are opened and annotations are read, they end the program at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from pipeline.system.errors import Interrupted

HANGUP = getattr(signal, "SIGHUP", None)
"""The signal of a terminal that is gone; None on Windows, which has none."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, *([HANGUP] if HANGUP else []))


class _EndAtOnce(BaseException):
    """A signal that arrived before the run began; no handler of ordinary errors may catch it."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class StopRequest:
    """Records whether a signal has asked the run to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.at_once = False
        """True as long as a signal ends the program at once, because there is nothing to finish."""

    def begin(self) -> None:
        """From now on a signal is recorded only. Raises Interrupted if one has arrived."""
        self.at_once = False
        if self.signal is not None:
            raise Interrupted(self.signal)

    def check(self) -> None:
        """Raises Interrupted if a signal has arrived."""
        if self.signal is not None:
            raise Interrupted(self.signal, "what was done until then is kept")


@contextmanager
def stop_on_signals(*, at_once: bool = False) -> Iterator[StopRequest]:
    """Turns signals into a stop request within the block; only the first one has an effect.

    With `at_once`, a signal before `StopRequest.begin` ends the block at once with Interrupted, also if the
    main thread waits for a file; it does not end a wait in C code, which belongs in a thread.

    A second Ctrl-C must not interrupt the closing of the files, so it is ignored; SIGQUIT and SIGKILL end the
    program at once. Shells start background jobs with SIGINT ignored; it is handled nevertheless, since a
    SIGINT that is sent to such a job is intended. An ignored SIGHUP stays ignored, as nohup wants it. In
    threads other than the main one the block has no effect.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield stop
        return

    def request(number: int, _frame: object) -> None:
        first, stop.signal = stop.signal is None, stop.signal or number
        if stop.at_once:
            raise _EndAtOnce(number)
        if first and os.isatty(2):  # somebody is watching
            with suppress(OSError):  # the terminal may be what has hung up
                # os.write, since print() is not re-entrant and may be what the signal has interrupted
                os.write(2, b"\nstopping after the work in hand; the files are being closed\n")

    handled = [number for number in SIGNALS if not _is_nohup(number)]
    before = {number: signal.signal(number, request) for number in handled}
    stop.at_once = at_once
    try:
        yield stop
    except _EndAtOnce as end:
        raise Interrupted(end.number) from None
    finally:
        stop.at_once = False
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_nohup(number: signal.Signals) -> bool:
    """Returns whether the program was started to survive the end of its terminal."""
    return number == HANGUP and signal.getsignal(number) is signal.SIG_IGN


@contextmanager
def defer_signals() -> Iterator[None]:
    """Defers these signals until the block ends, so it cannot be interrupted halfway.

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
