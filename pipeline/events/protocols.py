"""What receives events: evidence that is kept of them, and listeners that carry them out of the program."""

from __future__ import annotations

from typing import Protocol

from pipeline.sinks.rotating import BudgetShare
from pipeline.structures.events import Event
from pipeline.structures.results import Result


class Evidence(Protocol):
    """Keeps clips and pictures of the events of one source.

    All calls come from the thread that writes the outputs of the source. In each frame `add` is called first,
    then `begin` and `end` for the events that start and end there. If a run is resumed, the calls start again
    with the first frame of the source, as those of the annotated video do, and the files are written anew.

    A method raises OutputError if a file cannot be written. None of them takes longer than the drawing of a
    frame, because the source waits.
    """

    @property
    def finished(self) -> BudgetShare:
        """The evidence that is complete, which may be deleted for the budget of the disk."""

    def add(self, result: Result) -> None:
        """Takes the result of the next frame; called for each frame of the source, also between events."""

    def begin(self, event: Event, result: Result) -> None:
        """Begins the evidence of an event that starts in the frame of `result`.

        The files go to `event.evidence`, a folder relative to the output folder that does not exist yet,
        except in a run that is resumed.
        """

    def end(self, event: Event) -> None:
        """Ends the evidence of an event; frames that are added later are its post-roll.

        The message is of the last frame in which the track was alive. If a run over a recording is
        interrupted, its open events get no end, because `--resume` continues them.
        """

    def close(self) -> None:
        """Completes all files at the end of the run, however it ends; called once."""


class EventListener(Protocol):
    """Carries the messages of events out of the program.

    One listener serves all sources of a run: `send` is called from the threads that write their outputs.
    """

    def send(self, event: Event) -> None:
        """Accepts a message, and returns at once: it is delivered later, by another thread.

        Called after the line of the message is in events.jsonl and its evidence has begun. If a run is
        resumed, the messages of the killed run come again only if it may have ended before they were
        accepted: a listener ignores a message whose `id` and `sequence` it has accepted before. Failures of
        the delivery raise nothing here; OutputError is raised if the message cannot be kept for it.
        """

    def close(self) -> None:
        """Ends the delivery at the end of the run, however it ends; called once, after the last `send`.

        Messages that are not delivered by then are kept for the next run.
        """
