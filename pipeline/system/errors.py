"""Errors that are reported to the user, each with the exit code of the program.

Every message is one line: the offending value, what is allowed, and the remedy.
"""

from __future__ import annotations

import difflib
import json
import re
import signal
from collections.abc import Iterable

MAX_VALUE = 78
"""Maximum number of characters of a value in a message."""


class MoteError(Exception):
    """Base of all errors that are reported as one line; exit code 1."""

    exit_code = 1

    def __str__(self) -> str:
        """Returns the message on one line, even if a value in it contains line breaks."""
        return " ".join(super().__str__().splitlines())


class UsageError(MoteError):
    """A wrong option, name, configuration key or ground-truth file; exit code 2."""

    exit_code = 2


class SourceError(MoteError):
    """A source that cannot be opened, or was lost while reading; exit code 3."""

    exit_code = 3


class WeightsError(MoteError):
    """Weights that are missing, damaged, or belong to another network; exit code 4."""

    exit_code = 4


class OutputError(MoteError):
    """An output that cannot be written, or exists already; exit code 5."""

    exit_code = 5


_ALLOCATION = re.compile(
    r"can't allocate memory|bad[_ ]alloc|failed to allocate memory|unable to allocate|out of memory",
    re.IGNORECASE,
)
"""Matches what torch, ONNX Runtime, OpenVINO and numpy say when memory is short."""


def out_of_memory(error: BaseException) -> UsageError | None:
    """Returns what to tell the user if an error of the networks is a lack of memory; None for others."""
    if isinstance(error, MoteError) or not isinstance(error, Exception):
        return None
    if not isinstance(error, MemoryError) and not _ALLOCATION.search(str(error)):
        return None
    return UsageError("the memory does not suffice for frames of this size; give --tile 640x512, or --roi")


class Interrupted(MoteError):
    """The run was stopped by a signal; exit code 128 + the number of the signal."""

    def __init__(self, signal_number: int, remark: str = ""):
        name = signal.Signals(signal_number).name
        super().__init__(f"interrupted by {name}" + (f"; {remark}" if remark else ""))
        self.exit_code = 128 + signal_number


def describe(error: BaseException) -> str:
    """Returns the message and the notes of an error on one line, with its type if it is no MoteError."""
    first = str(error)
    if not isinstance(error, MoteError):
        first = ": ".join(filter(None, (type(error).__name__, first)))
    return "; ".join([first, *getattr(error, "__notes__", [])])


def reason_of(error: BaseException) -> str:
    """Returns why something failed, in words on one line, also for errors whose text is only a value."""
    if isinstance(error, KeyError) and error.args:
        return f"there is no '{error.args[0]}'"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


def as_json(value: object) -> str:
    """Returns a value as JSON writes it, with texts in double quotes; long values are truncated."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 1]}…"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Returns the UsageError for a `name` that is not one of the `known`; it suggests the closest match."""
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return UsageError(f"unknown {kind} '{name}'{hint} (known: {', '.join(choices)})")


class SourceLost(SourceError):
    """The source ended early; all frames before the loss were delivered."""
