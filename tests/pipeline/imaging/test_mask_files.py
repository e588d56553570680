"""Mask files give their targets, however these are marked, and tell what is in doubt."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.imaging.connected_components import find_regions
from pipeline.imaging.mask_files import Mask, read_mask, read_mask_file

CORNERS = ((2, 3), (12, 20), (22, 30))
"""Row and column of the first pixel of three targets of 3x3 pixels."""


def three_targets(*values: int, dtype=np.uint8) -> np.ndarray:
    """Returns a mask (32, 40) of three targets with these values."""
    mask = np.zeros((32, 40), dtype=dtype)
    for (row, column), value in zip(CORNERS, values * (3 // len(values)), strict=True):
        mask[row : row + 3, column : column + 3] = value
    return mask


SHAPE = three_targets(255)


def saved(path, content: np.ndarray | Image.Image, **options) -> Mask:
    """Saves an image and reads it as a mask."""
    image = content if isinstance(content, Image.Image) else Image.fromarray(content)
    image.save(path, **options)
    return read_mask_file(path)


def with_palette(*colours: tuple[int, int, int], indices: np.ndarray) -> Image.Image:
    image = Image.fromarray(indices)
    image.putpalette([level for colour in colours for level in colour])
    return image


def rgba(colour: np.ndarray, alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([colour, colour, colour, alpha]))


WAYS = {
    "0 and 1": three_targets(1),
    "0 and 255": SHAPE,
    "labels 1, 2, 3": three_targets(1, 2, 3),
    "64 beside 255": three_targets(64, 255, 255),
    "16 bit": three_targets(65535, dtype=np.uint16),
    "12 bits in 16": three_targets(4095, dtype=np.uint16),
    "labels in 16 bit": three_targets(1, 2, 3, dtype=np.uint16),
    "1 bit": Image.fromarray(SHAPE).convert("1"),
    "black at 0, colours": with_palette(
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (64, 0, 0), indices=three_targets(1, 2, 3)
    ),
    "colours": with_palette((0, 0, 0), (128, 0, 0), (0, 64, 0), (0, 0, 250), indices=three_targets(1, 2, 3))
    .convert("RGB"),
    "white at 0, black": with_palette((255, 255, 255), (0, 0, 0), indices=three_targets(1)),
    "black, of which one is transparent": with_palette((0, 0, 0), (0, 0, 0), indices=three_targets(1)),
    "alpha of black": rgba(np.zeros_like(SHAPE), SHAPE),
    "alpha of white": rgba(np.full_like(SHAPE, 255), SHAPE),
    "alpha of grey": Image.merge("LA", [Image.fromarray(0 * SHAPE), Image.fromarray(SHAPE)]),
    "white on transparent black": rgba(SHAPE, SHAPE),
    "opaque": rgba(SHAPE, np.full_like(SHAPE, 255)),
    "soft grey": three_targets(200, 255, 200),
    "dark on white": 255 - SHAPE,
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_targets_are_found_however_they_are_marked(tmp_path, way):
    options = {"transparency": b"\x00\xff"} if "one is transparent" in way else {}
    mask = saved(tmp_path / "m.png", WAYS[way], **options)
    np.testing.assert_array_equal(mask.targets, SHAPE > 0)
    np.testing.assert_array_equal(mask.levels > 0.5, SHAPE > 0)
    np.testing.assert_array_equal(mask.labels > 0, SHAPE > 0)


@pytest.mark.parametrize("quality", [75, 95])
def test_compression_adds_no_targets(tmp_path, quality):
    assert (saved(tmp_path / "m.jpg", SHAPE, quality=quality).targets == (SHAPE > 0)).all()
    assert not saved(tmp_path / "m.jpg", np.zeros_like(SHAPE), quality=quality).targets.any()


def test_single_pixels_are_targets_after_blurring(tmp_path):
    mask = SHAPE.copy()
    mask[28, 5] = 255
    regions = find_regions(saved(tmp_path / "m.png", cv2.GaussianBlur(mask, (5, 5), 1)).targets)
    assert regions.centroids.round().tolist() == [[3, 4], [13, 21], [23, 31], [28, 5]]


@pytest.mark.parametrize("factor", [1.5, 2, 3])
def test_soft_edges_of_a_resized_mask_are_cut_at_half_of_each_target(tmp_path, factor):
    dim = three_targets(80, 255, 160)
    mask = saved(tmp_path / "m.png", cv2.resize(dim, None, fx=factor, fy=factor))
    regions = find_regions(mask.targets)
    assert len(regions) == 3
    assert np.abs(np.sqrt(regions.areas) - 3 * factor).max() < 1
    assert mask.meaning.soft_below > 0


def test_a_few_interpolated_pixels_make_a_mask_soft_and_not_one_of_labels(tmp_path):
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[20:45, 5:35] = 255
    mask[19, 6:28:2] = (7, 17, 114, 115, 127, 146, 150, 164, 186, 187, 242)  # the values of IRSTD-1K's XDU325
    found = saved(tmp_path / "m.png", mask)
    np.testing.assert_array_equal(found.targets, mask > 127)
    assert len(np.unique(found.labels)) == 2


def test_labels_separate_targets_that_touch(tmp_path):
    mask = np.zeros((20, 20), dtype=np.uint8)
    mask[4:8, 4:8], mask[4:8, 8:12], mask[12:14, 12:14] = 1, 2, 3
    assert np.unique(saved(tmp_path / "m.png", mask).labels).tolist() == [0, 1, 2, 3]


def test_borders_of_pascal_voc_are_no_targets(tmp_path):
    mask = np.zeros((20, 20), dtype=np.uint8)
    mask[4:11, 4:11], mask[6:9, 6:9] = 2, 1
    found = saved(tmp_path / "m.png", with_palette((0, 0, 0), (128, 0, 0), (224, 224, 192), indices=mask))
    np.testing.assert_array_equal(found.targets, mask == 1)
    assert found.meaning.remark == "colour 224, 224, 192, of borders, was taken for background"


NOISE = np.random.default_rng(0).integers(0, 3, (32, 40)).astype(np.uint8)
FAINT = three_targets(255)
FAINT[0, 0] = 1


@pytest.mark.parametrize(
    ("mask", "targets", "remark"),
    [
        (NOISE, 0, "no value covers enough of the picture to be sure; 0 to 2 were taken for background"),
        (255 - SHAPE, 3, "value 255, in 97.9% of the picture, was taken for background"),
        (np.full_like(SHAPE, 7), 0, "value 7, in 100.0% of the picture, was taken for background"),
        (FAINT, 3, "values up to 1, beside 255, were taken for background"),
        (SHAPE, 3, ""),
    ],
    ids=["noise", "dark on white", "one value", "faint pixels", "usual"],
)
def test_what_was_taken_for_background_is_told_if_it_is_in_doubt(tmp_path, mask, targets, remark):
    found = saved(tmp_path / "m.png", mask)
    assert (len(find_regions(found.targets)), found.meaning.remark) == (targets, remark)


def test_levels_below_the_full_scale_stay_grey_for_published_definitions(tmp_path):
    found = saved(tmp_path / "m.png", three_targets(64, 200, 255))
    assert find_regions(found.levels == 1).areas.tolist() == [9]
    assert len(find_regions(found.levels > 0.5)) == 3
    assert found.meaning.mixed == (64, 200, 255)


def test_labels_are_no_grey_levels(tmp_path):
    assert np.unique(saved(tmp_path / "m.png", three_targets(1, 2, 3)).levels).tolist() == [0, 1]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("case", "count"),
    [
        *((name, 3) for name in ("binary_1", "binary_255", "instance_1_2_3", "mask_16bit", "mask_1bit")),
        *((name, 3) for name in ("mask_other_size", "palette_voc", "rgba_mask", "soft_grey")),
        ("empty_with_noise", 0),
    ],
)
def test_masks_of_other_tools_give_their_targets(shared_root, case, count):
    path = shared_root / "cases" / "masks" / case / "masks" / "a.png"
    assert len(find_regions(read_mask(path))) == count
