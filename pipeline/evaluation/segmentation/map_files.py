"""Probability maps and masks as image, .npy and .mat files, paired by their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.imaging.image_files import IMAGE_SUFFIXES, MASK_ENDINGS, natural_order, read_image
from pipeline.imaging.pixel_formats import convert_channels, is_grey
from pipeline.system.bounded_reads import MAX_ARRAY_BYTES, require_bounded
from pipeline.system.errors import SourceError, UsageError
from pipeline.system.files import read_text

MAP_SUFFIXES = (*IMAGE_SUFFIXES, ".mat", ".npy")
MAT_KEY = "T"
"""Variable to read from a .mat file with several arrays."""
MAX_NAMES = 3
"""Maximum number of names in an error message."""


class MapMaskPair(NamedTuple):
    """Files of one image."""

    name: str
    prediction: Path | None
    """Probability map; None if it is missing."""
    mask: Path


def pair_files(predictions: Path, masks: Path, *, split: Path | None = None) -> list[MapMaskPair]:
    """Pairs masks with the probability maps of the same name.

    Names are file names without suffix; masks and maps may also end in `_pixels0` or `_mask`.

    Args:
        predictions: folder of the maps.
        masks: folder of the masks.
        split: text file with the names to use, one a line; None for all masks.

    Raises:
        UsageError: a folder or the list cannot be read, two files have the same name, or a listed mask is
        missing.
    """
    map_files, mask_files = _files(predictions, MAP_SUFFIXES, "maps"), _files(masks, IMAGE_SUFFIXES, "masks")
    names = sorted(mask_files, key=lambda name: natural_order(Path(name)))
    if split is not None:
        listed = (name if name in mask_files else _without_ending(name) for name in _listed_names(split))
        names = list(dict.fromkeys(listed))
        missing = [name for name in names if name not in mask_files]
        if missing:
            raise UsageError(f"{masks} has no mask of {abbreviate(missing)}, which {split} lists")
    return [MapMaskPair(name, map_files.get(name), mask_files[name]) for name in names]


def count_unpaired(predictions: Path, pairs: Iterable[MapMaskPair]) -> int:
    """Returns the number of maps in a folder that are in none of the pairs."""
    paired = {pair.prediction for pair in pairs}
    return sum(path not in paired for path in _files(predictions, MAP_SUFFIXES, "maps").values())


def abbreviate(names: Sequence[str]) -> str:
    """Returns the first `MAX_NAMES` names as text, and the number of the others."""
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def _files(folder: Path, suffixes: tuple[str, ...], kind: str) -> dict[str, Path]:
    """Returns files by name. Raises UsageError if there are none or two have the same name."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; one with {kind} ({', '.join(suffixes)}) is expected")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            name = _without_ending(path.stem)
            if name in files:
                raise UsageError(f"{folder} has both {files[name].name} and {path.name}; keep one")
            files[name] = path
    if not files:
        raise UsageError(f"{folder} holds no {kind} ({', '.join(suffixes)})")
    return files


def _without_ending(stem: str) -> str:
    """Returns the name of the image that a mask belongs to."""
    ending = next((ending for ending in MASK_ENDINGS if ending and stem.endswith(ending)), "")
    return stem.removesuffix(ending) or stem


def _listed_names(path: Path) -> list[str]:
    """Returns the names in a list without duplicates. Raises UsageError if there are none."""
    lines = (Path(line.strip()) for line in read_text(path, kind="list of images").splitlines())
    names = {line.stem if line.suffix.lower() in MAP_SUFFIXES else line.name: None for line in lines}
    names.pop("", None)
    if not names:
        raise UsageError(f"{path} lists no images")
    return list(names)


def read_map(path: Path, *, logits: bool = False) -> np.ndarray:
    """Reads a probability map as (H, W) float32 in [0, 1].

    Images and unsigned integers are divided by their full scale (255, 65535). Floating-point arrays in .mat
    and .npy are taken as probabilities, or with `logits` as the input of a sigmoid. Of several arrays in a
    .mat file the one called `MAT_KEY` is read. Raises SourceError if the file does not hold such a map.
    """
    values = _read_array(path)
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
        raise SourceError(f"{path} holds {span}, expected 0 to 1; if these are logits, add --logits")
    return values.astype(np.float32)


def _read_array(path: Path) -> np.ndarray:
    suffix = path.suffix.lower()
    try:
        require_bounded(path, limit=MAX_ARRAY_BYTES)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    if suffix == ".mat":
        return _read_mat(path)
    if suffix == ".npy":
        return _read_npy(path)
    image = read_image(path)
    if not is_grey(image):
        raise SourceError(f"{path} is in colour, so it is no probability map")
    return convert_channels(image, grey=True)


def _read_npy(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise TypeError("it is an archive of arrays")
    except Exception as error:  # NumPy raises errors of many types for a damaged header
        raise SourceError(f"{path} cannot be read as a NumPy array") from error
    return array


def _read_mat(path: Path) -> np.ndarray:
    from scipy import io

    try:
        # mat_dtype restores the MATLAB types: logical and integer-valued double arrays are stored as bytes
        content = io.loadmat(path, mat_dtype=True)
    except NotImplementedError as error:
        raise SourceError(f"{path} is a MATLAB 7.3 file; save it with -v7") from error
    except Exception as error:  # SciPy raises errors of many types for damaged files
        raise SourceError(f"{path} cannot be read as a MATLAB file") from error
    arrays = {
        name: value
        for name, value in content.items()
        if not name.startswith("__") and isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
    }
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    if MAT_KEY not in arrays:
        names = ", ".join(sorted(arrays)) or "none"
        raise SourceError(f"{path}: one array, or one called {MAT_KEY}, is expected; it holds {names}")
    return arrays[MAT_KEY]
