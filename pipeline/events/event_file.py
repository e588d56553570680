"""Writes and reads `events.jsonl`: the messages of events as JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pipeline.sinks.base import close_preserving_error
from pipeline.sinks.jsonl_codec import EMPTY, ValidPrefix, is_count, read_records, scan_lines
from pipeline.sinks.record_file import RecordFile
from pipeline.structures.events import Event
from pipeline.structures.results import Result
from pipeline.system.errors import UsageError
from pipeline.system.files import atomic_write, output_error

_KEYS = ("id", "sequence", "phase")
"""What has to be equal in two messages that are the same."""
MISSING = "missing"
"""Key of the last message of an event whose evidence a killed run left incomplete: reasons by file name."""


def to_line(message: Mapping[str, Any]) -> bytes:
    """Returns the line of a message."""
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode() + b"\n"


class EventFile:
    """Appends one line for each message to `events.jsonl`.

    A line is the JSON object of `pipeline.structures.events.Event.to_dict`.

    Args:
        path: file to write.
        kept: the lines that stay if a run is resumed. Their messages come first, and are not written again.
        checked: whether they have to be those of the lines.
        then: called with each result after its messages were written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        kept: ValidPrefix = EMPTY,
        checked: bool = True,
        then: Callable[[Result], None] | None = None,
    ):
        self.path, self._kept, self._checked, self._then = Path(path), kept, checked, then
        self._known = read_records(self.path, kept.line_count)

    def __enter__(self) -> Self:
        self._file = RecordFile(self.path, kept=self._kept.end)
        return self

    def write(self, result: Result) -> None:
        """Appends the messages of a frame. Raises OutputError if they cannot be written."""
        self.append(result.events)
        if self._then:
            self._then(result)

    def append(self, events: Iterable[Event]) -> None:
        """Appends messages.

        Raises OutputError if they cannot be written, UsageError if they are not those of a resumed run.
        """
        for event in events:
            known = next(self._known, None)
            if known is None:
                self._file.append(to_line(event.to_dict()))
            elif self._checked and any(known[key] != getattr(event, key) for key in _KEYS):
                raise UsageError(
                    f"{self.path.parent} cannot be resumed: {self.path.name} has other events in frame "
                    f"{event.frame} than before; use --overwrite to start again"
                )

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self._file.size

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        close_preserving_error(self._file.close, error)


def scan_events(path: Path) -> ValidPrefix:
    """Finds the complete lines of an events.jsonl; a missing file has none.

    Raises UsageError if the file cannot be read, is a link, or is damaged before its last line.
    """
    return scan_lines(path, _require_message, kind="a message of an event")


def note_missing(path: Path, notes: Mapping[int, Mapping[str, str]]) -> None:
    """Writes into messages which files of evidence are missing, and why.

    Args:
        path: an events.jsonl of complete lines.
        notes: reasons by the name of the file, by the number of the line from 0; empty for nothing missing.

    Raises OutputError.
    """
    lines = _read(path)
    changed = list(lines)
    for number, missing in notes.items():
        message = {key: value for key, value in json.loads(lines[number]).items() if key != MISSING}
        changed[number] = to_line({**message, **({MISSING: dict(missing)} if missing else {})})
    _replace(path, lines, changed)


def forget_missing(path: Path) -> None:
    """Removes what `note_missing` has written, since a resumed run makes the evidence. Raises OutputError."""
    if path.is_symlink() or not path.exists():
        return
    lines, changed = _read(path), []
    for line in lines:
        if f'"{MISSING}"'.encode() in line and line.endswith(b"\n"):
            try:
                message = json.loads(line)
                line = to_line({key: value for key, value in message.items() if key != MISSING})
            except (ValueError, AttributeError):
                pass  # the file is damaged, which is said later
        changed.append(line)
    _replace(path, lines, changed)


def _read(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise output_error(path, error) from error


def _replace(path: Path, lines: list[bytes], changed: list[bytes]) -> None:
    if changed != lines:
        with atomic_write(path) as partial:
            partial.write_bytes(b"".join(changed))


def _require_message(text: bytes) -> None:
    """Raises one of `DECODE_ERRORS` for a line that is no message."""
    if not text.endswith(b"\n"):
        raise ValueError("it is truncated")
    message = json.loads(text)
    if not (isinstance(message["id"], str) and is_count(message["sequence"]) and is_count(message["frame"])):
        raise ValueError("its id, sequence and frame have no valid values")
    if message["phase"] not in ("start", "update", "end"):
        raise ValueError("its phase is not start, update or end")
    for key in ("rule", "source"):
        if not isinstance(message[key], str):
            raise ValueError(f"its {key} is no text")
