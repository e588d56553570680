"""The fast 2×2 maximum is torch's, with and without gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from detectors.networks.layers.max_pool import max_pool_2x2


@pytest.mark.parametrize("shape", [(2, 3, 8, 12), (1, 1, 2, 2)], ids=["batch", "one cell"])
def test_maxima_are_those_of_torch_without_gradients(shape):
    x = torch.randn(shape)
    x[..., 0, 1] = torch.nan
    with torch.inference_mode():
        torch.testing.assert_close(
            max_pool_2x2(x).nan_to_num(-9), F.max_pool2d(x, 2).nan_to_num(-9), rtol=0, atol=0
        )


def test_the_gradient_goes_to_the_first_of_equal_cells():
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    max_pool_2x2(x).sum().backward()
    assert x.grad.flatten().tolist() == [1, 0, 0, 0]
