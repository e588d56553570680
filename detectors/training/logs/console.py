"""How far a training run is, for people: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from pipeline.system.progress import clock


class Console:
    """Shows steps and news of one run of `total` steps, `done` of which were done before; a context manager.

    Each `every`-th step makes a line where there is no terminal. Where `shown` is false nothing is written.
    """

    def __init__(self, total: int, *, done: int, every: int, shown: bool = True):
        self._total, self._done, self._every, self._shown = total, done, every, shown
        self._started = time.monotonic()
        self._bar = None

    def __enter__(self) -> Console:
        if self._shown and sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, initial=self._done, unit="step", dynamic_ncols=True)
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self, step: int, losses: Mapping[str, float]) -> None:
        """One more step is done."""
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.3f}" for name, value in losses.items()}, refresh=False)
            self._bar.update()
        elif self._shown and (step % self._every == 0 or step == self._total):
            pace = (time.monotonic() - self._started) / (step - self._done)
            told = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
            left = clock(pace * (self._total - step))
            self.say(f"step {step}/{self._total}: {told}, {pace:.2f} s/step, {left} left")

    def say(self, text: str) -> None:
        """A line of news on standard output."""
        if not self._shown:
            return
        if self._bar is not None:
            self._bar.clear()
        print(text, flush=True)
        if self._bar is not None:
            self._bar.refresh()

    @property
    def elapsed(self) -> str:
        """Time since the start, for people."""
        return clock(time.monotonic() - self._started)
