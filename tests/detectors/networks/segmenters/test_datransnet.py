"""DATransNet has the state dict, outputs and loss of the published network; its fast attention is exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from detectors.networks.segmenters.datransnet import (
    DATransNet,
    DirectionalAttention,
    learning_rate,
    neighbour_differences,
)
from tests.detectors.networks.segmenters.reference_arrays import (
    arrays_of,
    filled,
    keys_of,
    largest_error,
    published_keys,
    record,
    strides,
)

MODULES = {
    "inc": ("inc", 4, 3),
    "enc1": ("encoder1", 4, 2),
    "enc2": ("encoder2", 8, 1),
    "enc3": ("encoder3", 8, 1),
    "enc4": ("encoder4", 4, 1),
    "dat1": ("contras1", 4, 3),
    "dat2": ("contras2", 4, 2),
    "dat3": ("contras3", 8, 1),
    "dat4": ("contras4", 8, 1),
    "nonlocal": ("GFEM.sp", 4, 1),
    "gfem_ca": ("GFEM.ca", 1, 1),
    "gfem": ("GFEM", 4, 1),
    "dec4": ("decoder4", 8, 1),
    "dec3": ("decoder3", 4, 1),
    "dec2": ("decoder2", 4, 2),
    "dec1": ("decoder1", 4, 3),
    "inception": ("outc.0", 4, 3),
    "logit": ("outc", 1, 1),
}
"""Name in datransnet.npz → submodule, channel and cell strides."""


@pytest.fixture(scope="module")
def model(parity):
    return filled(DATransNet(), parity)


@pytest.fixture(scope="module")
def frames(parity):
    return parity.make_input("datransnet-96", (1, 1, 96, 96))


@pytest.fixture(scope="module")
def whole(shared_root):
    return arrays_of(shared_root, "datransnet")


@pytest.fixture(scope="module")
def seen(model, frames):
    found = record(model, {name: path for name, (path, _, _) in MODULES.items()}, frames)
    levels = record(model, {"1": "inc", "2": "encoder1", "4": "encoder3"}, frames)
    with torch.inference_mode():
        found["att1_norm"] = model.contras1.scores(levels["1"])
        found["att2_softmax"] = model.contras2.scores(levels["2"]).softmax(-1)
        found["att4_softmax"] = model.contras4.scores(levels["4"]).softmax(-1)[..., ::2, ::2]
    return found


# The published network


@pytest.mark.real_data
def test_names_shapes_and_dtypes_are_those_of_the_published_network(shared_root):
    assert keys_of(DATransNet()) == published_keys(shared_root, "datransnet")


@pytest.mark.real_data
@pytest.mark.parametrize("name", MODULES)
def test_a_module_gives_what_the_published_one_gives(name, seen, whole):
    """Within 3e-3 where values reach 80, within 1e-3 where they reach 40, else within 3e-4.

    Processors without AVX-512 deviate by a third of that.
    """
    _, channels, side = MODULES[name]
    size = np.abs(whole[name]).max()
    tolerance = 3e-3 if name in ("nonlocal", "gfem") else 1e-3 if size > 20 else 3e-4
    assert largest_error(strides(seen[name], whole[name], channels, side), whole[name]) < tolerance


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["att1_norm", "att2_softmax", "att4_softmax"])
def test_attention_scores_are_the_published_ones(name, seen, whole):
    assert largest_error(seen[name], whole[name]) < 1e-5


@pytest.mark.real_data
def test_the_probability_is_the_published_one(model, frames, seen, whole):
    assert float(frames.double().sum()) == pytest.approx(float(whole["input_sum"]))
    assert largest_error(seen["result"], whole["out"]) < 2e-5
    with torch.inference_mode():
        torch.testing.assert_close(model.activation(frames), model(frames), rtol=0, atol=0)


@pytest.mark.real_data
def test_a_network_for_larger_images_gives_the_published_probability(parity, frames, whole):
    larger = filled(DATransNet(img_size=512), parity)
    with torch.inference_mode():
        found = larger.activation(frames)
    assert largest_error(found, whole["out_imgsize512"]) < 2e-5
    assert largest_error(found, whole["out"]) > 1e-3


@pytest.mark.real_data
def test_a_batch_that_is_not_square_gives_the_published_probability(model, parity, whole):
    frames = parity.make_input("datransnet-rect-64x96", (2, 1, 64, 96))
    with torch.inference_mode():
        assert largest_error(model.activation(frames), whole["rect_out"]) < 2e-5


# Attention without stored differences


def difference_maps(x: torch.Tensor, shift: int) -> torch.Tensor:
    """(B, C, H, W) → (B, 8·C, H, W): neighbours at distance `shift`, mirrored borders, minus the centre."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (shift,) * 4, mode="reflect")
    steps = [(i, j) for i in (0, shift, 2 * shift) for j in (0, shift, 2 * shift) if (i, j) != (shift, shift)]
    return torch.cat([padded[..., i : i + height, j : j + width] - x for i, j in steps], dim=1)


def attention_by_definition(module: DirectionalAttention, x: torch.Tensor) -> torch.Tensor:
    """Queries, keys and values of every shift in full, interleaved row by row, then head by head."""
    heads = len(module.shifts)
    maps = [difference_maps(x, shift) for shift in module.shifts]
    rows = {
        "query": [conv(x) for conv in module.query_convs],
        "key": [conv(each) for conv, each in zip(module.key_convs, maps, strict=True)],
        "value": [conv(each) for conv, each in zip(module.value_convs, maps, strict=True)],
    }
    joined = {}
    for name, parts in rows.items():
        order = [part[:, channel] for channel in range(parts[0].shape[1]) for part in parts]
        joined[name] = torch.stack(order, dim=1).flatten(2)
    outputs = []
    for query, key, value in zip(*(joined[name].chunk(heads, dim=1) for name in rows), strict=True):
        scores = F.normalize(query, dim=2) @ F.normalize(key, dim=2).transpose(1, 2) / module.divisor
        centred = scores - scores.mean((1, 2), keepdim=True)
        scores = centred / (centred.square().mean((1, 2), keepdim=True) + 1e-5).sqrt()
        outputs.append(scores.softmax(-1) @ value)
    return torch.cat(outputs, dim=1).unflatten(2, x.shape[-2:])


@pytest.mark.parametrize("shifts", [(1,), (1, 3), (1, 2, 3)], ids=["one shift", "two shifts", "three shifts"])
def test_attention_equals_its_definition(shifts):
    torch.manual_seed(0)
    module = DirectionalAttention(6, inner=18, shifts=shifts, divisor=64).double()
    x = torch.rand(3, 6, 12, 9, dtype=torch.float64)
    with torch.inference_mode():
        found, expected = module.attend(x), attention_by_definition(module, x)
    assert expected.std() > 1e-3
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_gradients_of_attention_equal_those_of_its_definition():
    torch.manual_seed(0)
    module = DirectionalAttention(4, inner=8, shifts=(1, 3), divisor=64).double()
    x = torch.rand(2, 4, 8, 10, dtype=torch.float64)
    weights = [p for name, p in module.named_parameters() if not name.startswith("out_conv")]
    probe = torch.randn(2, 8, 8, 10, dtype=torch.float64)
    found = torch.autograd.grad((module.attend(x) * probe).sum(), weights)
    expected = torch.autograd.grad((attention_by_definition(module, x) * probe).sum(), weights)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-7, atol=1e-12)


def test_differences_of_a_flat_map_are_nothing():
    x = torch.full((1, 3, 8, 8), 0.7)
    found = neighbour_differences(x, torch.randn(5, 24), 3)
    assert found.abs().max() < 1e-5


@pytest.mark.real_data
@pytest.mark.parametrize("kind", ["flat", "low contrast"])
def test_float32_equals_float64_on_difficult_images(kind, model):
    """Differences of nearly equal pixels are small beside the pixels that they are taken from."""
    torch.manual_seed(0)
    image = torch.full((1, 1, 64, 96), 0.4)
    if kind == "low contrast":
        image += 0.002 * torch.randn(image.shape)
    with torch.inference_mode():
        single = model.activation(image)
        double = model.double().activation(image.double())
        model.float()
    assert (single - double).abs().max() < 2e-5


# Interface


def test_training_and_evaluation_give_one_probability_map():
    model = DATransNet()
    frames = torch.rand(2, 1, 32, 64)
    outputs = model(frames)
    assert outputs.shape == (2, 1, 32, 64)
    assert 0 <= outputs.min() <= outputs.max() <= 1
    model.loss(outputs, (frames > 0.9).float(), frames).backward()
    idle = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is None}
    assert idle == {"encoder5", "decoder5"}


@pytest.mark.parametrize("size", [(48, 64), (33, 47)])
def test_sides_that_do_not_fit_are_refused_by_name(size):
    with pytest.raises(ValueError, match="expected multiples of 32"):
        DATransNet()(torch.zeros(1, 1, *size))


def test_an_impossible_image_size_is_refused():
    with pytest.raises(ValueError, match="img_size"):
        DATransNet(img_size=0)


def test_a_fresh_network_starts_without_its_non_local_branch():
    with torch.inference_mode():
        assert not DATransNet().eval().GFEM.sp(torch.rand(1, 128, 4, 4)).any()


def test_images_are_not_normalised():
    images = torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(DATransNet().normalise(images), images, rtol=0, atol=0)


# Loss and schedule


@pytest.mark.real_data
def test_loss_and_gradient_are_the_published_ones(model, shared_root):
    stored = arrays_of(shared_root, "datransnet.loss")
    logits = torch.from_numpy(stored["logits"]).requires_grad_()
    target = torch.from_numpy(stored["target"])
    loss = model.loss(torch.sigmoid(logits), target)
    loss.backward()
    assert loss.item() == pytest.approx(float(stored["loss"]), abs=1e-6)
    assert largest_error(logits.grad, stored["grad_logits"]) < 1e-8
    alone = [model.loss(torch.sigmoid(one), y).item() for one, y in zip(logits, target, strict=True)]
    assert alone == pytest.approx(stored["loss_each_sample_alone"].tolist(), abs=1e-6)
    several = [model.loss(torch.sigmoid(torch.from_numpy(m)), target).item() for m in stored["multi_logits"]]
    assert np.mean(several) == pytest.approx(float(stored["multi_loss"]), abs=1e-6)


@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 5e-4), (199, 5e-4), (200, 5e-5), (299.9, 5e-5), (300, 5e-6), (399, 5e-6)]
)
def test_the_rate_falls_twice(epoch, rate):
    assert learning_rate(epoch) == pytest.approx(rate)
