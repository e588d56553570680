"""Geometry maps boxes and pixels to the network consistently, and boxes back exactly."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.imaging.geometry import Geometry, resize_image

ODD_SIZES = [(320, 256), (333, 251), (97, 641), (1, 1), (31, 33), (640, 512), (1920, 1080)]
KINDS = {
    "stretch": lambda source: Geometry.stretch(source, (320, 256)),
    "letterbox": lambda source: Geometry.letterbox(source, (512, 416)),
    "native": Geometry.native,
}


@pytest.fixture(scope="module")
def arrays(shared_root):
    with np.load(shared_root / "parity" / "tridos.pre.npz") as stored:
        return dict(stored)


def random_boxes(width: int, height: int, count: int = 100) -> np.ndarray:
    places = np.random.default_rng(0).uniform(-0.1, 1.1, (count, 2, 2)) * (width, height)
    return np.sort(places, axis=1).reshape(count, 4)


def blob(size: tuple[int, int], centre: tuple[float, float], sigma: float, peak: float) -> np.ndarray:
    """Returns a Gaussian sampled at the centre of each pixel: (h, w) float."""
    columns, rows = (np.arange(side) + 0.5 for side in size)
    distance = (columns - centre[0]) ** 2 + (rows[:, None] - centre[1]) ** 2
    return peak * np.exp(-distance / (2 * sigma**2))


def centroid(image: np.ndarray) -> tuple[float, float]:
    """Returns the centroid (x, y); the origin is the outer corner of the top-left pixel."""
    columns, rows = (np.arange(side) + 0.5 for side in image.shape[::-1])
    total = image.sum()
    return (image.sum(axis=0) @ columns) / total, (image.sum(axis=1) @ rows) / total


# Boxes


@pytest.mark.parametrize("size", ODD_SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_mapping_boxes_to_the_network_and_back_is_exact(kind, size):
    geometry, boxes = KINDS[kind](size), random_boxes(*size)
    assert np.abs(geometry.to_source(geometry.to_network(boxes)) - boxes).max() < 1e-9


@pytest.mark.parametrize("size", ODD_SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_image_becomes_the_whole_content(kind, size):
    geometry = KINDS[kind](size)
    left, top = geometry.offset
    expected = [left, top, left + geometry.content[0], top + geometry.content[1]]
    assert np.allclose(geometry.to_network(np.array([[0, 0, *size]])), [expected], rtol=0, atol=1e-9)
    assert (np.array(expected[2:]) <= geometry.network).all()


def test_empty_boxes_stay_empty():
    none = np.zeros((0, 4))
    assert Geometry.native((33, 31)).to_source(none).shape == (0, 4)


@pytest.mark.parametrize(
    ("source", "content", "offset"),
    [
        ((320, 256), (320, 256), (0, 32)),
        ((640, 512), (320, 256), (0, 32)),
        ((100, 400), (80, 320), (120, 0)),
        ((333, 251), (320, 241), (0, 39)),
    ],
    ids=["as it is", "half", "tall", "odd"],
)
def test_a_letterbox_keeps_the_aspect_and_centres(source, content, offset):
    geometry = Geometry.letterbox(source, (320, 320))
    assert (geometry.content, geometry.offset) == (content, offset)


@pytest.mark.parametrize(
    ("source", "network"),
    [((320, 256), (320, 256)), ((321, 255), (352, 256)), ((1, 1), (32, 32)), ((640, 480), (640, 480))],
    ids=str,
)
def test_native_size_is_the_next_multiple_of_32(source, network):
    assert Geometry.native(source).network == network


# Pixels


@pytest.mark.real_data
@pytest.mark.parametrize("kind", ["letterbox", "stretch"])
def test_resizing_gives_the_published_pixels(kind, arrays):
    image = arrays["image"]
    geometry = getattr(Geometry, kind)(image.shape[::-1], (64, 48))
    np.testing.assert_array_equal(geometry.apply(image), arrays[f"resized_{kind}"])


@pytest.mark.real_data
def test_shrinking_gives_the_published_pixels(arrays):
    image = arrays["image"]
    shrunk = Geometry.letterbox(image.shape[::-1], (16, 12)).apply(image)
    np.testing.assert_array_equal(shrunk, arrays["shrunk_letterbox"])


@pytest.mark.real_data
@pytest.mark.parametrize("kind", ["letterbox", "stretch"])
def test_the_network_input_is_the_published_one(kind, arrays):
    from detectors.inference.normalisation import to_network_input  # loads torch

    image = arrays["image"]
    geometry = getattr(Geometry, kind)(image.shape[::-1], (64, 48))
    found = to_network_input([geometry.apply(image)])[0]
    assert np.abs(found.numpy() - arrays[f"network_{kind}"]).max() < 1e-6


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry.stretch((80, 64), (160, 96)),
        Geometry.stretch((80, 64), (64, 32)),
        Geometry.letterbox((80, 64), (160, 160)),
        Geometry.letterbox((81, 63), (64, 64)),
        Geometry.native((81, 63)),
    ],
    ids=["stretch up", "stretch down", "letterbox up", "letterbox down", "native"],
)
@pytest.mark.parametrize("centre", [(33.3, 30.1), (40.5, 25.5), (29.75, 36.0)], ids=str)
def test_a_small_blob_moves_to_its_mapped_centre(geometry, centre):
    """To 0.05 network pixels, for a Gaussian of sigma 1.5 pixels."""
    image = blob(geometry.source, centre, sigma=1.5, peak=60000).round().astype(np.uint16)
    left, top = geometry.offset
    content = geometry.apply(image, full_scale=65535).astype(float)
    content = content[top : top + geometry.content[1], left : left + geometry.content[0]]
    expected = geometry.to_network(np.array([[*centre, *centre]]))[0, :2]
    found = np.add(centroid(content), (left, top))
    assert np.hypot(*(found - expected)) < 0.05


def test_a_letterbox_is_grey_around_the_content():
    image = Geometry.letterbox((32, 16), (64, 64)).apply(np.zeros((16, 32), np.uint8))
    assert (image[:16] == 128).all()
    assert (image[48:] == 128).all()
    assert not image[16:48].any()


def test_letterbox_grey_scales_with_the_bit_depth():
    image = Geometry.letterbox((32, 16), (64, 64)).apply(np.zeros((16, 32), np.uint16), full_scale=16383)
    assert image[0, 0] == round(16383 * 128 / 255)


def test_native_images_replicate_their_edge_and_keep_every_pixel():
    image = np.random.default_rng(0).integers(0, 256, (30, 37), np.uint8)
    padded = Geometry.native((37, 30)).apply(image)
    assert padded.shape == (32, 64)
    np.testing.assert_array_equal(padded[:30, :37], image)
    assert (padded[:30, 37:] == image[:, -1:]).all()
    assert (padded[30:, :37] == image[-1]).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colour_images_are_resized_channel_by_channel(kind, dtype):
    image = np.random.default_rng(0).integers(0, 256, (45, 70, 3)).astype(dtype)
    image[0, 0], image[0, 1] = 0, 255  # channels are clipped to the range of the image
    geometry = KINDS[kind]((70, 45))
    whole = geometry.apply(image)
    for channel in range(3):
        alone = image[..., channel].copy()
        np.testing.assert_array_equal(whole[..., channel], geometry.apply(alone))


def test_sixteen_bit_levels_survive_at_native_size():
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    padded = Geometry.native((256, 256)).apply(ramp, full_scale=65535)
    assert padded.dtype == np.uint16
    assert len(np.unique(padded)) == 65536


def test_resizing_does_not_reduce_sixteen_bit_levels_to_eight():
    ramp = np.tile(np.arange(0, 1024, 4, dtype=np.uint16), (64, 1))  # as dark as the darkest 4 of 256 levels
    doubled = resize_image(ramp, (512, 64))
    assert doubled.dtype == np.float32
    assert len(np.unique(doubled[32])) > 450
    exact = np.interp(np.arange(8, 504) / 2 - 0.25, np.arange(256), ramp[0])
    assert np.abs(doubled[32, 8:-8] - exact).max() < 1


def test_resized_deep_pixels_stay_within_the_range_of_the_image():
    image = np.full((32, 32), 100, np.uint16)
    image[16:, :] = 60000  # bicubic kernels overshoot at edges
    resized = resize_image(image, (77, 77))
    assert (resized.min(), resized.max()) == (100, 60000)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match="image is 32x16, expected"):
        Geometry.native((16, 32)).apply(np.zeros((16, 32), np.uint8))
