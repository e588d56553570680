"""Clips of events: copied from the packets of a file or a stream, or encoded from frames."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import av
import cv2
import numpy as np

from pipeline.drawing.tone_mapping import ToneMapper
from pipeline.events.evidence.folder import CLIP, FRAGMENTS
from pipeline.events.evidence.frame_ring import FrameCursor
from pipeline.events.evidence.remuxing import PacketWriter, Written, copy_range, finish
from pipeline.sinks.video import VideoSink
from pipeline.sources.packets.coded import CodedFile
from pipeline.sources.packets.ring import PacketCursor
from pipeline.structures.detections import Detections
from pipeline.structures.frame import SourceInfo
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks
from pipeline.system.files import atomic_write


class ClipReport(NamedTuple):
    """What is said about a clip in event.json."""

    begin: float
    """Presentation time of its first frame in seconds."""
    end: float
    """Presentation time of its last frame."""
    frames: int
    copied: bool
    """True if the packets of the source were copied, False if frames were encoded."""
    lost: int
    """Number of packets or frames that are missing in it."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as a JSON object."""
        return {**self._asdict(), "begin": round(self.begin, 6), "end": round(self.end, 6)}


class Clip(Protocol):
    """A clip that is recorded; all calls come from one thread.

    Methods raise OutputError, OSError, ValueError or av.error.FFmpegError if the clip cannot be written.
    """

    def advance(self, until: float) -> None:
        """Writes what has come from the source, up to a presentation time."""

    def finish(self, folder: Path, end: float, metadata: Mapping[str, str]) -> ClipReport:
        """Completes clip.mp4 in a folder, up to a presentation time."""

    def discard(self) -> None:
        """Closes everything, after an error; further calls do nothing."""


class FileClip:
    """A part of a video file, copied when the event has ended.

    Args:
        coded: the file.
        begin: presentation time from which the clip is wanted, in seconds.
        longest: maximum number of seconds by which it may begin earlier, at a key frame.
    """

    def __init__(self, coded: CodedFile, begin: float, *, longest: float):
        self._coded, self._begin, self._longest = coded, begin, longest

    def advance(self, until: float) -> None:
        """Does nothing: the file stays."""

    def finish(self, folder: Path, end: float, metadata: Mapping[str, str]) -> ClipReport:
        """Completes the clip, see `Clip`."""
        with atomic_write(folder / CLIP) as partial:
            span = self._begin, end
            written = copy_range(self._coded, partial, span, metadata, longest=self._longest)
        return _report(written, copied=True)

    def discard(self) -> None:
        """Does nothing: no file is open."""


class PacketClip:
    """Packets of a stream, copied from a ring while they arrive.

    Args:
        folder: folder of the event.
        cursor: place in the ring.
    """

    def __init__(self, folder: Path, cursor: PacketCursor):
        self._folder, self._cursor = folder, cursor
        self._writer: PacketWriter | None = None

    def advance(self, until: float) -> None:
        """Writes the packets that have come, see `Clip`."""
        if self._writer is None:
            self._writer = self._begin()
        self._writer.write(self._cursor.take(until))

    def _begin(self) -> PacketWriter:
        template, time_base = self._cursor.sequence
        with av.open(BytesIO(template)) as container:
            stream, path = container.streams.video[0], self._folder / FRAGMENTS
            return PacketWriter(path, stream, time_base, shift=self._cursor.shift)

    def finish(self, folder: Path, end: float, metadata: Mapping[str, str]) -> ClipReport:
        """Completes the clip, see `Clip`."""
        self.advance(end)
        assert self._writer is not None
        writer, self._writer = self._writer, None
        written = writer.close()
        complete(folder, metadata)
        return _report(written, copied=True, lost=self._cursor.lost)

    def discard(self) -> None:
        """Closes the file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(Exception):
                writer.close()


class FrameClip:
    """Frames from a ring, encoded while they come as the annotated video is, but without annotations.

    Args:
        folder: folder of the event.
        cursor: place in the ring.
        info: describes the source.
        quality: constant rate factor of x264.
    """

    def __init__(self, folder: Path, cursor: FrameCursor, info: SourceInfo, *, quality: float):
        self._folder, self._cursor, self._info, self._quality = folder, cursor, info, quality
        self._tone = ToneMapper()
        self._video: VideoSink | None = None
        self._lost = 0  # frames of another size
        self._times: list[float] = []
        self._frames = 0

    def advance(self, until: float) -> None:
        """Encodes the frames that have come, see `Clip`."""
        while (frame := self._cursor.take(until)) is not None:
            if self._video is None:
                info = replace(self._info, width=frame.width, height=frame.height)
                path = self._folder / FRAGMENTS
                self._video = VideoSink(path, info, self._show, quality=self._quality).__enter__()
                self._size = frame.image.shape[:2]
            if frame.image.shape[:2] != self._size:
                self._lost += 1
                continue
            self._video.write(Result(frame, Detections.empty(), False, tracks=Tracks.empty()))
            self._times = [*self._times[:1], float(frame.pts)]
            self._frames += 1

    def finish(self, folder: Path, end: float, metadata: Mapping[str, str]) -> ClipReport:
        """Completes the clip, see `Clip`."""
        self.advance(end)
        self._cursor.close()
        video, self._video = self._video, None
        if video is None:
            raise ValueError("the frames were no longer in memory")
        video.__exit__(None, None, None)
        complete(folder, metadata)
        written = Written(self._frames, self._times[0], self._times[-1])
        return _report(written, copied=False, lost=self._cursor.lost + self._lost)

    def discard(self) -> None:
        """Closes the file and releases the frames."""
        self._cursor.close()
        video, self._video = self._video, None
        if video is not None:
            with suppress(Exception):
                video.__exit__(None, None, None)

    def _show(self, result: Result) -> np.ndarray:
        image = self._tone(result.frame)
        return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)


def clip_metadata(message: Mapping[str, Any]) -> dict[str, str]:
    """Returns what a clip says of itself: title and comment, from the first message of its event."""
    when = message["time"] or f"{message['pts']:.3f} s"
    what = f"track {message['track']} ({message['label']}), source {message['source']}, {when}"
    title = f"event {message['id']}"
    return {"title": title, "comment": f"{title}: rule {message['rule']}, {what}"}


def complete(folder: Path, metadata: Mapping[str, str]) -> None:
    """Turns the fragments of a recorded clip into clip.mp4. Raises as `finish` does."""
    with atomic_write(folder / CLIP) as partial:
        finish(folder / FRAGMENTS, partial, metadata)
    (folder / FRAGMENTS).unlink(missing_ok=True)


def _report(written: Written, *, copied: bool, lost: int = 0) -> ClipReport:
    if not written.frames:
        raise ValueError("no frame of the source is left for it")
    return ClipReport(written.begin, written.end, written.frames, copied, lost)
