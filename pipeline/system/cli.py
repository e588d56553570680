"""Option parsing, error reporting and exit codes shared by all commands."""

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
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, TextIO, TypeVar

from pipeline.system.errors import Interrupted, MoteError, OutputError, UsageError, describe
from pipeline.system.packages import import_failure
from pipeline.system.redaction import redact
from pipeline.system.terminal import encodable, printable, printable_output

T = TypeVar("T")

_program: ContextVar[str] = ContextVar("program", default="")
"""What was typed to start the command, if that is not its own name."""


@contextlib.contextmanager
def invoked_as(program: str) -> Iterator[None]:
    """Sets the name that usage lines show within the block, such as "mote run"."""
    token = _program.set(program)
    try:
        yield
    finally:
        _program.reset(token)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError and suggests a close match for an unknown option."""

    other_names: Mapping[str, str] = MappingProxyType({})
    """Options of other programs, with their dashes → what they are called here; named in the error."""

    def __init__(self, *args: Any, **options: Any):
        if program := _program.get():
            options["prog"] = program
        super().__init__(*args, **options)

    def error(self, message: str) -> NoReturn:
        """Raises UsageError instead of printing the usage, in which the message is easily overlooked."""
        raise UsageError(f"{message}; see --help")

    def parse_args(  # type: ignore[override]  # the overloads for namespaces of other types are not needed
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Returns the parsed options.

        Raises UsageError for unknown options and invalid values; `--help` and `--version` raise SystemExit.
        """
        arguments = list(sys.argv[1:] if args is None else args)
        # First of all: for a misspelt option argparse would report that the required one is missing.
        for text in itertools.takewhile(lambda text: text not in ("--", "-h", "--help"), arguments):
            if text.startswith("--") and " " not in text:
                self._require_known(text.partition("=")[0])
        return super().parse_args(arguments, namespace)

    def _require_known(self, flag: str) -> None:
        """Raises UsageError for a flag that is neither an option nor an abbreviation of one."""
        known = sorted(self._option_string_actions)
        if not any(option.startswith(flag) for option in known):
            if flag in self.other_names:
                self.error(f"unknown option '{flag}', which is {self.other_names[flag]} here")
            close = difflib.get_close_matches(flag, known, n=1, cutoff=0.6)
            self.error(f"unknown option '{flag}'" + (f", did you mean '{close[0]}'?" if close else ""))


def int_at_least(minimum: int) -> Callable[[str], int]:
    """Returns the argparse type of a whole number of `minimum` or more.

    It raises ArgumentTypeError for other texts.
    """

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(f"'{text}', expected a whole number of {minimum} or more")
        return value

    return convert


def as_argument_type(convert: Callable[[str], T]) -> Callable[[str], T]:
    """Returns the argparse type of an option that `convert` parses.

    It raises ArgumentTypeError with the message of the ValueError of `convert`.
    """

    def converted(text: str) -> T:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return converted


def float_in_range(minimum: float, maximum: float, expected: str) -> Callable[[str], float]:
    """Returns the argparse type of a number from `minimum` to `maximum`, both included.

    It raises ArgumentTypeError, which says what is `expected`, for other texts.
    """

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(f"'{text}', expected {expected}")
        return value

    return convert


def require_writable(*files: Path | None, folder: Path | None = None) -> None:
    """Raises OutputError for files, or a folder, that cannot be written; None is ignored.

    Called before anything is computed. Files need an existing folder; `folder` itself and its parents may be
    missing.
    """
    for path in filter(None, files):
        if os.path.isdir(path):  # False, too, if its parent may not be read
            raise OutputError(f"cannot write {path}: it is a folder; name a file in it")
        if not os.path.isdir(path.parent):
            raise OutputError(f"cannot write {path}: there is no folder {path.parent}; make it first")
        _require_access(path, path if os.path.exists(path) else path.parent)
    if folder:
        existing = next(place for place in (folder, *folder.absolute().parents) if os.path.exists(place))
        if not existing.is_dir():
            raise OutputError(f"cannot write {folder}: {existing} is no folder; choose another name")
        _require_access(folder, existing)


def _require_access(path: Path, place: Path) -> None:
    """Raises OutputError, which names `path`, if the file or folder `place` is write-protected."""
    if not os.access(place, os.W_OK | (os.X_OK if place.is_dir() else 0)):
        raise OutputError(f"cannot write {path}: {place} may not be written; choose another place")


def write_json(path: Path, table: dict | list) -> None:
    """Writes a table as indented JSON. Raises OutputError if that fails, ValueError for NaN or infinity."""
    try:
        path.write_text(json.dumps(table, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def run(
    parser: Parser, work: Callable[[argparse.Namespace], int | None], arguments: Sequence[str] | None = None
) -> int:
    """Runs a command: parses `arguments` (default: those of the process) and passes the options to `work`.

    Returns the exit code: that of `work`, that of the MoteError it raised, which is reported in one line on
    standard error, or 130 after Ctrl-C. If the reader of standard output closes it early (`… | head`), the
    code is 1 and nothing is reported.
    """
    code = 0
    limit_thread_spinning()
    try:
        with printable_output(), _library_warnings_off():
            code = _run_work(parser, work, arguments)
        if sys.stdout:  # None if it was closed before the start
            sys.stdout.flush()  # raises here what would otherwise be raised when the interpreter ends
        return code
    except BrokenPipeError:
        _discard(sys.stdout)
        return code or 1
    except OSError as error:
        if error.errno != errno.ENOSPC:  # failures of other files are OutputErrors already
            raise
        _discard(sys.stdout)
        return _report(OutputError(f"cannot write to standard output: {error.strerror}"))


@contextlib.contextmanager
def _library_warnings_off() -> Iterator[None]:
    """Hides Python warnings within the block, unless the user asks for them by -W or PYTHONWARNINGS.

    Libraries warn those who program with them, for example about the metadata of damaged files.
    """
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        yield


def limit_thread_spinning() -> None:
    """Sets the environment variable GOMP_SPINCOUNT to 5000 if the user has not set it.

    The OpenMP threads of torch wait for one another at the end of each parallel loop. By default libgomp lets
    them spin 300 000 times before they sleep, and a spinning thread keeps its core from the thread it waits
    for if another program runs. With 5000, tridos on two cores, one of them busy, processes ten times as many
    frames, and about as many on an idle machine. libgomp reads the variable once, when torch is loaded, so
    every command sets it before.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def _run_work(
    parser: Parser, work: Callable[[argparse.Namespace], int | None], arguments: Sequence[str] | None
) -> int:
    try:
        return work(parser.parse_args(arguments)) or 0
    except KeyboardInterrupt:
        return _report(Interrupted(signal.SIGINT))
    except MoteError as error:
        return _report(error)
    except ImportError as error:
        missing = import_failure(error)
        if missing is None:
            raise
        return _report(missing)
    except SystemExit as ending:  # raised by --help and --version
        return int(ending.code or 0)


def _report(error: MoteError) -> int:
    """Prints an error as one line on standard error; returns its exit code."""
    print_error(redact(describe(error)))
    return error.exit_code


def print_error(message: str) -> None:
    """Prints "error: " and a message as one line on standard error.

    A standard error that is closed, or whose reader has ended, is no further error: nothing is printed.
    """
    if sys.stderr is None:  # `print` would write to standard output
        return
    try:
        text = encodable(f"error: {printable(message)}", getattr(sys.stderr, "encoding", None))
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    """Redirects a stream to the null device, so the interpreter reports no failed flush at its end."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


SCORE = float_in_range(0, 1, "a score from 0 to 1")
"""The argparse type of a score threshold."""

PROBABILITY = float_in_range(0, math.nextafter(1, 0), "a probability from 0 to less than 1")
"""The argparse type of a probability threshold."""

RATE = float_in_range(0, sys.float_info.max, "false alarms per frame, 0 or more")
"""The argparse type of a false-alarm rate."""
