"""Put trained weights into the zoo, in half precision: `python -m detectors.publish RUN_DIR NAME`.

Prints the row for `detectors.weights.ZOO_TABLE`; the model card beside the file is written by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from safetensors import safe_open

from detectors import weights
from pipeline.errors import MoteError


def publish(run: Path, name: str, *, zoo: Path = weights.ZOO) -> Path:
    """Copy RUN/best.safetensors to the zoo with floats in 16 bits; its metadata goes along."""
    source = run / "best.safetensors"
    state = weights.read_state_dict(source)
    with safe_open(source, framework="pt") as file:
        facts = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
    target = zoo / f"{name}.safetensors"
    weights.save(state, target, metadata=facts, half=True)
    return target


def main(arguments: list[str] | None = None) -> int:
    """Entry of the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="detectors.publish", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument("name", help="name of the weights")
    options = parser.parse_args(arguments)
    try:
        path = publish(options.run, options.name)
    except MoteError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f'"{options.name}": ZooEntry(file="{path.name}", sha256="{weights.sha256(path)}", …)')
    return 0


if __name__ == "__main__":
    sys.exit(main())
