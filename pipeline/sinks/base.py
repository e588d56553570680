"""The interface of sinks, and several sinks combined into one.

A sink is a context manager that writes one output: entering opens the file, `write` appends one result,
leaving closes the file. Files are valid at every moment, however the run ends: each record is passed to the
operating system as a whole, and one that does not fit on the disk is removed. Boxes are in source pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Protocol, Self

from pipeline.structures.results import Result
from pipeline.system.errors import OutputError
from pipeline.system.signals import defer_signals


class Sink(Protocol):
    """Writes the results of a run to one output."""

    def __enter__(self) -> Self:
        """Opens the output. Raises OutputError if that fails."""

    def write(self, result: Result) -> None:
        """Appends one result; results come in the order of the source. Raises OutputError if that fails."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Completes and closes the output, also if the block is left by an exception. Raises OutputError."""


class Sinks:
    """Several sinks combined: each result is written to all of them, in order; they are closed in reverse.

    If one of them fails, the others are still closed. The first error is raised, with later ones as notes.
    Signals are deferred while results are written, so all outputs hold the same frames.
    """

    def __init__(self, sinks: Iterable[Sink]):
        self._sinks = list(sinks)
        self._open: list[Sink] = []

    def add(self, sinks: Iterable[Sink]) -> None:
        """Appends sinks, before the block is entered."""
        self._sinks.extend(sinks)

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
        """Writes a result to every sink. Raises OutputError."""
        with defer_signals():
            for sink in self._open:
                sink.write(result)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with defer_signals():
            first = self._close(error)
            if first is not None and first is not error:
                raise first

    def _close(self, first: BaseException | None) -> BaseException | None:
        """Closes the open sinks; returns the first error, which is `first` if that is not None."""
        while self._open:
            try:
                self._open.pop().__exit__(type(first) if first else None, first, None)
            except BaseException as error:
                if first is None:
                    first = error
                elif error is not first:
                    first.add_note(f"then: {error}")
        return first


def close_preserving_error(close: Callable[[], None], error: BaseException | None) -> None:
    """Calls `close`; if `error` is being raised, an OutputError of `close` becomes a note on it.

    Without `error`, the OutputError is raised. One with the message of `error` is no news.
    """
    try:
        close()
    except OutputError as failure:
        if error is None:
            raise
        if str(failure) != str(error):
            error.add_note(f"then: {failure}")
