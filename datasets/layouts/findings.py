"""What is found wrong with a dataset while it is read."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.structures.annotations import VideoRecord
from pipeline.system.errors import SourceError

LISTED_TWICE = "frames listed twice"
UNREADABLE = "unreadable files"


class Fault(NamedTuple):
    """One finding."""

    kind: str
    """A plural that can head a list."""
    where: str
    """The file, frame or line, and what is the matter with it."""


class Faults:
    """Gathers what is wrong. Where it is `strict`, a file that cannot be read is an error at once."""

    def __init__(self, *, strict: bool):
        self.found: list[Fault] = []
        self.strict = strict

    def add(self, kind: str, where: str) -> None:
        """Note a fault that reading can go on with."""
        self.found.append(Fault(kind, where))

    def unreadable(self, error: SourceError) -> None:
        """Raise `error` if strict, else note it."""
        if self.strict:
            raise error
        self.add(UNREADABLE, str(error))


class Annotations(NamedTuple):
    """What a reader of one layout found."""

    records: list[VideoRecord]
    classes: tuple[str, ...]
    """Names of the labels 0, 1, …"""
    table: dict | None = None
    """The COCO-video dictionary that the records were made of, where there is one."""
    remarks: tuple[str, ...] = ()
    """What was left out, one line each."""
