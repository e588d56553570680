"""Attention in chunks has the values and gradients of torch's attention, and is used only on request."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from detectors.networks.tridos import swin
from detectors.networks.tridos.learned_attention import WINDOWS, attend
from tests.support import training_runs


def inputs(windows, *, kind=torch.float64, seed=0):
    chance = torch.Generator().manual_seed(seed)
    shapes = [(windows, 2, 6, 4)] * 3 + [(1, 2, 6, 6)]
    return [torch.randn(shape, generator=chance, dtype=kind).requires_grad_() for shape in shapes]


def mask_of(windows):
    return -100.0 * (torch.rand(windows, 1, 6, 6, generator=torch.Generator().manual_seed(1)) < 0.3).double()


@pytest.mark.parametrize("windows", [1, WINDOWS, 2 * WINDOWS + 3])
@pytest.mark.parametrize("masked", [True, False])
def test_values_and_gradients_are_those_of_torch(windows, masked):
    ours, theirs = inputs(windows), inputs(windows)
    mask = mask_of(windows) if masked else None
    query, key, value, bias = theirs
    expected = F.scaled_dot_product_attention(
        query, key, value, attn_mask=bias.expand(windows, -1, -1, -1) + (0 if mask is None else mask)
    )
    found = attend(*ours, mask)
    torch.testing.assert_close(found, expected)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(2), dtype=found.dtype)
    for output in (found, expected):
        (output * weight).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_gradients_are_those_of_small_differences():
    assert torch.autograd.gradcheck(attend, (*inputs(3), mask_of(3)))


def test_half_precision_is_computed_in_single():
    query, key, value, bias = (x.detach().bfloat16() for x in inputs(5, kind=torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(query, key, value, bias)
    assert found.dtype == torch.bfloat16
    whole = attend(*(x.float() for x in (query, key, value, bias)))
    assert torch.equal(found, whole.bfloat16())


@pytest.mark.parametrize("size", [(8, 12), (4, 8)], ids=["shifted", "one row of windows"])
def test_both_window_layers_have_the_gradients_of_torch(monkeypatch, size):
    torch.manual_seed(0)
    model, frames = swin.Swin(8, frames=5).double(), torch.randn(2, 5, 8, *size, dtype=torch.float64)

    def gradients():
        model.zero_grad()
        model(frames).pow(3).sum().backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    default = gradients()
    swin.use_chunked_attention(model)
    ours = gradients()
    for name, gradient in default.items():
        torch.testing.assert_close(ours[name], gradient, msg=name)

    def plain(query, key, value, bias, mask):
        bias = bias if mask is None else bias + mask
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)

    monkeypatch.setattr(swin, "attend", plain)
    for name, gradient in gradients().items():
        torch.testing.assert_close(ours[name], gradient, msg=name)


def test_a_training_uses_it_only_on_request(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(swin, "attend", lambda *inputs: calls.append(1) or attend(*inputs))
    training_runs.write_clip(tmp_path)
    assert training_runs.run(tmp_path, tmp_path / "default", 1) == 0
    assert not calls
    assert training_runs.run(tmp_path, tmp_path / "chunked", 1, **{"schedule.chunked_attention": True}) == 0
    assert len(calls) == 2
