"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

Mode = Literal["auto", "bar", "plain", "off"]
MODES: tuple[Mode, ...] = ("auto", "bar", "plain", "off")

BAR_WIDTH = 24  # characters
BAR_SECONDS, PLAIN_SECONDS = 0.2, 5.0  # minimum time between two updates
BAR_DELAY = 1e-6  # seconds until a bar may be drawn
FIRST_SECONDS, LATER_SECONDS = 1.8, 10.0  # without the first or a later frame, until the work is reported

_doing = ""


def working_on(text: str) -> None:
    """Tells what takes long, for progress reports while no frame is finished; "" when it is over."""
    global _doing
    _doing = text


class Progress:
    """Reports processed frames, frames per second, time left and a note on standard error; a context manager.

    The rate is that of the frames after the first, which waits for what is loaded and exported.

    Args:
        total: number of frames; None if it is unknown.
        mode: "bar" draws a bar with tqdm, "plain" writes lines, "off" is silent; "auto" draws a bar on a
            terminal and writes lines elsewhere.
        stream: where to write. Default: standard error. A closed one is silent.
        note: returns a text for the end of the report, called once for each update.
    """

    def __init__(
        self,
        total: int | None,
        *,
        mode: Mode = "auto",
        stream: TextIO | None = None,
        note: Callable[[], str] = str,
    ):
        stream = stream if stream is not None else sys.stderr
        if stream is None or stream.closed:
            mode = "off"
        elif mode == "auto":
            mode = "bar" if stream.isatty() else "plain"
        self._stream, self._mode, self._total, self._note = stream, mode, total, note
        self._lock = threading.Lock()
        self._done = self._shown = 0  # frames
        self._since = self._updated = time.monotonic()  # of the start, then of the first frame
        self._bar = _bar(total, stream) if mode == "bar" else None
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        working_on("")
        if self._mode != "off":
            self._updated = time.monotonic()
            self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._watcher.is_alive():
            self._watcher.join()
        if self._shown < self._done:
            self._show()
        if self._mode == "bar" and self._bar is not None:
            self._silenced_if_closed(self._bar.close)

    def advance(self) -> None:
        """Counts one more frame. Thread-safe."""
        interval = BAR_SECONDS if self._mode == "bar" else PLAIN_SECONDS
        with self._lock:
            self._done += 1
            if self._done == 1:
                self._begin()
            if time.monotonic() - self._updated >= interval:
                self._show()

    def _begin(self) -> None:
        """Lets the rate count from the first frame."""
        self._since = time.monotonic()
        if self._bar is not None:
            now = self._bar._time()  # type: ignore[attr-defined]
            self._bar.start_t, self._bar.initial = now - 2 * BAR_DELAY, 1

    def _watch(self) -> None:
        """Tells what is being done while no frame is finished, in a thread."""
        told = since = self._updated
        while not self._ended.wait(BAR_SECONDS):
            now, doing = time.monotonic(), _doing
            with self._lock:
                since = max(since, self._updated)
                quiet = LATER_SECONDS if self._done else FIRST_SECONDS
                drawn = self._bar is not None and self._done  # a line would tear the bar
                if not doing or drawn or now - max(told, since) < quiet or self._mode == "off":
                    continue
                told = now
                text = f"{doing}, {now - since:.0f} s"
                self._silenced_if_closed(print, text, file=self._stream, flush=True)

    def _show(self) -> None:
        if self._mode == "off":
            return
        self._updated, new, self._shown = time.monotonic(), self._done - self._shown, self._done
        if self._bar is not None:
            self._bar.set_postfix_str(self._note(), refresh=False)
            self._silenced_if_closed(self._bar.update, new)
        else:
            self._silenced_if_closed(print, self._line(), file=self._stream, flush=True)

    def _line(self) -> str:
        rate = (self._done - 1) / max(self._updated - self._since, 1e-9)
        parts = [f"{self._done}/{self._total} frames" if self._total else f"{self._done} frames"]
        if rate > 0:
            parts.append(f"{format_rate(rate)} frames/s")
        if self._total and rate > 0:
            parts.append(f"{format_duration(max(self._total - self._done, 0) / rate)} left")
        return ", ".join(filter(None, [*parts, self._note()]))

    def _silenced_if_closed(
        self, write: Callable[..., object], *arguments: object, **options: object
    ) -> None:
        try:
            write(*arguments, **options)
        except (OSError, ValueError):  # a closed stream is no reason to stop the work
            self._mode = "off"


def _bar(total: int | None, stream: TextIO | None) -> tqdm:
    """Returns a bar that is drawn at every `update`, but not before the first."""
    from tqdm import tqdm  # takes a while to import, and logs do not need it

    left = "{n_fmt}/{total_fmt} frames, {rate_noinv_fmt}, {remaining} left{postfix}"
    return tqdm(
        total=total,
        file=stream,
        unit=" frames",
        bar_format=f"[{{bar:{BAR_WIDTH}}}] {left}" if total else "{n_fmt} frames, {rate_noinv_fmt}{postfix}",
        ascii=".#",
        dynamic_ncols=True,
        smoothing=0,  # the mean rate, as in plain lines
        mininterval=0,
        miniters=0,
        delay=BAR_DELAY,
    )


def format_rate(rate: float) -> str:
    """Returns a number per second with one decimal, or with two significant digits if it is below 1."""
    return f"{rate:.1f}" if rate >= 0.95 or rate <= 0 else f"{rate:.2g}"


def format_duration(seconds: float) -> str:
    """Returns a duration as M:SS or H:MM:SS, such as 1:05 or 2:03:09."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
