"""Rebuilds the outputs of a killed run: `python -m pipeline.recover runs/NAME`.

results.jsonl holds all results, except for a last line that was not completed. detections.json, tracks.txt
and the counts in run.json are rebuilt from it, and the annotated video becomes an ordinary mp4. Rotated files
stay rotated; detections.json covers those that were not deleted. results.zarr is always complete. A second
recovery changes nothing. A run over a file can be resumed instead: run_pipeline.py --resume.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.runner.recovery import recover
from pipeline.system import cli
from pipeline.system.terminal import printable


def parser() -> cli.Parser:
    """Builds the command line."""
    parser = cli.Parser(
        prog="python -m pipeline.recover",
        description="Rebuilds the outputs of killed runs from results.jsonl.",
        epilog="exit codes: 0 success, or nothing to do; 2 no run, a run that is still going, or damaged "
        "lines; 5 output not writable",
    )
    parser.add_argument("folders", metavar="RUN_DIR", nargs="+", type=Path, help="output folder of a run")
    help_text = "ground truth of the source (default: the file that the run was given)"
    parser.add_argument("--annotations", metavar="JSON", type=Path, help=help_text)
    return parser


def work(options: argparse.Namespace) -> None:
    """Recovers each folder. Raises MoteError."""
    for folder in options.folders:
        print(printable(recover(folder, annotations=options.annotations)))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
