"""Verify a dataset: what is in each split, and what is wrong with it.

    python -m datasets.check drone-ir DATA

Exit code 0 when all is well, 1 when something was found.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.system import cli

SHOWN = 5
"""Offenders that are named of each kind of finding."""


def check(name: str, root: Path, splits: list[str], *, quick: bool, progress: str = "auto") -> int:
    """Print a table for each split (all that are there, if none is named); returns the number of findings.

    Raises UsageError for an unknown name and for annotations that cannot be used at all.
    """
    from datasets.layouts import registry
    from datasets.layouts.inspection import inspect, shared_files
    from pipeline.system.progress import Progress

    if not splits:
        splits = registry.present_splits(name, root)
    datasets = [registry.load(name, root, split, strict=False) for split in splits]
    total = 0
    for dataset in datasets:
        with Progress(sum(map(len, dataset.records)), mode=progress) as bar:
            report = inspect(dataset, quick=quick, advance=bar.advance)
        print(f"{name} {dataset.split}: {', '.join(dataset.classes)}")
        for label, figure in report.figures.items():
            print(f"  {label:<31}{figure}")
        for remark in dataset.remarks:
            print(f"  {remark}")
        total += _tell(report.findings)
        print()
    shared = shared_files(datasets)
    if shared:
        total += _tell({"files in two splits": shared})
        print()
    depth = "; frames were not decoded (--quick)" if quick else ""
    found = f"{total} findings" if total > 1 else "1 finding" if total else "clean"
    print(f"{name}: {found} in {', '.join(splits)}{depth}")
    return total


def _tell(findings: dict[str, list[str]]) -> int:
    """Print the first few of each kind; returns how many there are."""
    for kind, offenders in findings.items():
        print(f"  ! {len(offenders)} {kind}")
        for offender in offenders[:SHOWN]:
            print(f"      {offender}")
        if len(offenders) > SHOWN:
            print(f"      … and {len(offenders) - SHOWN} more")
    return sum(map(len, findings.values()))


def parser() -> cli.Parser:
    """The command line."""
    from datasets.layouts.registry import LAYOUTS

    rows = "\n".join(
        f"  {name:<12}{layout.remark}" + (f" [{', '.join(layout.splits)}]" if layout.splits else "")
        for name, layout in LAYOUTS.items()
    )
    parser = cli.Parser(
        prog="python -m datasets.check",
        description=__doc__.splitlines()[0],
        epilog=f"datasets [splits]:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="a dataset of the list below")
    parser.add_argument("root", metavar="ROOT", type=Path, help="its folder")
    parser.add_argument(
        "--split", nargs="+", default=[], metavar="S", help="check only these (default: all that are there)"
    )
    parser.add_argument("--quick", action="store_true", help="read the heads of files only, decode no frames")
    return parser


def work(options: argparse.Namespace) -> int:
    """Check and print; returns the exit code. Raises MoteError."""
    return int(check(options.name, options.root, options.split, quick=options.quick) > 0)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
