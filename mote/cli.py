"""The command `mote`: `mote run in.mp4` and so on, over the commands of the packages."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from mote.commands import COMMANDS
from pipeline import __version__
from pipeline.system import cli
from pipeline.system.errors import unknown_name


def usage() -> str:
    """Returns the text of `mote --help`."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:<{width}}  {command.what}" for name, command in COMMANDS.items()]
    head = ["usage: mote COMMAND …", "", "Finds and follows tiny moving targets in infrared video.", ""]
    foot = ["", "mote COMMAND --help describes the options of a command; mote --version prints the version."]
    return "\n".join([*head, "commands:", *rows, *foot])


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"mote {__version__}")
        return 0
    if name not in COMMANDS:
        if "." in name or "/" in name or Path(name).exists():  # a file or an address
            cli.print_error(f"'{name}' is no command; did you mean: mote run {name}")
        else:
            cli.print_error(f"{unknown_name('command', name, COMMANDS)}; see mote --help")
        return 2
    with cli.invoked_as(f"mote {name}"):
        return import_module(COMMANDS[name].module).main(rest)


if __name__ == "__main__":
    sys.exit(main())
