"""detectors.inference.map_files."""

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


def as_png(found: np.ndarray) -> bytes:
    """(H, W) probability → grey picture of 8 bits."""
    import cv2
    import numpy as np

    return cv2.imencode(".png", np.rint(found * 255).astype(np.uint8))[1].tobytes()


def as_mat(found: np.ndarray) -> bytes:
    """(H, W) probability → MATLAB file of one array, float32."""
    from scipy import io

    from pipeline.evaluation.segmentation.map_files import MAT_KEY

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
    from pipeline.imaging.image_files import IMAGE_SUFFIXES, natural_order

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
    """Writes a file as a whole or not at all. Raises OutputError."""
    from pipeline.system.files import atomic_write

    with atomic_write(path, sync=False) as partial:  # thousands of small files: no wait for the disk each time
        partial.write_bytes(data)


def segment(job: Job, maps: ProbabilityMaps) -> float:
    """Write the map of one image; returns seconds in the network. Raises SourceError, OutputError."""
    from pipeline.imaging.image_files import check_size, read_image

    image = read_image(job.image)
    check_size(str(job.image), image.shape[1], image.shape[0])
    started = time.perf_counter()
    found = maps(image)
    seconds = time.perf_counter() - started
    for name, path in job.outputs.items():
        write(path, FORMATS[name].encode(found))
    return seconds
