"""Results of reading a dataset layout: the annotations, and findings about files that are wrong."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.structures.annotations import VideoRecord
from pipeline.system.errors import SourceError

CONVENTION = "signs that boxes are not left, top, width, height in pixels"
LISTED_TWICE = "frames listed twice"
UNREADABLE = "unreadable files"


class Finding(NamedTuple):
    """A defect of a dataset."""

    kind: str
    """A plural that can head a list."""
    where: str
    """The file, frame or line, and what is wrong with it."""


class FindingLog:
    """Collects the findings of one reader; in `strict` mode an unreadable file is an error instead."""

    def __init__(self, *, strict: bool):
        self.entries: list[Finding] = []
        self.strict = strict

    def add(self, kind: str, where: str) -> None:
        """Records a finding that does not prevent reading."""
        self.entries.append(Finding(kind, where))

    def unreadable(self, error: SourceError) -> None:
        """Raises `error` in strict mode, and records it otherwise."""
        if self.strict:
            raise error
        self.add(UNREADABLE, str(error))


class Annotations(NamedTuple):
    """The annotations of one split, as read by one of the readers."""

    records: list[VideoRecord]
    classes: tuple[str, ...]
    """Names of the labels 0, 1, …"""
    coco: dict | None = None
    """The COCO-video dictionary that the records were made from; None for other formats."""
    notes: tuple[str, ...] = ()
    """What was left out, one line each."""
