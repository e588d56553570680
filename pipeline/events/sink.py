"""Takes the events of one source to events.jsonl, to their evidence and to listeners."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from pipeline.events.engine import EventEngine
from pipeline.events.event_file import EventFile
from pipeline.events.protocols import EventListener, Evidence
from pipeline.sinks.base import close_preserving_error
from pipeline.sinks.jsonl_codec import EMPTY, ValidPrefix
from pipeline.structures.events import Event
from pipeline.structures.results import Result


class EventSink:
    """The events of one source on their way out, as a sink.

    It ends what begins with the file of the messages: that is a sink of its own, `open_file`, whose place
    among the others decides when evidence and listeners get a result.

    When the source ends, so do its open events. A run over a recording that ends early leaves them open,
    because `--resume` continues it.

    Args:
        engine: finds the events.
        live: whether the source is live.
        evidence: keeps clips and pictures; None if there are none.
        kept: the messages that an earlier process of a resumed run has written. Listeners get the last of
            them again, because the process may have ended before they accepted it.
    """

    def __init__(
        self,
        engine: EventEngine,
        *,
        live: bool,
        evidence: Evidence | None = None,
        kept: ValidPrefix = EMPTY,
    ):
        self.engine, self.evidence = engine, evidence
        self._live, self._kept, self._to_skip = live, kept, max(kept.line_count - 1, 0)
        self._listeners: list[EventListener] = []
        self._file: EventFile | None = None
        self.ends: tuple[Event, ...] = ()
        """Messages about the events that ended with the source; empty before."""

    def add(self, listeners: Iterable[EventListener]) -> None:
        """Adds what gets the messages, before the block is entered; it is not closed here."""
        self._listeners.extend(listeners)

    @property
    def rules(self) -> Sequence[str]:
        """Names of the rules of the source."""
        return [rule.name for rule in self.engine.rules]

    def complete(self, result: Result) -> Result:
        """Returns the result of the next frame with its events."""
        events = self.engine.update(result)
        return replace(result, events=tuple(events)) if events else result

    def open_file(self, path: Path) -> EventFile:
        """Returns the sink of an events.jsonl, which the last events of the source go to, too.

        It passes each result on to evidence and listeners once its messages are in the file.
        """
        self._file, self._kept = EventFile(path, kept=self._kept, then=self._pass_on), EMPTY
        return self._file

    def __enter__(self) -> Self:
        return self

    def write(self, result: Result) -> None:
        """Does nothing: `open_file` has passed the result on."""

    def _pass_on(self, result: Result) -> None:
        """Takes a result, whose messages are in events.jsonl already, to evidence and listeners."""
        if self.evidence:
            self.evidence.add(result)
        for event in result.events:
            if self.evidence and event.phase == "start":
                self.evidence.begin(event, result)
            self._tell(event)

    def _tell(self, event: Event) -> None:
        if self.evidence and event.phase == "end":
            self.evidence.end(event)
        if self._to_skip:
            self._to_skip -= 1
            return
        for listener in self._listeners:
            listener.send(event)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            if error is None or self._live:
                close_preserving_error(self._finish, error)
        finally:
            if self.evidence:
                close_preserving_error(self.evidence.close, error)

    def _finish(self) -> None:
        self.ends = tuple(self.engine.finish())
        if self._file:
            self._file.append(self.ends)
        for event in self.ends:
            self._tell(event)
