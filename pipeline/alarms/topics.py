"""Names of the topics of MQTT."""

from __future__ import annotations

import re


def part(name: str) -> str:
    """Returns a name as one level of a topic, of letters, digits, - and _."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "unnamed"


class Topics:
    """Topics below a prefix; sources and rules are levels of them."""

    def __init__(self, prefix: str):
        self.prefix = prefix
        self.availability = f"{prefix}/availability"

    def events(self, source: str, rule: str) -> str:
        """Returns the topic of messages."""
        return f"{self.prefix}/{part(source)}/{part(rule)}/events"

    def state(self, source: str, rule: str) -> str:
        """Returns the topic of the state."""
        return f"{self.prefix}/{part(source)}/{part(rule)}/state"

    def last(self, source: str, rule: str) -> str:
        """Returns the topic of the last message."""
        return f"{self.prefix}/{part(source)}/{part(rule)}/last"

    def snapshot(self, source: str, rule: str) -> str:
        """Returns the topic of pictures."""
        return f"{self.prefix}/{part(source)}/{part(rule)}/snapshot"
