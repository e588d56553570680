"""Keeps the evidence of the events of one source; its files are written by a thread of its own."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.config.schema import EventsConfig
from pipeline.events.evidence.clips import Clip, FileClip, FrameClip, PacketClip
from pipeline.events.evidence.finished import FinishedFolders
from pipeline.events.evidence.folder import CLIP, MESSAGE, PATH_PICTURE, SNAPSHOT, place_of
from pipeline.events.evidence.frame_ring import FrameRing
from pipeline.events.evidence.paths import Paths, on_frame
from pipeline.events.evidence.record import Faults, Record
from pipeline.sources.packets.coded import CodedFile
from pipeline.sources.packets.ring import PacketRing
from pipeline.sources.source import FrameSource
from pipeline.structures.events import Event
from pipeline.structures.results import Result
from pipeline.system.errors import OutputError
from pipeline.system.reserved import FollowedFolder

log = logging.getLogger(__name__)

MAX_CLIPS = 16
"""Maximum number of clips that are recorded at the same time; further events get pictures alone."""
SILENT_SECONDS = 5.0
"""Time after the post-roll for which a live source may send no frame before its clips are completed."""
_POLL_SECONDS = 1.0


class EvidenceKeeper:
    """Keeps clip, pictures and the last message of each event, see `pipeline.events.protocols.Evidence`.

    Clips are copied from the packets of the source if browsers play them, and encoded otherwise. What cannot
    be written is missing: event.json says why, and the first such fault is logged as a warning.

    Args:
        output: output folder of the run.
        config: the section `events` of the configuration.
        source: source of the frames.
        classes: names of the classes of the detector.
        quality: constant rate factor of clips that are encoded.
    """

    def __init__(
        self,
        output: Path,
        config: EventsConfig,
        source: FrameSource,
        classes: Sequence[str],
        *,
        quality: float,
    ):
        self._output, self._config, self._classes, self._quality = output, config, classes, quality
        self._source, self._info = source, source.info
        self._frames: FrameRing | None = None
        if source.coded is None:
            self._frames = FrameRing(
                seconds=config.pre_roll, max_bytes=config.clip_bytes, waits=not self._info.live
            )
        self._paths = Paths()
        self._open: dict[str, Record] = {}  # by id of the event; used by the caller's thread
        self._recorded: list[Record] = []  # whose files are not complete; used by the worker
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._advance_queued = threading.Event()
        self._worker: threading.Thread | None = None
        self._followed: FollowedFolder | None = None
        self._latest, self._measured = -math.inf, -math.inf
        self.faults = Faults(self._info.name)
        self._finished = FinishedFolders()

    @property
    def finished(self) -> FinishedFolders:
        """The folders that are complete, which may be deleted for the budget of the disk."""
        return self._finished

    @property
    def folder(self) -> Path:
        """Present path of the output folder, which may have been renamed."""
        return self._followed.path if self._followed else self._output

    def add(self, result: Result) -> None:
        """Takes the result of the next frame."""
        if self._worker is None:
            self._start()
        if self._frames is not None:
            self._frames.add(result.frame)
        self._latest = float(result.frame.pts)
        sights = self._paths.add(result, {record.event.track for record in self._open.values()})
        for record in self._open.values():
            if sight := sights.get(record.event.track):
                record.see(sight)
        if not self._advance_queued.is_set():
            self._advance_queued.set()
            self._tasks.put(self._advance)

    def begin(self, event: Event, result: Result) -> None:
        """Begins the evidence of an event that starts in the frame of `result`."""
        rows = [row for row, track in enumerate(result.tracks.ids.tolist()) if track == event.track]
        if event.evidence is None or not rows:
            return
        begin = event.pts - self._config.pre_roll
        place, sight = place_of(self.folder, event.evidence), self._paths.sight(result, rows[0])
        clip, stop = self._make_clip(result, place, begin), begin + self._config.max_clip
        record = self._open[event.id] = Record(event, lambda: self.folder, sight, clip, stop)
        self._tasks.put(lambda: self._begin(record))

    def _make_clip(self, result: Result, folder: Path, begin: float) -> Clip | None:
        """Returns a clip from a presentation time on; None if nothing is left of its packets."""
        coded = self._source.coded
        if isinstance(coded, CodedFile):
            return FileClip(coded, begin, longest=self._config.max_clip)
        if isinstance(coded, PacketRing):
            packets = coded.cursor(result.frame, self._config.pre_roll)
            return PacketClip(folder, packets) if packets else None
        assert self._frames is not None
        return FrameClip(folder, self._frames.cursor(begin), self._info, quality=self._quality)

    def end(self, event: Event) -> None:
        """Ends the evidence of an event; frames that are added later are its post-roll."""
        record = self._open.pop(event.id, None)
        if record is None:
            return
        self._set_path(record)
        # at once: the worker may be behind, and must not take frames that come later
        record.stop = min(record.stop, event.pts + self._config.post_roll)
        self._tasks.put(lambda: self._end(record, event))

    def close(self) -> None:
        """Completes all files."""
        if self._worker is None:
            return
        for record in self._open.values():  # of an interrupted run that can be resumed
            self._set_path(record)
        self._tasks.put(self._complete_all)
        self._tasks.put(None)
        self._worker.join()
        self.faults.report()
        if self._followed:
            self._followed.close()

    def _set_path(self, record: Record) -> None:
        record.path = on_frame(self._paths.points(record.event.track), record.last)

    def _start(self) -> None:
        with suppress(OutputError):  # the folder is gone: each event will say so
            self._followed = FollowedFolder(self._output)
        self._worker = threading.Thread(target=self._work, name=f"events {self._info.name}", daemon=True)
        self._worker.start()

    def _work(self) -> None:
        """Runs the tasks; a fault of the program ends one of them, and never the run."""
        while True:
            try:
                task = self._tasks.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                task = self._complete_silent
            if task is None:
                return
            try:
                task()
            except Exception:
                log.exception("evidence of %s", self._info.name)

    def _begin(self, record: Record) -> None:
        """Creates the folder, writes a first snapshot, and starts the clip."""
        self._recorded.append(record)
        with self.faults.noted(record, CLIP):
            record.prepare()
            record.require_room()
            if record.clip is None:
                raise ValueError("the packets of the source were no longer in memory")
            if sum(other.clip is not None for other in self._recorded) > MAX_CLIPS:
                raise ValueError(f"{MAX_CLIPS} other clips were recorded at the same time")
        with self.faults.noted(record, SNAPSHOT):
            record.require_room()
            record.write_snapshot(record.first, self._classes)
        self._advance()  # the source may wait for it, and add no frame before

    def _advance(self) -> None:
        self._advance_queued.clear()
        latest = self._latest
        for record in list(self._recorded):
            if record.clip is not None:
                with self.faults.noted(record, CLIP):
                    record.require_room()
                    record.advance_clip(latest + self._config.post_roll)
            if latest >= record.stop:
                self._finish_clip(record)
                if record.final is not None:
                    self._complete(record)
        if time.monotonic() - self._measured > _POLL_SECONDS:
            self._measured = time.monotonic()
            self._finished.set_open(record.folder for record in self._recorded)

    def _end(self, record: Record, event: Event) -> None:
        record.final = event
        record.deadline = time.monotonic() + self._config.post_roll + SILENT_SECONDS
        if record.clip is None or isinstance(record.clip, FileClip):
            self._complete(record)

    def _complete_silent(self) -> None:
        """Completes the records of ended events for whose post-roll no frames come."""
        for record in list(self._recorded):
            if self._info.live and time.monotonic() > record.deadline:
                self._complete(record)

    def _complete_all(self) -> None:
        for record in list(self._recorded):
            record.stop = min(record.stop, self._latest + self._config.post_roll)
            self._complete(record)

    def _finish_clip(self, record: Record) -> None:
        with self.faults.noted(record, CLIP):
            record.finish_clip()

    def _complete(self, record: Record) -> None:
        """Completes the files of an event; those of an interrupted one without its last message."""
        self._finish_clip(record)
        self._recorded.remove(record)
        with self.faults.noted(record, SNAPSHOT):
            record.require_room()
            record.write_snapshot(record.best, self._classes)
        with self.faults.noted(record, PATH_PICTURE):
            record.require_room()
            record.write_path()
        if record.final is not None:
            with self.faults.noted(record, MESSAGE):
                record.write_message()
        self._finished.add(record.folder)
