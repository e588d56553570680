"""Inspects a dataset: counts what each split holds, and lists what is wrong with it.

    python -m datasets.check drone-ir DATA

Exit code 0 if nothing is wrong, 1 otherwise.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.system import cli

if TYPE_CHECKING:
    from pipeline.system.progress import Mode

MAX_EXAMPLES = 5
"""Places that are listed for each kind of finding."""


def check(name: str, root: Path, splits: list[str], *, quick: bool, progress: Mode = "auto") -> int:
    """Prints a table for each split, or all that exist if none is named; returns the number of findings.

    Raises UsageError for an unknown name and for annotations that cannot be read.
    """
    from datasets.layouts import registry
    from datasets.layouts.inspection import inspect_dataset, shared_files
    from pipeline.system.progress import Progress

    if not splits:
        splits = registry.available_splits(name, root)
    datasets = [registry.load_dataset(name, root, split, strict=False) for split in splits]
    total = 0
    for dataset in datasets:
        with Progress(dataset.frame_count, mode=progress) as bar:
            report = inspect_dataset(dataset, quick=quick, advance=bar.advance)
        print(f"{name} {dataset.split}: {', '.join(dataset.classes)}")
        for label, value in report.statistics.items():
            print(f"  {label:<31}{value}")
        for note in dataset.notes:
            print(f"  {note}")
        total += _print_findings(report.findings)
        print()
    shared = shared_files(datasets)
    if shared:
        total += _print_findings({"files in two splits": shared})
        print()
    depth = "; frames were not decoded (--quick)" if quick else ""
    result = f"{total} findings" if total > 1 else "1 finding" if total else "clean"
    print(f"{name}: {result} in {', '.join(splits)}{depth}")
    return total


def _print_findings(findings: dict[str, list[str]]) -> int:
    """Prints the first places of each kind of finding; returns the number of all of them."""
    for kind, places in findings.items():
        print(f"  ! {len(places)} {kind}")
        for place in places[:MAX_EXAMPLES]:
            print(f"      {place}")
        if len(places) > MAX_EXAMPLES:
            print(f"      … and {len(places) - MAX_EXAMPLES} more")
    return sum(map(len, findings.values()))


def parser() -> cli.Parser:
    """Returns the parser of the command line."""
    from datasets.layouts.registry import LAYOUTS

    rows = "\n".join(
        f"  {name:<12}{layout.description}" + (f" [{', '.join(layout.splits)}]" if layout.splits else "")
        for name, layout in LAYOUTS.items()
    )
    parser = cli.Parser(
        prog="python -m datasets.check",
        description=__doc__.splitlines()[0],
        epilog=f"datasets [splits]:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="a dataset of the list below")
    parser.add_argument("root", metavar="ROOT", type=Path, help="folder of the dataset")
    parser.add_argument(
        "--split", nargs="+", default=[], metavar="S", help="check only these (default: all that exist)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="read only the headers of files, decode no frames"
    )
    return parser


def work(options: argparse.Namespace) -> int:
    """Checks the dataset and returns the exit code. Raises MoteError if it cannot be read."""
    return int(check(options.name, options.root, options.split, quick=options.quick) > 0)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command with `arguments` (default: those of the process); returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
