"""Fuzzes every kind of input file: only documented errors may be raised.

    python -m tests.faults.fuzz coco --minutes 10

Small valid files are built in code and mutated by hypothesis, in their bytes and in their structure,
reproducibly for a seed. Failures are exceptions that are no MoteError, executions that take longer than
`--limit` or allocate gigabytes, and crashes of the process. The mutation of the first failure is minimised,
its files are kept in a folder, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import faulthandler
import multiprocessing
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings

from pipeline.imaging import image_files
from pipeline.sources import zarr_array
from pipeline.sources.source import ReaderFault
from pipeline.structures import annotations
from pipeline.system import cli
from pipeline.system.cli import int_at_least
from pipeline.system.errors import MoteError
from tests.faults.binaries import weights, zarr
from tests.faults.mutants import Edit, Seed, mutants, mutated
from tests.faults.pictures import image, masks
from tests.faults.recordings import video
from tests.faults.run_folders import run
from tests.faults.texts import coco, config, mot

TARGETS: dict[str, Callable[[], list[Seed]]] = {
    make.__name__: cache(make) for make in (config, coco, mot, zarr, weights, image, masks, video, run)
}
"""Functions that build the seeds of each target, cached."""
ROUND = 200
"""Examples per call of hypothesis."""
MEMORY = 2 << 30
"""Limit of address space in bytes, in addition to that at the start."""
SMALL = (
    (image_files, "MAX_PIXELS", 1_000_000),
    (zarr_array, "MAX_SLAB_BYTES", 1 << 24),
    (annotations, "MAX_FRAMES", 10_000),
)
"""Limits of the program that are lowered here, since large files only take time."""
LIMIT = 10.0
"""Time limit of one execution in seconds."""
STUCK = 6
"""Multiple of the limit after which a process that cannot be interrupted is killed."""


class Failure(Exception):
    """An execution failed other than by a documented error."""


class Hang(BaseException):
    """An execution takes too long.

    Not an Exception, so that readers do not convert it and hypothesis does not search for a simpler example.
    """


@contextmanager
def bounded() -> Iterator[None]:
    """Limits memory and the sizes in `SMALL` within the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    kept = [getattr(module, name) for module, name, _ in SMALL]
    for module, name, value in SMALL:
        setattr(module, name, value)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        for (module, name, _), value in zip(SMALL, kept, strict=True):
            setattr(module, name, value)


@contextmanager
def interrupted(seconds: float) -> Iterator[None]:
    """Raises Hang in the block if it takes longer."""

    def hang(*_) -> None:
        raise Hang(f"it takes longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def execute(seed: Seed, in_bytes: bool, edits: list[Edit], folder: Path, limit: float) -> str:
    """Reads the mutated files; returns the outcome without details. Raises Failure and Hang.

    The files stay in the folder until the next execution.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = seed.write(mutated(seed.files, in_bytes, edits), folder)
    try:
        with interrupted(limit):
            return seed.read(path)
    except ReaderFault as error:
        raise Failure(f"{error}\n{''.join(traceback.format_exception(error.__cause__))}") from None
    except MoteError as error:
        message = str(error)
        if "\n" in message:
            raise Failure(f"an error of several lines: {message!r}") from None
        return f"{type(error).__name__}: {_general(message, folder)}"
    except Exception:
        # without its context, by which hypothesis would count one failure as several
        raise Failure(traceback.format_exc()) from None


def _general(message: str, folder: Path) -> str:
    """Returns a message without the parts that differ between files."""
    message = message.replace(str(folder), "")
    message = re.sub(r"'[^']*'|\"[^\"]*\"|\[.*\]|\{.*\}|\(.*\)", "…", message)
    return re.sub(r"[-+]?\d[\d.e+]*|nan|inf", "0", message)[:60]


def campaign(
    target: str,
    outcomes: Counter[str],
    *,
    number: int,
    examples: int,
    folder: Path,
    limit: float = LIMIT,
    simplify: bool = True,
    keep_going: Callable[[], bool] = lambda: True,
) -> None:
    """Executes examples while `keep_going()` and counts their outcomes.

    Raises Failure for the first example that fails, minimised if `simplify`; its files are in the folder.
    """
    seeds, failed = TARGETS[target](), False

    @hypothesis.seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        print_blob=False,
        report_multiple_bugs=False,
        phases=[Phase.generate, *([Phase.shrink] * simplify)],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutants(len(seeds)))
    def run(mutant: tuple[int, bool, list[Edit]]) -> None:
        nonlocal failed
        if not (keep_going() or failed):  # minimising is never cut short
            return
        place, in_bytes, edits = mutant
        try:
            outcomes[execute(seeds[place], in_bytes, edits, folder, limit)] += 1
        except Failure:
            failed = True
            raise

    try:
        run()
    except Hang as hang:
        raise Failure(traceback.format_exc()) from hang


def work_off(target: str, options: argparse.Namespace, folder: Path, pipe, beat) -> None:
    """Runs rounds of examples for the given time; sends counts or the failure; runs in a process."""
    faulthandler.enable()
    end, outcomes, number = time.monotonic() + 60 * options.minutes, Counter(), options.seed

    def keep_going() -> bool:
        beat.value += 1
        return time.monotonic() < end

    TARGETS[target]()
    with bounded():
        while keep_going():
            try:
                campaign(
                    target,
                    outcomes,
                    number=number,
                    examples=ROUND,
                    folder=folder,
                    limit=options.limit,
                    keep_going=keep_going,
                )
            except Exception as failure:
                pipe.send((outcomes, f"seed {number}: {failure}"))
                return
            number += 1
            pipe.send((outcomes, None))


def watched(target: str, options: argparse.Namespace, folder: Path) -> tuple[Counter[str], str | None]:
    """Returns outcomes and failure of a process, which may crash or hang in native code."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    beat = context.Value("Q", 0)
    process = context.Process(target=work_off, args=(target, options, folder, there, beat), daemon=True)
    process.start()
    there.close()
    outcomes, failed, last, since = Counter(), None, 0, time.monotonic()
    try:
        while failed is None:
            if here.poll(1):
                outcomes, failed = here.recv()
            if beat.value != last:
                last, since = beat.value, time.monotonic()
            elif time.monotonic() - since > 60 + STUCK * options.limit:
                failed = f"no progress for {time.monotonic() - since:.0f} s"
    except EOFError:
        process.join()
        if process.exitcode:
            failed = f"the process ended with code {process.exitcode}"
    process.kill()
    process.join()
    return outcomes, failed


def parser() -> cli.Parser:
    """Returns the parser of the command."""
    parser = cli.Parser(prog="python -m tests.faults.fuzz", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "targets", nargs="+", choices=sorted(TARGETS), metavar="TARGET", help=", ".join(TARGETS)
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes per target (default: 10)")
    parser.add_argument(
        "--seed", type=int_at_least(0), default=0, help="seed of the first round (default: 0)"
    )
    parser.add_argument(
        "--limit", type=float, default=LIMIT, help=f"seconds per execution (default: {LIMIT:g})"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/fuzz"), metavar="DIR", help="folder for failing files"
    )
    return parser


def work(options: argparse.Namespace) -> int:
    """Fuzzes the targets in turn and prints their outcomes."""
    faults = 0
    for target in options.targets:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place, "current")
            outcomes, failed = watched(target, options, folder)
            seconds = time.monotonic() - began
            print(f"{target}: {outcomes.total()} executions in {seconds:.0f} s, {len(outcomes)} outcomes")
            for outcome, count in outcomes.most_common():
                print(f"{count:9} {outcome}")
            if failed is not None:
                faults += 1
                kept = options.output / target
                shutil.rmtree(kept, ignore_errors=True)
                if folder.exists():
                    shutil.copytree(folder, kept, symlinks=True)
                print(f"{target}: FAILED, the files are in {kept}\n{failed}")
        sys.stdout.flush()
    return int(faults > 0)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
