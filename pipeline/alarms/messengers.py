"""Receivers of alarms that the package apprise reaches: mail and messengers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.alarms.message import Message
from pipeline.alarms.receiver import NotReached
from pipeline.alarms.secrets import Secrets
from pipeline.config.alarms_section import AppriseConfig
from pipeline.system.errors import UsageError
from pipeline.system.packages import require_package

LIBRARY_LOG = "apprise"
"""Name of the logger of the package. Its lines hold addresses, so only reasons without them are shown."""


class Messenger:
    """One address of apprise.

    Args:
        name: name of the receiver.
        config: the configuration of all addresses.
        reference: where this address is: env:NAME or file:PATH.

    Raises UsageError if apprise is not installed, or if the address cannot be read or is none of apprise.
    """

    def __init__(self, name: str, config: AppriseConfig, reference: str):
        require_package("apprise", "alarms.apprise")
        import apprise

        _silence()
        self.name, self.rules, self.phases, self.timeout = name, config.rules, config.phases, config.timeout
        self._attach = config.attach
        self._secrets = Secrets(name)
        address = self._secrets.read("urls", reference)
        self._service = apprise.Apprise(
            asset=apprise.AppriseAsset(app_id="Mote", app_desc="Mote", app_url="")
        )
        if not self._service.add(_with_timeouts(address, config.timeout)) or len(self._service) != 1:
            raise UsageError(
                f"alarm receiver '{name}': {reference} holds no address that apprise knows, such as mailtos://…"
            )

    def start(self, wake: Callable[[], None]) -> None:
        """Does nothing: each message has a connection of its own."""

    def announce(self, source: str, rules: Sequence[str]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""

    def deliver(self, message: Message) -> None:
        """Sends a message. Raises NotReached, also if the service refuses it, since apprise does not tell."""
        picture = message.snapshot_file() if self._attach else None
        files: dict[str, Any] = {"attach": str(picture)} if picture else {}
        lines, log = _Lines(), logging.getLogger(LIBRARY_LOG)
        log.addHandler(lines)
        try:
            sent = self._service.notify(body=message.text(), title=message.title(), **files)
        finally:
            log.removeHandler(lines)
        if not sent:
            reason = self._secrets.hide(lines.last) if lines.last else "the service did not take the message"
            raise NotReached(reason)


class _Lines(logging.Handler):
    """Keeps the last warning of a logger from this thread: those of others are about other receivers."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a line."""
        if record.thread == self._thread:
            self.last = record.getMessage()


def _silence() -> None:
    """Keeps the lines of the package, which may hold secrets, from the terminal."""
    log = logging.getLogger(LIBRARY_LOG)
    log.propagate = False
    if not any(isinstance(handler, logging.NullHandler) for handler in log.handlers):
        log.addHandler(logging.NullHandler())


def _with_timeouts(address: str, timeout: float) -> str:
    """Returns an address with the limits for connecting and reading, unless it has its own."""
    if "cto=" in address or "rto=" in address:
        return address
    return f"{address}{'&' if '?' in address else '?'}cto={timeout:g}&rto={timeout:g}"
