"""Prints a completion script: `mote completion bash > ~/.local/share/bash-completion/completions/mote`."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from mote.commands import COMMANDS
from pipeline.system import cli
from pipeline.system.packages import require_package

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")


def parser() -> cli.Parser:
    """Builds the command line."""
    parser = cli.Parser(
        prog="python -m mote.completion", description="Prints the completion script of a shell."
    )
    parser.add_argument("shell", choices=SHELLS, help="shell that reads the script")
    return parser


def work(options: argparse.Namespace) -> None:
    """Prints the script. Raises MissingPackage if shtab is not installed."""
    require_package("shtab", "completion")
    import shtab

    print(shtab.complete(whole_parser(), shell=options.shell))


def whole_parser() -> argparse.ArgumentParser:
    """Returns a parser with all subcommands and their options."""
    whole = argparse.ArgumentParser(prog="mote")
    commands = whole.add_subparsers()
    for name, command in COMMANDS.items():
        options = parser() if command.module == __name__ else import_module(command.module).parser()
        commands.add_parser(name, parents=[options], help=command.what, add_help=False)
    return whole


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
