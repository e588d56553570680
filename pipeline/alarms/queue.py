"""Queue of messages on the disk, which survives the end of the process, however it ends.

A message is in the file once `add` has returned. Delivered ones are remembered by their keys, without their
contents, so that a message that comes again, from a run that is resumed, is not sent again. The file is a
database of SQLite in the write-ahead mode: what was written outlives the process at any moment; after a
failure of the power the changes of the last minute may be missing. One process at a time uses it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from pipeline.alarms.message import Message
from pipeline.structures.events import Event
from pipeline.system.errors import MoteError, OutputError
from pipeline.system.files import output_error, require_regular

WAITING, DELIVERED, DISCARDED = 0, 1, 2
MAX_REMEMBERED = 100_000
"""Maximum number of messages that are remembered after their delivery."""
SYNC_SECONDS = 60.0
"""Longest time for which changes are not yet safe from a failure of the power."""
_TABLES = """
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    receiver TEXT NOT NULL,
    event TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    added REAL NOT NULL,
    state INTEGER NOT NULL,
    body TEXT,
    UNIQUE (receiver, event, sequence)
);
CREATE INDEX IF NOT EXISTS waiting ON messages (receiver, number) WHERE state = 0;
"""
_VERSION = 1


class Discarded(NamedTuple):
    """Numbers of messages that were discarded since the limits were last applied."""

    too_many: int
    too_old: int


class AlarmQueue:
    """The queue in one file. Thread-safe.

    Args:
        path: the file; it is created if it is missing.
        max_waiting: maximum number of waiting messages of each receiver.
        max_age: seconds after which a waiting message is discarded.
        clock: returns the seconds since 1970.

    Raises:
        OutputError: the file cannot be opened, is no queue, or is used by another process.
    """

    def __init__(
        self, path: Path, *, max_waiting: int, max_age: float, clock: Callable[[], float] = time.time
    ):
        self.path, self._max_waiting, self._max_age, self._clock = path, max_waiting, max_age, clock
        self._lock = threading.Lock()
        self._synced, self._closed = time.monotonic(), False
        self._connection = self._open()
        self._first = self._one("SELECT COALESCE(MAX(number), 0) + 1 FROM messages")

    def add(self, event: Event, evidence: str, receivers: Iterable[str]) -> int:
        """Adds a message for each of the receivers that did not get it before; returns their number.

        Takes a fraction of a millisecond, since nothing waits for the disk. Raises OutputError if the message
        cannot be kept.
        """
        body = json.dumps({"event": event.to_dict(), "evidence": evidence})
        event_id = event.id.encode("utf-8", "backslashreplace").decode()  # may have parts of a file name
        rows = [(name, event_id, event.sequence, self._clock(), WAITING, body) for name in receivers]
        insert = (
            "INSERT OR IGNORE INTO messages (receiver, event, sequence, added, state, body) "
            "VALUES (?, ?, ?, ?, ?, ?)"
        )
        with self._transaction():
            return self._connection.executemany(insert, rows).rowcount

    def next(self, receiver: str) -> Message | None:
        """Returns the message of a receiver that has waited longest; None if there is none."""
        query = "SELECT number, body FROM messages WHERE receiver = ? AND state = 0 ORDER BY number LIMIT 1"
        with self._reading():
            row = self._connection.execute(query, (receiver,)).fetchone()
        if row is None:
            return None
        number, table = row[0], json.loads(row[1])
        return Message(number, table["event"], table["evidence"], current=number >= self._first)

    def finish(self, message: Message, *, delivered: bool) -> None:
        """Removes a message from those that wait, and remembers that it was delivered or discarded."""
        state = DELIVERED if delivered else DISCARDED
        with self._transaction():
            self._finish("number = ?", (message.number,), state)

    def apply_limits(self, receiver: str) -> Discarded:
        """Discards the messages of a receiver that are too old, and the oldest beyond the maximum number."""
        old = "receiver = ? AND state = 0 AND added < ?"
        surplus = (
            "receiver = ? AND state = 0 AND number <= "
            "(SELECT number FROM messages WHERE receiver = ? AND state = 0 "
            "ORDER BY number DESC LIMIT 1 OFFSET ?)"
        )
        with self._transaction():
            too_old = self._finish(old, (receiver, self._clock() - self._max_age), DISCARDED)
            too_many = self._finish(surplus, (receiver, receiver, self._max_waiting), DISCARDED)
        return Discarded(too_many, too_old)

    def waiting(self) -> dict[str, int]:
        """Returns the number of waiting messages of each receiver that has any."""
        query = "SELECT receiver, COUNT(*) FROM messages WHERE state = 0 GROUP BY receiver"
        with self._reading():
            return dict(self._connection.execute(query).fetchall())

    def tidy(self) -> None:
        """Forgets messages that were finished long ago, and brings the file up to date on the disk.

        To be called now and then by a thread that may wait for the disk; does nothing if it was done less
        than `SYNC_SECONDS` ago.
        """
        if time.monotonic() - self._synced < SYNC_SECONDS:
            return
        self._synced = time.monotonic()
        with self._reading():
            self._forget()
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Closes the file; waiting messages stay in it. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        with self._reading():
            self._forget()
            self._connection.close()

    def _open(self) -> sqlite3.Connection:
        try:
            if self.path.exists() or self.path.is_symlink():
                require_regular(self.path)
            connection = sqlite3.connect(
                self.path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=32
            )
        except (OSError, sqlite3.Error) as error:
            raise output_error(self.path, error) from error
        try:
            # before anything is read: then the lock is held until the connection is closed
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("BEGIN IMMEDIATE")
            self._require_version(connection)
            connection.executescript(_TABLES)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        except (sqlite3.Error, MoteError) as error:
            connection.close()
            raise error if isinstance(error, MoteError) else self._error(error) from error
        return connection

    def _require_version(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        count = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        if version != _VERSION and count:
            raise OutputError(f"{self.path} is no queue of this version; choose another alarms.queue")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Holds the lock in the block, and turns errors of SQLite into those of the program."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise self._error(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Makes the changes of the block at once; an error undoes them."""
        with self._reading():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def _finish(self, condition: str, values: tuple, state: int) -> int:
        """Sets the state of messages and removes their contents; returns their number."""
        update = f"UPDATE messages SET state = {state}, body = NULL WHERE {condition}"
        return self._connection.execute(update, values).rowcount

    def _forget(self) -> None:
        """Deletes the memory of messages that were finished long ago. To be called with the lock."""
        before = self._clock() - 2 * self._max_age  # those of max_age may still come again
        delete = (
            "DELETE FROM messages WHERE state != 0 AND (added < ? OR number <= "
            "(SELECT COALESCE(MAX(number), 0) FROM messages) - ?)"
        )
        self._connection.execute(delete, (before, MAX_REMEMBERED))

    def _one(self, query: str) -> int:
        with self._reading():
            return int(self._connection.execute(query).fetchone()[0])

    def _error(self, error: sqlite3.Error) -> OutputError:
        reason = str(error)
        if "locked" in reason:
            return OutputError(
                f"cannot use {self.path}: another run delivers its alarms; give this one another alarms.queue"
            )
        if "not a database" in reason or "malformed" in reason:
            return OutputError(f"{self.path} is damaged or no queue of alarms; move it away")
        return output_error(self.path, error)


def remove_if_done(path: Path) -> None:
    """Removes the queue of an earlier run if none of its messages waits; else it stays as it is.

    It stays, too, if it cannot be read, since nobody knows what waits in it.
    """
    if not path.exists():
        return
    with suppress(MoteError, OSError):
        queue = AlarmQueue(path, max_waiting=1, max_age=float("inf"))
        waiting = queue.waiting()
        queue.close()
        if not waiting:
            path.unlink()
