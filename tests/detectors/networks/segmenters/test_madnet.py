"""MAD-Net has the state dict, outputs, training behaviour, loss and schedule of the published network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detectors.networks.segmenters.madnet import (
    WINDOW,
    MADNet,
    MemoryAttention,
    StochasticDepth,
    learning_rate,
)
from tests.detectors.networks.segmenters.reference_arrays import (
    arrays_of,
    filled,
    keys_of,
    largest_error,
    published_keys,
    record,
)

SLICES = {
    "Conv1.conv1": (2, 15, 15),
    "Conv1.pa": (2, 15, 15),
    "Conv1": (2, 15, 15),
    "Convtans2": (4, 8, 7),
    "Convtans3": (8, 4, 4),
    "Convtans4": (16, 2, 2),
    "Conv5.conv1": (32, 1, 1),
    "Conv5.mema2m.0": (32, 1, 1),
    "Conv5.mema2m.1": (32, 1, 1),
    "Conv5": (32, 1, 1),
    "Up5": (16, 2, 2),
    "Up_conv5.conv1": (16, 2, 2),
    "Up_conv5.mema2m.0": (16, 2, 2),
    "Up_conv5.mema2m.1": (16, 2, 2),
    "Up_conv5": (16, 2, 2),
    "Up_conv4": (8, 4, 4),
    "Up_conv3": (4, 8, 7),
    "Up_conv2": (2, 15, 15),
}
"""Submodule → strides of channels, rows and columns in madnet.npz."""
TOKENS = [name for name in SLICES if ".mema2m." in name]
GATE = "Conv5.mema2m.1.attns.upnet"
MAPS = ["ds1", "ds2", "ds3", "ds4", "ds5", "out"]


@pytest.fixture(scope="module")
def model(parity):
    return filled(MADNet(), parity)


@pytest.fixture(scope="module")
def frames(parity):
    return parity.make_input("madnet-256", (1, 3, 256, 256))


@pytest.fixture(scope="module")
def whole(shared_root):
    return arrays_of(shared_root, "madnet")


@pytest.fixture(scope="module")
def seen(model, frames):
    found = record(model, {name: name for name in (*SLICES, GATE)}, frames)
    blocks = {name: tokens.permute(0, 3, 1, 2) for name, tokens in found.items() if name in TOKENS}
    found["Conv1.conv1"] = found["Conv1.conv1"].relu()  # stored after the activation that follows it
    return found | blocks | dict(zip(MAPS, found["result"], strict=True))


def relative_error(found: torch.Tensor, expected: np.ndarray) -> float:
    return largest_error(found, expected) / float(np.abs(expected).max())


# The published network


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("dim", "table"), [(16, "madnet"), (32, "madnet.dim32"), (64, "madnet.dim64")], ids=["16", "32", "64"]
)
def test_names_shapes_and_dtypes_are_those_of_the_published_network(dim, table, shared_root):
    model = MADNet(dim=dim)
    assert keys_of(model) == published_keys(shared_root, table)
    assert MADNet.infer_options(model.state_dict()) == {"dim": dim}


@pytest.mark.real_data
@pytest.mark.parametrize("name", SLICES)
def test_a_module_gives_what_the_published_one_gives(name, seen, whole):
    channels, rows, columns = SLICES[name]
    assert relative_error(seen[name][:, ::channels, ::rows, ::columns], whole[name]) < 5e-5


@pytest.mark.real_data
def test_the_gate_of_a_window_is_the_published_one(seen, whole):
    assert relative_error(seen[GATE].view(1, 1, -1), whole[GATE]) < 5e-5


@pytest.mark.real_data
@pytest.mark.parametrize("name", MAPS)
def test_each_of_the_six_maps_is_the_published_one(name, seen, whole):
    rows, columns = (1, 1) if name == "out" else (6, 5)
    assert relative_error(seen[name][..., ::rows, ::columns], whole[name]) < 5e-5


@pytest.mark.real_data
def test_the_merged_difference_kernel_is_the_published_one(model, whole):
    kernel, bias = model.Conv1.conv1.merged()
    assert relative_error(kernel, whole["Conv1.conv1.kernel"]) < 5e-5
    assert relative_error(bias, whole["Conv1.conv1.bias"]) < 5e-5


@pytest.mark.real_data
def test_the_probability_is_that_of_the_last_map(model, frames, seen):
    with torch.inference_mode():
        torch.testing.assert_close(model.activation(frames), torch.sigmoid(seen["out"]), rtol=0, atol=0)


# One step of training


@pytest.fixture(scope="module")
def step(parity):
    """Network, outputs and loss after one backward pass in float64, stochastic depth off."""
    model = filled(MADNet(), parity).double().train()
    for module in model.modules():
        if isinstance(module, StochasticDepth):
            module.eval()
    x = parity.make_input("madnet-train", (1, 3, 256, 256)).double()
    target = (parity.make_input("madnet-train-target", (1, 1, 256, 256)) > 0.85).double()
    outputs = model(x)
    loss = model.loss(outputs, target)
    loss.backward()
    return model, outputs, target, loss


@pytest.fixture(scope="module")
def trained(shared_root):
    return arrays_of(shared_root, "madnet.train")


@pytest.mark.real_data
def test_training_outputs_and_losses_are_the_published_ones(step, trained):
    model, outputs, target, loss = step
    assert float(target.sum()) == trained["target_sum"]
    each = [model.loss(logits, target).item() for logits in outputs]
    np.testing.assert_allclose(each, trained["losses"], rtol=1e-5)
    np.testing.assert_allclose(loss.item(), trained["loss"], rtol=1e-5)
    assert relative_error(outputs[-1][..., ::2, ::2].detach(), trained["out"]) < 1e-5


@pytest.mark.real_data
def test_gradients_are_the_published_ones(step, trained):
    parameters = dict(step[0].named_parameters())
    names = [name.removeprefix("gradnorm:") for name in trained if name.startswith("gradnorm:")]
    found = [float(parameters[name].grad.norm()) for name in names]
    np.testing.assert_allclose(found, [trained[f"gradnorm:{name}"] for name in names], rtol=1e-5)
    assert len(names) == 7
    assert all(p.grad is not None for p in parameters.values())


@pytest.mark.real_data
def test_batch_statistics_are_the_published_ones(step, trained):
    state = step[0].state_dict()
    names = [name for name in trained if ".running_" in name or name.endswith("num_batches_tracked")]
    assert len(names) == 6
    for name in names:
        assert relative_error(state[name], trained[name]) < 1e-5, name


# Attention in windows


def windowed_by_hand(attention: MemoryAttention, tokens: torch.Tensor, shift: int) -> torch.Tensor:
    """Definition: shift, split into windows, gate each window, merge, shift back."""
    rolled = tokens.roll((-shift, -shift), (1, 2))
    result = torch.empty_like(rolled)
    for top in range(0, tokens.shape[1], WINDOW):
        for left in range(0, tokens.shape[2], WINDOW):
            window = rolled[:, top : top + WINDOW, left : left + WINDOW].flatten(1, 2)
            gate = attention.gate(window.mean(1, keepdim=True))
            gated = attention.proj(window * gate)
            result[:, top : top + WINDOW, left : left + WINDOW] = gated.unflatten(1, (WINDOW, WINDOW))
    return result.roll((shift, shift), (1, 2))


@pytest.mark.parametrize("shift", [0, 8])
def test_all_windows_at_once_equal_window_by_window(shift):
    torch.manual_seed(0)
    attention = MemoryAttention(16).eval()
    tokens = torch.randn(2, 3 * WINDOW, 2 * WINDOW, 16)
    with torch.inference_mode():
        found, expected = attention(tokens, shift=shift), windowed_by_hand(attention, tokens, shift)
    assert torch.allclose(found, expected, atol=1e-6)
    assert found.std() > 0.1


def test_stochastic_depth_drops_whole_samples_in_training_only():
    torch.manual_seed(0)
    branch, layer = torch.ones(2000, 3, 2), StochasticDepth(0.25)
    dropped = layer(branch)
    kept = dropped[:, 0, 0] > 0
    torch.testing.assert_close(dropped, (kept / 0.75)[:, None, None].expand_as(branch), rtol=0, atol=0)
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)
    torch.testing.assert_close(layer.eval()(branch), branch, rtol=0, atol=0)


@pytest.mark.real_data
def test_stochastic_depth_rises_from_block_to_block(model):
    rates = [block.drop_path.rate for block in model.Conv5.mema2m]
    assert rates == pytest.approx([0, 1 / 30, 1 / 15, 0.1])


# Interface


def test_without_deep_supervision_there_is_one_map():
    model = MADNet(dim=2, deep_supervision=False).eval()
    frames = torch.rand(1, 3, 256, 512)
    with torch.inference_mode():
        assert model(frames).shape == (1, 1, 256, 512)
        torch.testing.assert_close(model.activation(frames), torch.sigmoid(model(frames)), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(128, 256), (256, 384)], ids=["too low", "not a multiple"])
def test_sides_that_do_not_fit_are_refused_by_name(size):
    with pytest.raises(ValueError, match="expected multiples of 256"):
        MADNet(dim=2)(torch.zeros(1, 3, *size))


@pytest.mark.parametrize("dim", [0, -16])
def test_an_impossible_width_is_refused(dim):
    with pytest.raises(ValueError, match="dim"):
        MADNet(dim=dim)


def test_a_grey_image_becomes_three_channels_with_the_constants_of_imagenet():
    found = MADNet(dim=2).normalise(torch.full((1, 1, 1, 1), 0.5)).flatten().tolist()
    assert found == pytest.approx([0.015 / 0.229, 0.044 / 0.224, 0.094 / 0.225], abs=1e-6)


# Loss and schedule


@pytest.mark.real_data
def test_the_loss_is_the_published_one(model, shared_root):
    stored = arrays_of(shared_root, "madnet.loss")
    logits, target = torch.from_numpy(stored["logits"]), torch.from_numpy(stored["target"])
    each = [float(model.loss(one, target)) for one in logits]
    assert each == pytest.approx(stored["soft_iou_each"].tolist(), abs=1e-6)
    assert float(model.loss(list(logits), target)) == pytest.approx(float(stored["soft_iou_sum"]), abs=1e-5)
    silent = float(model.loss(logits[0], torch.zeros_like(target)))
    assert silent == pytest.approx(float(stored["soft_iou_empty_target"]), abs=1e-6)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "base", "epochs"),
    [("lr_nuaa", 3e-4, 1500), ("lr_nudt", 1e-4, 1500), ("lr_irstd1k_sirstaug", 1e-4, 500)],
    ids=["NUAA-SIRST", "NUDT-SIRST", "IRSTD-1k and SIRST-AUG"],
)
def test_the_rate_of_every_epoch_is_the_published_one(name, base, epochs, shared_root):
    found = [learning_rate(epoch, epochs=epochs, base=base) for epoch in range(epochs)]
    np.testing.assert_allclose(found, arrays_of(shared_root, "madnet.lr")[name], rtol=1e-12)
