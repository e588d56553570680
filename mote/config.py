"""Prints the configurations that come with the program: `mote config --default > run.toml`."""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from pathlib import Path

from pipeline.system import cli
from pipeline.system.errors import unknown_name

FOLDERS = (Path(__file__).parent / "configs", Path(__file__).parents[1] / "configs")
"""The configurations in an installed package and in the repository."""
DEFAULT = "default"


def configurations() -> dict[str, Path]:
    """Returns the files of all configurations by their names."""
    folder = next(folder for folder in FOLDERS if (folder / f"{DEFAULT}.toml").exists())
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def summary(path: Path) -> str:
    """Returns the first sentence of the comment at the top of a configuration."""
    lines = itertools.takewhile(
        lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines()
    )
    text = " ".join(line.lstrip("# ") for line in lines)
    return re.split(r"(?<=[\w)\"])\. (?=[A-Z])", text)[0]


def parser() -> cli.Parser:
    """Builds the command line."""
    parser = cli.Parser(
        prog="python -m mote.config",
        description="Prints a configuration that comes with the program, or the list of them.",
    )
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="name of a configuration (default: list them)"
    )
    parser.add_argument("--default", action="store_true", help="all options of a run with their defaults")
    return parser


def work(options: argparse.Namespace) -> None:
    """Prints the configuration or the list. Raises UsageError for an unknown name."""
    known = configurations()
    name = DEFAULT if options.default else options.name
    if name is None:
        for known_name, path in known.items():
            print(f"{known_name}: {summary(path)}")
        return
    if name not in known:
        raise unknown_name("configuration", name, known)
    sys.stdout.write(known[name].read_text(encoding="utf-8"))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
