"""Folders of pictures and masks, one target picture a file: single frames, each a sequence of its own.

Either `SPLIT/images/NAME.*` and `SPLIT/masks/NAME.*`, or `images/` and `masks/` for all and a list of names
for each split. A mask may have another suffix than its picture, and `_pixels0` or `_mask` after the name.
A target is a group of mask pixels that touch, at corners too; its box ends after its last pixel: one of one
pixel at (3, 5) is 3 5 4 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from datasets.layouts.file_names import flat_names, link, listed_path
from datasets.layouts.findings import LISTED_TWICE, Annotations, Faults
from pipeline.imaging.image_files import ENDINGS, IMAGE_SUFFIXES, natural_order, read_image
from pipeline.structures.annotations import VideoRecord
from pipeline.structures.boxes import clip
from pipeline.system.errors import OutputError, SourceError, UsageError
from pipeline.system.files import read_text

PICTURE_FOLDERS = ("images", "IRSTD1k_Img")
MASK_FOLDERS = ("masks", "IRSTD1k_Label")
WITHOUT_PICTURE = "masks without a picture"


def read_mask(path: Path) -> np.ndarray:
    """A mask file as (H, W) bool: pixels of more than half of the mask's highest value, in any channel.

    So masks of 0 and 1, of 0 and 255, and with softened edges all read alike. Raises SourceError.
    """
    image = read_image(path)
    image = image if image.ndim == 2 else image.max(axis=2)
    return image > image.max() / 2


def mask_boxes(mask: np.ndarray) -> np.ndarray:
    """(N, 4) float32 x1 y1 x2 y2, right and bottom exclusive, of the 8-connected groups of an (H, W) mask."""
    _, _, groups, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    left, top, width, height = groups[1:, :4].T  # the first group is the background
    return np.stack([left, top, left + width, top + height], axis=1).astype(np.float32)


def read_folder(root: Path, place: str, classes: tuple[str, ...], faults: Faults) -> Annotations:
    """The pictures of a split: `place` is its folder, or its list of names, below the root.

    Each picture is a record of one frame, of the size of its mask; image ids count from 1. Raises UsageError
    for folders that are missing, SourceError for pictures and masks that are.
    """
    split = root / place
    folder = split if split.is_dir() else root
    pictures, masks = _files(folder, PICTURE_FOLDERS), _files(folder, MASK_FOLDERS)
    if split.is_dir():
        names = sorted(pictures, key=lambda name: natural_order(Path(name)))
        taken = {_mask_of(name, masks) for name in names}
        for name in sorted(set(masks) - taken):
            faults.add(WITHOUT_PICTURE, listed_path(masks[name], root))
    else:
        names = _listed_names(split, faults)
    if not names:
        raise UsageError(f"{split} holds no pictures" if split.is_dir() else f"{split} lists no pictures")
    records = []
    for number, name in enumerate(names, start=1):
        try:
            picture = _present(name, pictures, folder / "images")
            mask = _present(_mask_of(name, masks), masks, folder / "masks", name)
            records.append(_record(root, picture, mask, image_id=number))
        except SourceError as error:
            faults.unreadable(error)
    return Annotations(records, classes)


def _files(folder: Path, names: tuple[str, ...]) -> dict[str, Path]:
    """Name without suffix → file, of the first of these folders that is there."""
    found = next((folder / name for name in names if (folder / name).is_dir()), None)
    if found is None:
        raise UsageError(f"{folder / names[0]} is missing; a folder of that name is expected")
    return {path.stem: path for path in found.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}


def _mask_of(name: str, masks: dict[str, Path]) -> str | None:
    """The key of the mask of a picture."""
    return next((name + ending for ending in ENDINGS if name + ending in masks), None)


def _present(key: str | None, files: dict[str, Path], folder: Path, name: str | None = None) -> Path:
    if key not in files:
        raise SourceError(f"{folder / (name or key)}.* is missing")
    return files[key]


def _listed_names(path: Path, faults: Faults) -> list[str]:
    """The names of a list, each once."""
    names = {}
    for line in read_text(path, kind="list of pictures").splitlines():
        place = Path(line.strip())
        name = place.stem if place.suffix.lower() in IMAGE_SUFFIXES else place.name
        if name in names:
            faults.add(LISTED_TWICE, f"{name} in {path.name}")
        elif name:
            names[name] = None
    return list(names)


def _record(root: Path, picture: Path, mask: Path, *, image_id: int) -> VideoRecord:
    pixels = read_mask(mask)
    boxes = mask_boxes(pixels)
    return VideoRecord(
        name=picture.stem,
        file_name="",
        width=pixels.shape[1],
        height=pixels.shape[0],
        image_ids={0: image_id},
        boxes=(boxes,),
        labels=(np.zeros(len(boxes), dtype=np.int64),),
        files=(listed_path(picture, root),),
        masks=(listed_path(mask, root),),
    )


def write_folder(records: Sequence[VideoRecord], root: Path, folder: Path, *, split: str) -> list[str]:
    """Write `masks/`, links to the pictures in `images/`, and the list `splits/SPLIT.txt`.

    A mask is the record's own or, where it has none, its boxes filled: every pixel that a box touches. Frames
    of a sequence of several are called NAME_000000 on. Returns what could not be carried, a line each; raises
    OutputError where a file cannot be made, UsageError where two sequences would have the same name.
    """
    for name in ("images", "masks", "splits"):
        (folder / name).mkdir(parents=True)
    stems, uneven, cut, merged, in_video = [], 0, 0, 0, 0
    for record, name in zip(records, flat_names(record.name for record in records), strict=True):
        for frame in sorted(record.image_ids):
            stem = name + (f"_{frame:06d}" if len(record) > 1 else "")
            stems.append(stem)
            mask = read_mask(root / record.masks[frame]) if record.masks else filled(record, frame)
            if not cv2.imwrite(str(folder / "masks" / f"{stem}.png"), mask.astype(np.uint8) * 255):
                raise OutputError(f"cannot write {folder / 'masks' / stem}.png")
            if not record.masks:
                boxes = record.boxes[frame]
                uneven += int((boxes % 1 != 0).any(axis=1).sum())
                cut += int((clip(boxes, record.width, record.height) != boxes).any(axis=1).sum())
                merged += len(boxes) - len(mask_boxes(mask))
            if record.files and record.files[frame]:
                picture = root / record.files[frame]
                link(picture, folder / "images" / (stem + picture.suffix))
            else:
                in_video += 1
    (folder / "splits" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
    return [
        *([f"{uneven} boxes lie between pixels: every pixel that they touch is filled"] if uneven else []),
        *([f"{cut} boxes reach out of the picture: only what is inside is filled"] if cut else []),
        *([f"{merged} boxes touch or overlap others and cannot be told apart"] if merged else []),
        *(
            [f"{in_video} frames have no picture file: put one for each mask into images/"]
            if in_video
            else []
        ),
    ]


def filled(record: VideoRecord, frame: int) -> np.ndarray:
    """(H, W) bool: the pixels that a box of the frame touches."""
    mask = np.zeros((record.height, record.width), dtype=bool)
    low = np.floor(record.boxes[frame][:, :2]).clip(min=0).astype(int)
    high = np.ceil(record.boxes[frame][:, 2:]).clip(min=0).astype(int)
    for (left, top), (right, bottom) in zip(low.tolist(), high.tolist(), strict=True):
        mask[top:bottom, left:right] = True
    return mask
