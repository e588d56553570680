"""TensorBoard event files of scalars.

The records and messages are those of tensorboardX; its `SummaryWriter` is not used. That one names the file
after the clock and the host, and passes one event for each scalar to a thread, which takes minutes when a
resumed run writes the scalars of all earlier steps again.
"""

from __future__ import annotations

import time as clock
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

FLUSH_SECONDS = 10.0
"""Minimum time between two flushes: tensorboardX waits for the disk in each, which a step should not do."""


class EventFile:
    """One open event file. All methods raise OSError if the file cannot be written."""

    def __init__(self, path: Path, *, time: float):
        """`time`, as everywhere in this class, is Unix time in seconds."""
        self._records = RecordWriter(str(path))
        self._flushed = clock.monotonic()
        self._write(Event(wall_time=time, file_version="brain.Event:2"))

    def add(self, step: int, scalars: Mapping[str, float], *, time: float) -> None:
        """Appends the scalars of a step, by their tags, as one event."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write(Event(wall_time=time, step=step, summary=Summary(value=values)))

    def flush(self) -> None:
        """Makes the events visible to readers, at most once in `FLUSH_SECONDS`."""
        if clock.monotonic() - self._flushed >= FLUSH_SECONDS:
            self._records.flush()
            self._flushed = clock.monotonic()

    def close(self) -> None:
        """Writes the remaining events and closes the file."""
        self._records.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
