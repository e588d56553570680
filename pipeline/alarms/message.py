"""A message on its way to a receiver."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SNAPSHOT = "snapshot.jpg"
"""File of the best picture in the folder of the evidence of an event."""
PICTURE_SECONDS = 0.3
"""Longest time that a message of a new event waits for its first picture, which another thread draws."""
POLL_SECONDS = 0.02
MAX_SNAPSHOT_BYTES = 4 << 20
"""Largest picture that is sent along."""


@dataclass(frozen=True)
class Message:
    """A message for one receiver.

    `event` has the keys of `pipeline.structures.events.Event`; it may be of an earlier version of the
    program.
    """

    number: int
    """Position in the queue."""
    event: Mapping[str, Any]
    evidence: str
    """Absolute path of the folder with the evidence; empty if none is kept."""
    current: bool = True
    """Whether the run that delivers it made it; False if an earlier run left it behind."""
    test: bool = False
    """Whether it only tests the way to the receiver."""

    @property
    def key(self) -> str:
        """Identifies the message among all others; equal in each attempt to deliver it."""
        return f"{self.event['id']}:{self.event['sequence']}"

    @property
    def place(self) -> tuple[str, str]:
        """Names of the source and the rule."""
        return str(self.event["source"]), str(self.event["rule"])

    def table(self) -> dict[str, Any]:
        """Returns the JSON object that receivers get, as docs/alarms.md describes it."""
        return {"schema": "mote-event/1", "key": self.key, "test": self.test, **self.event}

    def json(self) -> bytes:
        """Returns this object as JSON in ASCII."""
        return json.dumps(self.table(), separators=(",", ":")).encode()

    def snapshot_file(self) -> Path | None:
        """Returns the JPEG file of the best picture of the event; None if there is none.

        Waits up to `PICTURE_SECONDS` for that of an event that has just started.
        """
        path = Path(self.evidence, SNAPSHOT)
        fresh = self.current and self.event["phase"] == "start"
        latest = time.monotonic() + (PICTURE_SECONDS if fresh else 0.0)
        while self.evidence:
            try:
                size = path.lstat().st_size
                return path if 0 < size <= MAX_SNAPSHOT_BYTES and not path.is_symlink() else None
            except OSError:  # not written yet, or deleted for the disk budget
                if time.monotonic() >= latest:
                    break
                time.sleep(POLL_SECONDS)
        return None

    def snapshot(self) -> bytes | None:
        """Returns the contents of this file; None if there is none."""
        path = self.snapshot_file()
        try:
            return path.read_bytes() if path else None
        except OSError:
            return None

    def title(self) -> str:
        """Returns the event in one line of text."""
        where = f" in {self.event['zone']}" if self.event.get("zone") else ""
        words = {"start": "is followed", "update": "is still followed", "end": "was followed"}
        state = words.get(str(self.event["phase"]), str(self.event["phase"]))
        test = "test: " if self.test else ""
        return f"{test}{self.event['rule']}: {self.event['label']} {state}{where}"

    def text(self) -> str:
        """Returns the event in a few lines of text."""
        event = self.event
        when = event.get("time") or f"{event['pts']:.1f} s of the recording"
        speed = sum(part * part for part in event["velocity"]) ** 0.5
        x1, y1, x2, y2 = event["box"]
        return "\n".join(
            (
                f"source {event['source']}, {when}",
                f"track {event['track']}, {event['duration']:.1f} s so far, score {event['score']:.2f}",
                f"at {(x1 + x2) / 2:.0f}, {(y1 + y2) / 2:.0f}, {speed:.0f} pixels per second",
                f"message {self.key}",
            )
        )
