"""Probability maps and masks as files, found by their names."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.imaging.image_files import MASK_ENDINGS, IMAGE_SUFFIXES, natural_order, read_image
from pipeline.imaging.pixel_formats import is_grey, convert_channels
from pipeline.system.errors import SourceError, UsageError
from pipeline.system.files import read_text

MAP_SUFFIXES = (*IMAGE_SUFFIXES, ".mat", ".npy")
MAT_KEY = "T"
"""The variable that is taken from a .mat file of several arrays."""
SHOWN = 3
"""Names in an error before it says only how many more there are."""


class Pair(NamedTuple):
    """The files of one image."""

    name: str
    prediction: Path | None
    """None where there is none."""
    mask: Path


def pairs(predictions: Path, masks: Path, *, split: Path | None = None) -> list[Pair]:
    """The masks of the names in a list, one a line, or all; each with the map of its name.

    Names are those of files without suffix; a mask or a map may have `_pixels0` or `_mask` after it. Raises
    UsageError for folders and lists that cannot be read, names that two files have, and masks that are not
    there.
    """
    maps, truths = _files(predictions, MAP_SUFFIXES, "maps"), _files(masks, IMAGE_SUFFIXES, "masks")
    names = sorted(truths, key=lambda name: natural_order(Path(name)))
    if split is not None:
        listed = (name if name in truths else _bare(name) for name in _listed(split))
        names = list(dict.fromkeys(listed))
        missing = [name for name in names if name not in truths]
        if missing:
            raise UsageError(f"{masks} has no mask of {shortened(missing)}, which {split} lists")
    return [Pair(name, maps.get(name), truths[name]) for name in names]


def left_over(predictions: Path, used: Iterable[Pair]) -> int:
    """How many maps of the folder belong to none of these pairs."""
    taken = {pair.prediction for pair in used}
    return sum(path not in taken for path in _files(predictions, MAP_SUFFIXES, "maps").values())


def shortened(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _files(folder: Path, suffixes: tuple[str, ...], kind: str) -> dict[str, Path]:
    """Name → file. Raises UsageError where two have the same, and where there are none."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; one with {kind} ({', '.join(suffixes)}) is expected")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            name = _bare(path.stem)
            if name in files:
                raise UsageError(f"{folder} has both {files[name].name} and {path.name}; keep one")
            files[name] = path
    if not files:
        raise UsageError(f"{folder} holds no {kind} ({', '.join(suffixes)})")
    return files


def _bare(stem: str) -> str:
    """The name of the picture that a mask belongs to."""
    ending = next((ending for ending in MASK_ENDINGS if ending and stem.endswith(ending)), "")
    return stem.removesuffix(ending) or stem


def _listed(path: Path) -> list[str]:
    """The names of a list, each once."""
    lines = (Path(line.strip()) for line in read_text(path, kind="list of pictures").splitlines())
    names = {line.stem if line.suffix.lower() in MAP_SUFFIXES else line.name: None for line in lines}
    names.pop("", None)
    if not names:
        raise UsageError(f"{path} lists no pictures")
    return list(names)


def read_levels(path: Path) -> np.ndarray:
    """A mask file as (H, W) float32: value over the mask's highest, in whichever channel it is highest.

    Above 0.5 it is what `datasets.layouts.mask_folders.read_mask` gives; what lies between 0 and 1 is
    grey, which published definitions treat differently. A mask of zeros stays one. Raises SourceError.
    """
    image = read_image(path)
    image = image if image.ndim == 2 else image.max(axis=2)
    return image.astype(np.float32) / max(int(image.max(initial=0)), 1)


def read_map(path: Path, *, logits: bool = False) -> np.ndarray:
    """A probability map as (H, W) float32 in [0, 1].

    Pictures and whole numbers are value over full scale (255, 65535); floating numbers in .mat and .npy are
    taken as they are, or with `logits` through the sigmoid. Of several arrays in a .mat the one called T
    counts. Raises SourceError for files that hold no such map.
    """
    values = _numbers(path)
    if values.ndim > 2:
        values = values.squeeze()
    if values.ndim != 2:
        raise SourceError(f"{path} holds an array of shape {values.shape}, expected (H, W)")
    if values.dtype == bool:
        return values.astype(np.float32)
    if np.issubdtype(values.dtype, np.unsignedinteger):
        return (values / np.iinfo(values.dtype).max).astype(np.float32)
    if not np.issubdtype(values.dtype, np.floating):
        raise SourceError(f"{path} holds {values.dtype} numbers, expected floating or unsigned ones")
    if np.isnan(values).any():
        raise SourceError(f"{path} holds numbers that are NaN")
    if logits:
        return (1 / (1 + np.exp(-np.clip(values.astype(np.float64), -700, 700)))).astype(np.float32)
    if values.size and (values.min() < 0 or values.max() > 1):
        span = f"values from {values.min():g} to {values.max():g}"
        raise SourceError(f"{path} holds {span}, expected 0 to 1; if these are logits, say --logits")
    return values.astype(np.float32)


def _numbers(path: Path) -> np.ndarray:
    suffix = path.suffix.lower()
    if suffix == ".mat":
        return _from_mat(path)
    if suffix == ".npy":
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise SourceError(f"{path} cannot be read as a NumPy array") from error
    image = read_image(path)
    if not is_grey(image):
        raise SourceError(f"{path} is in colour, so it is no probability map")
    return convert_channels(image, grey=True)


def _from_mat(path: Path) -> np.ndarray:
    from scipy import io

    try:
        # As typed in MATLAB, which stores logical and whole double values in bytes.
        content = io.loadmat(path, mat_dtype=True)
    except NotImplementedError as error:
        raise SourceError(f"{path} is a MATLAB 7.3 file; save it with -v7") from error
    except (OSError, ValueError, TypeError, EOFError, io.matlab.MatReadError) as error:
        raise SourceError(f"{path} cannot be read as a MATLAB file") from error
    arrays = {
        name: value
        for name, value in content.items()
        if not name.startswith("__") and isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
    }
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    if MAT_KEY not in arrays:
        held = ", ".join(sorted(arrays)) or "none"
        raise SourceError(f"{path}: one array, or one called {MAT_KEY}, is expected; it holds {held}")
    return arrays[MAT_KEY]
