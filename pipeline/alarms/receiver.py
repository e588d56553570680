"""What receivers of alarms have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from pipeline.alarms.message import Message


class DeliveryError(Exception):
    """A message that was not delivered; its text says why, without secrets."""


class NotReached(DeliveryError):
    """The receiver could not take the message now: it is sent again later.

    Args:
        reason: why.
        after: seconds after which the receiver wants the next attempt; None if it does not say.
    """

    def __init__(self, reason: str, after: float | None = None):
        super().__init__(reason)
        self.after = after


class Refused(DeliveryError):
    """The receiver will not take this message, whenever it is sent."""


class Receiver(Protocol):
    """A place to which messages are delivered, by one thread at a time."""

    name: str
    """Name in the configuration."""
    rules: tuple[str, ...]
    """Names of the rules whose events are delivered; empty for all."""
    phases: tuple[str, ...]
    """Phases of the messages that are delivered."""
    timeout: float
    """Longest duration of `deliver` in seconds."""

    def start(self, wake: Callable[[], None]) -> None:
        """Prepares the delivery without waiting for anybody.

        `wake` may be called, from any thread, if the receiver has become reachable.
        """

    def announce(self, source: str, rules: Sequence[str]) -> None:
        """Takes a source of the run and the names of its rules, for receivers that show them beforehand."""

    def deliver(self, message: Message) -> None:
        """Delivers a message, and returns when the receiver has it.

        Raises NotReached or Refused; neither text has a secret.
        """

    def close(self) -> None:
        """Ends the connection, if there is one."""


def wants(receiver: Receiver, rule: str, phase: str) -> bool:
    """Returns whether a receiver gets the messages of a rule and a phase."""
    return phase in receiver.phases and (not receiver.rules or rule in receiver.rules)
