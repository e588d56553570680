"""Mask files: which pixels are targets, whatever values, palettes, colours or alpha mark them.

Values are grey levels or colours; a picture whose visible part is of one colour is the mask of its alpha. The
background is 0, or black, if it covers half of the picture, and otherwise another value if it covers three
quarters. A mask is then read in one of two ways:

- by its values: up to `MAX_VALUES` of them, or more that are labels of areas. Every pixel but the background
  is a target, so masks of 0 and 1, of 0 and 255, of 64 beside 255, and of labels 1, 2, 3 all give their
  targets. Colours, labels that count from 1, and more than `MAX_VALUES` labels separate targets that touch.
- by its edges, if they are soft, as after resizing or compression: a pixel is a target above half of the
  maximum of its own connected component. Components below `NOISE` of the maximum of the mask are none.

`MaskMeaning` says what was taken for background where that is in doubt.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from pipeline.imaging.image_files import read_image

MAX_VALUES = 4
"""Values besides the background that a mask may hold, whatever their places, without having soft edges."""
LABELS = 0.9
"""Share of the values in a mask of labels that mostly have neighbours of the same value."""
NOISE = 1 / 8
"""Share of the full scale, or of the maximum, below which values are no targets."""
COMMON, DOMINANT = 0.5, 0.75
"""Shares of the picture that the background covers: 0 the first, another value the second."""
VOID = (224, 224, 192)
"""Colour of the borders of objects in PASCAL VOC, which are neither targets nor background."""

_ALPHA_MODES = ("RGBA", "RGBa", "LA", "La", "PA")
_MODES_WITH_TRANSPARENCY = ("1", "L", "P", "RGB")
_EIGHT_CONNECTED = np.ones((3, 3))


class MaskMeaning(NamedTuple):
    """How the values of a mask file were understood."""

    contrast: float
    """Maximum difference from the background, over the full scale of the file, in [0, 1]."""
    soft_below: int = 0
    """Maximum level that was taken for background in a mask with soft edges; 0 for other masks."""
    remark: str = ""
    """What was taken for background; empty if that is not in doubt."""
    mixed: tuple[int, ...] = ()
    """Grey levels that were all taken for targets, though some are at most half of the others."""


@dataclass(frozen=True, eq=False)
class Mask:
    """The content of a mask file."""

    targets: np.ndarray
    """(H, W) bool."""
    labels: np.ndarray
    """(H, W) integers, 0 on the background. Targets of different labels are separate even if they touch."""
    levels: np.ndarray
    """(H, W) float32 in [0, 1], above 0.5 on targets. In a grey mask that reaches the full scale of its file,
    lower values are below 1 even on targets: published definitions of metrics treat them differently."""
    meaning: MaskMeaning


def read_mask(path: Path) -> np.ndarray:
    """Reads a mask file as (H, W) bool, True on targets. Raises SourceError if it cannot be read."""
    return read_mask_file(path).targets


def read_mask_file(path: Path) -> Mask:
    """Reads a mask file, and how its values were understood. Raises SourceError if it cannot be read."""
    picture = read_image(path)
    alpha = _read_alpha(path)
    if alpha is not None and alpha.shape == picture.shape[:2]:
        picture = _merge_alpha(picture, alpha)
    if picture.ndim == 3 and (picture == picture[..., :1]).all():
        picture = picture[..., 0]
    return _read_colours(picture) if picture.ndim == 3 else _read_grey(picture)


def _read_alpha(path: Path) -> np.ndarray | None:
    """Returns the alpha channel (H, W) uint8 of an image file; None if it has none."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            transparent = image.mode in _MODES_WITH_TRANSPARENCY and "transparency" in image.info
            if image.mode not in _ALPHA_MODES and not transparent:
                return None
            return np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))[..., 3]
    except (OSError, ValueError, LookupError, SyntaxError, Image.DecompressionBombError):
        return None  # a format that only OpenCV or tifffile reads


def _merge_alpha(picture: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Returns the alpha if the visible part of the picture is of one colour, else the picture on black."""
    if alpha.min() == alpha.max():
        return picture
    visible = picture[alpha > 0]
    if (visible == visible[0]).all():
        return alpha
    weight = alpha if picture.ndim == 2 else alpha[..., None]
    return (picture.astype(np.uint32) * weight // 255).astype(picture.dtype)


def _read_grey(picture: np.ndarray) -> Mask:
    """Reads a mask (H, W) uint8 or uint16."""
    full = int(np.iinfo(picture.dtype).max)
    counts = np.bincount(picture.ravel())
    values = np.flatnonzero(counts)
    background = _background(values, counts[values])
    levels = picture.astype(np.int32)
    if background is None:
        return _read_without_background(levels, full)
    share = counts[background] / picture.size
    remark = ""
    if background or share < COMMON:
        remark = f"value {background}, in {share:.1%} of the picture, was taken for background"
    strength = np.abs(levels - background) if background else levels
    return _read_strength(strength, levels, full=full, remark=remark)


def _read_colours(picture: np.ndarray) -> Mask:
    """Reads a mask (H, W, 3) uint8 or uint16, whose borders are void if they have the colour `VOID`."""
    full = int(np.iinfo(picture.dtype).max)
    void = (picture == VOID).all(axis=2)
    picture = np.where(void[..., None], 0, picture).astype(np.int64)
    codes = picture[..., 0] << 32 | picture[..., 1] << 16 | picture[..., 2]
    values, counts = np.unique(codes, return_counts=True)
    background = _background(values, counts)
    if background is None:
        return _read_without_background(picture.max(axis=2), full)
    colour = np.array([background >> 32, background >> 16 & 0xFFFF, background & 0xFFFF])
    share = counts[values == background].sum() / codes.size
    remark = ""
    if background or share < COMMON:
        text = ", ".join(map(str, colour.tolist()))
        remark = f"colour {text}, in {share:.1%} of the picture, was taken for background"
    elif void.any():
        remark = f"colour {', '.join(map(str, VOID))}, of borders, was taken for background"
    strength = np.abs(picture - colour).max(axis=2)
    return _read_strength(strength, codes, full=full, remark=remark, coloured=True)


def _background(values: np.ndarray, counts: np.ndarray) -> int | None:
    """Returns which of the (V,) values is the background; None if none clearly is."""
    total = counts.sum()
    if counts[values == 0].sum() >= COMMON * total:
        return 0
    if counts.max() >= DOMINANT * total:
        return int(values[counts.argmax()])
    return 0 if len(values) == 2 and values[0] == 0 else None


def _read_without_background(levels: np.ndarray, full: int) -> Mask:
    """Reads a mask (H, W) of which no value is clearly the background: its lower levels are."""
    highest = int(levels.max())
    cut = (np.median(levels) + highest) / 2 if highest >= NOISE * full else highest
    targets = levels > cut
    span = f"{levels.min()} to {levels[~targets].max()}"
    meaning = MaskMeaning(
        highest / full,
        remark=f"no value covers enough of the picture to be sure; {span} were taken for background",
    )
    return Mask(targets, targets.astype(np.uint8), _levels(levels, targets), meaning)


def _read_strength(
    strength: np.ndarray, codes: np.ndarray, *, full: int, remark: str, coloured: bool = False
) -> Mask:
    """Reads a mask by the difference of its pixels from the background, and by their values: both (H, W)."""
    targets = strength > 0
    found = np.unique(codes[targets])
    highest, few = int(strength.max()), len(found) <= MAX_VALUES
    labels = len(found) > 1 and _are_labels(codes, targets)
    if not (few or labels):
        targets, soft_below = _cut_soft_edges(strength)
        meaning = MaskMeaning(highest / full, soft_below, remark)
        return Mask(targets, targets.astype(np.uint8), _levels(strength, targets), meaning)
    if labels and (coloured or not few or highest == len(found)):
        meaning = MaskMeaning(highest / full, remark=remark)
        return Mask(targets, codes * targets, targets.astype(np.float32), meaning)
    if not coloured and highest == full and (faint := targets & (strength < NOISE * full)).any():
        targets = targets & ~faint
        remark = remark or f"values up to {codes[faint].max()}, beside {full}, were taken for background"
    steps = np.unique(strength[targets])
    differ = len(steps) > 1 and steps[0] <= highest / 2 and (highest > full / 2 or not labels)
    meaning = MaskMeaning(highest / full, remark=remark, mixed=tuple(steps.tolist()) if differ else ())
    levels = _levels(strength, targets) if highest == full else targets.astype(np.float32)
    return Mask(targets, targets.astype(np.uint8), levels, meaning)


def _are_labels(codes: np.ndarray, targets: np.ndarray) -> bool:
    """Whether nearly all values have neighbours of the same value, as labels do and soft edges do not.

    Only neighbouring pairs of target pixels count, and values without such pairs are taken for labels.
    """
    values, ranks = np.unique(codes[targets], return_inverse=True)
    indices = np.zeros(codes.shape, dtype=np.int64)
    indices[targets] = ranks
    pairs, equal = np.zeros(len(values)), np.zeros(len(values))
    for first, second in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        both = targets[first] & targets[second]
        one, other = indices[first][both], indices[second][both]
        same = np.bincount(one[one == other], minlength=len(values))
        equal += same
        pairs += np.bincount(one, minlength=len(values)) + np.bincount(other, minlength=len(values)) - same
    return bool((equal >= pairs / 2).mean() >= LABELS)


def _cut_soft_edges(strength: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the targets of a mask with soft edges, (H, W) bool, and the maximum of all other pixels."""
    parts, count = ndimage.label(strength, _EIGHT_CONNECTED)
    maxima = np.zeros(count + 1)
    np.maximum.at(maxima, parts.ravel(), strength.ravel())
    maxima[maxima < NOISE * maxima.max()] = np.inf
    targets = (parts > 0) & (strength > maxima[parts] / 2)
    return targets, int(strength[~targets].max(initial=0))


def _levels(strength: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns strengths over their maximum, (H, W) float32, limited to the side of 0.5 of their kind."""
    levels = (strength / max(int(strength.max()), 1)).astype(np.float32)
    above = np.nextafter(np.float32(0.5), np.float32(1))
    return np.where(targets, levels.clip(min=above), levels.clip(max=0.5))
