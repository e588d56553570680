"""Pictures become the numbers that published backbones were trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detectors.inference.normalisation import DEVIATION, MEAN, to_network_input


def expected(shares: np.ndarray) -> np.ndarray:
    """(B, 3, H, W) values in [0, 1] → normalised, in float64."""
    mean, deviation = (np.array(values).reshape(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    return (shares - mean) / deviation


@pytest.mark.parametrize(
    ("dtype", "full_scale"),
    [(np.uint8, 255), (np.uint16, 16383), (np.uint16, 65535), (np.float32, 65535)],
    ids=["8 bits", "14 bits", "16 bits", "resized 16 bits"],
)
def test_grey_is_given_to_all_three_channels(dtype, full_scale):
    images = np.random.default_rng(0).integers(0, full_scale + 1, (2, 4, 5)).astype(dtype)
    found = to_network_input(images, full_scale=full_scale)
    shares = np.repeat(images[:, None].astype(float) / full_scale, 3, axis=1)
    assert found.dtype == torch.float32
    assert np.abs(found.numpy() - expected(shares)).max() < 1e-6


def test_colour_stays_in_the_order_red_green_blue():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    found = to_network_input(list(images))
    assert np.abs(found.numpy() - expected(np.moveaxis(images, -1, 1) / 255)).max() < 1e-6


def test_neighbouring_sixteen_bit_levels_stay_apart():
    ramp = np.arange(65536, dtype=np.uint16).reshape(1, 256, 256)
    assert len(to_network_input(ramp, full_scale=65535)[0, 0].unique()) == 65536


def test_a_batch_equals_its_images():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5), np.uint8)
    each = torch.cat([to_network_input([image]) for image in images])
    torch.testing.assert_close(to_network_input(images), each, rtol=0, atol=0)
