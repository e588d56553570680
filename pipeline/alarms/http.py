"""HTTP POST with one limit for the whole request."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from email.message import Message as Headers
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.system.errors import UsageError

MAX_REPLY = 1 << 16
"""Bytes of the body of a response that are read."""


class Reply(NamedTuple):
    """The response of a server."""

    status: int
    headers: Headers


class PostError(Exception):
    """No response; the text says why and may hold the address."""


class Poster:
    """Sends POST requests; redirections are not followed.

    Args:
        timeout: seconds for a whole request, from the connection to the end of the response.
        ca: file with the certificates that servers may have; empty for those of the system.

    Raises UsageError if the file cannot be read or has no certificates.
    """

    def __init__(self, *, timeout: float, ca: str = ""):
        self._timeout = timeout
        context = ssl_context(ca)
        self._handlers = [_NoRedirection(), _Http(), _Https(context)]
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            *self._handlers,
        ):
            self._opener.add_handler(handler)

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Returns the response to a request, whatever its status. Raises PostError if there is none."""
        request = urllib.request.Request(url, data=body, headers=dict(headers), method="POST")
        deadline = _Deadline(self._timeout)
        request.deadline = deadline  # type: ignore[attr-defined]  # read by the handlers
        try:
            with deadline, self._opener.open(request, timeout=self._timeout) as response:
                response.read(MAX_REPLY)
                return Reply(response.status, response.headers)
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.headers)
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = f"no answer within {self._timeout:g} s" if deadline.over else _why(error)
            raise PostError(why) from error


def connection_failure(error: object) -> str | None:
    """Returns why a connection was not made, in words; None for other errors."""
    if isinstance(error, socket.gaierror):
        return "its host is unknown, or the name server does not answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    return None


def ssl_context(ca: str) -> ssl.SSLContext:
    """Returns a context that checks certificates. Raises UsageError if `ca` has none."""
    try:
        return ssl.create_default_context(cafile=str(Path(ca).expanduser()) if ca else None)
    except (OSError, ssl.SSLError) as error:
        reason = "it holds no certificates" if isinstance(error, ssl.SSLError) else error.strerror
        raise UsageError(f"ca = '{ca}' cannot be used: {reason}") from error


def _why(error: Exception) -> str:
    """Returns why a request failed, in words."""
    reason: Any = error.reason if isinstance(error, urllib.error.URLError) else error
    if failure := connection_failure(reason):
        return failure
    if isinstance(reason, http.client.RemoteDisconnected):
        return "it ends the connection without an answer"
    text = getattr(reason, "strerror", None) or str(reason)
    return text or type(reason).__name__


class _Deadline:
    """Ends the connection of a request when its time is up: timeouts of sockets hold for each packet."""

    def __init__(self, seconds: float):
        self.over = False
        self.connection: http.client.HTTPConnection | None = None
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def _end(self) -> None:
        self.over = True
        place = self.connection.sock if self.connection is not None else None
        if place is not None:
            with suppress(OSError):
                socket.socket.shutdown(place, socket.SHUT_RDWR)

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_) -> None:
        self._timer.cancel()


def _watched(kind: type[http.client.HTTPConnection], deadline: _Deadline, *given: Any, **options: Any) -> Any:
    """Returns a connection of `kind` that the deadline ends."""

    class Watched(kind):  # type: ignore[misc, valid-type]
        def connect(self) -> None:
            super().connect()
            if deadline.over:
                raise TimeoutError

    deadline.connection = Watched(*given, **options)
    return deadline.connection


class _Http(urllib.request.HTTPHandler):
    def http_open(self, request: Any) -> Any:
        return self.do_open(partial(_watched, http.client.HTTPConnection, request.deadline), request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, context: ssl.SSLContext):
        super().__init__(context=context)
        self._checked = context

    def https_open(self, request: Any) -> Any:
        make = partial(_watched, http.client.HTTPSConnection, request.deadline)
        return self.do_open(make, request, context=self._checked)


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """Reports redirections as they are: a signed message is for the server that is configured."""

    def redirect_request(self, *_) -> None:
        return None
