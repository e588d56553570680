"""Text that a terminal shows as it is, whatever characters it holds and whatever encoding the terminal has.

Names of files may contain characters that control the terminal, and texts such as a help may contain some
that its encoding lacks.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL, C1: line breaks and escape sequences
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # line breaks, and changes of the direction of text
    "\ud800-\udfff]"  # bytes of a file name that are not UTF-8: cannot be encoded
)
"""Matches a character that controls a terminal or that cannot be printed."""


PLAIN = {"…": "...", "\u00d7": "x", "²": "2", "→": "->", "±": "+-", "µ": "u", "·": "-"}  # × is \u00d7
"""Maps characters of messages to what stands for them where an encoding lacks them."""


def printable(text: str, *, keep: str = "") -> str:
    """Returns a text with escapes such as `\\x1b` for its control characters, except those in `keep`."""
    return CONTROL.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def encodable(text: str, encoding: str | None) -> str:
    """Returns a text without characters that an encoding lacks.

    Those of `PLAIN` are replaced, others become escapes such as `\\u591c`. `encoding` is that of a stream;
    None, or one that Python does not know, leaves the text unchanged.
    """
    try:
        text.encode(encoding or "utf-8", errors="surrogateescape")
    except LookupError:
        return text
    except UnicodeEncodeError:
        assert encoding
        kept = "".join(_encodable_character(character, encoding) for character in text)
        return kept.encode(encoding, errors="backslashreplace").decode(encoding)
    return text


def _encodable_character(character: str, encoding: str) -> str:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return PLAIN.get(character, character)
    return character


class PrintableStream:
    """Writes text to a stream with escapes for control characters; line feeds and tabs stay.

    Characters that the encoding of the stream lacks are replaced or escaped, too. All else is that of the
    stream.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes a text; returns its length."""
        shown = printable(text, keep="\n\t")
        self._stream.write(encodable(shown, getattr(self._stream, "encoding", None)))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def printable_output() -> Iterator[None]:
    """Makes standard output a `PrintableStream` within the block."""
    before = sys.stdout
    if before is None:  # closed before the start
        yield
        return
    sys.stdout = cast(TextIO, PrintableStream(before))
    try:
        yield
    finally:
        sys.stdout = before
