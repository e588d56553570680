"""Folders of images and of masks, one mask per image: single frames, each a sequence of one frame.

Either `SPLIT/images/NAME.*` and `SPLIT/masks/NAME.*`, or `images/` and `masks/` for all splits and a list of
names for each. A mask may have another suffix than its image, and `_pixels0` or `_mask` after the name. A
target is an 8-connected group of mask pixels of one label, and its box ends after its last pixel: the box of
the single pixel in column 3, row 5 is 3 5 4 6. `pipeline.imaging.mask_files` says which pixels are targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from datasets.layouts.file_names import link_relative, relative_posix, sequence_file_names
from datasets.layouts.findings import LISTED_TWICE, Annotations, FindingLog
from pipeline.imaging.image_files import IMAGE_SUFFIXES, MASK_ENDINGS, natural_order
from pipeline.imaging.mask_files import NOISE, Mask, MaskMeaning, read_mask, read_mask_file
from pipeline.structures.annotations import VideoRecord
from pipeline.structures.boxes import clip
from pipeline.system.errors import OutputError, SourceError, UsageError
from pipeline.system.files import read_text

IMAGE_FOLDERS = ("images", "IRSTD1k_Img")
MASK_FOLDERS = ("masks", "IRSTD1k_Label")
WITHOUT_IMAGE = "masks without an image"
IN_DOUBT = "masks whose background is in doubt"
MIXED = "masks of several values, all of which were taken for targets"
DIM = "masks that are far darker than others: noise, or targets that are marked in another way"


def mask_to_boxes(mask: np.ndarray) -> np.ndarray:
    """Returns the boxes of the 8-connected groups of an (H, W) mask.

    (N, 4) float32 x1 y1 x2 y2 in pixels, right and bottom exclusive.
    """
    _, _, groups, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    left, top, width, height = groups[1:, :4].T  # the first group is the background
    return np.stack([left, top, left + width, top + height], axis=1).astype(np.float32)


def boxes_to_mask(boxes: np.ndarray, *, width: int, height: int) -> np.ndarray:
    """Returns an (H, W) bool mask of the pixels that (N, 4) boxes x1 y1 x2 y2 touch."""
    mask = np.zeros((height, width), dtype=bool)
    low = np.floor(boxes[:, :2]).clip(min=0).astype(int)
    high = np.ceil(boxes[:, 2:]).clip(min=0).astype(int)
    for (left, top), (right, bottom) in zip(low.tolist(), high.tolist(), strict=True):
        mask[top:bottom, left:right] = True
    return mask


def read_mask_folder(root: Path, place: str, classes: tuple[str, ...], findings: FindingLog) -> Annotations:
    """Reads the images of a split; `place` is its folder, or its list of names, below the root.

    Each image is a record of one frame, of the size of its mask; image ids count from 1. Masks whose meaning
    is in doubt are findings; see `pipeline.imaging.mask_files`. Raises UsageError for missing folders, and
    SourceError for missing images and masks in strict mode.
    """
    split = root / place
    folder = split if split.is_dir() else root
    images, masks = _files(folder, IMAGE_FOLDERS), _files(folder, MASK_FOLDERS)
    if split.is_dir():
        names = sorted(images, key=lambda name: natural_order(Path(name)))
        taken = {_mask_of(name, masks) for name in names}
        for name in sorted(set(masks) - taken):
            findings.add(WITHOUT_IMAGE, relative_posix(masks[name], root))
    else:
        names = _listed_names(split, findings)
    if not names:
        raise UsageError(f"{split} holds no images" if split.is_dir() else f"{split} lists no images")
    records, meanings = [], {}
    for number, name in enumerate(names, start=1):
        try:
            image = _require(images, name, folder / "images", name)
            path = _require(masks, _mask_of(name, masks), folder / "masks", name)
            mask = read_mask_file(path)
        except SourceError as error:
            findings.unreadable(error)
            continue
        records.append(_record(mask, root=root, image=image, path=path, image_id=number))
        meanings[relative_posix(path, root)] = mask.meaning
    _find_doubtful_masks(meanings, findings)
    return Annotations(records, classes, notes=_note_soft_edges(meanings))


def _find_doubtful_masks(meanings: dict[str, MaskMeaning], findings: FindingLog) -> None:
    """Adds the masks, by path, that may have been meant otherwise."""
    highest = max((meaning.contrast for meaning in meanings.values()), default=0.0)
    for path, meaning in meanings.items():
        if meaning.remark:
            findings.add(IN_DOUBT, f"{path}: {meaning.remark}")
        elif 0 < meaning.contrast < NOISE * highest:
            findings.add(DIM, f"{path}: {meaning.contrast:.1%} of the full scale, others up to {highest:.0%}")
        if meaning.mixed:
            findings.add(MIXED, f"{path}: {', '.join(map(str, meaning.mixed))}")


def _note_soft_edges(meanings: dict[str, MaskMeaning]) -> tuple[str, ...]:
    soft = {path: meaning.soft_below for path, meaning in meanings.items() if meaning.soft_below}
    if not soft:
        return ()
    path = max(soft, key=lambda path: soft[path])
    rule = "a pixel is a target above half of the maximum around it"
    return (f"{len(soft)} masks have soft edges: {rule} ({path}: up to {soft[path]} is background)",)


def _files(folder: Path, names: tuple[str, ...]) -> dict[str, Path]:
    """Maps names without suffix to files, of the first of the named folders that exists."""
    found = next((folder / name for name in names if (folder / name).is_dir()), None)
    if found is None:
        raise UsageError(f"{folder / names[0]} is missing; a folder of that name is expected")
    return {path.stem: path for path in found.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}


def _mask_of(name: str, masks: dict[str, Path]) -> str | None:
    """Returns the key of the mask of an image; None if there is none."""
    return next((name + ending for ending in MASK_ENDINGS if name + ending in masks), None)


def _require(files: dict[str, Path], key: str | None, folder: Path, name: str) -> Path:
    """Returns the file of a key. Raises SourceError, which calls it `name`, if it is missing."""
    if key is None or key not in files:
        raise SourceError(f"{folder / name}.* is missing")
    return files[key]


def _listed_names(path: Path, findings: FindingLog) -> list[str]:
    """Reads the names of a list, each once."""
    names: dict[str, None] = {}
    for line in read_text(path, kind="list of images").splitlines():
        entry = Path(line.strip())
        name = entry.stem if entry.suffix.lower() in IMAGE_SUFFIXES else entry.name
        if name in names:
            findings.add(LISTED_TWICE, f"{name} in {path.name}")
        elif name:
            names[name] = None
    return list(names)


def _record(mask: Mask, *, root: Path, image: Path, path: Path, image_id: int) -> VideoRecord:
    """Returns the record of a mask, read from `path`, and of its image."""
    height, width = mask.targets.shape
    parts = [mask.labels == label for label in np.unique(mask.labels[mask.targets])]
    boxes = np.concatenate([mask_to_boxes(part) for part in parts or [mask.targets]])
    return VideoRecord(
        name=image.stem,
        file_name="",
        width=width,
        height=height,
        image_ids={0: image_id},
        boxes=(boxes,),
        labels=(np.zeros(len(boxes), dtype=np.int64),),
        files=(relative_posix(image, root),),
        masks=(relative_posix(path, root),),
    )


def write_mask_folder(records: Sequence[VideoRecord], root: Path, folder: Path, *, split: str) -> list[str]:
    """Writes `masks/`, links to the images in `images/`, and the list `splits/SPLIT.txt`.

    A mask is the record's own or, if it has none, every pixel that its boxes touch. Frames of sequences of
    several frames are called NAME_000000 and so on. Returns what the format cannot hold, one line each.
    Raises OutputError if a file cannot be written, and UsageError if two sequences would have the same name.
    """
    for name in ("images", "masks", "splits"):
        (folder / name).mkdir(parents=True)
    stems, uneven, cut, merged, in_video = [], 0, 0, 0, 0
    for record, name in zip(records, sequence_file_names(record.name for record in records), strict=True):
        size = {"width": record.width, "height": record.height}
        for frame in sorted(record.image_ids):
            stem = name + (f"_{frame:06d}" if len(record) > 1 else "")
            stems.append(stem)
            boxes = record.boxes[frame]
            mask = read_mask(root / record.masks[frame]) if record.masks else boxes_to_mask(boxes, **size)
            if not cv2.imwrite(str(folder / "masks" / f"{stem}.png"), mask.astype(np.uint8) * 255):
                raise OutputError(f"cannot write {folder / 'masks' / stem}.png")
            merged += len(boxes) - len(mask_to_boxes(mask))
            if not record.masks:
                uneven += int((boxes % 1 != 0).any(axis=1).sum())
                cut += int((clip(boxes, record.width, record.height) != boxes).any(axis=1).sum())
            if record.files and record.files[frame]:
                image = root / record.files[frame]
                link_relative(image, folder / "images" / (stem + image.suffix))
            else:
                in_video += 1
    (folder / "splits" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
    losses = [
        (uneven, "boxes have fractional edges: every pixel that they touch is filled"),
        (cut, "boxes reach beyond the image: only the part inside is filled"),
        (merged, "boxes touch or overlap others and cannot be separated"),
        (in_video, "frames have no image file: put one for each mask into images/"),
    ]
    return [f"{count} {loss}" for count, loss in losses if count]
