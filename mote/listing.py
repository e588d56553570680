"""Lists detectors, weights and trackers: `mote list`."""

from __future__ import annotations

import argparse
import sys

from pipeline.system import cli


def parser() -> cli.Parser:
    """Builds the command line."""
    return cli.Parser(prog="python -m mote.listing", description="Lists detectors, weights and trackers.")


def work(options: argparse.Namespace) -> None:
    """Prints the list."""
    from run_pipeline import listing

    print(listing())


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
