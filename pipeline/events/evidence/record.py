"""The evidence of one event while it is kept, and what could not be written of it."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import cv2
import numpy as np

from pipeline.events.evidence.clips import Clip, ClipReport, clip_metadata
from pipeline.events.evidence.folder import (
    CLIP,
    FRAGMENTS,
    PATH_PICTURE,
    SNAPSHOT,
    make_folder,
    place_of,
    write_account,
)
from pipeline.events.evidence.paths import Sight
from pipeline.events.evidence.pictures import draw_path, draw_snapshot, write_picture
from pipeline.structures.events import Event
from pipeline.system.errors import MoteError
from pipeline.system.terminal import printable

log = logging.getLogger(__name__)

MIN_FREE_BYTES = 64_000_000
"""Room on the disk that evidence leaves to the other outputs of the run."""
_FAULTS = (MoteError, OSError, ValueError, av.error.FFmpegError, cv2.error)


class Record:
    """The evidence of one event.

    Args:
        event: its first message.
        output: returns the present path of the output folder.
        sight: the track in the frame of the message.
        clip: the clip, not begun.
        stop: presentation time up to which the clip goes, if the event does not end before.
    """

    def __init__(
        self, event: Event, output: Callable[[], Path], sight: Sight, clip: Clip | None, stop: float
    ):
        self.event, self.clip, self.stop = event, clip, stop
        self._output = output
        self.first = self.best = self.last = sight
        self.path = np.zeros((0, 2))
        """(N, 2) x and y of the track in the pixels of the last sight; set before the files are completed."""
        self.final: Event | None = None
        """The last message; None while the event goes on."""
        self.deadline = math.inf
        """Time of `time.monotonic` until which a live source is waited for."""
        self.missing: dict[str, str] = {}
        """Name of a file → why it is missing."""
        self._report: ClipReport | None = None
        self._has_folder = False

    @property
    def folder(self) -> Path:
        """Present path of its folder. Raises OutputError if the message names another place."""
        return place_of(self._output(), self.event.evidence or "")

    def see(self, sight: Sight) -> None:
        """Adds a later detection of the track."""
        self.last = sight
        if sight.score > self.best.score:
            self.best = sight

    def require_room(self) -> None:
        """Raises ValueError if the disk is nearly full, or if the folder could not be made."""
        self._require_folder()
        if shutil.disk_usage(self.folder).free < MIN_FREE_BYTES:
            raise ValueError(f"less than {MIN_FREE_BYTES // 1_000_000} MB are free on the disk")

    def prepare(self) -> None:
        """Creates the folder, without files of an earlier run. Raises OSError."""
        make_folder(self.folder)
        self._has_folder = True

    def _require_folder(self) -> None:
        if not self._has_folder:
            raise ValueError("its folder could not be made")

    def advance_clip(self, until: float) -> None:
        """Writes what has come for the clip up to a presentation time; raises as `Clip` does."""
        if self.clip is not None:
            self.clip.advance(min(until, self.stop))

    def finish_clip(self) -> None:
        """Completes the clip, if there is one and it is open; raises as `Clip` does."""
        if self.clip is not None:
            self._report = self.clip.finish(self.folder, self.stop, clip_metadata(self.event.to_dict()))
            self.clip = None

    def drop_clip(self) -> None:
        """Gives the clip up."""
        if self.clip is not None:
            self.clip.discard()
            self.clip = None
            with suppress(OSError, MoteError):
                (self.folder / FRAGMENTS).unlink(missing_ok=True)

    def write_snapshot(self, sight: Sight, classes: Sequence[str]) -> None:
        """Writes the picture of one detection of the track. Raises OutputError."""
        track = sight.result.tracks[[sight.row]]
        write_picture(self.folder / SNAPSHOT, draw_snapshot(sight.result.frame, track, classes))

    def write_path(self) -> None:
        """Writes the picture of the path. Raises OutputError."""
        frame, track = self.last.result.frame, self.last.result.tracks[[self.last.row]]
        message = self.final or self.event
        text = f"{message.rule} {message.duration:.1f}s"
        write_picture(self.folder / PATH_PICTURE, draw_path(frame, track, self.path, text))

    def write_message(self) -> None:
        """Writes the last message and what there is about the other files. Raises OutputError."""
        assert self.final is not None
        self._require_folder()
        clip = self._report.to_dict() if self._report else None
        write_account(self.folder, self.final.to_dict(), clip=clip, missing=self.missing)


class Faults:
    """What could not be written of the events of one source: one warning, and a count.

    Args:
        source: name of the source, for messages.
    """

    def __init__(self, source: str):
        self._source = source
        self.events: set[str] = set()
        """Ids of the events whose evidence is incomplete."""

    @contextmanager
    def noted(self, record: Record, name: str) -> Iterator[None]:
        """Notes a failure in the block as the reason why a file is missing, and raises nothing."""
        try:
            yield
        except _FAULTS as error:
            record.missing[name] = getattr(error, "strerror", None) or str(error) or type(error).__name__
            if name == CLIP:
                record.drop_clip()
            if not self.events:
                place = f"{printable(self._source)}: event {record.event.id} has no {name}"
                log.warning("%s: %s; the run goes on", place, printable(record.missing[name]))
            self.events.add(record.event.id)

    def report(self) -> None:
        """Logs the number of events that are incomplete, if there is more than the one that was named."""
        if len(self.events) > 1:
            log.warning("%s: files of %d events are missing", printable(self._source), len(self.events))
