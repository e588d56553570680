"""Removes credentials from addresses of sources before they are shown or written."""

from __future__ import annotations

import re

_USER = re.compile(r"(?<=://)(?:[^\s/@]*:\S*@|[^\s/@]*@)")
# Cameras take secrets in queries and in paths: rtsp://camera/user=a_password=b_channel=1
_SECRET = re.compile(
    r"([?&;,/_][^=&;,/\s]*(?:pas|pwd|token|secret|key|auth|sig|credential)[^=&;,/\s]*=)[^&\s'\";]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Returns the text without `user:password@` in addresses, and with *** for secrets in queries and paths.

    If a password contains characters that should have been escaped, too much is removed, not too little.
    """
    return _SECRET.sub(r"\1***", _USER.sub("", text))


def stream_name(location: str) -> str | None:
    """Returns a name for the outputs of a source that is no file: of an address, its host and path.

    None if `location` is neither an address, nor `-`, nor the number of a camera.
    """
    if location == "-":
        return "stdin"
    if location.isdecimal():
        return f"camera-{location}"
    scheme, separator, rest = redact(location).partition("://")
    if not separator:
        return None
    return re.sub(r"[^\w.-]+", "-", rest.partition("?")[0]).strip("-.") or scheme
