"""Probability maps of the images in a folder, written as image or MATLAB files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.system.errors import OutputError, SourceError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from detectors.inference.probability_maps import ProbabilityMaps


def encode_png(probability: np.ndarray) -> bytes:
    """Encodes a probability (H, W) as a grey PNG of 8 bits."""
    import cv2
    import numpy as np

    return cv2.imencode(".png", np.rint(probability * 255).astype(np.uint8))[1].tobytes()


def encode_mat(probability: np.ndarray) -> bytes:
    """Encodes a probability (H, W) float32 as a MATLAB file with one array."""
    from scipy import io

    from pipeline.evaluation.segmentation.map_files import MAT_KEY

    file = BytesIO()
    io.savemat(file, {MAT_KEY: probability})
    return file.getvalue()


class MapFormat(NamedTuple):
    """File format of a map."""

    folder: str
    """Name of its folder."""
    encode: Callable[[np.ndarray], bytes]


FORMATS = {"png": MapFormat("img", encode_png), "mat": MapFormat("mat", encode_mat)}
"""File formats by file extension."""


class Job(NamedTuple):
    """An image and the files of its map."""

    image: Path
    outputs: dict[str, Path]
    """Key of `FORMATS` → file."""


def list_images(folder: Path) -> list[Path]:
    """Returns the images of a folder in natural order, without hidden files.

    Raises SourceError if the folder cannot be listed or contains none, or if two differ only in their
    extension, since their maps would have the same name.
    """
    from pipeline.imaging.image_files import IMAGE_SUFFIXES, natural_order

    if not folder.is_dir():
        raise SourceError(
            f"{folder} is not a folder; one with images ({', '.join(IMAGE_SUFFIXES)}) is expected"
        )
    try:
        paths = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    except OSError as error:
        raise SourceError(f"{folder} cannot be listed: {error.strerror}") from error
    images = sorted((path for path in paths if path.name[0] != "." and path.is_file()), key=natural_order)
    if not images:
        raise SourceError(f"{folder} contains no images ({', '.join(IMAGE_SUFFIXES)})")
    names: dict[str, Path] = {}
    for path in images:
        if names.setdefault(path.stem, path) != path:
            raise SourceError(f"{folder} has both {names[path.stem].name} and {path.name}; keep one")
    return images


def dataset_name(folder: Path, given: str | None) -> str:
    """Returns the given name, else that of the folder, or of its parent if the folder is called images.

    Raises UsageError if the name cannot be that of a folder.
    """
    place = Path(os.path.abspath(folder))
    name = given if given is not None else (place.parent if place.name == "images" else place).name
    if name in ("", ".", "..") or Path(name).name != name:
        raise UsageError(f"dataset '{name}' is not a valid folder name; give one with --dataset")
    return name


def prepare_jobs(images: list[Path], folder: Path, formats: list[str], *, overwrite: bool) -> list[Job]:
    """Creates the folders of the formats below `folder`; returns the jobs.

    Raises OutputError if a folder cannot be written to or contains the images themselves, or if maps exist
    already and `overwrite` is False.
    """
    from pipeline.system.files import output_error

    places = {name: folder / FORMATS[name].folder for name in dict.fromkeys(formats)}
    for place in places.values():
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(place, error) from error
        if not os.access(place, os.W_OK | os.X_OK):
            raise OutputError(f"cannot write to {place}: choose a folder that you may write to")
        if place.samefile(images[0].parent):
            raise OutputError(f"{place} contains the images themselves; use another --output or --dataset")
    jobs = [
        Job(image, {name: place / f"{image.stem}.{name}" for name, place in places.items()})
        for image in images
    ]
    present = [path for job in jobs for path in job.outputs.values() if path.exists()]
    if present and not overwrite:
        raise OutputError(f"{present[0]} exists already; use --overwrite or another --output")
    return jobs


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file as a whole or not at all. Raises OutputError."""
    from pipeline.system.files import atomic_write

    with atomic_write(path, sync=False) as partial:  # no wait for the disk after each of many small files
        partial.write_bytes(data)


def write_maps(job: Job, maps: ProbabilityMaps) -> float:
    """Writes the map of an image; returns the seconds in the network.

    Raises SourceError if the image cannot be read, OutputError if a file cannot be written.
    """
    from pipeline.imaging.image_files import check_size, read_samples

    image, bit_depth = read_samples(job.image)
    check_size(str(job.image), image.shape[1], image.shape[0])
    started = time.perf_counter()
    probability = maps(image, bit_depth=bit_depth)
    seconds = time.perf_counter() - started
    for name, path in job.outputs.items():
        write_whole(path, FORMATS[name].encode(probability))
    return seconds
