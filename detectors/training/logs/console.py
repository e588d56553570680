"""Progress of a training run on the console: a bar on a terminal, otherwise lines of text."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from pipeline.system.progress import format_duration

if TYPE_CHECKING:
    from tqdm import tqdm


class Console:
    """Context manager that shows the progress of a run of `total` steps, `done` of which are already done.

    If standard error is not a terminal, every `every`-th step prints a line to standard output. With `shown`
    false nothing is written.
    """

    def __init__(self, total: int, *, done: int, every: int, shown: bool = True):
        self._total, self._done, self._every, self._shown = total, done, every, shown
        self._started = time.monotonic()
        self._bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> Console:
        if self._shown and sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, initial=self._done, unit="step", dynamic_ncols=True)
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self, step: int, losses: Mapping[str, float]) -> None:
        """Shows that `step`, counted from 1, is done, and the terms of its loss."""
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.3f}" for name, value in losses.items()}, refresh=False)
            self._bar.update()
        elif self._shown and (step % self._every == 0 or step == self._total):
            pace = (time.monotonic() - self._started) / (step - self._done)
            terms = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
            left = format_duration(pace * (self._total - step))
            self.print(f"step {step}/{self._total}: {terms}, {pace:.2f} s/step, {left} left")

    def print(self, text: str) -> None:
        """Prints a line on standard output, above the bar."""
        if not self._shown:
            return
        if self._bar is not None:
            self._bar.clear()
        print(text, flush=True)
        if self._bar is not None:
            self._bar.refresh()

    @property
    def elapsed(self) -> str:
        """Time since the start, formatted as h:mm:ss or m:ss."""
        return format_duration(time.monotonic() - self._started)
