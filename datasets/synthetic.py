"""Synthetic infrared sequences with exact ground truth: the same scene gives the same pixels.

    for picture, truths in render(Scene.random(0)):
        ...

or, from the command line, a video and its ground truth as COCO with videos beside it:

    python -m datasets.synthetic OUT.mp4 --seed 0

The sample that comes with the project is made by

    python -m datasets.synthetic datasets/samples/demo.mp4 --preset demo

What the ground truth means:

- the box goes round the target's support, the ellipse at 2.5 standard deviations of its point spread (at
  least 4 pixels a side), with `Scene.margin` pixels free on each side, and is clipped to the picture; the
  mask holds the pixels whose centres lie in the support, at least the one under the target's centre;
- a target whose centre is outside the picture, of which clouds let through less than `least_passed`, or to
  which a saturated background leaves less than `ROOM`, is still drawn but has no record in that frame; it
  keeps its id for when it comes back;
- the signal-to-clutter ratio is the amplitude of the point spread over the standard deviation of the
  background in a ring round the box, `RING` pixels wide, with noise and without targets, defective pixels
  and clouds that hang before the target, averaged over the past frames (`MEMORY`). Such clouds then dim it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from datasets.synthesis.rendering import CRF, write
from datasets.synthesis.scene import PRESETS, Scene
from pipeline.system import cli
from pipeline.system.errors import UsageError


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m datasets.synthetic",
        description="Write a synthetic infrared video (OUT) and its ground truth (OUT with .json) beside it.",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="the video, .mp4 or .mkv")
    parser.add_argument("--seed", type=int, help="the scene to draw (default 0, or the preset's own)")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="a scene made by hand, not drawn")
    parser.add_argument("--frames", type=int, help="length of the video (default 300)")
    parser.add_argument("--width", type=int, help="pixels (default 320)")
    parser.add_argument("--height", type=int, help="pixels (default 256)")
    parser.add_argument("--rate", type=_rate, help="frames per second, such as 30 or 30000/1001 (default 30)")
    parser.add_argument("--bits", type=int, help="8 (H.264) or 9 to 16 (lossless FFV1) (default 8)")
    parser.add_argument("--crf", type=int, default=CRF, help=f"H.264 quality, 0 to 51 (default {CRF})")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser


def _rate(text: str) -> Fraction:
    try:
        # Containers keep the rate as two small integers; 1001 is the largest denominator in use.
        return Fraction(text).limit_denominator(1001)
    except (ValueError, ZeroDivisionError) as error:
        raise argparse.ArgumentTypeError(f"'{text}' is no number or fraction") from error


def _scene(options: argparse.Namespace) -> Scene:
    names = ("frames", "width", "height", "rate", "bits")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if not options.preset:
        return Scene.random(options.seed or 0, **given)
    if options.seed is not None:
        given["seed"] = options.seed
    return replace(PRESETS[options.preset](), **given)


def _work(options: argparse.Namespace) -> None:
    if not 0 <= options.crf <= 51:
        raise UsageError(f"crf is {options.crf}; give 0 to 51")
    truth = write(_scene(options), options.out, crf=options.crf, overwrite=options.overwrite)
    ids = {annotation["instance_id"] for annotation in truth["annotations"]}
    boxes = len(truth["annotations"])
    print(f"{options.out}: {len(truth['images'])} frames, {boxes} boxes of {len(ids)} targets")


def main(arguments: list[str] | None = None) -> int:
    """Run the command with `arguments` (default: those of the process); returns the exit code."""
    return cli.run(_parser(), _work, arguments)


if __name__ == "__main__":
    sys.exit(main())
