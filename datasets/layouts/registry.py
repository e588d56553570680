"""The datasets that can be read, a row of a table each: `load(name, root, split)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from datasets.layouts import frame_lists, mask_folders, mot
from datasets.layouts.coco_video import coco_table, read_coco
from datasets.layouts.findings import Annotations, Fault, Faults
from pipeline.structures.annotations import VideoRecord
from pipeline.system.errors import UsageError, unknown_name

Reader = Callable[[Path, str, tuple[str, ...], Faults], Annotations]
"""Takes root, place below it, class names for annotations that have none, and where to note faults."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split in memory, without pixels."""

    name: str
    split: str
    root: Path
    classes: tuple[str, ...]
    """Names of the labels 0, 1, …"""
    records: list[VideoRecord]
    """The sequences; paths in them are relative to `root`."""
    faults: tuple[Fault, ...] = ()
    """What was found wrong on the way, as far as reading could go on."""
    remarks: tuple[str, ...] = ()
    """What was left out, one line each."""
    table: dict | None = field(default=None, repr=False)
    """The COCO-video dictionary that the records were made of, where there is one."""

    def coco(self) -> dict:
        """The COCO-video dictionary; that of the annotations, so that ids stay, where they are COCO."""
        return self.table if self.table is not None else coco_table(self.records, self.classes)

    def only(self, names: Sequence[str]) -> Dataset:
        """The split with the named sequences alone. Raises UsageError for a name that is not there."""
        known = {record.name: record for record in self.records}
        unknown = next((name for name in names if name not in known), None)
        if unknown is not None:
            raise unknown_name("video", unknown, known)
        return replace(self, records=[known[name] for name in names])


class Layout(NamedTuple):
    """How a dataset lies on disk."""

    kind: str
    """A key of READERS."""
    remark: str
    """What a user should know."""
    splits: dict[str, tuple[str, ...]]
    """Split → files or folders below the root, the first that exists counts. Empty where the name of a split
    is itself such a path."""
    classes: tuple[str, ...] = ("target",)
    """Names of the labels; those in the annotations, where there are some, have precedence."""


def _lists(root: Path, place: str, classes: tuple[str, ...], faults: Faults) -> Annotations:
    read = read_coco if place.endswith(".json") else frame_lists.read_list
    return read(root, place, classes, faults)


READERS: dict[str, Reader] = {
    "coco-video": read_coco,
    "frame lists": _lists,
    "mot": mot.read_sequences,
    "masks": mask_folders.read_folder,
}


def _tridos(name: str) -> dict[str, tuple[str, ...]]:
    def places(split: str, published: str) -> tuple[str, ...]:
        annotations = (f"annotations/{split}.json", f"annotations/instances_{split}2017.json")
        return (*annotations, f"coco_{published}_{name}.txt")

    return {"train": places("train", "train"), "test": places("test", "val")}


def _mask_splits(name: str, *more: str) -> dict[str, tuple[str, ...]]:
    """Places of the usual splits; `more` are folders of lists besides the root, splits/ and img_idx/."""
    return {
        split: (
            split,
            *(f"{folder}{split}.txt" for folder in ("splits/", *more, "")),
            f"img_idx/{split}_{name}.txt",
        )
        for split in ("train", "val", "trainval", "test")
    }


LAYOUTS: dict[str, Layout] = {
    "drone-ir": Layout(
        "coco-video",
        "infrared half of the Drone-detection-dataset; frames inside mp4, at most one box a frame",
        {"train": ("annotations/train.json",), "val": ("annotations/val.json",)},
        ("airplane", "bird", "drone", "helicopter"),
    ),
    "daub": Layout(
        "frame lists",
        "one target of 8x8 pixels in each frame; COCO files are taken before text lists",
        _tridos("DAUB"),
    ),
    "itsdt-15k": Layout(
        "frame lists", "vehicles from above; text lists cut boxes to whole pixels", _tridos("ITSDT")
    ),
    "irdst": Layout(
        "frame lists", "pictures of several sizes, targets jump with the camera", _tridos("IRDST")
    ),
    "nuaa-sirst": Layout("masks", "single frames of many sizes", _mask_splits("NUAA-SIRST", "idx_427/")),
    "nudt-sirst": Layout("masks", "single frames, partly synthetic", _mask_splits("NUDT-SIRST", "50_50/")),
    "irstd-1k": Layout("masks", "single frames of 512x512", _mask_splits("IRSTD-1K")),
    "sirst-aug": Layout("masks", "cuts of 256x256 of NUAA-SIRST, many of each", _mask_splits("SIRST-AUG")),
    "coco-video": Layout(
        "coco-video", "any COCO-video file; the split is its path below the root, as are paths in it", {}
    ),
    "frame-list": Layout("frame lists", "any text list; the split is its path below the root", {}),
    "mot": Layout(
        "mot", "MOT-challenge sequences; the split is their folder below the root, '.' for the root", {}
    ),
    "masks": Layout(
        "masks", "any pictures with masks; the split is a folder or a list of names below the root", {}
    ),
}


def load(name: str, root: str | Path, split: str, *, strict: bool = True) -> Dataset:
    """The annotations of a split of the dataset `name`, whose files lie below `root`; no pixels are kept.

    Masks are read for their boxes, pictures at most for their size. Raises UsageError for an unknown name or
    split and for annotations that are missing or cannot be used; SourceError for pictures and masks that
    are, unless not `strict`: then single frames are left out and told in `faults`, and a sequence whose size
    only its pictures tell may be of size 0, 0.
    """
    layout = _layout(name)
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"{root} is no folder; give the one that holds the dataset '{name}'")
    faults = Faults(strict=strict)
    place = _place(name, layout, root, split)
    found = READERS[layout.kind](root, place, layout.classes, faults)
    return Dataset(
        name, split, root, found.classes, found.records, tuple(faults.found), found.remarks, found.table
    )


def present_splits(name: str, root: str | Path) -> list[str]:
    """The splits of the dataset `name` that lie below `root`.

    Raises UsageError for an unknown name, where there is none, and where splits have no names.
    """
    layout = _layout(name)
    if not layout.splits:
        raise UsageError(f"the splits of '{name}' have no names, give one: {layout.remark}")
    found = [split for split, places in layout.splits.items() if _first(Path(root), places)]
    if not found:
        expected = ", ".join(sorted({place for places in layout.splits.values() for place in places}))
        raise UsageError(f"{root} holds no split of '{name}'; expected one of {expected}")
    return found


def _layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise unknown_name("dataset", name, LAYOUTS)
    return LAYOUTS[name]


def _place(name: str, layout: Layout, root: Path, split: str) -> str:
    """Where a split lies, relative to the root."""
    if layout.splits and split not in layout.splits:
        raise unknown_name(f"split of '{name}'", split, layout.splits)
    places = layout.splits.get(split, (split,))
    found = _first(root, places)
    if found is None:
        expected = " or ".join(str(root / place) for place in places)
        raise UsageError(f"split '{split}' of '{name}' is missing; expected {expected}")
    return found


def _first(root: Path, places: tuple[str, ...]) -> str | None:
    return next((place for place in places if (root / place).exists()), None)
