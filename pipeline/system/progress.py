"""How far a run is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Literal, TextIO

Mode = Literal["auto", "bar", "plain", "off"]
MODES: tuple[Mode, ...] = ("auto", "bar", "plain", "off")

BAR_WIDTH = 24
BAR_SECONDS, PLAIN_SECONDS = 0.2, 5.0  # least time between two updates


class Progress:
    """Reports frames done, frames per second, time left and what `remark` says on standard error."""

    def __init__(
        self,
        total: int | None,
        *,
        mode: Mode = "auto",
        stream: TextIO | None = None,
        remark: Callable[[], str] = str,
    ):
        self._stream = stream if stream is not None else sys.stderr
        if self._stream is None or self._stream.closed:
            mode = "off"
        elif mode == "auto":
            mode = "bar" if self._stream.isatty() else "plain"
        self._mode, self._total, self._remark = mode, total, remark
        self._lock = threading.Lock()
        self._done = 0
        self._told = 0  # frames done when they were shown last
        self._started = self._shown = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        if self._mode == "off" or not self._done:
            return
        if self._told < self._done:
            self._show()
        if self._mode == "bar":
            self._write("\n")

    def advance(self) -> None:
        """One more frame is done; may be called from any thread."""
        wait = BAR_SECONDS if self._mode == "bar" else PLAIN_SECONDS
        with self._lock:
            self._done += 1
            if self._mode != "off" and time.monotonic() - self._shown >= wait:
                self._show()

    def _show(self) -> None:
        self._shown, self._told = time.monotonic(), self._done
        rate = self._done / max(self._shown - self._started, 1e-9)
        parts = [f"{self._done}/{self._total} frames" if self._total else f"{self._done} frames"]
        parts.append(f"{rate:.1f} frames/s")
        if self._total:
            parts.append(f"{clock(max(self._total - self._done, 0) / rate)} left")
        line = ", ".join(filter(None, [*parts, self._remark()]))
        if self._mode == "plain":
            self._write(line + "\n")
            return
        if self._total:
            filled = round(BAR_WIDTH * min(self._done / self._total, 1))
            line = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {line}"
        self._write(f"\r{line}\x1b[K")  # erase what a longer line left

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # closed: nobody reads any more: no reason to stop the work
            self._mode = "off"


def clock(seconds: float) -> str:
    """1:05 or 2:03:09."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
