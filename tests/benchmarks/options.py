"""Options that several benchmarks share, and the way they run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.system import cli

DEMO = Path(__file__).resolve().parents[2] / "datasets" / "samples" / "demo.mp4"
"""The video that ships with the project."""

DETECTOR = ("detector", "weights", "device", "backend", "precision", "batch", "threads")
"""Options of `add_detector_options`; the first is the key `name` of the configuration."""


def benchmark_parser(module: str, description: str | None) -> cli.Parser:
    """Returns a parser whose help keeps the line breaks of a module's docstring."""
    parser = cli.Parser(prog=f"python -m {module}", description=description)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def add_detector_options(parser: cli.Parser) -> None:
    """Adds the options that choose the detector of a run; their defaults are those of a run."""
    add = parser.add_argument
    add("--detector", default="tridos-nano")
    add("--weights", default="", help="name or file (default: that of the detector)")
    add("--device", default="auto")
    add("--backend", default="auto", help="runtime of the network (default: that of a run)")
    add("--precision", default="fp32")
    add("--batch", type=cli.int_at_least(0), default=0, help="frames per batch (default: that of a run)")
    add(
        "--threads",
        type=cli.int_at_least(0),
        default=0,
        help="threads of the network (default: those of a run)",
    )


def detector_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the section `detector` of a configuration."""
    values = {key: getattr(options, key) for key in DETECTOR}
    return {"name": values.pop("detector"), **values}


def run_benchmark(
    parser: cli.Parser, measure: Callable[[argparse.Namespace], str], arguments: list[str] | None
) -> int:
    """Prints the table that `measure` returns for the options; returns the exit code."""

    def work(options: argparse.Namespace) -> None:
        print(measure(options))

    return cli.run(parser, work, arguments)
