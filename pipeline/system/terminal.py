"""Text that a terminal shows as it is: names of files may contain characters that control the terminal."""

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


def printable(text: str, *, keep: str = "") -> str:
    """Returns a text with escapes such as `\\x1b` for its control characters, except those in `keep`."""
    return CONTROL.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


class PrintableStream:
    """Writes text to a stream with escapes for control characters; line feeds and tabs stay.

    All else is that of the stream.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes a text; returns its length."""
        self._stream.write(printable(text, keep="\n\t"))
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
