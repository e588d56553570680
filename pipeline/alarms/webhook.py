"""Receiver of alarms over HTTP: one POST for each message, signed if there is a key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit, urlunsplit

from pipeline import __version__
from pipeline.alarms.http import Poster, PostError, Reply
from pipeline.alarms.message import Message
from pipeline.alarms.receiver import NotReached, Refused
from pipeline.alarms.secrets import Secrets
from pipeline.config.alarms_section import WebhookConfig, require_web_address
from pipeline.system.errors import UsageError

LATER = (408, 425, 429)
"""Status codes of 400 to 499 that ask to try again."""
MAX_RETRY_AFTER = 3600.0
"""Longest wait in seconds that a server may ask for."""
JSON = "application/json"
JPEG = "image/jpeg"


class Webhook:
    """A web server that gets a POST request for each message.

    Args:
        name: name of the receiver.
        config: its configuration.
        clock: returns the seconds since 1970.

    Raises UsageError for secrets that cannot be read, and addresses and files that are none.
    """

    def __init__(self, name: str, config: WebhookConfig, *, clock: Callable[[], float] = time.time):
        self.name, self.rules, self.phases, self.timeout = name, config.rules, config.phases, config.timeout
        self._attach, self._clock = config.attach, clock
        self._secrets = Secrets(name)
        address = self._secrets.read("url", config.url)
        try:
            require_web_address(address)
            parts = urlsplit(address)
            self._secrets.remember(f"{parts.path}?{parts.query}")
            self._poster = Poster(timeout=config.timeout, ca=config.ca)
        except (ValueError, UsageError) as error:
            raise UsageError(f"alarm receiver '{name}': {error}") from error
        self._url, login = _without_login(address)
        self._key = self._secrets.read("secret", config.secret).encode()
        self._headers = {"User-Agent": f"mote/{__version__}"}
        if login:
            self._headers["Authorization"] = login
        for key, value in config.headers.items():
            self._headers[key] = self._header(key, value)

    def start(self, wake: Callable[[], None]) -> None:
        """Does nothing: each message has a connection of its own."""

    def announce(self, source: str, rules: Sequence[str]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""

    def deliver(self, message: Message) -> None:
        """Sends a message. Raises NotReached or Refused."""
        kind, body = self._body(message)
        headers = {**self._headers, "Content-Type": kind, "Idempotency-Key": message.key}
        if self._key:
            headers |= signature(self._key, body, int(self._clock()))
        try:
            reply = self._poster.post(self._url, body, headers)
        except PostError as error:
            raise NotReached(self._secrets.hide(str(error))) from error
        self._check(reply)

    def _check(self, reply: Reply) -> None:
        """Raises NotReached or Refused unless the message was taken."""
        status = reply.status
        if 200 <= status < 300:
            return
        if status in LATER or status >= 500:
            raise NotReached(f"status {status}", retry_after(reply.headers.get("Retry-After"), self._clock()))
        if 300 <= status < 400:
            raise Refused(f"status {status}: it redirects to another address; configure that one")
        raise Refused(f"status {status}")

    def _body(self, message: Message) -> tuple[str, bytes]:
        """Returns the type and the bytes of the body."""
        picture = None if self._attach == "none" else message.snapshot()
        if picture is None:
            return JSON, message.json()
        if self._attach == "base64":
            snapshot = {"type": JPEG, "data": base64.b64encode(picture).decode()}
            return JSON, json.dumps({**message.table(), "snapshot": snapshot}, separators=(",", ":")).encode()
        return _multipart(message.json(), picture)

    def _header(self, key: str, value: str) -> str:
        secret = self._secrets.read(f"headers.{key}", value)
        self._secrets.remember(secret)
        if not (secret.isascii() and secret.isprintable()):
            raise UsageError(
                f"alarm receiver '{self.name}': the value of headers.{key} is no text on one line in ASCII"
            )
        return secret


def signature(key: bytes, body: bytes, timestamp: int) -> dict[str, str]:
    """Returns the headers that prove that a body comes from somebody who has the key.

    Mote-Signature is `v1=` and the hexadecimal HMAC-SHA256 of the timestamp, a dot and the body;
    Mote-Timestamp is the time of the attempt in seconds since 1970.
    """
    digest = hmac.new(key, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Mote-Timestamp": str(timestamp), "Mote-Signature": f"v1={digest}"}


def retry_after(value: str | None, now: float) -> float | None:
    """Returns the seconds of a header Retry-After: a number of them or a date; None if it has neither."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return None
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (date - datetime.fromtimestamp(now, UTC)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _multipart(facts: bytes, picture: bytes) -> tuple[str, bytes]:
    """Returns the type and the bytes of a form with the parts `event` and `snapshot`."""
    boundary = hashlib.sha256(facts + picture).hexdigest()  # in neither of them
    rows = [(f'name="event"\r\nContent-Type: {JSON}', facts)]
    rows.append((f'name="snapshot"; filename="snapshot.jpg"\r\nContent-Type: {JPEG}', picture))
    parts = [
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"
        for head, data in rows
    ]
    parts.append(f"--{boundary}--\r\n".encode())
    return f"multipart/form-data; boundary={boundary}", b"".join(parts)


def _without_login(address: str) -> tuple[str, str]:
    """Returns an address without user and password, and the header Authorization for them."""
    parts = urlsplit(address)
    login, at, place = parts.netloc.rpartition("@")
    if not at:
        return address, ""
    coded = base64.b64encode(unquote(login).encode()).decode()
    return urlunsplit(parts._replace(netloc=place)), f"Basic {coded}"
