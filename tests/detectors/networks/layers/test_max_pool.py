"""The fast 2×2 maximum is torch's, with and without gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from detectors.networks.layers.max_pool import halved


@pytest.mark.parametrize("shape", [(2, 3, 8, 12), (1, 1, 2, 2)], ids=["batch", "one cell"])
def test_maxima_are_those_of_torch_without_gradients(shape):
    x = torch.randn(shape)
    x[..., 0, 1] = torch.nan
    with torch.inference_mode():
        assert torch.equal(halved(x).nan_to_num(-9), F.max_pool2d(x, 2).nan_to_num(-9))


def test_the_gradient_goes_to_the_first_of_equal_cells():
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    halved(x).sum().backward()
    assert x.grad.flatten().tolist() == [1, 0, 0, 0]
