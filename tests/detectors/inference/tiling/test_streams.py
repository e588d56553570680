"""A detector on tiles finds in each what it finds in a frame of its own, in pixels of the whole frame."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from detectors.inference.multi_stream import MultiStreamDetector
from detectors.inference.tiling.streams import TiledDetector, Views, in_views, share
from detectors.loading import load_detector
from pipeline.config.schema import DetectorConfig
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame, Gap
from pipeline.structures.results import FrameDetections
from pipeline.system.errors import UsageError
from tests.support.nano import save_nano

WIDTH, HEIGHT = 160, 96
TILES = DetectorConfig(tile="96x64", tile_overlap=16)


class BrightPixels:
    """Stub network without a window: each bright pixel is a target of its own score."""

    window = 1

    def detect(self, groups):
        for frames in groups:
            for frame in frames:
                rows, columns = np.nonzero(frame.image > 100)
                boxes = np.stack([columns, rows, columns + 1, rows + 1], axis=1)
                scores = frame.image[rows, columns] / 256
                yield FrameDetections(frame, Detections(boxes, scores, np.zeros(len(boxes))), False)


def frames(count=3, *, source="a", seed=0):
    """Noise with a moving bright spot."""
    chance = np.random.default_rng(seed)
    images = chance.integers(80, 100, (count, HEIGHT, WIDTH), np.uint8)
    for number, image in enumerate(images):
        image[40 + number : 43 + number, 70 + 2 * number : 73 + 2 * number] = 250
    return [Frame(image, index, Fraction(index, 30), source) for index, image in enumerate(images)]


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    """Makes tridos-nano with weights that find something, without tiles."""
    weights = save_nano(tmp_path_factory.mktemp("weights") / "nano.safetensors")
    config = DetectorConfig(weights=weights, conf=0.2, device="cpu", backend="torch", tile="none")
    return lambda: load_detector(config)[0]


def rows(found):
    """Boxes and scores in a fixed order."""
    return sorted(zip(map(tuple, found.boxes.tolist()), found.scores.tolist(), strict=True))


def test_a_thousand_targets_are_found_once_each_with_a_stub_network():
    chance = np.random.default_rng(0)
    image = np.zeros((768, 1024), np.uint8)
    grid = np.stack(np.meshgrid(np.arange(0, 768, 16), np.arange(0, 1024, 16)), axis=-1).reshape(-1, 2)
    places = chance.permutation(grid)[:1000] + chance.integers(0, 10, (1000, 2))
    image[places[:, 0], places[:, 1]] = 101 + np.arange(1000) % 150
    frame = Frame(image, 0, Fraction(0), "a")
    (whole,) = BrightPixels().detect([(frame,)])
    tiled = TiledDetector(BrightPixels(), DetectorConfig(tile="320x256", tile_overlap=32))
    (found,) = tiled.detect([(frame,)])
    assert len(found.detections) == 1000
    assert rows(found.detections) == rows(whole.detections)
    assert (np.diff(found.detections.scores) <= 0).all()


def test_each_tile_has_a_window_of_its_own(nano):
    config = replace(TILES, tile="96x96", tile_overlap=16)
    views = Views.of(config, (WIDTH, HEIGHT))
    clip = frames(4)
    found = list(TiledDetector(nano(), config).detect([(frame,) for frame in clip]))
    assert len(views.tiles) == 2
    expected = []
    for tile in views.tiles:
        part = [replace(frame, image=np.ascontiguousarray(frame.image[tile.slices()])) for frame in clip]
        expected.append(list(nano().detect([(frame,) for frame in part])))
    for number, item in enumerate(found):
        alone = sum(len(tile[number].detections) for tile in expected)
        boxes = [
            tile[number].detections.boxes + np.tile(place[:2], 2)
            for tile, place in zip(expected, views.tiles, strict=True)
        ]
        known = {tuple(row) for row in np.concatenate(boxes).astype(np.float32).tolist()}
        assert item.frame is clip[number]
        assert item.warmup
        assert 0 < len(item.detections) <= alone
        assert {tuple(row) for row in item.detections.boxes.tolist()} <= known


def test_batches_of_frames_give_the_same_as_frames_one_by_one(nano):
    clip = frames(4)
    one = list(TiledDetector(nano(), TILES).detect([(frame,) for frame in clip]))
    two = list(TiledDetector(nano(), TILES).detect([tuple(clip[:3]), tuple(clip[3:])]))
    assert [item.frame.index for item in two] == [0, 1, 2, 3]
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first.detections.boxes, second.detections.boxes)
        np.testing.assert_array_equal(first.detections.scores, second.detections.scores)


def test_several_sources_share_a_network_on_tiles(nano):
    clips = [frames(2), frames(2, source="b", seed=1)]
    alone = [list(TiledDetector(nano(), TILES).detect([(frame,) for frame in clip])) for clip in clips]
    shared = share(TiledDetector(nano(), TILES), 2)
    rounds = [([(0, clips[0][n]), (1, clips[1][n])], n) for n in range(2)]
    together = list(shared.detect([*rounds, ([], 9)]))
    assert [tag for _, tag in together] == [0, 1, 9]
    assert together[-1][0] == []
    for number, (found, _) in enumerate(together[:2]):
        assert [source for source, _ in found] == [0, 1]
        for source, item in found:
            np.testing.assert_array_equal(item.detections.boxes, alone[source][number].detections.boxes)


def test_a_sequence_that_ends_starts_anew(nano):
    clip = frames(2)
    tiled = TiledDetector(nano(), TILES)
    first = list(tiled.detect([(frame,) for frame in clip]))
    tiled.reset()
    second = list(tiled.detect([(frame,) for frame in clip]))
    for before, after in zip(first, second, strict=True):
        np.testing.assert_array_equal(before.detections.boxes, after.detections.boxes)


def test_a_gap_resets_the_window_of_each_tile(nano):
    clip = frames(2)
    gap = Gap("cut", 0, repeat_previous=False, elapsed_known=False)
    after_cut = replace(clip[1], gap=gap)
    _, found = TiledDetector(nano(), TILES).detect([(clip[0],), (after_cut,)])
    (alone,) = TiledDetector(nano(), TILES).detect([(clip[1],)])
    np.testing.assert_array_equal(found.detections.boxes, alone.detections.boxes)


def test_only_a_region_is_computed_and_coordinates_stay_those_of_the_frame():
    (frame,) = frames(1)
    regions = DetectorConfig(roi=("64,32,40,30",))
    views = Views.of(regions, (WIDTH, HEIGHT))
    (found,) = TiledDetector(BrightPixels(), regions).detect([(frame,)])
    (whole,) = BrightPixels().detect([(frame,)])
    assert views.tiles == ((64, 32, 104, 62),)
    assert sorted(found.detections.boxes.tolist()) == sorted(whole.detections.boxes.tolist())


@pytest.mark.parametrize(
    ("roi", "inside"),
    [
        ("0,0,64,96", 0),
        ("0.4,0.25,0.5,0.5", 9),
        ("0,0 71.2,0 71.2,95 0,95", 3),
        ("0.0,0.0 1,0 1,1 0,1", 9),
    ],
)
def test_detections_outside_of_regions_are_left_out(roi, inside):
    (frame,) = frames(1)
    (found,) = TiledDetector(BrightPixels(), DetectorConfig(roi=(roi,))).detect([(frame,)])
    assert len(found.detections) == inside


def test_regions_are_divided_into_tiles():
    config = DetectorConfig(roi=("0,0,96,64", "64,0,96,64"), tile="64x64", tile_overlap=16)
    views = Views.of(config, (WIDTH, HEIGHT))
    assert views.tiles == ((0, 0, 64, 64), (32, 0, 96, 64), (64, 0, 128, 64), (96, 0, 160, 64))


def test_without_tiles_and_regions_the_detector_is_unchanged():
    stub = BrightPixels()
    assert in_views(stub, DetectorConfig(tile="none")) is stub
    assert in_views(stub, DetectorConfig()) is stub
    assert isinstance(share(stub, 2), MultiStreamDetector)


def test_a_detector_of_another_package_with_a_window_is_refused():
    stub = BrightPixels()
    stub.window = 5
    with pytest.raises(UsageError, match="--tile is not for a detector of another package with a window"):
        in_views(stub, TILES)


@pytest.mark.parametrize("tile", ["16x640", "31x32", "0x40", "big", "640"])
def test_tiles_that_networks_cannot_take_are_refused(tile):
    with pytest.raises(ValueError, match=f"tile = '{tile}', expected"):
        DetectorConfig(tile=tile)


def test_an_overlap_of_more_than_half_a_tile_is_refused():
    with pytest.raises(ValueError, match="tile = '96x128', expected sides of 128 pixels or more"):
        DetectorConfig(tile="96x128")


@pytest.mark.parametrize("roi", ["", "1,2,3", "0,0,0,10", "1,1 2,2", "a,b,c,d", "-1,0,5,5", "1,2,3,4,5"])
def test_regions_that_are_none_are_refused(roi):
    with pytest.raises(ValueError, match=r"roi = '.*', expected X,Y,W,H, or three or more corners"):
        DetectorConfig(roi=(roi,))
