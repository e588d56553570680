"""Adds trained weights to the zoo, in half precision: `python -m detectors.publish RUN_DIR NAME`.

Prints the row for `detectors.weights.zoo.ZOO_TABLE`; the model card is written by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from detectors.weights import restore, state_dict
from detectors.weights import zoo as zoo_module
from pipeline.system import cli
from pipeline.system.errors import UsageError, WeightsError
from pipeline.system.files import file_sha256, load_json

DESCRIPTION = "Add trained weights to the zoo, in half precision."


CRITERION = "centre_5px"
"""Definition of a hit whose chance a calibrated score is; a key of the output of `pipeline.calibration`."""


def publish(run: Path, name: str, *, calibration: Path | None = None, zoo: Path = zoo_module.ZOO) -> Path:
    """Copies RUN/best.safetensors and its metadata to the zoo, with float16 in place of float32.

    Absolute paths in the metadata are reduced to their last part, so that they reveal nothing of the machine.
    `calibration` is a file written by `python -m pipeline.calibration --output`; it is added to the metadata
    and applies wherever the weights are loaded, except as initial weights of a training. Returns the new
    file. Raises WeightsError if the file is not of a training run, OutputError if the zoo cannot be written,
    UsageError if `calibration` is not such a file.
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
    if calibration is not None:
        values["calibration"] = read_fit(calibration)
    target = zoo / f"{name}.safetensors"
    state_dict.save(state, target, metadata=values, half=True)
    return target


def read_fit(path: Path) -> dict[str, float | str]:
    """Returns slope, offset and criterion of the calibration in a file. Raises UsageError."""
    table = load_json(path, kind="calibrations")
    try:
        fit = table[CRITERION]
        restore.Calibration(fit["slope"], fit["offset"])
        return {"slope": fit["slope"], "offset": fit["offset"], "criterion": CRITERION}
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} was not written by python -m pipeline.calibration --output") from error


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
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="JSON",
        help="output of python -m pipeline.calibration: scores become chances of a hit",
    )
    return parser


def work(options: argparse.Namespace) -> None:
    """Publishes the weights and prints the row of the table. Raises MoteError."""
    path = publish(options.run, options.name, calibration=options.calibration)
    print(f'"{options.name}": ZooEntry(file="{path.name}", sha256="{file_sha256(path)}", …)')


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
