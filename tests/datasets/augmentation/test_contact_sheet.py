"""Contact sheets show every frame of every clip, and boxes only in the key frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datasets.augmentation.contact_sheet import BOX_COLOUR, SPACING, contact_sheet
from datasets.sequences.clips import Clip


def clip_of(*, boxes=((10, 8, 14, 12),), dtype=np.uint8, size=(24, 32)) -> Clip:
    frames = np.random.default_rng(0).integers(0, 90, (3, *size)).astype(dtype)
    rows = np.array(boxes, np.float32).reshape(-1, 4)
    return Clip(frames, rows, np.zeros(len(rows), np.int64))


def outlined(page: np.ndarray) -> np.ndarray:
    return np.argwhere((page == BOX_COLOUR).all(axis=2))


def test_a_sheet_has_a_row_for_each_clip_and_a_column_for_each_frame():
    page = contact_sheet([clip_of()] * 4)
    assert page.shape == (4 * (24 + SPACING) + SPACING, 3 * 32 + 2 * SPACING + 2 * SPACING, 3)
    assert page.dtype == np.uint8


def test_outlines_are_in_the_key_frame_and_off_the_target():
    marks = outlined(contact_sheet([clip_of()]))
    columns = marks[:, 1] - SPACING - 2 * (32 + SPACING)
    rows = marks[:, 0] - SPACING
    assert columns.min() == 7
    assert columns.max() == 16
    assert not (((columns >= 10) & (columns < 14)) & ((rows >= 8) & (rows < 12))).any()


def test_clips_without_targets_have_no_outlines():
    assert not len(outlined(contact_sheet([clip_of(boxes=())])))


def test_a_mask_is_outlined():
    mask = np.zeros((24, 32), bool)
    mask[5:9, 20:25] = True
    assert len(outlined(contact_sheet([replace(clip_of(boxes=()), mask=mask)]))) == 14


def test_sixteen_bits_are_shown_from_darkest_to_brightest():
    page = contact_sheet([clip_of(boxes=(), dtype=np.uint16)])
    assert (page.min(), page.max()) == (0, 255)


def test_clips_of_different_size_fit_on_one_sheet():
    page = contact_sheet([clip_of(), clip_of(size=(40, 20), boxes=())], columns=2)
    assert page.shape[0] == 40 + 2 * SPACING


def test_an_empty_sheet_is_refused():
    with pytest.raises(ValueError, match="one clip or more"):
        contact_sheet([])
