"""Probability maps of all images in a folder, by a single-frame segmenter.

    python -m detectors.segment --detector rdian --weights FILE --images nuaa-sirst/images --output results/

Each map has the size of its image: OUTPUT/DATASET/img/NAME.png holds probability × 255, rounded, and
OUTPUT/DATASET/mat/NAME.mat the probability itself, float32, as T. Images may be of any sizes, 8 or 16 bit;
colour is taken as grey. One that cannot be read is named at the end, and the others have their maps.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from detectors.inference.map_files import FORMATS, dataset_name, images_in, prepare, segment
from pipeline.config.schema import MAX_SCALE, MIN_SCALE, parse_size
from pipeline.system import cli
from pipeline.system.errors import SourceError, UsageError
from pipeline.system.progress import MODES, Progress


def parser() -> cli.Parser:
    """The command line."""
    parser = cli.Parser(prog="python -m detectors.segment", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--detector", required=True, metavar="NAME", help="a segmenter: rdian, madnet, dconet, …")
    add("--weights", metavar="FILE", help="name or file of its weights (default: those that ship)")
    add("--images", required=True, type=Path, metavar="DIR", help="folder of images")
    add("--output", required=True, type=Path, metavar="DIR", help="maps go to DIR/DATASET/{img,mat}")
    add("--dataset", metavar="NAME", help="default: the images' folder, or its parent if it is called images")
    add("--format", nargs="+", choices=list(FORMATS), default=["png"], help="kinds of files (default: png)")
    add(
        "--size",
        type=cli.checked(parse_size),
        metavar="WxH",
        help="network input (default: native, every pixel as it is)",
    )
    add(
        "--fit",
        choices=("letterbox", "stretch"),
        default="letterbox",
        help="how images fill a size of WxH (default: letterbox)",
    )
    add(
        "--enlarge",
        type=cli.number(MIN_SCALE, MAX_SCALE, f"{MIN_SCALE:g} to {MAX_SCALE:g}"),
        metavar="N",
        help="network pixels per pixel of a native size (default: as the weights learned)",
    )
    add("--flip-averaging", action="store_true", help="mean of four mirrored views, in four times the time")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="default: fp32")
    add("--progress", choices=MODES, default="auto", help="on standard error (default: auto)")
    add("--overwrite", action="store_true", help="replace maps that are there already")
    return parser


def work(options: argparse.Namespace) -> None:
    """Write the maps and tell. Raises MoteError."""
    if options.size and options.enlarge:
        raise UsageError("--enlarge is for a native size; leave it out, or --size")
    images = images_in(options.images)
    folder = options.output / dataset_name(options.images, options.dataset)
    # torch takes seconds to load: not for --help and not for a folder that is not there
    from detectors.inference.probability_maps import ProbabilityMaps, load_segmenter
    from detectors.weights.restore import enlargement

    model, path = load_segmenter(options.detector, options.weights)
    maps = ProbabilityMaps(
        model,
        size=options.size,
        fit=options.fit,
        enlarge=options.enlarge or enlargement(path),
        flip_averaging=options.flip_averaging,
        device=options.device,
        precision=options.precision,
    )
    jobs = prepare(images, folder, options.format, overwrite=options.overwrite)
    started, seconds, faults = time.perf_counter(), [], []
    with Progress(len(jobs), mode=options.progress) as bar:
        for job in jobs:
            try:
                seconds.append(segment(job, maps))
            except SourceError as fault:
                faults.append(str(fault))
            bar.advance()
    if seconds:
        spent = [1000 * total / len(seconds) for total in (sum(seconds), time.perf_counter() - started)]
        where = ", ".join(str(path.parent) for path in jobs[0].outputs.values())
        print(f"{len(seconds)} maps in {where}; {spent[0]:.1f} ms per image, {spent[1]:.1f} with its files")
    if faults:
        from pipeline.evaluation.segmentation.map_files import shortened

        raise SourceError(f"{len(faults)} of {len(jobs)} images have no map: {shortened(faults)}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
