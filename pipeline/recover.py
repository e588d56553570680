"""Put the outputs of a killed run in order: `python -m pipeline.recover runs/NAME`.

All that was done is in results.jsonl, but for a last line that was not finished. From it detections.json,
tracks.txt and the account in run.json are made anew; the annotated video becomes an ordinary mp4. Files in
pieces stay in pieces; detections.json is of those that were not deleted. results.zarr is whole as it is.
Doing it again changes nothing. A run over a file can be gone on with instead: run_pipeline.py --resume.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.runner.recovery import recover
from pipeline.system import cli
from pipeline.system.terminal import printable


def parser() -> cli.Parser:
    """The command line."""
    parser = cli.Parser(
        prog="python -m pipeline.recover",
        description="Put the outputs of killed runs in order: everything is rebuilt from results.jsonl.",
        epilog="exit codes: 0 done, or nothing to do; 2 no run, one that is still going, or damaged lines; "
        "5 output not writable",
    )
    parser.add_argument("folders", metavar="RUN_DIR", nargs="+", type=Path, help="output folder of a run")
    help_text = "ground truth of the source (default: the file that the run was given)"
    parser.add_argument("--annotations", metavar="JSON", type=Path, help=help_text)
    return parser


def work(options: argparse.Namespace) -> None:
    """What the options ask for. Raises MoteError."""
    for folder in options.folders:
        print(printable(recover(folder, annotations=options.annotations)))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
