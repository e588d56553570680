"""Probability maps of all images in a folder, by a single-frame segmenter.

    python -m pipeline.segment --detector rdian --weights FILE --images nuaa-sirst/images --output results/

Each map has the size of its image: OUTPUT/DATASET/img/NAME.png holds probability × 255, rounded, and
OUTPUT/DATASET/mat/NAME.mat the probability itself, float32, as T. Images may be of any sizes, 8 or 16 bit;
colour is taken as grey. One that cannot be read is named at the end, and the others have their maps.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline import command
from pipeline.config import GREATEST_SCALE, LEAST_SCALE, parse_size
from pipeline.errors import OutputError, SourceError, UsageError
from pipeline.progress import MODES, Progress

if TYPE_CHECKING:
    import numpy as np

    from pipeline.segmentation import ProbabilityMaps


def as_png(found: np.ndarray) -> bytes:
    """(H, W) probability → grey picture of 8 bits."""
    import cv2
    import numpy as np

    return cv2.imencode(".png", np.rint(found * 255).astype(np.uint8))[1].tobytes()


def as_mat(found: np.ndarray) -> bytes:
    """(H, W) probability → MATLAB file of one array, float32."""
    from scipy import io

    from pipeline.masks.files import MAT_KEY

    file = BytesIO()
    io.savemat(file, {MAT_KEY: found})
    return file.getvalue()


class Form(NamedTuple):
    """A kind of file that a map is written as."""

    folder: str
    encode: Callable[[np.ndarray], bytes]


FORMATS = {"png": Form("img", as_png), "mat": Form("mat", as_mat)}


class Job(NamedTuple):
    """One image and the files that its map goes to."""

    image: Path
    outputs: dict[str, Path]
    """Name in `FORMATS` → file."""


def images_in(folder: Path) -> list[Path]:
    """The images of a folder in natural order, names with a leading dot left out.

    Raises SourceError for a folder that cannot be listed or holds none, and where two differ in their suffix
    alone: their maps would have one name.
    """
    from pipeline.sources import IMAGE_SUFFIXES, natural_order

    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder; one with images ({', '.join(IMAGE_SUFFIXES)}) is expected")
    try:
        paths = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    except OSError as error:
        raise SourceError(f"{folder} cannot be listed: {error.strerror}") from error
    images = sorted((path for path in paths if path.name[0] != "." and path.is_file()), key=natural_order)
    if not images:
        raise SourceError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    names: dict[str, Path] = {}
    for path in images:
        if names.setdefault(path.stem, path) != path:
            raise SourceError(f"{folder} has both {names[path.stem].name} and {path.name}; keep one")
    return images


def dataset_name(folder: Path, given: str | None) -> str:
    """The folder's name, or its parent's for a folder called images, unless one is given.

    Raises UsageError for what is no plain name of a folder.
    """
    place = Path(os.path.abspath(folder))
    name = given if given is not None else (place.parent if place.name == "images" else place).name
    if name in ("", ".", "..") or Path(name).name != name:
        raise UsageError(f"dataset '{name}' is no name for a folder; give one with --dataset")
    return name


def prepare(images: list[Path], folder: Path, formats: list[str], *, overwrite: bool) -> list[Job]:
    """Make the folders below `folder`; returns what is to be done.

    Raises OutputError for folders that cannot be written, and for maps that are there already unless they are
    to be replaced. The images themselves are never replaced.
    """
    from pipeline.sinks import output_error

    places = {name: folder / FORMATS[name].folder for name in dict.fromkeys(formats)}
    for place in places.values():
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(place, error) from error
        if not os.access(place, os.W_OK | os.X_OK):
            raise OutputError(f"cannot write to {place}: choose a folder that you may write to")
        if place.samefile(images[0].parent):
            raise OutputError(f"{place} holds the images themselves; use another --output or --dataset")
    jobs = [
        Job(image, {name: place / f"{image.stem}.{name}" for name, place in places.items()})
        for image in images
    ]
    present = [path for job in jobs for path in job.outputs.values() if path.exists()]
    if present and not overwrite:
        raise OutputError(f"{present[0]} is there already; use --overwrite or another --output")
    return jobs


def write(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all. Raises OutputError."""
    from pipeline.sinks import output_error

    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        unfinished.unlink(missing_ok=True)


def segment(job: Job, maps: ProbabilityMaps) -> float:
    """Write the map of one image; returns seconds in the network. Raises SourceError, OutputError."""
    from pipeline.pictures import read_image
    from pipeline.reading.request import check_size

    image = read_image(job.image)
    check_size(str(job.image), image.shape[1], image.shape[0])
    started = time.perf_counter()
    found = maps(image)
    seconds = time.perf_counter() - started
    for name, path in job.outputs.items():
        write(path, FORMATS[name].encode(found))
    return seconds


def parser() -> command.Parser:
    """The command line."""
    parser = command.Parser(prog="python -m pipeline.segment", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--detector", required=True, metavar="NAME", help="a segmenter: rdian, madnet, dconet, …")
    add("--weights", metavar="FILE", help="name or file of its weights (default: those that ship)")
    add("--images", required=True, type=Path, metavar="DIR", help="folder of images")
    add("--output", required=True, type=Path, metavar="DIR", help="maps go to DIR/DATASET/{img,mat}")
    add("--dataset", metavar="NAME", help="default: the images' folder, or its parent if it is called images")
    add("--format", nargs="+", choices=list(FORMATS), default=["png"], help="kinds of files (default: png)")
    add(
        "--size",
        type=command.checked(parse_size),
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
        type=command.number(LEAST_SCALE, GREATEST_SCALE, f"{LEAST_SCALE:g} to {GREATEST_SCALE:g}"),
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
    from detectors.weights import enlargement
    from pipeline.segmentation import ProbabilityMaps, load_segmenter

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
        from pipeline.masks.files import shortened

        raise SourceError(f"{len(faults)} of {len(jobs)} images have no map: {shortened(faults)}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
