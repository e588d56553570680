"""Removes credentials from addresses of sources before they are shown or written.

If it is not clear where a secret ends, too much is removed, not too little.
"""

from __future__ import annotations

import os
import re

HIDDEN = "***"
MAX_NAME_LENGTH = 100
"""Maximum number of characters of `stream_name`."""
_START = re.compile(
    r"[a-z][\w+.-]*://+"
    r"|(?<![\w/.\\-])(?:rtsps?|rtmps?|https?|tcp|udp|rtp|srt|s?ftp)[:;/\\]+",  # mistyped, as rtsp:/camera
    re.IGNORECASE,
)
_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")
_AUTHORITY = re.compile(r"[^/?#\s]*")
_USER = re.compile(r"\S*:\S*@")
_QUERY_VALUE = re.compile(r"([?&][^=&?\s]*=)[^&\s]+")
# Cameras take secrets in queries and in paths: rtsp://camera/user=a_password=b_channel=1
_SECRET = re.compile(
    r"([?&;,/_][^=&;,/\s]*(?:pas|pwd|token|secret|key|auth|sig|credential)[^=&;,/\s]*=)[^&\s]+",
    re.IGNORECASE,
)
_SECRET_SETTING = re.compile(r"((?:--set=)?\s*\"?alarms\"?\s*\.[^=]*=).+", re.DOTALL)
"""Setting of a configuration key whose value may be the secret address of a receiver of alarms."""
_HIDDEN_END = re.compile(r"(?<=\*\*\*)[:;,.'\")\]]+$")


def redact(text: str) -> str:
    """Returns a message without credentials.

    Removed is everything up to the last `@` of an address, also of a mistyped one; values of its query, and
    whatever follows an equals sign in its path, become ***.
    """
    starts = list(_START.finditer(text))
    places = [*(start.start() for start in starts), len(text)]
    parts = [_redact_words(text[: places[0]])]
    for start, end in zip(starts, places[1:], strict=True):
        rest = _without_user(text[start.end() : end])
        word = re.split(r"\s", rest, maxsplit=1)[0]
        # an address that was redacted before, followed by the punctuation of the sentence
        punctuation = match.group() if (match := _HIDDEN_END.search(word)) else ""
        address = _without_values(word.removesuffix(punctuation))
        parts += [start.group(), address, punctuation, _redact_words(rest[len(word) :])]
    return "".join(parts)


def redact_location(location: str) -> str:
    """Returns the location of a source without credentials; paths of existing files stay as they are.

    The location is one address from its first to its last character, so that a password may hold anything,
    even quotes. An address with blanks or control characters, whose parts are not clear, keeps its scheme
    only.
    """
    start = _START.search(location)
    if "://" not in location and os.path.exists(location):
        return location
    if start is None:
        before, at, after = location.rpartition("@")
        return HIDDEN + at + _redact_words(after) if at and ":" in before else _redact_words(location)
    if has_blanks(location):
        return start.group() + HIDDEN
    address = _without_values(_without_user(location[start.end() :]))
    return _redact_words(location[: start.start()]) + start.group() + address


def redact_argument(argument: str) -> str:
    """Returns an argument of the command line without credentials."""
    if setting := _SECRET_SETTING.fullmatch(argument):
        return setting[1] + HIDDEN
    flag, equals, value = argument.partition("=")
    if argument.startswith("-") and equals:
        return flag + equals + redact_location(value)
    return redact_location(argument)


def has_blanks(text: str) -> bool:
    """Returns whether a text contains blanks or control characters, which no address contains."""
    return _BLANK.search(text) is not None


def looks_like_address(location: str) -> bool:
    """Returns whether a location begins like the address of a stream, perhaps a mistyped one."""
    return _START.match(location) is not None


def stream_name(location: str) -> str | None:
    """Returns a name for the outputs of a source that is no file: of an address, its host and path.

    None if `location` is neither an address, nor `-`, nor the number of a camera.
    """
    if location == "-":
        return "stdin"
    if location.isdecimal():
        return f"camera-{location}"
    shown = redact_location(location)
    start = _START.search(shown)
    if start is None and shown == location:
        return None
    rest = shown[start.end() :] if start else shown
    name = re.sub(r"[^\w.-]+", "-", re.split("[?#]", rest)[0])[:MAX_NAME_LENGTH].strip("-.")
    return name or (start.group().rstrip(":;/\\") if start else "stream")


def _without_user(address: str) -> str:
    """Removes everything up to the last `@` from an address without its scheme, if that is a user."""
    before, at, after = address.rpartition("@")
    authority = _AUTHORITY.match(address)
    in_authority = authority is not None and "@" in authority.group()
    return after if at and (":" in before or in_authority) else address


def _without_values(address: str) -> str:
    """Hides the values in the path and the query of an address without its user, and its fragment."""
    head, question, query = address.partition("?")
    path, hash_sign, fragment = head.partition("#")
    path = "&".join(re.sub(r"=.+", f"={HIDDEN}", part, flags=re.DOTALL) for part in path.split("&"))
    if hash_sign:
        return path + hash_sign + HIDDEN
    query, hash_sign, fragment = query.partition("#")
    values = [_hide_value(item) for item in re.split("([&;])", query)]
    return path + question + "".join(values) + hash_sign + (HIDDEN if fragment else "")


def _hide_value(item: str) -> str:
    """Returns one item of a query as `key=***`, or *** if it has no key; separators stay."""
    if item in ("", "&", ";"):
        return item
    key, equals, _ = item.partition("=")
    return key + equals + HIDDEN if equals else HIDDEN


def _redact_words(text: str) -> str:
    """Removes what looks like credentials from a text without the beginning of an address."""
    text = _USER.sub(f"{HIDDEN}@", text)
    return _SECRET.sub(rf"\1{HIDDEN}", _QUERY_VALUE.sub(rf"\1{HIDDEN}", text))
