"""Writes a synthetic infrared video and its exact ground truth, COCO with `videos`, beside it.

    python -m datasets.synthetic OUT.mp4 --seed 0

The same scene gives the same pixels; `datasets.synthesis.rendering` describes the ground truth. The sample of
the project is made by

    python -m datasets.synthetic datasets/samples/demo.mp4 --preset demo
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from datasets.synthesis.rendering import DEFAULT_CRF, write_scene
from datasets.synthesis.scene import PRESETS, Scene
from pipeline.config.ranges import require_range
from pipeline.system import cli
from pipeline.system.errors import UsageError


def parser() -> cli.Parser:
    """Returns the parser of the command line."""
    parser = cli.Parser(
        prog="python -m datasets.synthetic",
        description="Write a synthetic infrared video (OUT) and its ground truth (OUT with .json) beside it.",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="the video, .mp4 or .mkv")
    parser.add_argument("--seed", type=int, help="seed of the scene (default 0, or the preset's own)")
    parser.add_argument(
        "--preset", choices=sorted(PRESETS), help="a scene designed by hand, not a random one"
    )
    parser.add_argument("--frames", type=int, help="number of frames (default 300)")
    parser.add_argument("--width", type=int, help="pixels (default 320)")
    parser.add_argument("--height", type=int, help="pixels (default 256)")
    parser.add_argument("--rate", type=_rate, help="frames per second, such as 30 or 30000/1001 (default 30)")
    parser.add_argument("--bits", type=int, help="8 (H.264) or 9 to 16 (lossless FFV1) (default 8)")
    parser.add_argument("--crf", type=int, help=f"H.264 quality, 0 to 51 (default {DEFAULT_CRF})")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser


def _rate(text: str) -> Fraction:
    try:
        # Containers store the rate as two small integers; 1001 is the largest denominator in use.
        return Fraction(text).limit_denominator(1001)
    except (ValueError, ZeroDivisionError) as error:
        raise argparse.ArgumentTypeError(f"'{text}' is no number or fraction") from error


def _scene(options: argparse.Namespace) -> Scene:
    names = ("frames", "width", "height", "rate", "bits")
    given: dict[str, Any] = {
        name: getattr(options, name) for name in names if getattr(options, name) is not None
    }
    if not options.preset:
        return Scene.random(options.seed or 0, **given)
    if options.seed is not None:
        given["seed"] = options.seed
    return replace(PRESETS[options.preset](), **given)


def work(options: argparse.Namespace) -> None:
    """Writes the video and prints a summary. Raises MoteError if that fails."""
    scene = _scene(options)
    if options.crf is None:
        options.crf = DEFAULT_CRF
    elif scene.bits > 8:
        raise UsageError(
            f"--crf {options.crf} is for H.264; {scene.bits} bits are stored lossless, leave it out"
        )
    require_range(options, "crf", low=0, high=51, prefix="--", error=UsageError)
    truth = write_scene(scene, options.out, crf=options.crf, overwrite=options.overwrite)
    ids = {annotation["instance_id"] for annotation in truth["annotations"]}
    boxes = len(truth["annotations"])
    print(f"{options.out}: {len(truth['images'])} frames, {boxes} boxes of {len(ids)} targets")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command with `arguments` (default: those of the process); returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
