"""Adds trained weights to the zoo, in half precision: `python -m detectors.publish RUN_DIR NAME`.

Prints the row for `detectors.weights.zoo.ZOO_TABLE`; the model card is written by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from detectors.weights import state_dict
from detectors.weights import zoo as zoo_module
from pipeline.system import cli
from pipeline.system.errors import WeightsError
from pipeline.system.files import file_sha256

DESCRIPTION = "Add trained weights to the zoo, in half precision."


def publish(run: Path, name: str, *, zoo: Path = zoo_module.ZOO) -> Path:
    """Copies RUN/best.safetensors and its metadata to the zoo, with float16 in place of float32.

    Absolute paths in the metadata are reduced to their last part, so that they reveal nothing of the machine.
    Returns the new file. Raises WeightsError if the file is not of a training run, OutputError if the zoo
    cannot be written.
    """
    from safetensors import safe_open

    source = run / "best.safetensors"
    state = state_dict.read_state_dict(source)
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata() or {}
    try:
        values = {key: json.loads(value) for key, value in metadata.items()}
    except ValueError as error:
        raise WeightsError(f"{source} is not of a training run: its metadata is not JSON") from error
    values = {key: without_folders(value) for key, value in values.items()}
    target = zoo / f"{name}.safetensors"
    state_dict.save(state, target, metadata=values, half=True)
    return target


def without_folders(value: Any) -> Any:
    """Returns a JSON value with all absolute paths reduced to their last part."""
    if isinstance(value, dict):
        return {key: without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_folders(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def parser() -> cli.Parser:
    """Returns the parser of the command line."""
    parser = cli.Parser(prog="python -m detectors.publish", description=DESCRIPTION)
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument("name", help="name of the weights in the zoo")
    return parser


def work(options: argparse.Namespace) -> None:
    """Publishes the weights and prints the row of the table. Raises MoteError."""
    path = publish(options.run, options.name)
    print(f'"{options.name}": ZooEntry(file="{path.name}", sha256="{file_sha256(path)}", …)')


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
