"""Put trained weights into the zoo, in half precision: `python -m detectors.publish RUN_DIR NAME`.

Prints the row for `detectors.weights.zoo.ZOO_TABLE`; the model card beside the file is written by hand.
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


def publish(run: Path, name: str, *, zoo: Path = zoo_module.ZOO) -> Path:
    """Copy RUN/best.safetensors to the zoo with floats in 16 bits; its metadata goes along.

    Of absolute paths in it the last part alone: the others tell only whose machine it was.
    """
    from safetensors import safe_open

    source = run / "best.safetensors"
    state = state_dict.read_state_dict(source)
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata() or {}
    try:
        facts = {key: json.loads(value) for key, value in metadata.items()}
    except ValueError as error:
        raise WeightsError(f"{source} is not of a training run: its metadata is not JSON") from error
    facts = {key: without_places(value) for key, value in facts.items()}
    target = zoo / f"{name}.safetensors"
    state_dict.save(state, target, metadata=facts, half=True)
    return target


def without_places(value: Any) -> Any:
    """JSON values with all absolute paths cut to their last part."""
    if isinstance(value, dict):
        return {key: without_places(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_places(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def parser() -> cli.Parser:
    """The command line."""
    parser = cli.Parser(prog="python -m detectors.publish", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument("name", help="name of the weights")
    return parser


def work(options: argparse.Namespace) -> None:
    """Publish and print the row of the table. Raises MoteError."""
    path = publish(options.run, options.name)
    print(f'"{options.name}": ZooEntry(file="{path.name}", sha256="{zoo_module.sha256(path)}", …)')


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
