"""Writes probability maps of all images in a folder, by a single-frame segmenter.

    python -m detectors.segment --detector rdian --weights FILE --images nuaa-sirst/images --output results/

Each map has the size of its image: OUTPUT/DATASET/img/NAME.png holds probability × 255, rounded, and
OUTPUT/DATASET/mat/NAME.mat the probability itself, float32, in the variable T. Images may have any sizes, in
8 or 16 bits; colour is converted to grey. Images that cannot be read are reported at the end and do not
affect the others.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from detectors.inference.map_files import FORMATS, dataset_name, list_images, prepare_jobs, write_maps
from pipeline.config.schema import MAX_SCALE, MIN_SCALE, parse_size
from pipeline.system import cli
from pipeline.system.errors import SourceError, UsageError
from pipeline.system.progress import MODES, Progress

DESCRIPTION = "Write probability maps of all images in a folder, by a single-frame segmenter."


def parser() -> cli.Parser:
    """Returns the parser of the command line."""
    parser = cli.Parser(prog="python -m detectors.segment", description=DESCRIPTION)
    add = parser.add_argument
    add("--detector", required=True, metavar="NAME", help="a segmenter: rdian, madnet, dconet, …")
    add("--weights", metavar="FILE", help="name or file of its weights (default: the supplied ones)")
    add("--images", required=True, type=Path, metavar="DIR", help="folder of images")
    add("--output", required=True, type=Path, metavar="DIR", help="maps are written to DIR/DATASET/{img,mat}")
    add(
        "--dataset",
        metavar="NAME",
        help="default: name of the folder of images, or of its parent if that is 'images'",
    )
    add("--format", nargs="+", choices=list(FORMATS), default=["png"], help="file formats (default: png)")
    add(
        "--size",
        type=cli.as_argument_type(parse_size),
        metavar="WxH",
        help="size of the network input (default: native, that of each image)",
    )
    add(
        "--fit",
        choices=("letterbox", "stretch"),
        help="how images are fitted to WxH (default: letterbox)",
    )
    add(
        "--enlarge",
        type=cli.float_in_range(MIN_SCALE, MAX_SCALE, f"{MIN_SCALE:g} to {MAX_SCALE:g}"),
        metavar="N",
        help="factor to enlarge images of native size by (default: the factor the weights were trained with)",
    )
    add(
        "--flip-averaging",
        action="store_true",
        help="average over four mirrored views, which takes four times as long",
    )
    add("--device", default="auto", help="auto, cpu, mps, cuda or cuda:N (default: auto)")
    add(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="number format of the network (default: fp32)",
    )
    add("--progress", choices=MODES, default="auto", help="progress on standard error (default: auto)")
    add("--overwrite", action="store_true", help="replace existing maps")
    return parser


def work(options: argparse.Namespace) -> None:
    """Writes the maps and prints a summary. Raises MoteError."""
    if options.size and options.enlarge:
        raise UsageError("--enlarge is for a native size; leave it out, or --size")
    images = list_images(options.images)
    folder = options.output / dataset_name(options.images, options.dataset)
    # torch takes seconds to load: not for --help and not if the folder is missing
    from detectors.inference.probability_maps import ProbabilityMaps, load_segmenter
    from detectors.weights.restore import trained_enlargement

    model, path = load_segmenter(options.detector, options.weights)
    if options.fit and not options.size and not getattr(model, "fixed_size", None):
        raise UsageError(f"--fit {options.fit} is for a network input of --size WxH; leave it out")
    maps = ProbabilityMaps(
        model,
        size=options.size,
        fit=options.fit or "letterbox",
        enlarge=options.enlarge or trained_enlargement(path),
        flip_averaging=options.flip_averaging,
        device=options.device,
        precision=options.precision,
    )
    jobs = prepare_jobs(images, folder, options.format, overwrite=options.overwrite)
    started, seconds, faults = time.perf_counter(), [], []
    with Progress(len(jobs), mode=options.progress) as bar:
        for job in jobs:
            try:
                seconds.append(write_maps(job, maps))
            except SourceError as fault:
                faults.append(str(fault))
            bar.advance()
    if seconds:
        spent = [1000 * total / len(seconds) for total in (sum(seconds), time.perf_counter() - started)]
        where = ", ".join(str(path.parent) for path in jobs[0].outputs.values())
        print(f"{len(seconds)} maps in {where}; {spent[0]:.1f} ms per image, {spent[1]:.1f} with its files")
    if faults:
        from pipeline.evaluation.segmentation.map_files import abbreviate

        raise SourceError(f"{len(faults)} of {len(jobs)} images have no map: {abbreviate(faults)}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
