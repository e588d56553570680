"""Conversion of datasets to COCO-video, MOT folders and mask folders.

Conventions of pixels and frames, each observed by the module that reads and writes the format:

- COCO-video: `bbox` is left, top, width, height in pixels from 0; `frame_id` counts from 0.
- MOT: left and top count from 1, width and height are the same; frames count from 1.
- masks: a pixel covers [x, x + 1); the box of a target ends after its last pixel, at maximum + 1. A box is
  drawn by filling the pixels that it touches.
- in memory: x1 y1 x2 y2 from 0, right and bottom exclusive; frames from 0.

The box of the single pixel at the top left is thus `[0, 0, 1, 1]` in COCO, `1,1,1,1` in MOT, one pixel of a
mask, and 0 0 1 1 in memory. All formats but masks keep decimals, to a millionth of a pixel.

Frames are not copied: MOT and mask folders contain relative links to images and videos. COCO-video names
files below its own folder; other files are linked from a folder NAME_files beside it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from datasets.layouts.coco_video import map_file_names
from datasets.layouts.file_names import link_relative, relative_posix
from datasets.layouts.mask_folders import write_mask_folder
from datasets.layouts.mot import write_mot
from datasets.layouts.registry import Dataset
from pipeline.system.errors import OutputError

_COCO_FILE = "coco.json"  # until it is renamed to the output


def convert(dataset: Dataset, to: str, output: Path) -> list[str]:
    """Writes `dataset` in one of OUTPUT_FORMATS: a JSON file, or a folder of MOT sequences or of masks.

    The output appears when it is complete. Returns what the format cannot hold, one line each. Raises
    OutputError if `output` exists or cannot be written, UsageError if the format cannot hold the dataset, and
    SourceError if masks cannot be read.
    """
    links = output.with_name(f"{output.stem}_files")
    for place in (output, *([links] if to == "coco-video" else [])):
        if place.exists():
            raise OutputError(f"{place} exists; choose another place, or remove it")
    # Beside the output, since relative paths must hold in both places. A whole folder, so no `atomic_write`.
    unfinished = output.with_name(f".{output.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)  # left by a conversion that was killed
        unfinished.mkdir(parents=True)
        losses = _WRITERS[to](dataset, unfinished, output)
        if to == "coco-video":
            (unfinished / _COCO_FILE).rename(output)
            if any(unfinished.iterdir()):
                unfinished.rename(links)
        else:
            unfinished.rename(output)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror}; choose another place") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return [*dataset.notes, *losses]


def split_name(dataset: Dataset) -> str:
    """Returns the name of the split in the output: `val` for `annotations/val.json`."""
    return Path(dataset.split).stem or "all"


def _write_coco(dataset: Dataset, folder: Path, output: Path) -> list[str]:
    def link(path: str) -> str:
        place = relative_posix((dataset.root / path).absolute(), output.parent.absolute())
        if not place.startswith("../"):
            return place
        if not (folder / path).is_symlink():  # several sequences may be in one video
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            link_relative(dataset.root / path, folder / path)
        return f"{output.stem}_files/{path}"

    text = json.dumps(map_file_names(dataset.to_coco(), link), separators=(",", ":"))
    (folder / _COCO_FILE).write_text(text + "\n", encoding="utf-8")
    losses = _lost_shapes(dataset)
    if dataset.box_count and not _has_identities(dataset):
        losses.append(f"{dataset.box_count} boxes have no identity: they are written without instance_id")
    return losses


def _write_mot(dataset: Dataset, folder: Path, output: Path) -> list[str]:
    losses = write_mot(dataset.records, dataset.classes, dataset.root, folder)
    return [*_lost_shapes(dataset), *losses]


def _write_masks(dataset: Dataset, folder: Path, output: Path) -> list[str]:
    losses = write_mask_folder(dataset.records, dataset.root, folder, split=split_name(dataset))
    if _has_identities(dataset):
        losses.append(f"masks have no identities: those of {dataset.box_count} boxes are left out")
    if len(dataset.classes) > 1:
        losses.append(f"masks have no classes: {', '.join(dataset.classes)} all become targets")
    skipped = sum(len(record) - len(record.image_ids) for record in dataset.records)
    if skipped:
        losses.append(f"{skipped} frames without annotation are left out")
    return losses


_WRITERS: dict[str, Callable[[Dataset, Path, Path], list[str]]] = {
    "coco-video": _write_coco,
    "mot": _write_mot,
    "masks": _write_masks,
}
OUTPUT_FORMATS = tuple(_WRITERS)
"""Formats that `convert` writes."""


def _lost_shapes(dataset: Dataset) -> list[str]:
    masked = sum(1 for record in dataset.records if record.masks)
    return [f"the shapes in {masked} masks become boxes"] if masked else []


def _has_identities(dataset: Dataset) -> bool:
    return any(record.instances for record in dataset.records)
