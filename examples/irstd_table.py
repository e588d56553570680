"""A table for a paper: the shipped segmenters on a dataset of single frames with masks, as Markdown.

    python -m examples.irstd_table NUAA-SIRST
    python -m examples.irstd_table ROOT --dataset masks --split images --weights rdian-nuaa-sirst

One row for each weights and definition, since published definitions differ. The threshold of a network and
the number of its views are those chosen on the validation split of NUAA-SIRST; choose yours on a validation
split, never on the one of the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

CHOSEN = {
    "datransnet-nuaa-sirst": ["--threshold", "0.4"],
    "rdian-nuaa-sirst": ["--threshold", "0.3", "--flip-averaging"],
    "dconet-nuaa-sirst": ["--threshold", "0.4", "--flip-averaging"],
}
"""Options of `mote evaluate`, from the model cards."""
COLUMNS = {
    "IoU": ("iou", 100),
    "nIoU": ("niou", 100),
    "F1": ("f1", 100),
    "Pd": ("pd", 100),
    "Fa x1e-6": ("fa", 1e6),
}
"""Heading → number and factor."""


def evaluate(weights: str, options: argparse.Namespace) -> dict:
    """Returns all numbers of `mote evaluate`."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "numbers.json"
        command = [sys.executable, "-m", "mote", "evaluate", weights, "--dataset", options.dataset]
        command += ["--root", str(options.root), "--split", options.split, "--output", str(output)]
        subprocess.run(command + CHOSEN.get(weights, []), check=True, stdout=subprocess.DEVNULL)
        return json.loads(output.read_text())


def row(weights: str, definition: str, numbers: dict) -> str:
    """Returns a row of the table; a number that the definition does not have is a dash."""
    values = [numbers[name] for name, _ in COLUMNS.values()]
    factors = [factor for _, factor in COLUMNS.values()]
    cells = [
        "-" if value is None else f"{value * factor:.1f}"
        for value, factor in zip(values, factors, strict=True)
    ]
    return f"| {' | '.join([weights, definition, *cells])} |"


def parser() -> argparse.ArgumentParser:
    """Builds the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path, help="folder of the dataset")
    parser.add_argument("--dataset", default="nuaa-sirst", help="its layout (default: nuaa-sirst)")
    parser.add_argument("--split", default="test", help="split to evaluate on (default: test)")
    parser.add_argument("--weights", nargs="+", default=list(CHOSEN), help="names or files")
    parser.add_argument(
        "--definitions", nargs="+", default=["default", "basicirstd"], help="names of definitions"
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Evaluates and prints the table."""
    options = parser().parse_args(arguments)
    print(f"| weights | definition | {' | '.join(COLUMNS)} |")
    print("|---|---|" + "---|" * len(COLUMNS))
    for weights in options.weights:
        numbers = evaluate(weights, options)["definitions"]
        for definition in options.definitions:
            print(row(weights, definition, numbers[definition]))


if __name__ == "__main__":
    main()
