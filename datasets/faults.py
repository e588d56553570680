"""What is found wrong with a dataset while it is read."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.errors import SourceError

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
