"""The arrangement for speed gives what the network itself gives, and leaves that as it was."""

from __future__ import annotations

import pytest
import torch

import detectors
from detectors import weights
from detectors.tridos import fused
from pipeline import suppress
from pipeline.normalise import to_network_input
from pipeline.sources import open_source

EXACT, HALF = 1e-3, 0.1
"""Largest difference to the plain outputs as a share of their largest value."""


@pytest.fixture(scope="module")
def trained():
    """The embedded weights: those of an untrained network give hundreds of boxes with nearly equal scores."""
    return weights.network("tridos-nano", "tridos-nano-drone-ir")[0].eval()


@pytest.fixture
def lively():
    """A network with random weights and statistics, so that no norm, gate or bias is without effect."""
    network, chance = detectors.build("tridos-nano"), torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            spread = (2 / value[0].numel()) ** 0.5 if value.ndim >= 2 else 0.2
            value.normal_(0.0, spread, generator=chance)
            if name.endswith(("running_var", "bn.weight")):
                value.abs_().add_(0.5)
    return network.eval()


def noise(count, height, width):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def streamed(model, frames, batch=1):
    stream = model.stream()
    return torch.cat([stream.push(part) for part in frames.split(batch)])


def difference(outputs, plain):
    return ((outputs - plain).abs().max() / plain.abs().max()).item()


# Exactness


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (96, 64), (160, 32)], ids=str)
@pytest.mark.parametrize("gamma", [0.0, 0.5], ids=["gamma 0", "gamma 0.5"])
def test_every_part_gives_what_the_plain_one_gives(size, gamma, lively):
    lively.neck.nolocal.gamma.data.fill_(gamma)
    frames = noise(6, *size)
    plain = streamed(lively, frames)
    assert plain.std() > 0.1
    assert difference(streamed(fused(lively), frames), plain) < EXACT


def test_batches_of_clips_give_what_the_plain_network_gives(lively):
    clips = noise(10, 64, 64).unflatten(0, (2, 5)).transpose(1, 2)
    with torch.inference_mode():
        assert difference(fused(lively)(clips), lively(clips)) < EXACT


def test_a_batch_gives_what_its_frames_give_one_by_one(lively):
    network, frames = fused(lively), noise(9, 64, 64)
    assert torch.equal(streamed(network, frames, batch=4), streamed(network, frames))


@pytest.mark.real_data
def test_what_is_found_in_real_frames_is_the_same(trained, drone_ir):
    with open_source(drone_ir / "videos" / "IR_DRONE_001.mp4", max_frames=40) as source:
        frames = to_network_input([frame.image for frame in source])
    plain, fast = (streamed(model, frames) for model in (trained, fused(trained)))
    assert difference(fast, plain) < EXACT
    found = 0
    for expected, given in zip(*(suppress.decode(x, conf=0.05, iou=0.5) for x in (plain, fast)), strict=True):
        found += len(expected[0])
        assert len(given[0]) == len(expected[0])
        torch.testing.assert_close(given[0], expected[0], rtol=0, atol=0.01)  # pixels
        torch.testing.assert_close(given[1], expected[1], rtol=0, atol=1e-3)
    assert found >= 20


# Half precision


def test_in_half_precision_spectra_and_outputs_stay_float32(lively):
    network = fused(lively, dtype=torch.bfloat16)
    assert network.neck.agpf.body[0].dw_amp_conv[0].weight.dtype == torch.float32
    assert network.neck.conv_cur.weight.dtype == torch.bfloat16
    assert streamed(network, noise(1, 32, 32)).dtype == torch.float32


def test_in_half_precision_the_output_is_close(trained):
    frames = noise(5, 64, 64)
    exact, half = (streamed(fused(trained, dtype=d), frames) for d in (torch.float32, torch.bfloat16))
    assert 0 < difference(half, exact) < HALF


# The two halves


def test_frames_may_begin_before_those_before_them_are_finished(lively):
    network, frames = fused(lively), noise(6, 64, 64)
    stream = network.stream()
    begun = [stream.begin(frame[None]) for frame in frames]
    assert torch.equal(torch.cat([stream.finish(parts) for parts in begun]), streamed(network, frames))


# What it was made of


def test_the_network_itself_stays_as_it_was(lively):
    before = {name: value.clone() for name, value in lively.state_dict().items()}
    plain = streamed(lively, noise(2, 32, 32))
    network = fused(lively, dtype=torch.bfloat16)
    streamed(network, noise(2, 32, 32))
    assert list(before) == list(lively.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in lively.state_dict().items())
    assert torch.equal(streamed(lively, noise(2, 32, 32)), plain)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
