"""Cache of the SHA-256 digests of files, so unchanged files are not read again."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from pipeline.system.errors import SourceError
from pipeline.system.files import file_sha256

MIN_AGE_NS = 2_000_000_000
"""Minimum time in nanoseconds since the last change of a file whose digest is cached. A file that was changed
later may change again within one tick of the file system's clock, and then cannot be told apart."""

_Entry = tuple[int, int, str]
"""Size in bytes, time of change in nanoseconds, digest."""


class DigestCache:
    """Digests of files by path, size and time of change, kept in an index file that only grows.

    Each line of the index is a JSON list: path, size in bytes, time of change in nanoseconds, digest. Invalid
    lines and an index that cannot be written are ignored, since they only cost reading the files again.
    """

    def __init__(self, index: Path):
        self._index = index
        self._entries: dict[str, _Entry] | None = None

    def sha256(self, paths: Iterable[Path]) -> list[str]:
        """Returns the hexadecimal SHA-256 of each file. Raises SourceError if one cannot be read."""
        if self._entries is None:
            self._entries = self._load()
        digests, fresh = [], []
        for path in paths:
            place = os.path.abspath(path)
            try:
                digest, entry = _digest(place, self._entries.get(place))
            except OSError as error:
                raise SourceError(f"{path} cannot be read: {error.strerror}") from error
            digests.append(digest)
            if entry is not None:
                self._entries[place] = entry
                fresh.append([place, *entry])
        if fresh:
            self._append(fresh)
        return digests

    def _load(self) -> dict[str, _Entry]:
        try:
            lines = self._index.read_bytes().splitlines()
        except OSError:
            return {}
        entries = {}
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):
                place, size, changed, digest = json.loads(line)
                if len(bytes.fromhex(digest)) == 32:
                    entries[place] = size, changed, digest
        return entries

    def _append(self, rows: list[list]) -> None:
        # in one write, so rows of two processes do not mix; on a new line, in case the last one is truncated
        text = "".join("\n" + json.dumps(row) for row in rows) + "\n"
        with contextlib.suppress(OSError), open(self._index, "ab", buffering=0) as file:
            file.write(text.encode())


def _digest(path: str, known: _Entry | None) -> tuple[str, _Entry | None]:
    """Returns the digest of a file, and the entry to cache; None if it is `known` or not yet old enough."""
    before = os.stat(path)
    if known is not None and known[:2] == (before.st_size, before.st_mtime_ns):
        return known[2], None
    digest = file_sha256(Path(path))
    after = os.stat(path)
    unchanged = (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    if not unchanged or time.time_ns() - before.st_mtime_ns < MIN_AGE_NS:
        return digest, None
    return digest, (before.st_size, before.st_mtime_ns, digest)
