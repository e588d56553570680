"""Edge saliency is the square root of an eigenvalue measure of the local structure tensor."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest

from detectors.networks.segmenters.edge_saliency import MEASURES, edge_images, edge_saliency


def noise(rows=40, columns=56, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(5).integers(0, np.iinfo(dtype).max // 2, (rows, columns)).astype(dtype)


def step(angle: float = 0.0, side: int = 65) -> np.ndarray:
    """An edge through the centre at `angle` degrees from vertical."""
    rows, columns = np.mgrid[:side, :side] - side // 2
    distance = columns * np.cos(np.radians(angle)) + rows * np.sin(np.radians(angle))
    return (128 + 80 * np.clip(distance, -1, 1)).astype(np.uint8)


def target(side: int = 33, dtype=np.uint8) -> np.ndarray:
    """A blob of about three pixels in the middle of a flat frame."""
    frame = np.zeros((side, side), np.float32)
    frame[side // 2, side // 2] = 1
    blurred = cv2.GaussianBlur(frame, (0, 0), 1.0)
    return (20 + 200 * blurred / blurred.max()).astype(dtype)


def by_eigenvalues(frame: np.ndarray, smoothing: float, window: float, measure: str) -> np.ndarray:
    """The definition, pixel by pixel, with a library's eigenvalues."""

    def blurred(image, deviation):
        if deviation == 0:
            return image
        return cv2.GaussianBlur(image, (0, 0), deviation, borderType=cv2.BORDER_REPLICATE)

    image = np.pad(blurred(frame.astype(np.float64), smoothing), 1, mode="edge")
    rows, columns = frame.shape

    def derivative(kernel):
        cells = ((i, j) for i in range(3) for j in range(3))
        return sum(kernel[i][j] * image[i : i + rows, j : j + columns] for i, j in cells)

    x = derivative([[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]])
    y = derivative([[-3, -10, -3], [0, 0, 0], [3, 10, 3]])
    tensor = np.stack([blurred(x * x, window), blurred(x * y, window), blurred(y * y, window)], axis=-1)
    small, large = np.moveaxis(
        np.linalg.eigvalsh(tensor[..., [0, 1, 1, 2]].reshape(rows, columns, 2, 2)), -1, 0
    )
    kept = {"largest": large, "difference": large - small, "smallest": small, "trace": large + small}[measure]
    saliency = np.sqrt(np.maximum(kept, 0))
    return saliency / saliency.max()


@pytest.mark.parametrize(("smoothing", "window"), [(1.0, 1.0), (0.0, 2.0), (2.0, 0.5)], ids=str)
@pytest.mark.parametrize("measure", MEASURES)
def test_saliency_is_what_the_eigenvalues_give(measure, smoothing, window):
    found = edge_saliency(noise(), measure=measure, smoothing=smoothing, window=window)
    assert found.dtype == np.float32
    assert found == pytest.approx(by_eigenvalues(noise(), smoothing, window, measure), abs=1e-3)


def test_the_default_is_the_largest_eigenvalue_at_scales_of_one_pixel():
    assert edge_saliency(noise()) == pytest.approx(by_eigenvalues(noise(), 1.0, 1.0, "largest"), abs=1e-4)


@pytest.mark.parametrize("angle", [0, 30, 45, 90, 150])
def test_an_edge_stands_out_in_every_direction(angle):
    saliency = edge_saliency(step(angle))
    assert saliency[32, 32] > 0.85
    assert saliency[20:45, 20:45].min() < 0.01


@pytest.mark.parametrize("measure", ["largest", "smallest", "trace"])
def test_a_small_target_is_bright_in_its_middle(measure):
    assert edge_saliency(target(), measure=measure)[16, 16] > 0.6


def test_the_difference_of_eigenvalues_leaves_a_hole_in_a_small_target():
    assert edge_saliency(target(), measure="difference")[16, 16] < 0.1


def test_a_wider_window_widens_edges():
    narrow, wide = (edge_saliency(step(), window=window)[32] > 0.5 for window in (0.5, 3.0))
    assert wide.sum() > narrow.sum()


def test_more_smoothing_hides_noise():
    frame = step().astype(np.int16) + np.random.default_rng(0).integers(-8, 9, (65, 65))
    sharp, smooth = (edge_saliency(frame.astype(np.uint8), smoothing=s)[:, :20].mean() for s in (0.5, 2.0))
    assert smooth < 0.6 * sharp


@pytest.mark.parametrize("change", [lambda f: f * 2, lambda f: f + 40, lambda f: f.astype(np.uint16) * 257])
def test_gain_offset_and_bit_depth_do_not_matter(change):
    assert edge_saliency(change(noise())) == pytest.approx(edge_saliency(noise()), abs=1e-5)


def test_sixteen_bits_are_kept_whole():
    """A target of one level in 65536 is the brightest thing of a flat frame."""
    frame = np.full((33, 33), 30_000, np.uint16)
    frame[16, 16] += 1
    saliency = edge_saliency(frame)
    assert saliency[14:19, 14:19].max() == 1
    assert saliency[:6].max() == 0


@pytest.mark.parametrize("value", [0, 1, 37, 255])
def test_a_frame_of_one_grey_value_has_no_edges(value):
    assert not edge_saliency(np.full((47, 33), value, np.uint8)).any()


def test_a_frame_has_no_edge_at_its_border():
    frame = np.tile(np.arange(0, 200, 4, dtype=np.uint8), (30, 1))
    saliency = edge_saliency(frame)
    assert saliency[0] == pytest.approx(saliency[15], abs=1e-5)
    assert saliency[:, 0].max() < 0.8


def test_colour_counts_as_its_grey():
    colour = np.repeat(noise()[..., None], 3, axis=2)
    assert edge_saliency(colour) == pytest.approx(edge_saliency(noise()), abs=1e-5)


@pytest.mark.parametrize("size", [(33, 47), (1, 1), (1, 9), (256, 257)], ids=str)
def test_the_map_has_the_size_of_the_frame(size):
    found = edge_saliency(noise(*size))
    assert found.shape == size
    assert found.min() >= 0
    assert found.max() <= 1


def test_edge_images_are_what_drtenet_takes():
    frames = [noise(32, 32), step(side=32)]
    images = edge_images(frames, window=2.0)
    assert images.shape == (2, 3, 32, 32)
    expected = np.broadcast_to(edge_saliency(frames[1], window=2.0), (3, 32, 32))
    # OpenCV's rounding depends on where in memory an image lies
    np.testing.assert_allclose(images[1], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (noise().astype(np.float64), {}, "float64, expected uint8, uint16 or float32"),
        (noise()[..., None], {}, "expected (H, W) or (H, W, 3)"),
        (noise()[:0], {}, "expected (H, W)"),
        (noise(), {"measure": "sharpest"}, "expected one of largest, difference"),
        (noise(), {"window": -1.0}, "expected 0 or more"),
        (noise(), {"smoothing": float("nan")}, "expected 0 or more"),
    ],
    ids=["double precision", "one channel", "no rows", "measure", "window", "smoothing"],
)
def test_what_cannot_be_used_is_refused_by_name(frame, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        edge_saliency(frame, **options)
