"""What all commands share: how options are read, and how mistakes and interruptions end them."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import itertools
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pipeline.system.errors import Interrupted, MoteError, OutputError, UsageError, describe
from pipeline.system.redaction import redact


class Parser(argparse.ArgumentParser):
    """Options whose faults are errors like all others; an unknown one names its close match."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing the usage, which would bury the message."""
        raise UsageError(f"{message}; see --help")

    def parse_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None):
        """The options. Raises UsageError for what does not fit; `--help` and `--version` raise SystemExit."""
        arguments = list(sys.argv[1:] if args is None else args)
        # Looked at first: argparse would tell before that the option is missing which was meant.
        for text in itertools.takewhile(lambda text: text not in ("--", "-h", "--help"), arguments):
            if text.startswith("--") and " " not in text:
                self._check(text.partition("=")[0])
        return super().parse_args(arguments, namespace)

    def _check(self, flag: str) -> None:
        """Raise UsageError for a flag that neither is an option nor abbreviates one."""
        known = sorted(self._option_string_actions)
        if not any(option.startswith(flag) for option in known):
            close = difflib.get_close_matches(flag, known, n=1, cutoff=0.6)
            self.error(f"unknown option '{flag}'" + (f", did you mean '{close[0]}'?" if close else ""))


def whole(least: int) -> Callable[[str], int]:
    """The type of an option that is a whole number of `least` or more."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least:
            raise argparse.ArgumentTypeError(f"'{text}', expected a whole number of {least} or more")
        return value

    return convert


def checked(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """The type of an option that `convert` reads; the message of its ValueError tells what is expected."""

    def converted(text: str) -> Any:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return converted


def number(least: float, most: float, expected: str) -> Callable[[str], float]:
    """The type of an option that is a number from `least` to `most`, in words what is `expected`."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"'{text}', expected {expected}")
        return value

    return convert


def require_writable(*files: Path | None, folder: Path | None = None) -> None:
    """Raise OutputError for what cannot be written later, before anything is computed; None is not asked for.

    Files need their folder; `folder` itself may be missing with those above it.
    """
    for path in filter(None, files):
        if os.path.isdir(path):  # False, too, where it must not be looked at
            raise OutputError(f"cannot write {path}: it is a folder; name a file in it")
        if not os.path.isdir(path.parent):
            raise OutputError(f"cannot write {path}: there is no folder {path.parent}; make it first")
        _require_access(path, path if os.path.exists(path) else path.parent)
    if folder:
        there = next(place for place in (folder, *folder.absolute().parents) if os.path.exists(place))
        if not there.is_dir():
            raise OutputError(f"cannot write {folder}: {there} is no folder; choose another name")
        _require_access(folder, there)


def _require_access(path: Path, place: Path) -> None:
    """Raise OutputError for `path` where the file or folder `place` must not be written."""
    if not os.access(place, os.W_OK | (os.X_OK if place.is_dir() else 0)):
        raise OutputError(f"cannot write {path}: {place} may not be written; choose another place")


def write_json(path: Path, table: dict | list) -> None:
    """Write what a command computed. Raises OutputError where that fails, ValueError for NaN."""
    try:
        path.write_text(json.dumps(table, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def run(
    parser: Parser, work: Callable[[argparse.Namespace], int | None], arguments: Sequence[str] | None = None
) -> int:
    """Do `work` with the options read from `arguments` (default: those of the process).

    Returns the exit code: that of the work or of the MoteError it raised, which is told in one line, or 130
    after Ctrl-C. Where nobody reads the output to its end (`… | head`) the code is 1 and nothing is said.
    """
    code = 0
    try:
        code = _done(parser, work, arguments)
        if sys.stdout:  # None where it was closed before the start
            sys.stdout.flush()  # what cannot be written shows here and not when the interpreter ends
        return code
    except BrokenPipeError:
        _silence()
        return code or 1
    except OSError as error:
        if error.errno != errno.ENOSPC:  # what goes wrong with other files is an OutputError
            raise
        _silence()
        return _complain(OutputError(f"cannot write to standard output: {error.strerror}"))


def _done(
    parser: Parser, work: Callable[[argparse.Namespace], int | None], arguments: Sequence[str] | None
) -> int:
    try:
        return work(parser.parse_args(arguments)) or 0
    except KeyboardInterrupt:
        return _complain(Interrupted(signal.SIGINT))
    except MoteError as error:
        return _complain(error)
    except SystemExit as ending:  # of --help and --version
        return int(ending.code or 0)


def _complain(error: MoteError) -> int:
    """Tell what ended the command; returns the exit code."""
    print(f"error: {redact(describe(error))}", file=sys.stderr)
    return error.exit_code


def _silence() -> None:
    """Let what is still to be flushed vanish: the interpreter would report that it cannot be written."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


SCORE = number(0, 1, "a score from 0 to 1")
"""The type of an option."""

PROBABILITY = number(0, math.nextafter(1, 0), "a probability from 0 to less than 1")
"""The type of an option."""

RATE = number(0, sys.float_info.max, "false alarms per frame, 0 or more")
"""The type of an option."""
