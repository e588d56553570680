"""Secrets of receivers: read from the environment or from files, and kept out of messages."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from pipeline.config.alarms_section import is_reference
from pipeline.system.bounded_reads import MAX_SETTINGS_BYTES, read_bounded
from pipeline.system.errors import UsageError
from pipeline.system.redaction import HIDDEN, redact

MIN_LENGTH = 4
"""Minimum number of characters of a part of a secret that is hidden; shorter ones are parts of many words."""


class Secrets:
    """Reads the secrets of one receiver and remembers them, so that no message shows them.

    Args:
        receiver: name of the receiver, for error messages.
    """

    def __init__(self, receiver: str):
        self._receiver = receiver
        self._known: set[str] = set()

    def read(self, key: str, value: str) -> str:
        """Returns the secret to which the value of a key refers; other values are returned as they are.

        Raises UsageError if the variable is not set, or the file cannot be read or is empty.
        """
        if not is_reference(value):
            return value
        kind, _, place = value.partition(":")
        secret = os.environ.get(place) if kind == "env" else self._from_file(key, Path(place).expanduser())
        if not secret:
            what = f"the environment variable {place} is not set" if kind == "env" else f"{place} is empty"
            raise UsageError(f"alarm receiver '{self._receiver}': {key} = {value}, but {what}")
        self.remember(secret)
        return secret

    def remember(self, secret: str) -> None:
        """Hides a secret from now on, and each of its parts, such as the password in an address."""
        parts = {secret, *re.split(r"[/:@?&=;,\s]+", secret)}
        parts |= {unquote(part) for part in parts}
        self._known |= {part for part in parts if len(part) >= MIN_LENGTH and not _is_common(part)}

    def hide(self, text: str) -> str:
        """Returns a message on one line, without secrets."""
        for secret in sorted(self._known, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return " ".join(redact(text).split())

    def _from_file(self, key: str, path: Path) -> str:
        try:
            return read_bounded(path, limit=MAX_SETTINGS_BYTES).decode("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            where = f"alarm receiver '{self._receiver}': {key} = file:{path}"
            raise UsageError(f"{where}, which cannot be read: {reason}") from error


def _is_common(part: str) -> bool:
    """Returns whether a part of an address is a word that is in many of them."""
    return part.lower() in ("http", "https", "mailto", "mailtos", "localhost", "json", "smtp", "true")
