"""Tiles cover a region, and their detections become those of the frame, each target once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from detectors.inference.tiling.layout import Region, merge, split
from pipeline.structures.detections import Detections
from pipeline.structures.rectangle import Rectangle

SIZE = 1000, 800
WHOLE = Rectangle(0, 0, *SIZE)
TARGETS = 1000


@pytest.mark.parametrize("tile", [(320, 256), (640, 512), (333, 800), (2000, 2000)])
@pytest.mark.parametrize("overlap", [0, 1, 64])
def test_tiles_cover_a_region_in_one_size_and_share_the_overlap(tile, overlap):
    rectangle = Rectangle(10, 20, 900, 790)
    tiles = split(rectangle, tile, overlap)
    covered = np.zeros((800, 1000), int)
    for one in tiles:
        covered[one.slices()] += 1
    inside = covered[rectangle.slices()]
    assert inside.min() == 1
    assert covered.sum() == inside.sum()
    assert len({(one.right - one.left, one.bottom - one.top) for one in tiles}) == 1
    lefts = sorted({(one.left, one.right) for one in tiles})
    assert all(right - left >= overlap for (_, right), (left, _) in pairwise(lefts))


def seen_in(tile, boxes, scores, *, jitter=None):
    """What a network that finds everything finds in a tile: boxes cut at its edges, in its pixels."""
    low, high = np.array(tile[:2]), np.array(tile[2:])
    moved = boxes if jitter is None else boxes + np.tile(jitter, 2)
    cut = np.concatenate([np.maximum(moved[:, :2], low), np.minimum(moved[:, 2:], high)], axis=1)
    is_there = (cut[:, 2:] - cut[:, :2] >= 1).all(axis=1)
    return Detections(cut[is_there] - np.tile(low, 2), scores[is_there], np.zeros(is_there.sum())), is_there


def spread_targets(chance, count):
    """Boxes of targets of 2 to 12 pixels whose centres are 20 pixels apart or more."""
    centres = np.zeros((0, 2))
    cells = np.stack(np.meshgrid(np.arange(0, SIZE[0] - 24, 25), np.arange(0, SIZE[1] - 24, 25)), axis=-1)
    cells = chance.permutation(cells.reshape(-1, 2))[:count]
    centres = cells + 10 + chance.uniform(0, 5, cells.shape)
    sides = chance.uniform(2, 12, cells.shape)
    return np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tile", [(320, 256), (640, 512), (200, 100)])
def test_each_of_a_thousand_targets_is_found_once(seed, tile):
    chance = np.random.default_rng(seed)
    boxes = spread_targets(chance, TARGETS)
    scores = chance.uniform(0.1, 1, len(boxes))
    tiles = split(WHOLE, tile, 32)
    found = [seen_in(one, boxes, scores)[0] for one in tiles]
    merged = merge(found, tiles, [Region(WHOLE)], SIZE)
    order = np.argsort(-scores, kind="stable")
    assert len(boxes) == TARGETS
    assert len(merged) == TARGETS
    np.testing.assert_allclose(merged.boxes, boxes[order], atol=1e-3)
    np.testing.assert_allclose(merged.scores, scores[order], atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_targets_are_found_once_if_tiles_disagree_about_their_place(seed):
    chance = np.random.default_rng(seed)
    boxes = spread_targets(chance, TARGETS)
    scores = chance.uniform(0.1, 1, len(boxes))
    tiles = split(WHOLE, (320, 256), 32)
    jitters = [chance.uniform(-0.7, 0.7, (len(boxes), 2)) for _ in tiles]
    found = [
        seen_in(one, boxes, scores, jitter=jitter)[0] for one, jitter in zip(tiles, jitters, strict=True)
    ]
    merged = merge(found, tiles, [Region(WHOLE)], SIZE)
    assert len(merged) == TARGETS
    near = np.abs(merged.boxes - boxes[np.argsort(-scores, kind="stable")]).max()
    assert near <= 0.71


def test_a_target_that_only_the_edge_of_a_tile_shows_is_left_out():
    tiles = split(Rectangle(0, 0, 180, 100), (100, 100), 20)
    at_the_edge = Detections([[95, 50, 98, 53]], [0.9], [0])
    merged = merge([at_the_edge, Detections.empty()], tiles, [Region(Rectangle(0, 0, 180, 100))], (180, 100))
    assert len(merged) == 0


def test_a_target_that_one_tile_shows_at_the_middle_of_a_seam_is_kept():
    tiles = split(Rectangle(0, 0, 180, 100), (100, 100), 20)
    at_the_seam = Detections([[89, 50, 92, 53]], [0.9], [0])
    merged = merge([at_the_seam, Detections.empty()], tiles, [Region(Rectangle(0, 0, 180, 100))], (180, 100))
    assert merged.boxes.tolist() == [[89, 50, 92, 53]]


def test_two_targets_side_by_side_on_a_seam_stay_two():
    tiles = split(Rectangle(0, 0, 180, 100), (100, 100), 20)
    boxes = np.array([[86, 50, 89, 53], [91, 50, 94, 53]], float)
    found = [seen_in(one, boxes, np.array([0.9, 0.8]))[0] for one in tiles]
    merged = merge(found, tiles, [Region(Rectangle(0, 0, 180, 100))], (180, 100))
    assert merged.boxes.tolist() == boxes.tolist()


def test_centres_outside_of_a_polygon_are_left_out():
    triangle = Region(Rectangle(0, 0, 100, 100), ((0.0, 0.0), (100.0, 0.0), (0.0, 100.0)))
    found = Detections([[10, 10, 12, 12], [80, 80, 82, 82]], [0.5, 0.9], [0, 0])
    merged = merge([found], [Rectangle(0, 0, 100, 100)], [triangle], (100, 100))
    assert merged.boxes.tolist() == [[10, 10, 12, 12]]


def test_a_target_in_two_regions_is_found_once():
    rectangles = [Rectangle(0, 0, 60, 60), Rectangle(40, 0, 100, 60)]
    boxes, scores = np.array([[48, 20, 52, 24], [10, 10, 13, 13]], float), np.array([0.9, 0.5])
    found = [seen_in(one, boxes, scores)[0] for one in rectangles]
    merged = merge(found, rectangles, [Region(one) for one in rectangles], (100, 60))
    assert merged.boxes.tolist() == boxes.tolist()


def test_no_detections_stay_none():
    tiles = split(WHOLE, (320, 256), 32)
    assert len(merge([Detections.empty()] * len(tiles), tiles, [Region(WHOLE)], SIZE)) == 0
