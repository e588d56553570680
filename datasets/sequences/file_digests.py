"""What files hold, known by SHA-256, without reading again those that have not changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from pipeline.system.errors import SourceError

YOUNG = 2_000_000_000
"""Nanoseconds. A file that was changed this short ago may change again within one tick of the file system's
clock, and then looks the same: it is not remembered."""


class Digests:
    """Digests of files, remembered by path, size and time of change in an index file that only grows.

    Each line of the index is a JSON list: path, size in bytes, time of change in nanoseconds, digest. Lines
    that make no sense are passed over, and an index that cannot be written is done without: either costs
    no more than reading the files again.
    """

    def __init__(self, index: Path):
        self._index = index
        self._known: dict[str, tuple[int, int, str]] | None = None

    def of(self, paths: Iterable[Path]) -> list[str]:
        """The SHA-256 of each file's bytes, in hexadecimal. Raises SourceError where one cannot be read."""
        if self._known is None:
            self._known = self._load()
        found, fresh = [], []
        for path in paths:
            place = os.path.abspath(path)
            try:
                digest, row = self._digest(place)
            except OSError as error:
                raise SourceError(f"{path} cannot be read: {error.strerror}") from error
            found.append(digest)
            if row is not None:
                self._known[place] = row
                fresh.append([place, *row])
        if fresh:
            self._append(fresh)
        return found

    def _digest(self, place: str) -> tuple[str, tuple[int, int, str] | None]:
        """The digest of a file, and what shall be remembered of it, if anything is new."""
        state = os.stat(place)
        size, changed, digest = self._known.get(place, (None, None, ""))
        if (size, changed) == (state.st_size, state.st_mtime_ns):
            return digest, None
        with open(place, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            after = os.fstat(file.fileno())
        settled = (after.st_size, after.st_mtime_ns) == (state.st_size, state.st_mtime_ns)
        if not settled or time.time_ns() - state.st_mtime_ns < YOUNG:
            return digest, None
        return digest, (state.st_size, state.st_mtime_ns, digest)

    def _load(self) -> dict[str, tuple[int, int, str]]:
        try:
            lines = self._index.read_bytes().splitlines()
        except OSError:
            return {}
        known = {}
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):
                place, size, changed, digest = json.loads(line)
                if len(bytes.fromhex(digest)) == 32:
                    known[place] = size, changed, digest
        return known

    def _append(self, rows: list[list]) -> None:
        # in one piece, so that rows of two processes do not mix; on a line of their own after a torn one
        text = "".join("\n" + json.dumps(row) for row in rows) + "\n"
        with contextlib.suppress(OSError), open(self._index, "ab", buffering=0) as file:
            file.write(text.encode())
