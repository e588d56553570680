"""The trainer: `python -m detectors.train CONFIG.toml [--set steps=200 …]`.

On several GPUs: `torchrun --nproc_per_node 2 -m detectors.train CONFIG.toml`. A run that was stopped goes on
from its last checkpoint when the same command is given again: weights, averaged weights, optimiser and the
sequence of clips continue as if nothing had happened.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from detectors.training.recipe import Recipe
from pipeline.config.parsing import build, full_setting, load_toml, override, parse_setting
from pipeline.system import cli


def parser() -> cli.Parser:
    """The command line."""
    parser = cli.Parser(
        prog="python -m detectors.train",
        description="Train a detector. A run that was stopped goes on from its last checkpoint when the same "
        "command is given again. What can be configured: detectors/training/recipe.py.",
    )
    parser.add_argument("config", type=Path, help="training configuration (TOML)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one key: section.key, or the key alone where only one section has it",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument(
        "--show-batch",
        type=Path,
        metavar="FILE.png",
        help="draw what the network would see, and do not train",
    )
    return parser


def work(options: argparse.Namespace) -> None:
    """Train as the configuration says. Raises MoteError."""
    settings = [full_setting(Recipe, parse_setting(text)) for text in options.set]
    recipe = build(Recipe, override(load_toml(options.config), settings))
    # torch takes seconds to load: not for --help and not for a configuration that is refused
    from detectors.backends.devices import pick_device
    from detectors.training.distributed import init_process_group, own_device
    from detectors.training.preview import show_batch
    from detectors.training.trainer import Trainer
    from pipeline.system.signals import stop_on_signals

    device = pick_device(own_device(options.device))
    with stop_on_signals() as stop:
        if options.show_batch:
            show_batch(recipe, options.show_batch, stop)
            return
        with init_process_group(device) as world:
            Trainer(recipe, device, world=world, stop=stop).run()


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
