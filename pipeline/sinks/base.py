"""Where results go: JSON lines, COCO results, MOT challenge text, and several sinks as one.

A sink is a context manager with one method: entering opens its file, `write` takes one result, leaving
closes the file. Files are valid at every moment, whatever ends the run: each record is handed to the
system as a whole, and one that does not fit on the disk is taken back. Boxes are measured in source pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, Self

from pipeline.structures.results import Result
from pipeline.system.errors import OutputError
from pipeline.system.signals import defer_signals


class Sink(Protocol):
    """What `Sinks` can hold."""

    def __enter__(self) -> Self:
        """Open the output; `OutputError` where that is impossible."""

    def write(self, result: Result) -> None:
        """Take one result, in the order of the source; `OutputError` where it cannot be written."""

    def __exit__(self, kind, error, traceback) -> None:
        """Complete and close the output, also while `error` is on its way out."""


class Sinks:
    """Several sinks as one: all are entered, each result goes to all, and all are closed in reverse.

    If one fails, the others are still closed; the first error is the one that is raised, and what failed
    after it is noted on it.
    """

    def __init__(self, sinks: Iterable[Sink]):
        self._sinks = list(sinks)
        self._open: list[Sink] = []

    def __enter__(self) -> Self:
        try:
            with defer_signals():
                for sink in self._sinks:
                    sink.__enter__()
                    self._open.append(sink)
        except BaseException as error:
            self._close(error)
            raise
        return self

    def write(self, result: Result) -> None:
        """Hand `result` to every sink, in the order given; an `OutputError` ends it, a signal does not."""
        with defer_signals():
            for sink in self._open:
                sink.write(result)

    def __exit__(self, kind, error, traceback) -> None:
        with defer_signals():
            first = self._close(error)
            if first is not error:
                raise first

    def _close(self, first: BaseException | None) -> BaseException | None:
        while self._open:
            try:
                self._open.pop().__exit__(type(first) if first else None, first, None)
            except BaseException as error:
                if first is None:
                    first = error
                elif error is not first:
                    first.add_note(f"then: {error}")
        return first


def quietly(close: Callable[[], None], error: BaseException | None) -> None:
    """Close; while `error` is on its way out, a second fault is noted on it instead of hiding it."""
    try:
        close()
    except OutputError as fault:
        if error is None:
            raise
        error.add_note(f"then: {fault}")
