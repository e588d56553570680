"""The disk space of evidence, which shares the budget of the rotated files."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from pipeline.events.evidence.folder import size_of
from pipeline.sinks.folders import remove_evidence


class _Finished(NamedTuple):
    folder: Path
    size: int
    ended: float


class FinishedFolders:
    """The folders of events, of which the complete ones may be deleted. Thread-safe.

    Args:
        clock: monotonic clock in seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._finished: deque[_Finished] = deque()
        self._open_size = 0
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes of all folders; those of open events as of about a second ago."""
        with self._lock:
            return self._open_size + sum(row.size for row in self._finished)

    @property
    def oldest(self) -> float | None:
        """Time by the clock at which the oldest folder was complete; None if there is none."""
        with self._lock:
            return self._finished[0].ended if self._finished else None

    def set_open(self, folders: Iterable[Path]) -> None:
        """Measures the folders of the events that are open."""
        size = sum(map(size_of, folders))
        with self._lock:
            self._open_size = size

    def add(self, folder: Path) -> None:
        """Adds a folder that is complete."""
        row = _Finished(folder, size_of(folder), self._clock())
        with self._lock:
            self._finished.append(row)

    def delete_oldest(self) -> int:
        """Deletes the oldest folder that is complete; returns its bytes. Raises OutputError if that fails."""
        with self._lock:
            row = self._finished.popleft()
        if row.folder.exists():  # else somebody has removed it
            remove_evidence(row.folder)
        return row.size
