"""A clock that tests set."""

from __future__ import annotations


class Clock:
    """Replaces the module `time`."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now
