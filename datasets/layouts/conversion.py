"""datasets.layouts.conversion."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.system.errors import OutputError

if TYPE_CHECKING:
    from datasets.layouts.registry import Dataset

FORMATS = ("coco-video", "mot", "masks")

TABLE = "table.json"  # until it gets its name


def convert(dataset: Dataset, to: str, output: Path) -> list[str]:
    """Write `dataset` as one of FORMATS: a JSON file, or a folder of MOT sequences or of masks.

    The output appears when it is complete. Returns what could not be carried, one line each. Raises
    OutputError for an `output` that exists or cannot be written, UsageError for what the format cannot hold,
    SourceError for masks that cannot be read.
    """
    links = output.with_name(f"{output.stem}_files")
    for place in (output, *([links] if to == "coco-video" else [])):
        if place.exists():
            raise OutputError(f"{place} exists; choose another place, or remove it")
    writers: dict[str, Callable[[Dataset, Path, Path], list[str]]]
    writers = {"coco-video": _write_coco, "mot": _write_mot, "masks": _write_masks}
    # Beside the output, since relative paths must hold in both places.
    unfinished = output.with_name(f".{output.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)  # of a conversion that was killed
        unfinished.mkdir(parents=True)
        remarks = writers[to](dataset, unfinished, output)
        if to == "coco-video":
            (unfinished / TABLE).rename(output)
            if any(unfinished.iterdir()):
                unfinished.rename(links)
        else:
            unfinished.rename(output)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror}; choose another place") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return [*dataset.remarks, *remarks]


def _write_coco(dataset: Dataset, folder: Path, output: Path) -> list[str]:
    from datasets.layouts.coco_video import moved
    from datasets.layouts.file_names import link, listed_path

    def move(path: str) -> str:
        place = listed_path((dataset.root / path).absolute(), output.parent.absolute())
        if not place.startswith("../"):
            return place
        if not (folder / path).is_symlink():  # several sequences may be in one video
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            link(dataset.root / path, folder / path)
        return f"{output.stem}_files/{path}"

    text = json.dumps(moved(dataset.coco(), move), separators=(",", ":"))
    (folder / TABLE).write_text(text + "\n", encoding="utf-8")
    unknown = 0 if any(record.instances for record in dataset.records) else _box_count(dataset)
    return [
        *_shapes(dataset),
        *([f"{unknown} boxes have no identity: they are written without instance_id"] if unknown else []),
    ]


def _write_mot(dataset: Dataset, folder: Path, output: Path) -> list[str]:
    from datasets.layouts.mot import write_sequences

    return [*_shapes(dataset), *write_sequences(dataset.records, dataset.classes, dataset.root, folder)]


def _write_masks(dataset: Dataset, folder: Path, output: Path) -> list[str]:
    from datasets.layouts.mask_folders import write_folder

    lost = write_folder(dataset.records, dataset.root, folder, split=_split_name(dataset))
    boxes = _box_count(dataset)
    if any(record.instances for record in dataset.records):
        lost.append(f"masks have no identities: those of {boxes} boxes are left out")
    if len(dataset.classes) > 1:
        lost.append(f"masks have no classes: {', '.join(dataset.classes)} all become targets")
    skipped = sum(len(record) - len(record.image_ids) for record in dataset.records)
    if skipped:
        lost.append(f"{skipped} frames without annotation are left out")
    return lost


def _split_name(dataset: Dataset) -> str:
    """What the split is called in the output: `val` for `annotations/val.json`."""
    return Path(dataset.split).stem or "all"


def _shapes(dataset: Dataset) -> list[str]:
    masked = sum(1 for record in dataset.records if record.masks)
    return [f"the shapes in {masked} masks become boxes"] if masked else []


def _box_count(dataset: Dataset) -> int:
    return sum(len(boxes) for record in dataset.records for boxes in record.boxes)
