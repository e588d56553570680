"""The trainer: `python -m detectors.train CONFIG.toml [--set schedule.steps=200 …]`.

A run that was stopped goes on from its last checkpoint when the same command is given again: weights,
averaged weights, optimiser and the sequence of clips continue as if nothing had happened.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from detectors.recipe import Recipe
from pipeline import command
from pipeline.settings import build, load_toml, override, parse_setting


def parser() -> command.Parser:
    """The command line."""
    parser = command.Parser(
        prog="python -m detectors.train",
        description="Train a detector. A run that was stopped goes on from its last checkpoint when the same "
        "command is given again. What can be configured: detectors/recipe.py.",
    )
    parser.add_argument("config", type=Path, help="training configuration (TOML)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help="override one key")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    return parser


def work(options: argparse.Namespace) -> None:
    """Train as the configuration says. Raises MoteError."""
    recipe = build(Recipe, override(load_toml(options.config), map(parse_setting, options.set)))
    # torch takes seconds to load: not for --help and not for a configuration that is refused
    from detectors.trainer import Trainer
    from pipeline.device import pick_device

    Trainer(recipe, pick_device(options.device)).run()


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
