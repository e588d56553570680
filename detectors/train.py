"""Trains a detector: `python -m detectors.train CONFIG.toml [--set steps=200 …]`.

On several GPUs: `torchrun --nproc_per_node 2 -m detectors.train CONFIG.toml`. The same command resumes a
stopped run from its last checkpoint: weights, averaged weights, optimiser and sequence of clips are those of
an uninterrupted run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from detectors.training.recipe import Recipe
from pipeline.config.parsing import build, full_setting, load_toml, override, parse_setting
from pipeline.system import cli
from pipeline.system.packages import require_package


def parser() -> cli.Parser:
    """Returns the parser of the command line."""
    parser = cli.Parser(
        prog="python -m detectors.train",
        description="Train a detector. The same command resumes a stopped run from its last checkpoint. The "
        "keys of the configuration are documented in detectors/training/recipe.py.",
    )
    parser.add_argument("config", type=Path, help="training configuration (TOML)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one key: section.key, or only the key if no other section has it; repeatable",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda or cuda:N (default: auto)")
    parser.add_argument(
        "--show-batch",
        type=Path,
        metavar="FILE.png",
        help="write a contact sheet of the training clips and exit",
    )
    return parser


def work(options: argparse.Namespace) -> None:
    """Trains by the configuration. Raises MoteError."""
    settings = [full_setting(Recipe, parse_setting(text)) for text in options.set]
    recipe = build(Recipe, override(load_toml(options.config), settings))
    for package in ("matplotlib", "safetensors", "tensorboardX", "tomli_w"):
        require_package(package, "training")
    # torch takes seconds to load: not for --help and not for an invalid configuration
    from detectors.backends.devices import pick_device
    from detectors.training.distributed import init_process_group, local_device
    from detectors.training.preview import show_batch
    from detectors.training.trainer import Trainer
    from pipeline.system.signals import stop_on_signals

    device = pick_device(local_device(options.device))
    with stop_on_signals() as stop:
        if options.show_batch:
            show_batch(recipe, options.show_batch, stop)
            return
        with init_process_group(device) as group:
            Trainer(recipe, device, group=group, stop=stop).run()


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
