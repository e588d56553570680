"""Table of the datasets that can be read, and `load_dataset(name, root, split)`, which reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from datasets.layouts import frame_lists, mask_folders, mot
from datasets.layouts.coco_video import read_coco, records_to_coco
from datasets.layouts.findings import Annotations, Finding, FindingLog
from pipeline.structures.annotations import VideoRecord
from pipeline.system.errors import UsageError, unknown_name

AnnotationReader = Callable[[Path, str, tuple[str, ...], FindingLog], Annotations]
"""Called with the root, the path of the split below it, the class names for annotations without names, and
the log for findings."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a dataset: its annotations in memory, without pixels."""

    name: str
    split: str
    root: Path
    classes: tuple[str, ...]
    """Names of the labels 0, 1, …"""
    records: list[VideoRecord]
    """The sequences; paths in them are relative to `root`."""
    findings: tuple[Finding, ...] = ()
    """What is wrong with the files, as far as reading could go on."""
    notes: tuple[str, ...] = ()
    """What was left out, one line each."""
    coco: dict | None = field(default=None, repr=False)
    """The COCO-video dictionary that the records were made from; None for other formats."""

    @property
    def frame_count(self) -> int:
        """Number of frames, annotated or not."""
        return sum(map(len, self.records))

    @property
    def box_count(self) -> int:
        """Number of boxes in all frames."""
        return sum(len(boxes) for record in self.records for boxes in record.boxes)

    def to_coco(self) -> dict:
        """Returns the COCO-video dictionary; the original one, with its ids, if the annotations are COCO."""
        return self.coco if self.coco is not None else records_to_coco(self.records, self.classes)

    def subset(self, names: Sequence[str]) -> Dataset:
        """Returns the split with only the named sequences. Raises UsageError for an unknown name."""
        known = {record.name: record for record in self.records}
        unknown = next((name for name in names if name not in known), None)
        if unknown is not None:
            raise unknown_name("video", unknown, known)
        return replace(self, records=[known[name] for name in names])


class Layout(NamedTuple):
    """How the files of a dataset are laid out."""

    format: str
    """A key of READERS."""
    description: str
    """What a user should know."""
    splits: dict[str, tuple[str, ...]]
    """Split → files or folders below the root, of which the first that exists is read. Empty if the name of a
    split is itself such a path."""
    classes: tuple[str, ...] = ("target",)
    """Names of the labels; names in the annotations take precedence."""


def _read_list_or_coco(root: Path, place: str, classes: tuple[str, ...], findings: FindingLog) -> Annotations:
    read = read_coco if place.endswith(".json") else frame_lists.read_frame_list
    return read(root, place, classes, findings)


READERS: dict[str, AnnotationReader] = {
    "coco-video": read_coco,
    "frame lists": _read_list_or_coco,
    "mot": mot.read_mot,
    "masks": mask_folders.read_mask_folder,
}


def _tridos_splits(name: str) -> dict[str, tuple[str, ...]]:
    """Returns the places of the splits of a dataset in the form that Tridos was trained on."""

    def places(split: str, published: str) -> tuple[str, ...]:
        annotations = (f"annotations/{split}.json", f"annotations/instances_{split}2017.json")
        return (*annotations, f"coco_{published}_{name}.txt")

    return {"train": places("train", "train"), "test": places("test", "val")}


def _mask_splits(name: str, *list_folders: str) -> dict[str, tuple[str, ...]]:
    """Returns the places of the usual splits; lists are searched in splits/, `list_folders` and the root."""
    return {
        split: (
            split,
            *(f"{folder}{split}.txt" for folder in ("splits/", *list_folders, "")),
            f"img_idx/{split}_{name}.txt",
        )
        for split in ("train", "val", "trainval", "test")
    }


LAYOUTS: dict[str, Layout] = {
    "drone-ir": Layout(
        "coco-video",
        "infrared half of the Drone-detection-dataset; frames in mp4 files, at most one box per frame",
        {"train": ("annotations/train.json",), "val": ("annotations/val.json",)},
        ("airplane", "bird", "drone", "helicopter"),
    ),
    "daub": Layout(
        "frame lists",
        "one target of 8x8 pixels in each frame; COCO files take precedence over text lists",
        _tridos_splits("DAUB"),
    ),
    "itsdt-15k": Layout(
        "frame lists",
        "vehicles seen from above; text lists truncate boxes to whole pixels",
        _tridos_splits("ITSDT"),
    ),
    "irdst": Layout(
        "frame lists", "images of several sizes; targets jump with the camera", _tridos_splits("IRDST")
    ),
    "nuaa-sirst": Layout("masks", "single frames of many sizes", _mask_splits("NUAA-SIRST", "idx_427/")),
    "nudt-sirst": Layout("masks", "single frames, partly synthetic", _mask_splits("NUDT-SIRST", "50_50/")),
    "irstd-1k": Layout("masks", "single frames of 512x512", _mask_splits("IRSTD-1K")),
    "sirst-aug": Layout(
        "masks", "256x256 crops of NUAA-SIRST, many of each image", _mask_splits("SIRST-AUG")
    ),
    "coco-video": Layout(
        "coco-video", "any COCO-video file; the split is its path below the root, as are paths in it", {}
    ),
    "frame-list": Layout("frame lists", "any text list; the split is its path below the root", {}),
    "mot": Layout(
        "mot", "MOT-challenge sequences; the split is their folder below the root, '.' for the root", {}
    ),
    "masks": Layout(
        "masks", "any images with masks; the split is a folder or a list of names below the root", {}
    ),
}


def load_dataset(name: str, root: str | Path, split: str, *, strict: bool = True) -> Dataset:
    """Reads the annotations of one split of the dataset `name`, whose files lie below `root`; no pixels.

    Masks are read for their boxes, and images at most for their size. Raises UsageError for an unknown name
    or split and for missing or invalid annotations, and SourceError for missing or unreadable images and
    masks. If not `strict`, the latter are `findings` instead: single frames are left out, and sequences whose
    size only their images tell may have size 0, 0.
    """
    layout = _layout(name)
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"{root} is no folder; give the one that holds the dataset '{name}'")
    log = FindingLog(strict=strict)
    place = _place(name, layout, root, split)
    found = READERS[layout.format](root, place, layout.classes, log)
    return Dataset(
        name, split, root, found.classes, found.records, tuple(log.entries), found.notes, found.coco
    )


def available_splits(name: str, root: str | Path) -> list[str]:
    """Returns the splits of the dataset `name` that exist below `root`.

    Raises UsageError for an unknown name, if there is no split, and if splits of this dataset have no names.
    """
    layout = _layout(name)
    if not layout.splits:
        raise UsageError(f"the splits of '{name}' have no names, give one: {layout.description}")
    found = [split for split, places in layout.splits.items() if _first_existing(Path(root), places)]
    if not found:
        expected = ", ".join(sorted({place for places in layout.splits.values() for place in places}))
        raise UsageError(f"{root} holds no split of '{name}'; expected one of {expected}")
    return found


def _layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise unknown_name("dataset", name, LAYOUTS)
    return LAYOUTS[name]


def _place(name: str, layout: Layout, root: Path, split: str) -> str:
    """Returns the path of a split relative to the root. Raises UsageError if it is unknown or missing."""
    if layout.splits and split not in layout.splits:
        raise unknown_name(f"split of '{name}'", split, layout.splits)
    places = layout.splits.get(split, (split,))
    found = _first_existing(root, places)
    if found is None:
        expected = " or ".join(str(root / place) for place in places)
        raise UsageError(f"split '{split}' of '{name}' is missing; expected {expected}")
    return found


def _first_existing(root: Path, places: tuple[str, ...]) -> str | None:
    return next((place for place in places if (root / place).exists()), None)
