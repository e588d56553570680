"""Deformable convolution equals its definition in every implementation."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from detectors.networks.layers import deformable
from detectors.networks.layers.deformable import (
    DeformableConv,
    deformable_convolution,
    deformable_convolution_torch,
    torchvision_operator,
)


def case(kernel=3, cin=3, cout=4, batch=2, rows=5, columns=7, reach=2.0):
    """x, offset, modulation, weight, bias in float64; displacements of about `reach` pixels."""
    make = torch.Generator().manual_seed(kernel * 100 + rows)
    taps = kernel * kernel

    def normal(*shape):
        return torch.randn(*shape, generator=make, dtype=torch.float64)

    return (
        normal(batch, cin, rows, columns),
        normal(batch, 2 * taps, rows, columns) * reach,
        torch.rand(batch, taps, rows, columns, generator=make, dtype=torch.float64),
        normal(cout, cin, kernel, kernel),
        normal(cout),
    )


def sample(x, b, c, y, column):
    """Bilinear value at a position in pixels, zeros outside."""
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for place in (math.floor(column), math.floor(column) + 1):
            if 0 <= row < x.shape[2] and 0 <= place < x.shape[3]:
                total += float(x[b, c, row, place]) * (1 - abs(y - row)) * (1 - abs(column - place))
    return total


def by_definition(x, offset, modulation, weight, bias):
    batch, cin, rows, columns = x.shape
    cout, _, size, _ = weight.shape
    out = torch.zeros(batch, cout, rows, columns, dtype=torch.float64)
    for b, r, c in ((b, r, c) for b in range(batch) for r in range(rows) for c in range(columns)):
        out[b, :, r, c] = bias
        for i, j in ((i, j) for i in range(size) for j in range(size)):
            tap = size * i + j
            y = r - size // 2 + i + float(offset[b, 2 * tap, r, c])
            column = c - size // 2 + j + float(offset[b, 2 * tap + 1, r, c])
            for channel in range(cin):
                value = float(modulation[b, tap, r, c]) * sample(x, b, channel, y, column)
                out[b, :, r, c] += weight[:, channel, i, j] * value
    return out


CASES = {
    "3x3": {},
    "5x5": {"kernel": 5},
    "1x1": {"kernel": 1},
    "far outside": {"reach": 1e3},
    "beyond the range of integers": {"reach": 1e25},
    "one row": {"rows": 1},
    "one column": {"columns": 1},
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_the_definition_gives(name):
    arguments = case(**CASES[name])
    assert torch.allclose(
        deformable_convolution_torch(*arguments), by_definition(*arguments), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.0, 5.0, -7.0])
def test_whole_numbers_of_pixels_are_read_where_they_are(shift):
    """Including positions just outside of the image."""
    x, offset, *rest = case()
    arguments = (x, torch.full_like(offset, shift), *rest)
    assert torch.allclose(
        deformable_convolution_torch(*arguments), by_definition(*arguments), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_without_displacement_it_is_a_plain_convolution(kernel):
    x, offset, modulation, weight, bias = case(kernel, rows=12)
    found = deformable_convolution_torch(
        x, torch.zeros_like(offset), torch.ones_like(modulation), weight, bias
    )
    assert torch.allclose(found, torch.nn.functional.conv2d(x, weight, bias, padding=kernel // 2))


def test_the_gradients_are_those_of_finite_differences():
    arguments = [tensor.requires_grad_() for tensor in case(batch=1, cin=2, cout=2, rows=3, columns=3)]
    assert torch.autograd.gradcheck(deformable_convolution_torch, arguments, fast_mode=True)


@pytest.mark.parametrize("size", [1, 3000], ids=["row by row", "a few rows at a time"])
def test_the_size_of_the_parts_changes_neither_values_nor_gradients(size, monkeypatch):
    arguments = [tensor.requires_grad_() for tensor in case(rows=9)]
    whole = deformable_convolution_torch(*arguments)
    ones = torch.ones_like(whole)
    gradients = torch.autograd.grad(whole, arguments, ones)
    monkeypatch.setattr(deformable, "COLUMN_BYTES", size)
    parts = deformable_convolution_torch(*arguments)
    assert torch.allclose(parts, whole, rtol=0, atol=1e-12)
    for found, expected in zip(torch.autograd.grad(parts, arguments, ones), gradients, strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-11)


def test_training_does_not_keep_the_samples():
    arguments = [tensor.requires_grad_() for tensor in case(kernel=5, cin=16, rows=20, columns=20)]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        deformable_convolution_torch(*arguments)
    samples = 25 * 16 * 20 * 20
    assert max(kept, default=0) < samples / 2


def test_a_position_that_is_no_number_gives_no_number_there_alone():
    x, offset, *rest = case()
    offset[0, 3, 2, 4] = float("nan")
    found = deformable_convolution_torch(x, offset, *rest)
    assert found[0, :, 2, 4].isnan().all()
    assert found.isnan().sum() == found.shape[1]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(kind):
    arguments = [tensor.to(kind) for tensor in case()]
    found = deformable_convolution(*arguments)
    assert found.dtype == kind
    torch.testing.assert_close(
        found,
        deformable_convolution_torch(*(tensor.float() for tensor in arguments)).to(kind),
        rtol=0,
        atol=0,
    )


def test_a_fresh_layer_is_half_a_plain_convolution():
    """It starts without displacement and with modulation sigmoid(0)."""
    layer = DeformableConv(3, 5, 3)
    x = torch.randn(2, 3, 6, 8)
    plain = torch.nn.functional.conv2d(x, layer.weight, padding=1)
    assert torch.allclose(layer(x), plain / 2, rtol=0, atol=1e-6)
    assert layer.weight.abs().max() <= 27**-0.5


@pytest.mark.parametrize("kernel", [0, 2, 4])
def test_a_kernel_without_a_middle_is_refused(kernel):
    with pytest.raises(ValueError, match=f"kernel = {kernel}, expected an odd number"):
        DeformableConv(1, 1, kernel)


@pytest.fixture
def fresh_lookup():
    torchvision_operator.cache_clear()
    yield
    torchvision_operator.cache_clear()


def test_a_missing_torchvision_is_no_error(fresh_lookup, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    assert torchvision_operator() is None


def test_a_torchvision_made_for_another_torch_is_no_error(fresh_lookup, monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator does not exist')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert torchvision_operator() is None


def test_torchvision_gives_the_same_values_and_gradients():
    operator = torchvision_operator()
    if operator is None:
        pytest.skip("torchvision cannot be imported")
    x, offset, modulation, weight, bias = (tensor.requires_grad_() for tensor in case(kernel=5))
    ours = deformable_convolution_torch(x, offset, modulation, weight, bias)
    theirs = operator(x, offset, weight, bias, padding=2, mask=modulation)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    inputs = (x, offset, modulation, weight, bias)
    pairs = zip(*(torch.autograd.grad(out.square().sum(), inputs) for out in (ours, theirs)), strict=True)
    assert all(torch.allclose(found, expected, rtol=1e-9, atol=1e-9) for found, expected in pairs)


@pytest.mark.needs_cuda
def test_a_gpu_gives_what_a_processor_gives(request):
    if not (torch.cuda.is_available() or request.config.getoption("--require-cuda")):
        pytest.skip("no CUDA device (--require-cuda makes this a failure)")
    arguments = case(kernel=5, rows=20)
    found = deformable_convolution(*(tensor.cuda() for tensor in arguments))
    assert torch.allclose(found.cpu(), deformable_convolution_torch(*arguments), rtol=0, atol=1e-10)
