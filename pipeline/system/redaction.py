"""Addresses of sources as they may be shown: without what gives access to them."""

from __future__ import annotations

import re

_USER = re.compile(r"(?<=://)(?:[^\s/@]*:\S*@|[^\s/@]*@)")
# Cameras take them in queries and in paths: rtsp://camera/user=a_password=b_channel=1
_SECRET = re.compile(
    r"([?&;,/_][^=&;,/\s]*(?:pas|pwd|token|secret|key|auth|sig|credential)[^=&;,/\s]*=)[^&\s'\";]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """A text without the `user:password@` of addresses in it, and with *** for secrets in queries and paths.

    Where a password holds characters that should have been escaped, rather too much is taken than too little.
    """
    return _SECRET.sub(r"\1***", _USER.sub("", text))


def stream_name(location: str) -> str | None:
    """What files about a source that is no file may be called: of an address, its host and path.

    None for what is neither an address, nor `-`, nor the number of a camera.
    """
    if location == "-":
        return "stdin"
    if location.isdecimal():
        return f"camera-{location}"
    scheme, separator, place = redact(location).partition("://")
    if not separator:
        return None
    return re.sub(r"[^\w.-]+", "-", place.partition("?")[0]).strip("-.") or scheme
